//! The binary at work while it is killed, frozen and refused: nothing is ever lost.
//!
//! | | fault | where |
//! |---|---|---|
//! | R1 | a plan that writes | `retention` by the profiler, and here with a user that may only read |
//! | R2 | a kill at any moment | here; rows: `tables` |
//! | R3 | a full disk, a bucket that fails, truncated and flipped bits | `archive`, `archive_clouds`, `retention::archive`, `retention_run` |
//! | R4 | what changes between archive and deletion | `retention_run` |
//! | R5 | a leader that is frozen and wakes up | here, `lease`; the leader of the schedule: `retention_leader` |
//! | R6 | a member that steps down, is killed, falls behind or is rolled back | `retention_members` |
//! | R7 | clocks that jump | `retention_clock` (the database's, by libfaketime), `retention_run` (the host's), `lease`, `retention::plan` |
//! | R8 | mistakes in policies | `config::retention`, `retention` (odd types, no index), `retention_run` (an index of children) |
//! | R9 | the cutoff at the millisecond, odd dates | `retention_run` at random, `retention` |
//! | R10 | guards | `retention_run`: each is named, and nothing is deleted |
//! | R11 | a large backlog | here: memory at 500 and 15,000 documents; `retention_load`: beside a writer and a reader; in figures: scripts/bench_retention.py |
//! | R12 | TTL indexes | `retention_ttl`, `retention`; that the application starts afterwards: `retention_application` |
//! | R13 | privileges | here, and `retention_ttl` |
//! | R14 | restore, byte by byte | `archive`, with the real `mongorestore` where test.sh could build it |
//!
//! `BELLWETHER_KILLS` says how often it is killed; 20 by default, 200 by `just soak-retention`.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use mongodb::bson::{DateTime, Document, doc};
use mongodb::options::ClientOptions;
use mongodb::{Client, Database};
use rustix::process::{Pid, Signal, kill_process};

use crate::mongod::{Mongod, eventually};
use crate::retention_bench::{Bench, DATABASE, DAY, at};
use crate::sidecar::command;

const LEASES: &str = "bellwether_leases";

pub fn config(bench: &Bench, uri: &str, batch: u32, more: &str) -> PathBuf {
    let path = bench.folder.path().join(format!("bellwether-{batch}-{}.yaml", more.len()));
    let text = format!(
        "stores: {{ mongodb: {{ uri: \"{uri}\", database: {DATABASE} }} }}
retention:
  mode: enforce
  lease: 3s
  archive: file://{}
  guards: {{ max_fraction: 1.0 }}
  throttle: {{ pause: 0.2, batch: {batch} }}
{more}
  policies:
    - name: discoveries
      mongodb: {{ collection: discoveries, field: created_at }}
      keep: 30d
      children:
        - {{ collection: feedback, field: discovery_id, id: objectid_hex }}
        - {{ collection: insights, field: discovery_id, id: objectid_hex }}
",
        bench.archive().display()
    );
    std::fs::write(&path, text).expect("a file");
    path
}

pub fn apply(config: &PathBuf) -> Child {
    let mut command = command();
    command.args(["retention", "apply", "--now", "--yes", "--json", "--log", "error", "--config"]).arg(config);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

/// The exit code, what it printed, and what it complained of.
pub async fn ended(child: Child) -> (Option<i32>, String, String) {
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().expect("its end")).await.expect("a thread");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id")).expect("a process id");
    kill_process(pid, signal).expect("a signal");
}

/// The process that had it is known to be dead: the server need not wait until it ends its transaction by itself.
pub async fn end_transactions(bench: &Bench) {
    let admin = bench.database.client().database("admin");
    admin.run_command(doc! { "killAllSessions": [] }).await.expect("ended");
}

/// The process that held it is known to be dead: its lease need not be waited for.
pub async fn expire_leases(database: &Database) {
    let expired = doc! { "$set": { "expires": DateTime::from_millis(0) } };
    database.collection::<Document>(LEASES).update_many(doc! {}, expired).await.expect("changed");
}

async fn kills(server: Mongod, kills: usize) {
    let bench = Bench::on(server).await;
    let config = config(&bench, &bench.server.uri(), 20, "");
    bench.seed(300, 10).await;
    // How long an undisturbed run takes; kills are spread over that.
    let began = Instant::now();
    let (code, out, err) = ended(apply(&config)).await;
    assert_eq!(code, Some(0), "{out}{err}");
    let whole = began.elapsed();
    let (mut in_the_middle, mut killed) = (0, 0);
    while killed < kills {
        bench.seed(300, 0).await;
        let before = bench.contents().await;
        loop {
            end_transactions(&bench).await;
            let mut child = apply(&config);
            tokio::time::sleep(whole.mul_f64(fastrand::f64())).await;
            let is_over = child.try_wait().expect("its state").is_some();
            if !is_over {
                signal(&child, Signal::KILL);
                killed += 1;
            }
            ended(child).await;
            expire_leases(&bench.database).await;
            let (after, archived) = (bench.contents().await, bench.archived().await);
            Bench::assert_nothing_is_lost(&before, &after, &archived);
            in_the_middle += usize::from(!is_over && after.len() < before.len());
            if is_over || killed >= kills {
                break;
            }
        }
    }
    println!("{killed} kills, {in_the_middle} of them after something was deleted and before all was");
    assert!(in_the_middle * 10 >= kills, "most kills came before anything or after everything: {in_the_middle} of {killed}");
    // And a run that is left alone converges, also behind a transaction that is still open; with a lease that a busy
    // machine does not let run out.
    let patient = config.with_file_name("patient.yaml");
    let text = std::fs::read_to_string(&config).expect("the configuration").replace("lease: 3s", "lease: 60s");
    std::fs::write(&patient, text).expect("a file");
    let (code, out, err) = ended(apply(&patient)).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(bench.contents().await.len(), 10 + 10 + 10, "only the young ones and their children are left");
}

