//! The collectors against a real mongod: exact numbers, each document once, and nothing asked for that is secret.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bellwether::collect::Collectors;
use bellwether::config::collect::Collect;
use bellwether::config::environment::Environment;
use bellwether::config::stores::MongoStore;
use bellwether::config::{Request, load};
use bellwether::metrics::Registry;
use bellwether::metrics::exposition::Format;
use bellwether::secret::Secret;
use bellwether::series::families::SharedFamilies;
use mongodb::Database;
use mongodb::bson::{Bson, DateTime, Document, doc, oid::ObjectId};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::mongod::{Mongod, eventually, profile, profiled};

const EVERY: Duration = Duration::from_millis(100);
const DATABASE: &str = "decisionbox";

/// The collectors of the profile, at a beat that suits a test.
fn config() -> Collect {
    let request = Request { profile: Some("decisionbox"), ..Request::default() };
    let mut collect = load(&request, &Environment::of([("MONGODB_URI", "mongodb://db")])).expect("the profile").collect;
    collect.gauges.iter_mut().for_each(|gauge| gauge.every = EVERY);
    collect.tails.iter_mut().for_each(|tail| tail.every = EVERY);
    collect
}

/// Running collectors.
struct Sidecar {
    families: Vec<SharedFamilies>,
    registry: Registry,
    stop: CancellationToken,
    task: JoinHandle<Result<(), String>>,
}

impl Sidecar {
    fn start(store: &MongoStore, state: Option<&Path>) -> Self {
        let mut registry = Registry::default();
        let collectors = Collectors::new(&config(), store, state, &mut registry).expect("collectors");
        let (families, stop) = (collectors.families(), CancellationToken::new());
        let running = collectors.run(stop.clone());
        #[expect(clippy::disallowed_methods, reason = "there is no supervisor in a test; `stop` joins it")]
        let task = tokio::spawn(async move { running.await.map_err(|error| error.to_string()) });
        Self { families, registry, stop, task }
    }

    fn value(&self, metric: &str, labels: &[&str]) -> Option<f64> {
        self.families.iter().find_map(|families| families.lock().value(metric, labels))
    }

