//! Which fields of a JSON line are wanted, prepared so that a key is recognised by its length and its first bytes.
//!
//! Owns the lookup of keys. Knows nothing of values.

/// The position of a wanted field in the array that the scanner fills.
pub type SlotId = usize;

/// The number of a level: level 0 is the line's own object, each other one that of a wanted path's first part.
pub type LevelId = usize;

/// The wanted fields, as levels of keys.
#[derive(Clone, Debug)]
pub struct Wanted {
    levels: Vec<Level>,
    slots: usize,
}

/// The wanted keys of one object.
#[derive(Clone, Debug, Default)]
struct Level {
    /// Keys by their hash, with open addressing; the size is a power of two and at least twice the number of keys.
    table: Vec<Option<Key>>,
    keys: Vec<Key>,
    /// Everything that is wanted within this object: forgotten when its key comes a second time.
    below: Vec<SlotId>,
}

/// A wanted key.
#[derive(Clone, Debug)]
pub struct Key {
    word: u64,
    name: Box<[u8]>,
    /// Where its value goes.
    pub slot: Option<SlotId>,
    /// The level of the wanted fields within its value.
    pub level: Option<LevelId>,
}

// === impl Wanted ===

impl Wanted {
    /// Nothing is wanted yet.
    #[must_use]
    pub fn new() -> Self {
        Self { levels: vec![Level::default()], slots: 0 }
    }

    /// How long the array of slots must be.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
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
        let slot = self.slots;
        self.slots += 1;
        self.levels[level].keys[key].slot = Some(slot);
        passed.into_iter().for_each(|level| self.levels[level].below.push(slot));
        self.levels.iter_mut().for_each(Level::build);
        slot
    }

    /// The wanted key of this name. `word` is [`first_word`] of the name.
    #[must_use]
    #[inline]
    pub fn find(&self, level: LevelId, name: &[u8], word: u64) -> Option<&Key> {
        let table = &self.levels[level].table;
        let mut place = hash(word, name.len());
        loop {
            place &= table.len().wrapping_sub(1);
            let key = table.get(place)?.as_ref()?;
            if key.word == word && key.name.len() == name.len() && (name.len() <= 8 || *key.name == *name) {
                return Some(key);
            }
            place += 1;
        }
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
        let word = first_word(name.as_bytes());
        keys.push(Key { word, name: name.as_bytes().into(), slot: None, level: None });
        keys.len() - 1
    }
}

impl Default for Wanted {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Level ===

impl Level {
    fn build(&mut self) {
        self.table = vec![None; (self.keys.len() * 4).next_power_of_two()];
        let mask = self.table.len() - 1;
        for key in &self.keys {
            let mut place = hash(key.word, key.name.len()) & mask;
            while self.table[place].is_some() {
                place = (place + 1) & mask;
            }
            self.table[place] = Some(key.clone());
        }
    }
}

/// The first eight bytes of a name, with zeros behind a shorter one.
#[must_use]
pub fn first_word(name: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let length = name.len().min(8);
    bytes[..length].copy_from_slice(&name[..length]);
    u64::from_le_bytes(bytes)
}

#[inline]
fn hash(word: u64, length: usize) -> usize {
    ((word ^ length as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_their_whole_name() {
        let mut wanted = Wanted::new();
        let names = ["", "a", "level", "message", "duration", "duration_ms", "duration_sec", "error"];
        let slots: Vec<SlotId> = names.iter().map(|name| wanted.want(&[name])).collect();
        for (name, slot) in names.iter().zip(slots) {
            let found = wanted.find(0, name.as_bytes(), first_word(name.as_bytes())).and_then(|key| key.slot);
            assert_eq!(found, Some(slot), "{name}");
            assert_eq!(wanted.want(&[name]), slot);
        }
        for name in ["b", "levels", "leve", "duration_m", "duration_mx"] {
            assert!(wanted.find(0, name.as_bytes(), first_word(name.as_bytes())).is_none(), "{name}");
        }
    }

    #[test]
    fn a_path_and_its_parent_can_both_be_wanted() {
        let mut wanted = Wanted::new();
        let (parent, child) = (wanted.want(&["http"]), wanted.want(&["http", "status"]));
        let key = wanted.find(0, b"http", first_word(b"http")).unwrap();
        let level = key.level.unwrap();
        assert_eq!(key.slot, Some(parent));
        assert_eq!(wanted.find(level, b"status", first_word(b"status")).unwrap().slot, Some(child));
        assert_eq!(wanted.below(level), [child]);
    }
}
