//! `bellwether logs test`: the tests of the configuration, also run by `bellwether check`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::cli::{Failure, SOFTWARE};
use crate::config::Config;
use crate::config::logs::LogTest;
use crate::logs::{Difference, run_test};

#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// Writes the results as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn test(config: &Config, arguments: &TestArgs) -> Result<ExitCode, Failure> {
    let failed = run_tests(config)?;
    if arguments.json {
        let failed: Vec<_> = failed.iter().map(|(test, differences)| json!({ "name": test.name, "place": place(test), "differences": differences.iter().map(to_json).collect::<Vec<_>>() })).collect();
        println!("{:#}", json!({ "tests": config.logs.tests.len(), "failed": failed }));
    } else {
        failed.iter().for_each(|(test, differences)| println!("{}", describe(test, differences)));
        println!("{} tests, {} failed", config.logs.tests.len(), failed.len());
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The tests that fail, each with what is different.
pub(in crate::cli) fn run_tests(config: &Config) -> Result<Vec<(&LogTest, Vec<Difference>)>, Failure> {
    let mut failed = Vec::new();
    for test in &config.logs.tests {
        let differences = run_test(&config.logs, test).map_err(|error| Failure::new(SOFTWARE, error))?;
        if !differences.is_empty() {
            failed.push((test, differences));
        }
    }
    Ok(failed)
}

/// What is different, as lines for people.
pub(in crate::cli) fn describe(test: &LogTest, differences: &[Difference]) -> String {
    let mut text = format!("{}: logs.tests.{}: failed", place(test), test.name);
    for Difference { series, expected, found } in differences {
        let found = found.map_or_else(|| "not there".to_owned(), |found| found.to_string());
        text = format!("{text}\n  {series}: expected {expected}, found {found}");
    }
    text
}

fn place(test: &LogTest) -> String {
    test.place.as_ref().map_or_else(|| "configuration".to_owned(), ToString::to_string)
}

fn to_json(difference: &Difference) -> serde_json::Value {
    json!({ "series": difference.series.to_string(), "expected": difference.expected, "found": difference.found })
}
