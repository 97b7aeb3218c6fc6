//! `--once`: plays everything through and says of each fact whether it held.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

use crate::agent::AgentLog;
use crate::http;
use crate::scrape::Scrape;
use crate::seed;
use crate::services;
use crate::sidecar::{OPEN_METRICS, Sidecar, TEXT};
use crate::stage::Stage;
use crate::wait::until;

/// Generous, as a loaded machine must not fail the facts: a limit only ends a wait that would last for ever.
pub const LIMIT: Duration = Duration::from_secs(90);
const LIVEZ_PAUSE: Duration = Duration::from_millis(50);
const STATUSES: [&str; 5] = ["pending", "running", "completed", "failed", "cancelled"];

/// What a fact came to: in both cases what was seen.
pub type Seen = Result<String, String>;

#[derive(Default)]
pub struct Report {
    failed: usize,
    held: usize,
}

impl Report {
    pub fn add(&mut self, fact: &str, seen: Seen) {
        match seen {
            Ok(seen) => {
                self.held += 1;
                println!("ok    {fact}: {seen}");
            }
            Err(seen) => {
                self.failed += 1;
                println!("FAIL  {fact}: {seen}");
            }
        }
    }

    pub fn all_held(&self) -> bool {
        self.failed == 0
    }

    pub fn summary(&self) -> String {
        format!("{} facts hold, {} do not", self.held, self.failed)
    }
}

pub async fn play(stage: &mut Stage, report: &mut Report) -> Result<()> {
    let started = stage.started().await;
    let has_started = started.is_ok();
    report.add("it starts", started.map(|()| "/startupz 200".to_owned()));
    if !has_started {
        return Ok(());
    }
    report.add("all components are up", ready(&stage.sidecar).await);
    stage.begin();
    report.add("metrics as Prometheus text", text_exposition(&stage.sidecar).await);
    report.add("metrics as OpenMetrics", open_metrics(&stage.sidecar).await);
    logs(stage, report).await?;
    stage.sidecar.alive()?;
    store(stage, report).await?;
    stage.sidecar.alive()?;
    services::play(&stage.sidecar, &stage.database, report).await?;
    stage.sidecar.alive()?;
    outage(stage, report).await?;
    stage.sidecar.alive()?;
    // Both once more, after the outage. Lines that were counted twice show here, however late that happened.
    report.add("runs by status still are those of MongoDB", runs_match(stage).await?);
    let log = stage.agent.pause().await;
    report.add("every log line is still counted once", lines_counted(&stage.sidecar, &log).await);
    Ok(())
}

/// The end of the play: a stop that is not clean is a fact that does not hold.
pub fn stopped(report: &mut Report, status: &Result<std::process::ExitStatus>) {
    let seen = match status {
        Ok(status) if status.success() => Ok("SIGTERM, then exit status 0".to_owned()),
        Ok(status) => Err(status.to_string()),
        Err(error) => Err(format!("{error:#}")),
    };
    report.add("it stops cleanly", seen);
}

async fn ready(sidecar: &Sidecar) -> Seen {
    until(LIMIT, async || {
        let status = sidecar.status("/readyz").await?;
        let checks = sidecar.scrape().await?.by("bellwether_check_up", "check");
        let all_up = !checks.is_empty() && checks.values().all(|up| *up > 0.0);
        let seen = format!("/readyz {status}, up: {}", named(&checks));
        if status == 200 && all_up { Ok(seen) } else { Err(seen) }
    })
    .await
}

async fn text_exposition(sidecar: &Sidecar) -> Seen {
    let reply = sidecar.get("/metrics", TEXT).await?;
    Scrape::parse(&reply.body)?;
    let seen = format!("{}, {}", reply.status, reply.content_type);
    if reply.status == 200 && reply.content_type.starts_with("text/plain") { Ok(seen) } else { Err(seen) }
}

async fn open_metrics(sidecar: &Sidecar) -> Seen {
    let reply = sidecar.get("/metrics", OPEN_METRICS).await?;
    let seen = format!("{}, {}", reply.status, reply.content_type);
    let complete = reply.body.ends_with("# EOF\n");
    match (reply.status, reply.content_type.starts_with("application/openmetrics-text"), complete) {
        (200, true, true) => Ok(seen),
        (200, true, false) => Err(format!("{seen}, but no # EOF at the end")),
        _ => Err(seen),
    }
}

async fn logs(stage: &Stage, report: &mut Report) -> Result<()> {
    let mut log = stage.agent.pause().await;
    for _ in 0..6 {
        log.write_run()?;
    }
    report.add("every log line is counted once", lines_counted(&stage.sidecar, &log).await);
    log.write_run()?;
    log.rotate()?;
    log.write_run()?;
    report.add("a rotation of the log loses nothing", lines_counted(&stage.sidecar, &log).await);
    Ok(())
}

async fn lines_counted(sidecar: &Sidecar, log: &AgentLog) -> Seen {
    let written = log.lines();
    until(LIMIT, async || {
        let scrape = sidecar.scrape().await?;
        let counted = scrape.sum("bellwether_log_lines_total", &[("input", "agent")]);
        let counted = counted.ok_or("no bellwether_log_lines_total of the input agent")?;
        let seen = format!("{written} lines written, {counted} counted");
        if same(counted, written) { Ok(seen) } else { Err(seen) }
    })
    .await
}

