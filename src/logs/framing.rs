//! What container runtimes and runners put around a line, and the parts that they cut long lines into. Pure.
//!
//! Each line is looked at by itself, so that one stream may mix them.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::logs::scanner::scan;
use crate::logs::sieve::Sifting;
use crate::logs::slot::{Kind, Slot, unescape};
use crate::logs::stack::Following;
use crate::logs::wanted::{SlotId, Wanted};

/// Prefixes that runners put before each line of a child: what is in the brackets before the id.
const PREFIXES: [&[u8]; 3] = [b"[agent ", b"[validate-doc ", b"[test "];
/// No id of a run is longer.
const MAX_ID: usize = 128;
/// Parts whose last one does not come for so long belong to a writer that died. A runtime writes all parts of a line at
/// once; Vector waits as long.
pub const PARTIAL_LIMIT: Duration = Duration::from_secs(30);
/// So much is held of unfinished lines, over all streams of a thread: 64 lines of the longest kind that was seen.
pub const MAX_HELD: usize = 16 * 1024 * 1024;

/// What a stream remembers between two lines.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Framing {
    /// The parts of a long line that have come, of standard output and of standard error.
    partials: [Partial; 2],
    /// What the next line may go on with.
    pub following: Following,
    /// How many of its lines have to be decoded.
    pub sifting: Sifting,
}

/// The parts of a line that have come.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Partial {
    bytes: Vec<u8>,
    too_long: bool,
    /// Since when no part has come, as far as somebody has looked.
    #[serde(skip)]
    since: Option<Instant>,
}

/// What a runtime's frame says of the line within it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frame {
    /// Whether it came from standard error.
    pub is_stderr: bool,
    /// Whether more of the line comes with the next frame of the same stream.
    pub is_partial: bool,
}

/// Reads frames of the docker driver json-file, whose lines are text within JSON.
#[derive(Clone, Debug)]
pub struct Docker {
    wanted: Wanted,
    slots: Vec<Slot>,
    log: SlotId,
    stream: SlotId,
}

/// A line that was put together.
#[derive(Debug)]
pub enum Joined {
    /// More of it has to come.
    NotYet,
    /// It is the last part, and there was no other.
    Whole,
    /// All parts of it.
    Parts(Vec<u8>),
    /// Its parts together were too long.
    TooLong,
}

// === impl Framing ===

impl Framing {
    /// Adds a part to its line. `held` is what all streams hold of unfinished lines, and is kept up.
    pub fn join(&mut self, frame: Frame, part: &[u8], max_line: usize, held: &mut usize) -> Joined {
        let partial = &mut self.partials[usize::from(frame.is_stderr)];
        if !frame.is_partial && partial.is_empty() {
            return Joined::Whole;
        }
        partial.since = None;
        if partial.bytes.len() + part.len() > max_line || *held + part.len() > MAX_HELD {
            partial.too_long = true;
            *held = held.saturating_sub(partial.bytes.len());
            partial.bytes = Vec::new();
        }
        if !partial.too_long {
            partial.bytes.extend_from_slice(part);
            *held += part.len();
        }
        if frame.is_partial {
            return Joined::NotYet;
        }
        let Partial { bytes, too_long, .. } = std::mem::take(partial);
        *held = held.saturating_sub(bytes.len());
        if too_long { Joined::TooLong } else { Joined::Parts(bytes) }
    }

    /// Gives up lines of which nothing has come for [`PARTIAL_LIMIT`]; to be asked every second or so. How many.
    pub fn expire(&mut self, now: Instant) -> u32 {
        let mut dropped = 0;
        for partial in self.partials.iter_mut().filter(|partial| !partial.is_empty()) {
            if now.saturating_duration_since(*partial.since.get_or_insert(now)) >= PARTIAL_LIMIT {
                *partial = Partial::default();
                dropped += 1;
            }
        }
        dropped
    }

    /// Gives up all unfinished lines, because nothing more will come. How many.
    pub fn give_up(&mut self) -> u32 {
        let pending = self.partials.iter().filter(|partial| !partial.is_empty()).count();
        self.partials = <[Partial; 2]>::default();
        u32::try_from(pending).unwrap_or(0)
    }

