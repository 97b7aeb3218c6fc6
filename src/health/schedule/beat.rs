//! When a check is looked at: early once, then on its interval with a jitter. Pure: chance is an argument.

use std::time::Duration;

/// The first looks are spread over at most this time: two replicas that start together do not ask together, and the
/// first round is still done within a second.
const FIRST_PHASE: Duration = Duration::from_millis(250);

/// The beat of one check.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beat {
    interval: Duration,
    looks: u32,
}

// === impl Beat ===

impl Beat {
    pub fn new(interval: Duration) -> Self {
        Self { interval, looks: 0 }
    }

    /// How long after the begin of one look the next one begins; at first, how long after the start. `chance` is from 0
    /// to 1.
    ///
    /// The second look comes at any time within the interval: that is what parts the beats of checks and replicas that
    /// started together. Measured elsewhere: a random first phase took p95 of the targets from 6.8 s to 1.5 s
    /// (hertzbeat#4328). It is not the first look that waits, so that a start needs no interval to know everything.
    pub fn next(&mut self, chance: f64) -> Duration {
        self.looks = self.looks.saturating_add(1);
        match self.looks {
            1 => FIRST_PHASE.min(self.interval).mul_f64(chance),
            // Not at once: a look that found nothing must be given time to find something.
            2 => self.interval.mul_f64(0.1 + 0.9 * chance),
            _ => self.interval.mul_f64(0.9 + 0.2 * chance),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// H15: two replicas with a hundred targets each, started in the same moment. Chance has a fixed seed.
    #[test]
    fn checks_and_replicas_that_start_together_part() {
        let interval = Duration::from_secs(5);
        let mut chance = fastrand::Rng::with_seed(15);
        let mut tenths = [0_u32; 10];
        let mut firsts = Vec::new();
        for _ in 0..200 {
            let mut beat = Beat::new(interval);
            let first = beat.next(chance.f64());
            firsts.push(first);
            let second = first + beat.next(chance.f64());
            // Where the beat stands within the interval from the second look on.
            let phase = (second.as_secs_f64() / interval.as_secs_f64()).fract();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 9")]
            let tenth = (phase * 10.0) as usize;
            tenths[tenth] += 1;
        }
        assert!(firsts.iter().all(|first| *first <= FIRST_PHASE), "the first round waits for no interval");
        assert!(tenths.iter().all(|looks| (5..=45).contains(looks)), "200 targets, 20 for each tenth: {tenths:?}");
    }

    #[test]
    fn the_jitter_is_a_tenth_to_both_sides() {
        let mut beat = Beat::new(Duration::from_secs(10));
        let (_, earliest_second) = (beat.next(0.0), beat.next(0.0));
        assert_eq!(earliest_second, Duration::from_secs(1));
        for chance in [0.0, 0.5, 1.0] {
            let next = beat.next(chance).as_secs_f64();
            assert!((9.0..=11.0).contains(&next), "{next}");
        }
    }
}
