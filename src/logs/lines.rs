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
    /// Zeros before the line have been passed over.
    has_gap: bool,
}

/// How a line begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Begin {
    /// Where, in bytes from the begin of what had been held back.
    pub at: usize,
    /// Zeros before it have been passed over.
    pub has_gap: bool,
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
        Self { rest: Vec::new(), skipping, has_gap: false }
    }

    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8], max_line: usize, mut found: impl FnMut(Piece<'_>, Begin)) {
        let held = self.rest.len();
        let mut begin = 0;
        if self.skipping {
            let Some(end) = memchr::memchr(b'\n', bytes) else { return };
            self.skipping = false;
            begin = end + 1;
        }
        if held > 0 {
            let end = memchr::memchr(b'\n', bytes);
            let more = &bytes[..end.unwrap_or(bytes.len())];
            if held + more.len() > max_line {
                self.rest = Vec::new();
                self.skipping = end.is_none();
                found(Piece::TooLong, Begin { at: 0, has_gap: std::mem::take(&mut self.has_gap) });
            } else {
                self.rest.extend_from_slice(more);
                if end.is_some() {
                    found(Piece::Line(&self.rest), Begin { at: 0, has_gap: std::mem::take(&mut self.has_gap) });
                    self.forget_rest();
                }
            }
            let Some(end) = end else { return };
            begin = end + 1;
        }
        let first = begin;
        for end in memchr::memchr_iter(b'\n', &bytes[first..]) {
            let end = first + end;
            let line = self.without_gap(&bytes[begin..end]);
            let has_gap = std::mem::take(&mut self.has_gap);
            found(if line.len() > max_line { Piece::TooLong } else { Piece::Line(line) }, Begin { at: held + begin, has_gap });
            begin = end + 1;
        }
        let rest = self.without_gap(&bytes[begin..]);
        if rest.len() > max_line {
            self.skipping = true;
            found(Piece::TooLong, Begin { at: held + begin, has_gap: std::mem::take(&mut self.has_gap) });
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
        (self.skipping, self.has_gap) = (false, false);
        std::mem::take(&mut self.rest)
    }

    /// The memory that is held between two pieces.
    #[cfg(test)]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.rest.capacity()
    }

    /// A gap that a writer without `O_APPEND` leaves after a truncation reads as zeros: no line begins with them.
    #[inline]
    fn without_gap<'a>(&mut self, line: &'a [u8]) -> &'a [u8] {
        match line.first() {
            Some(0) => {
                self.has_gap = true;
                &line[line.iter().take_while(|byte| **byte == 0).count()..]
            }
            _ => line,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 8;

    fn cut(pieces: &[&[u8]]) -> (Vec<String>, String) {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.feed(piece, MAX, |piece, _| {
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
    fn each_line_knows_where_it_begins() {
        let stream = b"one\n\nthree\ntoo long to keep\nlast\n";
        for cut in 0..=stream.len() {
            let (mut lines, mut found, mut held) = (Lines::default(), Vec::new(), 0);
            for piece in [&stream[..cut], &stream[cut..]] {
                lines.feed(piece, MAX, |_, begin| found.push(held + begin.at));
                held += if lines.skipping { cut } else { cut - lines.rest().len() };
            }
            assert_eq!(found, [0, 4, 5, 11, 28], "{cut}");
        }
    }

    #[test]
    fn a_stream_without_a_line_end_is_held_in_flat_memory() {
        let (mut lines, mut count) = (Lines::default(), 0);
        for _ in 0..400 {
            lines.feed(&[b'x'; 256 * 1024], 1024 * 1024, |piece, _| {
                assert_eq!(piece, Piece::TooLong);
                count += 1;
            });
            assert!(lines.capacity() <= 2 * 1024 * 1024);
        }
        lines.feed(b"\nnext\n", 1024 * 1024, |piece, _| {
            assert_eq!(piece, Piece::Line(b"next"));
            count += 1;
        });
        assert_eq!((count, lines.capacity()), (2, 0));
    }

    #[test]
    fn a_gap_of_zeros_is_no_part_of_a_line() {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for _ in 0..100 {
            lines.feed(&[0; 4096], 1024, |_, _| panic!("no line has come"));
            assert_eq!(lines.capacity(), 0);
        }
        lines.feed(b"\0\0new\n", 1024, |piece, _| found.push(format!("{piece:?}")));
        assert_eq!(found, [format!("{:?}", Piece::Line(b"new"))]);
    }
}
