//! The live view: addresses, health and key figures, and one outage of MongoDB for all to see.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use serde_json::Value;

use crate::scrape::Scrape;
use crate::stage::Stage;

const REDRAW: Duration = Duration::from_secs(1);
/// Where the view is appended instead of redrawn, it would flood the output.
const APPEND: Duration = Duration::from_secs(5);
const CALM: Duration = Duration::from_secs(20);
/// How long the outage stays on view once it is told in full.
const SHOWN: Duration = Duration::from_secs(10);

/// One outage, as a state machine on what the sidecar says.
enum Act {
    Calm {
        since: Instant,
    },
    Frozen {
        told: Option<Instant>,
    },
    Thawed,
    Recovered,
    /// A MongoDB that was given is watched, and left alone.
    Given,
}

impl Act {
    fn caption(&self) -> &'static str {
        match self {
            Self::Calm { .. } => "All is well. In a moment mongod is frozen (SIGSTOP).",
            Self::Frozen { told: None } => "mongod is FROZEN. Wait for the verdict ...",
            Self::Frozen { .. } => "mongod is FROZEN: unready, root cause mongodb alone, and alive all the same.",
            Self::Thawed => "mongod is thawed (SIGCONT). Wait for the recovery ...",
            Self::Recovered => "Recovered by itself. The demo goes on until Ctrl-C.",
            Self::Given => "This MongoDB was given by MONGODB_URI, so it is not frozen.",
        }
    }

    fn next(self, view: &View, stage: &Stage) -> Result<Self> {
        let Some(mongod) = &stage.mongod else { return Ok(Self::Given) };
        Ok(match self {
            Self::Calm { since } if since.elapsed() >= CALM => {
                mongod.freeze()?;
                Self::Frozen { told: None }
            }
            Self::Frozen { told: None } if view.readyz == "503" && view.root_causes == ["mongodb"] => {
                Self::Frozen { told: Some(Instant::now()) }
            }
            Self::Frozen { told: Some(since) } if since.elapsed() >= SHOWN => {
                mongod.thaw()?;
                Self::Thawed
            }
            Self::Thawed if view.readyz == "200" => Self::Recovered,
            same => same,
        })
    }
}

/// One look at the sidecar.
struct View {
    livez: String,
    readyz: String,
    root_causes: Vec<String>,
    health: Option<Value>,
    figures: Option<Scrape>,
}

impl View {
    async fn take(stage: &Stage) -> Self {
        let sidecar = &stage.sidecar;
        let figures = sidecar.scrape().await.ok();
        Self {
            livez: probe(stage, "/livez").await,
            readyz: probe(stage, "/readyz").await,
            root_causes: figures.as_ref().map(Scrape::root_causes).unwrap_or_default(),
            health: sidecar.health().await.ok(),
            figures,
        }
    }
}

async fn probe(stage: &Stage, path: &str) -> String {
    stage.sidecar.status(path).await.map_or_else(|_| "no answer".to_owned(), |status| status.to_string())
}

/// Goes on until it is dropped, or until the sidecar ends by itself.
pub async fn play(stage: &mut Stage) -> Result<()> {
    if let Err(seen) = stage.started().await {
        bail!("the sidecar did not start: {seen}");
    }
    stage.begin();
    let terminal = std::io::stdout().is_terminal();
    let mut act = Act::Calm { since: Instant::now() };
    let mut ticks = tokio::time::interval(if terminal { REDRAW } else { APPEND });
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        stage.sidecar.alive()?;
        let view = View::take(stage).await;
        act = act.next(&view, stage)?;
        draw(&render(stage, &view, &act), terminal)?;
    }
}

fn draw(text: &str, terminal: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if terminal {
        // To the first place, and whatever stood there before away.
        write!(out, "\x1b[H\x1b[J")?;
    }
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

fn render(stage: &Stage, view: &View, act: &Act) -> String {
    let causes = if view.root_causes.is_empty() { "none".to_owned() } else { view.root_causes.join(", ") };
    format!(
        "Bellwether   {}   (status page, /health, /metrics, /readyz)\n\
         front door {}   API {}   dashboard {}   agent log {}\n\n\
         {}\n\n/livez {}   /readyz {}   root cause: {causes}\n{}\n{}",
        stage.sidecar.url,
        stage.sidecar.front,
        stage.api.url,
        stage.dashboard.url,
        stage.agent_log.display(),
        act.caption(),
        view.livez,
        view.readyz,
        health_table(view.health.as_ref()),
        figures_table(view.figures.as_ref()),
    )
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    // A terminal that tells no useful width would get one letter a line.
    let arrangement = match table.width() {
        Some(width) if width >= 60 => ContentArrangement::Dynamic,
        _ => ContentArrangement::Disabled,
    };
    table.load_style(UTF8_FULL_CONDENSED).set_header(header.to_vec()).set_content_arrangement(arrangement);
    table
}

fn health_table(health: Option<&Value>) -> Table {
    let mut table = table(&["check", "status", "state", "reason", "suppressed by"]);
    let checks = health.and_then(|health| health["checks"].as_object());
    for (name, entries) in checks.into_iter().flatten() {
        // "name:measurement"; the sidecar's own entries are of no interest here.
        let check = name.split(':').next().unwrap_or(name);
        let entry = &entries[0];
        if check != "sidecar" {
            let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
            table.add_row([check.to_owned(), text("status"), text("x-state"), text("x-reason"), text("x-suppressed_by")]);
        }
    }
    table
}

fn figures_table(figures: Option<&Scrape>) -> Table {
    let mut table = table(&["key figure", "now"]);
    let Some(scrape) = figures else {
        table.add_row(["/metrics", "no answer"]);
        return table;
    };
    let total = |metric: &str| scrape.sum(metric, &[]).map_or_else(|| "-".to_owned(), |value| value.to_string());
    let parts = |metric: &str, label: &str| parts(&scrape.by(metric, label));
    table.add_row(["runs".to_owned(), parts("decisionbox_runs", "status")]);
    table.add_row(["discovery failures".to_owned(), parts("decisionbox_discovery_failures_total", "reason")]);
    table.add_row(["LLM failures".to_owned(), parts("decisionbox_llm_failures_total", "reason")]);
    table.add_row(["LLM tokens".to_owned(), parts("decisionbox_llm_tokens_total", "direction")]);
    table.add_row(["warehouse queries".to_owned(), total("decisionbox_warehouse_queries_total")]);
    table.add_row(["warehouse failures".to_owned(), parts("decisionbox_warehouse_query_failures_total", "reason")]);
    table.add_row(["log lines".to_owned(), parts("bellwether_log_lines_total", "outcome")]);
    table.add_row(["secrets in plaintext".to_owned(), total("decisionbox_secrets_unencrypted")]);
    table
}

fn parts(values: &BTreeMap<String, f64>) -> String {
    let shown: Vec<String> = values.iter().filter(|(_, value)| **value > 0.0).map(|(name, value)| format!("{name} {value}")).collect();
    match (values.is_empty(), shown.is_empty()) {
        (true, _) => "-".to_owned(),
        (false, true) => "0".to_owned(),
        _ => shown.join(", "),
    }
}
