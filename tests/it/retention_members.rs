//! Runs on replica sets of three members, of which one steps down, is killed or frozen in the middle of a batch.

use std::time::Duration;

use bellwether::clock::Now;
use bellwether::config::retention::Retention;
use bellwether::retention::{Engine, Outcome, Request, Stop};
use mongodb::bson::{DateTime, Document, doc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::mongod::eventually;
use crate::replica_set::ReplicaSet;
use crate::retention_bench::{Bench, Contents, settings};

/// A lease that outlives an election, and batches that leave time for one.
fn patient(bench: &Bench) -> Retention {
    let mut settings = settings(bench.policy());
    settings.lease = Duration::from_secs(120);
    settings.throttle.batch = 10;
    settings.throttle.pause = 0.5;
    settings
}

async fn left(bench: &Bench) -> Option<u64> {
    bench.database.collection::<Document>("discoveries").count_documents(doc! {}).await.ok()
}

/// A run that goes on while the test changes the set.
fn beside(engine: Engine, settings: Retention) -> JoinSet<Outcome> {
    let mut run = JoinSet::new();
    run.spawn(async move {
        let request = Request { now: true, who: "test".to_owned(), ..Request::default() };
        engine.run(&settings.policies[0], &request, || Now::read().wall, &CancellationToken::new(), &|_, _| {}).await
    });
    run
}

/// Waits until a run has deleted some, and has some to delete.
async fn in_the_middle(bench: &Bench, of: u64) {
    eventually("it is in the middle of it", async || left(bench).await.filter(|left| *left < of * 9 / 10)).await;
}

/// A run of whoever was disturbed may end in any way but a wrong one; the next one finishes what is left.
async fn converges(bench: &Bench, before: &Contents) {
    for _ in 0..3 {
        let leases = bench.database.collection::<Document>("bellwether_leases");
        eventually("the lease of whoever was disturbed is over", async || {
            leases.update_many(doc! {}, doc! { "$set": { "expires": DateTime::from_millis(0) } }).await.ok()
        })
        .await;
        if bench.run_with(&patient(bench), &|_, _| {}).await.stop == Stop::Done {
            break;
        }
    }
    let after = bench.contents().await;
    Bench::assert_nothing_is_lost(before, &after, &bench.archived().await);
    assert!(after.is_empty(), "{} are left", after.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_step_down_in_the_middle_is_waited_for_and_the_batch_repeated() {
    let set = ReplicaSet::start().await;
    let bench = &set.bench;
    bench.seed(300, 0).await;
    let before = bench.contents().await;
    let disturb = async {
        in_the_middle(bench, 300).await;
        let first = set.primary().await;
        set.step_down().await;
        eventually("another is primary", async || (set.primary().await != first).then_some(())).await;
    };
    let with = patient(bench);
    let (outcome, ()) = tokio::join!(bench.run_with(&with, &|_, _| {}), disturb);
    // All of it in one run. A batch whose answer was lost is read again, and counted where it was still there.
    assert!(outcome.stop == Stop::Done && outcome.tally.deleted + 10 >= 300, "{outcome}");
    converges(bench, &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_primary_that_is_killed_in_the_middle_loses_nothing_when_it_comes_back() {
    let mut set = ReplicaSet::start().await;
    set.bench.seed(300, 0).await;
    let before = set.bench.contents().await;
    let with = patient(&set.bench);
    let engine = set.bench.engine(&with);
    let run = beside(engine, with);
    in_the_middle(&set.bench, 300).await;
    let first = set.primary().await;
    set.member(first).kill();
    assert_ne!(set.primary().await, first);
    println!("{}", run.join_all().await[0]);
    // What the killed one had and the others had not is rolled back now.
    set.member(first).restart().await;
    converges(&set.bench, &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_secondary_that_falls_behind_is_waited_for() {
    let set = ReplicaSet::start().await;
    let bench = &set.bench;
    bench.seed(2000, 0).await;
    let before = bench.contents().await;
    let mut with = patient(bench);
    with.throttle.max_lag = Duration::from_secs(2);
    let disturb = async {
        in_the_middle(bench, 2000).await;
        let behind = set.secondary().await;
        set.members()[behind].freeze();
        // The other two are a majority: without the look at the lag, everything would go on. It stops when the frozen
        // one is two seconds behind.
        let mut seen = left(bench).await;
        let halted = eventually("the run rests", async || {
            tokio::time::sleep(Duration::from_secs(4)).await;
            let before = std::mem::replace(&mut seen, left(bench).await);
            (before == seen).then_some(seen?)
        })
        .await;
        set.members()[behind].thaw();
        halted
    };
    let (outcome, halted) = tokio::join!(bench.run_with(&with, &|_, _| {}), disturb);
    assert!(halted > 0, "there was nothing left to wait with");
    assert_eq!((outcome.stop, outcome.tally.deleted), (Stop::Done, 2000), "{outcome}");
    Bench::assert_nothing_is_lost(&before, &bench.contents().await, &bench.archived().await);
}

/// The primary deletes, and nobody with data confirms it; then it is gone, and its deletions with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_no_majority_has_confirmed_and_is_rolled_back_is_still_there_or_archived() {
    let mut set = ReplicaSet::start_with_arbiter().await;
    set.bench.seed(300, 0).await;
    let before = set.bench.contents().await;
    let mut with = patient(&set.bench);
    // The look at the lag would halt it first.
    with.throttle.max_lag = Duration::from_secs(3600);
    let engine = set.bench.engine(&with);
    let run = beside(engine, with);
    in_the_middle(&set.bench, 300).await;
    let (primary, secondary) = (set.primary().await, set.secondary().await);
    set.members()[secondary].freeze();
    // A batch is deleted and waits for the majority, in vain.
    tokio::time::sleep(Duration::from_secs(3)).await;
    set.member(primary).kill();
    set.members()[secondary].thaw();
    assert_eq!(set.primary().await, secondary);
    println!("{}", run.join_all().await[0]);
    set.member(primary).restart().await;
    converges(&set.bench, &before).await;
}
