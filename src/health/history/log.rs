//! The history itself: for each check the seconds up and down, and its transitions. Pure.
//!
//! Bounded: 61 minutes, 721 hours and 256 transitions a check. That is about 17 KiB of memory and at most 14 KiB in the
//! file for a check that has been watched for a month, and 300 names.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock::Now;
use crate::health::aggregate::{CheckView, Snapshot, State};
use crate::health::history::slots::Slots;
pub use crate::health::history::slots::{Kind, Seconds};

/// Transitions that are kept of a check. One that flaps more than eight times a day for a month loses the oldest.
const TRANSITIONS: usize = 256;
/// Names of checks that are kept: those that a configuration had a while ago count too.
const NAMES: usize = 300;
/// A longer time between two samples was a process that was stopped: what was meanwhile is not known.
const LONGEST_STEP: Duration = Duration::from_secs(10);

/// A time to look back over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Window {
    /// To the minute.
    Hour,
    /// To the hour, as all that follow.
    Day,
    /// Seven days.
    Week,
    /// Thirty days.
    Month,
}

/// The history of all checks.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Log {
    checks: BTreeMap<String, Past>,
    /// When the last sample was taken, in milliseconds of the wall clock.
    sampled: i64,
    #[serde(skip)]
    last: Option<Instant>,
}

/// The history of one check.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Past {
    minutes: Slots,
    hours: Slots,
    transitions: VecDeque<Transition>,
    dropped: u32,
    /// What it was at the last sample.
    code: Code,
    is_maintained: bool,
    /// Time that is not a whole second yet.
    #[serde(skip)]
    rest: Duration,
    /// Whether the configuration had it at the last sample.
    #[serde(skip)]
    is_watched: bool,
}

/// A change of what a check is held to be.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Transition {
    /// When, in milliseconds of the wall clock.
    pub at: i64,
    /// What it was.
    pub from: Code,
    /// What it is.
    pub to: Code,
    /// Whether it was in maintenance.
    pub is_maintained: bool,
}

/// A verdict, as it is kept.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Code {
    /// Not looked at, or nobody looked.
    #[default]
    Unknown,
    /// It passes.
    Up,
    /// It passes slowly.
    Degraded,
    /// It fails.
    Down,
    /// Its last look is too old, or broke.
    Stale,
}

/// What is shown of all checks at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// The uptime of those that are watched, in the order of their names.
    pub uptimes: Vec<Uptime>,
    /// The last changes of any, the latest first.
    pub changes: Vec<Change>,
}

/// The seconds of one check in all windows.
#[derive(Clone, Debug, PartialEq)]
pub struct Uptime {
    /// Its name.
    pub check: String,
    /// In the order of [`Window::ALL`].
    pub windows: [Seconds; 4],
}

/// A transition and whose it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The check's name.
    pub check: String,
    /// What has changed.
    pub transition: Transition,
}

/// What is known of one check within a window.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckReport {
    /// Its name.
    pub check: String,
    /// The seconds by what it was.
    pub uptime: Seconds,
    /// The seconds of which nothing is known.
    pub unknown: u32,
    /// Its transitions, oldest first.
    pub transitions: Vec<Transition>,
    /// How many older ones have been dropped.
    pub dropped: u32,
}

// === impl Window ===

impl Window {
    /// All windows.
    pub const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Week, Self::Month];

    /// Its name, as a label value and in addresses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "24h",
            Self::Week => "7d",
            Self::Month => "30d",
        }
    }

    /// The window of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|window| window.name() == name)
    }

    /// How many slots it takes: the one that has begun, and all that are full.
    fn slots(self) -> u32 {
        match self {
            Self::Hour => 61,
            Self::Day => 25,
            Self::Week => 7 * 24 + 1,
            Self::Month => 30 * 24 + 1,
        }
    }
}

// === impl Log ===

impl Log {
    /// Goes on after a restart: since the last sample, nothing is known.
    pub fn resume(&mut self, wall: Timestamp) {
        let sampled = self.sampled.min(wall.as_millisecond());
        for past in self.checks.values_mut() {
            past.become_code(Code::Unknown, past.is_maintained, sampled);
        }
        self.last = None;
    }

    /// Writes down what has been since the last sample, and what is now.
    pub fn sample(&mut self, snapshot: &Snapshot, now: Now) {
        let step = self.last.replace(now.monotonic).map_or(Duration::ZERO, |last| now.monotonic.saturating_duration_since(last));
        let wall = now.wall.as_millisecond();
        let known_step = if step > LONGEST_STEP { Duration::ZERO } else { step };
        self.sampled = wall;
        let month = i64::from(Window::Month.slots()) * 3_600_000;
        self.checks.retain(|name, past| {
            past.is_watched = snapshot.check(name).is_some();
            if past.is_watched {
                past.pass_time(known_step, wall.div_euclid(1000));
            } else {
                past.become_code(Code::Unknown, false, wall);
            }
            past.is_watched || past.last_change().is_some_and(|last| last >= wall.saturating_sub(month))
        });
        for check in &snapshot.checks {
            if !self.checks.contains_key(&check.name) {
                self.make_room(snapshot);
                self.checks.insert(check.name.clone(), Past::default());
            }
            if let Some(past) = self.checks.get_mut(&check.name) {
                past.is_watched = true;
                past.become_code(Code::of(check), check.maintenance.is_some(), wall);
            }
        }
    }

