//! From the states of single checks to the whole: who is ready, and who is to blame. Pure.
//!
//! A check has a *verdict* (up, degraded, down, unknown, stale): the truth, which readiness and uptime are made of. Its
//! *state* says how to treat that: `maintenance` where failures are expected, else `suppressed` where it is down and
//! another check explains it, else the verdict. Alerts read states, probes read verdicts.

mod causes;
mod views;

use std::sync::Arc;

pub use views::{CheckView, GroupView, LastLook, MaintenanceView, Snapshot, State, Status};

use crate::clock::Now;
use crate::config::health::{Check, Group};
use crate::health::aggregate::causes::{Cause, Causes, has_lost_network};
use crate::health::outcome::Reason;
use crate::health::state::{CheckState, Verdict};

/// What is put together: the checks of a configuration with their states, by number.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The checks.
    pub checks: &'a [Arc<Check>],
    /// The groups.
    pub groups: &'a [Group],
    /// The state of each check.
    pub states: &'a [CheckState],
    /// The maintenance of each check that is going on.
    pub maintenance: &'a [Option<MaintenanceView>],
}

/// Puts the states together.
#[must_use]
pub fn aggregate(facts: Facts<'_>, now: Now) -> Snapshot {
    let Facts { checks, groups, states, .. } = facts;
    let verdicts: Vec<State> = checks.iter().zip(states).map(|(check, state)| verdict_of(check, state, now)).collect();
    let board = Causes { checks, states, verdicts: &verdicts, local_network: has_lost_network(checks, states) };
    let causes: Vec<Option<Cause>> = (0..checks.len()).map(|number| board.explanation(number)).collect();
    let views: Vec<CheckView> = (0..checks.len()).map(|number| view(facts, &board, &causes, number, now)).collect();
    let groups = groups
        .iter()
        .map(|group| {
            let members: Vec<usize> = (0..checks.len()).filter(|number| group.checks.contains(&checks[*number].name)).collect();
            GroupView { name: group.name.clone(), ready: members.iter().all(|number| views[*number].holds_nobody_up()), checks: members }
        })
        .collect();
    Snapshot { at: now, local_network: causes.contains(&Some(Cause::LocalNetwork)), checks: views, groups }
}

fn view(facts: Facts<'_>, board: &Causes<'_>, causes: &[Option<Cause>], number: usize, now: Now) -> CheckView {
    let (check, state, verdict) = (&facts.checks[number], &facts.states[number], board.verdicts[number]);
    let maintenance = facts.maintenance.get(number).cloned().flatten();
    let failure = state.last.as_ref().and_then(|(outcome, _)| outcome.failure);
    CheckView {
        name: check.name.clone(),
        component_type: check.probe.component_type(),
        verdict,
        state: match (&maintenance, verdict, causes[number]) {
            (Some(_), ..) => State::Maintenance,
            (None, State::Down, Some(_)) => State::Suppressed,
            (None, verdict, _) => verdict,
        },
        since: state.since.wall,
        critical: check.critical,
        is_joining: state.is_joining(&check.timing, now),
        last: state.last.as_ref().map(|(outcome, at)| LastLook {
            at: at.wall,
            age: now.monotonic.saturating_duration_since(at.monotonic),
            duration: outcome.duration,
            failure: outcome.failure,
            warning: outcome.warning(&check.timing),
            detail: outcome.detail.clone(),
            certificate_end: outcome.certificate_end,
        }),
        consecutive: state.consecutive,
        interval: check.timing.interval,
        reason: match verdict {
            State::Stale if !state.has_panicked() => Some(Reason::Stale.code()),
            _ => failure.map(Reason::code),
        },
        suppressed_by: causes[number].map(|cause| cause.name(facts.checks)),
        is_root_cause: board.is_root_cause(number, causes),
        maintenance,
    }
}

