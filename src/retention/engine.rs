//! Carries policies out: plans, gets the permission, takes the lease, runs, and remembers how it ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mongodb::bson::doc;
use tokio_util::sync::CancellationToken;

use crate::config::retention::{Mode, Policy, Retention};
use crate::config::storage::StorageAccess;
use crate::retention::archive::{ArchiveError, ArchiveWriter, RunIdentity, Target};
use crate::retention::checkpoint::{self, Checkpoint, Memory, Patience, Unfinished};
use crate::retention::metrics::RetentionMetrics;
use crate::retention::outcome::{Outcome, RunError, Stop, Tally};
use crate::retention::pace::has_transactions;
use crate::retention::plan::Plan;
use crate::retention::run::{Means, Run};
use crate::retention::soak::soaks_until;
use crate::retention::warrant::{Blocked, PlanId, Warrant};
use crate::retention::{RetentionError, plan_up_to};
use crate::store::lease::{Attempt, Lease, Leases};
use crate::store::mongodb::{Mongo, within};

/// The lease of whoever deletes.
pub const LEASE: &str = "retention";

/// How often a lease that is another's is tried again.
const LEASE_LOOK: Duration = Duration::from_secs(1);

/// Carries policies out.
#[derive(Clone, Debug)]
pub struct Engine {
    mongo: Arc<Mongo>,
    leases: Leases,
    settings: Retention,
    storage: StorageAccess,
    system: String,
    metrics: RetentionMetrics,
}

/// What is asked of a run.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The plan that somebody has looked at; the schedule has none.
    pub confirmed: Option<PlanId>,
    /// Does not wait for the soak.
    pub now: bool,
    /// What the process calls itself where it holds the lease.
    pub who: String,
    /// How long to wait for a lease that is another's.
    pub patience: Duration,
}

/// How a policy stands.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Standing {
    /// The policy.
    pub policy: String,
    /// Whether it deletes.
    pub enforces: bool,
    /// How its last run ended, where there was one.
    pub last: Option<Outcome>,
    /// A run that has begun and has not ended.
    pub unfinished: Option<String>,
    /// When the policy was first seen as it is now, where it was.
    pub first_seen: Option<String>,
}

// === impl Engine ===

impl Engine {
    /// An engine for a configuration; nothing is connected yet.
    #[must_use]
    pub fn new(mongo: Arc<Mongo>, settings: &Retention, storage: &StorageAccess, system: &str, metrics: RetentionMetrics) -> Self {
        let leases = Leases::new(Arc::clone(&mongo), settings.lease);
        Self { mongo, leases, settings: settings.clone(), storage: storage.clone(), system: system.to_owned(), metrics }
    }

    /// The leases that it takes.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// What it was told.
    #[must_use]
    pub fn settings(&self) -> &Retention {
        &self.settings
    }

    /// What Prometheus learns of it.
    #[must_use]
    pub fn metrics(&self) -> &RetentionMetrics {
        &self.metrics
    }

    /// Says what a policy would do now.
    ///
    /// # Errors
    /// When the database does not answer, or not in time.
    pub async fn plan(&self, policy: &Policy, host_now: Timestamp) -> Result<Plan, RetentionError> {
        let plan = plan_up_to(policy, &self.mongo, host_now, None).await?;
        self.metrics.planned(&plan);
        Ok(plan)
    }

