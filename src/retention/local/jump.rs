//! Whether the wall clock has jumped: ages of files are measured by it. Pure.

use crate::clock::Moment;

/// A clock that is put right by less makes no file old: the shortest time that files are kept for is an hour.
const LEAST_MS: i64 = 600_000;
/// So long after a jump ages are not trusted; then the new time is taken for the right one.
const DISTRUST_MS: i64 = 86_400_000;

/// Compares the clock that may jump with the one that never does.
#[derive(Debug, Default)]
pub(super) struct JumpWatch {
    last: Option<Moment>,
    /// When it jumped, by the clock that does not, and how far.
    jumped: Option<(i64, i64)>,
}

// === impl JumpWatch ===

impl JumpWatch {
    /// Looks.
    pub fn look(&mut self, now: Moment) {
        if let Some(last) = self.last {
            let by = (now.wall - last.wall) - (now.uptime - last.uptime);
            if by.abs() >= LEAST_MS {
                self.jumped = Some((now.uptime, by));
            }
        }
        self.last = Some(now);
    }

    /// By how many milliseconds it has jumped within the last day.
    pub fn lately(&mut self, now: Moment) -> Option<i64> {
        self.look(now);
        self.jumped.filter(|(at, _)| now.uptime - at < DISTRUST_MS).map(|(_, by)| by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_distrusted_for_a_day_and_a_correction_is_not() {
        let mut watch = JumpWatch::default();
        let at = |uptime, wall| Moment { uptime, wall };
        assert_eq!(watch.lately(at(0, 1000)), None);
        assert_eq!(watch.lately(at(1000, 2000 + LEAST_MS - 1)), None, "a clock that was put right");
        let mut watch = JumpWatch::default();
        watch.look(at(0, 0));
        let year = 365 * DISTRUST_MS;
        assert_eq!(watch.lately(at(1000, 1000 + year)), Some(year));
        assert_eq!(watch.lately(at(DISTRUST_MS, DISTRUST_MS + year)), Some(year));
        assert_eq!(watch.lately(at(DISTRUST_MS + 1000, DISTRUST_MS + 1000 + year)), None, "the new time is the right one by now");
        assert_eq!(watch.lately(at(DISTRUST_MS + 2000, DISTRUST_MS + 2000)), Some(-year), "and back");
    }
}
