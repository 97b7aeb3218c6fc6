//! Seconds up and down in slots of one length, for as far back as a number of slots reaches. Pure.
//!
//! Time of which nothing is known is what is missing from a slot: a restart, a stopped process and a check that did not
//! exist yet need no entry. A slot takes about 16 bytes of memory and at most 15 in the file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Seconds by what the check was held to be.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Seconds {
    /// It passed.
    pub up: u32,
    /// It did not.
    pub down: u32,
    /// It passed, in maintenance.
    pub maintained_up: u32,
    /// It did not, in maintenance.
    pub maintained_down: u32,
}

/// One kind of time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kind {
    /// The check passes.
    pub is_up: bool,
    /// It is in maintenance.
    pub is_maintained: bool,
}

/// The slots of one length.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Slots {
    length: u32,
    count: u32,
    slots: BTreeMap<u32, Packed>,
}

/// The seconds of a slot; no slot is longer than an hour.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
struct Packed([u16; 4]);

// === impl Slots ===

impl Slots {
    pub fn new(length: u32, count: u32) -> Self {
        Self { length, count, slots: BTreeMap::new() }
    }

    /// Adds whole seconds to the slot of a time. `at` is in seconds since the epoch.
    pub fn add(&mut self, kind: Kind, seconds: u32, at: i64) {
        let number = self.number(at);
        let slot = self.slots.entry(number).or_default();
        // A clock that went back meets slots that are full.
        let room = self.length.saturating_sub(slot.total());
        slot.0[kind.index()] += u16::try_from(seconds.min(room)).unwrap_or(u16::MAX);
        // What is too old, and what a clock that was ahead has left behind.
        let oldest = number.saturating_sub(self.count - 1);
        if self.slots.first_key_value().is_some_and(|(first, _)| *first < oldest) {
            self.slots = self.slots.split_off(&oldest);
        }
        if self.slots.last_key_value().is_some_and(|(last, _)| *last > number) {
            self.slots.split_off(&(number + 1));
        }
    }

    /// The sum of the last slots, the one of `at` among them.
    pub fn sum(&self, slots: u32, at: i64) -> Seconds {
        let number = self.number(at);
        let mut sum = Seconds::default();
        for (_, slot) in self.slots.range(number.saturating_sub(slots.saturating_sub(1))..=number) {
            let [up, down, maintained_up, maintained_down] = slot.0.map(u32::from);
            sum.up += up;
            sum.down += down;
            sum.maintained_up += maintained_up;
            sum.maintained_down += maintained_down;
        }
        sum
    }

    /// How many seconds the last slots span, of which that of `at` has only begun.
    pub fn span(&self, slots: u32, at: i64) -> u32 {
        let begun = u32::try_from(at.rem_euclid(i64::from(self.length))).unwrap_or(0);
        (slots - 1) * self.length + begun
    }

    fn number(&self, at: i64) -> u32 {
        u32::try_from(at.div_euclid(i64::from(self.length))).unwrap_or(0)
    }
}

// === impl Packed ===

impl Packed {
    fn total(self) -> u32 {
        self.0.into_iter().map(u32::from).sum()
    }
}

// === impl Kind ===

impl Kind {
    fn index(self) -> usize {
        usize::from(!self.is_up) + 2 * usize::from(self.is_maintained)
    }
}

// === impl Seconds ===

impl Seconds {
    /// All the time of which something is known.
    #[must_use]
    pub fn known(self) -> u32 {
        self.up + self.down + self.maintained_up + self.maintained_down
    }

    /// Part of the known time in which the check passed.
    #[must_use]
    pub fn ratio(self) -> Option<f64> {
        ratio(self.up + self.maintained_up, self.known())
    }

    /// The same without the time in maintenance.
    #[must_use]
    pub fn ratio_without_maintenance(self) -> Option<f64> {
        ratio(self.up, self.up + self.down)
    }
}

fn ratio(part: u32, whole: u32) -> Option<f64> {
    (whole > 0).then(|| f64::from(part) / f64::from(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Kind = Kind { is_up: true, is_maintained: false };
    const DOWN: Kind = Kind { is_up: false, is_maintained: false };
    const MAINTAINED: Kind = Kind { is_up: false, is_maintained: true };

    #[test]
    fn seconds_are_summed_over_the_last_slots() {
        let mut slots = Slots::new(60, 60);
        let start = 1_800_000_000;
        for minute in 0..10 {
            slots.add(UP, 30, start + minute * 60);
            slots.add(DOWN, 15, start + minute * 60 + 30);
            slots.add(MAINTAINED, 15, start + minute * 60 + 45);
        }
        let now = start + 9 * 60 + 59;
        let seconds = slots.sum(10, now);
        assert_eq!(seconds, Seconds { up: 300, down: 150, maintained_up: 0, maintained_down: 150 });
        assert_eq!(seconds.ratio(), Some(0.5));
        assert_eq!(seconds.ratio_without_maintenance(), Some(300.0 / 450.0));
        assert_eq!(slots.sum(1, now), Seconds { up: 30, down: 15, maintained_up: 0, maintained_down: 15 });
        assert_eq!(slots.sum(10, now + 3600), Seconds::default());
        assert_eq!(Seconds::default().ratio(), None);
    }

    #[test]
    fn they_are_bounded_and_no_slot_holds_more_than_its_length() {
        let mut slots = Slots::new(3600, 721);
        for second in (0..90 * 86_400).step_by(60) {
            slots.add(UP, 60, second);
        }
        assert_eq!(slots.slots.len(), 721);
        assert_eq!(slots.sum(721, 90 * 86_400 - 1).up, 721 * 3600);
        slots.add(DOWN, 100, 90 * 86_400 - 1);
        assert_eq!(slots.sum(721, 90 * 86_400 - 1).down, 0);
    }

    /// H16: what a clock that was ahead wrote is forgotten when it is set right, and nothing else is.
    #[test]
    fn a_clock_that_jumps_back_and_forth_spoils_nothing() {
        let mut slots = Slots::new(60, 60);
        let now = 1_800_000_000;
        slots.add(UP, 60, now);
        slots.add(DOWN, 60, now + 1800);
        slots.add(UP, 10, now + 60);
        assert_eq!(slots.sum(60, now + 60), Seconds { up: 70, ..Seconds::default() });
        assert_eq!(slots.slots.len(), 2);
    }
}
