//! One run a project: real processes, a real MongoDB, and an API that starts runs as DecisionBox's does.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use k8s_openapi::api::batch::v1::Job;
use kube::api::PostParams;
use mongodb::bson::{DateTime, Document, doc, oid::ObjectId};
use mongodb::{Collection, Database};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::cluster::Cluster;
use crate::mongod::{Mongod, eventually};
use crate::sidecar::{Setup, Sidecar, free_port};

const PROJECT: &str = "69d0f3a1c2b4e5f60718293a";
const DATABASE: &str = "decisionbox";
/// The message of the API's own refusal.
const ALREADY: &str = "A discovery is already running for this project";

/// An API that starts runs, and does not look whether there is one.
#[derive(Clone)]
struct Api {
    database: Database,
    started: Arc<AtomicUsize>,
    /// Answers with this instead of starting anything.
    status: Arc<AtomicU16>,
    /// Takes requests and never answers.
    hangs: Arc<AtomicBool>,
}

async fn discover(State(api): State<Api>, Path(project): Path<String>) -> Response {
    let status = api.status.load(Ordering::SeqCst);
    if status != 0 {
        return (StatusCode::from_u16(status).unwrap(), "{\"error\":\"project not found\"}").into_response();
    }
    if api.hangs.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    api.started.fetch_add(1, Ordering::SeqCst);
    let now = DateTime::now();
    let run = doc! { "_id": ObjectId::new(), "project_id": project, "status": "pending", "started_at": now, "updated_at": now };
    let id = run.get_object_id("_id").unwrap().to_hex();
    runs(&api.database).insert_one(run).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let body = json!({ "data": { "message": "Discovery agent started", "run_id": id, "status": "started" } });
    (StatusCode::ACCEPTED, body.to_string()).into_response()
}

fn runs(database: &Database) -> Collection<Document> {
    database.collection("discovery_runs")
}

async fn end_runs(database: &Database) {
    runs(database).update_many(doc! {}, doc! { "$set": { "status": "completed" } }).await.unwrap();
}

