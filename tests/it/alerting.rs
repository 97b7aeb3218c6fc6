//! Alerts end to end: the real causes in a real mongod, in logs and in components, seen by the sidecar, scraped by a real
//! Prometheus with the shipped rules, and told through a real Alertmanager with the shipped routes; and told by the
//! sidecar alone, which must tell the same. Time goes faster by a constant factor; thresholds are as shipped.
//!
//! Not here, because minutes and a small disk cannot do it: the slow windows of the burn rates, a log that the sidecar
//! lags behind by 256 MiB, a certificate that ends. promtool tests all of them. `own_trouble` has what the sidecar itself
//! suffers from.

mod compress;
mod front_door;
mod own_trouble;
mod panels;
pub mod servers;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bellwether::profiles::Profile;
use mongodb::Database;
use mongodb::bson::{DateTime, Document, doc};
use servers::{Active, Stack};
use tempfile::TempDir;

use crate::component::Component;
use crate::mongod::Mongod;
use crate::sidecar::{Setup, Sidecar};
use crate::tls;

/// Ends a wait that would last for ever; nothing is judged by it. The longest is for a window of six hours: 3 minutes.
const PATIENCE: Duration = Duration::from_secs(420);

/// What is replaced in the profile: beats, and paths that the stand-ins do not have.
const QUICK: [(&str, &str); 7] = [
    ("interval: 5s, timeout: 2s", "interval: 2s, timeout: 1900ms"),
    ("interval: 10s", "interval: 2s"),
    ("timeout: 7s", "timeout: 1900ms"),
    ("timeout: 5s", "timeout: 1900ms"),
    // This machine may be busy, and a slow answer is not what is tried here.
    ("degraded_after: 500ms", "degraded_after: 1800ms"),
    ("/health/ready", "/"),
    ("localhost:3000}/health", "localhost:3000}/"),
];

/// What happens in DecisionBox at the moment.
#[derive(Clone, Copy, PartialEq)]
enum Weather {
    /// Runs complete.
    Fair,
    /// Runs fail, and so do LLM calls and queries.
    Foul,
    /// Nothing reaches the database.
    Calm,
}

/// DecisionBox as the sidecar sees it, and everybody who watches.
struct World {
    mongod: Mongod,
    database: Database,
    api: Component,
    dashboard: Component,
    logs: TempDir,
    secrets: TempDir,
    stack: Stack,
    weather: Weather,
    /// How many messages there were when the present trouble began.
    since: usize,
}

// === impl World ===

impl World {
    async fn start() -> Self {
        let mongod = Mongod::start().await;
        let database = mongod.database("decisionbox").await;
        for (collection, field, seconds) in TTL {
            index(&database, collection, field, seconds).await;
        }
        for collection in ["projects", "feedback", "insights", "recommendations"] {
            insert(&database, collection, doc! { "name": "p", "created_at": DateTime::now() }).await;
        }
        insert(&database, "secrets", doc! { "key": "llm-api-key", "encrypted": true }).await;
        let logs = tempfile::tempdir().unwrap();
        for name in ["agent.log", "api.log"] {
            std::fs::write(logs.path().join(name), "").unwrap();
        }
        let (api, dashboard) = (Component::start(), Component::start());
        let (secrets, stack) = (tempfile::tempdir().unwrap(), Stack::start().await);
        Self { mongod, database, api, dashboard, logs, secrets, stack, weather: Weather::Fair, since: 0 }
    }

    /// A sidecar with the profile as shipped, but for its beats.
    fn sidecar(&self) -> Sidecar {
        let mut text = String::new();
        for line in Profile::named("decisionbox").unwrap().text().lines().filter(|line| line.trim() != "every: 60s") {
            let line = QUICK.iter().fold(line.to_owned(), |line, (slow, quick)| line.replace(slow, quick));
            text.push_str(&line);
            text.push('\n');
            if line == "    type: gauge" || line.starts_with("  - tail: ") {
                text.push_str("    every: 1s\n");
            }
        }
        text.push_str(&self.stack.own(""));
        text.push_str(&tls::admin(self.secrets.path()));
        let log = |name: &str| self.logs.path().join(name).display().to_string();
        Setup::default()
            .config(&text)
            .variable("MONGODB_URI", &self.mongod.uri())
            .variable("API_URL", &self.api.url())
            .variable("DASHBOARD_URL", &self.dashboard.url())
            .variable("BELLWETHER_AGENT_LOGS", &log("agent.log"))
            .variable("BELLWETHER_API_LOGS", &log("api.log"))
            .start()
    }

