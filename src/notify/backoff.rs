//! When to try again: later and later, and never before the receiver wants it. Pure: `now` and chance are arguments.

use std::time::Duration;

/// The first pause, in milliseconds.
const FIRST: i64 = 1000;
/// No pause is longer, so that a receiver that is back is told within this time: 5 minutes, in milliseconds.
const LONGEST: i64 = 300_000;
/// No longer pause is granted to a receiver that asks for one: an hour, in milliseconds.
const LONGEST_ASKED: i64 = 3_600_000;

/// How often it failed, and until when nothing is tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
    until: Option<i64>,
}

// === impl Backoff ===

impl Backoff {
    /// When something may be tried, on the clock of `now`; `None` is at once.
    #[must_use]
    pub fn until(&self) -> Option<i64> {
        self.until
    }

    /// How often it has failed in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// It works.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// It failed at `now` (milliseconds). `chance` spreads what failed together; `asked` is what the receiver asks for.
    pub fn fail(&mut self, now: i64, chance: u32, asked: Option<Duration>) {
        let full = FIRST.saturating_mul(1 << self.failures.min(20)).min(LONGEST);
        let spread = full / 2 + (full / 2) * i64::from(chance % 1024) / 1023;
        let asked = asked.map_or(0, |asked| i64::try_from(asked.as_millis()).unwrap_or(i64::MAX).min(LONGEST_ASKED));
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + spread.max(asked));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_minutes_and_a_receiver_may_ask_for_an_hour() {
        let mut backoff = Backoff::default();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            backoff.fail(0, 1023, None);
            pauses.push(backoff.until().unwrap() / 1000);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        backoff.fail(10, 0, None);
        assert_eq!(backoff.until(), Some(150_010));
        backoff.fail(0, 0, Some(Duration::from_secs(900)));
        assert_eq!(backoff.until(), Some(900_000));
        backoff.fail(0, 0, Some(Duration::MAX));
        assert_eq!(backoff.until(), Some(3_600_000));
        backoff.reset();
        assert_eq!((backoff.until(), backoff.failures()), (None, 0));
        backoff.fail(0, 0, Some(Duration::from_millis(1)));
        assert_eq!(backoff.until(), Some(500));
    }
}
