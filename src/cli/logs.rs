//! `bellwether logs`: what a log would count for, why, and what could count it.

mod explain;
mod replay;
mod source;
mod suggest;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::cli::{Failure, Global};
use crate::config::environment::Environment;
use crate::config::{Config, Request};

pub(super) use test::{describe, run_tests};

#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Reads whole files and writes what they count for to the standard output, as Prometheus text. The rules of the
    /// profile and the configuration apply, and the logs tell every fact: there is no database beside them.
    Replay {
        /// The files, compressed by gzip or Zstandard or not; `-` is the standard input. The label `input` is the file's name.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Accounts for every line of a file: where it stands, what it is, which rules count it, and why the others do not.
    Explain(explain::ExplainArgs),
    /// Runs the tests of the configuration (`logs.tests`): lines, and the values that they must give. Exits with 1 where
    /// one fails.
    Test(test::TestArgs),
    /// Proposes rules for a log, as a configuration with tests that `bellwether check` accepts.
    Suggest(suggest::SuggestArgs),
}

pub(super) fn logs(global: &Global, arguments: &LogsArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let load = || global.load_with(&Request { logs_only: true, ..Request::default() }, environment);
    match &arguments.what {
        What::Replay { files } => replay::replay_files(&load()?, files),
        What::Explain(arguments) => explain::explain(&load()?, arguments),
        What::Test(arguments) => test::test(&load()?, arguments),
        What::Suggest(arguments) => suggest::suggest(arguments, environment),
    }
}

/// The configuration with which logs are looked at for themselves: they tell every fact.
pub(super) fn load_for_tests(global: &Global, environment: &Environment) -> Result<Config, Failure> {
    let request = Request { profile: global.profile.as_deref(), file: global.config.as_deref(), logs_only: true, ..Request::default() };
    Ok(crate::config::load(&request, environment)?)
}
