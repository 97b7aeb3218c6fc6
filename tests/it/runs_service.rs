//! The embedded run service against a real mongod, with real agents: scripts that behave, and scripts that do not.
//!
//! A service that is dropped stands for one that was killed, as its agents are processes of their own; one test kills a real
//! process.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bellwether::config::services::{AgentLimits, RunsService};
use bellwether::config::stores::MongoStore;
use bellwether::metrics::{Registry, registry};
use bellwether::secret::Secret;
use bellwether::services::runs::Runs;
use mongodb::Database;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Document, doc};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::mongod::{Mongod, eventually};
use crate::served::{Reply, Served, serve};

/// Says who it is, waits until it may end, and ends as it is told: by files in the folder `ORDERS`, named by its run.
const AGENT: &str = r#"
run="$4"
echo "{\"severity\":\"INFO\",\"message\":\"Starting DecisionBox Agent\",\"run\":\"$run\"}"
while [ ! -e "$ORDERS/$run" ] && [ ! -e "$ORDERS/all" ]; do sleep 0.05; done
if [ -e "$ORDERS/$run" ]; then . "$ORDERS/$run"; else . "$ORDERS/all"; fi
"#;

/// A service that runs, and what it works with.
pub struct Stage {
    pub service: Served,
    runs: Arc<Runs>,
    pub registry: Registry,
    stop: CancellationToken,
}

/// What outlives a service.
pub struct Ground {
    server: Mongod,
    pub database: Database,
    folder: TempDir,
    pub settings: RunsService,
}

/// How the agents of a test are run.
fn settings(folder: &Path) -> RunsService {
    let (script, orders) = (folder.join("agent.sh"), folder.join("orders"));
    let variables = [("PATH", "/usr/bin:/bin"), ("ORDERS", orders.to_str().unwrap()), ("TOKEN", "for the agent")];
    RunsService {
        jobs: None,
        agent: vec!["/bin/sh".to_owned(), script.to_str().unwrap().to_owned()],
        environment: variables.map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned()))).to_vec(),
        max_running: 64,
        limits: AgentLimits { time: Duration::from_secs(600), grace: Duration::from_millis(300), memory: 256 << 20, output: 1 << 20 },
        stale_after: Duration::from_secs(1800),
        keep: 100,
    }
}

