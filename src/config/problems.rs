//! What is wrong with a configuration: all of it at once, each with its place.

use std::fmt;
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
#[derive(Debug, thiserror::Error)]
#[error("the configuration has {} problem{}:\n{}", .0.len(), if .0.len() == 1 { "" } else { "s" }, lines(.0))]
pub struct ConfigError(pub Vec<Problem>);

// === impl Problems ===

impl Problems {
    /// Adds something that makes the configuration unusable. The same problem twice counts once.
    pub fn error(&mut self, problem: Problem) {
        if !self.errors.contains(&problem) {
            self.errors.push(problem);
        }
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
        Err(ConfigError(self.errors))
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

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n")
}
