//! The embedded services in the whole sidecar, behind its front door: a SIGKILL among live agents, and a search for secrets in
//! all that the process leaves behind, its memory included.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, doc};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::mongod::{Mongod, eventually};
use crate::sidecar::{Setup, Sidecar, free_port};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Writes a line, waits until its run may end, and ends with a code that tells runs apart.
const AGENT: &str = r#"
echo "{\"severity\":\"INFO\",\"message\":\"Starting DecisionBox Agent\"}" >&2
while [ ! -e "$ORDERS/end" ]; do sleep 0.05; done
echo "{\"severity\":\"FATAL\",\"message\":\"Discovery failed\",\"error\":\"as the test wants it\"}" >&2
exit "$(printf '%d' "0x$(printf '%s' "$2" | tail -c 1)")"
"#;

struct Stage {
    server: Mongod,
    sidecar: Option<Sidecar>,
    front: String,
    orders: TempDir,
    client: reqwest::Client,
}

impl Stage {
    async fn new() -> Self {
        let orders = tempfile::tempdir().unwrap();
        std::fs::write(orders.path().join("agent.sh"), AGENT).unwrap();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let mut stage = Self { server: Mongod::start().await, sidecar: None, front: format!("127.0.0.1:{}", free_port()), orders, client };
        stage.start(tempfile::tempdir().unwrap());
        stage
    }

    fn start(&mut self, folder: TempDir) {
        let orders = self.orders.path().display();
        let config = format!(
            "profile: decisionbox
front:
  listen: {}
  upstream: http://127.0.0.1:9
  runs: embedded
  secrets: embedded
  auth: {{ anonymous: [read, runs, secrets] }}
  limits: {{ rate_per_client: 10000, rate: 10000 }}
services:
  runs:
    agent: [/bin/sh, {orders}/agent.sh]
    environment: {{ ORDERS: {orders} }}
    max_running: 32
",
            self.front
        );
        let setup = Setup::default().config(&config).variable("MONGODB_URI", &self.server.uri()).variable("SECRET_ENCRYPTION_KEY", KEY);
        self.sidecar = Some(setup.variable("PATH", "/usr/bin:/bin").folder(folder).start());
    }

    fn sidecar(&self) -> &Sidecar {
        self.sidecar.as_ref().unwrap()
    }

    /// Ends it as a crash would; its agents are not told.
    fn kill(&mut self) -> TempDir {
        self.sidecar.take().unwrap().kill()
    }

    async fn ask(&self, method: Method, path: &str, body: &str) -> (u16, String) {
        let request = self.client.request(method, format!("http://{}{path}", self.front)).header("content-type", "application/json");
        let response = request.body(body.to_owned()).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn project(&self) -> ObjectId {
        let project = ObjectId::new();
        let projects = self.server.database("decisionbox").await.collection::<Document>("projects");
        projects.insert_one(doc! { "_id": project, "name": "Puzzle Quest" }).await.unwrap();
        project
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_is_killed_among_twenty_agents_finds_them_all_again() {
    const AGENTS: usize = 20;
    let mut stage = Stage::new().await;
    let runs = stage.server.database("decisionbox").await.collection::<Document>("discovery_runs");
    let mut started = Vec::new();
    for _ in 0..AGENTS {
        let project = stage.project().await.to_hex();
        let (status, body) = stage.ask(Method::POST, &format!("/api/v1/projects/{project}/discover"), "{}").await;
        assert_eq!(status, 202, "{body}\n{}", stage.sidecar().log());
        let run = serde_json::from_str::<Value>(&body).unwrap()["data"]["run_id"].as_str().unwrap().to_owned();
        let code = i32::from_str_radix(&project[project.len() - 1..], 16).unwrap();
        started.push((ObjectId::parse_str(run).unwrap(), code));
    }
    let folder = stage.kill();
    stage.start(folder);
    // The metrics come when the logs have been read up to where they ended.
    let reattached = eventually("the metrics", async || stage.sidecar().value("bellwether_runs_reattached_total")).await;
    assert!((reattached - 20.0).abs() < 0.1, "{reattached}: {}", stage.sidecar().log());
    // Several looks and a heartbeat later, none has been failed.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(runs.count_documents(doc! { "status": "running" }).await.unwrap(), 20);

    std::fs::write(stage.orders.path().join("end"), "").unwrap();
    for (run, code) in started {
        let document = eventually("the run is over", async || {
            runs.find_one(doc! { "_id": run }).await.unwrap().filter(|document| document.get_str("status").unwrap() != "running")
        })
        .await;
        assert_eq!(document.get_i32("exit_code").unwrap(), code, "its own exit status: {document}");
        assert_eq!(document.get_str("status").unwrap(), if code == 0 { "completed" } else { "failed" });
    }
    let lines = r#"bellwether_log_lines_total{input="runs",outcome="record"}"#;
    let counted = eventually("all lines are counted", async || stage.sidecar().value(lines).filter(|counted| *counted >= 40.0)).await;
    assert!((counted - 40.0).abs() < 0.1, "two lines an agent, each once: {counted}");
}

/// What a core of the process would hold: all of its memory that can be written to. `None` where the system shows it to
/// nobody, which is said.
fn memory(pid: u32) -> Option<Vec<Vec<u8>>> {
    let opened = std::fs::read_to_string(format!("/proc/{pid}/maps")).and_then(|maps| Ok((maps, File::open(format!("/proc/{pid}/mem"))?)));
    let (maps, file) = match opened {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            eprintln!("NOT SHOWN: its memory was not searched, which needs root and CAP_SYS_PTRACE");
            return None;
        }
        opened => opened.unwrap(),
    };
    let regions = maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with("rw")));
    let read = |line: &str| {
        let (from, to) = line.split(' ').next()?.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        let mut bytes = vec![0; usize::try_from(to - from).ok()?];
        // Some regions are the kernel's own.
        file.read_at(&mut bytes, from).ok()?;
        Some(bytes)
    };
    Some(regions.filter_map(read).collect())
}

