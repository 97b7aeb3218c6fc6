//! One line in, its outcome out; the rules run on what it tells. Pure.
//!
//! The form of each line is found by its first bytes, so one stream may mix all of them. Knows nothing of files.

use crate::logs::console::Console;
use crate::logs::fatal::Finder;
use crate::logs::fault::{Fault, Oddities};
use crate::logs::framing::{Docker, Frame, Framing, Joined, cri, prefix};
use crate::logs::lines::{Lines, Piece};
use crate::logs::outcome::{Outcome, Tally};
use crate::logs::record::{Line, Plan};
use crate::logs::scanner::scan;
use crate::logs::seen::Seen;
use crate::logs::sieve::{Cursor, Glance, Pass, Sieve};
use crate::logs::slot::Slot;
use crate::logs::stack::Following;
use crate::logs::text::{Text, ansi, grammar};
use crate::series::families::Families;
use crate::series::rules::RuleSet;

/// Decodes lines and runs rules on them.
#[derive(Clone, Debug)]
pub struct Decoder {
    rules: RuleSet,
    plan: Plan,
    slots: Vec<Slot>,
    docker: Docker,
    /// The line within a docker frame.
    inner: Vec<u8>,
    /// The line without its colours.
    bare: Vec<u8>,
    max_line: usize,
    /// What all streams hold of unfinished lines, in bytes.
    held: usize,
    /// What is odd about the line.
    oddities: Oddities,
    /// Where lines that no rule can match need not be decoded.
    sieve: Option<Sieve>,
    /// What was seen in the line before it is decoded.
    glance: Glance,
    /// The line has been decoded as a sample.
    is_sample: bool,
    /// What was seen in the line, where somebody asks for it.
    seen: Option<Box<Seen>>,
    /// Finds lines that may be fatal, where somebody wants to hear of them.
    finder: Option<Finder>,
}

/// Where a line stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// All of it, with what runners put before it.
    whole: &'a [u8],
    /// The id in a prefix `[agent <id>] `.
    agent: Option<&'a [u8]>,
}

// === impl Decoder ===

impl Decoder {
    /// Prepares for rules. A line, and one of parts, may be as long as `max_line`.
    #[must_use]
    pub fn new(rules: RuleSet, max_line: usize) -> Self {
        let plan = Plan::new(rules.fields());
        Self {
            slots: vec![Slot::default(); plan.wanted.slots()],
            plan,
            rules,
            docker: Docker::new(),
            inner: Vec::new(),
            bare: Vec::new(),
            max_line,
            held: 0,
            oddities: Oddities::default(),
            sieve: None,
            glance: Glance::None,
            is_sample: false,
            seen: None,
            finder: None,
        }
    }

    /// Passes over lines of JSON to which no rule can apply, without a check of what is in them. Has no effect where a
    /// rule may apply to any line.
    ///
    /// # Errors
    /// The metric of such a rule; empty where there are more texts to be looked for than can be fast.
    pub fn skip(&mut self) -> Result<(), &str> {
        let texts = self.rules.literals(|field| !matches!(field, "time" | "level"))?;
        self.sieve = Sieve::new(&texts);
        if self.sieve.is_some() { Ok(()) } else { Err("") }
    }

    /// Cuts the next bytes of a stream into lines, and counts those that end in them.
    pub fn feed(&mut self, bytes: &[u8], lines: &mut Lines, framing: &mut Framing, families: &mut Families) -> Tally {
        let (mut tally, mut cursor) = (Tally::default(), Cursor::default());
        lines.feed(bytes, self.max_line, |piece, begin| {
            if begin.has_gap {
                self.oddities.add(Oddities::ZEROS);
            }
            if let (Some(sieve), Piece::Line(line), true) = (&self.sieve, piece, framing.sifting.is_on()) {
                // A line whose begin came with the bytes before these is not among them.
                let at = line.first().and_then(|first| bytes.element_offset(first));
                self.glance = sieve.glance(line, bytes, at, &mut cursor);
            }
            match piece {
                Piece::Line(line) => self.count(line, begin.at, framing, families, &mut tally),
                Piece::TooLong => {
                    tally.add(Outcome::TooLong, b"", begin.at);
                    tally.odd(std::mem::take(&mut self.oddities));
                }
            }
        });
        tally
    }

    /// Counts the last line of a stream, if that has no end.
    pub fn finish(&mut self, lines: &mut Lines, framing: &mut Framing, families: &mut Families) -> Tally {
        let mut tally = Tally::default();
        let line = lines.finish();
        if !line.is_empty() {
            self.count(&line, 0, framing, families, &mut tally);
        }
        tally
    }