async fn store(stage: &Stage, report: &mut Report) -> Result<()> {
    report.add("runs by status are those of MongoDB", runs_match(stage).await?);
    report.add("the secret in plaintext is seen", unencrypted_secrets(&stage.sidecar).await);
    Ok(())
}

/// Nothing writes while the feeder is paused, so both sides must come to the same.
async fn runs_match(stage: &Stage) -> Result<Seen> {
    let feeder = stage.feeder.as_ref().context("the feeder was not started")?;
    let _pause = feeder.pause().await;
    let stored = seed::runs_by_status(&stage.database).await?;
    let stored: BTreeMap<String, u64> =
        STATUSES.iter().map(|status| ((*status).to_owned(), stored.get(*status).copied().unwrap_or(0))).collect();
    let seen = until(LIMIT, async || {
        let shown = stage.sidecar.scrape().await?.by("decisionbox_runs", "status");
        let equal =
            shown.len() == stored.len() && stored.iter().all(|(status, runs)| shown.get(status).is_some_and(|value| same(*value, *runs)));
        if equal { Ok(named(&shown)) } else { Err(format!("{} instead of {stored:?}", named(&shown))) }
    });
    Ok(seen.await)
}

async fn unencrypted_secrets(sidecar: &Sidecar) -> Seen {
    until(LIMIT, async || match sidecar.scrape().await?.sum("decisionbox_secrets_unencrypted", &[]) {
        Some(1.0) => Ok("1 of 3 secrets".to_owned()),
        Some(other) => Err(format!("{other} instead of 1")),
        None => Err("no decisionbox_secrets_unencrypted".to_owned()),
    })
    .await
}

async fn outage(stage: &Stage, report: &mut Report) -> Result<()> {
    let Some(mongod) = &stage.mongod else {
        println!("skip  outage: MONGODB_URI names a MongoDB that is not the demo's own, so it is not frozen");
        return Ok(());
    };
    let sidecar = &stage.sidecar;
    let livez = LivezWatch::start(sidecar);
    mongod.freeze()?;
    report.add("a frozen mongod makes it unready", becomes_unready(sidecar).await);
    report.add("the root cause is mongodb alone", root_cause(sidecar).await);
    mongod.thaw()?;
    report.add("it recovers when mongod does", recovered(sidecar).await);
    report.add("it is alive throughout", livez.finish().await);
    Ok(())
}

async fn becomes_unready(sidecar: &Sidecar) -> Seen {
    until(LIMIT, async || match sidecar.status("/readyz").await? {
        503 => Ok("/readyz 503".to_owned()),
        other => Err(format!("/readyz {other}")),
    })
    .await
}

/// Judged once the API is down too: only then is there anything to tell apart.
async fn root_cause(sidecar: &Sidecar) -> Seen {
    until(LIMIT, async || {
        let scrape = sidecar.scrape().await?;
        let checks = scrape.by("bellwether_check_up", "check");
        let causes = scrape.root_causes();
        let seen = format!("root cause {causes:?}, up: {}", named(&checks));
        if checks.get("api") == Some(&0.0) && causes == ["mongodb"] { Ok(seen) } else { Err(seen) }
    })
    .await
}

async fn recovered(sidecar: &Sidecar) -> Seen {
    ready(sidecar).await?;
    until(LIMIT, async || match sidecar.scrape().await?.root_causes().as_slice() {
        [] => Ok("/readyz 200, all checks up, no root cause".to_owned()),
        causes => Err(format!("still named as root cause: {causes:?}")),
    })
    .await
}

/// Asks `/livez` all the time, from aside.
struct LivezWatch {
    task: JoinHandle<(u64, Vec<String>)>,
    stop: tokio::sync::watch::Sender<bool>,
}

impl LivezWatch {
    fn start(sidecar: &Sidecar) -> Self {
        let (client, url) = sidecar.asker();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let task = tokio::spawn(async move {
            let (mut asked, mut wrong) = (0, Vec::new());
            while !*stopped.borrow() {
                asked += 1;
                match http::get(&client, &format!("{url}/livez"), "*/*").await {
                    Ok(reply) if reply.status == 200 => {}
                    Ok(reply) => wrong.push(reply.status.to_string()),
                    Err(error) => wrong.push(error.to_string()),
                }
                tokio::time::sleep(LIVEZ_PAUSE).await;
            }
            (asked, wrong)
        });
        Self { task, stop }
    }

    async fn finish(self) -> Seen {
        self.stop.send_replace(true);
        let (asked, wrong) = self.task.await.map_err(|error| error.to_string())?;
        match wrong.first() {
            None => Ok(format!("/livez 200, asked {asked} times")),
            Some(first) => Err(format!("/livez was not 200 in {} of {asked} cases, first: {first}", wrong.len())),
        }
    }
}

/// Counts are far below the point where a float stops being exact.
pub fn same(value: f64, count: u64) -> bool {
    value.to_string() == count.to_string()
}

fn named(values: &BTreeMap<String, f64>) -> String {
    values.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
}