    /// What DecisionBox does within a second.
    async fn work(&self) {
        let (now, start) = (DateTime::now(), DateTime::from_millis(DateTime::now().timestamp_millis() - 90_000));
        let fair = match self.weather {
            Weather::Calm => return,
            weather => weather == Weather::Fair,
        };
        let status = if fair { "completed" } else { "failed" };
        let run =
            doc! { "status": status, "project_id": "p", "started_at": start, "updated_at": now, "completed_at": now, "error": "warehouse" };
        insert(&self.database, "discovery_runs", run).await;
        let error = "Post: context deadline exceeded";
        insert(
            &self.database,
            "discovery_debug_logs",
            doc! {
                "created_at": now, "timestamp": now, "log_type": "llm", "success": fair, "llm_error": error, "duration_ms": 1500,
                "llm_input_tokens": 100, "llm_output_tokens": 10
            },
        )
        .await;
        for _ in 0..2 {
            insert(
                &self.database,
                "discovery_debug_logs",
                doc! {
                    "created_at": now, "timestamp": now, "log_type": "warehouse", "operation": "execute_query", "success": fair,
                    "query_error": "permission denied", "duration_ms": 200
                },
            )
            .await;
        }
        if fair {
            insert(&self.database, "discoveries", doc! { "created_at": now, "run_type": "full", "project_id": "p" }).await;
            self.log("agent.log", "info", "Exploration finished", ",\"duration\":61000");
            self.log("api.log", "info", "Request", "");
        }
    }

    /// A line as the API and the agents write it.
    fn log(&self, file: &str, level: &str, message: &str, fields: &str) {
        let path: PathBuf = self.logs.path().join(file);
        let caller = if file == "api.log" { "log/log.go:30" } else { "log/compat.go:30" };
        let line = format!(
            "{{\"level\":\"{level}\",\"ts\":\"2026-03-14T10:30:00.000Z\",\"caller\":\"{caller}\",\"msg\":\"{message}\"{fields}}}\n"
        );
        OpenOptions::new().append(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
    }

    /// Works and waits until `holds` says nothing any more.
    async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> Vec<String>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.work().await;
            let missing = holds().await;
            if missing.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "waited for {what}: {missing:#?}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// What people hear from now on belongs to new trouble.
    fn begin(&mut self, weather: Weather) {
        self.weather = weather;
        self.since = self.stack.told().len();
    }

    /// Waits until people have been told that each of these fires. Some end by themselves while others begin.
    async fn until_told(&self, expected: &[(&str, &str)]) {
        self.until("alerts", async || not_told(&self.stack, self.since, expected)).await;
    }

    /// Waits until the last that people have heard of each of these is that it is over.
    async fn until_over(&self, expected: &[(&str, &str)]) {
        self.until("the end of alerts", async || not_over(&self.stack, expected)).await;
    }

    /// Waits until Alertmanager knows each of these and keeps it to itself.
    async fn until_inhibited(&self, expected: &[(&str, &str)]) {
        self.until("inhibited alerts", async || not_inhibited(&self.stack, expected).await).await;
    }

    async fn until_quiet(&self) {
        self.until("silence", async || {
            let active = self.stack.active().await;
            let names = active.iter().filter(|it| it.labels["alertname"] != "BellwetherWatchdog").map(|it| format!("{:?}", it.labels));
            names.collect()
        })
        .await;
    }

    async fn panels_have_data(&self, healthy: bool) {
        self.until("data in every panel", async || panels::problems(&self.stack, healthy).await).await;
    }

    /// While the Watchdog comes twice more, nobody is told that one of these fires.
    async fn stays_quiet(&self, symptoms: &[&str]) {
        let before = self.stack.told().len();
        let new = || self.stack.told().split_off(before);
        self.until("the Watchdog twice more", async || {
            let times = new().iter().filter(|it| it.receiver == "watchdog").count();
            if times > 1 { Vec::new() } else { vec![format!("it came {times} times")] }
        })
        .await;
        let told = new();
        assert!(!told.iter().any(|it| it.firing && symptoms.contains(&it.labels["alertname"].as_str())), "{told:#?}");
    }
}

/// What the application declares.
const TTL: [(&str, &str, i64); 5] = [
    ("discovery_debug_logs", "timestamp", 2_592_000),
    ("discovery_debug_logs", "created_at", 2_592_000),
    ("search_history", "created_at", 7_776_000),
    ("project_schema_cache", "cached_at", 604_800),
    ("project_schema_index_logs", "created_at", 604_800),
];

async fn index(database: &Database, collection: &str, field: &str, seconds: i64) {
    let index = doc! { "key": { field: 1 }, "name": format!("{field}_1"), "expireAfterSeconds": seconds };
    database.run_command(doc! { "createIndexes": collection, "indexes": [index] }).await.unwrap();
}

async fn insert(database: &Database, collection: &str, document: Document) {
    database.collection::<Document>(collection).insert_one(document).await.unwrap();
}

fn is(labels: &servers::Labels, alert: &str, severity: &str) -> bool {
    labels["alertname"] == alert && labels["severity"] == severity
}

/// How people hear of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// By Prometheus and Alertmanager.
    Alertmanager,
    /// By the sidecar alone.
    Own,
}

