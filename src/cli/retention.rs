//! `bellwether retention`: what policies would delete, and what they would keep and why.

mod archives;
mod tables;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::{Failure, Global, SOFTWARE, UNAVAILABLE, USAGE};
use crate::clock::Now;
use crate::config::Config;
use crate::config::environment::Environment;
use crate::retention::{Plan, plan};
use crate::store::mongodb::{Mongo, Purpose};

#[derive(Debug, Args)]
pub(super) struct RetentionArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Shows what each policy would delete, and what it would keep and why. Changes nothing.
    Plan {
        /// Only this policy.
        #[arg(long, value_name = "NAME")]
        policy: Option<String>,
        /// Writes JSON.
        #[arg(long)]
        json: bool,
    },
    /// Archives and deletes what a plan says.
    Apply {
        /// Only this policy.
        #[arg(long, value_name = "NAME")]
        policy: Option<String>,
        /// Asks nothing.
        #[arg(long)]
        yes: bool,
    },
    /// Reads archives and compares every record with its sha256.
    Verify(archives::VerifyArgs),
    /// Brings back what was archived.
    Restore(archives::RestoreArgs),
}

pub(super) fn retention(global: &Global, arguments: &RetentionArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let (policy, json) = match &arguments.what {
        What::Plan { policy, json } => (policy, json),
        What::Apply { policy, yes } => return apply(global, policy.as_deref(), *yes, environment),
        What::Verify(arguments) => return archives::verify(global, arguments, environment),
        What::Restore(arguments) => return archives::bring_back(global, arguments, environment),
    };
    let config = global.load(environment)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| Failure::new(SOFTWARE, error))?;
    let wanted = policy.as_deref();
    let tables = runtime.block_on(tables::plans(&config, wanted))?;
    let documents = if !tables.is_empty() && !is_any(&config, wanted) { Ok(Vec::new()) } else { runtime.block_on(plans(&config, wanted)) };
    // An operation that was given up must not hold up the exit.
    runtime.shutdown_background();
    let documents = documents?;
    if *json {
        let plans: Vec<_> = documents.iter().map(|plan| json!(plan)).chain(tables.iter().map(|plan| json!(plan))).collect();
        println!("{:#}", json!(plans));
    } else {
        documents.iter().for_each(|plan| println!("{plan}"));
        tables.iter().for_each(|plan| println!("{plan}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn apply(global: &Global, policy: Option<&str>, yes: bool, environment: &Environment) -> Result<ExitCode, Failure> {
    let config = global.load(environment)?;
    if !tables::is_any(&config, policy) {
        let message = "this version deletes rows of tables and no documents: that is not built yet. \
                       See what would be deleted with `bellwether retention plan`";
        return Err(Failure::new(UNAVAILABLE, message));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| Failure::new(SOFTWARE, error))?;
    let outcomes =
        runtime.block_on(tables::apply(&config, policy, |plan| if yes { Ok(()) } else { archives::ask(&format!("{plan}\nGo on?")) }))?;
    runtime.shutdown_background();
    for outcome in outcomes {
        println!(
            "{}: {} rows archived, {} deleted, {} left as they had changed",
            outcome.run, outcome.archived, outcome.deleted, outcome.changed
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn is_any(config: &Config, wanted: Option<&str>) -> bool {
    config.retention.policies.iter().any(|policy| wanted.is_none_or(|name| policy.name == name))
}

async fn plans(config: &Config, wanted: Option<&str>) -> Result<Vec<Plan>, Failure> {
    let policies: Vec<_> = config.retention.policies.iter().filter(|policy| wanted.is_none_or(|name| policy.name == name)).collect();
    let Some(store) = config.stores.mongodb.as_ref().filter(|_| !policies.is_empty()) else {
        let names: Vec<&str> = config.retention.policies.iter().map(|policy| policy.name.as_str()).collect();
        let message = match wanted {
            Some(name) => format!("there is no retention policy `{name}`; there are: {}", names.join(", ")),
            None => "there is no retention policy; add one below `retention.policies`".to_owned(),
        };
        return Err(Failure::new(USAGE, message));
    };
    let mongo = Mongo::new(store, Purpose::Retention);
    let mut plans = Vec::new();
    for policy in policies {
        plans.push(plan(policy, &mongo, Now::read().wall).await.map_err(|error| Failure::new(UNAVAILABLE, error))?);
    }
    Ok(plans)
}
