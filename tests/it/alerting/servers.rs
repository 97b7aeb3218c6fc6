//! A real Prometheus and a real Alertmanager on loopback, and the receiver of what they have to say.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path as UrlPath, State};
use axum::{Router, routing::post};
use bellwether::clock::Now;
use bellwether::shipped::Kit;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::compress;
use crate::mongod::eventually;
use crate::sidecar::free_port;

pub type Labels = BTreeMap<String, String>;

/// A process that ends with the test.
pub struct Server(Child);

/// Everything between a metric and a person.
pub struct Stack {
    prometheus: String,
    alertmanager: String,
    receiver: String,
    told: Arc<Mutex<Vec<Told>>>,
    folder: TempDir,
    client: reqwest::Client,
    _servers: [Server; 2],
}

/// One alert of one message.
#[derive(Clone, Debug)]
pub struct Told {
    pub receiver: String,
    pub firing: bool,
    pub labels: Labels,
    pub annotations: Labels,
}

/// An alert as Alertmanager has it.
#[derive(Debug)]
pub struct Active {
    pub labels: Labels,
    pub inhibited: bool,
}

/// The labels of a series and its values.
pub type Series = (Labels, Vec<f64>);

// === impl Stack ===

impl Stack {
    /// Starts both with the rules and routes that are shipped, in which time goes faster.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, value: &Value| std::fs::write(folder.path().join(name), value.to_string()).unwrap();
        let (prometheus, alertmanager) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let told = Arc::default();
        let receiver = receive(Arc::clone(&told));

        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts/alertmanager/alertmanager.yml");
        write("alertmanager.yml", &compress::alertmanager(&std::fs::read_to_string(sample).unwrap(), &receiver));
        let rules = compress::rules(Kit::of("decisionbox").rules(&[]).unwrap());
        write("rules.yml", &serde_json::to_value(&rules).unwrap());
        write("targets.json", &json!([]));
        write(
            "prometheus.yml",
            &json!({
                "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
                "rule_files": ["rules.yml"],
                "alerting": { "alertmanagers": [{ "static_configs": [{ "targets": [alertmanager] }] }] },
                "scrape_configs": [{ "job_name": "bellwether", "file_sd_configs": [{ "files": ["targets.json"], "refresh_interval": "1s" }] }],
            }),
        );
        let servers = [
            Server::start(
                &["prometheus-alertmanager", "alertmanager"],
                folder.path(),
                &[
                    "--config.file=alertmanager.yml",
                    "--storage.path=alertmanager",
                    "--cluster.listen-address=",
                    &format!("--web.listen-address={alertmanager}"),
                ],
            ),
            Server::start(
                &["prometheus"],
                folder.path(),
                &[
                    "--config.file=prometheus.yml",
                    "--storage.tsdb.path=prometheus",
                    // A first notification may be dropped while Alertmanager is being found; the next one is a minute away.
                    "--rules.alert.resend-delay=1s",
                    &format!("--web.listen-address={prometheus}"),
                ],
            ),
        ];
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(Duration::from_secs(10)).build().unwrap();
        let stack = Self { prometheus, alertmanager, receiver, told, folder, client, _servers: servers };
        for ready in [format!("http://{}/-/ready", stack.prometheus), format!("http://{}/-/ready", stack.alertmanager)] {
            eventually("a server is ready", async || {
                stack.client.get(&ready).send().await.ok().filter(|answer| answer.status().is_success())
            })
            .await;
        }
        stack
    }

    /// What a sidecar is told so that it evaluates the same rules by itself, and tells the receiver `own`.
    /// `others` are more receivers, each with a comma before it.
    pub fn own(&self, others: &str) -> String {
        let (rules, receiver) = (self.folder.path().join("rules.yml"), &self.receiver);
        format!(
            "alerts: {{ every: 1s, rules: [{}] }}\nnotify: [{{ name: own, webhook: {{ url: \"{receiver}/own\" }}, group_wait: 1s, group_interval: 2s, rate: 1000 }}{others}]\n",
            rules.display()
        )
    }

    /// Says whom to scrape.
    pub fn scrape(&self, addresses: &[&str]) {
        // Renamed into place: Prometheus must not read half of it.
        let (new, file) = (self.folder.path().join("targets.new"), self.folder.path().join("targets.json"));
        std::fs::write(&new, json!([{ "targets": addresses }]).to_string()).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    /// What a query gives now, or over the last minute.
    pub async fn query(&self, query: &str, range: bool) -> Result<Vec<Series>, String> {
        let now = Now::read().wall.as_second();
        let mut fields = vec![("query", query.to_owned())];
        let path = if range {
            fields.extend([("start", (now - 60).to_string()), ("end", now.to_string()), ("step", "5".to_owned())]);
            "query_range"
        } else {
            "query"
        };
        let url = format!("http://{}/api/v1/{path}", self.prometheus);
        let request = self.client.get(reqwest::Url::parse_with_params(&url, &fields).unwrap());
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        if answer["status"] != "success" {
            return Err(answer["error"].to_string());
        }
        let value = |pair: &Value| pair[1].as_str().unwrap().parse().unwrap();
        let series = |one: &Value| {
            let values = one["values"].as_array().map_or_else(|| vec![value(&one["value"])], |all| all.iter().map(value).collect());
            (labels(&one["metric"]), values)
        };
        let result = &answer["data"]["result"];
        // A scalar has no labels.
        if answer["data"]["resultType"] == "scalar" {
            return Ok(vec![(Labels::new(), vec![value(result)])]);
        }
        Ok(result.as_array().unwrap().iter().map(series).collect())
    }

    /// The alerts that Alertmanager has, whether it tells of them or not.
    pub async fn active(&self) -> Vec<Active> {
        let url = format!("http://{}/api/v2/alerts", self.alertmanager);
        let answer: Value = self.client.get(url).send().await.unwrap().json().await.unwrap();
        let active = |alert: &Value| Active {
            labels: labels(&alert["labels"]),
            inhibited: !alert["status"]["inhibitedBy"].as_array().unwrap().is_empty(),
        };
        answer.as_array().unwrap().iter().map(active).collect()
    }

    /// What people were told so far, oldest first.
    pub fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    /// The longest that the evaluation of a group took, in seconds.
    pub async fn slowest_group(&self) -> f64 {
        let url = format!("http://{}/api/v1/rules", self.prometheus);
        let answer: Value = self.client.get(url).send().await.unwrap().json().await.unwrap();
        let groups = answer["data"]["groups"].as_array().unwrap();
        groups.iter().map(|group| group["evaluationTime"].as_f64().unwrap()).fold(0.0, f64::max)
    }
}

