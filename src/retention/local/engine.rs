//! Carries policies of rows and files out: plans, looks whether it may, runs, and remembers how that ended.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::clock::{Moment, Now};
use crate::config::retention::{Budget, FilePolicy, Mode, Retention, Schedule, TablePolicy, Throttle};
use crate::config::storage::StorageAccess;
use crate::config::stores::PostgresStore;
use crate::retention::archive::{ArchiveError, Target};
use crate::retention::engine::with_causes;
use crate::retention::files::{self, FileError, FileRun, FileTally, Jump, Told};
use crate::retention::local::jump::JumpWatch;
use crate::retention::local::memory::Memory;
use crate::retention::local::{LocalError, LocalOutcome, LocalPlan, LocalPolicy, LocalRequest, LocalStanding};
use crate::retention::metrics::RetentionMetrics;
use crate::retention::outcome::{Kind, Skip, Stop, Tally};
use crate::retention::table::{self, TableOutcome, TableRun};
use crate::retention::warrant::{Blocked, PlanId};
use crate::store::postgres::Postgres;

/// A health check's patience: what takes longer has limits of its own.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Hears of a run: the policy, what would go, what has.
pub type Progress = dyn Fn(&str, u64, &Tally) + Send + Sync;

/// Carries policies out that need no MongoDB.
#[derive(Debug)]
pub struct Local {
    policies: Vec<LocalPolicy>,
    /// When they run by themselves.
    pub schedule: Option<Schedule>,
    soak: Duration,
    throttle: Throttle,
    budget: Budget,
    postgres: Option<Postgres>,
    storage: StorageAccess,
    system: String,
    memory: Memory,
    metrics: RetentionMetrics,
    clock: Mutex<JumpWatch>,
}

// === impl Local ===

impl Local {
    /// Nothing is connected or looked at yet. `state_dir` is where outcomes are remembered, if it can be written to.
    #[must_use]
    pub fn new(
        retention: &Retention,
        postgres: Option<&PostgresStore>,
        storage: &StorageAccess,
        system: &str,
        state_dir: Option<&Path>,
        metrics: RetentionMetrics,
    ) -> Self {
        let tables = retention.tables.iter().cloned().map(LocalPolicy::Table);
        let policies: Vec<_> = tables.chain(retention.files.iter().cloned().map(LocalPolicy::Files)).collect();
        policies.iter().for_each(|policy| metrics.expect(policy.name(), policy.mode(), policy.kind()));
        Self {
            policies,
            schedule: retention.schedule.clone(),
            soak: retention.soak,
            throttle: retention.throttle,
            budget: retention.budget,
            postgres: postgres.map(|store| Postgres::new(store, CONNECT_LIMIT)),
            storage: storage.clone(),
            system: system.to_owned(),
            memory: Memory::new(state_dir),
            metrics,
            clock: Mutex::default(),
        }
    }

    /// The policies.
    #[must_use]
    pub fn policies(&self) -> &[LocalPolicy] {
        &self.policies
    }

    /// What Prometheus learns of it.
    #[must_use]
    pub fn metrics(&self) -> &RetentionMetrics {
        &self.metrics
    }

