//! Policies of tables and files on the command line: what they would delete, and doing it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::cli::retention::{apply, archives, only_plans};
use crate::cli::{Failure, SOFTWARE, UNAVAILABLE, USAGE};
use crate::config::Config;
use crate::config::retention::Mode;
use crate::retention::local::{Local, LocalError, LocalOutcome, LocalPlan, LocalPolicy, LocalRequest};
use crate::retention::table::TableError;
use crate::retention::{PlanId, RetentionMetrics};

/// The policies of tables and files.
pub(super) fn local(config: &Config) -> Local {
    let postgres = config.stores.postgres.as_ref();
    let metrics = RetentionMetrics::default();
    Local::new(&config.retention, postgres, &config.storage, config.profile, Some(&config.state_dir), metrics)
}

/// The plans of the policies of tables and files, of one or of all.
pub(super) async fn plans(config: &Config, wanted: Option<&str>) -> Result<Vec<LocalPlan>, Failure> {
    let local = local(config);
    let mut plans = Vec::new();
    for policy in named(&local, wanted) {
        plans.push(local.plan(policy).await.map_err(failure)?);
    }
    Ok(plans)
}

fn named<'a>(local: &'a Local, wanted: Option<&'a str>) -> impl Iterator<Item = &'a LocalPolicy> {
    local.policies().iter().filter(move |policy| wanted.is_none_or(|name| policy.name() == name))
}

/// The policies that are meant: that of the plan, or those of the name.
pub(super) fn chosen<'a>(local: &'a Local, wanted: Option<&'a str>, plan: Option<&PlanId>) -> Vec<&'a LocalPolicy> {
    named(local, wanted).filter(|policy| plan.is_none_or(|plan| policy.owns(plan))).collect()
}

/// Carries policies of tables and files out, each after its plan was given or agreed to.
pub(super) async fn apply(
    local: &Local,
    policies: Vec<&LocalPolicy>,
    arguments: &apply::ApplyArgs,
    stop: &CancellationToken,
) -> Result<Vec<LocalOutcome>, Failure> {
    if let Some(policy) = policies.iter().find(|policy| policy.mode() == Mode::Plan) {
        return Err(only_plans(policy.name()));
    }
    let mut outcomes = Vec::new();
    for policy in policies {
        let confirmed = match &arguments.plan {
            Some(id) => id.clone(),
            None => {
                let plan = local.plan(policy).await.map_err(failure)?;
                if !arguments.yes {
                    archives::ask(&format!("{plan}\nGo on?"))?;
                }
                plan.id().parse().map_err(|error| Failure::new(SOFTWARE, error))?
            }
        };
        let request = LocalRequest { confirmed: Some(confirmed), now: arguments.now };
        let progress = Arc::new(apply::Progress::new());
        let shown = Arc::clone(&progress);
        let show = move |name: &str, of: u64, tally: &crate::retention::Tally| shown.show(name, of, tally);
        outcomes.push(local.run(policy, &request, stop, Arc::new(show)).await);
        progress.finish();
    }
    Ok(outcomes)
}

fn failure(error: LocalError) -> Failure {
    let code = match &error {
        LocalError::Table(TableError::Mismatch { .. }) | LocalError::NoStore(_) => USAGE,
        _ => UNAVAILABLE,
    };
    Failure::new(code, error)
}
