//! Where the checks write their states and everybody else reads them, without waiting for anything remote.
//!
//! Readers share one snapshot until something changes: five thousand probes a second put together what two would.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};

use crate::clock::Now;
use crate::config::health::{Check, Group, Health};
use crate::health::aggregate::{Facts, Snapshot, aggregate};
use crate::health::maintenance::{Call, Maintenance, TooMany};
use crate::health::outcome::Outcome;
use crate::health::state::{CheckState, Transition};
use crate::runtime::latch::Latch;

/// A snapshot this old is put together anew, even if no look has ended: verdicts become stale, windows open.
const SNAPSHOT_LIFE: Duration = Duration::from_millis(100);

/// The states of all checks.
#[derive(Debug)]
pub struct Board {
    content: Mutex<Content>,
    /// Counts the changes of `content`.
    version: AtomicU64,
    shared: ArcSwapOption<(u64, Arc<Snapshot>)>,
    first_round: Latch,
    /// Sends the number of the configuration, at each replacement.
    replaced: watch::Sender<u64>,
    moved: Notify,
}

/// Which check of which configuration: one that has been changed gets another.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct CheckId(u64);

/// A check that is to be looked at.
#[derive(Clone, Debug)]
pub struct Watched {
    /// By which its outcomes are written.
    pub id: CheckId,
    /// What it is.
    pub check: Arc<Check>,
}

/// What a new configuration has changed, by names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Changes {
    /// New ones.
    pub added: Vec<String>,
    /// Those that are gone.
    pub removed: Vec<String>,
    /// Those that are defined differently.
    pub changed: Vec<String>,
}

#[derive(Debug, Default)]
struct Content {
    ids: Vec<CheckId>,
    checks: Vec<Arc<Check>>,
    fingerprints: Vec<Option<u64>>,
    states: Vec<CheckState>,
    groups: Vec<Group>,
    maintenance: Maintenance,
    next_id: u64,
}

// === impl Board ===

impl Board {
    /// A board on which nothing is known yet.
    #[must_use]
    pub fn new(config: &Health, now: Now) -> Self {
        let mut content = Content::default();
        content.replace(config, CheckState::new, now);
        let board = Self {
            content: Mutex::new(content),
            version: AtomicU64::new(0),
            shared: ArcSwapOption::empty(),
            first_round: Latch::default(),
            replaced: watch::Sender::new(0),
            moved: Notify::new(),
        };
        if config.checks.is_empty() {
            board.first_round.set();
        }
        board
    }

    /// Takes over a new configuration. Unchanged checks keep their states and go on undisturbed; a changed one keeps its
    /// verdict until its first look decides; a new one counts for readiness from its first look on.
    pub fn replace(&self, config: &Health, now: Now) -> Changes {
        let changes = self.change(|content| {
            let changes = content.replace(config, CheckState::joining, now);
            // The last one that it waited for may be gone.
            self.note_first_round(content);
            changes
        });
        self.replaced.send_modify(|number| *number += 1);
        self.moved.notify_one();
        changes
    }

    /// Tells when the configuration has been replaced.
    #[must_use]
    pub fn replacements(&self) -> watch::Receiver<u64> {
        self.replaced.subscribe()
    }

    /// Waits until a verdict or a maintenance has changed. One task waits.
    pub async fn moved(&self) {
        self.moved.notified().await;
    }

    /// What is to be looked at.
    #[must_use]
    pub fn watched(&self) -> Vec<Watched> {
        let content = self.lock();
        content.ids.iter().zip(&content.checks).map(|(id, check)| Watched { id: *id, check: Arc::clone(check) }).collect()
    }

    /// Set once every check has been looked at once, whatever was found.
    #[must_use]
    pub fn first_round(&self) -> Latch {
        self.first_round.clone()
    }

    /// Writes the outcome of a look. One at a check that has been replaced meanwhile says nothing.
    pub fn observe(&self, id: CheckId, outcome: Outcome, now: Now) -> Option<Transition> {
        let transition = self.change(|content| {
            let number = content.number(id)?;
            let transition = content.states[number].observe(outcome, &content.checks[number].timing, now);
            self.note_first_round(content);
            transition
        });
        if transition.is_some() {
            self.moved.notify_one();
        }
        transition
    }

