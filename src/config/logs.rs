//! `logs`: which streams are read, and the rules that count their lines.

use std::collections::BTreeSet;
use std::path::PathBuf;

use globset::{GlobBuilder, GlobMatcher};
use schemars::JsonSchema;
use serde::Deserialize;

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

/// The section as it is written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Logs")]
pub(super) struct RawLogs {
    #[serde(default)]
    inputs: Vec<Spanned<RawInput>>,
    #[serde(default)]
    rules: Vec<RawRule>,
    /// Lines beyond this are skipped and counted.
    max_line: Option<HumanSize>,
    /// So many threads read files that are far behind; by default one for each CPU, at most 4. While nothing is far
    /// behind, one thread reads all files.
    threads: Option<usize>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "LogInput")]
struct RawInput {
    /// The value of the label `input`.
    name: String,
    /// Globs; `**` crosses folders.
    #[serde(default)]
    files: Vec<Spanned<String>>,
    /// Reads the standard input instead.
    #[serde(default)]
    stdin: bool,
    /// Where a file begins that is there at the very first start; later files are read from their begin.
    #[serde(default)]
    start: Start,
}

/// Where a file begins that is there at the very first start.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// With the next line that is written: what was before has been seen by somebody else, or by nobody.
    #[default]
    End,
    /// With its first line.
    Beginning,
}

/// Which streams are read, and how their lines count.
#[derive(Clone, Debug)]
pub struct Logs {
    /// The streams.
    pub inputs: Vec<LogInput>,
    /// The rules that are active for logs.
    pub rules: Vec<Rule>,
    /// Lines beyond this many bytes are skipped and counted.
    pub max_line: usize,
    /// How many threads may read files at the same time; `None` where that follows from the machine.
    pub threads: Option<usize>,
}

/// A stream or a set of files.
#[derive(Clone, Debug)]
pub struct LogInput {
    /// The value of the label `input`.
    pub name: String,
    /// What is read.
    pub kind: InputKind,
    /// Where a file begins that is there at the very first start.
    pub start: Start,
}

/// What an input reads.
#[derive(Clone, Debug)]
pub enum InputKind {
    /// The files that match one of these.
    Files(Vec<FileGlob>),
    /// The standard input of the process.
    Stdin,
}

/// A pattern of file paths.
#[derive(Clone, Debug)]
pub struct FileGlob {
    /// The longest folder without a wildcard: where looking begins.
    pub root: PathBuf,
    /// Whether a path matches. `*` stays within a folder, `**` crosses them.
    pub matcher: GlobMatcher,
    /// How many levels below `root` a match can lie; `None` where `**` allows any.
    pub depth: Option<usize>,
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
            inputs.extend(validate_input(input, problems));
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
        let max_line = self.max_line.map_or(MAX_LINE, |size| usize::try_from(size.0).unwrap_or(usize::MAX));
        if max_line < 1024 {
            let message = "at least 1KiB: shorter limits would skip ordinary lines".to_owned();
            problems.error(Problem { place: None, path: "logs.max_line".to_owned(), message });
        }
        if self.threads.is_some_and(|threads| !(1..=MAX_THREADS).contains(&threads)) {
            let message = format!("between 1 and {MAX_THREADS}");
            problems.error(Problem { place: None, path: "logs.threads".to_owned(), message });
        }
        Logs { inputs, rules, max_line, threads: self.threads }
    }
}

fn validate_input(input: Spanned<RawInput>, problems: &mut Problems) -> Option<LogInput> {
    let Spanned { place, value: input } = input;
    let path = format!("logs.inputs.{}", input.name);
    if input.stdin != input.files.is_empty() {
        let message = "an input has either `files` or `stdin: true`".to_owned();
        problems.error(Problem { place, path, message });
        return None;
    }
    let kind = if input.stdin {
        InputKind::Stdin
    } else {
        let mut globs = Vec::new();
        for glob in &input.files {
            match FileGlob::parse(&glob.value) {
                Ok(parsed) => globs.push(parsed),
                Err(message) => problems.error(Problem { place: glob.place.clone(), path: path.clone(), message }),
            }
        }
        InputKind::Files(globs)
    };
    Some(LogInput { name: input.name, kind, start: input.start })
}

// === impl FileGlob ===

impl FileGlob {
    /// Reads a pattern; it must be an absolute path, or one below the working folder.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(pattern: &str) -> Result<Self, String> {
        if pattern.is_empty() {
            return Err("a pattern is missing; write for example /var/log/app/*.log".to_owned());
        }
        let glob = GlobBuilder::new(pattern)
            .literal_separator(true)
            .build()
            .map_err(|error| format!("`{pattern}` is not a glob: {}", error.kind()))?;
        let is_wild = |part: &&str| part.contains(['*', '?', '[', '{']);
        let parts: Vec<&str> = pattern.split('/').collect();
        // The last part is a file's name, even without a wildcard.
        let fixed = parts.iter().take(parts.len() - 1).take_while(|part| !is_wild(part)).count();
        let root = match parts[..fixed].join("/") {
            _ if fixed == 0 => PathBuf::from("."),
            root if root.is_empty() => PathBuf::from("/"),
            root => PathBuf::from(root),
        };
        let depth = (!pattern.contains("**")).then_some(parts.len() - fixed);
        Ok(Self { root, matcher: glob.compile_matcher(), depth })
    }
}

#[cfg(test)]
mod tests {
    use super::FileGlob;

    #[track_caller]
    fn check(pattern: &str, root: &str, depth: Option<usize>, hits: &[&str], misses: &[&str]) {
        let glob = FileGlob::parse(pattern).expect("a glob");
        assert_eq!((glob.root.to_str(), glob.depth), (Some(root), depth), "{pattern}");
        hits.iter().for_each(|path| assert!(glob.matcher.is_match(path), "{pattern} {path}"));
        misses.iter().for_each(|path| assert!(!glob.matcher.is_match(path), "{pattern} {path}"));
    }

    #[test]
    fn globs_know_where_to_begin_and_how_deep_to_go() {
        check(
            "/var/log/pods/*/agent/*.log",
            "/var/log/pods",
            Some(3),
            &["/var/log/pods/a/agent/0.log"],
            &["/var/log/pods/a/b/agent/0.log"],
        );
        check("/var/log/**/*.log", "/var/log", None, &["/var/log/a/b.log", "/var/log/b.log"], &["/var/log/a/b.txt"]);
        check("/tmp/agent.log", "/tmp", Some(1), &["/tmp/agent.log"], &["/tmp/agent.log.1"]);
        check("*.log", ".", Some(1), &["a.log"], &[]);
        check("/*.log", "/", Some(1), &["/a.log"], &[]);
    }
}
