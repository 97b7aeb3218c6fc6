//! Sidecars side by side: one leads, another takes over, and what is due by the schedule is done once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether::store::lease::{Attempt, Leases, TTL};
use bellwether::store::mongodb::{Mongo, Purpose};
use mongodb::bson::{DateTime, Document, doc};
use rustix::process::Signal;

use crate::mongod::{Mongod, PATIENCE, eventually};
use crate::retention_bench::{Bench, DATABASE};
use crate::sidecar::{Setup, Sidecar};

/// The lease of whoever schedules.
const LEADER: &str = "leader";

/// A sidecar whose section enforces, with a lease of so long, and whatever else the section says.
fn sidecar(bench: &Bench, lease: &str, more: &str) -> Sidecar {
    let text = format!(
        "stores: {{ mongodb: {{ uri: \"{}\", database: {DATABASE} }} }}
retention:
  mode: enforce
  lease: {lease}
  soak: 0s
  archive: file://{}
  guards: {{ max_fraction: 1.0 }}
{more}
  policies:
    - name: discoveries
      mongodb: {{ collection: discoveries, field: created_at }}
      keep: 30d
      children:
        - {{ collection: feedback, field: discovery_id, id: objectid_hex }}
        - {{ collection: insights, field: discovery_id, id: objectid_hex }}
",
        bench.server.uri(),
        bench.archive().display()
    );
    Setup::default().config(&text).start()
}

/// A schedule whose last start has been missed a moment ago or longer, and is to be made up at once.
const MISSED: &str = "  schedule: \"0 * * * *\"\n  jitter: 0s\n  catch_up: 2h";

/// Who holds the lease, in which epoch, and until when by the server's clock.
async fn leader(bench: &Bench) -> Option<(String, i64, DateTime)> {
    let leases = bench.database.collection::<Document>("bellwether_leases");
    let lease = leases.find_one(doc! { "_id": LEADER }).await.expect("an answer")?;
    Some((lease.get_str("who").ok()?.to_owned(), lease.get_i64("epoch").ok()?, *lease.get_datetime("expires").ok()?))
}

async fn leads(bench: &Bench, sidecar: &Sidecar) -> i64 {
    let name = format!("process {}", sidecar.pid());
    eventually("it leads", async || leader(bench).await.filter(|(who, _, expires)| who.ends_with(&name) && is_open(expires))).await.1
}

fn is_open(expires: &DateTime) -> bool {
    expires.timestamp_millis() > 0
}

