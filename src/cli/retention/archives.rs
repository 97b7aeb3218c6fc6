//! `bellwether retention verify` and `restore`: are the archives whole, and what is in them brought back.

use std::collections::BTreeSet;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::cli::{DATA, Failure, Global, SOFTWARE, UNAVAILABLE, USAGE};
use crate::config::Config;
use crate::config::environment::Environment;
use crate::retention::archive::{ArchiveError, Finding, Run, RunName, Severity, StorageError, Target};
use crate::retention::restore::{RestoreError, Sink, Tally, Wanted, restore};
use crate::store::mongodb::{Mongo, Purpose};
use crate::store::postgres::Postgres;

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Which archive, and what of it.
#[derive(Debug, Args)]
struct Selection {
    /// Where the archive is, such as file:///var/lib/bellwether/archive. Without it, those of the policies.
    #[arg(long, value_name = "URL")]
    archive: Option<String>,
    /// Only this policy.
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Only this run.
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// Writes JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    selection: Selection,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    selection: Selection,
    /// Only the record of this id; may be given several times.
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,
    /// Replaces what is there and differs from what was archived. Without this it is left as it is.
    #[arg(long)]
    overwrite: bool,
    /// Says what would be done, and writes nothing.
    #[arg(long)]
    dry_run: bool,
    /// Asks nothing.
    #[arg(long)]
    yes: bool,
    /// Writes a folder that `mongorestore` reads, instead of the database.
    #[arg(long, value_name = "DIR")]
    to_dump: Option<PathBuf>,
    /// Brings it back into this database, where it is another one than that of `stores`.
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
}

/// What was found in one run.
struct Verified {
    run: Run,
    records: u64,
    findings: Vec<Finding>,
}

pub(super) fn verify(global: &Global, arguments: &VerifyArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let config = global.load(environment)?;
    let runtime = runtime()?;
    let mut verified = Vec::new();
    for target in targets(&config, &arguments.selection)? {
        let found = runtime.block_on(verify_target(&target, &arguments.selection)).map_err(|error| failure(error.into()))?;
        verified.extend(found);
    }
    if verified.is_empty() {
        return Err(Failure::new(UNAVAILABLE, "there is no archive there yet"));
    }
    let is_damaged = verified.iter().flat_map(|run| &run.findings).any(|finding| finding.severity == Severity::Damage);
    if arguments.selection.json {
        let runs: Vec<_> = verified.iter().map(verified_json).collect();
        println!("{:#}", json!({ "whole": !is_damaged, "runs": runs }));
    } else {
        verified.iter().for_each(print_verified);
    }
    Ok(if is_damaged { ExitCode::from(DATA) } else { ExitCode::SUCCESS })
}

async fn verify_target(target: &Target, selection: &Selection) -> Result<Vec<Verified>, ArchiveError> {
    let bar = progress();
    let mut verified = Vec::new();
    for name in RunName::list(target, selection.policy.as_deref()).await? {
        if selection.run.as_ref().is_some_and(|run| !name.is(run)) {
            continue;
        }
        let run = Run::open(target, &name).await?;
        let mut records = 0;
        let findings = run
            .verify(|_, whole| {
                records += whole;
                bar.inc(whole);
            })
            .await?;
        verified.push(Verified { run, records, findings });
    }
    bar.finish_and_clear();
    Ok(verified)
}

fn print_verified(Verified { run, records, findings }: &Verified) {
    let state = if findings.iter().any(|finding| finding.severity == Severity::Damage) { "DAMAGED" } else { "whole" };
    println!("{state}: {} ({records} records of {} as they were archived)", run.place(), run.database());
    for finding in findings {
        let kind = if finding.severity == Severity::Damage { "damage" } else { "note" };
        println!("  {kind}: {}: {}", finding.place, finding.message);
    }
}

fn verified_json(Verified { run, records, findings }: &Verified) -> serde_json::Value {
    json!({
        "policy": run.policy(),
        "run": run.name(),
        "place": run.place().to_string(),
        "database": run.database(),
        "finished": run.manifest().map(|manifest| &manifest.finished),
        "records": records,
        "findings": findings_json(findings),
    })
}

fn findings_json(findings: &[Finding]) -> Vec<serde_json::Value> {
    let one = |finding: &Finding| {
        let severity = if finding.severity == Severity::Damage { "damage" } else { "note" };
        json!({ "severity": severity, "place": finding.place.to_string(), "message": finding.message })
    };
    findings.iter().map(one).collect()
}

pub(super) fn bring_back(global: &Global, arguments: &RestoreArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let config = global.load(environment)?;
    if !arguments.dry_run && !arguments.yes && arguments.to_dump.is_none() {
        confirm(&config, arguments)?;
    }
    let runtime = runtime()?;
    let wanted = Wanted {
        policy: arguments.selection.policy.clone(),
        run: arguments.selection.run.clone(),
        ids: arguments.ids.clone(),
        overwrite: arguments.overwrite,
        dry_run: arguments.dry_run,
    };
    let mut tally = Tally::default();
    for target in targets(&config, &arguments.selection)? {
        let bar = progress();
        let done = runtime.block_on(restore(&target, &wanted, sink(&config, arguments), |records| bar.inc(records)));
        bar.finish_and_clear();
        tally.add(done.map_err(failure)?);
    }
    // An operation that was given up must not hold up the exit.
    runtime.shutdown_background();
    if arguments.selection.json {
        println!("{:#}", tally_json(&tally, arguments.dry_run));
    } else {
        print_tally(&tally, arguments);
    }
    Ok(if tally.is_complete() { ExitCode::SUCCESS } else { ExitCode::from(DATA) })
}

