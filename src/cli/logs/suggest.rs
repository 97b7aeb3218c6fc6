//! `bellwether logs suggest`: a configuration for a log that nobody has written rules for.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::cli::logs::source::{name, open};
use crate::cli::{DATA, Failure, IO, SOFTWARE};
use crate::config::environment::Environment;
use crate::config::{Config, Request, load};
use crate::logs::{Explainer, Proposal, Survey, count};

#[derive(Debug, Args)]
pub(super) struct SuggestArgs {
    /// The files, compressed or not; `-` is the standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the names of the metrics begin with; the name of the first file unless given.
    #[arg(long, value_name = "NAME")]
    prefix: Option<String>,
    /// Writes the proposal as JSON: the configuration as a text, the metrics, and what was found.
    #[arg(long)]
    json: bool,
}

pub(super) fn suggest(arguments: &SuggestArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let bare = load(&Request { logs_only: true, ..Request::default() }, environment)?;
    let (survey, lines) = survey(&bare, &arguments.files)?;
    if survey.records == 0 {
        let message = format!("none of {lines} lines is a record in a form that is known; `bellwether logs explain` shows what they are");
        return Err(Failure::new(DATA, message));
    }
    let prefix = arguments.prefix.clone().unwrap_or_else(|| stem(&arguments.files[0]));
    let proposal = Proposal::new(&survey, &prefix);
    let files: Vec<(String, String)> =
        arguments.files.iter().filter(|file| *file != Path::new("-")).map(|file| (stem(file), pattern(file))).collect();
    // The values of the tests are what the proposed rules really count.
    let untested = proposal.configuration(&files, &[]);
    let proposed = load(&Request { text: Some(&untested), logs_only: true, ..Request::default() }, environment)?;
    let text: String = proposal.lines.iter().map(|line| format!("{line}\n")).collect();
    let counted = count(&proposed.logs, text.as_bytes()).map_err(|error| Failure::new(SOFTWARE, error))?;
    let is_proposed = |series: &str| {
        let name = series.split('{').next().unwrap_or(series);
        proposal.metrics.iter().any(|metric| matches!(name.strip_prefix(metric.as_str()), Some("" | "_count" | "_sum")))
    };
    let expect: Vec<(String, f64)> = counted
        .iter()
        .map(|(series, value)| (series.to_string(), *value))
        .filter(|(series, value)| *value != 0.0 && is_proposed(series))
        .collect();
    let configuration = proposal.configuration(&files, &expect);
    if arguments.json {
        println!("{:#}", json!({ "lines": lines, "records": survey.records, "metrics": proposal.metrics, "configuration": configuration }));
    } else {
        println!(
            "# Proposed by `bellwether logs suggest` from {lines} lines, of which {} are records. Look through it before you use it:",
            survey.records
        );
        println!("# the tests hold lines of the log, and the units of bare numbers are guessed from the names of their fields.");
        print!("{configuration}");
    }
    Ok(ExitCode::SUCCESS)
}

/// What the files have in common, and how many lines they have.
fn survey(config: &Config, files: &[PathBuf]) -> Result<(Survey, u64), Failure> {
    let (mut survey, mut lines) = (Survey::default(), 0);
    for path in files {
        let mut explainer = Explainer::new(&config.logs).map_err(|error| Failure::new(SOFTWARE, error))?;
        let (reader, bar) = open(path)?;
        let read = explainer.stream(reader, |explanation| {
            lines += 1;
            if let Some(record) = &explanation.seen.record {
                survey.add(record, &explanation.line);
            }
            Ok(())
        });
        read.map_err(|error| Failure::new(IO, format!("cannot read {}: {error}", path.display())))?;
        bar.finish_and_clear();
    }
    Ok((survey, lines))
}

/// A file's name up to its first dot.
fn stem(path: &Path) -> String {
    let name = name(path);
    name.split('.').find(|part| !part.is_empty()).filter(|part| *part != "-").unwrap_or("app").to_owned()
}

/// The path of a file as a pattern that matches it alone.
fn pattern(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let path = path.to_string_lossy();
    path.chars().map(|character| if "*?[]{}!\\".contains(character) { format!("[{character}]") } else { character.to_string() }).collect()
}
