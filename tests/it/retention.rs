//! TTL indexes and plans against a real mongod: exact numbers, and not one write.

use bellwether::clock::Now;
use bellwether::config::environment::Environment;
use bellwether::config::retention::{Policy, Retention};
use bellwether::config::{Request, load};
use bellwether::metrics::Registry;
use bellwether::metrics::exposition::Format;
use bellwether::retention::{Guard, KeepReason, Plan, TtlObserver, plan, read_facts};
use bellwether::store::mongodb::{Mongo, Purpose};
use mongodb::bson::{Bson, DateTime, Document, Timestamp, doc, oid::ObjectId};
use mongodb::{Database, IndexModel};

use crate::mongod::{Mongod, profile, profiled};

const DATABASE: &str = "decisionbox";
const DAY: i64 = 86_400_000;
/// A time of our own for the tests of boundaries: 2025-11-21.
const NOW: i64 = 1_763_712_000_000;

fn config() -> Retention {
    let request = Request { profile: Some("decisionbox"), ..Request::default() };
    load(&request, &Environment::of([("MONGODB_URI", "mongodb://db")])).expect("the profile").retention
}

fn policy() -> Policy {
    config().policies.remove(0)
}

fn at(millis: i64) -> Bson {
    DateTime::from_millis(millis).into()
}

async fn insert(database: &Database, collection: &str, documents: Vec<Document>) {
    database.collection::<Document>(collection).insert_many(documents).await.expect("inserted");
}

async fn create_index(database: &Database, collection: &str, keys: Document) {
    let index = IndexModel::builder().keys(keys).build();
    database.collection::<Document>(collection).create_index(index).await.expect("an index");
}

fn failing(plan: &Plan) -> Vec<Guard> {
    plan.guards.iter().filter(|verdict| !verdict.passes).map(|verdict| verdict.guard).collect()
}

/// 30 documents of `busy`, 15 of them expired; 6 of `quiet`, 4 expired; and one of each kind that is never deleted.
async fn seed(database: &Database, now: i64) -> Vec<ObjectId> {
    let cutoff = now - 90 * DAY;
    let discovery =
        |project: &str, date: i64| doc! { "_id": ObjectId::new(), "project_id": project, "created_at": at(date), "big": "x".repeat(500) };
    let mut documents: Vec<Document> = (1..=15).map(|day| discovery("busy", cutoff - day * DAY)).collect();
    // Nine young ones: of the fifteen expired ones the newest one stays.
    documents.extend((0..9).map(|day| discovery("busy", now - day * DAY)));
    documents.extend((1..=4).map(|day| discovery("quiet", cutoff - day * DAY)));
    documents.extend((1..=2).map(|day| discovery("quiet", now - day * DAY)));
    let ids = documents.iter().map(|document| document.get_object_id("_id").expect("an id")).collect();
    let old = cutoff - DAY;
    for odd in [
        Bson::Null,
        "2020-01-01T00:00:00Z".into(),
        old.into(),
        1.5.into(),
        vec![at(old)].into(),
        vec![at(old), at(now)].into(),
        Bson::Array(Vec::new()),
        at(-62_135_596_800_000),
        at(0),
        at(now + 10 * DAY),
        at(253_402_300_799_000),
        ObjectId::new().into(),
        Timestamp { time: 1, increment: 1 }.into(),
        true.into(),
    ] {
        documents.push(doc! { "project_id": "odd", "created_at": odd });
    }
    documents.push(doc! { "project_id": "odd" });
    insert(database, "discoveries", documents).await;
    ids
}