/// A value that is in nothing else, and as long as the others.
fn canary(number: usize) -> String {
    format!("CANARY{:08x}{number:04}TAIL", number.wrapping_mul(2_654_435_761) & 0xffff_ffff)
}

/// The values in the memory of a process.
fn canaries(pid: u32) -> Option<BTreeSet<String>> {
    let memory = memory(pid)?;
    let texts = memory.iter().flat_map(|region| memchr::memmem::find_iter(region, "CANARY").map(|at| &region[at..]));
    let texts = texts.filter_map(|text| std::str::from_utf8(text.get(..canary(0).len())?).ok());
    Some(texts.filter(|text| text.ends_with("TAIL")).map(str::to_owned).collect())
}

/// How values come to the front door: each client keeps its connection for as long as it may.
enum Client {
    /// Head and body at once.
    Whole,
    /// The body after the head, so that it is read into a buffer of its own.
    Halves(Vec<TcpStream>),
    /// Over HTTP/2, whose connections are shared.
    Shared(Vec<hyper::client::conn::http2::SendRequest<String>>),
}

impl Client {
    async fn put(&mut self, stage: &Stage, path: &str, body: &str) -> (u16, String) {
        match self {
            Self::Whole => stage.ask(Method::PUT, path, body).await,
            Self::Halves(streams) => {
                let mut stream = TcpStream::connect(&stage.front).await.unwrap();
                let length = body.len();
                let head =
                    format!("PUT {path} HTTP/1.1\r\nHost: front\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                let (first, rest) = body.as_bytes().split_at(length - 8);
                for part in [first, rest] {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    stream.write_all(part).await.unwrap();
                }
                let mut answer = Vec::new();
                // The front door ends the connection; this side keeps it.
                stream.read_to_end(&mut answer).await.unwrap();
                streams.push(stream);
                let answer = String::from_utf8(answer).unwrap();
                (answer[9..12].parse().unwrap(), answer)
            }
            Self::Shared(senders) => {
                let stream = TcpStream::connect(&stage.front).await.unwrap();
                let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
                let (mut sender, connection) = handshake.unwrap();
                #[expect(clippy::disallowed_methods, reason = "ends with its connection")]
                tokio::spawn(connection);
                let request = hyper::Request::put(format!("http://{}{path}", stage.front)).header("content-type", "application/json");
                let response = sender.send_request(request.body(body.to_owned()).unwrap()).await.unwrap();
                senders.push(sender);
                let (status, body) = (response.status().as_u16(), axum::body::Body::new(response.into_body()));
                let body = axum::body::to_bytes(body, 65536).await.unwrap();
                (status, String::from_utf8(body.to_vec()).unwrap())
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_values_leave_nothing_behind() {
    const VALUES: usize = 1000;
    let stage = Stage::new().await;
    let project = stage.project().await.to_hex();
    let mut said = String::new();
    let mut clients = [Client::Whole, Client::Halves(Vec::new()), Client::Shared(Vec::new())];
    for number in 0..VALUES {
        let path = format!("/api/v1/projects/{project}/secrets/key-{number}");
        let body = json!({ "value": canary(number) }).to_string();
        // Most come at once, and the last ones in each of the ways.
        let client = if number % 10 == 0 || number + 3 >= VALUES { number % 3 } else { 0 };
        let (status, answer) = clients[client].put(&stage, &path, &body).await;
        assert_eq!(status, 200, "{answer}");
        said.push_str(&answer);
        if number % 100 == 99 {
            said.push_str(&stage.ask(Method::PUT, &path, &body[..body.len() - 2]).await.1);
            // All that there are are read, to be shown without their values.
            said.push_str(&stage.ask(Method::GET, &format!("/api/v1/projects/{project}/secrets"), "").await.1);
        }
    }
    assert_eq!(said.matches("\"key\":\"key-0\"").count(), 1 + VALUES / 100, "each list names the first one");
    for path in ["/metrics", "/health", "/"] {
        said.push_str(&stage.sidecar().get(path).body);
    }
    let folder = stage.sidecar().folder.path();
    for file in ["log", "state/audit/secrets.jsonl"] {
        said.push_str(&std::fs::read_to_string(folder.join(file)).unwrap());
    }
    let leaked: Vec<String> = (0..VALUES).map(canary).filter(|value| said.contains(value.as_str())).collect();
    assert_eq!(leaked, Vec::<String>::new(), "in what it says");

    let pid = stage.sidecar().pid();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "a crash leaves no core file");
    // What is searched is really its memory: of one more value the last byte of its request has not come yet.
    let (path, body) = (format!("/api/v1/projects/{project}/secrets/under-way"), json!({ "value": canary(VALUES) }).to_string());
    let length = body.len();
    let head = format!("PUT {path} HTTP/1.1\r\nHost: front\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    let (most, last) = body.split_at(length - 1);
    let mut stream = TcpStream::connect(&stage.front).await.unwrap();
    stream.write_all(format!("{head}{most}").as_bytes()).await.unwrap();
    if canaries(pid).is_none() {
        return;
    }
    let found = eventually("a value that is under way is found", async || canaries(pid).filter(|found| !found.is_empty())).await;
    assert_eq!(found, BTreeSet::from([canary(VALUES)]), "in its memory, and none of those before");
    stream.write_all(last.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // The client sees the end of the connection a moment before the process has given its buffers back.
    eventually("no value is left in its memory", async || canaries(pid).filter(BTreeSet::is_empty)).await;
}
