//! Who is to blame: the way up from a failing check to the one that explains it. Pure.

use std::sync::Arc;

use crate::config::health::{Check, LOCAL_NETWORK};
use crate::health::aggregate::State;
use crate::health::outcome::Reason;
use crate::health::state::CheckState;

/// What explains a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cause {
    /// The check of this number.
    Check(usize),
    /// This machine has lost its network.
    LocalNetwork,
}

/// The checks with their verdicts, to be asked for causes.
pub(super) struct Causes<'a> {
    pub checks: &'a [Arc<Check>],
    pub states: &'a [CheckState],
    pub verdicts: &'a [State],
    /// Whether this machine has lost its network.
    pub local_network: bool,
}

/// Whether everything beyond this machine is out of reach at once, by name or by route. One check alone proves nothing:
/// its server may be the one that is gone.
pub(super) fn has_lost_network(checks: &[Arc<Check>], states: &[CheckState]) -> bool {
    let mut beyond = checks.iter().zip(states).filter(|(check, _)| check.probe.leaves_the_machine()).map(|(_, state)| state).peekable();
    let is_cut_off = |state: &CheckState| {
        let failure = state.last.as_ref().and_then(|(outcome, _)| outcome.failure);
        matches!(failure, Some(Reason::Dns | Reason::Unreachable)) && !state.has_panicked()
    };
    let mut count = 0;
    beyond.all(|state| {
        count += 1;
        is_cut_off(state)
    }) && count > 1
}

// === impl Cause ===

impl Cause {
    pub fn name(self, checks: &[Arc<Check>]) -> String {
        match self {
            Self::Check(number) => checks[number].name.clone(),
            Self::LocalNetwork => LOCAL_NETWORK.to_owned(),
        }
    }
}

// === impl Causes ===

impl Causes<'_> {
    /// Down or stale.
    pub fn is_bad(&self, number: usize) -> bool {
        matches!(self.verdicts[number], State::Down | State::Stale)
    }

    /// Whether the check fails at this moment, even if its verdict still holds on: a parent that has failed once
    /// explains a child that failed three times.
    fn fails(&self, number: usize) -> bool {
        self.is_bad(number) || self.states[number].fails_now()
    }

    /// What explains a bad check.
    pub fn explanation(&self, number: usize) -> Option<Cause> {
        if self.is_bad(number) { self.cause(number) } else { None }
    }

    /// The farthest check on the way up that fails too. A parent that came back after the child's last look still
    /// explains what that look saw.
    fn cause(&self, number: usize) -> Option<Cause> {
        if self.local_network && self.checks[number].probe.leaves_the_machine() {
            return Some(Cause::LocalNetwork);
        }
        let seen_at = self.states[number].last.as_ref().map(|(_, at)| at.monotonic);
        let parents = self.checks[number].depends_on.iter();
        let mut recovered = None;
        for parent in parents.filter_map(|name| self.checks.iter().position(|check| check.name == *name)) {
            if self.fails(parent) {
                return Some(self.cause(parent).unwrap_or(Cause::Check(parent)));
            }
            let came_back = self.states[parent].recovered.map(|at| at.monotonic);
            if let (Some(seen), Some(came_back)) = (seen_at, came_back)
                && seen < came_back
            {
                recovered = Some(Cause::Check(parent));
            }
        }
        recovered
    }

    /// A bad check that nothing explains and that still fails; or a failing one that explains a bad one.
    pub fn is_root_cause(&self, number: usize, causes: &[Option<Cause>]) -> bool {
        let stands_alone = self.is_bad(number) && causes[number].is_none();
        let explains = causes.contains(&Some(Cause::Check(number))) && causes[number].is_none();
        self.fails(number) && (stands_alone || explains) && (self.states[number].fails_now() || self.verdicts[number] == State::Stale)
    }
}
