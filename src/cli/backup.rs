//! `bellwether backup verify`: every backup read to its last byte, and what should be in one and is not.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::json;

use crate::backup::{Pace, Report, look};
use crate::cli::{DATA, Failure, Global, USAGE};
use crate::clock::Now;
use crate::config::backups::{Priority, Protected};
use crate::config::environment::Environment;

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Reads every backup to its last byte and says what is wrong with it.
    Verify {
        /// Only this backup.
        #[arg(long, value_name = "NAME")]
        backup: Option<String>,
        /// Writes JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn backup(global: &Global, arguments: &BackupArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let What::Verify { backup: wanted, json } = &arguments.what;
    let config = global.load(environment)?;
    let backups: Vec<_> = config.backups.iter().filter(|backup| wanted.as_ref().is_none_or(|name| backup.name == *name)).collect();
    if backups.is_empty() {
        let names: Vec<&str> = config.backups.iter().map(|backup| backup.name.as_str()).collect();
        let message = match wanted {
            Some(name) => format!("there is no backup `{name}`; there are: {}", names.join(", ")),
            None => "no backup is watched; add one below `backups`, or set BACKUP_PATH for the profile decisionbox".to_owned(),
        };
        return Err(Failure::new(USAGE, message));
    }
    let reports: Vec<Report> = backups.into_iter().map(|backup| look(backup, Now::read().wall, &Pace::default())).collect();
    let is_good = reports.iter().all(Report::is_good);
    let missed: Vec<&Protected> = config.protected.iter().filter(|protected| !is_held(&reports, protected)).collect();
    if *json {
        let missed: Vec<_> = missed.iter().map(|one| json!({ "collection": one.collection, "priority": one.priority.name() })).collect();
        println!("{:#}", json!({ "good": is_good, "backups": reports.iter().map(one).collect::<Vec<_>>(), "not_backed_up": missed }));
    } else {
        println!("{}", table(&reports));
        for one in missed {
            println!("not in any backup that tells what it holds: {} ({})", one.collection, one.priority.name());
        }
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::from(DATA) })
}

fn is_held(reports: &[Report], protected: &Protected) -> bool {
    protected.priority == Priority::Low || reports.iter().any(|report| report.holds.contains(&protected.collection))
}

fn one(report: &Report) -> serde_json::Value {
    let problems: Vec<_> =
        report.problems.iter().map(|(problem, message)| json!({ "reason": problem.name(), "message": message })).collect();
    json!({
        "backup": report.backup,
        "good": report.is_good(),
        "path": report.newest.as_ref().map(|newest| newest.path.display().to_string()),
        "modified": report.newest.as_ref().map(|newest| newest.modified.to_string()),
        "size_bytes": report.newest.as_ref().map(|newest| newest.size),
        "holds": report.holds,
        "problems": problems,
    })
}

fn table(reports: &[Report]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["backup", "state", "newest", "bytes", "what is wrong"]);
    for report in reports {
        let newest = report.newest.as_ref();
        let problems: Vec<String> = report.problems.iter().map(|(problem, message)| format!("{}: {message}", problem.name())).collect();
        table.add_row([
            report.backup.clone(),
            if report.is_good() { "good" } else { "BAD" }.to_owned(),
            newest.map(|newest| format!("{} of {}", newest.path.display(), newest.modified.strftime("%Y-%m-%d %H:%M"))).unwrap_or_default(),
            newest.map(|newest| newest.size.to_string()).unwrap_or_default(),
            problems.join("\n"),
        ]);
    }
    table
}
