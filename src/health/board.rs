//! Where the checks write their states and everybody else reads them, without waiting for anything remote.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Now;
use crate::config::health::{Check, Group, Health};
use crate::health::aggregate::{Snapshot, aggregate};
use crate::health::outcome::Outcome;
use crate::health::state::{CheckState, Transition};
use crate::runtime::latch::Latch;

/// The states of all checks.
#[derive(Debug)]
pub struct Board {
    checks: Vec<Check>,
    groups: Vec<Group>,
    states: Mutex<Vec<CheckState>>,
    first_round: Latch,
}

// === impl Board ===

impl Board {
    /// A board on which nothing is known yet.
    #[must_use]
    pub fn new(config: &Health, now: Now) -> Self {
        let board = Self {
            checks: config.checks.clone(),
            groups: config.groups.clone(),
            states: Mutex::new(config.checks.iter().map(|_| CheckState::new(now)).collect()),
            first_round: Latch::default(),
        };
        if board.checks.is_empty() {
            board.first_round.set();
        }
        board
    }

    /// The checks, in the order of their numbers.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Set once every check has been looked at once, whatever was found.
    #[must_use]
    pub fn first_round(&self) -> Latch {
        self.first_round.clone()
    }

    /// Writes the outcome of a look at the check of this number.
    pub fn observe(&self, number: usize, outcome: Outcome, now: Now) -> Option<Transition> {
        let mut states = self.lock();
        let transition = states[number].observe(outcome, &self.checks[number].timing, now);
        if states.iter().all(|state| state.last.is_some()) {
            self.first_round.set();
        }
        transition
    }

    /// Everything that is known, as of `now`.
    #[must_use]
    pub fn snapshot(&self, now: Now) -> Snapshot {
        let states = self.lock().clone();
        aggregate(&self.checks, &self.groups, &states, now)
    }

    /// Each update is a single assignment, so a panic elsewhere leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, Vec<CheckState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
