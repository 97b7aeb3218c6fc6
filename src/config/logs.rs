//! `logs`: which streams are read, and the rules that count their lines.

mod examples;
mod input;

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;

pub use crate::config::logs::examples::LogTest;
use crate::config::logs::examples::RawLogTest;
use crate::config::logs::input::RawInput;
pub use crate::config::logs::input::{Address, ChildStream, FileGlob, InputKind, Listen, LogInput, Start};
use crate::config::problems::{Problem, Problems};
use crate::config::rules::{RawRule, Rule};
use crate::config::sources::{Source, Sources};
use crate::config::spanned::Spanned;
use crate::config::values::HumanSize;

/// Lines beyond this are skipped and counted. The longest line of an agent that was seen (a whole stderr within an
/// error) had some 60 KiB.
const MAX_LINE: usize = 1024 * 1024;
/// Each thread has its own buffer and its own copy of the series.
const MAX_THREADS: usize = 64;

/// Each input costs some forty series and a share of a thread.
const MAX_INPUTS: usize = 64;

/// The section as it is written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Logs")]
pub(super) struct RawLogs {
    #[serde(default)]
    inputs: Vec<Spanned<RawInput>>,
    #[serde(default)]
    rules: Vec<RawRule>,
    /// Lines, and the values that they must give; `bellwether check` runs them.
    #[serde(default)]
    tests: Vec<Spanned<RawLogTest>>,
    /// Lines beyond this are skipped and counted.
    max_line: Option<HumanSize>,
    /// So many threads read files that are far behind; by default one for each CPU, at most 4. While nothing is far
    /// behind, one thread reads all files.
    threads: Option<usize>,
    /// Whether each line of JSON is checked, also those to which no rule can apply.
    #[serde(default)]
    validation: Validation,
}

/// Which streams are read, and how their lines count.
#[derive(Clone, Debug)]
pub struct Logs {
    /// The streams.
    pub inputs: Vec<LogInput>,
    /// The rules that are active for logs.
    pub rules: Vec<Rule>,
    /// What the rules must count.
    pub tests: Vec<LogTest>,
    /// Lines beyond this many bytes are skipped and counted.
    pub max_line: usize,
    /// How many threads may read files at the same time; `None` where that follows from the machine.
    pub threads: Option<usize>,
    /// Whether each line is checked.
    pub validation: Validation,
    /// Whether somebody is told of each fatal line.
    pub tells_fatal: bool,
}

/// Which lines of JSON are decoded.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Validation {
    /// Each one: every count is exact.
    #[default]
    Full,
    /// Those to which a rule can apply, and one of 16 others.
    Sampled,
}

// === impl RawLogs ===

impl RawLogs {
    pub(super) fn validate(self, sources: &Sources, problems: &mut Problems) -> Logs {
        let mut names = BTreeSet::new();
        let mut inputs = Vec::new();
        for input in self.inputs {
            if !names.insert(input.value.name.clone()) {
                let path = "logs.inputs".to_owned();
                let message = format!("there are two inputs `{}`", input.value.name);
                problems.error(Problem { place: input.place.clone(), path, message });
            }
            inputs.extend(RawInput::validate(input, problems));
        }
        if inputs.len() > MAX_INPUTS {
            let message = format!("at most {MAX_INPUTS} inputs: let one input read more files, or more senders use one socket");
            problems.error(Problem { place: None, path: "logs.inputs".to_owned(), message });
        }
        let stdin = inputs.iter().filter(|input| matches!(input.kind, InputKind::Stdin)).count();
        if stdin > 1 {
            let message = "only one input can read the standard input".to_owned();
            problems.error(Problem { place: None, path: "logs.inputs".to_owned(), message });
        }
        let mut rules = Vec::new();
        for rule in self.rules {
            let active = sources.is_active(rule.fact(), Source::Logs, problems);
            rules.extend(rule.validate(problems).filter(|_| active));
        }
        let tests = self.tests.into_iter().map(|test| RawLogTest::validate(test, problems)).collect();
        let max_line = self.max_line.map_or(MAX_LINE, |size| usize::try_from(size.0).unwrap_or(usize::MAX));
        if max_line < 1024 {
            let message = "at least 1KiB: shorter limits would skip ordinary lines".to_owned();
            problems.error(Problem { place: None, path: "logs.max_line".to_owned(), message });
        }
        if self.threads.is_some_and(|threads| !(1..=MAX_THREADS).contains(&threads)) {
            let message = format!("between 1 and {MAX_THREADS}");
            problems.error(Problem { place: None, path: "logs.threads".to_owned(), message });
        }
        Logs { inputs, rules, tests, max_line, threads: self.threads, validation: self.validation, tells_fatal: false }
    }
}
