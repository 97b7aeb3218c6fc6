//! Texts that are known beforehand, each with a value: found by their ends, without a hash that has to defend itself.
//! Pure.
//!
//! What is looked up comes from logs, what is found comes from the configuration: nobody outside can make a lookup slow.

/// A table of known texts.
#[derive(Clone, Debug)]
pub struct Texts<V> {
    entries: Vec<(Box<str>, V)>,
    /// The number of an entry plus one, at the place of its digest or behind it; 0 where there is none. A power of two
    /// of places, of which at most a quarter is taken.
    table: Vec<u32>,
}

/// What was found for the last texts, where finding out costs more than to compare. Direct-mapped, of a fixed size.
#[derive(Clone, Debug)]
pub struct Memo {
    known: Vec<Known>,
}

/// A text that was seen, and what was found for it.
#[derive(Clone, Copy, Debug)]
struct Known {
    text: [u8; MAX_KNOWN],
    /// Beyond [`MAX_KNOWN`] where nothing is known.
    length: u8,
    found: usize,
}

/// Longer texts are seldom the same twice.
const MAX_KNOWN: usize = 47;
/// So many are remembered: a program has some dozens of callers that write most of its lines.
const PLACES: usize = 64;

// === impl Texts ===

impl<V> Texts<V> {
    /// The value of a text, if it is known.
    #[inline]
    #[must_use]
    pub fn get(&self, text: &str) -> Option<&V> {
        let mask = self.table.len().wrapping_sub(1);
        let mut place = digest(text.as_bytes());
        loop {
            let number = *self.table.get(place & mask)?;
            let (known, value) = self.entries.get(usize::try_from(number).ok()?.checked_sub(1)?)?;
            if **known == *text {
                return Some(value);
            }
            place = place.wrapping_add(1);
        }
    }

    /// The value of a text, which is made where it is not known.
    pub fn get_or_insert(&mut self, text: &str, value: impl FnOnce() -> V) -> &mut V {
        let position = self.entries.iter().position(|(known, _)| **known == *text).unwrap_or_else(|| {
            self.entries.push((text.into(), value()));
            self.build();
            self.entries.len() - 1
        });
        &mut self.entries[position].1
    }

    /// All values.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.iter_mut().map(|(_, value)| value)
    }

    fn build(&mut self) {
        let size = (self.entries.len() * 4).next_power_of_two();
        self.table = vec![0; size];
        for (number, (text, _)) in (1_u32..).zip(&self.entries) {
            let mut place = digest(text.as_bytes()) & (size - 1);
            while self.table[place] != 0 {
                place = (place + 1) & (size - 1);
            }
            self.table[place] = number;
        }
    }
}

impl<V> Default for Texts<V> {
    fn default() -> Self {
        Self { entries: Vec::new(), table: Vec::new() }
    }
}

// === impl Memo ===

impl Memo {
    /// What was found for this text, or is found now.
    #[inline]
    pub fn get(&mut self, text: &[u8], find: impl FnOnce() -> usize) -> usize {
        if text.len() > MAX_KNOWN {
            return find();
        }
        let known = &mut self.known[digest(text) % PLACES];
        if usize::from(known.length) != text.len() || known.text[..text.len()] != *text {
            known.text[..text.len()].copy_from_slice(text);
            known.length = u8::try_from(text.len()).unwrap_or(u8::MAX);
            known.found = find();
        }
        known.found
    }
}

impl Default for Memo {
    fn default() -> Self {
        Self { known: vec![Known { text: [0; MAX_KNOWN], length: u8::MAX, found: 0 }; PLACES] }
    }
}

/// A number made of the ends of a text and its length.
#[inline]
fn digest(text: &[u8]) -> usize {
    let half = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
    let (first, last) = match (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => match (text.first_chunk::<4>(), text.last_chunk::<4>()) {
            (Some(first), Some(last)) => (half(first), half(last)),
            _ => text.iter().fold((0, 0), |(all, _), byte| (all << 8 | u64::from(*byte), 0)),
        },
    };
    let mixed = (first ^ last.rotate_left(23) ^ text.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    // The highest bits depend on all others.
    usize::try_from(mixed >> 40).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_texts_are_found() {
        let mut texts = Texts::default();
        assert_eq!(texts.get("a"), None);
        // The last ones share their ends and their length.
        let known = ["", "a", "ab", "abc", "info", "error", "decisionbox-api", "12345678 one 87654321", "12345678 two 87654321"];
        for (number, text) in known.iter().enumerate() {
            *texts.get_or_insert(text, || 0) = number;
        }
        for (number, text) in known.iter().enumerate() {
            assert_eq!(texts.get(text), Some(&number), "{text}");
        }
        for text in ["b", "abcd", "Info", "inf", "decisionbox-apj", "12345678 six 87654321", "\0"] {
            assert_eq!(texts.get(text), None, "{text}");
        }
        *texts.get_or_insert("a", || 0) = 77;
        assert_eq!((texts.get("a"), texts.get("ab")), (Some(&77), Some(&2)));
        assert_eq!(texts.values_mut().count(), known.len());
    }

    #[test]
    fn a_thousand_texts_are_told_apart() {
        let mut texts = Texts::default();
        for number in 0..1000 {
            texts.get_or_insert(&format!("text {number}"), || number);
        }
        for number in 0..2000 {
            assert_eq!(texts.get(&format!("text {number}")).copied(), Some(number).filter(|number| *number < 1000));
        }
    }

    #[test]
    fn what_was_found_is_found_again_and_nothing_else() {
        let mut memo = Memo::default();
        let long = "x".repeat(MAX_KNOWN + 1);
        let texts = ["", "a", "b", "log/log.go:46", "log/log.go:47", "log/compat.go:75", &long[1..], &long];
        for round in 0..3 {
            for (number, text) in texts.iter().enumerate() {
                assert_eq!(memo.get(text.as_bytes(), || number), number, "{text} {round}");
            }
        }
        // It is not looked for again, but for what is too long to be remembered.
        assert_eq!(memo.get(b"a", || 99), 1);
        assert_eq!(memo.get(long.as_bytes(), || 99), 99);
    }
}
