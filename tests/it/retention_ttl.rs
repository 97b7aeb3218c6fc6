//! TTL indexes against a real mongod: what never expires is counted, those that the sidecar owns are put right, and those
//! of the application are never touched.

use std::sync::Arc;
use std::time::Duration;

use bellwether::config::retention::{Guards, Mode, Owner, Retention, Ttl};
use bellwether::metrics::Registry;
use bellwether::metrics::exposition::Format;
use bellwether::retention::{Census, TtlObserver, TtlOwner, Undated, census};
use bellwether::store::mongodb::{Mongo, Purpose};
use mongodb::bson::{Bson, DateTime, Document, doc};
use mongodb::options::ClientOptions;
use mongodb::{Client, Database};

use crate::mongod::{Mongod, profile, profiled};
use crate::retention_bench::{DATABASE, DAY, at};
use crate::sidecar::{Setup, eventually};

const WEEK: i64 = 604_800;

fn ttl(owner: Owner) -> Ttl {
    Ttl { collection: "audit".to_owned(), field: "at".to_owned(), expire_after: Duration::from_secs(604_800), owner }
}

fn settings(owner: Owner, max_fraction: f64) -> Retention {
    let guards = Guards { max_fraction, ..Guards::default() };
    Retention { mode: Mode::Enforce, guards, ttl: vec![ttl(owner)], ..Retention::default() }
}

fn mongo(server: &Mongod) -> Mongo {
    Mongo::new(&server.store(DATABASE), Purpose::Retention)
}

async fn enforce(server: &Mongod, settings: &Retention) -> Vec<String> {
    TtlOwner::new(Arc::new(mongo(server))).enforce(settings).await
}

async fn audit(database: &Database, ages: impl IntoIterator<Item = i64>) {
    let now = DateTime::now().timestamp_millis();
    let documents = ages.into_iter().map(|days| doc! { "at": at(now - days * DAY) });
    database.collection::<Document>("audit").insert_many(documents).await.expect("inserted");
}

/// The indexes with a time to live: key and seconds.
async fn expiring(database: &Database) -> Vec<(Document, Bson)> {
    let mut cursor = database.run_cursor_command(doc! { "listIndexes": "audit" }).await.expect("the indexes");
    let mut found = Vec::new();
    while cursor.advance().await.expect("an index") {
        let index = cursor.deserialize_current().expect("an index");
        if let Some(seconds) = index.get("expireAfterSeconds") {
            found.push((index.get_document("key").expect("a key").clone(), seconds.clone()));
        }
    }
    found
}

