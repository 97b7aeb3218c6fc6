//! A forward scanner for one JSON object: finds the wanted values, checks all of the line, allocates nothing.
//!
//! Strict as RFC 8259 is, with two freedoms: bytes that are no UTF-8 and lone surrogates are let through, because a
//! line with one bad character still tells what happened. Knows nothing of what the fields mean.
//!
//! Two scanners give one verdict: `swift` takes the lines that are as loggers write them, the careful one here all others.

mod swift;

use crate::logs::fault::{Fault, Oddities, Reason};
use crate::logs::slot::{Kind, Slot, unescape};
use crate::logs::wanted::{Key, LevelId, Wanted};

/// Deeper nesting is refused. The same depth as `serde_json` allows.
const MAX_DEPTH: u32 = 127;
/// A number without an exponent and with no more characters than this is below the largest 64-bit float.
const MAX_PLAIN_DIGITS: usize = 308;

/// Scans a line that is one JSON object. The slots of what it does not have become [`Kind::Missing`]. Gives what is odd
/// about it: of keys that come twice, only those that are wanted are noticed.
///
/// # Errors
/// Where and why it is none; the slots are of no use then.
pub fn scan(wanted: &Wanted, line: &[u8], slots: &mut [Slot]) -> Result<Oddities, Fault> {
    if u32::try_from(line.len()).is_err() {
        return Err(Fault { reason: Reason::TooLong, at: 0 });
    }
    slots.fill(Slot::default());
    match swift::scan(wanted, line, slots) {
        Some(oddities) => Ok(oddities),
        None => carefully(wanted, line, slots),
    }
}

#[cold]
fn carefully(wanted: &Wanted, line: &[u8], slots: &mut [Slot]) -> Result<Oddities, Fault> {
    slots.fill(Slot::default());
    let mut cursor = Cursor::new(wanted, line, 0, slots);
    if !line.is_ascii() && std::str::from_utf8(line).is_err() {
        cursor.oddities.add(Oddities::BAD_UTF8);
    }
    cursor.space();
    cursor.expect(b'{')?;
    cursor.object(Some(0), 1)?;
    cursor.space();
    if cursor.at == line.len() { Ok(cursor.oddities) } else { Err(cursor.unexpected()) }
}

struct Cursor<'a> {
    wanted: &'a Wanted,
    bytes: &'a [u8],
    at: usize,
    slots: &'a mut [Slot],
    oddities: Oddities,
}

/// A string within the line, without its quotes.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    escaped: bool,
}

// === impl Cursor ===

impl<'a> Cursor<'a> {
    fn new(wanted: &'a Wanted, bytes: &'a [u8], at: usize, slots: &'a mut [Slot]) -> Self {
        Self { wanted, bytes, at, slots, oddities: Oddities::default() }
    }

    /// The value of a key in the line's own object.
    #[cold]
    fn value_of(&mut self, name: &[u8]) -> Result<(), Fault> {
        let wanted = self.wanted;
        match wanted.find(0, name) {
            Some(key) => self.wanted_value(key, 1),
            None => self.value(1).map(|_| ()),
        }
    }

    /// An object, whose brace has been read. `level` says which of its keys are wanted; without it, none is.
    fn object(&mut self, level: Option<LevelId>, depth: u32) -> Result<(), Fault> {
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
            match level.and_then(|level| self.find(wanted, level, name)) {
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
            return wanted.find(level, &decoded);
        }
        wanted.find(level, raw)
    }

    fn wanted_value(&mut self, key: &Key, depth: u32) -> Result<(), Fault> {
        let start = self.at;
        let slot = match key.level {
            None => self.value(depth)?,
            Some(level) => {
                // The key may have come before: the last one counts, with all that is in it.
                for slot in self.wanted.below(level) {
                    if std::mem::take(&mut self.slots[*slot]).kind != Kind::Missing {
                        self.oddities.add(Oddities::DUPLICATE_KEY);
                    }
                }
                if self.eat(b'{') {
                    self.deeper(depth)?;
                    self.object(Some(level), depth + 1)?;
                    Slot::new(Kind::Composite, start, self.at)
                } else {
                    self.value(depth)?
                }
            }
        };
        if let Some(position) = key.slot
            && std::mem::replace(&mut self.slots[position], slot).kind != Kind::Missing
        {
            self.oddities.add(Oddities::DUPLICATE_KEY);
        }
        Ok(())
    }