impl Ground {
    pub async fn new() -> Self {
        let server = Mongod::start().await;
        let database = server.database("decisionbox").await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("agent.sh"), AGENT).unwrap();
        std::fs::create_dir(folder.path().join("orders")).unwrap();
        let settings = settings(folder.path());
        Self { server, database, folder, settings }
    }

    /// A service in a state folder of this name.
    pub async fn service(&self, name: &str) -> Stage {
        let mut registry = registry();
        let shim = Path::new(env!("CARGO_BIN_EXE_bellwether"));
        let (settings, store, state) = (self.settings.clone(), self.server.store("decisionbox"), self.state(name));
        let opened = tokio::task::spawn_blocking(move || {
            let runs = Runs::open(&settings, Some(&store), Some(&state), shim, &mut registry).unwrap();
            (runs, registry)
        });
        let (runs, registry) = opened.await.unwrap();
        let stop = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
        tokio::spawn(Arc::clone(&runs).keep(stop.clone()));
        Stage { service: serve(runs.router()).await, runs, registry, stop }
    }

    fn state(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub async fn project(&self) -> String {
        let project = ObjectId::new();
        self.database.collection::<Document>("projects").insert_one(doc! { "_id": project, "name": "Puzzle Quest" }).await.unwrap();
        project.to_hex()
    }

    /// Tells the agent of a run, or all agents, how to end.
    fn order(&self, run: &str, script: &str) {
        let orders = self.folder.path().join("orders");
        std::fs::write(orders.join("part"), script).unwrap();
        std::fs::rename(orders.join("part"), orders.join(run)).unwrap();
    }

    pub async fn document(&self, run: &str) -> Document {
        let runs = self.database.collection::<Document>("discovery_runs");
        runs.find_one(doc! { "_id": ObjectId::parse_str(run).unwrap() }).await.unwrap().unwrap()
    }

    /// The document of a run once it is over and its project is free.
    pub async fn over(&self, run: &str) -> Document {
        let claims = self.database.collection::<Document>("bellwether_run_claims");
        eventually("the run is over", async || {
            let document = self.document(run).await;
            let is_over = ["completed", "failed", "cancelled"].contains(&document.get_str("status").unwrap());
            let held = claims.count_documents(doc! { "run": run, "expires": { "$gt": DateTime::from_millis(0) } }).await.unwrap();
            (is_over && held == 0).then_some(document)
        })
        .await
    }

    fn output(&self, name: &str, run: &str) -> String {
        std::fs::read_to_string(self.state(name).join("runs").join(run).join("output.log")).unwrap_or_default()
    }

    /// The number of the agent's process, or of its shim's.
    fn pid(&self, name: &str, run: &str, which: &str) -> u64 {
        let text = std::fs::read_to_string(self.state(name).join("runs").join(run).join("agent.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()[which]["pid"].as_u64().unwrap()
    }
}

impl Stage {
    pub async fn start(&self, project: &str, task: &str) -> Reply {
        self.service.ask(Method::POST, &format!("/api/v1/projects/{project}/discover"), task.to_owned()).await
    }

    #[track_caller]
    pub fn run(reply: &Reply) -> String {
        assert_eq!(reply.status, 202, "{reply:?}");
        reply.json()["data"]["run_id"].as_str().unwrap().to_owned()
    }

    pub async fn begin(&self, project: &str) -> String {
        Self::run(&self.start(project, "").await)
    }

    pub async fn cancel(&self, run: &str) -> Reply {
        self.service.ask(Method::DELETE, &format!("/api/v1/runs/{run}"), "").await
    }

    /// Everything of it is gone, as after a kill; its agents are not.
    pub fn vanish(self) {
        self.stop.cancel();
        drop(self.runs);
    }
}

fn is_alive(pid: u64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
}

pub fn error(document: &Document) -> &str {
    document.get_str("error").unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_begun_shown_and_completed_as_the_application_does_it() {
    let ground = Ground::new().await;
    let stage = ground.service("state").await;
    let project = ground.project().await;
    let reply = stage.start(&project, r#"{"areas":["churn","levels"],"max_steps":7}"#).await;
    let run = Stage::run(&reply);
    assert_eq!(reply.json(), json!({ "data": { "message": "Discovery agent started", "run_id": run, "status": "started" } }));
    let document = ground.document(&run).await;
    for (field, value) in
        [("project_id", Bson::from(&project)), ("status", "running".into()), ("phase", "init".into()), ("progress", 0.into())]
    {
        assert_eq!(document.get(field), Some(&value), "{field}");
    }
    let second = stage.start(&project, "").await;
    let expected =
        json!({ "data": { "message": "A discovery is already running for this project", "run_id": run, "status": "already_running" } });
    assert_eq!((second.status, second.json()), (409, expected));

    ground.order(&run, "echo \"args: $*\"; env | sed 's/^/env: /'; echo to stderr >&2; exit 0");
    let document = ground.over(&run).await;
    assert_eq!(document.get_str("status").unwrap(), "completed", "{document}");
    assert!(document.contains_key("completed_at") && !document.contains_key("error"), "{document}");
    let output = ground.output("state", &run);
    let expected = format!("args: --project-id {project} --run-id {run} --areas churn,levels --max-steps 7");
    assert!(output.contains(&expected) && output.contains("to stderr"), "{output}");
    let mut names: Vec<&str> = output.lines().filter_map(|line| line.strip_prefix("env: ")?.split('=').next()).collect();
    names.sort_unstable();
    // The shell adds PWD and the like, and nothing of our own environment.
    names.retain(|name| !["PWD", "OLDPWD", "_", "SHLVL"].contains(name));
    assert_eq!(names, ["ORDERS", "PATH", "TOKEN"]);

    let one = stage.service.get(&format!("/api/v1/runs/{run}")).await.json();
    assert_eq!((&one["data"]["id"], &one["data"]["status"], &one["data"]["exit_code"]), (&json!(run), &json!("completed"), &json!(0)));
    let last = doc! { "project_id": &project, "discovery_date": DateTime::from_millis(1_700_000_000_000), "total_steps": 63, "summary": { "total_insights": 7 } };
    ground.database.collection::<Document>("discoveries").insert_one(last).await.unwrap();
    let status = stage.service.get(&format!("/api/v1/projects/{project}/status")).await.json();
    assert_eq!((&status["data"]["project_id"], &status["data"]["run"]["id"]), (&json!(project), &json!(run)));
    assert_eq!(status["data"]["last_discovery"], json!({ "date": "2023-11-14T22:13:20Z", "insights_count": 7, "total_steps": 63 }));

    // The project is free, and a run whose agent writes its own end is left as the agent wrote it.
    let run = stage.begin(&project).await;
    let set = doc! { "$set": { "status": "completed", "insights_found": 9, "progress": 100 } };
    ground
        .database
        .collection::<Document>("discovery_runs")
        .update_one(doc! { "_id": ObjectId::parse_str(&run).unwrap() }, set)
        .await
        .unwrap();
    ground.order(&run, "exit 1");
    let document = ground.over(&run).await;
    assert_eq!((document.get_str("status").unwrap(), document.get_i32("insights_found").unwrap()), ("completed", 9));
    assert!(!document.contains_key("exit_code"), "{document}");
    let metrics = eventually("both are counted", async || {
        let metrics = stage.registry.open_metrics().unwrap();
        metrics.contains("bellwether_runs_ended_total{status=\"completed\"} 2").then_some(metrics)
    })
    .await;
    for line in [
        "bellwether_runs_started_total 2",
        "bellwether_runs_ended_total{status=\"completed\"} 2",
        "bellwether_runs_refused_total{reason=\"already_running\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_starts_through_two_services_one_wins() {
    let ground = Ground::new().await;
    let (one, other) = (ground.service("one").await, ground.service("other").await);
    for _ in 0..5 {
        let project = ground.project().await;
        let starts = (0..100).map(|number| {
            let (stage, project) = (if number % 2 == 0 { &one } else { &other }, &project);
            async move { stage.start(project, "").await }
        });
        let replies = futures_util::future::join_all(starts).await;
        let won: Vec<&Reply> = replies.iter().filter(|reply| reply.status == 202).collect();
        assert_eq!(won.len(), 1);
        let run = Stage::run(won[0]);
        for lost in replies.iter().filter(|reply| reply.status != 202) {
            assert_eq!((lost.status, &lost.json()["data"]["run_id"]), (409, &json!(run)), "{lost:?}");
        }
        ground.order(&run, "exit 0");
        ground.over(&run).await;
    }
    assert_eq!(ground.database.collection::<Document>("discovery_runs").count_documents(doc! {}).await.unwrap(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_fails_has_failed_for_the_reason_it_gave() {
    let ground = Ground::new().await;
    let stage = ground.service("state").await;
    let fatal = r#"echo '{"severity":"FATAL","message":"Discovery failed","error":"step 12: claude: overloaded"}' >&2; "#;
    let pipe = "head -c 600000000 /dev/zero | tail; exit $?";
    for (script, status, expected) in [
        (format!("{fatal} exit 1"), "failed", "step 12: claude: overloaded (exit status 1)"),
        ("exit 3".to_owned(), "failed", "(exit status 3)"),
        (format!("{fatal} kill -9 $$"), "failed", "step 12: claude: overloaded (signal: killed)"),
        ("kill -SEGV $$".to_owned(), "failed", "(signal: segmentation fault)"),
        (pipe.to_owned(), "failed", "(exit status 1)"),
        (
            "while :; do echo flood flood flood flood flood flood flood flood flood >&2; done".to_owned(),
            "failed",
            "output limit: the agent wrote too much and was stopped",
        ),
        // Whoever ignores the kernel's signal is noticed by its shim.
        (
            "trap '' XFSZ; while :; do echo flood flood flood flood flood flood flood >&2; done 2>>\"$PWD/output.log\"".to_owned(),
            "failed",
            "output limit: the agent wrote too much and was stopped",
        ),
    ] {
        let run = stage.begin(&ground.project().await).await;
        ground.order(&run, &script);
        let document = ground.over(&run).await;
        assert_eq!(document.get_str("status").unwrap(), status, "{script}");
        assert!(error(&document).contains(expected), "{script}: {document}");
        let length = std::fs::metadata(ground.state("state").join("runs").join(&run).join("output.log")).unwrap().len();
        assert!(length <= 1 << 20, "{script}: {length}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_runs_for_too_long_is_stopped_with_all_that_it_started() {
    let mut ground = Ground::new().await;
    ground.settings.limits.time = Duration::from_secs(1);
    let stage = ground.service("state").await;
    let run = stage.begin(&ground.project().await).await;
    // It does not listen, and it has a child that does not either.
    ground.order(&run, "trap '' TERM; (trap '' TERM; echo $$ child; exec sleep 300) & echo \"child $!\"; while :; do sleep 1; done");
    let document = ground.over(&run).await;
    assert_eq!(error(&document), "time limit: the agent ran for too long and was stopped (signal: killed)");
    let output = ground.output("state", &run);
    let child: u64 = output.lines().find_map(|line| line.strip_prefix("child ")).unwrap().trim().parse().unwrap();
    eventually("its child is gone", async || (!is_alive(child)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_cannot_be_started_leaves_nothing_half_done() {
    let mut ground = Ground::new().await;
    for (program, expected) in [
        ("decisionbox-agent", "exec: \"decisionbox-agent\": executable file not found in $PATH"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
    ] {
        ground.settings.agent = vec![program.to_owned()];
        let stage = ground.service(program.trim_start_matches('/')).await;
        let project = ground.project().await;
        for _ in 0..2 {
            let reply = stage.start(&project, "").await;
            assert_eq!(reply.error(), (500, format!("failed to start agent: {expected}")));
            let runs = ground.database.collection::<Document>("discovery_runs");
            let latest = runs.find_one(doc! { "project_id": &project }).sort(doc! { "_id": -1 }).await.unwrap().unwrap();
            let document = ground.over(&latest.get_object_id("_id").unwrap().to_hex()).await;
            assert_eq!(
                (document.get_str("status").unwrap(), error(&document)),
                ("failed", format!("failed to start: {expected}").as_str())
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_cancelled_here_and_by_way_of_another_service_and_stays_cancelled() {
    let ground = Ground::new().await;
    let (stage, other) = (ground.service("one").await, ground.service("other").await);
    let project = ground.project().await;
    for through in [&stage, &other] {
        let run = stage.begin(&project).await;
        // It ends when it likes, and writes once more that it runs: the application's agent does so.
        ground.order(&run, "trap 'echo told to end; exit 143' TERM; echo ready; while :; do sleep 0.05; done");
        eventually("the agent has its orders", async || ground.output("one", &run).contains("ready").then_some(())).await;
        let reply = through.cancel(&run).await;
        assert_eq!((reply.status, reply.json()), (200, json!({ "data": { "message": "Run cancelled", "status": "cancelled" } })));
        if std::ptr::eq(through, &raw const stage) {
            let runs = ground.database.collection::<Document>("discovery_runs");
            runs.update_one(doc! { "_id": ObjectId::parse_str(&run).unwrap() }, doc! { "$set": { "status": "running" } }).await.unwrap();
        }
        let document = ground.over(&run).await;
        assert_eq!(document.get_str("status").unwrap(), "cancelled", "{document}");
        assert!(ground.output("one", &run).contains("told to end"));
        let again = through.cancel(&run).await;
        assert_eq!(again.error(), (400, "run is not active (status: cancelled)".to_owned()));
    }
    // One that does not listen is killed after its grace.
    let run = stage.begin(&project).await;
    ground.order(&run, "trap '' TERM; echo deaf; while :; do sleep 0.05; done");
    eventually("the agent is deaf", async || ground.output("one", &run).contains("deaf").then_some(())).await;
    assert_eq!(stage.cancel(&run).await.status, 200);
    let document = ground.over(&run).await;
    assert_eq!((document.get_str("status").unwrap(), document.get_i32("exit_signal").unwrap()), ("cancelled", 9));

    let unknown = ObjectId::new().to_hex();
    assert_eq!(stage.cancel(&unknown).await.error(), (404, "run not found".to_owned()));
    assert_eq!(stage.cancel("xyz").await.error(), (400, "invalid run ID: it has 24 hexadecimal digits".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_all_agents_are_found_again_and_their_ends_are_known() {
    const AGENTS: usize = 20;
    let ground = Ground::new().await;
    let stage = ground.service("state").await;
    let mut runs = Vec::new();
    for _ in 0..AGENTS {
        runs.push(stage.begin(&ground.project().await).await);
    }
    let before: Vec<u64> = runs.iter().map(|run| ground.pid("state", run, "agent")).collect();
    stage.vanish();
    // Five end while nobody is there: well, badly, and by signals; and nobody is told before the restart.
    for (run, script) in runs.iter().zip(["exit 0", "exit 7", "kill -9 $$", "kill -SEGV $$", "exit 0"]) {
        ground.order(run, script);
    }
    let is_over = |run: &String| ground.state("state").join("runs").join(run).join("exit.json").exists();
    eventually("five have ended", async || runs[..5].iter().all(is_over).then_some(())).await;
    assert!(before[5..].iter().all(|pid| is_alive(*pid)), "the others live");

    let stage = ground.service("state").await;
    let metrics = stage.registry.open_metrics().unwrap();
    assert!(metrics.contains("bellwether_runs_reattached_total 15"), "{metrics}");
    let mut ends = Vec::new();
    for run in &runs[..5] {
        let document = ground.over(run).await;
        ends.push((
            document.get_str("status").unwrap().to_owned(),
            document.get_i32("exit_code").ok(),
            document.get_i32("exit_signal").ok(),
        ));
    }
    let expected = [
        ("completed", Some(0), None),
        ("failed", Some(7), None),
        ("failed", None, Some(9)),
        ("failed", None, Some(11)),
        ("completed", Some(0), None),
    ];
    assert_eq!(ends, expected.map(|(status, code, signal)| (status.to_owned(), code, signal)));
    for run in &runs[5..] {
        assert_eq!(ground.document(run).await.get_str("status").unwrap(), "running", "none that lives is failed");
    }
    ground.order("all", "exit 5");
    for (run, pid) in runs[5..].iter().zip(&before[5..]) {
        assert_eq!(ground.over(run).await.get_i32("exit_code").unwrap(), 5);
        assert!(!is_alive(*pid));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "no test by itself: it is the process that a test starts and kills"]
async fn a_service_to_be_killed() {
    let variable = |name| std::env::var_os(name).expect("the test that starts this gives it").into_string().unwrap();
    let folder = PathBuf::from(variable("GROUND"));
    let (settings, state) = (settings(&folder), folder.join("state"));
    let store = MongoStore { uri: Secret::new(variable("MONGODB_URI")), database: "decisionbox".to_owned() };
    let shim = Path::new(env!("CARGO_BIN_EXE_bellwether"));
    let runs = Runs::open(&settings, Some(&store), Some(&state), shim, &mut registry()).unwrap();
    #[expect(clippy::disallowed_methods, reason = "it ends with the process")]
    tokio::spawn(Arc::clone(&runs).keep(CancellationToken::new()));
    let served = serve(runs.router()).await;
    std::fs::write(folder.join("part"), &served.url).unwrap();
    std::fs::rename(folder.join("part"), folder.join("url")).unwrap();
    std::future::pending::<()>().await;
}

/// A process with a service, and a client that asks it.
async fn process(ground: &Ground) -> (Child, Served) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "runs_service::a_service_to_be_killed", "--ignored", "--nocapture"])
        .env("GROUND", ground.folder.path())
        .env("MONGODB_URI", ground.server.uri())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let url = ground.folder.path().join("url");
    let served = eventually("it serves", async || std::fs::read_to_string(&url).ok()).await;
    std::fs::remove_file(url).unwrap();
    (child, Served::at(served))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_killed_fails_none_of_twenty_agents_and_knows_how_each_ends() {
    const AGENTS: i32 = 20;
    let ground = Ground::new().await;
    let (mut killed, served) = process(&ground).await;
    let mut runs = Vec::new();
    for _ in 0..AGENTS {
        let path = format!("/api/v1/projects/{}/discover", ground.project().await);
        runs.push(Stage::run(&served.ask(Method::POST, &path, "").await));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let pids: Vec<u64> = runs.iter().map(|run| ground.pid("state", run, "agent")).collect();
    assert!(pids.iter().all(|pid| is_alive(*pid)), "all outlive it");

    let (mut second, served) = process(&ground).await;
    // A heartbeat and many looks.
    tokio::time::sleep(Duration::from_secs(6)).await;
    for run in &runs {
        let shown = served.get(&format!("/api/v1/runs/{run}")).await.json();
        assert_eq!(shown["data"]["status"], "running", "{shown}");
    }
    for (code, run) in (0..AGENTS).zip(&runs) {
        ground.order(run, &format!("exit {code}"));
    }
    for (code, run) in (0..AGENTS).zip(&runs) {
        let document = ground.over(run).await;
        let status = if code == 0 { "completed" } else { "failed" };
        assert_eq!((document.get_str("status").unwrap(), document.get_i32("exit_code").unwrap()), (status, code));
    }
    second.kill().unwrap();
    second.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_outlives_its_shim_and_a_start_outlives_nobody() {
    let ground = Ground::new().await;
    let stage = ground.service("state").await;
    let (project, other) = (ground.project().await, ground.project().await);
    let (run, orphan) = (stage.begin(&project).await, stage.begin(&other).await);
    for run in [&run, &orphan] {
        let shim = ground.pid("state", run, "shim");
        rustix::process::kill_process(rustix::process::Pid::from_raw(i32::try_from(shim).unwrap()).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(is_alive(ground.pid("state", &run, "agent")));
    assert_eq!(ground.document(&run).await.get_str("status").unwrap(), "running");
    ground.order(&run, "exit 0");
    assert_eq!(error(&ground.over(&run).await), "{\"severity\":\"INFO\",\"message\":\"Starting DecisionBox Agent\",\"run\":\"RUN\"} (the agent is gone and its exit status is not known)".replace("RUN", &run));
    // One without its shim is found again after a restart, too, and can be told to end.
    stage.vanish();
    let stage = ground.service("state").await;
    assert_eq!(stage.cancel(&orphan).await.status, 200);
    assert_eq!(ground.over(&orphan).await.get_str("status").unwrap(), "cancelled");

    // A process that was killed after its claim, and one that was killed before its shim began.
    stage.vanish();
    let holder = std::fs::read_to_string(ground.state("state").join("runs/holder")).unwrap();
    let (claimed, begun) = (ObjectId::new(), ObjectId::new());
    let projects = [ground.project().await, ground.project().await];
    for (run, project) in [claimed, begun].iter().zip(&projects) {
        let claim = doc! { "_id": project, "run": run.to_hex(), "holder": &holder, "epoch": 1_i64, "expires": DateTime::from_millis(4_000_000_000_000) };
        ground.database.collection::<Document>("bellwether_run_claims").insert_one(claim).await.unwrap();
        let document = doc! { "_id": run, "project_id": project, "status": "pending", "updated_at": DateTime::now() };
        ground.database.collection::<Document>("discovery_runs").insert_one(document).await.unwrap();
    }
    let folder = ground.state("state").join("runs").join(begun.to_hex());
    std::fs::create_dir(&folder).unwrap();
    let start = json!({ "project": projects[1], "command": ["/bin/true"], "time_millis": 1000, "grace_millis": 1000, "memory": 100_000_000, "output": 100_000 });
    std::fs::write(folder.join("start.json"), start.to_string()).unwrap();
    let stage = ground.service("state").await;
    for run in [claimed, begun] {
        let document = ground.over(&run.to_hex()).await;
        assert_eq!(error(&document), "failed to start: the run service ended before the agent was started");
    }
    // A shim that comes too late starts nothing.
    let late = std::process::Command::new(env!("CARGO_BIN_EXE_bellwether")).arg("agent-shim").arg(&folder).output().unwrap();
    assert!(!late.status.success() && !folder.join("output.log").exists(), "{late:?}");
    for project in &projects {
        let run = stage.begin(project).await;
        ground.order(&run, "exit 0");
        ground.over(&run).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_has_its_own_answer() {
    let mut ground = Ground::new().await;
    ground.settings.max_running = 1;
    let stage = ground.service("state").await;
    let project = ground.project().await;
    let unready = ObjectId::new();
    ground
        .database
        .collection::<Document>("projects")
        .insert_one(doc! { "_id": unready, "schema_index_status": "indexing" })
        .await
        .unwrap();
    let unready = unready.to_hex();
    let start = |project: &str| format!("/api/v1/projects/{project}/discover");
    let unknown = ObjectId::new().to_hex();
    let waits = format!("schema index is not ready yet — poll /api/v1/projects/{unready}/schema-index/status");
    let huge = format!("{{\"areas\":[\"{}\"]}}", "a".repeat(20_000));
    for (method, path, body, status, error) in [
        (Method::POST, start(&unknown), "", 404, "project not found"),
        (Method::POST, start("no-id"), "", 404, "project not found"),
        (Method::POST, start(&unready), "", 409, waits.as_str()),
        (Method::POST, start(&project), "{", 400, "invalid JSON: this is no JSON, at line 1 column 1"),
        (
            Method::POST,
            start(&project),
            r#"{"max_steps":"many"}"#,
            400,
            "invalid JSON: a value has another type than it should, at line 1 column 19",
        ),
        (Method::POST, start(&project), r#"{"max_steps":5,"min_steps":6}"#, 400, "min_steps (6) must not exceed max_steps (5)"),
        (Method::POST, start(&project), huge.as_str(), 413, "the body has more than 16384 bytes"),
        (Method::POST, start("%ff"), "", 400, "the path is not valid UTF-8"),
        (Method::GET, start(&project), "", 405, "method not allowed"),
        (Method::GET, format!("/api/v1/runs/{unknown}"), "", 404, "run not found"),
        (Method::GET, "/api/v1/runs/xyz".to_owned(), "", 400, "invalid run ID: it has 24 hexadecimal digits"),
        (Method::GET, format!("/api/v1/runs/{unknown}/debug-logs"), "", 404, "run not found"),
        (Method::GET, format!("/api/v1/projects/{unknown}/status"), "", 404, "project not found"),
        (Method::GET, "/api/v1/runs?limit=0".to_owned(), "", 400, "limit is a number from 1 to 200"),
        (Method::GET, "/api/v1/runs?status=done".to_owned(), "", 400, "status is one of pending, running, completed, failed, cancelled"),
        (Method::PUT, "/api/v1/runs".to_owned(), "", 405, "method not allowed"),
        (Method::GET, "/api/v1/elsewhere".to_owned(), "", 404, "not found"),
    ] {
        let reply = stage.service.ask(method.clone(), &path, body.to_owned()).await;
        assert_eq!(reply.error(), (status, error.to_owned()), "{method} {path}");
    }
    assert_eq!(ground.database.collection::<Document>("discovery_runs").count_documents(doc! {}).await.unwrap(), 0);

    let run = stage.begin(&project).await;
    let full = stage.start(&ground.project().await, "").await;
    assert_eq!((full.status, full.retry_after.as_deref()), (503, Some("5")), "{full:?}");
    ground.server.freeze();
    let frozen = stage.service.get(&format!("/api/v1/runs/{run}")).await;
    assert_eq!(frozen.error(), (503, "the database did not answer; try again".to_owned()));
    // An agent that ends meanwhile is written down when the database is back.
    ground.order(&run, "exit 4");
    tokio::time::sleep(Duration::from_secs(1)).await;
    ground.server.thaw();
    assert_eq!(ground.over(&run).await.get_i32("exit_code").unwrap(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_listed_page_by_page() {
    let ground = Ground::new().await;
    let stage = ground.service("state").await;
    let documents = (0..23).map(|number| {
        let status = if number % 2 == 0 { "completed" } else { "failed" };
        doc! { "project_id": format!("p{}", number % 3), "status": status, "steps": [{ "message": "long" }], "started_at": DateTime::now() }
    });
    ground.database.collection::<Document>("discovery_runs").insert_many(documents).await.unwrap();
    let (mut seen, mut next) = (Vec::new(), None::<String>);
    loop {
        let before = next.as_ref().map(|next| format!("&before={next}")).unwrap_or_default();
        let page = stage.service.get(&format!("/api/v1/runs?limit=10{before}")).await.json();
        seen.extend(page["data"].as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap().to_owned()));
        assert!(page["data"][0].get("steps").is_none(), "{page}");
        match page["next"].as_str() {
            Some(more) => next = Some(more.to_owned()),
            None => break,
        }
    }
    let mut sorted = seen.clone();
    sorted.sort_unstable_by(|one, other| other.cmp(one));
    sorted.dedup();
    assert_eq!((seen.len(), &sorted), (23, &seen), "each once, the newest first");
    let some = stage.service.get("/api/v1/runs?project_id=p1&status=failed").await.json();
    assert_eq!(some["data"].as_array().unwrap().len(), 4, "{some}");

    let run = &seen[0];
    let logs = (0..5).map(|number| {
        let time = DateTime::from_millis(1_700_000_000_000 + number);
        doc! { "discovery_run_id": run, "created_at": time, "log_type": "llm", "llm_prompt": "confidential", "query_results": ["rows"], "success": true }
    });
    ground.database.collection::<Document>("discovery_debug_logs").insert_many(logs).await.unwrap();
    let logs = stage.service.get(&format!("/api/v1/runs/{run}/debug-logs?since=2023-11-14T22:13:20.002Z&limit=2")).await.json();
    assert_eq!((logs["data"].as_array().unwrap().len(), &logs["data"][0]["created_at"]), (2, &json!("2023-11-14T22:13:20.002Z")));
    assert!(!logs.to_string().contains("confidential") && !logs.to_string().contains("rows"), "{logs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_holder_is_gone_is_given_up_only_when_nothing_is_heard_of_it() {
    let mut ground = Ground::new().await;
    ground.settings.stale_after = Duration::from_secs(60);
    let stage = ground.service("state").await;
    let (runs, claims) =
        (ground.database.collection::<Document>("discovery_runs"), ground.database.collection::<Document>("bellwether_run_claims"));
    let project = ground.project().await;
    let old = ObjectId::new();
    let heard = |seconds: i64| DateTime::from_millis(DateTime::now().timestamp_millis() - seconds * 1000);
    runs.insert_one(doc! { "_id": old, "project_id": &project, "status": "running", "updated_at": heard(5) }).await.unwrap();
    let claim = doc! { "_id": &project, "run": old.to_hex(), "holder": "another", "epoch": 3_i64, "expires": heard(-60) };
    claims.insert_one(claim).await.unwrap();
    let set = async |name: &str, value: Bson| {
        let filter = if name == "expires" {
            doc! { "_id": &project }
        } else {
            doc! { "_id": old }
        };
        let collection = if name == "expires" { &claims } else { &runs };
        collection.update_one(filter, doc! { "$set": { name: value } }).await.unwrap();
    };
    let refused = async || {
        let reply = stage.start(&project, "").await;
        assert_eq!((reply.status, &reply.json()["data"]["run_id"]), (409, &json!(old.to_hex())), "{reply:?}");
    };
    // Both live; the agent is silent and its holder lives; its holder is gone and the agent lives.
    refused().await;
    set("updated_at", heard(3600).into()).await;
    refused().await;
    set("expires", heard(60).into()).await;
    set("updated_at", heard(5).into()).await;
    refused().await;
    set("updated_at", heard(3600).into()).await;
    let run = stage.begin(&project).await;
    assert!(error(&ground.document(&old.to_hex()).await).starts_with("given up: nothing was heard of the agent for 60s"));
    let claim = claims.find_one(doc! { "_id": &project }).await.unwrap().unwrap();
    assert_eq!((claim.get_str("run").unwrap(), claim.get_i64("epoch").unwrap()), (run.as_str(), 4));
    ground.order(&run, "exit 0");
    ground.over(&run).await;

    // Runs that no claim tells of: those of the application's own run service.
    let unclaimed = doc! { "_id": ObjectId::new(), "project_id": &project, "status": "running", "updated_at": heard(5) };
    runs.insert_one(&unclaimed).await.unwrap();
    let reply = stage.start(&project, "").await;
    assert_eq!((reply.status, &reply.json()["data"]["run_id"]), (409, &json!(unclaimed.get_object_id("_id").unwrap().to_hex())));
    runs.update_one(doc! { "_id": unclaimed.get_object_id("_id").unwrap() }, doc! { "$set": { "updated_at": heard(3600) } }).await.unwrap();
    let run = stage.begin(&project).await;
    ground.order(&run, "exit 0");
    ground.over(&run).await;
}