    /// Whether parts of a line wait for the rest.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.partials.iter().any(|partial| !partial.is_empty())
    }

    /// How many bytes of unfinished lines are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.partials.iter().map(|partial| partial.bytes.len()).sum()
    }

    /// Takes what the file before this one left over: a line may begin in the one and end in the other.
    pub fn inherit(&mut self, before: &mut Self) {
        *self = std::mem::take(before);
    }
}

// === impl Partial ===

impl Partial {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.too_long
    }
}

// === impl Docker ===

impl Docker {
    /// Prepares the reader.
    #[must_use]
    pub fn new() -> Self {
        let mut wanted = Wanted::new();
        let (log, stream) = (wanted.want(&["log"]), wanted.want(&["stream"]));
        Self { slots: vec![Slot::default(); wanted.slots()], wanted, log, stream }
    }

    /// Takes a line out of its frame, into `inner`. `None` where it is not of this driver, which always writes `log`
    /// first and always says of which stream the line is.
    pub fn parse(&mut self, line: &[u8], inner: &mut Vec<u8>) -> Option<Frame> {
        if !line.starts_with(b"{\"log\":\"") || scan(&self.wanted, line, &mut self.slots).is_err() {
            return None;
        }
        let (log, stream) = (self.slots[self.log], self.slots[self.stream]);
        if !matches!(log.kind, Kind::Text | Kind::Escaped) || stream.kind != Kind::Text {
            return None;
        }
        let is_stderr = match stream.raw(line) {
            b"stdout" => false,
            b"stderr" => true,
            _ => return None,
        };
        inner.clear();
        unescape(log.raw(line), inner);
        let is_partial = inner.last() != Some(&b'\n');
        if !is_partial {
            inner.pop();
        }
        Some(Frame { is_stderr, is_partial })
    }
}

