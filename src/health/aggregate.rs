//! From the states of single checks to the whole: who is ready, and who is to blame. Pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Now;
use crate::config::health::{Check, Group};
use crate::health::outcome::Reason;
use crate::health::state::{CheckState, Verdict};

/// Everything that is known at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was taken.
    pub at: Now,
    /// The checks, in the order of the configuration.
    pub checks: Vec<CheckView>,
    /// The groups; `readiness` is the first.
    pub groups: Vec<GroupView>,
}

/// What is known about one check.
#[derive(Clone, Debug)]
pub struct CheckView {
    /// Its name.
    pub name: String,
    /// `component` or `datastore`, as health documents call it.
    pub component_type: &'static str,
    /// What it is held to be.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// Whether readiness depends on it.
    pub critical: bool,
    /// The last look.
    pub last: Option<LastLook>,
    /// How many looks in a row ended like the last one.
    pub consecutive: u32,
    /// How often it is looked at.
    pub interval: Duration,
    /// The failing check that explains this one's failure.
    pub suppressed_by: Option<String>,
    /// Fails, and nothing else explains it.
    pub is_root_cause: bool,
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
    /// More, for those who may see it.
    pub detail: Option<String>,
}

/// What a check is held to be, the doubts included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// It passes.
    Up,
    /// It passes, and slower than it should.
    Degraded,
    /// It fails.
    Down,
    /// It has not been looked at yet.
    Unknown,
    /// The last look is too old to say anything.
    Stale,
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

    /// The checks that fail without another one that explains it.
    pub fn root_causes(&self) -> impl Iterator<Item = &CheckView> {
        self.checks.iter().filter(|check| check.is_root_cause)
    }

    /// The status of the whole: fail when a critical check is not known to pass, warn when anything else is wrong.
    #[must_use]
    pub fn status(&self) -> Status {
        if self.checks.iter().any(|check| check.critical && !check.state.passes()) {
            Status::Fail
        } else if self.checks.iter().any(|check| check.state != State::Up) {
            Status::Warn
        } else {
            Status::Pass
        }
    }
}

// === impl State ===

impl State {
    /// All states, for what is exposed as zero.
    pub const ALL: [Self; 5] = [Self::Up, Self::Degraded, Self::Down, Self::Unknown, Self::Stale];

    /// Whether it is good enough to be ready. What is unknown or stale never is.
    #[must_use]
    pub fn passes(self) -> bool {
        matches!(self, Self::Up | Self::Degraded)
    }

    /// The label value and code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Unknown => "unknown",
            Self::Stale => "stale",
        }
    }

    /// The status of one check in a health document.
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            Self::Up => Status::Pass,
            Self::Degraded => Status::Warn,
            Self::Down | Self::Unknown | Self::Stale => Status::Fail,
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

/// Puts the states together.
#[must_use]
pub fn aggregate(checks: &[Check], groups: &[Group], states: &[CheckState], now: Now) -> Snapshot {
    let verdicts: Vec<State> = checks.iter().zip(states).map(|(check, state)| state_of(check, state, now)).collect();
    let board = Causes { checks, states, verdicts: &verdicts };
    let causes: Vec<Option<usize>> = (0..checks.len()).map(|number| board.explanation(number)).collect();
    let views: Vec<CheckView> = (0..checks.len())
        .map(|number| CheckView {
            name: checks[number].name.clone(),
            component_type: checks[number].probe.component_type(),
            state: verdicts[number],
            since: states[number].since.wall,
            critical: checks[number].critical,
            last: states[number].last.as_ref().map(|(outcome, at)| LastLook {
                at: at.wall,
                age: now.monotonic.saturating_duration_since(at.monotonic),
                duration: outcome.duration,
                failure: outcome.failure,
                detail: outcome.detail.clone(),
            }),
            consecutive: states[number].consecutive,
            interval: checks[number].timing.interval,
            suppressed_by: causes[number].map(|cause| checks[cause].name.clone()),
            is_root_cause: board.is_root_cause(number, &causes),
        })
        .collect();
    let groups = groups
        .iter()
        .map(|group| {
            let members: Vec<usize> = (0..checks.len()).filter(|number| group.checks.contains(&checks[*number].name)).collect();
            GroupView { name: group.name.clone(), ready: members.iter().all(|number| verdicts[*number].passes()), checks: members }
        })
        .collect();
    Snapshot { at: now, checks: views, groups }
}

fn state_of(check: &Check, state: &CheckState, now: Now) -> State {
    match state.verdict {
        None => State::Unknown,
        Some(_) if state.is_stale(&check.timing, now) => State::Stale,
        Some(Verdict::Up) => State::Up,
        Some(Verdict::Degraded) => State::Degraded,
        Some(Verdict::Down) => State::Down,
    }
}

struct Causes<'a> {
    checks: &'a [Check],
    states: &'a [CheckState],
    verdicts: &'a [State],
}

// === impl Causes ===

