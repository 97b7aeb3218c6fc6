//! A backlog goes while the application works: it writes, changes, adds to what is old, and reads. A run that is killed
//! in the middle of it is resumed. What the application did is all there, and no call of its has failed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mongodb::Database;
use mongodb::bson::{DateTime, Document, doc, oid::ObjectId};
use tokio::task::JoinSet;

use crate::mongod::{Mongod, eventually};
use crate::replica_set::ReplicaSet;
use crate::retention_bench::{Bench, DAY, at};
use crate::retention_faults::{apply, config, ended, expire_leases};

/// How many discoveries are expired.
const BACKLOG: i64 = 4000;

/// What the application has done, as it would swear to it.
#[derive(Default)]
struct Truth {
    /// Discoveries that it has written, with the number that each holds by now.
    written: BTreeMap<ObjectId, i32>,
    /// Old ones that it has written a new date to: they are young from then on.
    touched: Vec<ObjectId>,
    reads: u64,
}

/// Writes until it is told to end: new discoveries with feedback, changes of them, and of some that are old.
async fn writes(database: Database, old: Vec<ObjectId>, ends: Arc<AtomicBool>) -> Truth {
    let (discoveries, feedback) = (database.collection::<Document>("discoveries"), database.collection::<Document>("feedback"));
    let mut truth = Truth::default();
    let mut number = 0;
    while !ends.load(Ordering::Relaxed) {
        number += 1;
        let id = ObjectId::new();
        let young = doc! { "_id": id, "project_id": "busy", "created_at": DateTime::now(), "n": 0 };
        discoveries.insert_one(young).await.expect("a write of the application");
        feedback.insert_one(doc! { "discovery_id": id.to_hex(), "n": number }).await.expect("a write of the application");
        truth.written.insert(id, 0);
        let (changed, _) = truth.written.iter().nth(fastrand::usize(..truth.written.len())).map(|(id, n)| (*id, *n)).expect("one");
        discoveries.update_one(doc! { "_id": changed }, doc! { "$inc": { "n": 1 } }).await.expect("a write of the application");
        *truth.written.get_mut(&changed).expect("it is there") += 1;
        // Somebody opens one that is old: it is there, or it is gone, and never half.
        let opened = old[fastrand::usize(..old.len())];
        let touch = doc! { "$set": { "created_at": DateTime::now() } };
        if discoveries.update_one(doc! { "_id": opened }, touch).await.expect("a write of the application").matched_count == 1 {
            truth.touched.push(opened);
        }
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    truth
}

/// Reads young ones until it is told to end: each is there.
async fn reads(database: Database, young: Vec<ObjectId>, ends: Arc<AtomicBool>, count: Arc<AtomicU64>) -> Truth {
    let discoveries = database.collection::<Document>("discoveries");
    while !ends.load(Ordering::Relaxed) {
        let id = young[fastrand::usize(..young.len())];
        let found = discoveries.find_one(doc! { "_id": id }).await.expect("a read of the application");
        assert!(found.is_some(), "a young discovery is gone");
        count.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Truth { reads: count.load(Ordering::Relaxed), ..Truth::default() }
}

async fn count(bench: &Bench, filter: Document) -> u64 {
    bench.database.collection::<Document>("discoveries").count_documents(filter).await.expect("a number")
}

async fn under_load(bench: &Bench) {
    let ids = bench.seed(BACKLOG, 200).await;
    let (old, young) = ids.split_at(usize::try_from(BACKLOG).expect("few"));
    let before = bench.contents().await;
    let (ends, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut application = JoinSet::new();
    application.spawn(writes(bench.database.clone(), old.to_vec(), Arc::clone(&ends)));
    application.spawn(reads(bench.database.clone(), young.to_vec(), Arc::clone(&ends), Arc::clone(&read)));

    let expired = doc! { "created_at": { "$lt": at(DateTime::now().timestamp_millis() - 30 * DAY) } };
    let file = config(bench, &bench.server.uri(), 100, "");
    let mut killed = apply(&file);
    let half = u64::try_from(BACKLOG / 2).expect("few");
    eventually("half of it is gone", async || (count(bench, expired.clone()).await < half).then_some(())).await;
    killed.kill().expect("killed");
    drop(ended(killed).await);
    let left = count(bench, expired.clone()).await;
    assert!(left > 0, "there is something left to resume");
    // A transaction that the killed run left open is waited for: to end it by force would end calls of the application, too.
    expire_leases(&bench.database).await;
    let seen = read.load(Ordering::Relaxed);
    let (code, out, err) = ended(apply(&file)).await;
    assert_eq!(code, Some(0), "{out}{err}");
    eventually("it reads on", async || (read.load(Ordering::Relaxed) > seen + 10).then_some(())).await;
    ends.store(true, Ordering::Relaxed);
    let truths = application.join_all().await;

    assert_eq!(count(bench, expired).await, 0, "the backlog is gone");
    let discoveries = bench.database.collection::<Document>("discoveries");
    let (mut written, mut touched) = (0, 0);
    for truth in &truths {
        for (id, number) in &truth.written {
            let found = discoveries.find_one(doc! { "_id": id }).await.expect("an answer").expect("what the application wrote is there");
            assert_eq!(found.get_i32("n").ok(), Some(*number), "with each of its changes");
        }
        for id in &truth.touched {
            assert_eq!(count(bench, doc! { "_id": id }).await, 1, "one that became young between archive and deletion stays");
        }
        (written, touched) = (written + truth.written.len(), touched + truth.touched.len());
    }
    let feedback = bench.database.collection::<Document>("feedback").count_documents(doc! { "n": { "$exists": true } }).await;
    assert_eq!(feedback.expect("a number"), written as u64);
    // Those whose date was changed are young now; in the archives they may stand as they were.
    let mut unchanged = before;
    let touched_ids: Vec<String> = truths.iter().flat_map(|truth| &truth.touched).map(|id| format!("{id}")).collect();
    unchanged.retain(|(collection, id), _| collection != "discoveries" || !touched_ids.iter().any(|touched| id.contains(touched)));
    Bench::assert_nothing_is_lost(&unchanged, &bench.contents().await, &bench.archived().await);
    let read = truths.iter().map(|truth| truth.reads).sum::<u64>();
    println!("resumed with {left} left; meanwhile {written} written, {touched} made young, {read} read");
    assert!(written > 50 && touched > 0 && read > 50, "the application did work");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backlog_goes_while_the_application_works_on_a_standalone_server() {
    under_load(&Bench::on(Mongod::start().await).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backlog_goes_while_the_application_works_on_a_replica_set_of_three() {
    let set = ReplicaSet::start().await;
    set.keep_its_primary().await;
    under_load(&set.bench).await;
}