async fn seed_children(database: &Database, ids: &[ObjectId]) {
    let of = |position: usize| doc! { "discovery_id": ids[position].to_hex() };
    // The first (newest expired) stays with its feedback; the others of `busy` would go.
    insert(database, "feedback", vec![of(0), of(1), of(14), of(14), of(20), doc! { "discovery_id": "unknown" }]).await;
    insert(database, "insights", (0..15).map(of).collect()).await;
    // Not the hex text: another reference than the one that is declared.
    insert(database, "bookmarks", vec![doc! { "discovery_id": ids[1] }, of(24)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_has_exact_numbers_and_writes_nothing() {
    let server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    let mongo = Mongo::new(&server.store(DATABASE), Purpose::Retention);
    let hello = database.run_command(doc! { "hello": 1 }).await.expect("an answer");
    let now = hello.get_datetime("localTime").expect("a time").timestamp_millis();
    let ids = seed(&database, now).await;
    seed_children(&database, &ids).await;
    create_index(&database, "discoveries", doc! { "created_at": -1 }).await;
    let before = contents(&database).await;
    profile(&database).await;

    let plan = plan(&policy(), &mongo, Now::read().wall).await.expect("a plan");
    println!("{plan}");
    assert_eq!((plan.total, plan.expired, plan.would_delete, plan.batches), (45, 19, 14, 1));
    let kept: Vec<(KeepReason, u64)> = plan.kept.iter().map(|kept| (kept.reason, kept.documents)).collect();
    let expected = [
        (KeepReason::Young, 11),
        (KeepReason::AmongNewest, 5),
        (KeepReason::Held, 0),
        (KeepReason::Future, 2),
        (KeepReason::BeforeFloor, 2),
        (KeepReason::Missing, 1),
        (KeepReason::Null, 1),
        (KeepReason::Text, 1),
        (KeepReason::Number, 2),
        (KeepReason::List, 3),
        (KeepReason::OtherType, 3),
    ];
    assert_eq!(kept, expected);
    assert_eq!(
        plan.would_delete + expected.iter().map(|(_, documents)| documents).sum::<u64>(),
        plan.total,
        "every document has one place"
    );
    let children: Vec<(&str, Option<u64>)> = plan.children.iter().map(|child| (child.collection.as_str(), child.documents)).collect();
    assert_eq!(children, [("feedback", Some(3)), ("insights", Some(14)), ("recommendations", Some(0)), ("bookmarks", Some(0))]);
    assert_eq!(plan.index.as_deref(), Some("created_at_-1"));
    assert_eq!(plan.oldest.map(|oldest| oldest.as_millisecond()), Some(now - 105 * DAY));
    assert!(plan.estimated_bytes.is_some_and(|bytes| (100 * 14..600 * 14).contains(&bytes)), "{:?}", plan.estimated_bytes);
    assert_eq!(failing(&plan), [Guard::Fraction]);
    let json = serde_json::to_value(&plan).expect("JSON");
    assert_eq!((json["would_delete"].as_u64(), json["kept"][1]["reason"].as_str()), (Some(14), Some("among_newest")));

    assert_eq!(contents(&database).await, before);
    let operations = profiled(&database).await;
    assert!(operations.len() > 10);
    for operation in operations {
        let command = operation.get_document("command").expect("a command");
        let name = command.keys().next().map_or("", String::as_str);
        assert!(["find", "aggregate", "count", "hello", "explain", "getMore"].contains(&name), "{operation}");
        assert!(!operation.to_string().contains("$out") && !operation.to_string().contains("$merge"), "{operation}");
        assert!(command.contains_key("maxTimeMS") || ["hello", "getMore"].contains(&name), "has no limit: {operation}");
        assert!(name != "find" || command.contains_key("projection"), "loads documents: {operation}");
    }
}

/// Everything in the application's collections, and their indexes.
async fn contents(database: &Database) -> Vec<String> {
    let mut found = Vec::new();
    let mut names = database.list_collection_names().await.expect("names");
    names.retain(|name| !name.starts_with("system."));
    names.sort();
    for name in names {
        let collection = database.collection::<Document>(&name);
        found.push(format!("{name} {:?}", collection.list_index_names().await.expect("indexes")));
        let mut cursor = collection.find(doc! {}).sort(doc! { "_id": 1 }).await.expect("documents");
        while cursor.advance().await.expect("a document") {
            found.push(cursor.deserialize_current().expect("a document").to_string());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cutoff_is_exact_to_the_millisecond_and_an_index_is_demanded() {
    let server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    let mongo = Mongo::new(&server.store(DATABASE), Purpose::Retention);
    let mut policy = Policy { keep_last: None, ..policy() };
    let cutoff = NOW - 90 * DAY;
    let empty = read_facts(&policy, &mongo, NOW).await.expect("facts");
    assert_eq!((empty.total, empty.expired, empty.oldest, empty.access.scans), (0, 0, None, false));

    let floor = 946_684_800_000;
    let dates = [cutoff - 1, cutoff, cutoff + 1, NOW, NOW + 1, floor - 1, floor];
    insert(&database, "discoveries", dates.iter().map(|date| doc! { "created_at": at(*date) }).collect()).await;
    let facts = read_facts(&policy, &mongo, NOW).await.expect("facts");
    assert_eq!((facts.expired, facts.young, facts.future, facts.before_floor, facts.total), (2, 3, 1, 1, 7));
    assert_eq!((facts.oldest, facts.access.scans, facts.access.index.as_deref()), (Some(floor), true, None));
    let host = bellwether_time(NOW);
    assert_eq!(failing(&Plan::of(&policy, &facts, host).expect("a plan")), [Guard::Fraction, Guard::Index]);

    create_index(&database, "discoveries", doc! { "created_at": 1 }).await;
    let facts = read_facts(&policy, &mongo, NOW + 1).await.expect("facts");
    assert_eq!((facts.expired, facts.young, facts.future, facts.access.scans), (3, 3, 0, false));
    assert_eq!(failing(&Plan::of(&policy, &facts, host).expect("a plan")), [Guard::Fraction]);

    // A date within a list of documents is not the date of the document.
    insert(&database, "nested", vec![doc! { "a": [{ "b": at(floor) }, { "b": at(NOW) }] }, doc! { "a": { "b": at(floor) } }]).await;
    (policy.collection, policy.field) = ("nested".to_owned(), "a.b".to_owned());
    let facts = read_facts(&policy, &mongo, NOW).await.expect("facts");
    assert_eq!((facts.expired, facts.list, facts.missing, facts.total, facts.oldest), (1, 1, 0, 2, Some(floor)));
}

fn bellwether_time(millis: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(millis).expect("a time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn declared_ttl_indexes_are_observed_as_they_are() {
    let server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    let mut registry = Registry::default();
    let mut observer = TtlObserver::new(&config().ttl, &server.store(DATABASE), &mut registry);
    let create = async |collection: &str, field: &str, seconds: Bson| {
        let index = doc! { "key": { field: 1 }, "name": format!("{field}_{seconds}"), "expireAfterSeconds": seconds };
        database.run_command(doc! { "createIndexes": collection, "indexes": [index] }).await.expect("an index");
    };
    create("discovery_debug_logs", "timestamp", 2_592_000_i32.into()).await;
    create("search_history", "created_at", 0_i32.into()).await;
    create("project_schema_index_logs", "created_at", 604_800_i64.into()).await;
    let descending = doc! { "key": { "created_at": -1 }, "name": "shorter", "expireAfterSeconds": 86_400.5 };
    let shorter = doc! { "createIndexes": "project_schema_index_logs", "indexes": [descending] };
    database.run_command(shorter).await.expect("a second index");
    observer.observe().await;
    let exposed = |name: &str, collection: &str, field: &str| {
        let text = Format::Text.write(&registry).expect("an exposition");
        let series = format!("bellwether_ttl_{name}{{collection=\"{collection}\",field=\"{field}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&series)?.parse::<f64>().ok())
    };
    let row = |collection: &str, field: &str| {
        ["index_present", "expire_after_seconds", "declared_seconds"].map(|name| exposed(name, collection, field))
    };
    assert_eq!(row("discovery_debug_logs", "timestamp"), [Some(1.0), Some(2_592_000.0), Some(2_592_000.0)]);
    assert_eq!(row("discovery_debug_logs", "created_at"), [Some(0.0), None, Some(2_592_000.0)]);
    assert_eq!(row("search_history", "created_at"), [Some(1.0), Some(0.0), Some(7_776_000.0)]);
    assert_eq!(row("project_schema_cache", "cached_at"), [None, None, Some(604_800.0)]);
    let [present, shortest, _] = row("project_schema_index_logs", "created_at");
    assert_eq!(present, Some(1.0));
    assert!(shortest.is_some_and(|seconds| (86_400.0..86_401.0).contains(&seconds)), "{shortest:?}");

    // Another's change is seen, and nothing is put right.
    let change = doc! { "collMod": "discovery_debug_logs", "index": { "keyPattern": { "timestamp": 1 }, "expireAfterSeconds": 60 } };
    database.run_command(change).await.expect("changed");
    database.collection::<Document>("search_history").drop_indexes().await.expect("dropped");
    observer.observe().await;
    assert_eq!(row("discovery_debug_logs", "timestamp"), [Some(1.0), Some(60.0), Some(2_592_000.0)]);
    assert_eq!(row("search_history", "created_at"), [Some(0.0), None, Some(7_776_000.0)]);

    drop(server);
    for _ in 0..3 {
        observer.observe().await;
    }
    assert_eq!(row("discovery_debug_logs", "timestamp"), [None, None, Some(2_592_000.0)], "unknown is absent");
}
