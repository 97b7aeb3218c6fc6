//! Policies of tables on the command line: what they would delete, and doing it.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::retention::only_plans;
use crate::cli::{Failure, UNAVAILABLE, USAGE};
use crate::clock::Now;
use crate::config::Config;
use crate::config::retention::{Mode, TablePolicy};
use crate::retention::archive::Target;
use crate::retention::table::{TableError, TableOutcome, TablePlan, TableRun, plan};
use crate::store::postgres::Postgres;

/// A health check's patience: what takes longer has limits of its own.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The plans of the table policies, of one or of all.
pub(super) async fn plans(config: &Config, wanted: Option<&str>) -> Result<Vec<TablePlan>, Failure> {
    let mut plans = Vec::new();
    for policy in policies(config, wanted) {
        let made = plan(policy, &postgres(config)?, Now::read().wall).await;
        plans.push(made.map_err(failure)?);
    }
    Ok(plans)
}

/// Whether a policy of this name, or any where none is named, is about a table.
pub(super) fn is_any(config: &Config, wanted: Option<&str>) -> bool {
    policies(config, wanted).next().is_some()
}

/// Carries the table policies out, after `agreed` has said yes to each plan.
pub(super) async fn apply(
    config: &Config,
    wanted: Option<&str>,
    agreed: impl Fn(&TablePlan) -> Result<(), Failure>,
) -> Result<Vec<TableOutcome>, Failure> {
    let mut outcomes = Vec::new();
    for policy in policies(config, wanted) {
        if config.retention.mode == Mode::Plan {
            return Err(only_plans(&policy.name));
        }
        let url = policy.archive.as_ref().ok_or_else(|| {
            let message = format!("the policy {} has no `archive`: nothing is deleted that has not been archived", policy.name);
            Failure::new(USAGE, message)
        })?;
        let target = Target::open(url, &config.storage).map_err(|error| Failure::new(USAGE, error))?;
        let run = TableRun::begin(policy, &postgres(config)?, Now::read().wall).await.map_err(failure)?;
        agreed(run.plan())?;
        let bar = progress(run.plan().would_delete);
        let outcome = run.apply(&target, config.profile, |rows| bar.inc(rows)).await;
        bar.finish_and_clear();
        outcomes.push(outcome.map_err(failure)?);
    }
    Ok(outcomes)
}

fn policies<'a>(config: &'a Config, wanted: Option<&'a str>) -> impl Iterator<Item = &'a TablePolicy> {
    config.retention.tables.iter().filter(move |policy| wanted.is_none_or(|name| policy.name == name))
}

fn postgres(config: &Config) -> Result<Postgres, Failure> {
    let store = config.stores.postgres.as_ref();
    let store = store.ok_or_else(|| Failure::new(USAGE, "`retention.tables` is about Postgres, and there is no `stores.postgres`"))?;
    Ok(Postgres::new(store, CONNECT_LIMIT))
}

fn failure(error: TableError) -> Failure {
    let code = if matches!(error, TableError::Mismatch { .. }) { USAGE } else { UNAVAILABLE };
    Failure::new(code, error)
}

fn progress(rows: u64) -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(rows) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} rows {per_sec} {eta}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
