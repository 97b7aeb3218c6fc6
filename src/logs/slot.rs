//! A value within a scanned line: where it is, and its text where somebody asks for that.

use std::borrow::Cow;

/// A wanted value: what it is, and where in the line.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Slot {
    /// What it is.
    pub kind: Kind,
    start: u32,
    end: u32,
}

/// What a value is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Kind {
    /// The line does not have it.
    #[default]
    Missing,
    /// `null`
    Null,
    /// `true`
    True,
    /// `false`
    False,
    /// A number, as it is written.
    Number,
    /// A string without a backslash.
    Text,
    /// A string with backslashes, not yet decoded.
    Escaped,
    /// A list or an object.
    Composite,
}

// === impl Slot ===

impl Slot {
    /// A value between two positions of a line, which is shorter than 4 GiB.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "longer lines are refused at the start of the scan")]
    pub fn new(kind: Kind, start: usize, end: usize) -> Self {
        Self { kind, start: start as u32, end: end as u32 }
    }

    /// The bytes of the value within its line: of a string without the quotes.
    #[must_use]
    #[inline]
    pub fn raw<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        line.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The text of a string, with bytes that are no UTF-8 replaced. `None` for all other kinds.
    #[must_use]
    #[inline]
    pub fn text<'a>(&self, line: &'a [u8]) -> Option<Cow<'a, str>> {
        match self.kind {
            Kind::Text => Some(lossy(self.raw(line))),
            Kind::Escaped => {
                let mut decoded = Vec::with_capacity(self.raw(line).len());
                unescape(self.raw(line), &mut decoded);
                Some(match String::from_utf8(decoded) {
                    Ok(text) => text.into(),
                    Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned().into(),
                })
            }
            _ => None,
        }
    }
}

/// The text of bytes, with what is no UTF-8 replaced. Nearly always there is nothing to replace, and the plain check
/// is much faster than the search for it.
#[must_use]
#[inline]
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// Decodes the inside of a string that has been scanned. A lone surrogate becomes U+FFFD.
pub fn unescape(raw: &[u8], decoded: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(position) = memchr::memchr(b'\\', rest) {
        decoded.extend_from_slice(&rest[..position]);
        let escape = rest.get(position + 1).copied().unwrap_or(b'\\');
        rest = rest.get(position + 2..).unwrap_or_default();
        match escape {
            b'b' => decoded.push(8),
            b'f' => decoded.push(12),
            b'n' => decoded.push(b'\n'),
            b'r' => decoded.push(b'\r'),
            b't' => decoded.push(b'\t'),
            b'u' => rest = unescape_unicode(rest, decoded),
            other => decoded.push(other),
        }
    }
    decoded.extend_from_slice(rest);
}

/// Decodes the digits behind `\u`, and the second half of a surrogate pair. Returns what is behind them.
fn unescape_unicode<'a>(rest: &'a [u8], decoded: &mut Vec<u8>) -> &'a [u8] {
    let (first, mut rest) = (hex(rest), rest.get(4..).unwrap_or_default());
    let mut code = first;
    if (0xD800..0xDC00).contains(&first) && rest.starts_with(b"\\u") {
        let second = hex(&rest[2..]);
        if (0xDC00..0xE000).contains(&second) {
            code = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
            rest = rest.get(6..).unwrap_or_default();
        }
    }
    let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    decoded.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    rest
}

fn hex(digits: &[u8]) -> u32 {
    digits.iter().take(4).fold(0, |code, digit| code << 4 | char::from(*digit).to_digit(16).unwrap_or(0))
}
