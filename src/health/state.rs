//! From single looks to a verdict: one lost packet changes nothing, one lucky answer neither. Pure.
//!
//! Ages and times are measured with the monotonic clock, so that a jump of the wall clock changes nothing here.

use std::time::{Duration, Instant};

use crate::clock::Now;
use crate::config::health::Timing;
use crate::health::outcome::{Outcome, Reason};

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
    /// The last look broke instead of finding something: nothing is known until the next one.
    panicked: bool,
    /// The next look decides at once: there is nothing to hold on to.
    undecided: bool,
    /// A reload has added it to checks whose verdicts are known.
    joins: bool,
    /// Since when it is watched as it is defined now.
    begun: Instant,
    streaks: Streaks,
}

/// How many looks in a row were at least, or at most, this bad.
#[derive(Clone, Copy, Debug, Default)]
struct Streaks {
    up: Streak,
    at_most_degraded: Streak,
    at_least_degraded: Streak,
    down: Streak,
}

/// Looks in a row.
#[derive(Clone, Copy, Debug, Default)]
struct Streak {
    looks: u32,
    begin: Option<Instant>,
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
    /// A check that has not been looked at, as at the start of the process.
    #[must_use]
    pub fn new(now: Now) -> Self {
        Self {
            verdict: None,
            since: now,
            recovered: None,
            last: None,
            consecutive: 0,
            panicked: false,
            undecided: true,
            joins: false,
            begun: now.monotonic,
            streaks: Streaks::default(),
        }
    }

    /// A check that a reload adds to others.
    #[must_use]
    pub fn joining(now: Now) -> Self {
        Self { joins: true, ..Self::new(now) }
    }

    /// The state of a check whose definition has changed. The old verdict stands until the next look, which decides at
    /// once: a reload of a component that is well must not take it out of rotation. Nor does it become stale by a shorter
    /// interval before that has passed.
    #[must_use]
    pub fn redefined(&self, now: Now) -> Self {
        Self { undecided: true, begun: now.monotonic, streaks: Streaks::default(), ..self.clone() }
    }