fn labels(map: &Value) -> Labels {
    map.as_object().unwrap().iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}

/// Takes what Alertmanager sends, whatever the receiver is called.
fn receive(told: Arc<Mutex<Vec<Told>>>) -> String {
    async fn take(State(told): State<Arc<Mutex<Vec<Told>>>>, UrlPath(receiver): UrlPath<String>, message: Bytes) {
        let message: Value = serde_json::from_slice(&message).unwrap();
        let all = message["alerts"].as_array().unwrap().iter().map(|alert| Told {
            receiver: receiver.clone(),
            firing: alert["status"] == "firing",
            labels: labels(&alert["labels"]),
            annotations: labels(&alert["annotations"]),
        });
        told.lock().unwrap().extend(all);
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/{receiver}", post(take)).with_state(told);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap() });
    });
    format!("http://{address}")
}

// === impl Server ===

impl Server {
    /// Starts the first of these programs that there is.
    pub fn start(names: &[&str], folder: &Path, arguments: &[&str]) -> Self {
        let log = std::fs::File::create(folder.join(format!("{}.log", names[0]))).unwrap();
        let child = names.iter().find_map(|name| {
            let mut command = Command::new(name);
            command.current_dir(folder).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.try_clone().unwrap());
            command.spawn().ok()
        });
        Self(child.unwrap_or_else(|| panic!("there is no {names:?} on PATH: scripts/tools.sh says how to get it")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already where these fail.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
