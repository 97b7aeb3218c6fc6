//! `bellwether retention`: what policies would delete, and what they would keep and why.

mod archives;

use std::process::ExitCode;

use clap::{Args, Subcommand};

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
    /// Deletes what a plan says; not in this version.
    Apply,
    /// Reads archives and compares every record with its sha256.
    Verify(archives::VerifyArgs),
    /// Brings back what was archived.
    Restore(archives::RestoreArgs),
}

pub(super) fn retention(global: &Global, arguments: &RetentionArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let (policy, json) = match &arguments.what {
        What::Plan { policy, json } => (policy, json),
        What::Apply => {
            let message = "this version plans and does not delete: nothing is deleted before it has been archived and read back, and that is not built yet. \
                           See what would be deleted with `bellwether retention plan`";
            return Err(Failure::new(UNAVAILABLE, message));
        }
        What::Verify(arguments) => return archives::verify(global, arguments, environment),
        What::Restore(arguments) => return archives::bring_back(global, arguments, environment),
    };
    let config = global.load(environment)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| Failure::new(SOFTWARE, error))?;
    let plans = runtime.block_on(plans(&config, policy.as_deref()));
    // An operation that was given up must not hold up the exit.
    runtime.shutdown_background();
    let plans = plans?;
    if *json {
        println!("{}", serde_json::to_string_pretty(&plans).map_err(|error| Failure::new(SOFTWARE, error))?);
    } else {
        plans.iter().for_each(|plan| println!("{plan}"));
    }
    Ok(ExitCode::SUCCESS)
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
