//! The same verdict as the careful scanner's, sooner, for lines as loggers write them: one object, at most one blank
//! behind a separator. Quotes are found for 64 bytes at a time, so that nobody walks through the bytes of a string.
//!
//! Whatever is out of the ordinary (an escape, a nested value, a value with wanted fields within it) is given to the
//! careful scanner. A line that is wrong is scanned again by it, so that there is one place that says why.

use wide::u8x16;

use crate::logs::fault::Oddities;
use crate::logs::scanner::Cursor;
use crate::logs::slot::{Kind, Slot};
use crate::logs::wanted::Wanted;

/// So many bytes are looked at at once.
const BLOCK: usize = 64;
/// Numbers with more digits than this are looked at carefully: they may be beyond what a float can hold.
const FEW_DIGITS: usize = 24;

/// Where quotes, backslashes and control characters are in a line.
struct Marks<'a> {
    bytes: &'a [u8],
    /// Those of the block that have not been taken.
    word: u64,
    /// Where the block begins.
    base: usize,
    /// Whether a byte was seen that is not ASCII.
    is_high: bool,
}

/// Scans a line that begins with its brace. What is odd about it; `None` where the careful scanner must look at it.
pub(super) fn scan(wanted: &Wanted, line: &[u8], slots: &mut [Slot]) -> Option<Oddities> {
    if line.first() != Some(&b'{') {
        return None;
    }
    let spare = wanted.slots() - 1;
    let mut marks = Marks::new(line);
    let (mut oddities, mut is_double) = (Oddities::default(), false);
    let mut at = 1;
    loop {
        let (open, close) = (marks.take()?, marks.take()?);
        if open != at || line[open] != b'"' || line[close] != b'"' || byte(line, close + 1)? != b':' {
            return None;
        }
        let target = wanted.target(line, open + 1, close)?;
        at = close + 2;
        if byte(line, at)? == b' ' {
            at += 1;
        }
        match plain(line, at, &mut marks).filter(|_| !target.is_deep) {
            Some((slot, end)) => {
                let before = std::mem::replace(slots.get_mut(target.slot)?, slot);
                is_double |= (before.kind != Kind::Missing) & (target.slot != spare);
                at = end;
            }
            None => {
                let mut cursor = Cursor::new(wanted, line, at, slots);
                cursor.value_of(&line[open + 1..close]).ok()?;
                oddities.add(cursor.oddities);
                at = cursor.at;
                marks.seek(at)?;
            }
        }
        match byte(line, at)? {
            b',' => at += 1 + usize::from(byte(line, at + 1)? == b' '),
            b'}' if at + 1 == line.len() => break,
            _ => return None,
        }
    }
    if is_double {
        oddities.add(Oddities::DUPLICATE_KEY);
    }
    if marks.is_high && std::str::from_utf8(line).is_err() {
        oddities.add(Oddities::BAD_UTF8);
    }
    Some(oddities)
}

/// A value that is neither nested nor escaped, and its end.
#[inline(always)]
fn plain(line: &[u8], at: usize, marks: &mut Marks<'_>) -> Option<(Slot, usize)> {
    let literal = |text: &[u8], kind| {
        let end = at + text.len();
        (line.get(at..end) == Some(text)).then(|| (Slot::new(kind, at, end), end))
    };
    match byte(line, at)? {
        b'"' => {
            let (_, end) = (marks.take()?, marks.take()?);
            (line[end] == b'"').then(|| (Slot::new(Kind::Text, at + 1, end), end + 1))
        }
        b'0'..=b'9' | b'-' => number(line, at).map(|end| (Slot::new(Kind::Number, at, end), end)),
        b't' => literal(b"true", Kind::True),
        b'f' => literal(b"false", Kind::False),
        b'n' => literal(b"null", Kind::Null),
        _ => None,
    }
}