fn wanted_kills() -> usize {
    std::env::var_os("BELLWETHER_KILLS").and_then(|kills| kills.to_str()?.parse().ok()).unwrap_or(20)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_moment_loses_nothing_on_a_standalone_server() {
    kills(Mongod::start().await, wanted_kills() / 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_moment_loses_nothing_on_a_replica_set() {
    kills(Mongod::start_replica_set().await, wanted_kills().div_ceil(2)).await;
}

async fn frozen(server: Mongod) {
    let bench = Bench::on(server).await;
    bench.seed(3000, 0).await;
    let before = bench.contents().await;
    let slow = config(&bench, &bench.server.uri(), 10, "");
    let some = config(&bench, &bench.server.uri(), 10, "  budget: { documents: 50 }");
    let discoveries = bench.database.collection::<Document>("discoveries");
    let count = async || discoveries.count_documents(doc! {}).await.expect("a count");
    let first = apply(&slow);
    eventually("the first is in the middle of it", async || (count().await < 2950).then_some(())).await;
    signal(&first, Signal::STOP);
    // What the server had been sent is done.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (code, out, err) = ended(apply(&some)).await;
    assert_eq!(code, Some(0), "the second takes over when the lease has expired: {out}{err}");
    let (left, archived) = (count().await, bench.archived().await);
    assert!(left > 100, "there is something left for the first to delete");
    signal(&first, Signal::CONT);
    let (code, out, err) = ended(first).await;
    assert_ne!(code, Some(0), "{out}{err}");
    assert!(out.contains("\"stop\": \"lease\""), "{out}{err}");
    assert_eq!(count().await, left, "the one that woke up has deleted something");
    Bench::assert_nothing_is_lost(&before, &bench.contents().await, &archived);
    // And its record has not written over that of the second.
    let memory = bench.database.collection::<Document>("bellwether_retention").find_one(doc! { "_id": "discoveries" }).await;
    let memory = memory.expect("an answer").expect("a document");
    assert_eq!(
        memory.get_document("last").and_then(|last| last.get_str("stop").map(str::to_owned)).ok().as_deref(),
        Some("budget_documents")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_frozen_and_wakes_up_deletes_nothing_on_a_standalone_server() {
    frozen(Mongod::start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_frozen_and_wakes_up_deletes_nothing_on_a_replica_set() {
    frozen(Mongod::start_replica_set().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_needs_no_more_than_to_read_and_a_run_names_what_it_lacks() {
    let on = |collection: &str, actions: &[&str]| {
        let actions: Vec<&str> = actions.to_vec();
        doc! { "resource": { "db": DATABASE, "collection": collection }, "actions": actions }
    };
    let ours = |actions: &[&str]| vec![on("bellwether_leases", actions), on("bellwether_retention", actions)];
    let write = ["find", "insert", "update"];
    let reader = vec![on("", &["find", "listIndexes"])];
    let mut keeper = reader.clone();
    keeper.extend(ours(&write));
    let mut deleter = keeper.clone();
    deleter.push(on("discoveries", &["remove"]));
    let mut whole = deleter.clone();
    whole.extend([on("feedback", &["remove"]), on("insights", &["remove"])]);
    let server =
        Mongod::start_with_users(DATABASE, &[("reader", reader), ("keeper", keeper), ("deleter", deleter), ("whole", whole)]).await;
    let options = ClientOptions::parse(server.uri_of("root", "admin")).await.expect("a connection string");
    let database = Client::with_options(options).expect("a client").database(DATABASE);
    let index = mongodb::IndexModel::builder().keys(doc! { "created_at": 1 }).build();
    database.collection::<Document>("discoveries").create_index(index).await.expect("an index");
    let bench = Bench { server, database, folder: tempfile::tempdir().expect("a folder") };
    bench.seed(40, 10).await;
    let before = bench.contents().await;
    let of = |user: &str| {
        let path = config(&bench, &bench.server.uri_of(user, DATABASE), 20, "");
        let named = path.with_file_name(format!("{user}.yaml"));
        std::fs::rename(&path, &named).expect("renamed");
        named
    };
    let mut plan = command();
    plan.args(["retention", "plan", "--config"]).arg(of("reader"));
    let output = plan.output().expect("its end");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("would delete     40"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for (user, privilege) in [("reader", "bellwether_leases"), ("keeper", "`remove`"), ("deleter", "`remove`")] {
        let (code, out, err) = ended(apply(&of(user))).await;
        assert_eq!(code, Some(69), "{user}: {out}{err}");
        assert!(out.contains("\"stop\": \"privilege\"") && out.contains(privilege), "{user}: {out}{err}");
        expire_leases(&bench.database).await;
        let after = bench.contents().await;
        assert!(after.keys().filter(|(collection, _)| collection == "discoveries").count() == 50, "{user}");
    }
    assert_eq!(bench.contents().await, before, "a parent that may not go keeps its children");
    let (code, out, err) = ended(apply(&of("whole"))).await;
    assert_eq!(code, Some(0), "with these privileges it runs: {out}{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_killed_in_the_middle_is_waited_for() {
    let mut bench = Bench::on(Mongod::start_replica_set().await).await;
    let now = DateTime::now().timestamp_millis();
    let documents = (0..2000).map(|number| doc! { "created_at": at(now - 40 * DAY - number), "text": "x".repeat(100) });
    bench.database.collection::<Document>("discoveries").insert_many(documents).await.expect("inserted");
    let before = bench.contents().await;
    let config = config(&bench, &bench.server.uri(), 10, "");
    let child = apply(&config);
    let discoveries = bench.database.collection::<Document>("discoveries");
    eventually("it is in the middle of it", async || (discoveries.count_documents(doc! {}).await.ok()? < 1900).then_some(())).await;
    bench.server.restart().await;
    let (code, out, err) = ended(child).await;
    // The lease is short here, and may be over before the server is back; then the next run goes on.
    assert!(code == Some(0) || out.contains("\"stop\": \"lease\"") || out.contains("\"stop\": \"store\""), "{code:?} {out}{err}");
    eventually("the member is primary again", async || {
        let hello = bench.database.run_command(doc! { "hello": 1 }).await.ok()?;
        hello.get_bool("isWritablePrimary").ok().filter(|is_primary| *is_primary)
    })
    .await;
    expire_leases(&bench.database).await;
    let (code, out, err) = ended(apply(&config)).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(bench.contents().await.is_empty());
    Bench::assert_nothing_is_lost(&before, &bench.contents().await, &bench.archived().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_and_restore_find_the_archives_of_the_policies_by_themselves() {
    let bench = Bench::on(Mongod::start().await).await;
    bench.seed(30, 0).await;
    let before = bench.contents().await;
    let config = config(&bench, &bench.server.uri(), 20, "");
    let run = |arguments: &[&str]| {
        let mut command = command();
        command.arg("retention").args(arguments).arg("--config").arg(&config).stdout(Stdio::piped()).stderr(Stdio::piped());
        ended(command.spawn().expect("it starts"))
    };
    let (code, _, err) = run(&["verify"]).await;
    assert!(code == Some(69) && err.contains("no archive there yet"), "{err}");
    let (code, out, err) = ended(apply(&config)).await;
    assert_eq!(code, Some(0), "{out}{err}");
    let (code, out, err) = run(&["verify", "--policy", "discoveries"]).await;
    assert!(code == Some(0) && out.starts_with("whole: "), "{out}{err}");
    // A policy that the configuration has no more: wherever the others are.
    let (code, _, err) = run(&["verify", "--policy", "gone"]).await;
    assert!(code == Some(69) && err.contains("no archive there yet"), "{err}");
    let (code, out, err) = run(&["restore", "--yes"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(bench.contents().await, before);
}

/// The most memory that a run has had at any time, in bytes.
async fn peak(child: Child) -> u64 {
    let (status, mut peak) = (format!("/proc/{}/status", child.id()), 0);
    let waiting = ended(child);
    tokio::pin!(waiting);
    loop {
        tokio::select! {
            (code, out, err) = &mut waiting => {
                assert_eq!(code, Some(0), "{out}{err}");
                return peak;
            }
            () = tokio::time::sleep(Duration::from_millis(10)) => {
                let text = std::fs::read_to_string(&status).unwrap_or_default();
                let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
                let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
                peak = kibibytes.map_or(peak, |kibibytes| peak.max(kibibytes * 1024));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_of_a_run_does_not_grow_with_the_backlog() {
    let bench = Bench::on(Mongod::start().await).await;
    let config = config(&bench, &bench.server.uri(), 500, "");
    let mut peaks = Vec::new();
    for documents in [500, 15_000] {
        let now = DateTime::now().timestamp_millis();
        let text = "x".repeat(1500);
        let old = (0..documents).map(|number| doc! { "created_at": at(now - 40 * DAY - number), "text": &text });
        bench.database.collection::<Document>("discoveries").insert_many(old).await.expect("inserted");
        peaks.push(peak(apply(&config)).await);
        assert!(bench.contents().await.is_empty());
    }
    println!("peaks: {peaks:?} bytes");
    assert!(peaks[0] > 0 && peaks[1] < peaks[0] + (16 << 20), "{peaks:?}");
}
