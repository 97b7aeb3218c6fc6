//! `bellwether check`: whether the configuration can be used.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::logs::{describe, load_for_tests, run_tests};
use crate::cli::{CONFIG, Failure, Global, lint};
use crate::config::environment::Environment;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Shows the configuration as it is understood; secrets stay hidden.
    #[arg(long)]
    print: bool,
    /// Looks at the probes of Kubernetes manifests, rendered charts or values of charts instead: exits with 1 where one is
    /// inverted or does harm.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "print")]
    kubernetes: Vec<PathBuf>,
    /// Writes what is found in manifests as JSON.
    #[arg(long, requires = "kubernetes")]
    json: bool,
}

pub(super) fn check(global: &Global, arguments: &CheckArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    if !arguments.kubernetes.is_empty() {
        return lint::lint(&arguments.kubernetes, arguments.json);
    }
    let config = global.load(environment)?;
    if arguments.print {
        println!("{config:#?}");
    }
    let for_tests = load_for_tests(global, environment)?;
    let failed = run_tests(&for_tests)?;
    if !failed.is_empty() {
        let lines: Vec<String> = failed.iter().map(|(test, differences)| describe(test, differences)).collect();
        return Err(Failure::new(
            CONFIG,
            format!("{} of {} tests of log rules fail:\n{}", failed.len(), for_tests.logs.tests.len(), lines.join("\n")),
        ));
    }
    println!(
        "ok: profile {}, {} checks, {} log inputs, {} log rules, {} log tests, {} gauges, {} tails, {} retention policies",
        config.profile,
        config.health.checks.len(),
        config.logs.inputs.len(),
        config.logs.rules.len(),
        config.logs.tests.len(),
        config.collect.gauges.len(),
        config.collect.tails.len(),
        config.retention.policies.len(),
    );
    Ok(ExitCode::SUCCESS)
}
