//! The application starts again after everything that retention has enforced: DecisionBox's API and agent declare their
//! indexes at each start, and end where the server refuses one.
//!
//! The API itself cannot be had here: its modules are not served by Go's module proxy. What is sent instead is what it
//! sends: the commands `createIndexes` of its start, one an index, with the names that its driver makes.

use mongodb::Database;
use mongodb::bson::{Bson, DateTime, Document, doc};

use crate::mongod::Mongod;
use crate::retention_bench::{DAY, at};
use crate::sidecar::{Setup, command, eventually};

const DATABASE: &str = "decisionbox";

/// Collection, keys, and what else the index says.
type Index = (&'static str, Document, Document);

/// The indexes that the API makes at each start.
fn of_the_api() -> Vec<Index> {
    let ttl = |seconds: i32| doc! { "expireAfterSeconds": seconds };
    let unique = || doc! { "unique": true };
    let partial = doc! { "partialFilterExpression": { "schema_index_status": { "$exists": true } } };
    let mut indexes = vec![
        ("projects", doc! { "created_at": -1 }, doc! {}),
        ("projects", doc! { "domain": 1 }, doc! {}),
        ("projects", doc! { "status": 1 }, doc! {}),
        ("projects", doc! { "schema_index_status": 1, "updated_at": 1 }, partial),
        ("discoveries", doc! { "project_id": 1, "discovery_date": -1 }, doc! {}),
        ("discoveries", doc! { "project_id": 1 }, doc! {}),
        ("discoveries", doc! { "created_at": -1 }, doc! {}),
        ("project_context", doc! { "project_id": 1 }, unique()),
        ("project_context", doc! { "updated_at": -1 }, doc! {}),
        ("discovery_runs", doc! { "project_id": 1, "started_at": -1 }, doc! {}),
        ("discovery_runs", doc! { "status": 1 }, doc! {}),
        ("feedback", doc! { "discovery_id": 1 }, doc! {}),
        ("feedback", doc! { "discovery_id": 1, "target_type": 1, "target_id": 1 }, unique()),
        ("discovery_debug_logs", doc! { "project_id": 1, "timestamp": -1 }, doc! {}),
        ("discovery_debug_logs", doc! { "discovery_run_id": 1, "created_at": 1 }, doc! {}),
        ("discovery_debug_logs", doc! { "timestamp": 1 }, ttl(2_592_000)),
        ("secrets", doc! { "namespace": 1, "project_id": 1, "key": 1 }, unique()),
        ("search_history", doc! { "user_id": 1, "created_at": -1 }, doc! {}),
        ("search_history", doc! { "created_at": 1 }, ttl(7_776_000)),
        ("ask_sessions", doc! { "project_id": 1, "updated_at": -1 }, doc! {}),
        ("ask_sessions", doc! { "user_id": 1, "updated_at": -1 }, doc! {}),
        ("domain_packs", doc! { "slug": 1 }, unique()),
        ("project_schema_index_progress", doc! { "project_id": 1 }, unique()),
        ("project_schema_cache", doc! { "project_id": 1, "warehouse_hash": 1 }, doc! {}),
        ("project_schema_cache", doc! { "cached_at": 1 }, ttl(604_800)),
        ("project_schema_index_logs", doc! { "project_id": 1, "created_at": 1 }, doc! {}),
        ("project_schema_index_logs", doc! { "created_at": 1 }, ttl(604_800)),
    ];
    for collection in ["insights", "recommendations"] {
        indexes.push((collection, doc! { "project_id": 1, "created_at": -1 }, doc! {}));
        indexes.push((collection, doc! { "discovery_id": 1 }, doc! {}));
        indexes.push((collection, doc! { "embedding_model": 1 }, doc! {}));
    }
    indexes
}

/// Those that the agent makes in each run.
fn of_the_agent() -> Vec<Index> {
    vec![
        ("discovery_debug_logs", doc! { "app_id": 1, "discovery_run_id": 1, "timestamp": 1 }, doc! {}),
        ("discovery_debug_logs", doc! { "app_id": 1, "log_type": 1, "timestamp": -1 }, doc! {}),
        ("discovery_debug_logs", doc! { "app_id": 1, "success": 1 }, doc! {}),
        ("discovery_debug_logs", doc! { "app_id": 1, "user_count": 1, "is_valid": 1 }, doc! {}),
        ("discovery_debug_logs", doc! { "created_at": 1 }, doc! { "expireAfterSeconds": 2_592_000_i32 }),
        ("discoveries", doc! { "project_id": 1, "discovery_date": -1 }, doc! {}),
    ]
}

/// A start of the API, and an agent's run after it. The code with which the server refuses an index ends the start.
async fn start(database: &Database) -> Result<(), i32> {
    for (collection, key, options) in of_the_api().into_iter().chain(of_the_agent()) {
        let name: Vec<String> = key.iter().map(|(field, direction)| format!("{field}_{direction}")).collect();
        let mut index = doc! { "key": key, "name": name.join("_") };
        index.extend(options);
        let made = database.run_command(doc! { "createIndexes": collection, "indexes": [index] }).await;
        made.map_err(|error| match *error.kind {
            mongodb::error::ErrorKind::Command(refusal) => refusal.code,
            other => panic!("no refusal: {other:?}"),
        })?;
    }
    Ok(())
}

/// Every index of the application's collections, as the server tells it.
async fn indexes(database: &Database) -> Vec<String> {
    let mut found = Vec::new();
    for collection in of_the_api().into_iter().map(|(collection, ..)| collection).collect::<std::collections::BTreeSet<_>>() {
        let mut cursor = database.run_cursor_command(doc! { "listIndexes": collection }).await.expect("the indexes");
        while cursor.advance().await.expect("an index") {
            found.push(format!("{collection} {}", cursor.deserialize_current().expect("an index")));
        }
    }
    found.sort();
    found
}

fn config(server: &Mongod, archive: &std::path::Path) -> String {
    format!(
        "profile: decisionbox
stores: {{ mongodb: {{ uri: \"{}\", database: {DATABASE} }} }}
retention:
  mode: enforce
  soak: 0s
  lease: 3s
  archive: file://{}
  guards: {{ max_fraction: 1.0 }}
  ttl: [{{ collection: audit, field: at, expire_after: 30d, owner: sidecar }}]
",
        server.uri(),
        archive.display()
    )
}

/// Old and young ones in every collection that retention may touch.
async fn seed(database: &Database) {
    let now = DateTime::now().timestamp_millis();
    let aged = |days: i64| at(now - days * DAY);
    let discoveries: Vec<Document> =
        (0..60).map(|number| doc! { "project_id": "p", "discovery_date": aged(number * 5), "created_at": aged(number * 5) }).collect();
    let inserted = database.collection::<Document>("discoveries").insert_many(discoveries).await.expect("inserted");
    let ids: Vec<String> = inserted.inserted_ids.values().filter_map(Bson::as_object_id).map(|id| id.to_hex()).collect();
    for collection in ["feedback", "insights", "recommendations", "bookmarks"] {
        let of_them = ids.iter().map(|id| doc! { "discovery_id": id, "created_at": aged(1) });
        database.collection::<Document>(collection).insert_many(of_them).await.expect("inserted");
    }
    for (collection, field) in [("discovery_debug_logs", "timestamp"), ("search_history", "created_at"), ("audit", "at")] {
        let documents = (0..10).map(|number| doc! { field: aged(number * 20) });
        database.collection::<Document>(collection).insert_many(documents).await.expect("inserted");
    }
}

/// Lets the sidecar lead until its own index is there.
fn enforced(server: &Mongod, archive: &std::path::Path, wanted: &'static str) {
    let sidecar = Setup::default().config(&config(server, archive)).start();
    eventually(wanted, || sidecar.log(), |log| log.contains(wanted));
    drop(sidecar.stop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_application_starts_before_between_and_after_everything_that_is_enforced() {
    let server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    let folder = tempfile::tempdir().expect("a folder");
    let archive = folder.path().join("archive");
    // Here first, over an empty database, and for longer than its first look at the indexes.
    let lead = |wanted| tokio::task::block_in_place(|| enforced(&server, &archive, wanted));
    lead("this process leads");
    start(&database).await.expect("its first start, after the sidecar's");
    let declared = indexes(&database).await;
    seed(&database).await;
    start(&database).await.expect("a start between");

    lead("a TTL index was put right");
    let file = folder.path().join("bellwether.yaml");
    std::fs::write(&file, config(&server, &archive)).expect("written");
    let run = command().args(["retention", "apply", "--now", "--yes", "--json", "--config"]).arg(&file).output().expect("its end");
    assert_eq!(run.status.code(), Some(0), "{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    let left = database.collection::<Document>("discoveries").count_documents(doc! {}).await.expect("a number");
    assert!((10..60).contains(&left), "the run has deleted: {left} are left");

    start(&database).await.expect("a start after a run that deleted, and indexes that were enforced");
    assert_eq!(indexes(&database).await, declared, "the application's indexes are as it has declared them");
}

/// What the test above would see if retention did what it must not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_somebody_changed_would_end_the_applications_start() {
    let server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    start(&database).await.expect("a start");
    let change = doc! { "collMod": "search_history", "index": { "keyPattern": { "created_at": 1 }, "expireAfterSeconds": 60 } };
    database.run_command(change).await.expect("changed");
    assert_eq!(start(&database).await, Err(85), "IndexOptionsConflict");
    // An index of the same key by another name is refused, too: retention makes none on what the profile declares.
    database.collection::<Document>("search_history").drop_indexes().await.expect("dropped");
    let ours = doc! { "key": { "created_at": 1 }, "name": "bellwether_ttl_created_at", "expireAfterSeconds": 60 };
    database.run_command(doc! { "createIndexes": "search_history", "indexes": [ours] }).await.expect("made");
    assert_eq!(start(&database).await, Err(85), "IndexOptionsConflict");
}
