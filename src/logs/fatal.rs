//! Lines by which a program says that it cannot go on, one by one, for whoever wants to hear of each.
//!
//! Where nobody does, this costs nothing. Otherwise each line is searched for the words that such levels have, and one that
//! has one is decoded once more to know its level. What is read again after a crash is told again, with the same place.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aho_corasick::AhoCorasick;
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::clock::Now;
use crate::config::logs::Logs;
use crate::event::FatalLine;
use crate::logs::engine::LogsError;
use crate::logs::explain::Explainer;

/// What the names of such levels have in them, in any case; 60 is pino's.
const WORDS: [&str; 8] = ["fatal", "panic", "crit", "emerg", "alert", ":60", ": 60", "=60"];
/// So many wait until they are taken.
const WAITING: usize = 256;
/// So many of a buffer are looked at, and so much of a line.
const MOST_OF_A_BUFFER: usize = 32;
const LONGEST: usize = 16 * 1024;
/// What is older is history: a log that is read from its begin for the first time tells nobody.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// Finds lines that may be such, while they are counted.
#[derive(Clone, Debug)]
pub struct Finder(Arc<AhoCorasick>);

/// Lines of a buffer that may be such, and where they begin in it.
pub type Candidates = Vec<(usize, Vec<u8>)>;

/// Tells of those that are.
#[derive(Debug)]
pub struct FatalLines {
    examiner: Mutex<Explainer>,
    sender: mpsc::Sender<FatalLine>,
}

// === impl Finder ===

impl Finder {
    /// `None` never happens with these words.
    #[must_use]
    pub fn new() -> Option<Self> {
        AhoCorasick::builder().ascii_case_insensitive(true).build(WORDS).ok().map(|finder| Self(Arc::new(finder)))
    }

    /// Keeps a line that may be such.
    #[inline]
    pub fn look(&self, line: &[u8], at: usize, candidates: &mut Candidates) {
        if candidates.len() < MOST_OF_A_BUFFER && self.0.is_match(line) {
            candidates.push((at, line[..line.len().min(LONGEST)].to_vec()));
        }
    }
}

// === impl FatalLines ===

impl FatalLines {
    /// Both ends.
    ///
    /// # Errors
    /// None: there are no rules that could contradict each other.
    pub fn new(config: &Logs) -> Result<(Self, mpsc::Receiver<FatalLine>), LogsError> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let examiner = Explainer::new(&Logs { rules: Vec::new(), ..config.clone() })?;
        Ok((Self { examiner: Mutex::new(examiner), sender }, receiver))
    }

    /// Tells of those among these that are such. `base` is where the buffer's bytes begin in the source.
    pub fn tell(&self, candidates: Candidates, input: &str, source: &str, base: u64) {
        let now = Now::read().wall;
        for (at, line) in candidates {
            let found = self.examine(&line).filter(|found| found.time.is_none_or(|time| is_recent(time, now)));
            let Some(found) = found else { continue };
            let line = FatalLine { input: input.to_owned(), source: source.to_owned(), offset: base + at as u64, ..found };
            if self.sender.try_send(line).is_err() {
                tracing::warn!(input, source, "a fatal line is not told of: too many wait");
            }
        }
    }

    fn examine(&self, line: &[u8]) -> Option<FatalLine> {
        let mut found = None;
        let mut examiner = self.examiner.lock().unwrap_or_else(PoisonError::into_inner);
        // Memory can be read.
        let _ = examiner.stream(line, |explanation| {
            let Some(record) = &explanation.seen.record else { return Ok(()) };
            let common = |wanted: &str| record.common.iter().find(|(name, _)| *name == wanted).map(|(_, text)| text.as_str());
            if common("level") == Some("fatal") {
                found = Some(FatalLine {
                    input: String::new(),
                    source: String::new(),
                    offset: 0,
                    time: common("time").and_then(|millis| Timestamp::from_millisecond(millis.parse().ok()?).ok()),
                    message: common("message").unwrap_or_default().to_owned(),
                    fields: record.fields.clone(),
                });
            }
            Ok(())
        });
        found
    }
}

fn is_recent(time: Timestamp, now: Timestamp) -> bool {
    time > now || now.duration_since(time).as_millis().unsigned_abs() <= MAX_AGE.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::environment::Environment;
    use crate::config::{Request, load};

    fn found(lines: &[&str]) -> Vec<FatalLine> {
        let request = Request { text: Some("profile: none\n"), ..Request::default() };
        let config = load(&request, &Environment::default()).unwrap().logs;
        let (fatal, mut receiver) = FatalLines::new(&config).unwrap();
        let mut candidates = Vec::new();
        for (number, line) in lines.iter().enumerate() {
            Finder::new().unwrap().look(line.as_bytes(), number, &mut candidates);
        }
        fatal.tell(candidates, "agent", "/logs/agent.log", 100);
        std::iter::from_fn(|| receiver.try_recv().ok()).collect()
    }

    #[test]
    fn only_lines_whose_level_is_fatal_are_told() {
        let now = Timestamp::now();
        let fatal = format!(r#"{{"level":"FATAL","ts":"{now}","msg":"cannot go on","error":"disk full"}}"#);
        let lines = [
            fatal.as_str(),
            r#"{"level":"error","msg":"a fatal mistake"}"#,
            r#"{"level":60,"msg":"pino"}"#,
            r#"{"level":"fatal","ts":"2020-01-01T00:00:00Z","msg":"long ago"}"#,
            r#"2026-04-04T09:00:02.000000001Z stderr F {"level":"panic","msg":"in a frame"}"#,
            r#"{"level":"fatal" broken"#,
            "time=2999-01-01T00:00:00Z level=fatal msg=\"by a clock that is ahead\"",
            r#"{"level":"info","msg":"nothing"}"#,
        ];
        let found = found(&lines);
        let told: Vec<(&str, u64)> = found.iter().map(|line| (line.message.as_str(), line.offset)).collect();
        assert_eq!(told, [("cannot go on", 100), ("pino", 102), ("in a frame", 104), ("by a clock that is ahead", 106)]);
        assert_eq!(found[0].time.map(|time| time.as_millisecond()), Some(now.as_millisecond()));
        assert_eq!(found[0].fields["error"], "disk full");
        assert_eq!((found[0].input.as_str(), found[0].source.as_str()), ("agent", "/logs/agent.log"));
    }
}