impl Way {
    fn is_of(self, receiver: &str) -> bool {
        (receiver == "own") == (self == Self::Own)
    }
}

/// Both ways must tell the same, but for the end of the sidecar itself.
fn missing(expected: &[(&str, &str)], holds: impl Fn(Way, &str, &str) -> bool) -> Vec<String> {
    let ways = |alert: &str| {
        if ["BellwetherDown", "BellwetherAbsent"].contains(&alert) { &[Way::Alertmanager][..] } else { &[Way::Alertmanager, Way::Own] }
    };
    let all = expected.iter().flat_map(|(alert, severity)| ways(alert).iter().map(move |way| (*way, *alert, *severity)));
    all.filter(|(way, alert, severity)| !holds(*way, alert, severity)).map(|it| format!("{it:?}")).collect()
}

/// Those of which people have not been told that they fire, since so many messages.
fn not_told(stack: &Stack, since: usize, expected: &[(&str, &str)]) -> Vec<String> {
    let told = stack.told();
    missing(expected, |way, alert, severity| {
        told[since..].iter().any(|it| it.firing && way.is_of(&it.receiver) && is(&it.labels, alert, severity))
    })
}

/// Those of which the last that people have heard is not that they are over.
fn not_over(stack: &Stack, expected: &[(&str, &str)]) -> Vec<String> {
    let told = stack.told();
    missing(expected, |way, alert, severity| {
        let last = told.iter().rev().find(|it| way.is_of(&it.receiver) && is(&it.labels, alert, severity));
        last.is_some_and(|it| !it.firing)
    })
}

/// Those which Alertmanager does not keep to itself.
async fn not_inhibited(stack: &Stack, expected: &[(&str, &str)]) -> Vec<String> {
    let active = stack.active().await;
    let quiet = |alert: &str, severity: &str| active.iter().any(|it: &Active| it.inhibited && is(&it.labels, alert, severity));
    expected.iter().filter(|(alert, severity)| !quiet(alert, severity)).map(|it| format!("{it:?} of {active:?}")).collect()
}

/// What goes wrong in the runs and stores, and who must be told.
const TROUBLE: [(&str, &str); 17] = [
    ("DecisionBoxDiscoveryFailed", "warning"),
    ("DecisionBoxRunTooLong", "critical"),
    ("DecisionBoxRunStuck", "warning"),
    ("DecisionBoxConcurrentRuns", "warning"),
    ("DecisionBoxAgentLogSilent", "warning"),
    ("DecisionBoxDiscoveryResultFailed", "warning"),
    ("DecisionBoxResultNotSaved", "warning"),
    ("DecisionBoxFatalLogLine", "warning"),
    ("DecisionBoxAPIErrors", "warning"),
    ("DecisionBoxSecretFailures", "warning"),
    ("DecisionBoxSecretsUnencrypted", "warning"),
    ("DecisionBoxTTLIndexMissing", "warning"),
    ("DecisionBoxTTLIndexDrifted", "warning"),
    ("DecisionBoxLLMTimeouts", "warning"),
    ("DecisionBoxLLMErrors", "critical"),
    ("DecisionBoxWarehouseErrors", "critical"),
    ("DecisionBoxRunSuccessBurn", "critical"),
];

async fn make_trouble(world: &mut World) {
    world.begin(Weather::Foul);
    let old = DateTime::from_millis(DateTime::now().timestamp_millis() - 3 * 3_600_000);
    for _ in 0..2 {
        let run = doc! { "status": "running", "project_id": "stuck", "started_at": old, "updated_at": old };
        insert(&world.database, "discovery_runs", run).await;
    }
    insert(&world.database, "discoveries", doc! { "created_at": DateTime::now(), "run_type": "failed" }).await;
    insert(&world.database, "secrets", doc! { "key": "warehouse", "encrypted": false }).await;
    let drop = |collection: &str| doc! { "dropIndexes": collection, "index": "created_at_1" };
    world.database.run_command(drop("discovery_debug_logs")).await.unwrap();
    world.database.run_command(drop("search_history")).await.unwrap();
    index(&world.database, "search_history", "created_at", 60).await;
    world.log("agent.log", "error", "Failed to save discovery result", "");
    world.log("agent.log", "fatal", "Discovery failed", "");
    world.log("api.log", "error", "Failed to set secret", "");
    (0..12).for_each(|_| world.log("api.log", "error", "Request failed", ",\"status\":500"));
}

