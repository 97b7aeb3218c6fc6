//! Cuts a stream of bytes into lines, whatever the pieces are in which it comes.
//!
//! Lines within a piece are not copied; only the unterminated rest of a piece is, and never more than the longest
//! line. Pure.

/// What a stream has left over between two pieces.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    /// The begin of a line whose end has not come.
    rest: Vec<u8>,
    /// The line was too long: its remainder is passed over.
    pub skipping: bool,
}

/// What was found in the stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Piece<'a> {
    /// A line, without its end.
    Line(&'a [u8]),
    /// A line that is longer than allowed. It comes once, as soon as that is known.
    TooLong,
}

// === impl Lines ===

impl Lines {
    /// A stream that is taken up where it was left: within a line that is passed over, or at the begin of a line.
    #[must_use]
    pub fn at(skipping: bool) -> Self {
        Self { rest: Vec::new(), skipping }
    }

    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, mut bytes: &[u8], max_line: usize, mut found: impl FnMut(Piece<'_>)) {
        if self.skipping {
            let Some(end) = memchr::memchr(b'\n', bytes) else { return };
            self.skipping = false;
            bytes = &bytes[end + 1..];
        }
        if !self.rest.is_empty() {
            let end = memchr::memchr(b'\n', bytes);
            let more = &bytes[..end.unwrap_or(bytes.len())];
            if self.rest.len() + more.len() > max_line {
                self.rest = Vec::new();
                self.skipping = end.is_none();
                found(Piece::TooLong);
            } else {
                self.rest.extend_from_slice(more);
                if end.is_some() {
                    found(Piece::Line(&self.rest));
                    self.forget_rest();
                }
            }
            let Some(end) = end else { return };
            bytes = &bytes[end + 1..];
        }
        let mut begin = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let line = without_gap(&bytes[begin..end]);
            found(if line.len() > max_line { Piece::TooLong } else { Piece::Line(line) });
            begin = end + 1;
        }
        let rest = without_gap(&bytes[begin..]);
        if rest.len() > max_line {
            self.skipping = true;
            found(Piece::TooLong);
        } else {
            self.rest.extend_from_slice(rest);
        }
    }

    /// The begin of a line whose end has not come.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// The end of the stream: gives the unterminated line, and begins anew.
    pub fn finish(&mut self) -> Vec<u8> {
        self.skipping = false;
        std::mem::take(&mut self.rest)
    }

    /// The memory that is held between two pieces.
    #[cfg(test)]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.rest.capacity()
    }

    /// A long line must not keep its memory for as long as the file is open.
    fn forget_rest(&mut self) {
        if self.rest.capacity() > 64 * 1024 {
            self.rest = Vec::new();
        } else {
            self.rest.clear();
        }
    }
}

/// A gap that a writer without `O_APPEND` leaves after a truncation reads as zeros: no line begins with them.
fn without_gap(line: &[u8]) -> &[u8] {
    match line.first() {
        Some(0) => &line[line.iter().take_while(|byte| **byte == 0).count()..],
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 8;

    fn cut(pieces: &[&[u8]]) -> (Vec<String>, String) {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.feed(piece, MAX, |piece| {
                found.push(match piece {
                    Piece::Line(line) => String::from_utf8_lossy(line).into_owned(),
                    Piece::TooLong => "<too long>".to_owned(),
                });
            });
        }
        (found, String::from_utf8_lossy(&lines.finish()).into_owned())
    }

    #[test]
    fn lines_are_the_same_however_the_stream_is_cut() {
        let stream = b"one\n\n12345678\n123456789\nlong long long long\nlast\nrest";
        let expected = ["one", "", "12345678", "<too long>", "<too long>", "last"];
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let (found, rest) = cut(&[&stream[..first], &stream[first..second], &stream[second..]]);
                assert_eq!((found.as_slice(), rest.as_str()), (expected.map(str::to_owned).as_slice(), "rest"), "{first} {second}");
            }
        }
    }

    #[test]
    fn a_stream_without_a_line_end_is_held_in_flat_memory() {
        let (mut lines, mut count) = (Lines::default(), 0);
        for _ in 0..400 {
            lines.feed(&[b'x'; 256 * 1024], 1024 * 1024, |piece| {
                assert_eq!(piece, Piece::TooLong);
                count += 1;
            });
            assert!(lines.capacity() <= 2 * 1024 * 1024);
        }
        lines.feed(b"\nnext\n", 1024 * 1024, |piece| {
            assert_eq!(piece, Piece::Line(b"next"));
            count += 1;
        });
        assert_eq!((count, lines.capacity()), (2, 0));
    }

    #[test]
    fn a_gap_of_zeros_is_no_part_of_a_line() {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for _ in 0..100 {
            lines.feed(&[0; 4096], 1024, |_| panic!("no line has come"));
            assert_eq!(lines.capacity(), 0);
        }
        lines.feed(b"\0\0new\n", 1024, |piece| found.push(format!("{piece:?}")));
        assert_eq!(found, [format!("{:?}", Piece::Line(b"new"))]);
    }
}