async fn create(database: &Database, seconds: impl Into<Bson>) {
    let index = doc! { "key": { "at": 1 }, "name": "theirs", "expireAfterSeconds": seconds.into() };
    database.run_command(doc! { "createIndexes": "audit", "indexes": [index] }).await.expect("an index");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_the_sidecar_owns_is_made_after_a_count_and_its_seconds_put_right() {
    let server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    assert!(enforce(&server, &settings(Owner::Sidecar, 0.2)).await.is_empty(), "the collection is the application's to make");
    // Three of ten would vanish at once.
    audit(&database, [8, 9, 10, 1, 1, 1, 1, 1, 1, 1]).await;
    assert!(enforce(&server, &settings(Owner::Sidecar, 0.2)).await.is_empty());
    assert!(expiring(&database).await.is_empty(), "more would vanish than may");
    assert_eq!(enforce(&server, &settings(Owner::Sidecar, 0.3)).await.len(), 1);
    let week = [(doc! { "at": 1 }, Bson::from(604_800_i32))];
    assert_eq!(expiring(&database).await, week);
    assert!(enforce(&server, &settings(Owner::Sidecar, 0.3)).await.is_empty(), "it is as it should be");

    // Somebody has made it longer, shorter, nothing and no number: it is put right.
    for seconds in [Bson::from(WEEK * 10), 60.into(), 0.into()] {
        let change = doc! { "collMod": "audit", "index": { "keyPattern": { "at": 1 }, "expireAfterSeconds": seconds } };
        database.run_command(change).await.expect("changed");
        assert_eq!(enforce(&server, &settings(Owner::Sidecar, 0.3)).await.len(), 1);
        assert_eq!(expiring(&database).await, week);
    }
    // Shorter than it is: counted before.
    let mut shorter = settings(Owner::Sidecar, 0.3);
    shorter.ttl[0].expire_after = Duration::from_secs(3600);
    assert!(enforce(&server, &shorter).await.is_empty());
    assert_eq!(expiring(&database).await, week, "ten of ten would vanish");
    database.collection::<Document>("audit").drop_indexes().await.expect("dropped");
    assert_eq!(enforce(&server, &settings(Owner::Sidecar, 0.3)).await.len(), 1, "one that was dropped is made again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_of_the_application_is_never_touched_whatever_it_says() {
    let server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    audit(&database, [1, 2, 30]).await;
    profile(&database).await;
    let settings = settings(Owner::Application, 1.0);
    for seconds in [None, Some(Bson::from(60)), Some(0.into()), Some(f64::NAN.into())] {
        database.collection::<Document>("audit").drop_indexes().await.expect("dropped");
        if let Some(seconds) = &seconds {
            create(&database, seconds.clone()).await;
        }
        let before = format!("{:?}", expiring(&database).await);
        assert!(enforce(&server, &settings).await.is_empty());
        TtlObserver::new(&settings.ttl, &server.store(DATABASE), &mut Registry::default()).observe().await;
        assert_eq!(format!("{:?}", expiring(&database).await), before);
    }
    let asked = profiled(&database).await;
    let is_write = |entry: &Document| {
        let command = entry.get_document("command").cloned().unwrap_or_default();
        !matches!(entry.get_str("op"), Ok("query" | "getmore" | "command"))
            || ["createIndexes", "collMod", "dropIndexes"].iter().any(|name| command.contains_key(name))
    };
    assert!(!asked.is_empty() && !asked.iter().any(is_write), "{asked:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_without_a_time_to_live_is_never_made_one_that_deletes() {
    let server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    audit(&database, [1, 2, 3]).await;
    let index = mongodb::IndexModel::builder().keys(doc! { "at": 1 }).build();
    database.collection::<Document>("audit").create_index(index).await.expect("an index");
    assert!(enforce(&server, &settings(Owner::Sidecar, 1.0)).await.is_empty());
    assert!(expiring(&database).await.is_empty());
    let only_plans = Retention { mode: Mode::Plan, ..settings(Owner::Sidecar, 1.0) };
    database.collection::<Document>("audit").drop_indexes().await.expect("dropped");
    assert!(enforce(&server, &only_plans).await.is_empty() && expiring(&database).await.is_empty());
}

fn never(census: &Census) -> Vec<(Undated, u64)> {
    census.never.iter().map(|never| (never.reason, never.documents)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_expires_and_what_is_past_due_is_counted() {
    let server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    let mongo = mongo(&server);
    let ttl = ttl(Owner::Application);
    assert_eq!(census(&mongo, &ttl).await.expect("an answer"), None, "there is no such collection");
    audit(&database, [30, 20, 8, 1, -5]).await;
    let now = DateTime::now().timestamp_millis();
    let odd = [
        doc! {},
        doc! { "at": Bson::Null },
        doc! { "at": "2020-01-01" },
        doc! { "at": now },
        doc! { "at": 1.5 },
        doc! { "at": [] },
        doc! { "at": ["x", 1] },
        doc! { "at": true },
        doc! { "at": [at(now - 40 * DAY), "x"] },
    ];
    database.collection::<Document>("audit").insert_many(odd).await.expect("inserted");
    let without = census(&mongo, &ttl).await.expect("an answer").expect("a census");
    assert_eq!((without.index_seconds, without.past_due, without.documents, without.is_estimate), (None, None, 14, false));
    create(&database, 604_800).await;
    let with = census(&mongo, &ttl).await.expect("an answer").expect("a census");
    // The list with one old date is deleted, too.
    assert_eq!((with.index_seconds, with.past_due), (Some(604_800.0), Some(4)), "{with}");
    let expected = [
        (Undated::Missing, 1),
        (Undated::Null, 1),
        (Undated::Text, 1),
        (Undated::Number, 2),
        (Undated::EmptyList, 1),
        (Undated::List, 1),
        (Undated::Other, 1),
    ];
    assert_eq!(never(&with), expected);

    let mut registry = Registry::default();
    TtlObserver::new(std::slice::from_ref(&ttl), &server.store(DATABASE), &mut registry).observe().await;
    let text = Format::Text.write(&registry).expect("an exposition");
    for line in [
        "bellwether_ttl_never_expiring_documents{collection=\"audit\",field=\"at\",type=\"number\"} 2",
        "bellwether_ttl_past_due_documents{collection=\"audit\",field=\"at\"} 4",
    ] {
        assert!(text.contains(line), "{text}");
    }

    for seconds in [Bson::from(0), f64::NAN.into()] {
        database.collection::<Document>("audit").drop_indexes().await.expect("dropped");
        create(&database, seconds.clone()).await;
        let odd = census(&mongo, &ttl).await.expect("an answer").expect("a census").to_string();
        // Older servers keep NaN, newer ones make of it what never comes.
        let wanted: &[&str] = if seconds == Bson::from(0) { &["says 0 s"] } else { &["says NaN", "make of NaN"] };
        assert!(wanted.iter().any(|wanted| odd.contains(wanted)), "{seconds}: {odd}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_collection_is_drawn_from_and_not_read() {
    let server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    let documents = (0..20_000).map(|number| {
        if number % 4 == 0 {
            doc! {}
        } else {
            doc! { "at": DateTime::now() }
        }
    });
    database.collection::<Document>("audit").insert_many(documents).await.expect("inserted");
    profile(&database).await;
    let census = census(&mongo(&server), &ttl(Owner::Application)).await.expect("an answer").expect("a census");
    assert!(census.is_estimate && census.documents == 20_000);
    // A quarter, by a thousand draws: more than eight deviations off comes never.
    assert!(matches!(never(&census)[..], [(Undated::Missing, missing)] if (2800..7200).contains(&missing)), "{census}");
    let examined: Vec<i32> = profiled(&database).await.iter().filter_map(|entry| entry.get_i32("docsExamined").ok()).collect();
    assert!(examined.iter().all(|examined| *examined <= 2000), "{examined:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_privilege_that_is_missing_is_named_and_the_rest_goes_on() {
    let on =
        |collection: &str, actions: &[&str]| doc! { "resource": { "db": DATABASE, "collection": collection }, "actions": actions.to_vec() };
    let reader = on("", &["find", "listIndexes"]);
    let keeper = ["find", "insert", "update"];
    let mut privileges = vec![reader, on("bellwether_leases", &keeper), on("bellwether_retention", &keeper)];
    let creator = [privileges.clone(), vec![on("audit", &["createIndex"])]].concat();
    privileges.truncate(3);
    let server = Mongod::start_with_users(DATABASE, &[("keeper", privileges), ("creator", creator)]).await;
    let options = ClientOptions::parse(server.uri_of("root", "admin")).await.expect("a connection string");
    let root = Client::with_options(options).expect("a client").database(DATABASE);
    audit(&root, [1, 2, 3]).await;
    let logs_of = |user: &str, seconds: u32, wanted: &'static str| {
        let text = format!(
            "stores: {{ mongodb: {{ uri: \"{}\", database: {DATABASE} }} }}
retention:
  mode: enforce
  guards: {{ max_fraction: 1.0 }}
  ttl: [{{ collection: audit, field: at, expire_after: {seconds}s, owner: sidecar }}]
",
            server.uri_of(user, DATABASE)
        );
        tokio::task::spawn_blocking(move || {
            let sidecar = Setup::default().config(&text).start();
            eventually(wanted, || sidecar.log(), |log| log.contains(wanted));
            assert_eq!(sidecar.get("/livez").status, 200);
            // The lease is given back, so that the next one need not wait for its end.
            drop(sidecar.stop());
        })
    };
    logs_of("keeper", 864_000, "grant the user `createIndex` on the collection").await.expect("it is named");
    assert!(expiring(&root).await.is_empty());
    logs_of("creator", 864_000, "a TTL index was put right").await.expect("it is made");
    logs_of("creator", 950_400, "grant the user `collMod` on the collection").await.expect("it is named");
    assert_eq!(expiring(&root).await, [(doc! { "at": 1 }, Bson::from(864_000_i32))]);
}