    /// Keeps lines that may be fatal from now on.
    pub fn look_for_fatal(&mut self) {
        self.finder = Finder::new();
    }

    /// Remembers from now on what is seen in a line.
    pub fn watch(&mut self) {
        self.seen = Some(Box::default());
    }

    /// What was seen since this was asked last; nothing unless [`Decoder::watch`] was called.
    pub fn take_seen(&mut self) -> Seen {
        self.seen.as_deref_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Runs other rules from the next line on.
    pub fn take_rules_of(&mut self, other: Self) {
        *self = Self { held: self.held, seen: self.seen.take(), finder: self.finder.take(), ..other };
    }

    /// Says how much all streams together hold of unfinished lines; the decoder keeps up what it sees itself.
    pub fn set_held(&mut self, bytes: usize) {
        self.held = bytes;
    }

    #[inline]
    fn count(&mut self, line: &[u8], at: usize, framing: &mut Framing, families: &mut Families, tally: &mut Tally) {
        if let Some(outcome) = self.line(line, framing, families) {
            tally.add(outcome, line, at);
            if let (Some(finder), Outcome::Record | Outcome::Skipped) = (&self.finder, outcome) {
                finder.look(line, at, &mut tally.fatal);
            }
            if std::mem::take(&mut self.is_sample) {
                let is_wrong = matches!(outcome, Outcome::Malformed(_));
                tally.samples[usize::from(is_wrong)] += 1;
                if is_wrong {
                    framing.sifting.distrust();
                }
            }
        }
        self.glance = Glance::None;
        tally.odd(std::mem::take(&mut self.oddities));
    }

    /// Decodes a line. `None` where it is only a part of one, whose outcome comes with the last part.
    pub fn line(&mut self, line: &[u8], framing: &mut Framing, families: &mut Families) -> Option<Outcome> {
        let whole = line;
        let line = self.bare(line);
        if line.first() != Some(&b'{') {
            // Of a line that is JSON the scanner says so.
            self.check_utf8(line);
        }
        match line.first() {
            Some(b'{') => {
                let mut inner = std::mem::take(&mut self.inner);
                let outcome = match self.docker.parse(line, &mut inner) {
                    Some(frame) => {
                        self.check_utf8(line);
                        self.saw_frame("docker", frame);
                        self.framed(frame, &inner, &inner, framing, families)
                    }
                    None => Some(self.json(line, Place { whole, agent: None }, framing, families)),
                };
                self.inner = inner;
                outcome
            }
            Some(b'0'..=b'9') => match cri(line) {
                Some((frame, rest)) => {
                    self.saw_frame("CRI", frame);
                    self.framed(frame, rest, whole, framing, families)
                }
                None => Some(self.body(line, whole, framing, families)),
            },
            _ => Some(self.body(line, whole, framing, families)),
        }
    }

    /// A part of a line, or all of it, that came in a runtime's frame.
    fn framed(&mut self, frame: Frame, part: &[u8], whole: &[u8], framing: &mut Framing, families: &mut Families) -> Option<Outcome> {
        match framing.join(frame, part, self.max_line, &mut self.held) {
            Joined::NotYet => None,
            Joined::Whole => Some(self.body(part, whole, framing, families)),
            Joined::TooLong => Some(Outcome::TooLong),
            Joined::Parts(bytes) => {
                // What was seen is the last part alone.
                self.glance = Glance::None;
                Some(self.body(&bytes, &bytes, framing, families))
            }
        }
    }

    /// A line without a frame.
    fn body(&mut self, line: &[u8], whole: &[u8], framing: &mut Framing, families: &mut Families) -> Outcome {
        let line = self.bare(line);
        match prefix(line) {
            Some((agent, rest)) => {
                let rest = self.bare(rest);
                if let Some(seen) = &mut self.seen {
                    seen.layers.push("prefix".to_owned());
                }
                self.text(rest, Place { whole, agent: Some(agent) }, framing, families)
            }
            None => self.text(line, Place { whole, agent: None }, framing, families),
        }
    }

    fn text(&mut self, line: &[u8], place: Place<'_>, framing: &mut Framing, families: &mut Families) -> Outcome {
        if line.first() == Some(&b'{') {
            return self.json(line, place, framing, families);
        }
        if ansi::is_coloured(line) {
            let mut bare = std::mem::take(&mut self.bare);
            ansi::strip(line, &mut bare);
            // A colour may stand within a word.
            self.glance = Glance::None;
            let outcome = self.text(bare.trim_ascii_end(), Place { whole: &bare, ..place }, framing, families);
            self.bare = bare;
            return outcome;
        }
        if line.trim_ascii().is_empty() {
            framing.following.blank();
            return Outcome::Blank;
        }
        if let Some(console) = Console::parse(line) {
            return self.console(console, place, framing, families);
        }
        if let Some(text) = grammar::parse(line) {
            framing.following = Following::Nothing;
            return self.record(&text, b"", place, families);
        }
        if framing.following.takes(line) { Outcome::Continuation } else { Outcome::Unstructured }
    }

    /// A line of text; its fields as JSON have been scanned, if it has any.
    fn record(&mut self, text: &Text<'_>, json: &[u8], place: Place<'_>, families: &mut Families) -> Outcome {
        if json.is_empty() {
            self.slots.fill(Slot::default());
        }
        let record = Line { plan: &self.plan, json, slots: &self.slots, text: Some(text), agent: place.agent };
        if let Some(seen) = &mut self.seen {
            seen.record(&record, &self.rules);
        }
        self.rules.apply(&record, families);
        Outcome::Record
    }

    fn json(&mut self, line: &[u8], place: Place<'_>, framing: &mut Framing, families: &mut Families) -> Outcome {
        framing.following = Following::Nothing;
        if self.sieve.is_some() {
            match framing.sifting.decide(self.glance) {
                Pass::Skip => return Outcome::Skipped,
                pass => self.is_sample = pass == Pass::Sample,
            }
        }
        match scan(&self.plan.wanted, line, &mut self.slots) {
            Ok(oddities) => self.oddities.add(oddities),
            Err(fault) => {
                self.check_utf8(line);
                return place.malformed(line, fault);
            }
        }
        let record = Line { plan: &self.plan, json: line, slots: &self.slots, text: None, agent: place.agent };
        if let Some(seen) = &mut self.seen {
            seen.record(&record, &self.rules);
        }
        self.rules.apply(&record, families);
        Outcome::Record
    }

    fn console(&mut self, mut console: Console<'_>, place: Place<'_>, framing: &mut Framing, families: &mut Families) -> Outcome {
        framing.following = if console.is_error() { Following::Trace } else { Following::Nothing };
        if !console.fields.is_empty() {
            match scan(&self.plan.wanted, console.fields, &mut self.slots) {
                Ok(oddities) => self.oddities.add(oddities),
                // A message may hold a tab and a brace; what begins as fields do is broken JSON.
                Err(fault) if console.fields.starts_with(b"{\"") => return place.malformed(console.fields, fault),
                Err(_) => console = console.without_fields(),
            }
        }
        self.record(&Text::from(console), console.fields, place, families)
    }

    fn saw_frame(&mut self, runtime: &str, frame: Frame) {
        if let Some(seen) = &mut self.seen {
            seen.frame(runtime, frame);
        }
    }

    fn check_utf8(&mut self, line: &[u8]) {
        if !line.is_ascii() && std::str::from_utf8(line).is_err() {
            self.oddities.add(Oddities::BAD_UTF8);
        }
    }

    /// A line without what surrounds it: a byte order mark, zeros before it, a carriage return and blanks behind it.
    #[inline]
    fn bare<'a>(&mut self, line: &'a [u8]) -> &'a [u8] {
        match line {
            [0 | 0xEF, ..] | [.., b'\r' | b' ' | 0] => self.strip(line),
            _ => line,
        }
    }

    #[cold]
    fn strip<'a>(&mut self, mut line: &'a [u8]) -> &'a [u8] {
        loop {
            let (rest, oddity) = match line {
                [0, rest @ ..] | [rest @ .., 0] => (rest, Oddities::ZEROS),
                [0xEF, 0xBB, 0xBF, rest @ ..] => (rest, Oddities::BYTE_ORDER_MARK),
                [rest @ .., b'\r'] => (rest, Oddities::CARRIAGE_RETURN),
                [rest @ .., b' '] => (rest, Oddities::default()),
                _ => return line,
            };
            self.oddities.add(oddity);
            line = rest;
        }
    }
}

// === impl Place ===

impl Place<'_> {
    /// A fault in a part of the line, as one of the whole line.
    #[cold]
    fn malformed(&self, part: &[u8], fault: Fault) -> Outcome {
        let before = part.first().and_then(|first| self.whole.element_offset(first)).unwrap_or(0);
        Outcome::Malformed(Fault { at: before + fault.at, ..fault })
    }
}

#[cfg(test)]
#[path = "decoder_tests.rs"]
mod tests;
