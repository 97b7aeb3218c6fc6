//! The services that the sidecar is itself in the demo: a secret is stored and runs are begun through its front door, by real
//! processes.

use std::time::Duration;

use anyhow::{Context, Result};
use mongodb::Database;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{DateTime, Document, doc};
use serde_json::{Value, json};

use crate::http;
use crate::sidecar::Sidecar;
use crate::verify::{LIMIT, Report, Seen, same};
use crate::wait::until;

const SECRET: &str = "sk-ant-api03-demo-secret-0000wAA1";
const ASK_LIMIT: Duration = Duration::from_secs(20);

/// Asks the front door.
struct Client<'a> {
    http: reqwest::Client,
    sidecar: &'a Sidecar,
    database: &'a Database,
    project: String,
}

pub async fn play(sidecar: &Sidecar, database: &Database, report: &mut Report) -> Result<()> {
    // One of its own: those that were seeded have runs under way, beside which no other is begun.
    let id = ObjectId::new();
    let project = doc! { "_id": id, "name": "Word Garden", "domain": "gaming", "status": "active", "created_at": DateTime::now() };
    database.collection::<Document>("projects").insert_one(project).await.context("cannot write to projects")?;
    let project = id.to_hex();
    let client = Client { http: http::client(ASK_LIMIT)?, sidecar, database, project };
    report.add("a secret is stored encrypted through the front door", client.secret().await);
    report.add("a run is begun, its agent is a process, and a second one is refused", client.run().await);
    report.add("a run is cancelled", client.cancelled().await);
    report.add("what agents write is counted, each line once", client.lines().await);
    Ok(())
}

// === impl Client ===

impl Client<'_> {
    async fn ask(&self, method: reqwest::Method, path: &str, body: Value) -> Result<(u16, Value), String> {
        let request = self.http.request(method, format!("{}{path}", self.sidecar.front)).json(&body);
        let response = request.send().await.map_err(|error| format!("{path}: no answer ({error})"))?;
        let status = response.status().as_u16();
        let text = response.text().await.map_err(|error| error.to_string())?;
        let body = serde_json::from_str(&text).map_err(|error| format!("{path}: {status} and no JSON: {error}"))?;
        Ok((status, body))
    }

    async fn secret(&self) -> Seen {
        let path = format!("/api/v1/projects/{}/secrets/blurb-llm-api-key", self.project);
        let (status, body) = self.ask(reqwest::Method::PUT, &path, json!({ "value": SECRET })).await?;
        let secrets = self.database.collection::<Document>("secrets");
        let wanted = doc! { "project_id": &self.project, "key": "blurb-llm-api-key" };
        let stored = secrets.find_one(wanted).await.map_err(|error| error.to_string())?.unwrap_or_default();
        let is_safe = stored.get_bool("encrypted").unwrap_or(false) && !stored.to_string().contains(SECRET);
        let seen = format!("{status}, shown as {}", body["data"]["masked"]);
        if status == 200 && is_safe { Ok(seen) } else { Err(format!("{seen}, encrypted: {is_safe}")) }
    }

    async fn begin(&self, seconds: u64) -> Result<String, String> {
        let path = format!("/api/v1/projects/{}/discover", self.project);
        let (status, body) = self.ask(reqwest::Method::POST, &path, json!({ "max_steps": seconds })).await?;
        let run = body["data"]["run_id"].as_str().filter(|_| status == 202);
        run.map(str::to_owned).ok_or_else(|| format!("{status}: {body}"))
    }

    /// A run is over as soon as its agent has said so; its project is free once the agent's process has ended.
    async fn begin_next(&self, seconds: u64) -> Result<String, String> {
        until(LIMIT, async || self.begin(seconds).await).await
    }

    async fn run(&self) -> Seen {
        let run = self.begin(1).await?;
        let second = self.begin(1).await;
        if !second.as_ref().is_err_and(|seen| seen.starts_with("409") && seen.contains(&run)) {
            return Err(format!("the second start came to {second:?}"));
        }
        self.over(&run, "completed").await?;
        Ok(format!("202, then 409 with the run {run}; it completed"))
    }

    async fn cancelled(&self) -> Seen {
        let run = self.begin_next(60).await?;
        let (status, body) = self.ask(reqwest::Method::DELETE, &format!("/api/v1/runs/{run}"), json!({})).await?;
        self.over(&run, "cancelled").await?;
        let next = self.begin_next(1).await?;
        self.over(&next, "completed").await?;
        Ok(format!("{status}, {}; the next one began and completed", body["data"]["status"]))
    }

    async fn over(&self, run: &str, status: &str) -> Seen {
        let id = ObjectId::parse_str(run).map_err(|error| error.to_string())?;
        let runs = self.database.collection::<Document>("discovery_runs");
        until(LIMIT, async || {
            let found = runs.find_one(doc! { "_id": id }).await.map_err(|error| error.to_string())?.unwrap_or_default();
            let seen = found.get_str("status").unwrap_or("missing").to_owned();
            if seen == status { Ok(seen) } else { Err(format!("the run {run} is {seen} instead of {status}")) }
        })
        .await
    }

    async fn lines(&self) -> Seen {
        until(LIMIT, async || {
            let written = self.sidecar.agent_lines().map_err(|error| format!("{error:#}"))?;
            let counted = self.sidecar.scrape().await?.sum("bellwether_log_lines_total", &[("input", "runs")]).unwrap_or_default();
            let seen = format!("{written} lines written, {counted} counted");
            if written > 0 && same(counted, written) { Ok(seen) } else { Err(seen) }
        })
        .await
    }
}
