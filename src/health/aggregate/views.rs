//! What is known at one moment, as everybody reads it. Pure data.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Now;
use crate::config::health::LOCAL_NETWORK;
use crate::health::outcome::{Reason, Warning};

/// Everything that is known at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was taken.
    pub at: Now,
    /// The checks, in the order of the configuration.
    pub checks: Vec<CheckView>,
    /// The groups; `readiness` is the first.
    pub groups: Vec<GroupView>,
    /// Everything beyond this machine is out of reach at once: the cause is here, not there.
    pub local_network: bool,
}

/// What is known about one check.
#[derive(Clone, Debug)]
pub struct CheckView {
    /// Its name.
    pub name: String,
    /// `component` or `datastore`, as health documents call it.
    pub component_type: &'static str,
    /// The truth: up, degraded, down, unknown or stale.
    pub verdict: State,
    /// How to treat it: the verdict, or maintenance, or suppressed.
    pub state: State,
    /// Since when the verdict holds.
    pub since: Timestamp,
    /// Whether readiness depends on it.
    pub critical: bool,
    /// A reload has added it, and its first look is under way.
    pub is_joining: bool,
    /// The last look.
    pub last: Option<LastLook>,
    /// How many looks in a row ended like the last one.
    pub consecutive: u32,
    /// How often it is looked at.
    pub interval: Duration,
    /// Why it is not known to pass: the reason of the last failure, `stale` or `panic`.
    pub reason: Option<&'static str>,
    /// The failing check that explains this one's failure, or `local_network`.
    pub suppressed_by: Option<String>,
    /// Fails, and nothing else explains it.
    pub is_root_cause: bool,
    /// Failures are expected now.
    pub maintenance: Option<MaintenanceView>,
}

/// A maintenance that is going on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MaintenanceView {
    /// When it ends.
    pub until: Timestamp,
    /// What was said when it was asked for; only for those who may see details.
    pub reason: Option<Arc<str>>,
}

/// The last look at a check.
#[derive(Clone, Debug)]
pub struct LastLook {
    /// When it ended.
    pub at: Timestamp,
    /// How long ago that is.
    pub age: Duration,
    /// How long it took.
    pub duration: Duration,
    /// Why it failed; `None` for a pass.
    pub failure: Option<Reason>,
    /// What is not as it should be although it passed.
    pub warning: Option<Warning>,
    /// More, for those who may see it.
    pub detail: Option<String>,
    /// Until when the certificate is valid that was seen last.
    pub certificate_end: Option<Timestamp>,
}

/// What a check is held to be, the doubts included.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum State {
    /// It passes.
    Up,
    /// It passes, and slower than it should.
    Degraded,
    /// It fails.
    Down,
    /// It has not been looked at yet.
    Unknown,
    /// The last look is too old to say anything, or it broke.
    Stale,
    /// Failures are expected now. Never a verdict.
    Maintenance,
    /// It is down because of another one. Never a verdict.
    Suppressed,
}

/// Whether a group of checks is ready.
#[derive(Clone, Debug)]
pub struct GroupView {
    /// Its name.
    pub name: String,
    /// The numbers of its checks.
    pub checks: Vec<usize>,
    /// All of them pass.
    pub ready: bool,
}

/// The status of a health document.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Status {
    /// All is well.
    Pass,
    /// Ready, and something is not as it should be.
    Warn,
    /// Not ready.
    Fail,
}

// === impl Snapshot ===

impl Snapshot {
    /// The check of this name.
    #[must_use]
    pub fn check(&self, name: &str) -> Option<&CheckView> {
        self.checks.iter().find(|check| check.name == name)
    }

    /// The group of this name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&GroupView> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// What is to blame: the checks that fail without another one that explains it, or `local_network`.
    pub fn root_causes(&self) -> impl Iterator<Item = &str> {
        let network = self.local_network.then_some(LOCAL_NETWORK);
        network.into_iter().chain(self.checks.iter().filter(|check| check.is_root_cause).map(|check| check.name.as_str()))
    }

    /// The status of the whole: fail when a critical check is not known to pass, warn when anything else is wrong.
    #[must_use]
    pub fn status(&self) -> Status {
        if self.checks.iter().any(|check| check.critical && !check.holds_nobody_up()) {
            Status::Fail
        } else if self.checks.iter().any(|check| check.verdict != State::Up) {
            Status::Warn
        } else {
            Status::Pass
        }
    }
}

// === impl CheckView ===

impl CheckView {
    /// Whether it is good enough to be ready. What is unknown or stale never is, and maintenance is no excuse: whoever
    /// sends requests here wants to know whether they will be answered.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(self.verdict, State::Up | State::Degraded)
    }

    /// Whether those who depend on it may be ready: it passes, or it has only just been added to the others, whose
    /// readiness stands until its first look has ended.
    #[must_use]
    pub fn holds_nobody_up(&self) -> bool {
        self.passes() || self.is_joining
    }

    /// Its status in a health document.
    #[must_use]
    pub fn status(&self) -> Status {
        match self.verdict {
            State::Up => Status::Pass,
            State::Degraded => Status::Warn,
            _ if self.is_joining => Status::Warn,
            _ => Status::Fail,
        }
    }
}

// === impl State ===

impl State {
    /// All states, for what is exposed as zero.
    pub const ALL: [Self; 7] = [Self::Up, Self::Degraded, Self::Down, Self::Unknown, Self::Stale, Self::Maintenance, Self::Suppressed];

    /// The label value and code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Unknown => "unknown",
            Self::Stale => "stale",
            Self::Maintenance => "maintenance",
            Self::Suppressed => "suppressed",
        }
    }
}

// === impl Status ===

impl Status {
    /// The word of draft-inadarei-api-health-check.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}
