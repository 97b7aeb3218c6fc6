//! The last lines that told nothing, so that somebody can look at what is wrong with them. Bounded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::logs::fault::{Fault, Reason};

/// So many are kept.
const MAX_SAMPLES: usize = 64;
/// How much of a line is kept: this many bytes before the place and behind it.
const AROUND: usize = 80;

/// A line that told nothing.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Sample {
    /// The input that it came from.
    pub input: String,
    /// The file, or the other end of a connection.
    pub source: String,
    /// Where the line begins, in bytes from the begin of the file or the stream.
    pub offset: u64,
    /// The place within the line, in bytes, from 1.
    pub column: usize,
    /// Why it told nothing.
    pub reason: &'static str,
    /// The line around the place.
    pub excerpt: String,
}

/// The last of them, shared.
#[derive(Clone, Debug, Default)]
pub struct Samples(Arc<Mutex<VecDeque<Sample>>>);

/// A line of a buffer that told nothing, before it is known of which file the buffer is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// Where the line begins, in bytes from the begin of what the buffer goes on with.
    at: usize,
    fault: Fault,
    excerpt: Vec<u8>,
}

// === impl Found ===

impl Found {
    /// Keeps a part of the line.
    #[must_use]
    pub fn new(line: &[u8], at: usize, fault: Fault) -> Self {
        let begin = fault.at.saturating_sub(AROUND).min(line.len());
        let end = fault.at.saturating_add(AROUND).min(line.len());
        Self { at, fault, excerpt: line[begin..end].to_vec() }
    }
}

// === impl Samples ===

impl Samples {
    /// Keeps one. `base` is where the buffer's bytes begin in the source.
    pub fn keep(&self, found: Found, input: &str, source: String, base: u64) {
        let Found { at, fault: Fault { reason, at: before }, excerpt } = found;
        let mut samples = self.lock();
        if samples.len() == MAX_SAMPLES {
            samples.pop_front();
        }
        samples.push_back(Sample {
            input: input.to_owned(),
            source,
            offset: base + at as u64,
            column: before + 1,
            reason: Reason::name(reason),
            excerpt: String::from_utf8_lossy(&excerpt).into_owned(),
        });
    }

    /// All that are kept, the oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Sample> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
