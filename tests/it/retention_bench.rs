//! What tests of retention share: a database with documents and children, an engine, and the look at what is left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bellwether::clock::Now;
use bellwether::config::retention::{Child, Guards, IdForm, Mode, Policy, Retention};
use bellwether::config::storage::StorageAccess;
use bellwether::retention::archive::{Run, RunName, Target};
use bellwether::retention::{Engine, Outcome, Plan, Request, RetentionMetrics, Tally};
use bellwether::store::mongodb::{Mongo, Purpose};
use mongodb::bson::{Binary, Bson, DateTime, Decimal128, Document, RawDocumentBuf, doc, oid::ObjectId};
use mongodb::{Database, IndexModel};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::mongod::Mongod;

pub const DATABASE: &str = "decisionbox";
pub const DAY: i64 = 86_400_000;

/// A server with documents, and an engine for them.
pub struct Bench {
    pub server: Mongod,
    pub database: Database,
    pub folder: TempDir,
}

/// Documents by their collection and id, each as its bytes.
pub type Contents = BTreeMap<(String, String), Vec<u8>>;

pub fn at(millis: i64) -> Bson {
    DateTime::from_millis(millis).into()
}

pub fn policy(archive: &Path) -> Policy {
    let child = |collection: &str| Child { collection: collection.to_owned(), field: "discovery_id".to_owned(), id: IdForm::ObjectidHex };
    Policy {
        mode: Mode::Enforce,
        children: vec![child("feedback"), child("insights")],
        archive: Some(format!("file://{}", archive.display())),
        guards: Guards { max_fraction: 1.0, ..Guards::default() },
        ..Policy::simple("discoveries", "discoveries", "created_at", Duration::from_secs(30 * 86_400))
    }
}

pub fn settings(policy: Policy) -> Retention {
    let mut settings = Retention { mode: Mode::Enforce, lease: Duration::from_secs(20), policies: vec![policy], ..Retention::default() };
    settings.soak = Duration::from_secs(86_400);
    settings.throttle.pause = 0.0;
    settings.throttle.batch = 50;
    settings
}

// === impl Bench ===

impl Bench {
    pub async fn on(server: Mongod) -> Self {
        let bench = Self::on_set(server).await;
        bench.create_indexes().await;
        bench
    }

    /// Without anything in it: the server may not be able to write yet.
    pub async fn on_set(server: Mongod) -> Self {
        let database = server.database(DATABASE).await;
        Self { server, database, folder: tempfile::tempdir().expect("a folder") }
    }

    pub async fn create_indexes(&self) {
        for (collection, keys) in
            [("discoveries", doc! { "created_at": 1 }), ("feedback", doc! { "discovery_id": 1 }), ("insights", doc! { "discovery_id": 1 })]
        {
            let index = IndexModel::builder().keys(keys).build();
            self.database.collection::<Document>(collection).create_index(index).await.expect("an index");
        }
    }

    pub fn archive(&self) -> std::path::PathBuf {
        self.folder.path().join("archive")
    }

    pub fn policy(&self) -> Policy {
        policy(&self.archive())
    }

    /// `old` documents that are expired, each with children, and `young` ones. Of every type that there is.
    pub async fn seed(&self, old: i64, young: i64) -> Vec<ObjectId> {
        let now = DateTime::now().timestamp_millis();
        let document = |number: i64, date: i64| {
            let id = ObjectId::new();
            doc! {
                "_id": id, "project_id": format!("p{}", number % 3), "created_at": at(date), "n": number,
                "i": i32::try_from(number).expect("small"), "l": number, "f": 1.5 + f64::from(i32::try_from(number).expect("small")),
                "d": "1.10".parse::<Decimal128>().expect("a decimal"), "b": Binary { subtype: mongodb::bson::spec::BinarySubtype::Generic, bytes: vec![0, 255, 7] },
                "z": { "b": 1, "a": [1_i64, 2.0, Bson::Null, true] }, "text": "x".repeat(200),
            }
        };
        let mut documents: Vec<Document> = (0..old).map(|number| document(number, now - 40 * DAY - number * 1000)).collect();
        documents.extend((0..young).map(|number| document(number, now - DAY - number * 1000)));
        let ids: Vec<ObjectId> = documents.iter().map(|document| document.get_object_id("_id").expect("an id")).collect();
        let feedback: Vec<Document> = ids.iter().map(|id| doc! { "discovery_id": id.to_hex(), "rating": "like" }).collect();
        let insights: Vec<Document> =
            ids.iter().step_by(2).flat_map(|id| [1, 2].map(|n| doc! { "_id": format!("{id}-{n}"), "discovery_id": id.to_hex() })).collect();
        for (collection, documents) in [("discoveries", documents), ("feedback", feedback), ("insights", insights)] {
            if !documents.is_empty() {
                self.database.collection::<Document>(collection).insert_many(documents).await.expect("inserted");
            }
        }
        ids
    }

