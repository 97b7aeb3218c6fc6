//! The database's own clock jumps, on a real server whose wall clock a library moves: before a plan, in the middle of a
//! run, ahead and back. Whatever the clock says, nothing goes that was young when the run began, and nothing is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use bellwether::config::retention::Retention;
use bellwether::retention::{Guard, Outcome, Stop};
use mongodb::bson::{DateTime, Document, doc};

use crate::mongod::{Mongod, eventually};
use crate::retention_bench::{Bench, Contents, settings};

const DAY: i64 = 86_400;

/// So far that every document would be expired. A set whose log was once stamped more than a year ahead of its clock
/// refuses all its clients by itself, and nothing could be looked at any more.
fn far(is_set: bool) -> i64 {
    if is_set { 170 * DAY } else { 400 * DAY }
}

/// Batches that leave time for a jump, under a lease that is short enough to be waited for.
fn slow(bench: &Bench) -> Retention {
    let mut settings = settings(bench.policy());
    settings.lease = Duration::from_secs(6);
    settings.throttle.batch = 10;
    settings.throttle.pause = 1.0;
    settings
}

async fn left(bench: &Bench) -> u64 {
    bench.database.collection::<Document>("discoveries").count_documents(doc! {}).await.expect("a number")
}

/// Seeds, lets the clock jump in the middle of a run, and gives what was there, how the run ended, and what was expired.
async fn jumped_in_the_middle(bench: &Bench, old: i64, young: i64, seconds: i64) -> (Contents, Outcome) {
    bench.seed(old, young).await;
    let before = bench.contents().await;
    let all = u64::try_from(old + young).expect("few");
    let with = slow(bench);
    let jump = async {
        eventually("it is in the middle of it", async || (left(bench).await < all - 20).then_some(())).await;
        bench.server.jump(seconds);
    };
    let (outcome, ()) = tokio::join!(bench.run_with(&with, &|_, _| {}), jump);
    (before, outcome)
}

/// The young ones and what refers to them are all there, byte by byte; the rest is there or archived.
async fn only_the_expired_went(bench: &Bench, before: &Contents) {
    let (after, archived) = (bench.contents().await, bench.archived().await);
    Bench::assert_nothing_is_lost(before, &after, &archived);
    let border = DateTime::now().timestamp_millis() - 30 * DAY * 1000;
    let is_young = |bytes: &[u8]| {
        let document: Document = mongodb::bson::deserialize_from_slice(bytes).expect("a document");
        document.get_datetime("created_at").is_ok_and(|date| date.timestamp_millis() >= border)
    };
    let young: BTreeSet<_> = before.iter().filter(|(_, bytes)| is_young(bytes)).collect();
    assert!(!young.is_empty() && young.iter().all(|(key, bytes)| after.get(*key) == Some(*bytes)), "a young document went");
    assert!(archived.iter().all(|(_, bytes)| !is_young(bytes)), "a young document was archived");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_wrong_when_a_run_begins_stops_it_by_a_guard() {
    for is_set in [false, true] {
        let bench = Bench::on(Mongod::start_with_clock(is_set).await).await;
        bench.seed(40, 40).await;
        let before = bench.contents().await;
        for seconds in [far(is_set), -far(is_set), 61 + 5, -(61 + 5)] {
            bench.server.jump(seconds);
            let plan = bench.plan(&bench.policy()).await;
            let ahead = plan.database_now.duration_since(jiff::Timestamp::now()).as_secs();
            assert!((ahead - seconds).abs() < 30, "the database's clock has not jumped: {ahead} s");
            let clocks = plan.guards.iter().find(|verdict| verdict.guard == Guard::Clocks).expect("the guard");
            assert!(!clocks.passes, "{seconds}: {}", clocks.finding);
            let outcome = bench.run(&bench.policy()).await;
            assert!(outcome.stop == Stop::Blocked && outcome.why.contains("the clocks of database and host differ"), "{outcome}");
            assert_eq!(bench.contents().await, before, "{seconds}");
        }
        bench.server.jump(0);
        // The lease that the wrong clock has written is waited for where it lies ahead; then everything is as before.
        let outcome = bench.run(&bench.policy()).await;
        assert_eq!((outcome.stop, outcome.tally.deleted), (Stop::Done, 40), "{outcome}");
        only_the_expired_went(&bench, &before).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_ahead_in_the_middle_takes_nothing_young() {
    for is_set in [false, true] {
        let bench = Bench::on(Mongod::start_with_clock(is_set).await).await;
        let (before, outcome) = jumped_in_the_middle(&bench, 150, 60, far(is_set)).await;
        println!("set: {is_set}: {outcome}");
        only_the_expired_went(&bench, &before).await;
        // What is left is found by the next run, which the guard stops until the clock is right again.
        let held_up = bench.run(&bench.policy()).await;
        assert_eq!((held_up.stop, held_up.tally.deleted), (Stop::Blocked, 0), "{held_up}");
        bench.server.jump(0);
        let outcome = bench.run(&bench.policy()).await;
        assert_eq!((outcome.stop, left(&bench).await), (Stop::Done, 60), "{outcome}");
        only_the_expired_went(&bench, &before).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_back_in_the_middle_loses_nothing() {
    for is_set in [false, true] {
        let bench = Bench::on(Mongod::start_with_clock(is_set).await).await;
        let (before, outcome) = jumped_in_the_middle(&bench, 150, 60, -far(is_set)).await;
        println!("set: {is_set}: {outcome}");
        only_the_expired_went(&bench, &before).await;
        bench.server.jump(0);
        let outcome = bench.run(&bench.policy()).await;
        assert_eq!((outcome.stop, left(&bench).await), (Stop::Done, 60), "{outcome}");
        only_the_expired_went(&bench, &before).await;
    }
}
