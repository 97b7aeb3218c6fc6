//! When a collector reads next, and when what it read last is no longer known. Pure.

use std::time::{Duration, Instant};

/// A value that could not be read so often in a row is withdrawn: unknown is absent, not stale.
const MISSES_BEFORE_UNKNOWN: u32 = 3;

/// Reading takes at most a twentieth of the time: a question that is slow on this database is asked less often.
const SPARE: u32 = 20;

/// The beat of one collector.
#[derive(Clone, Debug)]
pub(super) struct Beat {
    every: Duration,
    due: Instant,
    misses: u32,
}

// === impl Beat ===

impl Beat {
    /// Reads at once, and then on its interval.
    pub(super) fn new(every: Duration, now: Instant) -> Self {
        Self { every, due: now, misses: 0 }
    }

    /// When it reads next.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// It has been read. `jitter` is between 0 and 1.
    pub(super) fn succeeded(&mut self, now: Instant, took: Duration, jitter: f64) {
        self.misses = 0;
        self.due = now + spread(self.every.max(took.saturating_mul(SPARE)), jitter);
    }

    /// It could not be read. Returns whether what was read last is known no longer.
    pub(super) fn failed(&mut self, now: Instant, jitter: f64) -> bool {
        self.misses = self.misses.saturating_add(1);
        self.due = now + spread(self.every, jitter);
        self.misses >= MISSES_BEFORE_UNKNOWN
    }
}

/// An interval within 10 % of the given one: collectors that start together do not stay together.
fn spread(every: Duration, jitter: f64) -> Duration {
    every.mul_f64(0.9 + 0.2 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(10);

    #[test]
    fn the_third_miss_in_a_row_makes_a_value_unknown() {
        let now = Instant::now();
        let mut beat = Beat::new(EVERY, now);
        assert_eq!(beat.due(), now);
        assert_eq!([(); 4].map(|()| beat.failed(now, 0.5)), [false, false, true, true]);
        beat.succeeded(now, Duration::ZERO, 0.5);
        assert!(!beat.failed(now, 0.5));
    }

    #[test]
    fn a_slow_question_is_asked_less_often_and_a_failed_one_is_not() {
        let now = Instant::now();
        let mut beat = Beat::new(EVERY, now);
        beat.succeeded(now, Duration::from_secs(2), 0.5);
        assert_eq!(beat.due() - now, Duration::from_secs(40));
        beat.succeeded(now, Duration::from_millis(20), 0.0);
        assert_eq!(beat.due() - now, Duration::from_secs(9));
        beat.failed(now, 1.0);
        assert_eq!(beat.due() - now, Duration::from_secs(11));
    }
}