    /// Looks at both clocks, so that a jump of the wall clock is noticed.
    pub fn watch_clock(&self) {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).look(Moment::read());
    }

    fn jump(&self) -> Jump {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).lately(Moment::read())
    }

    /// Says what a policy would do now. Writes nothing anywhere.
    ///
    /// # Errors
    /// When the database does not answer, or the folder cannot be read.
    pub async fn plan(&self, policy: &LocalPolicy) -> Result<LocalPlan, LocalError> {
        let now = Now::read().wall;
        let plan = match policy {
            LocalPolicy::Table(policy) => LocalPlan::Table(Box::new(table::plan(policy, self.postgres(policy)?, now).await?)),
            LocalPolicy::Files(policy) => {
                let (policy, jump) = (policy.clone(), self.jump());
                let looked = tokio::task::spawn_blocking(move || files::plan(&policy, now, jump)).await;
                LocalPlan::Files(Box::new(looked.map_err(|_| LocalError::Panicked)??))
            }
        };
        plan.tell(&self.metrics);
        Ok(plan)
    }

    fn postgres(&self, policy: &TablePolicy) -> Result<&Postgres, LocalError> {
        self.postgres.as_ref().ok_or_else(|| LocalError::NoStore(policy.name.clone()))
    }

    /// How a policy stands.
    #[must_use]
    pub fn standing(&self, policy: &LocalPolicy) -> LocalStanding {
        let known = self.memory.read(policy.name());
        LocalStanding {
            policy: policy.name().to_owned(),
            kind: policy.kind(),
            enforces: policy.mode() == Mode::Enforce,
            first_seen: known.first_seen_of(&policy.hash()).map(|time| time.to_string()),
            last: known.last,
        }
    }

    /// Pauses tables and files for every process that shares the state folder, or lets them go on.
    ///
    /// # Errors
    /// When the state folder cannot be written to.
    pub fn pause(&self, reason: Option<&str>) -> Result<(), LocalError> {
        self.memory.set_paused(reason)
    }

    /// Why tables and files are paused, where they are.
    #[must_use]
    pub fn paused(&self) -> Option<String> {
        self.memory.paused()
    }

    /// Takes a start of the schedule, so that it is not made again after a restart.
    #[must_use]
    pub(super) fn take_start(&self, policy: &LocalPolicy, start: Timestamp) -> bool {
        self.memory.take_start(policy.name(), start)
    }

    /// Carries a policy out, as far as it may be, and remembers how that ended.
    pub async fn run(
        &self,
        policy: &LocalPolicy,
        request: &LocalRequest,
        stop: &CancellationToken,
        progress: Arc<Progress>,
    ) -> LocalOutcome {
        self.metrics.running(policy.name(), true);
        let mut outcome = LocalOutcome {
            policy: policy.name().to_owned(),
            kind: policy.kind(),
            run: String::new(),
            plan: request.confirmed.as_ref().map(PlanId::to_string).unwrap_or_default(),
            stop: Stop::Done,
            why: String::new(),
            ended: String::new(),
            tally: Tally::default(),
        };
        let result = self.attempt(policy, request, stop, progress, &mut outcome).await;
        let ended = Now::read().wall;
        outcome.ended = ended.to_string();
        match result {
            Ok(stop) => outcome.stop = stop,
            Err(error) => {
                outcome.stop = error.stop();
                outcome.why = with_causes(&error);
            }
        }
        if outcome.why.is_empty() {
            outcome.why = outcome.stop.to_string();
        }
        // Somebody else's run is theirs to tell of; and a policy that only plans leaves no trace.
        if !matches!(outcome.stop, Stop::Lease | Stop::PlanOnly) {
            self.memory.note(&outcome);
        }
        self.metrics.running(policy.name(), false);
        self.metrics.finished(policy.name(), outcome.stop, ended);
        outcome
    }

    async fn attempt(
        &self,
        policy: &LocalPolicy,
        request: &LocalRequest,
        stop: &CancellationToken,
        progress: Arc<Progress>,
        outcome: &mut LocalOutcome,
    ) -> Result<Stop, LocalError> {
        if policy.mode() != Mode::Enforce {
            return Err(Blocked::Mode(policy.name().to_owned()).into());
        }
        if let Some(reason) = self.paused() {
            outcome.why = format!("retention is paused: {reason}; `bellwether retention resume` lets it go on");
            return Ok(Stop::Paused);
        }
        let now = Now::read().wall;
        let until = self.memory.soaks_until(policy.name(), &policy.hash(), self.soak, now);
        if let Some(until) = until.filter(|_| !request.now) {
            // What would go is shown meanwhile.
            self.plan(policy).await?;
            outcome.why = format!("the policy is new or has changed; it is enforced from {until} on, or with --now");
            return Ok(Stop::Soak);
        }
        match policy {
            LocalPolicy::Table(policy) => self.run_table(policy, request, stop, &progress, outcome).await,
            LocalPolicy::Files(policy) => self.run_files(policy, request, stop, progress, outcome).await,
        }
    }

    async fn run_table(
        &self,
        policy: &TablePolicy,
        request: &LocalRequest,
        stop: &CancellationToken,
        progress: &Arc<Progress>,
        outcome: &mut LocalOutcome,
    ) -> Result<Stop, LocalError> {
        let url = policy.archive.as_ref().ok_or_else(|| Blocked::Archive(policy.name.clone()))?;
        let target = Target::open(url, &self.storage).map_err(ArchiveError::from)?;
        let run = TableRun::begin(policy, self.postgres(policy)?, Now::read().wall, request.confirmed.as_ref()).await?;
        let plan = LocalPlan::Table(Box::new(run.plan().clone()));
        plan.tell(&self.metrics);
        plan.id().clone_into(&mut outcome.plan);
        let done = Mutex::new(Tally::default());
        let tell = |so_far: &TableOutcome| {
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            let now = tally_of_rows(so_far);
            self.metrics.progressed(&policy.name, Kind::Rows, &done, &now);
            progress(&policy.name, plan.would_delete(), &now);
            *done = now;
        };
        let ends = || self.ends(stop);
        let reins = table::Reins { budget: self.budget, rest: self.throttle.pause, ends: &ends, tell: &tell };
        let ended = run.apply(&target, &self.system, &reins).await;
        outcome.tally = done.lock().map(|done| done.clone()).unwrap_or_default();
        let (stop, rows) = ended?;
        outcome.tally = tally_of_rows(&rows);
        outcome.run = rows.run;
        Ok(stop)
    }

    async fn run_files(
        &self,
        policy: &FilePolicy,
        request: &LocalRequest,
        stop: &CancellationToken,
        progress: Arc<Progress>,
        outcome: &mut LocalOutcome,
    ) -> Result<Stop, LocalError> {
        let (policy, confirmed, jump) = (policy.clone(), request.confirmed.clone(), self.jump());
        let (memory, metrics, stop) = (self.memory.clone(), self.metrics.clone(), stop.clone());
        let (budget, rest) = (self.budget, self.throttle.pause);
        let work = tokio::task::spawn_blocking(move || {
            let run = FileRun::begin(&policy, Now::read().wall, confirmed.as_ref(), jump).map_err(|error| (error, FileTally::default()))?;
            let plan = LocalPlan::Files(Box::new(run.plan().clone()));
            plan.tell(&metrics);
            let ends = || ends(&memory, &stop);
            let mut done = Tally::default();
            let ended = run.apply(&files::Reins { budget, rest, ends: &ends }, |told| match told {
                Told::Goes(path) => tracing::debug!(policy = policy.name, path = %path.display(), "a file goes"),
                Told::Batch(tally) => {
                    let now = tally_of_files(&tally);
                    metrics.progressed(&policy.name, Kind::Files, &done, &now);
                    progress(&policy.name, plan.would_delete(), &now);
                    done = now;
                }
            });
            ended.map(|(stop, tally)| (stop, tally, plan))
        });
        match work.await.map_err(|_| LocalError::Panicked)? {
            Ok((stop, tally, plan)) => {
                outcome.tally = tally_of_files(&tally);
                plan.id().clone_into(&mut outcome.plan);
                if stop == Stop::Blocked {
                    outcome.why = format!("there is more to delete than the {} files that were planned", plan.would_delete());
                }
                Ok(stop)
            }
            Err((error, tally)) => {
                outcome.tally = tally_of_files(&tally);
                if let FileError::Blocked(Blocked::Guards(verdicts)) = &error {
                    self.metrics.blocked_by(policy_name(outcome), verdicts);
                }
                Err(error.into())
            }
        }
    }

    fn ends(&self, stop: &CancellationToken) -> Option<Stop> {
        ends(&self.memory, stop)
    }
}

fn policy_name(outcome: &LocalOutcome) -> &str {
    &outcome.policy
}

/// Whether a run is to end between two batches.
fn ends(memory: &Memory, stop: &CancellationToken) -> Option<Stop> {
    if stop.is_cancelled() { Some(Stop::Shutdown) } else { memory.paused().map(|_| Stop::Paused) }
}

fn tally_of_rows(rows: &TableOutcome) -> Tally {
    let mut tally = Tally { archived: rows.archived, deleted: rows.deleted, bytes: rows.bytes, ..Tally::default() };
    if rows.changed > 0 {
        tally.skipped.insert(Skip::Changed, rows.changed);
    }
    tally
}

fn tally_of_files(files: &FileTally) -> Tally {
    let mut tally = Tally { deleted: files.deleted, bytes: files.bytes, ..Tally::default() };
    for (skip, number) in [(Skip::Changed, files.changed), (Skip::Open, files.open)] {
        if number > 0 {
            tally.skipped.insert(skip, number);
        }
    }
    tally
}