async fn start_api(database: Database) -> (Api, String) {
    let api = Api { database, started: Arc::default(), status: Arc::default(), hangs: Arc::default() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = Router::new().route("/api/v1/projects/{id}/discover", post(discover)).with_state(api.clone());
    #[expect(clippy::disallowed_methods, reason = "ends with the runtime of its test")]
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (api, address)
}

/// A front door before an API, in a process of its own.
fn open(mongod: &Mongod, upstream: &str, more: &str) -> (Sidecar, String) {
    let address = format!("127.0.0.1:{}", free_port());
    let config = format!(
        "state_dir: \"${{BELLWETHER_STATE_DIR}}\"
stores: {{ mongodb: {{ uri: \"{}\", database: {DATABASE} }} }}
front:
  listen: {address}
  upstream: http://{upstream}
  auth: {{ anonymous: [runs] }}
  limits: {{ rate: 1000000, rate_per_client: 1000000, requests: 4096, requests_per_client: 4096 }}
  routes: {{ \"POST /api/v1/projects/{{id}}/discover\": runs }}
{more}",
        mongod.uri()
    );
    (Setup::default().config(&config).start(), address)
}

/// Starts a run; status and body.
async fn start(address: &str, project: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = "{\"areas\":[]}";
    let head = format!(
        "POST /api/v1/projects/{project}/discover HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, serde_json::from_str(body).unwrap_or_default())
}

async fn claim(database: &Database) -> Option<Document> {
    database.collection::<Document>("bellwether_run_claims").find_one(doc! { "_id": PROJECT }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_starts_through_three_front_doors_one_starts_ten_times_over() {
    let mongod = Mongod::start().await;
    let database = mongod.database(DATABASE).await;
    let (api, upstream) = start_api(database.clone()).await;
    let doors: Vec<(Sidecar, String)> = (0..3).map(|_| open(&mongod, &upstream, "")).collect();
    for round in 1..=10 {
        let mut asked = tokio::task::JoinSet::new();
        for number in 0..1000 {
            let address = doors[number % 3].1.clone();
            asked.spawn(async move { start(&address, PROJECT).await });
        }
        let answers = asked.join_all().await;
        let started: Vec<&Value> = answers.iter().filter(|(status, _)| *status == 202).map(|(_, body)| body).collect();
        let refused: Vec<&Value> = answers.iter().filter(|(status, _)| *status == 409).map(|(_, body)| body).collect();
        assert_eq!((started.len(), refused.len(), api.started.load(Ordering::SeqCst)), (1, 999, round), "round {round}");
        let run = &started[0]["data"]["run_id"];
        let expected = json!({ "data": { "message": ALREADY, "run_id": run, "status": "already_running" } });
        assert!(refused.iter().all(|body| **body == expected), "round {round}: {:?}", refused.iter().find(|body| ***body != expected));
        // Once its run is over the project is free, whoever has noticed it.
        end_runs(&database).await;
    }
    assert_eq!(claim(&database).await.unwrap().get_i64("epoch").ok(), Some(10));
    let passed_on: f64 = doors.iter().map(|(door, _)| door.value("bellwether_front_starts_total{outcome=\"started\"}").unwrap()).sum();
    assert!((passed_on - 10.0).abs() < f64::EPSILON, "{passed_on}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_front_door_that_is_killed_while_it_starts_a_run_holds_its_project_no_longer_than_the_lease() {
    let mongod = Mongod::start().await;
    let database = mongod.database(DATABASE).await;
    let (api, upstream) = start_api(database.clone()).await;
    let lease = "  admission: { lease: 3s, every: 1s }\n";
    let (killed, address) = open(&mongod, &upstream, lease);
    let (_other, other) = open(&mongod, &upstream, lease);
    api.hangs.store(true, Ordering::SeqCst);
    #[expect(clippy::disallowed_methods, reason = "ends with the front door that it asks")]
    tokio::spawn(async move { start(&address, PROJECT).await });
    let held = eventually("the project is claimed", async || claim(&database).await).await;
    killed.kill();
    let millis = |claim: &Document, key: &str| claim.get_datetime(key).unwrap().timestamp_millis();
    assert_eq!(millis(&held, "expires") - millis(&held, "taken"), 3000, "by the server's clock");
    api.hangs.store(false, Ordering::SeqCst);
    eventually("the project is free", async || (start(&other, PROJECT).await.0 == 202).then_some(())).await;
    let taken = claim(&database).await.unwrap();
    assert_eq!(taken.get_i64("epoch").ok(), Some(2));
    assert!(millis(&taken, "taken") >= millis(&held, "expires"), "not before");
    assert_eq!(api.started.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_api_answers_decides_what_becomes_of_the_claim() {
    let mongod = Mongod::start().await;
    let database = mongod.database(DATABASE).await;
    let (api, upstream) = start_api(database.clone()).await;
    let (door, address) = open(&mongod, &upstream, "");
    for status in [404, 400, 409, 500, 503] {
        api.status.store(status, Ordering::SeqCst);
        assert_eq!(start(&address, PROJECT).await.0, status);
        assert_eq!(start(&address, PROJECT).await.0, status, "it was given back at once");
    }
    api.status.store(0, Ordering::SeqCst);
    let (status, body) = start(&address, PROJECT).await;
    assert_eq!(status, 202);
    // The API reads the digits of an id in either case.
    let (status, refused) = start(&address, &PROJECT.to_uppercase()).await;
    assert_eq!((status, &refused["data"]["run_id"]), (409, &body["data"]["run_id"]));
    assert_eq!(start(&address, "another").await.0, 202, "another project is another claim");
    assert_eq!(start(&address, "a%20b").await.0, 404);
    for (outcome, count) in [("started", 2.0), ("refused", 6.0), ("failed", 4.0), ("already_running", 1.0)] {
        assert_eq!(door.value(&format!("bellwether_front_starts_total{{outcome=\"{outcome}\"}}")), Some(count), "{outcome}");
    }

    // Nobody listens: nothing can have begun.
    end_runs(&database).await;
    let (_gone, address) = open(&mongod, &format!("127.0.0.1:{}", free_port()), "");
    for _ in 0..2 {
        assert_eq!(start(&address, PROJECT).await.0, 502);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_nobody_has_claimed_keeps_its_project_and_one_that_is_gone_is_told() {
    let mongod = Mongod::start().await;
    let database = mongod.database(DATABASE).await;
    let (api, upstream) = start_api(database.clone()).await;
    let long_ago = DateTime::from_millis(DateTime::now().timestamp_millis() - 7_200_000);
    let run = ObjectId::new();
    let document = doc! { "_id": run, "project_id": PROJECT, "status": "running", "started_at": long_ago, "updated_at": long_ago };
    runs(&database).insert_one(document).await.unwrap();
    // A process that is told its run as DecisionBox's agent is, and lives. It has no child, which would outlive it and hold the
    // output of the tests.
    let mut agent = Command::new("/bin/sh");
    let mut agent = agent.args(["-c", "read line", "agent", "--run-id", &run.to_hex()]).stdin(Stdio::piped()).spawn().unwrap();
    let (door, address) = open(&mongod, &upstream, "  admission: { every: 1s, mark_failed: true }\n");
    let (status, body) = start(&address, PROJECT).await;
    assert_eq!((status, body["data"]["run_id"].as_str()), (409, Some(run.to_hex().as_str())));
    assert_eq!(api.started.load(Ordering::SeqCst), 0);
    eventually("it has looked", async || door.value("bellwether_front_watch_success").filter(|success| *success > 0.0)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let of_living = (door.value("bellwether_front_stale_runs"), door.value("bellwether_front_runs_marked_failed_total"));
    assert_eq!(of_living, (Some(0.0), Some(0.0)), "an agent that is stuck is not gone");
    drop(door.stop());
    agent.kill().unwrap();
    agent.wait().unwrap();

    let (door, address) = open(&mongod, &upstream, "  admission: { every: 1s }\n");
    eventually("it is told", async || door.value("bellwether_front_stale_runs").filter(|stale| *stale > 0.0)).await;
    let state = async || runs(&database).find_one(doc! { "_id": run }).await.unwrap().unwrap();
    assert_eq!(state().await.get_str("status").ok(), Some("running"), "nobody has said that it may be marked");

    let (marks, _) = open(&mongod, &upstream, "  admission: { every: 1s, mark_failed: true }\n");
    let failed = eventually("it is marked", async || Some(state().await).filter(|run| run.get_str("status").ok() == Some("failed"))).await;
    assert_eq!(failed.get_str("error").ok(), Some("stale: no update for more than 45m; marked as failed by Bellwether"));
    assert!(failed.get_datetime("completed_at").is_ok());
    eventually("it is counted", async || marks.value("bellwether_front_runs_marked_failed_total").filter(|count| *count > 0.0)).await;
    eventually("its project is free", async || (start(&address, PROJECT).await.0 == 202).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_job_is_not_over_is_not_gone() {
    let Some(cluster) = Cluster::start().await else { return };
    let mongod = Mongod::start().await;
    let database = mongod.database(DATABASE).await;
    let (_api, upstream) = start_api(database.clone()).await;
    let long_ago = DateTime::from_millis(DateTime::now().timestamp_millis() - 7_200_000);
    let (living, gone) = (ObjectId::new(), ObjectId::new());
    for (run, project) in [(living, PROJECT), (gone, "another")] {
        let document = doc! { "_id": run, "project_id": project, "status": "running", "started_at": long_ago, "updated_at": long_ago };
        runs(&database).insert_one(document).await.unwrap();
    }
    // As DecisionBox's own runner makes it.
    let name = format!("discovery-{}", &living.to_hex()[..20]);
    let container = json!({ "name": "agent", "image": "agent:1" });
    let job = json!({
        "metadata": { "name": name, "labels": { "app": "decisionbox-agent", "project-id": PROJECT, "run-id": living.to_hex() } },
        "spec": { "backoffLimit": 0, "template": {
            "metadata": { "labels": { "app": "decisionbox-agent", "run-id": living.to_hex() } },
            "spec": { "restartPolicy": "Never", "containers": [container] },
        } },
    });
    let job: Job = serde_json::from_value(job).unwrap();
    cluster.api::<Job>().create(&PostParams::default(), &job).await.unwrap();
    cluster.begin(&living.to_hex()).await;
    let kubeconfig = cluster.access().kubeconfig.unwrap();
    let admission = format!("  admission: {{ every: 1s, mark_failed: true, jobs: {{ kubeconfig: {} }} }}\n", kubeconfig.display());
    let (door, _) = open(&mongod, &upstream, &admission);
    let status =
        async |run: ObjectId| runs(&database).find_one(doc! { "_id": run }).await.unwrap().unwrap().get_str("status").unwrap().to_owned();
    eventually("that which has no Job is marked", async || (status(gone).await == "failed").then_some(())).await;
    assert_eq!(status(living).await, "running", "an agent that is stuck is not gone");
    // Nothing is marked on a guess.
    cluster.freeze();
    eventually("the cluster does not answer", async || door.value("bellwether_front_watch_success").filter(|success| *success == 0.0))
        .await;
    assert_eq!(status(living).await, "running");
    cluster.wake_up();
    cluster.end(&living.to_hex(), 1, "Error", "").await;
    eventually("its Job is over", async || (status(living).await == "failed").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_started_while_the_database_does_not_answer() {
    let mongod = Mongod::start().await;
    let (api, upstream) = start_api(mongod.database(DATABASE).await).await;
    let (door, address) = open(&mongod, &upstream, "");
    assert_eq!(start(&address, PROJECT).await.0, 202);
    mongod.freeze();
    let (status, body) = start(&address, "another").await;
    mongod.thaw();
    assert_eq!((status, body["error"].as_str()), (503, Some("STORE_UNAVAILABLE")), "{body}");
    assert_eq!(api.started.load(Ordering::SeqCst), 1);
    assert!(!door.log().contains("127.0.0.1:27"), "no host is logged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_goes_on_although_its_client_goes_away() {
    let mongod = Mongod::start().await;
    let database = mongod.database(DATABASE).await;
    let (api, upstream) = start_api(database.clone()).await;
    let (_door, address) = open(&mongod, &upstream, "");
    let asks = tokio::time::timeout(Duration::from_millis(30), start(&address, PROJECT));
    drop(asks.await);
    let run = eventually("the run is written down", async || claim(&database).await?.get_str("run").ok().map(str::to_owned)).await;
    assert_eq!(start(&address, PROJECT).await.1["data"]["run_id"].as_str(), Some(run.as_str()));
    assert_eq!(api.started.load(Ordering::SeqCst), 1);
}
