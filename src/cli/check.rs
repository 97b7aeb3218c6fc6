//! `bellwether check`: whether the configuration can be used.

use std::process::ExitCode;

use clap::Args;

use crate::cli::{Failure, Global};
use crate::config::environment::Environment;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Shows the configuration as it is understood; secrets stay hidden.
    #[arg(long)]
    print: bool,
}

pub(super) fn check(global: &Global, arguments: &CheckArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let config = global.load(environment)?;
    if arguments.print {
        println!("{config:#?}");
    }
    println!(
        "ok: profile {}, {} checks, {} log inputs, {} log rules, {} gauges, {} tails, {} retention policies",
        config.profile,
        config.health.checks.len(),
        config.logs.inputs.len(),
        config.logs.rules.len(),
        config.collect.gauges.len(),
        config.collect.tails.len(),
        config.retention.policies.len(),
    );
    Ok(ExitCode::SUCCESS)
}