    /// Takes the outcome of a look in. The first one decides at once: there is nothing yet to hold on to.
    pub fn observe(&mut self, outcome: Outcome, timing: &Timing, now: Now) -> Option<Transition> {
        let outcome = outcome.after(self.last.as_ref().map(|(last, _)| last));
        let level = outcome.level(timing);
        let same = self.last.as_ref().is_some_and(|(last, _)| last.failure.is_some() == outcome.failure.is_some());
        self.consecutive = if same { self.consecutive.saturating_add(1) } else { 1 };
        self.streaks.count(level, now.monotonic);
        self.last = Some((outcome, now));
        self.panicked = false;
        let undecided = std::mem::take(&mut self.undecided);
        let next = match self.verdict {
            Some(verdict) if !undecided && self.dwells(timing, now) => verdict,
            Some(verdict) if !undecided => self.streaks.decide(verdict, timing, now.monotonic),
            _ => level,
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

    /// Notes that the look itself broke. It says nothing of the component, so no streak goes on or ends; the verdict is
    /// stale until a look ends by itself.
    pub fn break_down(&mut self, now: Now) {
        let outcome = Outcome::fail(Reason::Panic, Duration::ZERO).after(self.last.as_ref().map(|(last, _)| last));
        self.last = Some((outcome, now));
        self.panicked = true;
    }

    /// Whether the last look is too old to say anything, or broke: its checker hangs, or the process was stopped.
    #[must_use]
    pub fn is_stale(&self, timing: &Timing, now: Now) -> bool {
        let is_old = self.last.as_ref().is_some_and(|(_, at)| is_older(at.monotonic.max(self.begun), timing, now));
        is_old || self.panicked
    }

    /// Whether it was added by a reload and its first look is still under way: what was known before must not be put in
    /// doubt by a question that nobody has answered yet. It ends with the first look, however that ends, and after the
    /// time in which any verdict would be stale.
    #[must_use]
    pub fn is_joining(&self, timing: &Timing, now: Now) -> bool {
        self.joins && self.last.is_none() && !is_older(self.begun, timing, now)
    }

    /// Whether the last look broke.
    #[must_use]
    pub fn has_panicked(&self) -> bool {
        self.panicked
    }

    /// Whether the last look failed.
    #[must_use]
    pub fn fails_now(&self) -> bool {
        self.last.as_ref().is_some_and(|(outcome, _)| outcome.failure.is_some())
    }

    fn dwells(&self, timing: &Timing, now: Now) -> bool {
        timing.hold.min_dwell.is_some_and(|dwell| now.monotonic.saturating_duration_since(self.since.monotonic) < dwell)
    }
}

/// Whether a moment is too long ago for what was known then to be true still.
fn is_older(moment: Instant, timing: &Timing, now: Now) -> bool {
    now.monotonic.saturating_duration_since(moment) > (timing.interval + timing.timeout).mul_f64(2.5)
}

// === impl Streaks ===

impl Streaks {
    fn count(&mut self, level: Verdict, now: Instant) {
        self.up.count(level == Verdict::Up, now);
        self.at_most_degraded.count(level <= Verdict::Degraded, now);
        self.at_least_degraded.count(level >= Verdict::Degraded, now);
        self.down.count(level == Verdict::Down, now);
    }

    fn decide(self, verdict: Verdict, timing: &Timing, now: Instant) -> Verdict {
        let fails = |streak: Streak| streak.is_enough(timing.fail_after, timing.hold.fail_for, now);
        let passes = |streak: Streak| streak.is_enough(timing.pass_after, timing.hold.pass_for, now);
        match verdict {
            _ if fails(self.down) => Verdict::Down,
            Verdict::Up if fails(self.at_least_degraded) => Verdict::Degraded,
            Verdict::Degraded | Verdict::Down if passes(self.up) => Verdict::Up,
            Verdict::Down if passes(self.at_most_degraded) => Verdict::Degraded,
            verdict => verdict,
        }
    }
}

// === impl Streak ===

impl Streak {
    fn count(&mut self, goes_on: bool, now: Instant) {
        *self = if goes_on { Self { looks: self.looks.saturating_add(1), begin: self.begin.or(Some(now)) } } else { Self::default() };
    }

    /// Enough looks in a row; or, where a time is asked for, looks in a row for that long.
    fn is_enough(self, looks: u32, time: Option<Duration>, now: Instant) -> bool {
        match time {
            Some(time) => self.begin.is_some_and(|begin| now.saturating_duration_since(begin) >= time),
            None => self.looks >= looks,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::health::Hold;

    const TIMING: Timing = Timing {
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        fail_after: 3,
        pass_after: 2,
        degraded_after: Some(Duration::from_millis(500)),
        hold: Hold { fail_for: None, pass_for: None, min_dwell: None },
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

    /// Looks a second apart, with times instead of counts; the wall clock jumps an hour back and forth meanwhile.
    #[track_caller]
    fn check_times(hold: Hold, looks: &str, verdicts: &str) {
        let start = Now::read();
        let timing = Timing { hold, ..TIMING };
        let mut state = CheckState::new(start);
        let found: String = looks
            .chars()
            .zip(0_u32..)
            .map(|(look, second)| {
                let monotonic = start.monotonic + Duration::from_secs(u64::from(second));
                let wall = start.wall + jiff::SignedDuration::from_hours(if second % 2 == 0 { 1 } else { -1 });
                state.observe(outcome(look), &timing, Now { monotonic, wall });
                match state.verdict {
                    Some(Verdict::Down) => 'X',
                    _ => 'U',
                }
            })
            .collect();
        assert_eq!(found, verdicts, "{looks}");
    }

    /// H5 and H16: flapping changes nothing, dwell bounds the changes, and the wall clock has no say.
    #[test]
    fn times_may_be_asked_for_instead_of_counts() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let hold = Hold { fail_for: seconds(4), pass_for: seconds(2), min_dwell: None };
        check_times(hold, "pffffffpppp", "UUUUUXXXXUU");
        check_times(hold, "pfffpfffpfff", "UUUUUUUUUUUU");
        let dwell = Hold { min_dwell: seconds(6), ..Hold::default() };
        check_times(dwell, "pfffffffppppppp", "UUUUUUXXXXXXUUU");
        check_times(Hold::default(), "pffffppfff", "UUUXXXUUUX");
    }

    #[test]
    fn a_look_that_breaks_is_stale_until_one_ends_by_itself() {
        let now = Now::read();
        let mut state = CheckState::new(now);
        state.observe(outcome('p'), &TIMING, now);
        state.break_down(now);
        assert!(state.is_stale(&TIMING, now) && state.has_panicked() && state.verdict == Some(Verdict::Up));
        state.observe(outcome('p'), &TIMING, now);
        assert!(!state.is_stale(&TIMING, now) && !state.has_panicked());
    }

    #[test]
    fn a_redefined_check_keeps_its_verdict_until_the_next_look_decides() {
        let now = Now::read();
        let mut state = CheckState::new(now);
        state.observe(outcome('p'), &TIMING, now);
        let hour = Now { monotonic: now.monotonic + Duration::from_secs(3600), wall: now.wall };
        let mut state = state.redefined(hour);
        assert_eq!(state.verdict, Some(Verdict::Up));
        assert!(!state.is_stale(&TIMING, hour), "looked at an hour ago, as it was asked for then");
        let transition = state.observe(outcome('f'), &TIMING, now);
        assert_eq!(transition, Some(Transition { from: Some(Verdict::Up), to: Verdict::Down }));
    }

    #[test]
    fn a_check_joins_until_its_first_look_and_not_for_ever() {
        let now = Now::read();
        let later = |seconds| Now { monotonic: now.monotonic + Duration::from_secs(seconds), wall: now.wall };
        assert!(!CheckState::new(now).is_joining(&TIMING, now));
        let mut state = CheckState::joining(now);
        assert!(state.is_joining(&TIMING, later(17)) && !state.is_joining(&TIMING, later(18)));
        state.break_down(now);
        assert!(!state.is_joining(&TIMING, now), "a look that breaks has ended, too");
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
