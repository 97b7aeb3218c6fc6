//! One run of one policy: read, archive, look again, delete, and what referred to it with it.
//!
//! Owns the order of the steps. The invariant under any end, at any point: every document is in its collection or in an
//! archive that was read back. After a crash the next run begins with what is still there; what had been archived and
//! not deleted is archived once more, which harms nobody.

mod amends;
mod batch;
mod sweep;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mongodb::Database;
use mongodb::bson::{Bson, Document, doc};
use tokio_util::sync::CancellationToken;

use crate::config::retention::{Budget, Throttle};
use crate::retention::archive::ArchiveWriter;
use crate::retention::batch::{BATCH_BYTES, ReadAhead, Reader};
use crate::retention::checkpoint::{self, Checkpoint};
use crate::retention::erase;
use crate::retention::metrics::RetentionMetrics;
use crate::retention::outcome::{RunError, Stop, Tally};
use crate::retention::pace::{Lag, has_secondaries, lag_of_majority, lag_of_members, rest};
use crate::retention::ranks::Ranks;
use crate::retention::warrant::{Blocked, Warrant};
use crate::store::lease::Lease;
use crate::store::mongodb::{Reason, within};

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(20);

/// How often in a row a batch may fail by what passes, such as a step-down.
const MOST_FAILURES: u32 = 10;

/// How often the lag is looked at while it is too great, and how long at most.
const LAG_LOOK: Duration = Duration::from_secs(2);
const LAG_PATIENCE: Duration = Duration::from_secs(300);

/// So many parents are remembered for a last sweep at the end: some megabytes at most.
const MOST_RECENT: usize = 50_000;

/// What a run is told and given.
pub(super) struct Means<'a> {
    pub database: Database,
    pub lease: &'a Lease,
    pub throttle: Throttle,
    pub budget: Budget,
    pub metrics: &'a RetentionMetrics,
    pub stop: &'a CancellationToken,
    /// Is told after each batch.
    pub progress: &'a (dyn Fn(&Tally) + Sync),
}

/// A run that goes on.
pub(super) struct Run<'a> {
    means: Means<'a>,
    warrant: &'a Warrant,
    checkpoint: Checkpoint,
    writer: ArchiveWriter,
    ranks: Ranks,
    /// The parents of the last batches, whose children may be added late.
    recent: VecDeque<Vec<Bson>>,
    tally: Tally,
}

// === impl Run ===

impl<'a> Run<'a> {
    /// A run that has a warrant, a lease, a checkpoint and an archive.
    pub fn new(means: Means<'a>, warrant: &'a Warrant, checkpoint: Checkpoint, writer: ArchiveWriter) -> Self {
        Self { means, warrant, checkpoint, writer, ranks: Ranks::default(), recent: VecDeque::new(), tally: Tally::default() }
    }

    /// Carries the plan out until it is done or something ends it. `left` are the parents of the last batch of a run
    /// that did not end.
    pub async fn carry_out(mut self, left: Vec<Bson>) -> (Result<Stop, RunError>, Tally, ArchiveWriter, Checkpoint) {
        if !left.is_empty() {
            self.recent.push_back(left);
        }
        let lost = self.means.lease.lost();
        let lease = self.means.lease;
        let ended = tokio::select! {
            biased;
            // At once: whatever is under way is fenced by the server's clock.
            () = lost.cancelled() => Err(lease.live().map_or_else(RunError::from, |_| RunError::Fenced)),
            ended = self.batches() => ended,
        };
        (ended, self.tally, self.writer, self.checkpoint)
    }

    async fn batches(&mut self) -> Result<Stop, RunError> {
        let began = Instant::now();
        let mut failures = 0;
        let mut reader = None;
        let stop = loop {
            let before = self.tally.clone();
            let stop = self.should_stop(began).await;
            let batch_began = Instant::now();
            let stepped = match stop {
                Ok(Some(stop)) => break stop,
                Ok(None) => self.step(&mut reader).await,
                Err(error) => Err(error),
            };
            match stepped {
                Ok(true) => failures = 0,
                Ok(false) => break Stop::Done,
                Err(error) if error.may_pass() && failures < MOST_FAILURES => {
                    failures += 1;
                    tracing::warn!(policy = self.warrant.policy().name, %error, failures, "a batch failed and is tried again");
                    // What was read may be gone by now, and the cursor with it.
                    reader = None;
                    self.pause(Duration::from_millis(500) * failures).await;
                    continue;
                }
                Err(error) => return Err(error),
            }
            let took = batch_began.elapsed();
            self.means.metrics.batch(&self.warrant.policy().name, &before, &self.tally, took);
            (self.means.progress)(&self.tally);
            self.pause(rest(&self.means.throttle, took)).await;
        };
        if stop != Stop::Shutdown {
            let before = self.tally.clone();
            let sweep_began = Instant::now();
            self.sweep_all().await?;
            self.means.metrics.batch(&self.warrant.policy().name, &before, &self.tally, sweep_began.elapsed());
        }
        Ok(stop)
    }