    /// The value of a series as it is exposed.
    fn exposed(&self, series: &str) -> Option<f64> {
        let text = Format::Text.write(&self.registry).expect("an exposition");
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until each of these has looked twice more: the second look began after this was called.
    async fn looks(&self, collectors: &[&str]) {
        for collector in collectors {
            let series = format!("bellwether_collector_duration_seconds_count{{collector=\"{collector}\"}}");
            let before = self.exposed(&series).expect("a known collector");
            eventually("another look", async || self.exposed(&series).filter(|count| *count >= before + 2.0)).await;
        }
    }

    #[track_caller]
    fn check(&self, expected: &[(&str, &[&str], f64)]) {
        for (metric, labels, value) in expected {
            assert_eq!(self.value(metric, labels), Some(*value), "{metric} {labels:?}");
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("no panic").expect("a clean end");
    }
}

async fn now(database: &Database) -> i64 {
    let hello = database.run_command(doc! { "hello": 1 }).await.expect("an answer");
    hello.get_datetime("localTime").expect("a time").timestamp_millis()
}

fn at(millis: i64) -> DateTime {
    DateTime::from_millis(millis)
}

async fn insert(database: &Database, collection: &str, documents: Vec<Document>) {
    database.collection::<Document>(collection).insert_many(documents).await.expect("inserted");
}

async fn seed_runs(database: &Database, now: i64) {
    let run = |status: &str, project: &str, age: i64| {
        doc! { "status": status, "project_id": project, "started_at": at(now - age), "updated_at": at(now - age) }
    };
    let with = |mut run: Document, field: &str, value: Bson| {
        run.insert(field, value);
        run
    };
    let hour = 3_600_000;
    let runs = vec![
        run("pending", "a", 1000),
        run("running", "a", 2 * hour),
        // Alive, and updated a minute ago.
        with(run("running", "b", hour), "updated_at", at(now - 60_000).into()),
        // Two contradictions in one run, and not a date: neither stuck nor old.
        with(
            with(
                doc! { "status": "running", "project_id": "c", "started_at": "2020-01-01", "updated_at": "2020-01-01" },
                "error",
                "stale: API restarted while run was in progress".into(),
            ),
            "completed_at",
            at(now - hour).into(),
        ),
        run("completed", "a", 9 * hour),
        with(run("completed", "a", 9 * hour), "error", "stale: API restarted while run was in progress".into()),
        run("failed", "a", 9 * hour),
        run("cancelled", "b", 9 * hour),
        with(run("cancelled", "b", 9 * hour), "error", "killed".into()),
        with(run("cancelled", "b", 9 * hour), "error", "".into()),
        // A later release's state, a number and nothing at all.
        run("paused", "b", hour),
        with(run("x", "b", hour), "status", 7_i32.into()),
        doc! { "project_id": "b" },
    ];
    insert(database, "discovery_runs", runs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_question_has_its_exact_answer() {
    let server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    let now = now(&database).await;
    seed_runs(&database, now).await;
    let secret = |encrypted: Bson| doc! { "namespace": "n", "key": "k", "value": "plain", "encrypted": encrypted };
    let secrets = vec![secret(true.into()), secret(false.into()), secret(Bson::Null), doc! { "value": "plain" }];
    insert(&database, "secrets", secrets).await;
    let old_id = ObjectId::parse_str(format!("{:08x}0000000000000000", (now - 86_400_000) / 1000)).expect("an id");
    insert(&database, "feedback", vec![doc! { "_id": "not an id" }, doc! { "_id": old_id }, doc! { "_id": ObjectId::new() }]).await;

    let sidecar = Sidecar::start(&server.store(DATABASE), None);
    sidecar.looks(&["decisionbox_runs", "decisionbox_collection_oldest_document_age_seconds", "tail_discovery_runs"]).await;
    sidecar.check(&[
        ("decisionbox_runs", &["pending"], 1.0),
        ("decisionbox_runs", &["running"], 3.0),
        ("decisionbox_runs", &["completed"], 2.0),
        ("decisionbox_runs", &["failed"], 1.0),
        ("decisionbox_runs", &["cancelled"], 3.0),
        ("decisionbox_runs", &["other"], 3.0),
        ("decisionbox_projects_with_concurrent_runs", &[], 1.0),
        ("decisionbox_runs_stuck", &[], 1.0),
        ("decisionbox_runs_contradictory", &["alive_after_stale"], 2.0),
        ("decisionbox_runs_contradictory", &["running_with_completion"], 1.0),
        ("decisionbox_runs_contradictory", &["cancelled_with_error"], 1.0),
        ("decisionbox_secrets_unencrypted", &[], 3.0),
        ("decisionbox_collection_documents", &["discovery_runs"], 13.0),
        ("decisionbox_collection_documents", &["projects"], 0.0),
        ("decisionbox_collection_oldest_document_age_seconds", &["discoveries"], 0.0),
        // What was there before the first start does not count.
        ("decisionbox_runs_finished_total", &["failed"], 0.0),
        ("decisionbox_discovery_failures_total", &["api_restart"], 0.0),
    ]);
    for (metric, labels, age) in [
        ("decisionbox_oldest_active_run_age_seconds", &[] as &[&str], 7200.0),
        ("decisionbox_collection_oldest_document_age_seconds", &["feedback"], 86_400.0),
    ] {
        let found = sidecar.value(metric, labels).expect(metric);
        assert!((age..age + 120.0).contains(&found), "{metric}: {found}");
    }
    assert_eq!(sidecar.exposed("bellwether_collector_success{collector=\"decisionbox_runs_contradictory_alive_after_stale\"}"), Some(1.0));
    assert_eq!(sidecar.exposed("bellwether_collector_success{collector=\"tail_discovery_debug_logs\"}"), Some(1.0));

    // A value that is gone is gone, and the listed ones stay.
    let runs = database.collection::<Document>("discovery_runs");
    runs.delete_many(doc! {}).await.expect("deleted");
    eventually("no other status", async || sidecar.value("decisionbox_runs", &["other"]).is_none().then_some(())).await;
    sidecar.check(&[("decisionbox_runs", &["running"], 0.0)]);
    eventually("no active run", async || sidecar.value("decisionbox_oldest_active_run_age_seconds", &[]).filter(|age| *age == 0.0)).await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_secret_is_asked_for_and_nothing_is_written() {
    let server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    let now = now(&database).await;
    seed_runs(&database, now).await;
    insert(&database, "secrets", vec![doc! { "value": "plain", "encrypted": false }]).await;
    database.create_collection("discovery_debug_logs").await.expect("a collection");
    profile(&database).await;
    let sidecar = Sidecar::start(&server.store(DATABASE), None);
    sidecar.looks(&["tail_discovery_debug_logs"]).await;
    insert(&database, "discovery_debug_logs", vec![doc! { "log_type": "llm", "success": true, "created_at": at(now) }]).await;
    eventually("the call", async || sidecar.value("decisionbox_llm_calls_total", &["success"]).filter(|calls| *calls == 1.0)).await;
    sidecar.looks(&["decisionbox_secrets_unencrypted", "tail_discovery_debug_logs"]).await;
    sidecar.stop().await;

    let operations = profiled(&database).await;
    let mut collections: Vec<&str> = operations.iter().filter_map(|operation| operation.get_str("ns").ok()).collect();
    collections.sort_unstable();
    collections.dedup();
    assert!(collections.contains(&"decisionbox.secrets") && collections.contains(&"decisionbox.discovery_debug_logs"), "{collections:?}");
    let secret = ["value", "prompt", "response", "query_results", "sql_query", "sql_query_fixed", "steps", "credentials", "embedding"];
    for operation in &operations {
        let kind = operation.get_str("op").expect("an operation");
        assert!(["query", "command", "getmore"].contains(&kind), "{operation}");
        let command = operation.get_document("command").expect("a command");
        let name = command.keys().next().map_or("", String::as_str);
        assert!(["find", "aggregate", "count", "hello", "getMore"].contains(&name), "{operation}");
        assert!(name != "find" || command.contains_key("projection"), "asks for whole documents: {operation}");
        assert!(command.contains_key("maxTimeMS") || ["hello", "getMore"].contains(&name), "has no limit: {operation}");
        let text = command.to_string();
        for word in secret {
            let is_named = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|part| part.ends_with(word));
            assert!(!is_named, "{word} in {operation}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_generations_of_debug_logs_and_all_ends_of_runs_are_counted_exactly() {
    let server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    let sidecar = Sidecar::start(&server.store(DATABASE), None);
    sidecar.looks(&["tail_discovery_debug_logs", "tail_discovery_runs", "tail_discoveries"]).await;
    let now = now(&database).await;
    let timeout = "claude: HTTP request failed: context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    let logs = vec![
        doc! { "log_type": "claude", "success": true, "claude_input_tokens": 1200_i32, "claude_output_tokens": 300_i32, "duration_ms": 2500_i64, "created_at": at(now) },
        doc! { "log_type": "claude", "success": false, "claude_error": timeout, "duration_ms": 300_000_i64, "created_at": at(now) },
        doc! { "log_type": "llm", "success": true, "llm_input_tokens": 800_i32, "llm_output_tokens": 50_i32, "duration_ms": 900_i64, "created_at": at(now) },
        doc! { "log_type": "llm", "success": false, "llm_error": "openai: API error (429): slow down", "created_at": at(now) },
        doc! { "log_type": "bigquery", "operation": "execute_query", "success": true, "duration_ms": 420_i64, "created_at": at(now) },
        doc! { "log_type": "mssql", "operation": "execute_query", "success": false, "query_error": "query timed out after 5m0s", "duration_ms": 300_000_i64, "created_at": at(now) },
        doc! { "log_type": "bigquery", "operation": "validate_user_count", "success": true, "created_at": at(now) },
        // Not a date: it cannot be told when it happened.
        doc! { "log_type": "llm", "success": true, "created_at": "2026-11-21T03:00:00Z" },
    ];
    insert(&database, "discovery_debug_logs", logs).await;
    let run = |status: &str| doc! { "status": status, "started_at": at(now - 323_000), "completed_at": at(now) };
    let mut failed = run("failed");
    failed.insert("error", "discovery run failed: exploration failed: step 12: failed to get LLM response: x");
    insert(&database, "discovery_runs", vec![run("completed"), run("completed"), run("cancelled"), failed, run("running")]).await;
    let discovery = |run_type: &str| doc! { "run_type": run_type, "created_at": at(now) };
    insert(&database, "discoveries", vec![discovery("full"), discovery("failed"), discovery("new_type")]).await;
    sidecar.looks(&["tail_discovery_debug_logs", "tail_discovery_runs", "tail_discoveries"]).await;
    sidecar.check(&[
        ("decisionbox_llm_calls_total", &["success"], 2.0),
        ("decisionbox_llm_calls_total", &["failure"], 2.0),
        ("decisionbox_llm_failures_total", &["timeout"], 1.0),
        ("decisionbox_llm_failures_total", &["rate_limit"], 1.0),
        ("decisionbox_llm_failures_total", &["other"], 0.0),
        ("decisionbox_llm_tokens_total", &["input"], 2000.0),
        ("decisionbox_llm_tokens_total", &["output"], 350.0),
        ("decisionbox_llm_call_duration_seconds", &[], 3.0),
        ("decisionbox_warehouse_queries_total", &[], 2.0),
        ("decisionbox_warehouse_query_failures_total", &["timeout"], 1.0),
        ("decisionbox_warehouse_query_duration_seconds", &[], 2.0),
        ("decisionbox_runs_finished_total", &["completed"], 2.0),
        ("decisionbox_runs_finished_total", &["cancelled"], 1.0),
        ("decisionbox_runs_finished_total", &["failed"], 1.0),
        ("decisionbox_discovery_failures_total", &["llm"], 1.0),
        ("decisionbox_discovery_duration_seconds", &[], 2.0),
        ("decisionbox_discoveries_total", &["full"], 1.0),
        ("decisionbox_discoveries_total", &["failed"], 1.0),
        ("decisionbox_discoveries_total", &["other"], 1.0),
    ]);
    assert_eq!(sidecar.exposed("decisionbox_discovery_duration_seconds_sum"), Some(646.0));
    assert_eq!(sidecar.exposed("decisionbox_llm_call_duration_seconds_sum"), Some(303.4));
    sidecar.stop().await;
}

/// The application's index on `status` is enough: runs of early releases hold all their steps and are large.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counting_by_an_indexed_field_reads_no_document() {
    let server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    let now = now(&database).await;
    seed_runs(&database, now).await;
    let index = mongodb::IndexModel::builder().keys(doc! { "status": 1 }).build();
    database.collection::<Document>("discovery_runs").create_index(index).await.expect("an index");
    profile(&database).await;
    let sidecar = Sidecar::start(&server.store(DATABASE), None);
    sidecar.looks(&["decisionbox_runs"]).await;
    sidecar.check(&[("decisionbox_runs", &["cancelled"], 3.0), ("decisionbox_runs", &["other"], 3.0)]);
    sidecar.stop().await;
    let operations = profiled(&database).await;
    let counted: Vec<&Document> = operations.iter().filter(|operation| operation.to_string().contains("$cond")).collect();
    assert!(!counted.is_empty());
    for operation in counted {
        assert_eq!(
            (operation.get_i32("docsExamined").ok(), operation.get_str("planSummary").ok()),
            (Some(0), Some("IXSCAN { status: 1 }")),
            "{operation}"
        );
    }
}

fn call(time: i64) -> Document {
    doc! { "log_type": "llm", "success": true, "created_at": at(time) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_equal_and_future_times_and_restarts_lose_and_double_nothing() {
    const CALLS: (&str, &[&str]) = ("decisionbox_llm_calls_total", &["success"]);
    let server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    let folder = tempfile::tempdir().expect("a folder");
    let store = server.store(DATABASE);
    let start = now(&database).await;
    // History, some of it within the window that is read.
    insert(&database, "discovery_debug_logs", vec![call(start - 86_400_000), call(start - 1000), call(start - 1000)]).await;

    let sidecar = Sidecar::start(&store, Some(folder.path()));
    sidecar.looks(&["tail_discovery_debug_logs"]).await;
    sidecar.check(&[(CALLS.0, CALLS.1, 0.0)]);
    let now = now(&database).await;
    insert(&database, "discovery_debug_logs", vec![call(now), call(now), call(253_402_300_799_000)]).await;
    sidecar.looks(&["tail_discovery_debug_logs"]).await;
    sidecar.check(&[(CALLS.0, CALLS.1, 2.0)]);
    // 90 s late, as late as the history, and of a millisecond that has been read.
    insert(&database, "discovery_debug_logs", vec![call(now - 90_000), call(start - 1000), call(now)]).await;
    sidecar.looks(&["tail_discovery_debug_logs"]).await;
    sidecar.check(&[(CALLS.0, CALLS.1, 5.0)]);
    sidecar.stop().await;

    // More than a page while nobody looks, all of one millisecond.
    insert(&database, "discovery_debug_logs", vec![call(now + 1); 2500]).await;
    let sidecar = Sidecar::start(&store, Some(folder.path()));
    assert!(sidecar.value(CALLS.0, CALLS.1) >= Some(5.0), "a counter goes back after a restart");
    eventually("all of them", async || sidecar.value(CALLS.0, CALLS.1).filter(|calls| *calls >= 2505.0)).await;
    sidecar.looks(&["tail_discovery_debug_logs"]).await;
    sidecar.check(&[(CALLS.0, CALLS.1, 2505.0)]);
    sidecar.stop().await;
}

/// Where the process to be killed finds its server and its state.
const CHILD_URI: &str = "BELLWETHER_TEST_CHILD_URI";
const CHILD_STATE: &str = "BELLWETHER_TEST_CHILD_STATE";

/// Prints the counter whenever it changes, as a scrape would have seen it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is no test: it is the process that kills_at_any_moment_lose_and_double_nothing kills"]
async fn sidecar_to_be_killed() {
    let uri = std::env::var_os(CHILD_URI).and_then(|uri| uri.into_string().ok()).expect("started by the test");
    let state = std::env::var_os(CHILD_STATE).expect("started by the test");
    let store = MongoStore { uri: Secret::new(uri), database: DATABASE.to_owned() };
    let sidecar = Sidecar::start(&store, Some(Path::new(&state)));
    let mut last = None;
    loop {
        let calls = sidecar.value("decisionbox_llm_calls_total", &["success"]);
        if calls != last {
            println!("\ncalls {}", calls.expect("exposed from the start"));
            last = calls;
        }
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
}

fn killable(server: &Mongod, state: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "collect::sidecar_to_be_killed", "--ignored", "--nocapture"])
        .env(CHILD_URI, server.uri())
        .env(CHILD_STATE, state)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process")
}

/// What it has printed until it was killed.
fn printed(child: &mut Child) -> Vec<f64> {
    let mut text = String::new();
    child.stdout.take().expect("its output").read_to_string(&mut text).expect("text");
    child.wait().expect("its end");
    text.lines().filter_map(|line| line.strip_prefix("calls ")?.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_any_moment_lose_and_double_nothing_and_never_go_back() {
    let server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    let (folder, store) = (tempfile::tempdir().expect("a folder"), server.store(DATABASE));
    let first = Sidecar::start(&store, Some(folder.path()));
    first.looks(&["tail_discovery_debug_logs"]).await;
    first.stop().await;
    let (mut inserted, mut highest) = (0_u32, 0.0);
    for round in 0..30_u64 {
        let mut child = killable(&server, folder.path());
        for _ in 0..fastrand::u64(1..40) {
            let time = now(&database).await;
            insert(&database, "discovery_debug_logs", (0..20).map(|number| call(time - number % 3)).collect()).await;
            inserted += 20;
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..10))).await;
        }
        child.kill().expect("killed");
        let seen = printed(&mut child);
        assert!(seen.is_sorted() && seen.first().is_none_or(|first| *first >= highest), "round {round}: {seen:?} after {highest}");
        highest = seen.last().copied().unwrap_or(highest);
    }
    assert!(highest > 0.0, "every kill came before the first look");
    let sidecar = Sidecar::start(&store, Some(folder.path()));
    let calls = || sidecar.value("decisionbox_llm_calls_total", &["success"]);
    eventually("all of them", async || calls().filter(|calls| *calls >= f64::from(inserted))).await;
    sidecar.looks(&["tail_discovery_debug_logs"]).await;
    assert_eq!(calls(), Some(f64::from(inserted)));
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_withdraws_values_keeps_counters_and_comes_back_by_itself() {
    let mut server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    let sidecar = Sidecar::start(&server.store(DATABASE), None);
    sidecar.looks(&["tail_discovery_debug_logs", "decisionbox_runs"]).await;
    insert(&database, "discovery_debug_logs", vec![call(now(&database).await)]).await;
    sidecar.looks(&["tail_discovery_debug_logs"]).await;
    let runs = || sidecar.value("decisionbox_runs", &["running"]);
    assert_eq!(runs(), Some(0.0));
    server.freeze();
    eventually("withdrawn", async || runs().is_none().then_some(())).await;
    sidecar.check(&[("decisionbox_llm_calls_total", &["success"], 1.0)]);
    assert_eq!(sidecar.exposed("bellwether_collector_success{collector=\"decisionbox_runs\"}"), Some(0.0));
    server.thaw();
    eventually("back", async || runs()).await;
    server.kill();
    eventually("withdrawn", async || runs().is_none().then_some(())).await;
    server.restart().await;
    eventually("back", async || runs()).await;
    insert(&database, "discovery_debug_logs", vec![call(now(&database).await)]).await;
    eventually("counted", async || sidecar.value("decisionbox_llm_calls_total", &["success"]).filter(|calls| *calls == 2.0)).await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_cannot_be_written_is_said_and_values_are_exposed_nevertheless() {
    let server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    let folder = tempfile::tempdir().expect("a folder");
    let sidecar = Sidecar::start(&server.store(DATABASE), Some(&folder.path().join("missing")));
    sidecar.looks(&["tail_discovery_debug_logs"]).await;
    insert(&database, "discovery_debug_logs", vec![call(now(&database).await)]).await;
    eventually("counted", async || sidecar.value("decisionbox_llm_calls_total", &["success"]).filter(|calls| *calls == 1.0)).await;
    let errors = sidecar.exposed("bellwether_collector_errors_total{collector=\"tail_discovery_debug_logs\",reason=\"state\"}");
    assert!(errors >= Some(1.0), "{errors:?}");
    sidecar.stop().await;
}
