//! The application's database: its collections and indexes, documents to begin with, and runs that go on ending.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use futures_util::TryStreamExt;
use mongodb::bson::{Document, doc};
use mongodb::options::{ClientOptions, IndexOptions};
use mongodb::{Client, Database, IndexModel};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinHandle;

use crate::documents;

const DAY: u64 = 86_400;
const FEED_INTERVAL: Duration = Duration::from_secs(2);
const SECOND: Duration = Duration::from_secs(1);

/// An index as the application declares it at each of its starts.
struct Index {
    collection: &'static str,
    keys: &'static [(&'static str, i32)],
    unique: bool,
    expire_after: Option<u64>,
}

const fn plain(collection: &'static str, keys: &'static [(&'static str, i32)]) -> Index {
    Index { collection, keys, unique: false, expire_after: None }
}

const fn unique(collection: &'static str, keys: &'static [(&'static str, i32)]) -> Index {
    Index { collection, keys, unique: true, expire_after: None }
}

const fn ttl(collection: &'static str, keys: &'static [(&'static str, i32)], days: u64) -> Index {
    Index { collection, keys, unique: false, expire_after: Some(days * DAY) }
}

const INDEXES: &[Index] = &[
    plain("projects", &[("created_at", -1)]),
    plain("projects", &[("domain", 1)]),
    plain("projects", &[("status", 1)]),
    plain("discoveries", &[("project_id", 1), ("discovery_date", -1)]),
    plain("discoveries", &[("project_id", 1)]),
    plain("discoveries", &[("created_at", -1)]),
    unique("project_context", &[("project_id", 1)]),
    plain("project_context", &[("updated_at", -1)]),
    plain("discovery_runs", &[("project_id", 1), ("started_at", -1)]),
    plain("discovery_runs", &[("status", 1)]),
    plain("feedback", &[("discovery_id", 1)]),
    unique("feedback", &[("discovery_id", 1), ("target_type", 1), ("target_id", 1)]),
    plain("discovery_debug_logs", &[("project_id", 1), ("timestamp", -1)]),
    plain("discovery_debug_logs", &[("discovery_run_id", 1), ("created_at", 1)]),
    // Two of them: the API declares the one, the agent the other.
    ttl("discovery_debug_logs", &[("timestamp", 1)], 30),
    ttl("discovery_debug_logs", &[("created_at", 1)], 30),
    plain("discovery_debug_logs", &[("app_id", 1), ("discovery_run_id", 1), ("timestamp", 1)]),
    plain("discovery_debug_logs", &[("app_id", 1), ("log_type", 1), ("timestamp", -1)]),
    plain("discovery_debug_logs", &[("app_id", 1), ("success", 1)]),
    unique("secrets", &[("namespace", 1), ("project_id", 1), ("key", 1)]),
    plain("insights", &[("project_id", 1), ("created_at", -1)]),
    plain("insights", &[("discovery_id", 1)]),
    plain("recommendations", &[("project_id", 1), ("created_at", -1)]),
    plain("recommendations", &[("discovery_id", 1)]),
    ttl("search_history", &[("created_at", 1)], 90),
    plain("project_schema_cache", &[("project_id", 1)]),
    ttl("project_schema_cache", &[("cached_at", 1)], 7),
    plain("project_schema_index_logs", &[("project_id", 1), ("created_at", 1)]),
    ttl("project_schema_index_logs", &[("created_at", 1)], 7),
];

/// What the driver says is left out, as it may quote the URI with its password.
pub async fn parse(uri: &str) -> Result<ClientOptions> {
    ClientOptions::parse(uri).await.map_err(|_| {
        anyhow!(
            "MONGODB_URI cannot be used: check its scheme, its host and its options (socketTimeoutMS and timeoutMS \
             are unknown to the Rust driver), and write special characters of a password percent-encoded"
        )
    })
}

pub async fn connect(uri: &str) -> Result<Client> {
    let mut options = parse(uri).await?;
    options.app_name = Some("bellwether-demo".to_owned());
    options.server_selection_timeout = Some(Duration::from_secs(10));
    Client::with_options(options).context("MONGODB_URI cannot be used")
}

/// Refuses a database that holds anything: the demo must never mix with real data.
pub async fn seed(database: &Database) -> Result<()> {
    let present = database
        .list_collection_names()
        .await
        .map_err(|_| anyhow!("MongoDB does not answer, or does not let this user list collections: check MONGODB_URI"))?;
    ensure!(present.is_empty(), "the database {} is not empty, so it is not touched", database.name());
    for index in INDEXES {
        create(database, index).await.with_context(|| format!("cannot index {}", index.collection))?;
    }
    let discoveries = documents::discoveries();
    insert(database, "feedback", documents::feedback(&discoveries)).await?;
    insert(database, "discoveries", discoveries).await?;
    insert(database, "projects", documents::projects()).await?;
    insert(database, "discovery_runs", documents::runs()).await?;
    insert(database, "secrets", documents::secrets()).await?;
    for number in 0..20 {
        insert(database, "discovery_debug_logs", documents::debug_rows(number, 3600 * SECOND)).await?;
    }
    Ok(())
}

async fn create(database: &Database, index: &Index) -> mongodb::error::Result<()> {
    let keys: Document = index.keys.iter().map(|(field, direction)| ((*field).to_owned(), (*direction).into())).collect();
    let mut options = IndexOptions::default();
    options.unique = index.unique.then_some(true);
    options.expire_after = index.expire_after.map(Duration::from_secs);
    let model = IndexModel::builder().keys(keys).options(options).build();
    database.collection::<Document>(index.collection).create_index(model).await?;
    Ok(())
}

async fn insert(database: &Database, collection: &str, documents: Vec<Document>) -> Result<()> {
    let target = database.collection::<Document>(collection);
    target.insert_many(documents).await.with_context(|| format!("cannot write to {collection}"))?;
    Ok(())
}

/// Runs by status, straight from the database.
pub async fn runs_by_status(database: &Database) -> Result<BTreeMap<String, u64>> {
    let runs = database.collection::<Document>("discovery_runs");
    let group = doc! { "$group": { "_id": "$status", "runs": { "$sum": 1 } } };
    let mut rows = runs.aggregate([group]).await.context("cannot count the runs")?;
    let mut counts = BTreeMap::new();
    while let Some(row) = rows.try_next().await.context("cannot count the runs")? {
        counts.insert(row.get_str("_id")?.to_owned(), row.get_i32("runs")?.unsigned_abs().into());
    }
    Ok(counts)
}

/// Goes on as a busy installation does: every two seconds a run ends, with its rows in the debug log.
pub struct Feeder {
    /// Held during each write, so that whoever holds it sees a database that stands still.
    gate: Arc<Mutex<()>>,
    task: JoinHandle<()>,
}

impl Feeder {
    pub fn start(database: Database) -> Self {
        let gate = Arc::new(Mutex::new(()));
        let task = tokio::spawn(feed(database, Arc::clone(&gate)));
        Self { gate, task }
    }

    pub async fn pause(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.gate).lock_owned().await
    }

    pub fn stop(&self) {
        self.task.abort();
    }
}

/// A write that fails is left out, as the database may be frozen: the runs of an outage are lost, like real ones.
async fn feed(database: Database, gate: Arc<Mutex<()>>) {
    let mut ticks = tokio::time::interval(FEED_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in 0.. {
        ticks.tick().await;
        let _held = gate.lock().await;
        let rows = documents::debug_rows(number, Duration::ZERO);
        if insert(&database, "discovery_debug_logs", rows).await.is_ok() {
            let run = vec![documents::finished_run(number, Duration::ZERO)];
            let _lost_in_an_outage = insert(&database, "discovery_runs", run).await;
        }
    }
}
