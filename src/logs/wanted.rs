//! Which fields of a JSON line are wanted, prepared so that a key is recognised by its length and its ends.
//!
//! Owns the lookup of keys. Knows nothing of values.

/// The position of a wanted field in the array that the scanner fills.
pub type SlotId = usize;

/// The number of a level: level 0 is the line's own object, each other one that of a wanted path's first part.
pub type LevelId = usize;

/// So many seeds are tried before a table grows.
const ATTEMPTS: u32 = 64;
/// No table grows beyond this: keys that no seed tells apart share a place, and are compared one by one.
const MAX_TABLE: usize = 1 << 14;

/// The wanted fields, as levels of keys.
#[derive(Clone, Debug)]
pub struct Wanted {
    levels: Vec<Level>,
    fields: usize,
}

/// The wanted keys of one object.
#[derive(Clone, Debug, Default)]
struct Level {
    keys: Vec<Key>,
    /// Keys by their hash: a power of two of places.
    table: Vec<Entry>,
    /// With this, no two keys have the same place, as far as that can be had.
    seed: u64,
    /// Everything that is wanted within this object: forgotten when its key comes a second time.
    below: Vec<SlotId>,
}

/// A wanted key.
#[derive(Clone, Debug)]
pub struct Key {
    name: Box<[u8]>,
    /// Where its value goes.
    pub slot: Option<SlotId>,
    /// The level of the wanted fields within its value.
    pub level: Option<LevelId>,
}

/// Where the value of a key goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Target {
    /// Its slot; for a key that is not wanted, the spare one.
    pub slot: SlotId,
    /// Its value, or its name, has to be looked at more closely.
    pub is_deep: bool,
}

/// A place in a table of keys.
#[derive(Clone, Copy, Debug)]
struct Entry {
    ends: Ends,
    target: Target,
}

/// The first and the last eight bytes of a name and its length: all of a name that has no more than sixteen bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Ends {
    first: u64,
    last: u64,
    length: usize,
}

// === impl Wanted ===

impl Wanted {
    /// Nothing is wanted yet.
    #[must_use]
    pub fn new() -> Self {
        Self { levels: vec![Level::default()], fields: 0 }
    }

    /// How long the array of slots must be. The last one is spare: it takes what nobody wants.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.fields + 1
    }

    /// Wants a path of keys; asking twice gives the same slot.
    pub fn want(&mut self, path: &[&str]) -> SlotId {
        let Some((last, parents)) = path.split_last() else { return self.want(&[""]) };
        let mut level = 0;
        let mut passed = Vec::new();
        for name in parents {
            let key = self.key(level, name);
            let next = match self.levels[level].keys[key].level {
                Some(next) => next,
                None => {
                    self.levels.push(Level::default());
                    let next = self.levels.len() - 1;
                    self.levels[level].keys[key].level = Some(next);
                    next
                }
            };
            level = next;
            passed.push(level);
        }
        let key = self.key(level, last);
        if let Some(slot) = self.levels[level].keys[key].slot {
            return slot;
        }
        let slot = self.fields;
        self.fields += 1;
        self.levels[level].keys[key].slot = Some(slot);
        passed.into_iter().for_each(|level| self.levels[level].below.push(slot));
        let spare = self.fields;
        self.levels.iter_mut().for_each(|level| level.build(spare));
        slot
    }

    /// The wanted key of this name.
    #[must_use]
    pub fn find(&self, level: LevelId, name: &[u8]) -> Option<&Key> {
        self.levels[level].keys.iter().find(|key| *key.name == *name)
    }

    /// Where the value goes whose key in the line's own object stands between two positions of the line. Without a
    /// branch on whether it is wanted, which no processor could foresee.
    #[must_use]
    #[inline]
    pub fn target(&self, line: &[u8], begin: usize, end: usize) -> Option<Target> {
        let ends = Ends::within(line, begin, end)?;
        let level = &self.levels[0];
        let entry = level.table.get(ends.place(level.seed) & level.table.len().wrapping_sub(1))?;
        let is_it = entry.ends == ends;
        Some(Target { slot: if is_it { entry.target.slot } else { self.fields }, is_deep: is_it & entry.target.is_deep })
    }

    /// What is wanted within the object of a level.
    #[must_use]
    pub fn below(&self, level: LevelId) -> &[SlotId] {
        &self.levels[level].below
    }

    fn key(&mut self, level: LevelId, name: &str) -> usize {
        let keys = &mut self.levels[level].keys;
        if let Some(position) = keys.iter().position(|key| *key.name == *name.as_bytes()) {
            return position;
        }
        keys.push(Key { name: name.as_bytes().into(), slot: None, level: None });
        keys.len() - 1
    }
}

impl Default for Wanted {
    fn default() -> Self {
        let mut wanted = Self::new();
        wanted.levels[0].build(0);
        wanted
    }
}

// === impl Level ===

impl Level {
    /// Looks for a seed that gives each key a place of its own. Names that share their ends have one together.
    fn build(&mut self, spare: SlotId) {
        let mut size = (self.keys.len() * 4).next_power_of_two();
        self.seed = 0x9E37_79B9_7F4A_7C15;
        for attempt in 1.. {
            if self.place_all(size, spare) || size >= MAX_TABLE {
                return;
            }
            self.seed = self.seed.wrapping_mul(0xD129_42E1_5C6D_8A35) | 1;
            if attempt % ATTEMPTS == 0 {
                size *= 2;
            }
        }
    }

