//! From single looks to a verdict: one lost packet changes nothing, one lucky answer neither. Pure.

use crate::clock::Now;
use crate::config::health::Timing;
use crate::health::outcome::Outcome;

/// What a check is held to be.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Verdict {
    /// It passes.
    Up,
    /// It passes, and slower than it should.
    Degraded,
    /// It fails.
    Down,
}

/// A check's past, as far as it matters.
#[derive(Clone, Debug)]
pub struct CheckState {
    /// `None` before the first look: unknown.
    pub verdict: Option<Verdict>,
    /// When the verdict became what it is.
    pub since: Now,
    /// When it was last found to pass again after it had been down.
    pub recovered: Option<Now>,
    /// The last look, and when it ended.
    pub last: Option<(Outcome, Now)>,
    /// How many looks in a row ended like the last one (passed or failed).
    pub consecutive: u32,
    streaks: Streaks,
}

/// How many looks in a row were at least, or at most, this bad.
#[derive(Clone, Copy, Debug, Default)]
struct Streaks {
    up: u32,
    at_most_degraded: u32,
    at_least_degraded: u32,
    down: u32,
}

/// A verdict that has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transition {
    /// What it was; `None` for the first one.
    pub from: Option<Verdict>,
    /// What it is.
    pub to: Verdict,
}

// === impl CheckState ===

impl CheckState {
    /// A check that has not been looked at.
    #[must_use]
    pub fn new(now: Now) -> Self {
        Self { verdict: None, since: now, recovered: None, last: None, consecutive: 0, streaks: Streaks::default() }
    }

    /// Takes the outcome of a look in. The first one decides at once: there is nothing yet to hold on to.
    pub fn observe(&mut self, outcome: Outcome, timing: &Timing, now: Now) -> Option<Transition> {
        let outcome = outcome.after(self.last.as_ref().map(|(last, _)| last));
        let level = outcome.level(timing);
        let same = self.last.as_ref().is_some_and(|(last, _)| last.failure.is_some() == outcome.failure.is_some());
        self.consecutive = if same { self.consecutive.saturating_add(1) } else { 1 };
        self.streaks.count(level);
        self.last = Some((outcome, now));
        let next = match self.verdict {
            None => level,
            Some(verdict) => self.streaks.decide(verdict, timing),
        };
        if self.verdict == Some(next) {
            return None;
        }
        let from = self.verdict.replace(next);
        self.since = now;
        if from == Some(Verdict::Down) {
            self.recovered = Some(now);
        }
        Some(Transition { from, to: next })
    }

    /// Whether the last look is too old to say anything: its checker hangs, or the process was stopped.
    #[must_use]
    pub fn is_stale(&self, timing: &Timing, now: Now) -> bool {
        let limit = (timing.interval + timing.timeout).mul_f64(2.5);
        self.last.as_ref().is_some_and(|(_, at)| now.monotonic.saturating_duration_since(at.monotonic) > limit)
    }

    /// Whether the last look failed.
    #[must_use]
    pub fn fails_now(&self) -> bool {
        self.last.as_ref().is_some_and(|(outcome, _)| outcome.failure.is_some())
    }
}

// === impl Streaks ===

impl Streaks {
    fn count(&mut self, level: Verdict) {
        let next = |streak: u32, goes_on: bool| if goes_on { streak.saturating_add(1) } else { 0 };
        self.up = next(self.up, level == Verdict::Up);
        self.at_most_degraded = next(self.at_most_degraded, level <= Verdict::Degraded);
        self.at_least_degraded = next(self.at_least_degraded, level >= Verdict::Degraded);
        self.down = next(self.down, level == Verdict::Down);
    }

    fn decide(self, verdict: Verdict, timing: &Timing) -> Verdict {
        match verdict {
            _ if self.down >= timing.fail_after => Verdict::Down,
            Verdict::Up if self.at_least_degraded >= timing.fail_after => Verdict::Degraded,
            Verdict::Degraded | Verdict::Down if self.up >= timing.pass_after => Verdict::Up,
            Verdict::Down if self.at_most_degraded >= timing.pass_after => Verdict::Degraded,
            verdict => verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::health::outcome::Reason;

    const TIMING: Timing = Timing {
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        fail_after: 3,
        pass_after: 2,
        degraded_after: Some(Duration::from_millis(500)),
    };

    fn outcome(letter: char) -> Outcome {
        match letter {
            'p' => Outcome::pass(Duration::from_millis(1)),
            's' => Outcome::pass(Duration::from_millis(700)),
            _ => Outcome::fail(Reason::Timeout, Duration::from_secs(2)),
        }
    }

    /// `looks`: p pass, s slow, f fail. `verdicts`: U up, D degraded, X down.
    #[track_caller]
    fn check(looks: &str, verdicts: &str) {
        let mut state = CheckState::new(Now::read());
        let found: String = looks
            .chars()
            .map(|look| {
                state.observe(outcome(look), &TIMING, Now::read());
                match state.verdict {
                    Some(Verdict::Up) => 'U',
                    Some(Verdict::Degraded) => 'D',
                    Some(Verdict::Down) => 'X',
                    None => '?',
                }
            })
            .collect();
        assert_eq!(found, verdicts, "{looks}");
    }

    #[test]
    fn verdicts_change_after_enough_looks_in_a_row() {
        check("pffp", "UUUU");
        check("pfffpfpp", "UUUXXXXU");
        check("fpp", "XXU");
        check("f", "X");
        check("pfpfpfpf", "UUUUUUUU");
        check("psssp", "UUUDD");
        check("pssspp", "UUUDDU");
        check("pssffff", "UUUDDXX");
        check("pfffss", "UUUXXD");
        check("pfffsp", "UUUXXD");
        check("pfffspp", "UUUXXDU");
    }

    #[test]
    fn an_old_look_says_nothing() {
        let start = Now::read();
        let mut state = CheckState::new(start);
        assert!(!state.is_stale(&TIMING, start));
        state.observe(outcome('p'), &TIMING, start);
        let later = |seconds| Now { monotonic: start.monotonic + Duration::from_secs(seconds), wall: start.wall };
        assert!(!state.is_stale(&TIMING, later(17)));
        assert!(state.is_stale(&TIMING, later(18)));
    }

    proptest! {
        #[test]
        fn down_is_never_reached_with_fewer_failures_than_asked_for(looks in "p[psf]{0,40}") {
            let mut state = CheckState::new(Now::read());
            let mut failures = 0;
            let mut passes = 0;
            for look in looks.chars() {
                let before = state.verdict;
                state.observe(outcome(look), &TIMING, Now::read());
                failures = if look == 'f' { failures + 1 } else { 0 };
                passes = if look == 'f' { 0 } else { passes + 1 };
                if before != Some(Verdict::Down) && state.verdict == Some(Verdict::Down) {
                    prop_assert!(failures >= 3);
                }
                if before == Some(Verdict::Down) && state.verdict != Some(Verdict::Down) {
                    prop_assert!(passes >= 2);
                }
            }
        }
    }
}