impl Causes<'_> {
    fn is_bad(&self, number: usize) -> bool {
        matches!(self.verdicts[number], State::Down | State::Stale)
    }

    /// Whether the check fails at this moment, even if its verdict still holds on: a parent that has failed once
    /// explains a child that failed three times.
    fn fails(&self, number: usize) -> bool {
        self.is_bad(number) || self.states[number].fails_now()
    }

    /// The failing check that explains a bad one.
    fn explanation(&self, number: usize) -> Option<usize> {
        if self.is_bad(number) { self.cause(number) } else { None }
    }

    /// The farthest check on the way up that fails too. A parent that came back after the child's last look still
    /// explains what that look saw.
    fn cause(&self, number: usize) -> Option<usize> {
        let seen_at = self.states[number].last.as_ref().map(|(_, at)| at.monotonic);
        let parents = self.checks[number].depends_on.iter();
        let mut recovered = None;
        for parent in parents.filter_map(|name| self.checks.iter().position(|check| check.name == *name)) {
            if self.fails(parent) {
                return Some(self.cause(parent).unwrap_or(parent));
            }
            let came_back = self.states[parent].recovered.map(|at| at.monotonic);
            if let (Some(seen), Some(came_back)) = (seen_at, came_back)
                && seen < came_back
            {
                recovered = Some(parent);
            }
        }
        recovered
    }

    /// A bad check that nothing explains and that still fails; or a failing one that explains a bad one.
    fn is_root_cause(&self, number: usize, causes: &[Option<usize>]) -> bool {
        let stands_alone = self.is_bad(number) && causes[number].is_none();
        let explains = causes.contains(&Some(number)) && causes[number].is_none();
        self.fails(number) && (stands_alone || explains) && (self.states[number].fails_now() || self.verdicts[number] == State::Stale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::health::{Probe, Timing};
    use crate::health::outcome::Outcome;

    const TIMING: Timing =
        Timing { interval: Duration::from_secs(5), timeout: Duration::from_secs(2), fail_after: 3, pass_after: 2, degraded_after: None };

    /// mongodb ← api ← dashboard, and `other` by itself.
    fn checks() -> Vec<Check> {
        [("mongodb", true, None), ("api", true, Some("mongodb")), ("dashboard", false, Some("api")), ("other", false, None)]
            .map(|(name, critical, parent)| Check {
                name: name.to_owned(),
                probe: Probe::Tcp { address: "localhost:1".to_owned() },
                critical,
                depends_on: parent.map(str::to_owned).into_iter().collect(),
                timing: TIMING,
            })
            .to_vec()
    }

    /// Looks in turn: one word a check for each second, p pass, f fail, `.` none.
    fn board(rounds: &[&str]) -> Snapshot {
        let start = Now::read();
        let mut states: Vec<CheckState> = checks().iter().map(|_| CheckState::new(start)).collect();
        let mut now = start;
        for (second, round) in rounds.iter().enumerate() {
            now.monotonic = start.monotonic + Duration::from_secs(second as u64);
            for (state, look) in states.iter_mut().zip(round.chars()) {
                match look {
                    'p' => drop(state.observe(Outcome::pass(Duration::ZERO), &TIMING, now)),
                    'f' => drop(state.observe(Outcome::fail(Reason::Refused, Duration::ZERO), &TIMING, now)),
                    _ => {}
                }
            }
        }
        let groups = [Group { name: "readiness".to_owned(), checks: vec!["mongodb".to_owned(), "api".to_owned()] }];
        aggregate(&checks(), &groups, &states, now)
    }

    #[track_caller]
    fn check(rounds: &[&str], ready: bool, status: Status, roots: &[&str], suppressed: &[(&str, &str)]) {
        let snapshot = board(rounds);
        assert_eq!(snapshot.groups[0].ready, ready, "ready {rounds:?}");
        assert_eq!(snapshot.status(), status, "{rounds:?}");
        assert_eq!(snapshot.root_causes().map(|check| check.name.as_str()).collect::<Vec<_>>(), roots, "roots {rounds:?}");
        let found: Vec<(&str, &str)> =
            snapshot.checks.iter().filter_map(|check| Some((check.name.as_str(), check.suppressed_by.as_deref()?))).collect();
        assert_eq!(found, suppressed, "suppressed {rounds:?}");
    }

    #[test]
    fn nothing_is_ready_before_it_has_been_looked_at() {
        check(&[], false, Status::Fail, &[], &[]);
        check(&["pp.."], true, Status::Warn, &[], &[]);
        check(&["pppp"], true, Status::Pass, &[], &[]);
    }

    #[test]
    fn one_root_cause_is_named_and_explains_the_rest() {
        let outage = ["pppp", "fffp", "fffp", "fffp"];
        check(&outage, false, Status::Fail, &["mongodb"], &[("api", "mongodb"), ("dashboard", "mongodb")]);
    }

    #[test]
    fn a_parent_that_has_failed_once_explains_a_child_that_is_down() {
        check(&["pppp", ".f.p", ".f.p", "ff.p"], false, Status::Fail, &["mongodb"], &[("api", "mongodb")]);
    }

    #[test]
    fn a_child_that_has_not_been_looked_at_since_the_recovery_is_not_blamed() {
        let rounds = ["pppp", "fffp", "fffp", "fffp", "p..p", "p..p"];
        check(&rounds, false, Status::Fail, &[], &[("api", "mongodb"), ("dashboard", "mongodb")]);
        let after = ["pppp", "fffp", "fffp", "fffp", "p..p", "p..p", "pfpp"];
        check(&after, false, Status::Fail, &["api"], &[("dashboard", "api")]);
    }

    #[test]
    fn a_parent_that_was_never_down_explains_nothing() {
        check(&[".f.p", "p.pp"], false, Status::Fail, &["api"], &[]);
    }

    #[test]
    fn independent_failures_are_both_named() {
        check(&["ppff"], true, Status::Warn, &["dashboard", "other"], &[]);
    }

    #[test]
    fn a_check_that_is_recovering_is_no_root_cause() {
        check(&["ffpp", "pppp"], false, Status::Fail, &[], &[("api", "mongodb")]);
        check(&["pfpp", ".ppp"], false, Status::Fail, &[], &[]);
    }
}