    /// Any value.
    fn value(&mut self, depth: u32) -> Result<Slot, Fault> {
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
                self.at += 1;
                self.object(None, depth + 1)?;
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
            _ => return Err(self.unexpected()),
        };
        Ok(Slot::new(kind, start, self.at))
    }

    fn list(&mut self, depth: u32) -> Result<(), Fault> {
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
    fn string(&mut self) -> Result<Span, Fault> {
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at = special(self.bytes, self.at).ok_or_else(|| self.cut_off())?;
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
                _ => return Err(Fault { reason: Reason::ControlCharacter, at: self.at }),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        self.at += 1;
        match self.peek()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
            b'u' => {
                let code = self.code_unit(self.at + 1)?;
                self.at += 5;
                let pair = (0xD800..0xDC00).contains(&code) && self.bytes[self.at..].starts_with(b"\\u");
                if pair && (0xDC00..0xE000).contains(&self.code_unit(self.at + 2)?) {
                    self.at += 6;
                } else if (0xD800..0xE000).contains(&code) {
                    self.oddities.add(Oddities::LONE_SURROGATE);
                }
            }
            _ => return Err(Fault { reason: Reason::BadEscape, at: self.at }),
        }
        Ok(())
    }

    /// The four hexadecimal digits behind `\u`.
    fn code_unit(&self, at: usize) -> Result<u32, Fault> {
        let digits = self.bytes.get(at..at + 4).ok_or_else(|| self.cut_off())?;
        let digit = |code: u32, (offset, digit): (usize, &u8)| match char::from(*digit).to_digit(16) {
            Some(value) => Ok(code << 4 | value),
            None => Err(Fault { reason: Reason::BadEscape, at: at + offset }),
        };
        digits.iter().enumerate().try_fold(0, digit)
    }

    fn number(&mut self) -> Result<(), Fault> {
        let start = self.at;
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
            self.check_range(start);
        } else if self.at - start > MAX_PLAIN_DIGITS {
            self.check_range(start);
        }
        Ok(())
    }

    #[cold]
    fn check_range(&mut self, start: usize) {
        let number = std::str::from_utf8(&self.bytes[start..self.at]).ok().and_then(|text| text.parse::<f64>().ok());
        if number.is_some_and(f64::is_infinite) {
            self.oddities.add(Oddities::NUMBER_RANGE);
        }
    }

    fn digits(&mut self) -> Result<(), Fault> {
        if !self.peek()?.is_ascii_digit() {
            return Err(self.unexpected());
        }
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        Ok(())
    }

    fn literal(&mut self, text: &[u8], kind: Kind) -> Result<Kind, Fault> {
        for byte in text {
            self.expect(*byte)?;
        }
        Ok(kind)
    }

    fn deeper(&self, depth: u32) -> Result<(), Fault> {
        if depth < MAX_DEPTH { Ok(()) } else { Err(Fault { reason: Reason::TooDeep, at: self.at }) }
    }

    #[inline]
    fn peek(&self) -> Result<u8, Fault> {
        self.bytes.get(self.at).copied().ok_or_else(|| self.cut_off())
    }

    #[inline]
    fn eat(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.eat(byte) {
            return Ok(());
        }
        Err(self.unexpected())
    }

    /// What stands here does not belong here.
    #[cold]
    fn unexpected(&self) -> Fault {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let reason = match rest {
            [] => Reason::Truncated,
            _ if rest.starts_with(b"NaN") || rest.starts_with(b"Infinity") => Reason::NotANumber,
            _ => Reason::Syntax,
        };
        Fault { reason, at: self.at }
    }

    #[cold]
    fn cut_off(&self) -> Fault {
        Fault { reason: Reason::Truncated, at: self.bytes.len() }
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
