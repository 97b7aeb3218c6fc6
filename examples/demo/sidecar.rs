//! The sidecar itself, as an operator starts it: the binary beside this example, the profile, the application's own
//! variables. Only the intervals of the checks are shortened, so that an outage shows within seconds.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::http::{self, Reply};
use crate::process::{free_port, last_lines, terminate};
use crate::scrape::Scrape;

const STOP_LIMIT: Duration = Duration::from_secs(20);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

pub const TEXT: &str = "text/plain";
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0";

/// Of the demo alone: whoever wants secrets makes a key of their own.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

const QUICK_CHECKS: &str = "\
health:
  defaults: { interval: 1s, timeout: 900ms }
  checks:
    api: { interval: 2s, timeout: 1900ms }
    dashboard: { interval: 2s, timeout: 1900ms }
";

/// The front door, with the run service and the secrets service within the sidecar, and this very program as the agent.
fn services(front: &str) -> Result<String> {
    let agent = serde_json::to_string(&std::env::current_exe().context("cannot tell where this program stands")?)?;
    Ok(format!(
        "\
front:
  listen: {front}
  runs: embedded
  secrets: embedded
  auth: {{ anonymous: [read, runs, secrets] }}
services:
  runs: {{ agent: [{agent}, agent], grace: 2s }}
"
    ))
}

/// What the sidecar is to watch.
pub struct Watched<'a> {
    pub mongodb_uri: &'a str,
    pub mongodb_database: &'a str,
    pub api_url: &'a str,
    pub dashboard_url: &'a str,
    pub agent_log: &'a Path,
    pub api_log: &'a Path,
}

pub struct Sidecar {
    child: Child,
    log: PathBuf,
    http: reqwest::Client,
    pub url: String,
    /// Its front door.
    pub front: String,
    state: PathBuf,
}

impl Sidecar {
    pub fn start(watched: &Watched, folder: &Path) -> Result<Self> {
        let program = program()?;
        let config = folder.join("bellwether.yaml");
        let front = format!("127.0.0.1:{}", free_port()?);
        let text = format!("{QUICK_CHECKS}{}", services(&front)?);
        std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let state = folder.join("state");
        std::fs::create_dir_all(&state).with_context(|| format!("cannot create {}", state.display()))?;
        let log = folder.join("bellwether.log");
        let output = std::fs::File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let listen = format!("127.0.0.1:{}", free_port()?);
        let child = Command::new(&program)
            .args(["run", "--profile", "decisionbox", "--config"])
            .arg(&config)
            // Nothing of the caller's environment: a MONGODB_URI_FILE in it would win over the URI given here.
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name == "RUST_LOG" || name == "RUST_BACKTRACE"))
            .env("MONGODB_URI", watched.mongodb_uri)
            .env("SECRET_ENCRYPTION_KEY", KEY)
            .env("MONGODB_DB", watched.mongodb_database)
            .env("API_URL", watched.api_url)
            .env("DASHBOARD_URL", watched.dashboard_url)
            .env("BELLWETHER_LISTEN", &listen)
            .env("BELLWETHER_STATE_DIR", &state)
            .env("BELLWETHER_AGENT_LOGS", watched.agent_log)
            .env("BELLWETHER_API_LOGS", watched.api_log)
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("cannot share the log file")?)
            .stderr(output)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let (url, front) = (format!("http://{listen}"), format!("http://{front}"));
        Ok(Self { child, log, http: http::client(ANSWER_LIMIT)?, url, front, state })
    }

    pub async fn get(&self, path: &str, accept: &str) -> Result<Reply, String> {
        let url = format!("{}{path}", self.url);
        http::get(&self.http, &url, accept).await.map_err(|error| format!("{path}: no answer ({error})"))
    }

    pub async fn status(&self, path: &str) -> Result<u16, String> {
        Ok(self.get(path, "*/*").await?.status)
    }

    pub async fn scrape(&self) -> Result<Scrape, String> {
        let reply = self.get("/metrics", TEXT).await?;
        match reply.status {
            200 => Scrape::parse(&reply.body),
            other => Err(format!("/metrics answers {other}")),
        }
    }

    pub async fn health(&self) -> Result<Value, String> {
        let reply = self.get("/health", "application/health+json").await?;
        serde_json::from_str(&reply.body).map_err(|error| format!("/health is no JSON: {error}"))
    }

    /// A copy of what asks, for a task that watches from aside.
    pub fn asker(&self) -> (reqwest::Client, String) {
        (self.http.clone(), self.url.clone())
    }

    /// How many lines agents have written.
    pub fn agent_lines(&self) -> Result<u64> {
        let mut lines = 0;
        for folder in std::fs::read_dir(self.state.join("runs")).context("there are no runs")? {
            let output = std::fs::read(folder?.path().join("output.log")).unwrap_or_default();
            lines += u64::try_from(output.iter().filter(|byte| **byte == b'\n').count())?;
        }
        Ok(lines)
    }

    /// An error once the process has ended, so that nobody waits for a dead one.
    pub fn alive(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "the sidecar ended by itself: {}", ended.map(|s| s.to_string()).unwrap_or_default());
        Ok(())
    }

    pub async fn stop(&mut self) -> Result<ExitStatus> {
        terminate(&mut self.child, "the sidecar", STOP_LIMIT).await
    }

    pub fn last_lines(&self) -> String {
        last_lines(&self.log, 40)
    }
}

/// The example stands in `examples/` beside the binary of the same build.
pub fn program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program stands")?;
    let program = own.parent().and_then(Path::parent).context("this program stands in no folder")?.join("bellwether");
    ensure!(program.is_file(), "{} is missing: build it with cargo build --bin bellwether", program.display());
    Ok(program)
}