async fn runs(bench: &Bench) -> usize {
    std::fs::read_dir(bench.archive().join("discoveries")).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_told_to_end_gives_its_lease_back_before_it_has_ended() {
    let bench = Bench::on(Mongod::start().await).await;
    // So long that it cannot expire meanwhile, on however slow a machine.
    let sidecar = sidecar(&bench, "10m", "");
    assert_eq!(leads(&bench, &sidecar).await, 1);
    let began = Instant::now();
    let (status, _folder) = tokio::task::spawn_blocking(|| sidecar.stop()).await.expect("its end");
    println!("it ended {:?} after SIGTERM", began.elapsed());
    assert_eq!(status.code(), Some(0));
    let (_, epoch, expires) = leader(&bench).await.expect("the lease is remembered");
    assert!(epoch == 1 && !is_open(&expires), "the lease is still held, until {expires}");
    // The first attempt of another succeeds, and is told apart by the epoch.
    let leases = Leases::new(Arc::new(Mongo::new(&bench.server.store(DATABASE), Purpose::Retention)), TTL);
    match leases.take(LEADER, "another", None).await.expect("an answer") {
        Attempt::Taken(lease) => assert_eq!(lease.epoch(), 2),
        Attempt::Refused(seen) => panic!("it is refused: {seen:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_frozen_or_killed_is_followed_by_another_and_learns_of_it() {
    let bench = Bench::on(Mongod::start().await).await;
    let first = sidecar(&bench, "3s", "");
    assert_eq!(leads(&bench, &first).await, 1);
    let second = sidecar(&bench, "3s", "");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(leads(&bench, &first).await, 1, "a lease that is renewed is not taken");
    assert_eq!(tokio::task::block_in_place(|| second.value("bellwether_leader")), Some(0.0));

    first.signal(Signal::STOP);
    assert_eq!(leads(&bench, &second).await, 2);
    first.signal(Signal::CONT);
    eventually("the one that woke up knows", async || {
        tokio::task::block_in_place(|| first.value("bellwether_leader")).filter(|leads| *leads == 0.0)
    })
    .await;
    assert_eq!(leads(&bench, &second).await, 2, "and has not taken the lease back");

    drop(second.kill());
    assert_eq!(leads(&bench, &first).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_was_missed_is_made_up_once_however_many_sidecars_come() {
    let bench = Bench::on(Mongod::start_replica_set().await).await;
    bench.seed(120, 30).await;
    let before = bench.contents().await;
    let first = sidecar(&bench, "3s", MISSED);
    let second = sidecar(&bench, "3s", MISSED);
    let deadline = Instant::now() + PATIENCE;
    while bench.contents().await.len() > 3 * 30 {
        assert!(Instant::now() < deadline, "nothing is made up:\n{}{}", first.log(), second.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Bench::assert_nothing_is_lost(&before, &bench.contents().await, &bench.archived().await);
    eventually("its end is noted", async || {
        let collection = bench.database.collection::<Document>("bellwether_retention");
        let memory = collection.find_one(doc! { "_id": "discoveries" }).await.expect("an answer")?;
        memory.get_bool("running").ok().filter(|is_running| !is_running)
    })
    .await;
    assert_eq!(runs(&bench).await, 1);
    // New documents, a new leader, and a third that has just come: the same start is nobody's any more.
    bench.seed(20, 0).await;
    drop((first.kill(), second.kill()));
    let third = sidecar(&bench, "3s", MISSED);
    leads(&bench, &third).await;
    // It looks at its agenda each second.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!((runs(&bench).await, bench.contents().await.len()), (1, 3 * 30 + 20 + 20 + 20), "{}", third.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_by_the_schedule_is_done_by_the_leader_alone() {
    let bench = Bench::on(Mongod::start().await).await;
    // Nothing is made up; the next minute is waited for.
    let every_minute = "  schedule: \"* * * * *\"\n  jitter: 0s\n  catch_up: 0s";
    let first = sidecar(&bench, "3s", every_minute);
    leads(&bench, &first).await;
    let second = sidecar(&bench, "3s", every_minute);
    bench.seed(60, 10).await;
    let deadline = Instant::now() + Duration::from_secs(150);
    while bench.contents().await.len() > 3 * 10 {
        assert!(Instant::now() < deadline, "the schedule has started nothing:\n{}", first.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eventually("it is counted", async || {
        let series = "bellwether_retention_deleted_documents_total{policy=\"discoveries\"}";
        tokio::task::block_in_place(|| first.value(series)).filter(|deleted| *deleted == 60.0)
    })
    .await;
    assert_eq!(runs(&bench).await, 1);
    assert!(!second.log().contains("retention has run"), "{}", second.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_whose_run_was_killed_or_failed_for_a_while_is_made_again() {
    let bench = Bench::on(Mongod::start_replica_set().await).await;
    bench.seed(200, 10).await;
    let before = bench.contents().await;
    // A file stands where the archive is to be.
    std::fs::write(bench.archive(), "in the way").expect("a file");
    let slow = format!("{MISSED}\n  throttle: {{ pause: 0.3, batch: 10 }}");
    let first = sidecar(&bench, "3s", &slow);
    eventually("it says that it tries again", async || first.log().contains("is tried again").then_some(())).await;
    assert_eq!(bench.contents().await, before, "without an archive nothing is deleted");
    std::fs::remove_file(bench.archive()).expect("removed");
    let count = async || bench.contents().await.len();
    eventually("it is in the middle of it", async || (count().await < before.len() - 30).then_some(())).await;
    drop(first.kill());
    Bench::assert_nothing_is_lost(&before, &bench.contents().await, &bench.archived().await);
    assert!(count().await > 3 * 10, "there is something left for the second");
    // Also behind the transaction that the first may have left open.
    let second = sidecar(&bench, "3s", &slow);
    let deadline = Instant::now() + Duration::from_secs(150);
    while count().await > 3 * 10 {
        assert!(Instant::now() < deadline, "the start is not made again:\n{}", second.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Bench::assert_nothing_is_lost(&before, &bench.contents().await, &bench.archived().await);
}