fn verdict_of(check: &Check, state: &CheckState, now: Now) -> State {
    match state.verdict {
        _ if state.is_stale(&check.timing, now) => State::Stale,
        None => State::Unknown,
        Some(Verdict::Up) => State::Up,
        Some(Verdict::Degraded) => State::Degraded,
        Some(Verdict::Down) => State::Down,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::health::{Hold, Probe, Timing};
    use crate::health::outcome::Outcome;

    const TIMING: Timing = Timing {
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        fail_after: 3,
        pass_after: 2,
        degraded_after: None,
        hold: Hold { fail_for: None, pass_for: None, min_dwell: None },
    };

    /// mongodb ← api ← dashboard, and `other` by itself.
    fn checks(host: &str) -> Vec<Arc<Check>> {
        [("mongodb", true, None), ("api", true, Some("mongodb")), ("dashboard", false, Some("api")), ("other", false, None)]
            .map(|(name, critical, parent)| Check {
                name: name.to_owned(),
                probe: Probe::Tcp { address: format!("{host}:1") },
                critical,
                depends_on: parent.map(str::to_owned).into_iter().collect(),
                timing: TIMING,
            })
            .map(Arc::new)
            .to_vec()
    }

    fn board(rounds: &[&str]) -> Snapshot {
        board_of(&checks("localhost"), rounds, &[])
    }

    /// Looks in turn: one word a check for each second, p pass, f fail, d fail of the name, `.` none.
    fn board_of(checks: &[Arc<Check>], rounds: &[&str], maintenance: &[Option<MaintenanceView>]) -> Snapshot {
        let start = Now::read();
        let mut states: Vec<CheckState> = checks.iter().map(|_| CheckState::new(start)).collect();
        let mut now = start;
        for (second, round) in rounds.iter().enumerate() {
            now.monotonic = start.monotonic + Duration::from_secs(second as u64);
            for (state, look) in states.iter_mut().zip(round.chars()) {
                match look {
                    'p' => drop(state.observe(Outcome::pass(Duration::ZERO), &TIMING, now)),
                    'f' => drop(state.observe(Outcome::fail(Reason::Refused, Duration::ZERO), &TIMING, now)),
                    'd' => drop(state.observe(Outcome::fail(Reason::Dns, Duration::ZERO), &TIMING, now)),
                    _ => {}
                }
            }
        }
        let groups = [Group { name: "readiness".to_owned(), checks: vec!["mongodb".to_owned(), "api".to_owned()] }];
        aggregate(Facts { checks, groups: &groups, states: &states, maintenance }, now)
    }

    #[track_caller]
    fn check(rounds: &[&str], ready: bool, status: Status, roots: &[&str], suppressed: &[(&str, &str)]) {
        let snapshot = board(rounds);
        assert_eq!(snapshot.groups[0].ready, ready, "ready {rounds:?}");
        assert_eq!(snapshot.status(), status, "{rounds:?}");
        assert_eq!(snapshot.root_causes().collect::<Vec<_>>(), roots, "roots {rounds:?}");
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

    #[test]
    fn when_nothing_beyond_this_machine_can_be_reached_the_network_is_named() {
        let remote = checks("db.example.com");
        let roots = |checks: &[Arc<Check>], rounds: &[&str]| -> Vec<String> {
            board_of(checks, rounds, &[]).root_causes().map(str::to_owned).collect()
        };
        assert_eq!(roots(&remote, &["pppp", "dddd", "dddd", "dddd"]), ["local_network"]);
        let snapshot = board_of(&remote, &["dddd"], &[]);
        assert!(snapshot.checks.iter().all(|check| check.suppressed_by.as_deref() == Some("local_network")));
        assert!(snapshot.checks.iter().all(|check| check.state == State::Suppressed && check.verdict == State::Down));
        assert!(!snapshot.groups[0].ready, "the cause is here, and it fails all the same");
        // One that is refused was reached; one that is on this machine proves nothing; one alone may be gone itself.
        assert_eq!(roots(&remote, &["dddf"]), ["mongodb", "other"]);
        assert_eq!(roots(&checks("localhost"), &["dddd"]), ["mongodb", "other"]);
        assert_eq!(roots(&remote[..1], &["d"]), ["mongodb"]);
    }

    #[test]
    fn a_state_says_how_to_treat_a_verdict_and_readiness_tells_the_truth() {
        let until = jiff::Timestamp::UNIX_EPOCH;
        let maintenance = [Some(MaintenanceView { until, reason: None }), None, None, None];
        let snapshot = board_of(&checks("localhost"), &["fffp"], &maintenance);
        let states: Vec<State> = snapshot.checks.iter().map(|check| check.state).collect();
        assert_eq!(states, [State::Maintenance, State::Suppressed, State::Suppressed, State::Up]);
        let verdicts: Vec<State> = snapshot.checks.iter().map(|check| check.verdict).collect();
        assert_eq!(verdicts, [State::Down, State::Down, State::Down, State::Up]);
        assert!(!snapshot.groups[0].ready && snapshot.status() == Status::Fail);
    }

    /// H8: what broke or hangs is stale, whatever it was before, and stale is never ready.
    #[test]
    fn a_check_that_breaks_is_stale_with_its_reason_and_not_ready() {
        let checks = checks("localhost");
        let now = Now::read();
        let mut states: Vec<CheckState> = checks.iter().map(|_| CheckState::new(now)).collect();
        for state in &mut states {
            state.observe(Outcome::pass(Duration::ZERO), &TIMING, now);
        }
        states[0].break_down(now);
        let groups = [Group { name: "readiness".to_owned(), checks: vec!["mongodb".to_owned()] }];
        let look = |states: &[CheckState], now| aggregate(Facts { checks: &checks, groups: &groups, states, maintenance: &[] }, now);
        let snapshot = look(&states, now);
        assert_eq!((snapshot.checks[0].verdict, snapshot.checks[0].reason), (State::Stale, Some("panic")));
        assert!(!snapshot.groups[0].ready);
        let later = Now { monotonic: now.monotonic + Duration::from_secs(18), wall: now.wall };
        states[0].observe(Outcome::pass(Duration::ZERO), &TIMING, now);
        assert!(look(&states, now).groups[0].ready);
        let snapshot = look(&states, later);
        assert_eq!((snapshot.checks[0].verdict, snapshot.checks[0].reason), (State::Stale, Some("stale")));
        assert!(!snapshot.groups[0].ready);
    }

    /// H16: an hour's jump of the wall clock makes nothing stale and keeps ages right.
    #[test]
    fn a_jump_of_the_wall_clock_changes_no_age() {
        let checks = checks("localhost");
        let start = Now::read();
        for jump in [-1, 1] {
            let mut states = vec![CheckState::new(start)];
            states[0].observe(Outcome::pass(Duration::ZERO), &TIMING, start);
            let wall = start.wall + jiff::SignedDuration::from_hours(jump);
            let now = Now { monotonic: start.monotonic + Duration::from_secs(4), wall };
            let snapshot = aggregate(Facts { checks: &checks[..1], groups: &[], states: &states, maintenance: &[] }, now);
            assert_eq!(snapshot.checks[0].verdict, State::Up);
            assert_eq!(snapshot.checks[0].last.as_ref().map(|last| last.age), Some(Duration::from_secs(4)));
            states[0].observe(Outcome::pass(Duration::ZERO), &TIMING, now);
            assert_eq!(states[0].last.as_ref().map(|(_, at)| at.wall), Some(wall), "times are those of the wall");
        }
    }
}
