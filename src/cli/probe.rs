//! `bellwether probe`: one look at every component, or at a running sidecar.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use comfy_table::Table;

use crate::cli::{Failure, Global, SOFTWARE, UNAVAILABLE};
use crate::clock::Now;
use crate::config::environment::Environment;
use crate::health::aggregate::{Snapshot, Status};
use crate::health::board::Board;
use crate::health::outcome::Reason;
use crate::health::schedule;

/// A sidecar that needs longer to say that it is there is not.
const SELF_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct ProbeArgs {
    /// Asks the sidecar that runs here whether it is ready itself, for a container's HEALTHCHECK: a component that is
    /// down is no reason to restart the sidecar that says so.
    #[arg(long = "self")]
    of_self: bool,
    /// Writes JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn probe(global: &Global, arguments: &ProbeArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let config = global.load(environment)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| Failure::new(SOFTWARE, error))?;
    if arguments.of_self {
        return runtime.block_on(probe_self(config.listen.port(), config.tls.is_some()));
    }
    let board = Arc::new(Board::new(&config.health, Now::read()));
    runtime.block_on(schedule::once(&board)).map_err(|error| Failure::new(SOFTWARE, error))?;
    runtime.shutdown_background();
    let snapshot = board.snapshot(Now::read());
    if arguments.json {
        println!("{:#}", json(&snapshot));
    } else {
        println!("{}", table(&snapshot));
    }
    Ok(if snapshot.status() == Status::Fail { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn probe_self(port: u16, is_tls: bool) -> Result<ExitCode, Failure> {
    let scheme = if is_tls { "https" } else { "http" };
    let url = format!("{scheme}://127.0.0.1:{port}/self/readyz");
    // The certificate is for a name that others call it by, and this is the process itself.
    let builder = reqwest::Client::builder().no_proxy().tls_certs_only([]).tls_danger_accept_invalid_certs(is_tls);
    let client = builder.timeout(SELF_LIMIT).build();
    let response = match client {
        Ok(client) => client.get(&url).send().await,
        Err(error) => Err(error),
    };
    match response {
        Ok(response) if response.status().is_success() => Ok(ExitCode::SUCCESS),
        Ok(response) => Err(Failure::new(UNAVAILABLE, format!("{url} answers {}", response.status().as_u16()))),
        Err(error) => Err(Failure::new(UNAVAILABLE, error)),
    }
}

fn table(snapshot: &Snapshot) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["check", "state", "reason", "took", "root cause"]);
    for check in &snapshot.checks {
        let last = check.last.as_ref();
        let reason = last.and_then(|last| last.failure).map_or("", Reason::code);
        let took = last.map(|last| format!("{:.1} ms", last.duration.as_secs_f64() * 1e3)).unwrap_or_default();
        let cause = if check.is_root_cause { "this" } else { check.suppressed_by.as_deref().unwrap_or("") };
        table.add_row([check.name.as_str(), check.state.code(), reason, &took, cause]);
    }
    table
}

fn json(snapshot: &Snapshot) -> serde_json::Value {
    let checks = snapshot.checks.iter().map(|check| {
        serde_json::json!({
            "check": check.name,
            "state": check.state.code(),
            "reason": check.last.as_ref().and_then(|last| last.failure).map(Reason::code),
            "seconds": check.last.as_ref().map(|last| last.duration.as_secs_f64()),
            "critical": check.critical,
            "root_cause": check.is_root_cause,
            "suppressed_by": check.suppressed_by,
        })
    });
    serde_json::json!({ "status": snapshot.status().word(), "checks": checks.collect::<Vec<_>>() })
}