    /// One batch. Whether there was one.
    async fn step(&mut self, reader: &mut Option<ReadAhead>) -> Result<bool, RunError> {
        let open = match reader {
            Some(open) => open,
            None => reader.insert(self.open().await?),
        };
        let left = self.warrant.most().saturating_sub(self.tally.deleted);
        let candidates = open.take(usize::try_from(left).unwrap_or(usize::MAX).max(1)).await?;
        if candidates.is_empty() {
            return Ok(false);
        }
        if left == 0 {
            let planned = self.warrant.plan().would_delete;
            return Err(Blocked::Grew { what: "documents", planned, found: self.tally.deleted + 1 }.into());
        }
        // Those of the batch before: whoever looked at a parent then has had time to add to it.
        while self.recent.len() > 1 || self.recent.iter().map(Vec::len).sum::<usize>() > MOST_RECENT {
            let Some(parents) = self.recent.front().cloned() else { break };
            self.sweep(&parents).await?;
            self.recent.pop_front();
        }
        let (done, ()) = tokio::join!(self.batch(candidates), open.read_on());
        done.map(|()| true)
    }

    async fn open(&self) -> Result<ReadAhead, RunError> {
        let (policy, plan) = (self.warrant.policy(), self.warrant.plan());
        let index = plan.index.as_deref();
        let order = index.map(|index| (policy.field.as_str(), index));
        // A reply of the server holds about as much as a batch may.
        let fitting = plan.mean_bytes().map_or(u64::from(self.means.throttle.batch), |mean| BATCH_BYTES as u64 / mean.max(1));
        let size = u32::try_from(fitting.max(1)).unwrap_or(u32::MAX).min(self.means.throttle.batch);
        let reader = Reader::open(&self.means.database, &policy.collection, erase::filter(self.warrant), order, size).await?;
        Ok(ReadAhead::new(reader, usize::try_from(self.means.throttle.batch).unwrap_or(1)))
    }

    /// Why no further batch may begin, if so.
    async fn should_stop(&self, began: Instant) -> Result<Option<Stop>, RunError> {
        if self.means.stop.is_cancelled() {
            return Ok(Some(Stop::Shutdown));
        }
        self.means.lease.live()?;
        if checkpoint::paused(&self.means.database).await.map_err(RunError::store("reading whether retention is paused"))?.is_some() {
            return Ok(Some(Stop::Paused));
        }
        if self.tally.deleted >= self.means.budget.documents {
            return Ok(Some(Stop::BudgetDocuments));
        }
        if began.elapsed() >= self.means.budget.time {
            return Ok(Some(Stop::BudgetTime));
        }
        self.wait_for_secondaries().await
    }

    /// Waits while secondaries are behind. Why the run ends, where they stay behind or cannot be asked.
    async fn wait_for_secondaries(&self) -> Result<Option<Stop>, RunError> {
        let began = Instant::now();
        let mut is_said = false;
        loop {
            let stop = match lag(&self.means.database).await? {
                Lag::Alone => return Ok(None),
                Lag::Behind(lag) if lag <= self.means.throttle.max_lag => return Ok(None),
                Lag::Behind(_) => Stop::Lag,
                Lag::Unknown => Stop::LagUnknown,
            };
            if began.elapsed() >= LAG_PATIENCE || self.means.stop.is_cancelled() {
                return Ok(Some(stop));
            }
            if !is_said {
                tracing::warn!(policy = self.warrant.policy().name, reason = stop.word(), "waiting for the secondaries");
                is_said = true;
            }
            self.pause(LAG_LOOK).await;
            self.means.lease.live()?;
        }
    }

    async fn pause(&self, length: Duration) {
        tokio::select! {
            () = self.means.stop.cancelled() => {}
            () = tokio::time::sleep(length) => {}
        }
    }
}

/// How far the secondaries are behind.
async fn lag(database: &Database) -> Result<Lag, RunError> {
    let hello = command(database, doc! { "hello": 1 }).await?;
    match has_secondaries(&hello) {
        Some(false) => return Ok(Lag::Alone),
        None => return Ok(Lag::Unknown),
        Some(true) => {}
    }
    let admin = database.client().database("admin");
    match command(&admin, doc! { "replSetGetStatus": 1 }).await {
        Ok(status) => Ok(lag_of_members(&status)),
        // Without the privilege, the majority's lag is known all the same.
        Err(RunError::Store { source, .. }) if source.reason() == Reason::Auth => Ok(lag_of_majority(&hello)),
        Err(error) => Err(error),
    }
}

async fn command(database: &Database, command: Document) -> Result<Document, RunError> {
    let database = database.clone();
    within(LIMIT, async move { database.run_command(command).await }).await.map_err(RunError::store("asking for the replication lag"))
}