    /// Whether no two keys of different ends came to the same place.
    fn place_all(&mut self, size: usize, spare: SlotId) -> bool {
        self.table = vec![Entry { ends: Ends::NONE, target: Target { slot: spare, is_deep: false } }; size];
        let mut is_told_apart = true;
        for key in &self.keys {
            let ends = Ends::of(&key.name);
            let entry = &mut self.table[ends.place(self.seed) & (size - 1)];
            let is_free = entry.ends == Ends::NONE;
            is_told_apart &= is_free || entry.ends == ends;
            let is_deep = !is_free || key.level.is_some() || key.name.len() > 16;
            *entry = Entry { ends, target: Target { slot: key.slot.unwrap_or(spare), is_deep } };
        }
        is_told_apart
    }
}

// === impl Ends ===

impl Ends {
    /// Those of no name.
    const NONE: Self = Self { first: 0, last: 0, length: usize::MAX };

    fn of(name: &[u8]) -> Self {
        let mut first = [0; 8];
        let length = name.len().min(8);
        first[..length].copy_from_slice(&name[..length]);
        let last = name.last_chunk::<8>().unwrap_or(&first);
        Self { first: u64::from_le_bytes(first), last: u64::from_le_bytes(*last), length: name.len() }
    }

    #[inline]
    fn within(line: &[u8], begin: usize, end: usize) -> Option<Self> {
        let name = line.get(begin..end)?;
        let length = name.len();
        // Behind a key come at least a quote, a colon and a value, so eight bytes are nearly always there.
        let first = u64::from_le_bytes(*line.get(begin..)?.first_chunk::<8>()?);
        Some(match name.last_chunk::<8>() {
            Some(last) => Self { first, last: u64::from_le_bytes(*last), length },
            None => {
                let first = first & ((1 << (length * 8)) - 1);
                Self { first, last: first, length }
            }
        })
    }

    #[inline]
    fn place(self, seed: u64) -> usize {
        ((self.first ^ self.last.rotate_left(23) ^ self.length as u64).wrapping_mul(seed) >> 40) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPARE: Target = Target { slot: usize::MAX, is_deep: false };

    /// The target of a key, with the spare slot as [`SPARE`] has it.
    fn target(wanted: &Wanted, name: &str) -> Target {
        let line = format!("{{\"{name}\":12345678}}");
        let found = wanted.target(line.as_bytes(), 2, 2 + name.len()).unwrap();
        if found.slot + 1 == wanted.slots() { Target { slot: SPARE.slot, ..found } } else { found }
    }

    #[test]
    fn keys_are_found_by_their_whole_name() {
        let mut wanted = Wanted::new();
        let names = ["", "a", "level", "message", "duration", "duration_ms", "duration_us", "error", "sixteen bytes it"];
        let slots: Vec<SlotId> = names.iter().map(|name| wanted.want(&[name])).collect();
        for (name, slot) in names.iter().zip(slots) {
            assert_eq!(wanted.find(0, name.as_bytes()).and_then(|key| key.slot), Some(slot), "{name}");
            assert_eq!(target(&wanted, name), Target { slot, is_deep: false }, "{name}");
            assert_eq!(wanted.want(&[name]), slot);
        }
        for name in ["b", "levels", "leve", "duration_m", "duration_mx", "Duration_ms", "seventeen bytes it"] {
            assert!(wanted.find(0, name.as_bytes()).is_none(), "{name}");
            assert_eq!(target(&wanted, name), SPARE, "{name}");
        }
    }

    #[test]
    fn long_names_with_the_same_ends_are_looked_at_more_closely() {
        let mut wanted = Wanted::new();
        let names = ["a name of which the middle differs", "a name of which THE MIDdle differs"];
        let slots = names.map(|name| wanted.want(&[name]));
        for (name, slot) in names.iter().zip(slots) {
            assert_eq!(wanted.find(0, name.as_bytes()).unwrap().slot, Some(slot));
            assert!(target(&wanted, name).is_deep);
        }
    }

    #[test]
    fn many_keys_have_places_of_their_own() {
        let mut wanted = Wanted::new();
        let names: Vec<String> = (0..200).map(|number| format!("field_{number}")).collect();
        let slots: Vec<SlotId> = names.iter().map(|name| wanted.want(&[name])).collect();
        for (name, slot) in names.iter().zip(slots) {
            assert_eq!(target(&wanted, name), Target { slot, is_deep: false });
        }
    }

    #[test]
    fn a_path_and_its_parent_can_both_be_wanted() {
        let mut wanted = Wanted::new();
        let (parent, child) = (wanted.want(&["http"]), wanted.want(&["http", "status"]));
        let key = wanted.find(0, b"http").unwrap();
        let level = key.level.unwrap();
        assert_eq!(key.slot, Some(parent));
        assert_eq!(target(&wanted, "http"), Target { slot: parent, is_deep: true });
        assert_eq!(wanted.find(level, b"status").unwrap().slot, Some(child));
        assert_eq!(wanted.below(level), [child]);
    }
}