impl Default for Docker {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes a line out of a frame of the Container Runtime Interface: `<time> stdout|stderr P|F <line>`.
#[must_use]
pub fn cri(line: &[u8]) -> Option<(Frame, &[u8])> {
    // The shortest time that runtimes write is `2026-04-04T09:00:01Z`.
    if line.len() < 30 || line[4] != b'-' || line[10] != b'T' {
        return None;
    }
    let (_, rest) = split_space(line)?;
    let (stream, rest) = split_space(rest)?;
    let is_stderr = match stream {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    // A line that is empty may end behind its tag.
    let (tags, rest) = split_space(rest).unwrap_or((rest, &[]));
    let is_partial = match tags.split(|byte| *byte == b':').next() {
        Some(b"P") => true,
        Some(b"F") => false,
        _ => return None,
    };
    Some((Frame { is_stderr, is_partial }, rest))
}

/// Takes off `[agent <id>] `: the id, and what is behind it.
#[must_use]
pub fn prefix(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = PREFIXES.iter().find_map(|prefix| line.strip_prefix(*prefix))?;
    let end = memchr::memchr(b']', &rest[..rest.len().min(MAX_ID)])?;
    let behind = &rest[end + 1..];
    // A blank line has lost the blank behind the bracket on some ways.
    let behind = if behind.is_empty() { behind } else { behind.strip_prefix(b" ")? };
    (end > 0).then_some((&rest[..end], behind))
}

fn split_space(line: &[u8]) -> Option<(&[u8], &[u8])> {
    memchr::memchr(b' ', line).map(|space| (&line[..space], &line[space + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cri_frames_are_taken_off() {
        let full = Frame { is_stderr: true, is_partial: false };
        let part = Frame { is_stderr: false, is_partial: true };
        for (line, expected) in [
            ("2026-04-04T09:00:01.733456789Z stderr F {\"a\":1}", Some((full, "{\"a\":1}"))),
            ("2026-04-04T09:00:01.733456789+02:00 stdout P:x {\"a\"", Some((part, "{\"a\""))),
            ("2026-04-04T09:00:01.733456789Z stderr F ", Some((full, ""))),
            ("2026-04-04T09:00:01.733456789Z stderr F", Some((full, ""))),
            ("2026-04-04T09:00:01.733456789Z stdin F x", None),
            ("2026-04-04T09:00:01.733456789Z stderr X x", None),
            ("2026/04/04 09:00:00 http: panic serving 1.2.3.4:5", None),
            ("2026-04-04T09:00:01.733Z\tINFO\tx", None),
            ("", None),
        ] {
            assert_eq!(cri(line.as_bytes()), expected.map(|(frame, rest)| (frame, rest.as_bytes())), "{line}");
        }
    }

    #[test]
    fn docker_frames_are_taken_off() {
        let mut docker = Docker::new();
        let mut check = |line: &str, expected: Option<(Frame, &str)>| {
            let mut inner = Vec::new();
            let frame = docker.parse(line.as_bytes(), &mut inner);
            assert_eq!(
                frame.map(|frame| (frame, String::from_utf8_lossy(&inner).into_owned())),
                expected.map(|(frame, text)| (frame, text.to_owned()))
            );
        };
        let frame = Frame { is_stderr: true, is_partial: false };
        check(r#"{"log":"{\"a\":\"\\n\"}\n","stream":"stderr","time":"2026-04-04T09:00:01Z"}"#, Some((frame, r#"{"a":"\n"}"#)));
        check(r#"{"log":"part","stream":"stdout","time":"t"}"#, Some((Frame { is_stderr: false, is_partial: true }, "part")));
        check(r#"{"log":"x\n","stream":"other"}"#, None);
        check(r#"{"log":"x\n","stream":"stdout""#, None);
        check(r#"{"message":"x"}"#, None);
    }

    #[test]
    fn parts_are_joined_for_each_stream_and_bounded() {
        let (out, err) = (Frame { is_stderr: false, is_partial: true }, Frame { is_stderr: true, is_partial: true });
        let last = |frame: Frame| Frame { is_partial: false, ..frame };
        let (mut framing, mut held) = (Framing::default(), 0);
        let mut join = |framing: &mut Framing, frame, part: &[u8]| framing.join(frame, part, 8, &mut held);
        assert!(matches!(join(&mut framing, last(out), b"whole"), Joined::Whole));
        assert!(matches!(join(&mut framing, out, b"ab"), Joined::NotYet));
        assert!(matches!(join(&mut framing, err, b"12"), Joined::NotYet));
        assert_eq!(framing.held(), 4);
        assert!(matches!(join(&mut framing, last(out), b"cd"), Joined::Parts(bytes) if bytes == b"abcd"));
        assert!(matches!(join(&mut framing, last(err), b"34"), Joined::Parts(bytes) if bytes == b"1234"));
        for _ in 0..1000 {
            assert!(matches!(join(&mut framing, out, b"abcdefg"), Joined::NotYet));
            assert!(framing.held() <= 8);
        }
        assert!(matches!(join(&mut framing, last(out), b""), Joined::TooLong));
        assert!(matches!(join(&mut framing, last(out), b"next"), Joined::Whole));
        assert_eq!(held, 0);
    }

    #[test]
    fn unfinished_lines_of_all_streams_together_are_bounded() {
        let part = Frame { is_stderr: false, is_partial: true };
        let (mut streams, mut held) = (vec![Framing::default(); 64], 0);
        for framing in &mut streams {
            framing.join(part, &vec![b'x'; 1024 * 1024], 2 * 1024 * 1024, &mut held);
        }
        assert_eq!(streams.iter().map(Framing::held).sum::<usize>(), MAX_HELD);
        assert_eq!(held, MAX_HELD);
    }

    #[test]
    fn a_part_whose_end_never_comes_is_given_up() {
        let part = Frame { is_stderr: false, is_partial: true };
        let (mut framing, mut held, start) = (Framing::default(), 0, Instant::now());
        framing.join(part, b"a", 8, &mut held);
        assert_eq!((framing.expire(start), framing.expire(start + PARTIAL_LIMIT / 2)), (0, 0));
        framing.join(part, b"b", 8, &mut held);
        assert_eq!((framing.expire(start + PARTIAL_LIMIT), framing.is_pending()), (0, true));
        assert_eq!((framing.expire(start + 2 * PARTIAL_LIMIT), framing.is_pending()), (1, false));
        assert_eq!(framing.expire(start + 4 * PARTIAL_LIMIT), 0);
    }

    #[test]
    fn a_prefix_has_an_id() {
        for (line, expected) in [
            ("[agent 20260404T090512.123Z] {}", Some(("20260404T090512.123Z", "{}"))),
            ("[agent x]", Some(("x", ""))),
            ("[validate-doc 7] text", Some(("7", "text"))),
            ("[agent ] x", None),
            ("[agent x]y", None),
            ("[agent x", None),
            ("[notify] slack", None),
        ] {
            assert_eq!(prefix(line.as_bytes()), expected.map(|(id, rest)| (id.as_bytes(), rest.as_bytes())), "{line}");
        }
    }
}