fn sink(config: &Config, arguments: &RestoreArgs) -> Sink {
    if let Some(folder) = &arguments.to_dump {
        return Sink::Dump(folder.clone());
    }
    let store = config.stores.mongodb.as_ref();
    let database = arguments.database.clone().or_else(|| Some(store?.database.clone())).unwrap_or_default();
    Sink::Stores {
        mongo: store.map(|store| Box::new(Mongo::new(store, Purpose::Retention))),
        postgres: config.stores.postgres.as_ref().map(|store| Box::new(Postgres::new(store, CONNECT_LIMIT))),
        database,
        is_chosen: arguments.database.is_some(),
    }
}

fn confirm(config: &Config, arguments: &RestoreArgs) -> Result<(), Failure> {
    let store = config.stores.mongodb.as_ref();
    let database = arguments.database.as_deref().or_else(|| Some(store?.database.as_str())).unwrap_or("the database");
    let what = arguments.selection.policy.as_deref().map_or_else(|| "everything that was archived".to_owned(), |name| format!("`{name}`"));
    let manner = if arguments.overwrite { ", replacing documents that differ" } else { "" };
    ask(&format!("Bring {what} back into {database}{manner}?"))
}

/// Asks a person. Where there is none, the answer is no.
pub(super) fn ask(question: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(USAGE, "this writes to the database: say --yes, or look first with --dry-run or `retention plan`"));
    }
    print!("{question} [y/N] ");
    let mut answer = String::new();
    let read = std::io::stdout().flush().and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    let is_yes = read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
    if is_yes { Ok(()) } else { Err(Failure::new(USAGE, "nothing was done")) }
}

fn print_tally(tally: &Tally, arguments: &RestoreArgs) {
    if arguments.dry_run {
        println!("DRY RUN: nothing was written");
    }
    let would = if arguments.dry_run { "would be " } else { "" };
    println!("{:>9} {would}brought back", tally.restored);
    println!("{:>9} there already, as they were archived", tally.identical);
    if tally.overwritten > 0 {
        println!("{:>9} there and other: {would}replaced", tally.overwritten);
    }
    if tally.differing > 0 {
        println!("{:>9} there and other: left as they are (--overwrite replaces them)", tally.differing);
        for different in &tally.different {
            println!("          {} {}", different.unit, different.id);
        }
    }
    for finding in &tally.damage {
        println!("  damage: {}: {}", finding.place, finding.message);
    }
}

fn tally_json(tally: &Tally, dry_run: bool) -> serde_json::Value {
    let different: Vec<_> = tally.different.iter().map(|one| json!({ "unit": one.unit, "id": one.id })).collect();
    json!({
        "dry_run": dry_run,
        "runs": tally.runs,
        "restored": tally.restored,
        "identical": tally.identical,
        "overwritten": tally.overwritten,
        "differing": tally.differing,
        "different": different,
        "damage": findings_json(&tally.damage),
    })
}

fn targets(config: &Config, selection: &Selection) -> Result<Vec<Target>, Failure> {
    let urls: BTreeSet<&String> = match &selection.archive {
        Some(url) => BTreeSet::from([url]),
        None => of_policies(config, selection.policy.as_deref()),
    };
    if urls.is_empty() {
        let message = "no policy says where its archive is: say it with --archive, such as --archive file:///var/lib/bellwether/archive";
        return Err(Failure::new(USAGE, message));
    }
    let open = |url: &String| Target::open(url, &config.storage).map_err(|error| failure(ArchiveError::from(error).into()));
    urls.into_iter().map(open).collect()
}

/// The archives of the policies. One that the configuration does not have any more may have used any of them.
fn of_policies<'a>(config: &'a Config, wanted: Option<&str>) -> BTreeSet<&'a String> {
    let collections = config.retention.policies.iter().map(|policy| (&policy.name, policy.archive.as_ref()));
    let tables = config.retention.tables.iter().map(|table| (&table.name, table.archive.as_ref()));
    let all: Vec<_> = collections.chain(tables).collect();
    let is_known = all.iter().any(|(name, _)| wanted == Some(name.as_str()));
    all.into_iter().filter(|(name, _)| !is_known || wanted == Some(name.as_str())).filter_map(|(_, archive)| archive).collect()
}

/// Counts records on a terminal.
fn progress() -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{spinner} {human_pos} records {per_sec}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| Failure::new(SOFTWARE, error))
}

fn failure(error: RestoreError) -> Failure {
    let code = match &error {
        RestoreError::Archive(ArchiveError::Storage(StorageError::Address(_))) | RestoreError::OtherDatabase { .. } => USAGE,
        RestoreError::Archive(ArchiveError::Damaged { .. } | ArchiveError::Unreadable { .. }) | RestoreError::NotTheSame { .. } => DATA,
        _ => UNAVAILABLE,
    };
    Failure::new(code, error)
}