    /// What is known of one check, or of all. `None` when there is no such check.
    #[must_use]
    pub fn report(&self, check: Option<&str>, window: Window, wall: Timestamp) -> Option<Vec<CheckReport>> {
        let report = |(name, past): (&String, &Past)| past.report(name, window, wall);
        match check {
            Some(check) => self.checks.get_key_value(check).map(|entry| vec![report(entry)]),
            None => Some(self.checks.iter().map(report).collect()),
        }
    }

    /// The uptime of all checks that are watched, and at most so many changes of any.
    #[must_use]
    pub fn summary(&self, changes: usize, wall: Timestamp) -> Summary {
        let watched = self.checks.iter().filter(|(_, past)| past.is_watched);
        let uptimes = watched.map(|(name, past)| Uptime {
            check: name.clone(),
            windows: Window::ALL.map(|window| past.slots(window).sum(window.slots(), wall.as_second())),
        });
        let latest = |(name, past)| {
            let transitions = Past::transitions(past).rev().take(changes);
            transitions.map(move |transition| Change { check: String::clone(name), transition: *transition })
        };
        let mut last: Vec<Change> = self.checks.iter().flat_map(latest).collect();
        last.sort_by_key(|change| std::cmp::Reverse(change.transition.at));
        last.truncate(changes);
        Summary { uptimes: uptimes.collect(), changes: last }
    }

    /// Forgets the check that has been gone for the longest time, where there are too many.
    fn make_room(&mut self, snapshot: &Snapshot) {
        if self.checks.len() < NAMES {
            return;
        }
        let gone = self.checks.iter().filter(|(name, _)| snapshot.check(name).is_none());
        if let Some(oldest) = gone.min_by_key(|(_, past)| past.last_change()).map(|(name, _)| name.clone()) {
            self.checks.remove(&oldest);
        }
    }
}

// === impl Past ===

impl Default for Past {
    fn default() -> Self {
        Self {
            minutes: Slots::new(60, Window::Hour.slots()),
            hours: Slots::new(3600, Window::Month.slots()),
            transitions: VecDeque::new(),
            dropped: 0,
            code: Code::Unknown,
            is_maintained: false,
            rest: Duration::ZERO,
            is_watched: false,
        }
    }
}

impl Past {
    /// Adds whole seconds of what it has been.
    fn pass_time(&mut self, step: Duration, wall: i64) {
        let is_up = match self.code {
            Code::Up | Code::Degraded => true,
            Code::Down | Code::Stale => false,
            Code::Unknown => return,
        };
        let time = self.rest + step;
        self.rest = Duration::from_nanos(u64::from(time.subsec_nanos()));
        let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        let kind = Kind { is_up, is_maintained: self.is_maintained };
        if seconds > 0 {
            self.minutes.add(kind, seconds, wall);
            self.hours.add(kind, seconds, wall);
        }
    }

    fn become_code(&mut self, code: Code, is_maintained: bool, wall: i64) {
        let from = std::mem::replace(&mut self.code, code);
        self.is_maintained = is_maintained;
        if from == code {
            return;
        }
        if self.transitions.len() >= TRANSITIONS {
            self.transitions.pop_front();
            self.dropped = self.dropped.saturating_add(1);
        }
        self.transitions.push_back(Transition { at: wall, from, to: code, is_maintained });
    }

    fn slots(&self, window: Window) -> &Slots {
        if window == Window::Hour { &self.minutes } else { &self.hours }
    }

    fn transitions(&self) -> impl DoubleEndedIterator<Item = &Transition> {
        self.transitions.iter()
    }

    /// When it last became something else, in milliseconds of the wall clock.
    fn last_change(&self) -> Option<i64> {
        self.transitions.back().map(|transition| transition.at)
    }

    fn report(&self, name: &str, window: Window, wall: Timestamp) -> CheckReport {
        let seconds = wall.as_second();
        let slots = self.slots(window);
        let (uptime, span) = (slots.sum(window.slots(), seconds), slots.span(window.slots(), seconds));
        let from = (seconds - i64::from(span)) * 1000;
        CheckReport {
            check: name.to_owned(),
            uptime,
            unknown: span.saturating_sub(uptime.known()),
            transitions: self.transitions.iter().filter(|transition| transition.at >= from).copied().collect(),
            dropped: self.dropped,
        }
    }
}

// === impl Code ===

impl Code {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Stale => "stale",
        }
    }

    fn of(check: &CheckView) -> Self {
        match check.verdict {
            State::Up => Self::Up,
            State::Degraded => Self::Degraded,
            State::Down => Self::Down,
            State::Stale => Self::Stale,
            // The last two are never verdicts.
            State::Unknown | State::Maintenance | State::Suppressed => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
