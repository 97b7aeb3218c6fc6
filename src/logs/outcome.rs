//! What became of lines, and how many of each there were in a buffer. Pure.

use crate::logs::fatal::Candidates;
use crate::logs::fault::{Fault, Oddities, Reason};
use crate::logs::samples::Found;

/// What became of a line. Each line has exactly one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The rules have seen it.
    Record,
    /// It belongs to the line before it, such as a frame of a stack trace.
    Continuation,
    /// It is text in no form that is known.
    Unstructured,
    /// It begins as JSON and is none.
    Malformed(Fault),
    /// It is longer than allowed, and was passed over.
    TooLong,
    /// There is nothing in it.
    Blank,
    /// It looks like JSON that no rule can match, and nobody has checked it.
    Skipped,
}

/// What a buffer had in it.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many lines of each outcome, in the order of [`Outcome::NAMES`].
    pub outcomes: [u32; Outcome::NAMES.len()],
    /// How many told nothing for each reason, in the order of [`Reason::ALL`].
    pub reasons: [u32; Reason::ALL.len()],
    /// How many counted although something was odd, in the order of [`Oddities::NAMES`].
    pub oddities: [u32; Oddities::NAMES.len()],
    /// Lines that could have been passed over and were decoded as samples: those that are whole, and those that are not.
    pub samples: [u32; 2],
    /// The last line that told nothing.
    pub found: Option<Found>,
    /// Lines that may be fatal, where somebody wants to hear of them.
    pub fatal: Candidates,
}

// === impl Outcome ===

impl Outcome {
    /// The values of the label `outcome`.
    pub const NAMES: [&'static str; 7] = ["record", "continuation", "unstructured", "malformed", "too_long", "blank", "skipped"];

    /// Its position in [`Outcome::NAMES`].
    #[must_use]
    pub fn number(self) -> usize {
        match self {
            Self::Record => 0,
            Self::Continuation => 1,
            Self::Unstructured => 2,
            Self::Malformed(_) => 3,
            Self::TooLong => 4,
            Self::Blank => 5,
            Self::Skipped => 6,
        }
    }
}

// === impl Tally ===

impl Tally {
    /// Counts a line that begins at byte `at` of what the buffer goes on with.
    #[inline]
    pub fn add(&mut self, outcome: Outcome, line: &[u8], at: usize) {
        self.outcomes[outcome.number()] += 1;
        match outcome {
            Outcome::Malformed(fault) => self.fault(fault, line, at),
            Outcome::TooLong => self.fault(Fault { reason: Reason::TooLong, at: 0 }, line, at),
            _ => {}
        }
    }

    /// Counts what was odd about a line that counted.
    #[inline]
    pub fn odd(&mut self, oddities: Oddities) {
        if !oddities.is_empty() {
            oddities.positions().for_each(|position| self.oddities[position] += 1);
        }
    }

    /// Counts lines of which only a part came.
    pub fn dropped(&mut self, count: u32) {
        self.reasons[Reason::PartialDropped as usize] += count;
    }

    #[cold]
    fn fault(&mut self, fault: Fault, line: &[u8], at: usize) {
        self.reasons[fault.reason as usize] += 1;
        self.found = Some(Found::new(line, at, fault));
    }
}