/// The end of a number without an exponent and with few digits.
#[inline(always)]
fn number(line: &[u8], at: usize) -> Option<usize> {
    let begin = at + usize::from(line[at] == b'-');
    let whole = digits(line, begin)?;
    let mut end = begin + whole;
    if whole == 0 || (whole > 1 && line[begin] == b'0') {
        return None;
    }
    if byte(line, end)? == b'.' {
        let fraction = digits(line, end + 1)?;
        end += 1 + fraction;
        if fraction == 0 {
            return None;
        }
    }
    Some(end)
}

/// How many digits stand here, eight at a time; `None` where they are many.
#[inline(always)]
fn digits(line: &[u8], at: usize) -> Option<usize> {
    const ZEROS: u64 = u64::from_le_bytes([b'0'; 8]);
    const CARRY: u64 = u64::from_le_bytes([0x76; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    let mut count = 0;
    while count < FEW_DIGITS {
        let rest = line.get(at + count..)?;
        let Some(chunk) = rest.first_chunk::<8>() else {
            return Some(count + rest.iter().take_while(|byte| byte.is_ascii_digit()).count());
        };
        let word = u64::from_le_bytes(*chunk) ^ ZEROS;
        // The lowest marked byte is exact; a carry can only mark bytes behind it.
        let others = (word.wrapping_add(CARRY) | word) & HIGH;
        if others != 0 {
            return Some(count + (others.trailing_zeros() / 8) as usize);
        }
        count += 8;
    }
    None
}

#[inline(always)]
fn byte(line: &[u8], at: usize) -> Option<u8> {
    line.get(at).copied()
}

// === impl Marks ===

impl<'a> Marks<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut marks = Self { bytes, word: 0, base: 0, is_high: false };
        marks.load();
        marks
    }

    /// Takes the next mark: its position.
    #[inline(always)]
    fn take(&mut self) -> Option<usize> {
        while self.word == 0 {
            self.advance()?;
        }
        let at = self.base + self.word.trailing_zeros() as usize;
        self.word &= self.word - 1;
        Some(at)
    }

    /// Passes over the marks before a position, which lies behind all marks that were taken.
    #[cold]
    fn seek(&mut self, at: usize) -> Option<()> {
        while self.base + BLOCK <= at {
            self.advance()?;
        }
        self.word &= u64::MAX << (at - self.base);
        Some(())
    }

    /// Goes on to the next block.
    #[inline(always)]
    fn advance(&mut self) -> Option<()> {
        self.base += BLOCK;
        if self.base >= self.bytes.len() {
            return None;
        }
        self.load();
        Some(())
    }

    /// Finds the marks of the block at `base`, which begins within the line.
    #[inline(always)]
    fn load(&mut self) {
        self.word = if let Some(block) = self.bytes.get(self.base..).and_then(<[u8]>::first_chunk) {
            self.find(block)
        } else if let Some(block) = self.bytes.last_chunk() {
            // The last block overlaps the one before it: its begin has been seen.
            self.find(block) >> (self.base + BLOCK - self.bytes.len())
        } else {
            let mut block = [b' '; BLOCK];
            block[..self.bytes.len()].copy_from_slice(self.bytes);
            self.find(&block)
        };
    }

    #[inline(always)]
    fn find(&mut self, block: &[u8; BLOCK]) -> u64 {
        let (mut word, mut all) = (0, u8x16::splat(0));
        for (number, part) in block.as_chunks::<16>().0.iter().enumerate() {
            let bytes = u8x16::from(*part);
            let quotes = bytes.simd_eq(u8x16::splat(b'"'));
            let slashes = bytes.simd_eq(u8x16::splat(b'\\'));
            let controls = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
            word |= u64::from((quotes | slashes | controls).to_bitmask()) << (number * 16);
            all |= bytes;
        }
        // The highest bit of a byte is the one that a bit mask is made of.
        self.is_high |= all.to_bitmask() != 0;
        word
    }
}
