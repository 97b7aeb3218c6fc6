//! `bellwether retention`: what policies would delete, and what they would keep and why; and doing it.

mod apply;
mod archives;
mod local;
mod status;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::{Failure, Global, SOFTWARE, UNAVAILABLE, USAGE};
use crate::clock::Now;
use crate::config::Config;
use crate::config::environment::Environment;
use crate::config::retention::Policy;
use crate::config::stores::MongoStore;
use crate::retention::{Engine, Plan, RetentionMetrics, plan};
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
    /// Archives what a plan says, and deletes what was archived and read back.
    Apply(apply::ApplyArgs),
    /// Shows how each policy stands: its last run, and why that ended.
    Status {
        /// Writes JSON.
        #[arg(long)]
        json: bool,
    },
    /// Keeps every process from deleting, until `resume`.
    Pause {
        /// Why, for those who ask.
        #[arg(long, default_value = "by hand")]
        reason: String,
    },
    /// Lets retention go on.
    Resume,
    /// Reads archives and compares every record with its sha256.
    Verify(archives::VerifyArgs),
    /// Brings back what was archived.
    Restore(archives::RestoreArgs),
}

pub(super) fn retention(global: &Global, arguments: &RetentionArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    match &arguments.what {
        What::Plan { policy, json } => with_config(global, environment, async |config| show_plans(config, policy.as_deref(), *json).await),
        What::Apply(arguments) => with_config(global, environment, async |config| apply::apply_all(config, arguments).await),
        What::Status { json } => with_config(global, environment, async |config| status::status(config, *json).await),
        What::Pause { reason } => with_config(global, environment, async |config| status::pause(config, Some(reason)).await),
        What::Resume => with_config(global, environment, async |config| status::pause(config, None).await),
        What::Verify(arguments) => archives::verify(global, arguments, environment),
        What::Restore(arguments) => archives::bring_back(global, arguments, environment),
    }
}

fn with_config(
    global: &Global,
    environment: &Environment,
    work: impl AsyncFnOnce(&Config) -> Result<ExitCode, Failure>,
) -> Result<ExitCode, Failure> {
    let config = global.load(environment)?;
    // Two threads: whatever holds one up, the lease is renewed.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(SOFTWARE, error))?;
    let done = runtime.block_on(work(&config));
    // An operation that was given up must not hold up the exit.
    runtime.shutdown_background();
    done
}

async fn show_plans(config: &Config, policy: Option<&str>, json: bool) -> Result<ExitCode, Failure> {
    let local = local::plans(config, policy).await?;
    let documents = if !local.is_empty() && !is_any(config, policy) { Vec::new() } else { plans(config, policy).await? };
    if json {
        let plans: Vec<_> = documents.iter().map(|plan| json!(plan)).chain(local.iter().map(|plan| json!(plan))).collect();
        println!("{:#}", json!(plans));
    } else {
        documents.iter().for_each(|plan| println!("{plan}"));
        local.iter().for_each(|plan| println!("{plan}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn is_any(config: &Config, wanted: Option<&str>) -> bool {
    config.retention.policies.iter().any(|policy| wanted.is_none_or(|name| policy.name == name))
}

/// The policies that are asked for; none is a mistake.
fn policies<'a>(config: &'a Config, wanted: Option<&str>) -> Result<Vec<&'a Policy>, Failure> {
    let policies: Vec<_> = config.retention.policies.iter().filter(|policy| wanted.is_none_or(|name| policy.name == name)).collect();
    if !policies.is_empty() {
        return Ok(policies);
    }
    let retention = &config.retention;
    let names = retention.policies.iter().map(|policy| &policy.name).chain(retention.tables.iter().map(|policy| &policy.name));
    let names: Vec<&str> = names.chain(retention.files.iter().map(|policy| &policy.name)).map(String::as_str).collect();
    let message = match wanted {
        Some(name) => format!("there is no retention policy `{name}`; there are: {}", names.join(", ")),
        None => "there is no retention policy; add one below `retention.policies`, `retention.tables` or `retention.files`".to_owned(),
    };
    Err(Failure::new(USAGE, message))
}

/// Deleting is asked for in the configuration, too.
fn only_plans(policy: &str) -> Failure {
    let message = format!(
        "the policy {policy} only plans, and nothing was done: deleting is an explicit choice; set `retention.mode: enforce`, and an `archive`"
    );
    Failure::new(UNAVAILABLE, message)
}

/// The database that policies are about.
fn store(config: &Config) -> Result<&MongoStore, Failure> {
    config.stores.mongodb.as_ref().ok_or_else(|| Failure::new(USAGE, "there is no `stores.mongodb`, which retention policies are about"))
}

fn engine(config: &Config) -> Result<Engine, Failure> {
    let mongo = Arc::new(Mongo::new(store(config)?, Purpose::Retention));
    Ok(Engine::new(mongo, &config.retention, &config.storage, config.profile, RetentionMetrics::default()))
}

async fn plans(config: &Config, wanted: Option<&str>) -> Result<Vec<Plan>, Failure> {
    let policies = policies(config, wanted)?;
    let mongo = Mongo::new(store(config)?, Purpose::Retention);
    let mut plans = Vec::new();
    for policy in policies {
        plans.push(plan(policy, &mongo, Now::read().wall).await.map_err(|error| Failure::new(UNAVAILABLE, error))?);
    }
    Ok(plans)
}