async fn end_trouble(world: &mut World) {
    world.weather = Weather::Fair;
    world.database.collection::<Document>("discovery_runs").delete_many(doc! { "status": "running" }).await.unwrap();
    world.database.collection::<Document>("secrets").delete_many(doc! { "encrypted": false }).await.unwrap();
    world.database.run_command(doc! { "dropIndexes": "search_history", "index": "created_at_1" }).await.unwrap();
    for (collection, field, seconds) in TTL {
        index(&world.database, collection, field, seconds).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_real_cause_is_told_to_people_and_its_symptoms_are_not() {
    let mut world = World::start().await;
    let sidecar = world.sidecar();
    let other = Setup::default().config("profile: none\nstate_dir: \"${BELLWETHER_STATE_DIR}\"\n").start();
    world.stack.scrape(&[&sidecar.address, &other.address]);

    // All is well: the Watchdog comes again and again, and nothing else is told.
    world.panels_have_data(true).await;
    world.until_quiet().await;
    world
        .until("the Watchdog again", async || {
            let times = world.stack.told().iter().filter(|it| it.receiver == "watchdog").count();
            if times > 1 { Vec::new() } else { vec![format!("it came {times} times")] }
        })
        .await;
    let told = world.stack.told();
    let noise: Vec<_> = told.iter().filter(|it| it.receiver != "watchdog" && it.labels["alertname"] != "BellwetherAbsent").collect();
    assert!(noise.is_empty(), "{noise:#?}");

    // Runs, calls and stores.
    make_trouble(&mut world).await;
    world.until_told(&TROUBLE).await;
    world.until_inhibited(&[("DecisionBoxRunTooLong", "warning"), ("DecisionBoxLLMErrors", "warning")]).await;
    world.panels_have_data(false).await;
    for one in world.stack.told().iter().filter(|it| it.firing) {
        assert!(one.annotations["runbook_url"].starts_with("docs/runbooks/"), "{one:?}");
        assert!(!one.annotations["description"].contains("<no value>"), "{one:?}");
    }
    end_trouble(&mut world).await;
    world.until_over(&TROUBLE).await;
    world.until_quiet().await;

    // The database freezes, and takes the API with it: one cause is told.
    world.begin(Weather::Calm);
    world.api.answer_with(503);
    world.mongod.freeze();
    world.until_told(&[("DecisionBoxMongoDBDown", "critical")]).await;
    world
        .until_inhibited(&[
            ("DecisionBoxNotReady", "critical"),
            ("DecisionBoxReadinessBurn", "critical"),
            ("DecisionBoxMongoDBErrors", "warning"),
        ])
        .await;
    let cause = world.stack.query("bellwether_check_root_cause == 1", false).await.unwrap();
    assert!(cause.iter().map(|(labels, _)| labels["check"].as_str()).eq(["mongodb"]), "{cause:?}");
    world.stays_quiet(&["DecisionBoxNotReady", "DecisionBoxReadinessBurn", "DecisionBoxComponentDown", "DecisionBoxMongoDBErrors"]).await;
    world.mongod.thaw();
    world.api.answer_with(200);
    world.weather = Weather::Fair;
    world.until_over(&[("DecisionBoxMongoDBDown", "critical")]).await;
    world.until_quiet().await;

    // The API alone.
    world.begin(Weather::Fair);
    world.api.answer_with(503);
    world.until_told(&[("DecisionBoxComponentDown", "critical")]).await;
    world.until_inhibited(&[("DecisionBoxNotReady", "critical")]).await;
    world.stays_quiet(&["DecisionBoxNotReady", "DecisionBoxReadinessBurn"]).await;
    world.api.answer_with(200);
    world.until_over(&[("DecisionBoxComponentDown", "critical")]).await;

    // One sidecar goes, then the last one.
    world.begin(Weather::Fair);
    drop(other.kill());
    world.until_told(&[("BellwetherDown", "critical")]).await;
    world.stack.scrape(&[&sidecar.address]);
    world.until_over(&[("BellwetherDown", "critical")]).await;
    world.begin(Weather::Fair);
    drop(sidecar.kill());
    world.until_told(&[("BellwetherAbsent", "critical")]).await;
    world.until_inhibited(&[("BellwetherDown", "critical")]).await;
    let sidecar = world.sidecar();
    world.stack.scrape(&[&sidecar.address]);
    world.until_over(&[("BellwetherAbsent", "critical")]).await;

    let slowest = world.stack.slowest_group().await;
    println!("the slowest group of rules took {:.1} ms", slowest * 1000.0);
}
