//! A forward scanner for one JSON object: finds the wanted values, checks all of the line, allocates nothing.
//!
//! Strict as RFC 8259 is, with two freedoms: bytes that are no UTF-8 and lone surrogates are let through, because a
//! line with one bad character still tells what happened. Knows nothing of what the fields mean.

use crate::logs::slot::{Kind, Slot, unescape};
use crate::logs::wanted::{Key, LevelId, Wanted, first_word};

/// Deeper nesting is refused. The same depth as `serde_json` allows.
const MAX_DEPTH: u32 = 127;

/// Why a line is no JSON object.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// Something that does not belong there.
    #[error("not JSON at byte {0}")]
    Syntax(usize),
    /// The line ends too early.
    #[error("the line ends within its JSON")]
    CutOff,
    /// Nested too deeply.
    #[error("nested too deeply at byte {0}")]
    TooDeep(usize),
}

/// Scans a line that is one JSON object. The slots of what it does not have become [`Kind::Missing`].
///
/// # Errors
/// Where and why it is none; the slots are of no use then.
pub fn scan(wanted: &Wanted, line: &[u8], slots: &mut [Slot]) -> Result<(), Malformed> {
    slots.fill(Slot::default());
    if u32::try_from(line.len()).is_err() {
        return Err(Malformed::TooDeep(0));
    }
    let mut cursor = Cursor { wanted, bytes: line, at: 0, slots };
    cursor.space();
    cursor.expect(b'{')?;
    cursor.wanted_object(0, 1)?;
    cursor.space();
    if cursor.at == line.len() { Ok(()) } else { Err(Malformed::Syntax(cursor.at)) }
}

struct Cursor<'a> {
    wanted: &'a Wanted,
    bytes: &'a [u8],
    at: usize,
    slots: &'a mut [Slot],
}

/// A string within the line, without its quotes.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    escaped: bool,
}

// === impl Cursor ===