    /// How a policy stands, as the database remembers it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn standing(&self, policy: &Policy) -> Result<Standing, RunError> {
        let memory = self.memory(policy).await?;
        Ok(Standing {
            policy: policy.name.clone(),
            enforces: policy.mode == Mode::Enforce,
            last: memory.last,
            unfinished: memory.unfinished.map(|run| run.run),
            first_seen: memory.first_seen.and_then(|time| Timestamp::from_millisecond(time).ok()).map(|time| time.to_string()),
        })
    }

    /// Pauses retention for every process, or lets it go on.
    ///
    /// # Errors
    /// When the database does not answer, or refuses.
    pub async fn pause(&self, reason: Option<&str>) -> Result<(), RunError> {
        let database = self.mongo.database().await.map_err(RunError::store("connecting"))?;
        checkpoint::set_paused(&database, reason).await.map_err(RunError::store("writing the checkpoint"))?;
        self.metrics.paused(reason.is_some());
        Ok(())
    }

    /// Why retention is paused, where it is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn paused(&self) -> Result<Option<String>, RunError> {
        let database = self.mongo.database().await.map_err(RunError::store("connecting"))?;
        let paused = checkpoint::paused(&database).await.map_err(RunError::store("reading whether retention is paused"))?;
        self.metrics.paused(paused.is_some());
        Ok(paused)
    }

    /// Takes a start of the schedule, so that no other process takes the same.
    ///
    /// # Errors
    /// When the database does not answer, or refuses.
    pub(super) async fn take_start(&self, policy: &Policy, start: Timestamp) -> Result<bool, RunError> {
        let database = self.mongo.database().await.map_err(RunError::store("connecting"))?;
        checkpoint::take_start(&database, &policy.name, start.as_millisecond()).await.map_err(RunError::store("writing the checkpoint"))
    }

    /// Carries a policy out, as far as it may be, and remembers how that ended.
    pub async fn run(
        &self,
        policy: &Policy,
        request: &Request,
        host_now: impl Fn() -> Timestamp,
        stop: &CancellationToken,
        progress: &(dyn Fn(&Plan, &Tally) + Sync),
    ) -> Outcome {
        self.metrics.running(&policy.name, true);
        let run = run_name(host_now());
        let ended = self.attempt(policy, request, &run, &host_now, stop, progress).await;
        let outcome = match ended {
            Ok(outcome) => outcome,
            Err(error) => {
                let outcome = Outcome {
                    policy: policy.name.clone(),
                    run,
                    plan: request.confirmed.as_ref().map(PlanId::to_string).unwrap_or_default(),
                    stop: match &error {
                        RunError::Blocked(Blocked::Mode(_)) => Stop::PlanOnly,
                        other => other.stop(),
                    },
                    why: with_causes(&error),
                    ended: host_now(),
                    tally: Tally::default(),
                };
                self.remember(&outcome).await;
                outcome
            }
        };
        self.metrics.running(&policy.name, false);
        self.metrics.ended(&outcome);
        outcome
    }

    /// A note for `status`; where it cannot be written, the log has it.
    async fn remember(&self, outcome: &Outcome) {
        // Somebody else's run is theirs to tell of; and a policy that only plans leaves no trace in the database.
        if matches!(outcome.stop, Stop::Lease | Stop::PlanOnly) {
            return;
        }
        let noted = match self.mongo.database().await {
            Ok(database) => checkpoint::note_outcome(&database, outcome).await,
            Err(error) => Err(error),
        };
        if let Err(error) = noted {
            tracing::warn!(%error, policy = outcome.policy, "how the run ended could not be noted in the database");
        }
    }

    async fn attempt(
        &self,
        policy: &Policy,
        request: &Request,
        run: &str,
        host_now: &impl Fn() -> Timestamp,
        stop: &CancellationToken,
        progress: &(dyn Fn(&Plan, &Tally) + Sync),
    ) -> Result<Outcome, RunError> {
        // Before anything is written.
        if policy.mode != Mode::Enforce {
            return Err(Blocked::Mode(policy.name.clone()).into());
        }
        let lease = self.take_lease(&request.who, request.patience, stop).await?;
        let ended = self.with_lease(policy, request, run, host_now, &lease, stop, progress).await;
        lease.release().await;
        ended
    }

    async fn take_lease(&self, who: &str, patience: Duration, stop: &CancellationToken) -> Result<Lease, RunError> {
        let began = Instant::now();
        let mut seen = None;
        loop {
            match self.leases.take(LEASE, who, seen.as_ref()).await.map_err(RunError::store("taking the lease"))? {
                Attempt::Taken(lease) => return Ok(lease),
                Attempt::Refused(by) if began.elapsed() >= patience => return Err(RunError::Held(by.who)),
                Attempt::Refused(by) => seen = Some(by),
            }
            tokio::select! {
                () = stop.cancelled() => return Err(RunError::Shutdown),
                () = tokio::time::sleep(LEASE_LOOK) => {}
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "everything that a run is made of, once")]
    async fn with_lease(
        &self,
        policy: &Policy,
        request: &Request,
        run: &str,
        host_now: &impl Fn() -> Timestamp,
        lease: &Lease,
        stop: &CancellationToken,
        progress: &(dyn Fn(&Plan, &Tally) + Sync),
    ) -> Result<Outcome, RunError> {
        let database = self.mongo.database().await.map_err(RunError::store("connecting"))?;
        let memory = self.memory(policy).await?;
        let confirmed = request.confirmed.as_ref().map(|confirmed| confirmed.cutoff);
        // A run of the schedule that a crash has left is finished with its own cutoff first.
        let cutoff = confirmed.or(memory.unfinished.as_ref().map(|unfinished| unfinished.cutoff));
        let plan = plan_up_to(policy, &self.mongo, host_now(), cutoff).await?;
        self.metrics.planned(&plan);
        let hash = plan.policy_hash.clone();
        let patience = Patience::new(&policy.name, stop);
        let seen = loop {
            lease.live()?;
            match checkpoint::note_first_seen(&database, &policy.name, &hash).await {
                Ok(seen) => break seen,
                Err(source) => patience.wait(RunError::Store { step: "writing the checkpoint", source }).await?,
            }
        };
        let ended = |stop, why: String, run: &Unfinished, tally| Outcome {
            policy: policy.name.clone(),
            run: run.run.clone(),
            plan: run.plan.clone(),
            stop,
            why,
            ended: host_now(),
            tally,
        };
        let fresh = Unfinished { run: run.to_owned(), plan: plan.plan_id.clone(), cutoff: plan.cutoff.as_millisecond() };
        if !request.now
            && let Some(until) = soaks_until(seen, self.settings.soak, plan.database_now)
        {
            let why = format!("the policy is new or has changed; it is enforced from {until} on, or with --now");
            let outcome = ended(Stop::Soak, why, &fresh, Tally::default());
            self.remember(&outcome).await;
            return Ok(outcome);
        }
        let identity = goes_on(&memory, &plan, request).unwrap_or(fresh);
        let warrant = Warrant::of(policy, plan, request.confirmed.as_ref())?;
        let writer = self.archive(&warrant, &identity).await?;
        let hello = database.clone();
        let hello = within(super::LIMIT, async move { hello.run_command(doc! { "hello": 1 }).await });
        let transactions = has_transactions(&hello.await.map_err(RunError::store("asking what the server is"))?);
        let patience = Patience::new(&policy.name, stop);
        let checkpoint = loop {
            match Checkpoint::begin(&database, lease, warrant.plan(), &identity, transactions).await {
                Ok(checkpoint) => break checkpoint,
                Err(error) => patience.wait(error).await?,
            }
        };
        let progress = |tally: &Tally| progress(warrant.plan(), tally);
        let means = Means {
            database,
            lease,
            throttle: self.settings.throttle,
            budget: self.settings.budget,
            metrics: &self.metrics,
            stop,
            progress: &progress,
        };
        let (result, tally, writer, checkpoint) = Run::new(means, &warrant, checkpoint, writer).carry_out(memory.batch).await;
        let finished = writer.finish(host_now()).await.map_err(RunError::from);
        let outcome = match (result, finished) {
            (Ok(stop), Ok(_)) => ended(stop, stop.to_string(), &identity, tally),
            (Err(error), _) | (Ok(_), Err(error)) => ended(error.stop(), with_causes(&error), &identity, tally),
        };
        if let Err(error) = checkpoint.end(lease, &outcome).await {
            tracing::warn!(%error, policy = policy.name, "how the run ended could not be noted in the database");
        }
        Ok(outcome)
    }

    async fn memory(&self, policy: &Policy) -> Result<Memory, RunError> {
        let database = self.mongo.database().await.map_err(RunError::store("connecting"))?;
        checkpoint::remember(&database, &policy.name).await.map_err(RunError::store("reading the checkpoint"))
    }

    async fn archive(&self, warrant: &Warrant, run: &Unfinished) -> Result<ArchiveWriter, RunError> {
        let policy = warrant.policy();
        let url = policy.archive.as_ref().ok_or_else(|| Blocked::Archive(policy.name.clone()))?;
        let target = Target::open(url, &self.storage).map_err(ArchiveError::from)?;
        let identity = RunIdentity {
            system: self.system.clone(),
            policy: policy.name.clone(),
            run: run.run.clone(),
            plan: run.plan.clone(),
            cutoff: crate::retention::warrant::time(run.cutoff),
            database: warrant.plan().database.clone(),
        };
        Ok(ArchiveWriter::create(&target, identity).await?)
    }
}

/// The run that a crash has left, where this one carries the same plan on.
fn goes_on(memory: &Memory, plan: &Plan, request: &Request) -> Option<Unfinished> {
    let unfinished = memory.unfinished.clone()?;
    let id: PlanId = unfinished.plan.parse().ok()?;
    let is_same = match &request.confirmed {
        Some(confirmed) => *confirmed == id,
        None => id.is_of(&plan.policy_hash) && unfinished.cutoff == plan.cutoff.as_millisecond(),
    };
    is_same.then_some(unfinished)
}

/// The name of a run: by the second, so that names sort by time, and one of its own.
fn run_name(now: Timestamp) -> String {
    let random = fastrand::u32(..);
    format!("{}-{random:08x}", now.strftime("%Y%m%dT%H%M%SZ"))
}

/// An error with its causes.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_runs_sort_by_time() {
        let names: Vec<String> = [0, 1, 60, 86_400].map(|second| run_name(Timestamp::from_second(second).unwrap())).into();
        assert!(names.is_sorted(), "{names:?}");
    }
}