    pub fn engine(&self, settings: &Retention) -> Engine {
        let mongo = Arc::new(Mongo::new(&self.server.store(DATABASE), Purpose::Retention));
        Engine::new(mongo, settings, &StorageAccess::default(), "decisionbox", RetentionMetrics::default())
    }

    pub async fn plan(&self, policy: &Policy) -> Plan {
        self.engine(&settings(policy.clone())).plan(policy, Now::read().wall).await.expect("a plan")
    }

    /// Runs a policy now.
    pub async fn run(&self, policy: &Policy) -> Outcome {
        self.run_with(&settings(policy.clone()), &|_, _| {}).await
    }

    pub async fn run_with(&self, settings: &Retention, progress: &(dyn Fn(&Plan, &Tally) + Sync)) -> Outcome {
        let request = Request { now: true, who: "test".to_owned(), patience: Duration::from_secs(20), ..Request::default() };
        let stop = CancellationToken::new();
        self.engine(settings).run(&settings.policies[0], &request, || Now::read().wall, &stop, progress).await
    }

    /// Everything that is in the collections.
    pub async fn contents(&self) -> Contents {
        let mut contents = Contents::new();
        for collection in ["discoveries", "feedback", "insights"] {
            let mut cursor = self.database.collection::<RawDocumentBuf>(collection).find(doc! {}).await.expect("documents");
            while cursor.advance().await.expect("a document") {
                insert(&mut contents, collection, cursor.current().as_bytes());
            }
        }
        contents
    }

    /// Everything that is in archives that verify.
    pub async fn archived(&self) -> BTreeSet<(String, Vec<u8>)> {
        archived(&self.archive()).await
    }

    /// The invariant: every document is in its collection or in an archive that was verified.
    #[track_caller]
    pub fn assert_nothing_is_lost(before: &Contents, after: &Contents, archived: &BTreeSet<(String, Vec<u8>)>) {
        for ((collection, id), bytes) in before {
            let is_there = after.get(&(collection.clone(), id.clone())) == Some(bytes);
            assert!(is_there || archived.contains(&(collection.clone(), bytes.clone())), "{collection} {id} is lost");
        }
    }
}

pub async fn archived(folder: &Path) -> BTreeSet<(String, Vec<u8>)> {
    let mut found = BTreeSet::new();
    if !folder.exists() {
        return found;
    }
    let target = Target::open(&format!("file://{}", folder.display()), &StorageAccess::default()).expect("a target");
    for name in RunName::list(&target, None).await.expect("runs") {
        let run = Run::open(&target, &name).await.expect("a run");
        for segment in run.segments().await.expect("segments").iter().filter(|segment| segment.has_receipt) {
            let (receipt, records, damage) = run.records(segment).await.expect("records");
            assert!(damage.is_none(), "{damage:?}");
            found.extend(records.into_iter().map(|bytes| (receipt.unit.clone(), bytes)));
        }
    }
    found
}

fn insert(contents: &mut Contents, collection: &str, bytes: &[u8]) {
    let document = RawDocumentBuf::from_bytes(bytes.to_vec()).expect("a document");
    let id = format!("{:?}", document.get("_id").expect("a document").expect("an id"));
    contents.insert((collection.to_owned(), id), bytes.to_vec());
}