    /// Notes that a look broke instead of finding something.
    pub fn break_down(&self, id: CheckId, now: Now) {
        self.change(|content| {
            if let Some(number) = content.number(id) {
                content.states[number].break_down(now);
                self.note_first_round(content);
            }
        });
        self.moved.notify_one();
    }

    /// Everything that is known, as of `now`, at most a tenth of a second ago.
    #[must_use]
    pub fn snapshot(&self, now: Now) -> Arc<Snapshot> {
        let version = self.version.load(Ordering::Acquire);
        if let Some(shared) = self.shared.load().as_ref()
            && shared.0 == version
            && now.monotonic.saturating_duration_since(shared.1.at.monotonic) < SNAPSHOT_LIFE
        {
            return Arc::clone(&shared.1);
        }
        let mut content = self.lock();
        // Under the lock, so that the version is that of what is read.
        let version = self.version.load(Ordering::Acquire);
        let snapshot = Arc::new(content.snapshot(now));
        drop(content);
        self.shared.store(Some(Arc::new((version, Arc::clone(&snapshot)))));
        snapshot
    }

    /// Begins a maintenance that ends by itself.
    ///
    /// # Errors
    /// When there are too many already.
    pub fn begin_maintenance(&self, checks: Vec<String>, length: Duration, reason: String, now: Now) -> Result<Call, TooMany> {
        let call = self.change(|content| content.maintenance.begin(checks, length, reason, now));
        self.moved.notify_one();
        call
    }

    /// Goes on with a maintenance of before a restart.
    pub fn restore_maintenance(&self, call: Call, now: Now) {
        self.change(|content| content.maintenance.restore(call, now));
    }

    /// Ends a maintenance that was asked for; without a number, all of them. How many were ended.
    pub fn end_maintenance(&self, id: Option<u64>, now: Now) -> usize {
        let ended = self.change(|content| content.maintenance.end(id, now));
        self.moved.notify_one();
        ended
    }

    /// The maintenances that were asked for and go on.
    #[must_use]
    pub fn maintenances(&self, now: Now) -> Vec<Call> {
        self.lock().maintenance.calls(now)
    }

    fn note_first_round(&self, content: &Content) {
        if content.states.iter().all(|state| state.last.is_some()) {
            self.first_round.set();
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Content) -> T) -> T {
        let mut content = self.lock();
        let result = change(&mut content);
        self.version.fetch_add(1, Ordering::Release);
        result
    }

    /// Each update is a single assignment, so a panic elsewhere leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Content ===

impl Content {
    /// `new` makes the states of checks that were not there.
    fn replace(&mut self, config: &Health, new: impl Fn(Now) -> CheckState, now: Now) -> Changes {
        let old = std::mem::take(self);
        let mut changes = Changes::default();
        self.next_id = old.next_id;
        self.maintenance = old.maintenance;
        self.maintenance.replace(&config.maintenance);
        self.groups.clone_from(&config.groups);
        for check in &config.checks {
            let fingerprint = config.fingerprints.get(&check.name).copied();
            let found = old.checks.iter().position(|other| other.name == check.name);
            self.next_id += 1;
            let (id, state) = match found {
                Some(number) if fingerprint.is_some() && old.fingerprints[number] == fingerprint => {
                    (old.ids[number], old.states[number].clone())
                }
                Some(number) => {
                    changes.changed.push(check.name.clone());
                    (CheckId(self.next_id), old.states[number].redefined(now))
                }
                None => {
                    changes.added.push(check.name.clone());
                    (CheckId(self.next_id), new(now))
                }
            };
            self.ids.push(id);
            self.states.push(state);
            self.fingerprints.push(fingerprint);
            self.checks.push(Arc::new(check.clone()));
        }
        changes.removed =
            old.checks.iter().map(|check| check.name.clone()).filter(|name| !self.checks.iter().any(|check| check.name == *name)).collect();
        changes
    }

    fn number(&self, id: CheckId) -> Option<usize> {
        self.ids.iter().position(|other| *other == id)
    }

    fn snapshot(&mut self, now: Now) -> Snapshot {
        let Self { checks, groups, states, maintenance, .. } = self;
        let maintenance: Vec<_> = checks.iter().map(|check| maintenance.of(&check.name, now)).collect();
        aggregate(Facts { checks, groups, states, maintenance: &maintenance }, now)
    }
}

// === impl Changes ===

impl Changes {
    /// Whether nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}
