//! One line in, its outcome out; the rules run on what it tells. Pure.
//!
//! The form of each line is found by its first bytes, so one stream may mix all of them. Knows nothing of files.

use crate::logs::console::Console;
use crate::logs::framing::{Docker, Frame, Framing, Joined, cri, prefix};
use crate::logs::record::{Line, Plan};
use crate::logs::scanner::scan;
use crate::logs::slot::Slot;
use crate::logs::stack::Following;
use crate::series::families::Families;
use crate::series::rules::RuleSet;

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
    Malformed,
    /// It is longer than allowed, and was passed over.
    TooLong,
    /// There is nothing in it.
    Blank,
}

/// Decodes lines and runs rules on them.
#[derive(Clone, Debug)]
pub struct Decoder {
    rules: RuleSet,
    plan: Plan,
    slots: Vec<Slot>,
    docker: Docker,
    /// The line within a docker frame.
    inner: Vec<u8>,
    max_line: usize,
}

// === impl Outcome ===

impl Outcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] = [Self::Record, Self::Continuation, Self::Unstructured, Self::Malformed, Self::TooLong, Self::Blank];

    /// The value of the label `outcome`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Continuation => "continuation",
            Self::Unstructured => "unstructured",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::Blank => "blank",
        }
    }
}

// === impl Decoder ===

impl Decoder {
    /// Prepares for rules. A line of parts may be as long as `max_line`.
    #[must_use]
    pub fn new(rules: RuleSet, max_line: usize) -> Self {
        let plan = Plan::new(rules.fields());
        Self { slots: vec![Slot::default(); plan.wanted.slots()], plan, rules, docker: Docker::new(), inner: Vec::new(), max_line }
    }

    /// Decodes a line. `None` where it is only a part of one, whose outcome comes with the last part.
    pub fn line(&mut self, line: &[u8], framing: &mut Framing, families: &mut Families) -> Option<Outcome> {
        let line = bare(line);
        match line.first() {
            Some(b'{') => {
                let mut inner = std::mem::take(&mut self.inner);
                let outcome = match self.docker.parse(line, &mut inner) {
                    Some(frame) => self.framed(frame, &inner, framing, families),
                    None => Some(self.json(line, None, framing, families)),
                };
                self.inner = inner;
                outcome
            }
            Some(b'0'..=b'9') => match cri(line) {
                Some((frame, rest)) => self.framed(frame, rest, framing, families),
                None => Some(self.body(line, framing, families)),
            },
            _ => Some(self.body(line, framing, families)),
        }
    }

    /// A part of a line, or all of it, that came in a runtime's frame.
    fn framed(&mut self, frame: Frame, part: &[u8], framing: &mut Framing, families: &mut Families) -> Option<Outcome> {
        match framing.join(frame, part, self.max_line) {
            Joined::NotYet => None,
            Joined::Whole => Some(self.body(bare(part), framing, families)),
            Joined::TooLong => Some(Outcome::TooLong),
            Joined::Parts(bytes) => {
                let outcome = self.body(bare(&bytes), framing, families);
                framing.give_back(frame, bytes);
                Some(outcome)
            }
        }
    }

    /// A line without a frame.
    fn body(&mut self, line: &[u8], framing: &mut Framing, families: &mut Families) -> Outcome {
        match prefix(line) {
            Some((agent, rest)) => self.text(bare(rest), Some(agent), framing, families),
            None => self.text(line, None, framing, families),
        }
    }

    fn text(&mut self, line: &[u8], agent: Option<&[u8]>, framing: &mut Framing, families: &mut Families) -> Outcome {
        if line.first() == Some(&b'{') {
            return self.json(line, agent, framing, families);
        }
        if line.trim_ascii().is_empty() {
            framing.following.blank();
            return Outcome::Blank;
        }
        if let Some(console) = Console::parse(line) {
            return self.console(console, agent, framing, families);
        }
        if framing.following.takes(line) { Outcome::Continuation } else { Outcome::Unstructured }
    }

    fn json(&mut self, line: &[u8], agent: Option<&[u8]>, framing: &mut Framing, families: &mut Families) -> Outcome {
        framing.following = Following::Nothing;
        if scan(&self.plan.wanted, line, &mut self.slots).is_err() {
            return Outcome::Malformed;
        }
        let record = Line { plan: &self.plan, json: line, slots: &self.slots, console: None, agent };
        self.rules.apply(&record, families);
        Outcome::Record
    }

    fn console(&mut self, mut console: Console<'_>, agent: Option<&[u8]>, framing: &mut Framing, families: &mut Families) -> Outcome {
        framing.following = if console.is_error() { Following::Trace } else { Following::Nothing };
        if console.fields.is_empty() {
            self.slots.fill(Slot::default());
        } else if scan(&self.plan.wanted, console.fields, &mut self.slots).is_err() {
            // A message may hold a tab and a brace; what begins as fields do is broken JSON.
            if console.fields.starts_with(b"{\"") {
                return Outcome::Malformed;
            }
            console = console.without_fields();
            self.slots.fill(Slot::default());
        }
        let record = Line { plan: &self.plan, json: console.fields, slots: &self.slots, console: Some(console), agent };
        self.rules.apply(&record, families);
        Outcome::Record
    }
}

/// A line without what surrounds it: a byte order mark, zeros before it, a carriage return and blanks behind it.
fn bare(line: &[u8]) -> &[u8] {
    let mut line = line;
    while let [0, rest @ ..] | [0xEF, 0xBB, 0xBF, rest @ ..] = line {
        line = rest;
    }
    while let [rest @ .., b'\r' | b' ' | 0] = line {
        line = rest;
    }
    line
}

#[cfg(test)]
#[path = "decoder_tests.rs"]
mod tests;