impl Cursor<'_> {
    /// An object whose keys may be wanted; its brace has been read.
    fn wanted_object(&mut self, level: LevelId, depth: u32) -> Result<(), Malformed> {
        self.space();
        if self.eat(b'}') {
            return Ok(());
        }
        loop {
            self.expect(b'"')?;
            let name = self.string()?;
            self.space();
            self.expect(b':')?;
            self.space();
            let wanted = self.wanted;
            match self.find(wanted, level, name) {
                Some(key) => self.wanted_value(key, depth)?,
                None => {
                    self.value(depth)?;
                }
            }
            self.space();
            if self.eat(b',') {
                self.space();
            } else {
                return self.expect(b'}');
            }
        }
    }

    fn find<'w>(&self, wanted: &'w Wanted, level: LevelId, name: Span) -> Option<&'w Key> {
        let raw = &self.bytes[name.start..name.end];
        if name.escaped {
            let mut decoded = Vec::new();
            unescape(raw, &mut decoded);
            return wanted.find(level, &decoded, first_word(&decoded));
        }
        // Behind a key come at least a quote, a colon and a value, so eight bytes are nearly always there.
        let word = match self.bytes.get(name.start..).and_then(<[u8]>::first_chunk::<8>) {
            Some(bytes) if raw.len() >= 8 => u64::from_le_bytes(*bytes),
            Some(bytes) => u64::from_le_bytes(*bytes) & ((1 << (raw.len() * 8)) - 1),
            None => first_word(raw),
        };
        wanted.find(level, raw, word)
    }

    fn wanted_value(&mut self, key: &Key, depth: u32) -> Result<(), Malformed> {
        let start = self.at;
        let slot = match key.level {
            None => self.value(depth)?,
            Some(level) => {
                // The key may have come before: the last one counts, with all that is in it.
                for slot in self.wanted.below(level) {
                    self.slots[*slot] = Slot::default();
                }
                if self.eat(b'{') {
                    self.deeper(depth)?;
                    self.wanted_object(level, depth + 1)?;
                    Slot::new(Kind::Composite, start, self.at)
                } else {
                    self.value(depth)?
                }
            }
        };
        if let Some(position) = key.slot {
            self.slots[position] = slot;
        }
        Ok(())
    }

    /// Any value.
    fn value(&mut self, depth: u32) -> Result<Slot, Malformed> {
        let start = self.at;
        let kind = match self.peek()? {
            b'"' => {
                self.at += 1;
                let span = self.string()?;
                let kind = if span.escaped { Kind::Escaped } else { Kind::Text };
                return Ok(Slot::new(kind, span.start, span.end));
            }
            b'-' | b'0'..=b'9' => {
                self.number()?;
                Kind::Number
            }
            b'{' => {
                self.deeper(depth)?;
                self.object(depth + 1)?;
                Kind::Composite
            }
            b'[' => {
                self.deeper(depth)?;
                self.list(depth + 1)?;
                Kind::Composite
            }
            b't' => self.literal(b"true", Kind::True)?,
            b'f' => self.literal(b"false", Kind::False)?,
            b'n' => self.literal(b"null", Kind::Null)?,
            _ => return Err(Malformed::Syntax(self.at)),
        };
        Ok(Slot::new(kind, start, self.at))
    }

    /// An object of which nothing is wanted.
    fn object(&mut self, depth: u32) -> Result<(), Malformed> {
        self.at += 1;
        self.space();
        if self.eat(b'}') {
            return Ok(());
        }
        loop {
            self.expect(b'"')?;
            self.string()?;
            self.space();
            self.expect(b':')?;
            self.space();
            self.value(depth)?;
            self.space();
            if self.eat(b',') {
                self.space();
            } else {
                return self.expect(b'}');
            }
        }
    }

    fn list(&mut self, depth: u32) -> Result<(), Malformed> {
        self.at += 1;
        self.space();
        if self.eat(b']') {
            return Ok(());
        }
        loop {
            self.value(depth)?;
            self.space();
            if self.eat(b',') {
                self.space();
            } else {
                return self.expect(b']');
            }
        }
    }

    /// The rest of a string whose opening quote has been read.
    #[inline]
    fn string(&mut self) -> Result<Span, Malformed> {
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at = special(self.bytes, self.at).ok_or(Malformed::CutOff)?;
            match self.bytes[self.at] {
                b'"' => {
                    let end = self.at;
                    self.at += 1;
                    return Ok(Span { start, end, escaped });
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(Malformed::Syntax(self.at)),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        self.at += 1;
        match self.peek()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
            b'u' => {
                let digits = self.bytes.get(self.at + 1..self.at + 5).ok_or(Malformed::CutOff)?;
                if let Some(bad) = digits.iter().position(|digit| !digit.is_ascii_hexdigit()) {
                    return Err(Malformed::Syntax(self.at + 1 + bad));
                }
                self.at += 5;
            }
            _ => return Err(Malformed::Syntax(self.at)),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Malformed> {
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _sign = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        if !self.peek()?.is_ascii_digit() {
            return Err(Malformed::Syntax(self.at));
        }
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        Ok(())
    }

    fn literal(&mut self, text: &[u8], kind: Kind) -> Result<Kind, Malformed> {
        for byte in text {
            self.expect(*byte)?;
        }
        Ok(kind)
    }

    fn deeper(&self, depth: u32) -> Result<(), Malformed> {
        if depth < MAX_DEPTH { Ok(()) } else { Err(Malformed::TooDeep(self.at)) }
    }

    #[inline]
    fn peek(&self) -> Result<u8, Malformed> {
        self.bytes.get(self.at).copied().ok_or(Malformed::CutOff)
    }

    #[inline]
    fn eat(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.eat(byte) {
            return Ok(());
        }
        Err(if self.at < self.bytes.len() { Malformed::Syntax(self.at) } else { Malformed::CutOff })
    }

    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }
}

/// The position of the next quote, backslash or control character, eight bytes at a time.
///
/// The lowest marked byte of a word is exact; a borrow can only mark bytes behind it.
#[inline]
fn special(bytes: &[u8], mut at: usize) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    const QUOTES: u64 = u64::from_le_bytes([b'"'; 8]);
    const SLASHES: u64 = u64::from_le_bytes([b'\\'; 8]);
    const SPACES: u64 = u64::from_le_bytes([b' '; 8]);
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let (quotes, slashes) = (word ^ QUOTES, word ^ SLASHES);
        let marks = (quotes.wrapping_sub(ONES) & !quotes) | (slashes.wrapping_sub(ONES) & !slashes) | (word.wrapping_sub(SPACES) & !word);
        if marks & HIGH != 0 {
            return Some(at + ((marks & HIGH).trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    let rest = bytes.get(at..)?;
    rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).map(|position| at + position)
}

#[cfg(test)]
#[path = "scanner_tests.rs"]
mod tests;
