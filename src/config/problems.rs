//! What is wrong with a configuration: all of it at once, each with its place.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where something stands: a file (or a profile), line and column, both from 1.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// The file's path as it was given, or `profile NAME`.
    pub source: Arc<str>,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
}

/// One problem: where, and what to do about it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Problem {
    /// Where it is; `None` for one that belongs to no line.
    pub place: Option<Place>,
    /// The path of keys that leads there, such as `health.checks.api.timeout`.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Everything that was found, in the order of the lines.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// Collects the problems of one entry, which all stand at one place.
#[derive(Debug)]
pub struct Complaints<'a> {
    place: Option<Place>,
    path: String,
    problems: &'a mut Problems,
    failed: bool,
}

/// The configuration cannot be used.
#[derive(Debug, Default, thiserror::Error)]
#[error("the configuration has {} problem{}:\n{}", problems.len(), if problems.len() == 1 { "" } else { "s" }, lines(problems, shown.as_deref()))]
pub struct ConfigError {
    problems: Vec<Problem>,
    shown: Option<Box<Shown>>,
}

/// A text of which lines may be shown.
#[derive(Debug)]
struct Shown {
    source: Arc<str>,
    text: String,
}

/// The section whose lines are shown with their problems. Others may hold passwords, and what is said of a
/// configuration stands in logs.
const SHOWN: &str = "logs";

/// More of a line than this is not shown, in characters.
const MAX_SHOWN: usize = 160;

// === impl Problems ===

impl Problems {
    /// Adds something that makes the configuration unusable. The same problem twice counts once.
    pub fn error(&mut self, problem: Problem) {
        if !self.errors.contains(&problem) {
            self.errors.push(problem);
        }
    }

    /// The text of a configuration file; one that cannot be read is a problem.
    pub fn read(&mut self, path: &Path) -> Option<String> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let message = format!("cannot read the configuration file {}: {error}", path.display());
            self.error(Problem { place: None, path: String::new(), message });
        });
        text.ok()
    }

    /// Adds something that the operator should know and that stops nothing.
    pub fn warn(&mut self, problem: Problem) {
        if !self.warnings.contains(&problem) {
            self.warnings.push(problem);
        }
    }

    /// Whether there is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// The warnings, or all errors.
    ///
    /// # Errors
    /// All errors, sorted by place.
    pub fn finish(mut self) -> Result<Vec<Problem>, ConfigError> {
        if self.errors.is_empty() {
            return Ok(self.warnings);
        }
        self.errors.sort();
        Err(ConfigError { problems: self.errors, shown: None })
    }
}

// === impl ConfigError ===

impl ConfigError {
    /// The same, with the lines of this text where they may be shown.
    #[must_use]
    pub fn showing(self, source: &str, text: String) -> Self {
        Self { shown: Some(Box::new(Shown { source: source.into(), text })), ..self }
    }
}

// === impl Shown ===

impl Shown {
    /// The line of a problem, with a caret below its column.
    fn excerpt(&self, problem: &Problem) -> Option<String> {
        let place = problem.place.as_ref().filter(|place| place.source == self.source)?;
        let section = problem.path.split('.').next()?;
        let line = self.text.lines().nth(place.line - 1).filter(|_| section == SHOWN)?;
        let visible = |character: char| if character.is_control() { ' ' } else { character };
        let line: String = line.trim_end().chars().take(MAX_SHOWN).map(visible).collect();
        (place.column <= line.chars().count()).then(|| format!("\n    | {line}\n    | {:>1$}", '^', place.column))
    }
}

// === impl Complaints ===

impl<'a> Complaints<'a> {
    /// Collects the problems of the entry at this place and path of keys.
    pub fn new(place: Option<Place>, path: String, problems: &'a mut Problems) -> Self {
        Self { place, path, problems, failed: false }
    }

    /// Adds a problem of this entry.
    pub fn say(&mut self, message: impl Into<String>) {
        self.failed = true;
        self.problems.error(Problem { place: self.place.clone(), path: self.path.clone(), message: message.into() });
    }

    /// Whether there was one.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.failed
    }

    /// The problems of the whole configuration, for the parts of this entry that have places of their own.
    pub fn whole(&mut self) -> &mut Problems {
        self.problems
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}", self.source, self.line, self.column)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(formatter, "{place}: ")?;
        }
        if !self.path.is_empty() {
            write!(formatter, "{}: ", self.path)?;
        }
        formatter.write_str(&self.message)
    }
}

fn lines(problems: &[Problem], shown: Option<&Shown>) -> String {
    let excerpt = |problem: &Problem| shown.and_then(|shown| shown.excerpt(problem)).unwrap_or_default();
    problems.iter().map(|problem| format!("  {problem}{}", excerpt(problem))).collect::<Vec<_>>().join("\n")
}
