//! What container runtimes and runners put around a line, and the parts that they cut long lines into. Pure.
//!
//! Each line is looked at by itself, so that one stream may mix them.

use serde::{Deserialize, Serialize};

use crate::logs::scanner::scan;
use crate::logs::slot::{Kind, Slot, unescape};
use crate::logs::stack::Following;
use crate::logs::wanted::{SlotId, Wanted};

/// Prefixes that runners put before each line of a child: what is in the brackets before the id.
const PREFIXES: [&[u8]; 3] = [b"[agent ", b"[validate-doc ", b"[test "];
/// No id of a run is longer.
const MAX_ID: usize = 128;

/// What a stream remembers between two lines.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Framing {
    /// The parts of a long line that have come, of standard output and of standard error.
    partials: [Partial; 2],
    /// What the next line may go on with.
    pub following: Following,
}

/// The parts of a line that have come.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Partial {
    bytes: Vec<u8>,
    too_long: bool,
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
    /// All parts of it; give the memory back by [`Framing::give_back`].
    Parts(Vec<u8>),
    /// Its parts together were too long.
    TooLong,
}

// === impl Framing ===

impl Framing {
    /// Adds a part to its line.
    pub fn join(&mut self, frame: Frame, part: &[u8], max_line: usize) -> Joined {
        let partial = &mut self.partials[usize::from(frame.is_stderr)];
        if !frame.is_partial && partial.bytes.is_empty() && !partial.too_long {
            return Joined::Whole;
        }
        if partial.bytes.len() + part.len() > max_line {
            partial.too_long = true;
            partial.bytes = Vec::new();
        }
        if !partial.too_long {
            partial.bytes.extend_from_slice(part);
        }
        if frame.is_partial {
            return Joined::NotYet;
        }
        if std::mem::take(&mut partial.too_long) { Joined::TooLong } else { Joined::Parts(std::mem::take(&mut partial.bytes)) }
    }

    /// Keeps the memory of a joined line for the next one, if it is not much.
    pub fn give_back(&mut self, frame: Frame, mut bytes: Vec<u8>) {
        if bytes.capacity() <= 64 * 1024 {
            bytes.clear();
            self.partials[usize::from(frame.is_stderr)].bytes = bytes;
        }
    }

    /// Takes what the file before this one left over: a line may begin in the one and end in the other.
    pub fn inherit(&mut self, before: &mut Self) {
        *self = std::mem::take(before);
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
        let mut framing = Framing::default();
        assert!(matches!(framing.join(last(out), b"whole", 8), Joined::Whole));
        assert!(matches!(framing.join(out, b"ab", 8), Joined::NotYet));
        assert!(matches!(framing.join(err, b"12", 8), Joined::NotYet));
        assert!(matches!(framing.join(last(out), b"cd", 8), Joined::Parts(bytes) if bytes == b"abcd"));
        assert!(matches!(framing.join(last(err), b"34", 8), Joined::Parts(bytes) if bytes == b"1234"));
        for _ in 0..1000 {
            assert!(matches!(framing.join(out, b"abcdefg", 8), Joined::NotYet));
            assert!(framing.partials[0].bytes.capacity() <= 16);
        }
        assert!(matches!(framing.join(last(out), b"", 8), Joined::TooLong));
        assert!(matches!(framing.join(last(out), b"next", 8), Joined::Whole));
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
