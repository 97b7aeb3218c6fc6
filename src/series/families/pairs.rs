//! Starts that wait for their finish, by a key: how long took what began on one line and ended on another. Pure.
//!
//! Time is the lines' own, so that a log that is read late gives the same durations. Bounded: beyond the limit the oldest
//! start is given up. Knows nothing of series.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::clock::Moment;

/// Why a start or a finish has no partner.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unpaired {
    /// No finish came in time.
    Expired,
    /// There were too many open ones.
    Evicted,
    /// The same key started again.
    Restarted,
    /// A finish came for which nothing had started.
    Unmatched,
}

/// Open starts.
#[derive(Clone, Debug)]
pub(super) struct Pairs {
    expire: i64,
    limit: usize,
    open: HashMap<u128, Open>,
    /// Keys in the order in which they came.
    order: BTreeMap<u64, u128>,
    next: u64,
    /// The latest time that a line of this pair has told: the log's own clock.
    latest: i64,
    unpaired: [u32; 4],
}

#[derive(Clone, Copy, Debug)]
struct Open {
    place: u64,
    /// The line's own time.
    time: Option<i64>,
    read: Moment,
}

/// Open starts as they are kept over a restart.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(super) struct PairsState {
    latest: i64,
    open: Vec<OpenState>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct OpenState {
    key: u128,
    time: Option<i64>,
    read: i64,
    /// How long it has been open while we were running, in milliseconds.
    age: i64,
}

// === impl Unpaired ===

impl Unpaired {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Expired, Self::Evicted, Self::Restarted, Self::Unmatched];

    /// The value of the label `reason`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Restarted => "restarted",
            Self::Unmatched => "unmatched",
        }
    }
}

// === impl Pairs ===

impl Pairs {
    /// No start is open yet. One expires `expire` milliseconds after it began.
    pub(super) fn new(expire: i64, limit: usize) -> Self {
        let (open, order) = (HashMap::new(), BTreeMap::new());
        Self { expire, limit: limit.max(1), open, order, next: 0, latest: i64::MIN, unpaired: [0; 4] }
    }

    /// Forgets all open starts: their rule is gone.
    pub(super) fn forget(&mut self) {
        (self.open, self.order) = (HashMap::new(), BTreeMap::new());
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// A line tells of a start.
    pub(super) fn start(&mut self, key: u128, time: Option<i64>, now: Moment) {
        self.pass(time, now);
        if self.remove(key).is_some() {
            self.count(Unpaired::Restarted);
        }
        if self.open.len() >= self.limit
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.open.remove(&oldest);
            self.count(Unpaired::Evicted);
        }
        self.insert(key, time, now);
    }

    /// A line tells of a finish: the seconds since its start. Zero where the times go backwards; the times at which the
    /// lines were read, where one of them has none of its own.
    pub(super) fn finish(&mut self, key: u128, time: Option<i64>, now: Moment) -> Option<f64> {
        let found = self.remove(key);
        self.pass(time, now);
        let Some(open) = found else {
            self.count(Unpaired::Unmatched);
            return None;
        };
        let millis = match (open.time, time) {
            (Some(start), Some(finish)) => finish.saturating_sub(start),
            _ => now.wall.saturating_sub(open.read.wall),
        };
        if millis > self.expire {
            self.count(Unpaired::Expired);
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "durations are far below 2^53 ms")]
        Some(millis.max(0) as f64 / 1000.0)
    }

    /// Gives up what has been open for too long, by the log's clock or by ours.
    pub(super) fn expire(&mut self, now: Moment) {
        while let Some((place, key)) = self.order.first_key_value().map(|(place, key)| (*place, *key)) {
            let is_late = self.open.get(&key).is_none_or(|open| {
                open.time.is_some_and(|time| self.latest.saturating_sub(time) > self.expire)
                    || now.uptime.saturating_sub(open.read.uptime) > self.expire
            });
            if !is_late {
                return;
            }
            self.order.remove(&place);
            self.open.remove(&key);
            self.count(Unpaired::Expired);
        }
    }

    /// How many had no partner since this was asked last, by [`Unpaired::ALL`].
    pub(super) fn take_unpaired(&mut self) -> [u32; 4] {
        std::mem::take(&mut self.unpaired)
    }

    /// What is kept over a restart.
    pub(super) fn state(&self, now: Moment) -> PairsState {
        let open = self.order.values().filter_map(|key| {
            let Open { time, read, .. } = *self.open.get(key)?;
            Some(OpenState { key: *key, time, read: read.wall, age: now.uptime.saturating_sub(read.uptime) })
        });
        PairsState { latest: self.latest, open: open.collect() }
    }

    /// Takes over what was open when an earlier run ended. While nobody ran, nothing grows older.
    pub(super) fn restore(&mut self, state: &PairsState, now: Moment) {
        self.latest = state.latest;
        for OpenState { key, time, read, age } in &state.open {
            self.insert(*key, *time, Moment { wall: *read, uptime: now.uptime.saturating_sub(*age) });
        }
    }

    /// The log's clock goes on, but never beyond ours: one line from the future must not end every wait.
    fn pass(&mut self, time: Option<i64>, now: Moment) {
        self.latest = self.latest.max(time.map_or(i64::MIN, |time| time.min(now.wall)));
        self.expire(now);
    }

    fn insert(&mut self, key: u128, time: Option<i64>, read: Moment) {
        let place = self.next;
        self.next += 1;
        self.open.insert(key, Open { place, time, read });
        self.order.insert(place, key);
    }

    fn remove(&mut self, key: u128) -> Option<Open> {
        let open = self.open.remove(&key)?;
        self.order.remove(&open.place);
        Some(open)
    }

    fn count(&mut self, why: Unpaired) {
        self.unpaired[why as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;

    fn at(uptime: i64) -> Moment {
        Moment { wall: 1000 * DAY + uptime, uptime }
    }

    fn pairs() -> Pairs {
        Pairs::new(2 * HOUR, 3)
    }

    #[test]
    fn a_duration_is_by_the_lines_own_time_however_late_they_are_read() {
        let mut pairs = pairs();
        pairs.start(1, Some(DAY), at(0));
        pairs.start(2, None, at(1000));
        pairs.start(3, Some(DAY + 500), at(1000));
        assert_eq!(pairs.finish(1, Some(DAY + 323_400), at(5)), Some(323.4));
        assert_eq!(pairs.finish(2, Some(DAY), at(3500)), Some(2.5), "one time is missing: when they were read");
        assert_eq!(pairs.finish(3, Some(DAY), at(3500)), Some(0.0), "backwards");
        assert_eq!(pairs.finish(1, Some(DAY), at(3500)), None);
        assert_eq!((pairs.take_unpaired(), pairs.len()), ([0, 0, 0, 1], 0));
    }

    #[test]
    fn what_is_open_is_bounded_and_what_is_given_up_is_counted() {
        let mut pairs = pairs();
        for key in 0..1000 {
            pairs.start(key, Some(DAY), at(0));
            assert!(pairs.len() <= 3 && pairs.order.len() == pairs.len());
        }
        pairs.start(999, Some(DAY), at(0));
        assert_eq!((pairs.take_unpaired(), pairs.len()), ([0, 997, 1, 0], 3));
        assert_eq!(pairs.finish(999, Some(DAY + 1000), at(0)), Some(1.0));
    }

    #[test]
    fn an_open_start_ends_by_the_clock_of_the_log_or_by_ours() {
        let mut pairs = pairs();
        pairs.start(1, Some(DAY), at(0));
        pairs.start(2, Some(DAY + HOUR), at(1));
        // Two hours and more have passed in the log for the first, within seconds of ours.
        pairs.start(3, Some(DAY + 2 * HOUR + 1), at(2));
        assert_eq!((pairs.take_unpaired(), pairs.len()), ([1, 0, 0, 0], 2));
        pairs.expire(at(2 * HOUR + 1));
        assert_eq!(pairs.len(), 2);
        pairs.expire(at(2 * HOUR + 3));
        assert_eq!((pairs.take_unpaired(), pairs.len()), ([2, 0, 0, 0], 0));
        // A finish that comes later than allowed expires, whether or not its start has already been given up.
        pairs.start(4, Some(DAY), at(0));
        assert_eq!(pairs.finish(4, Some(DAY + 2 * HOUR + 1), at(0)), None);
        assert_eq!(pairs.take_unpaired(), [1, 0, 0, 0]);
    }

    #[test]
    fn a_line_from_the_future_ends_no_wait() {
        let mut pairs = pairs();
        pairs.start(1, Some(1000 * DAY), at(0));
        pairs.start(2, Some(100_000 * DAY), at(1));
        assert_eq!((pairs.take_unpaired(), pairs.len()), ([0; 4], 2));
        // A jump of our wall clock ends none, either.
        pairs.expire(Moment { wall: 2000 * DAY, uptime: 5 });
        assert_eq!(pairs.len(), 2);
    }

    #[test]
    fn what_is_open_survives_a_restart() {
        let mut before = pairs();
        before.start(1, Some(DAY), at(0));
        before.start(2, None, at(HOUR));
        let state = before.state(at(HOUR));
        let mut after = pairs();
        // A process that has just begun, a day later.
        let start = Moment { wall: 1001 * DAY, uptime: 7 };
        after.restore(&state, start);
        assert_eq!(after.state(start), state);
        after.expire(Moment { uptime: 7 + HOUR, ..start });
        assert_eq!(after.len(), 2);
        assert_eq!(after.finish(1, Some(DAY + 5000), start), Some(5.0));
        after.expire(Moment { uptime: 8 + 2 * HOUR, ..start });
        assert_eq!(after.len(), 0);
    }
}
