//! Carries a plan out: batch by batch, archived before it is deleted.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::config::retention::{Budget, TablePolicy};
use crate::retention::archive::{ArchiveWriter, Record, RunIdentity, Target};
use crate::retention::outcome::Stop;
use crate::retention::table::TableError;
use crate::retention::table::facts::{self, TableFacts};
use crate::retention::table::plan::TablePlan;
use crate::retention::table::sql::{self, Version};
use crate::retention::warrant::{Blocked, PlanId};
use crate::store::postgres::{Postgres, PostgresSession};

/// Rows a batch, as documents.
const BATCH: u32 = 500;
/// A batch is cut where it grows larger: rows are in memory as long as they are archived.
const BATCH_BYTES: usize = 4 << 20;
/// The lock is of the program, and of the policy.
const LOCK_CLASS: i32 = 0x0042_454C;
/// A rest is at most so long; in it, whether to go on is looked at so often.
const LONGEST_REST: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);
/// Deleting a batch may take so long, and may wait so long for a lock that the application holds.
const STATEMENT_LIMIT: &str = "60s";
const LOCK_LIMIT: &str = "5s";

/// The right to carry one policy out, as long as the session lives.
#[derive(Debug)]
pub struct TableRun<'a> {
    policy: &'a TablePolicy,
    session: PostgresSession,
    facts: TableFacts,
    plan: TablePlan,
}

/// What a run did.
#[derive(Clone, Debug, Default, Eq, PartialEq, serde::Serialize)]
pub struct TableOutcome {
    /// The run.
    pub run: String,
    /// Rows that are in the archive.
    pub archived: u64,
    /// Rows that were deleted.
    pub deleted: u64,
    /// Rows that were archived and then left alone: they had changed, or something had come to refer to them.
    pub changed: u64,
    /// Bytes that were archived, before compression.
    pub bytes: u64,
}

/// What holds a run back, and what ends it between two batches.
pub struct Reins<'a> {
    /// How much it does at most.
    pub budget: Budget,
    /// A rest after each batch, as a multiple of the time that it took.
    pub rest: f64,
    /// Whether it is to end, and why.
    pub ends: &'a (dyn Fn() -> Option<Stop> + Sync),
    /// Hears of each batch: what is done so far.
    pub tell: &'a (dyn Fn(&TableOutcome) + Sync),
}

/// The plan of a policy, made without writing anything.
///
/// # Errors
/// When the server does not answer, or the table is not what the policy says.
pub async fn plan(policy: &TablePolicy, postgres: &Postgres, host_now: Timestamp) -> Result<TablePlan, TableError> {
    let session = postgres.session().await.map_err(TableError::store(&policy.name, "connecting"))?;
    Ok(TablePlan::of(policy, &facts::read(policy, &session, None).await?, host_now))
}

// === impl TableRun ===

impl<'a> TableRun<'a> {
    /// Takes the lock and plans anew. `confirmed` is the plan that somebody has looked at.
    ///
    /// # Errors
    /// When another process holds the lock, there can be no plan, or it is not the one that was looked at.
    pub async fn begin(
        policy: &'a TablePolicy,
        postgres: &Postgres,
        host_now: Timestamp,
        confirmed: Option<&PlanId>,
    ) -> Result<Self, TableError> {
        let failed = |step| TableError::store(&policy.name, step);
        let session = postgres.session().await.map_err(failed("connecting"))?;
        let lock = format!("SELECT pg_try_advisory_lock({LOCK_CLASS}, hashtext({}))", sql::literal(&policy.name));
        let locked = session.rows(&lock).await.map_err(failed("taking the lock"))?;
        if locked.first().and_then(|row| row.first()?.as_deref()) != Some("t") {
            return Err(TableError::Locked(policy.name.clone()));
        }
        let facts = facts::read(policy, &session, confirmed.map(|plan| plan.cutoff)).await?;
        let plan = TablePlan::of(policy, &facts, host_now);
        if let Some(confirmed) = confirmed {
            let (now, cutoff) = (plan.database_now.as_millisecond(), plan.cutoff.as_millisecond());
            confirmed.permits(&plan.policy_hash, now, cutoff, "rows", plan.would_delete)?;
        }
        Ok(Self { policy, session, facts, plan })
    }

    /// What would be done.
    #[must_use]
    pub fn plan(&self) -> &TablePlan {
        &self.plan
    }

    /// Archives and deletes what the plan says. Where it fails, every row is in the table or in a verified archive, and
    /// the next run goes on.
    ///
    /// # Errors
    /// When a guard does not let it go on, or when the archive or the server fails.
    pub async fn apply(self, target: &Target, system: &str, reins: &Reins<'_>) -> Result<(Stop, TableOutcome), TableError> {
        let stopped: Vec<_> = self.plan.blocking().cloned().collect();
        if !stopped.is_empty() {
            return Err(Blocked::Guards(stopped).into());
        }
        let began = Instant::now();
        let failed = |step| TableError::store(&self.policy.name, step);
        let archive = |source| TableError::Archive { policy: self.policy.name.clone(), source };
        self.session.run("SET TimeZone = 'UTC'").await.map_err(failed("beginning"))?;
        let mut outcome = TableOutcome { run: self.run_name(), ..TableOutcome::default() };
        if self.plan.would_delete == 0 {
            return Ok((Stop::Done, outcome));
        }
        let database = self.session.rows("SELECT current_database()").await.map_err(failed("asking for its name"))?;
        let identity = RunIdentity {
            system: system.to_owned(),
            policy: self.policy.name.clone(),
            run: outcome.run.clone(),
            plan: self.plan.plan_id.clone(),
            cutoff: self.facts.cutoff,
            database: database.into_iter().next().and_then(|row| row.into_iter().next().flatten()).unwrap_or_default(),
        };
        let mut writer = ArchiveWriter::create(target, identity).await.map_err(archive)?;
        let shape = &self.facts.shape;
        let unit = self.policy.table.table.clone();
        writer.declare_table(&unit, shape.table.clone(), shape.columns.clone());
        let expired = shape.is_expired(&self.policy.column, self.facts.cutoff);
        let condition = format!("{expired} AND {}", shape.is_unreferenced(&self.policy.unless_referenced));
        let mut after: Option<Vec<String>> = None;
        let most = self.policy.max_rows.min(reins.budget.documents);
        let stop = loop {
            let batch_began = Instant::now();
            let left = most.saturating_sub(outcome.archived);
            if left == 0 {
                break Stop::BudgetDocuments;
            }
            if began.elapsed() >= reins.budget.time {
                break Stop::BudgetTime;
            }
            if let Some(stop) = (reins.ends)() {
                break stop;
            }
            let rows = u32::try_from(left).unwrap_or(BATCH).min(BATCH);
            let lines = self
                .session
                .copy_out(&shape.batch(&condition, after.as_deref(), rows), BATCH_BYTES)
                .await
                .map_err(failed("reading rows"))?;
            let batch: Vec<(Version, &[u8])> = lines.iter().filter_map(|line| sql::take_apart(line, shape.key.len())).collect();
            if batch.len() < lines.len() {
                let problem = "a primary key is null or no text".to_owned();
                return Err(TableError::Mismatch { policy: self.policy.name.clone(), problem });
            }
            let Some((last, _)) = batch.last() else { break Stop::Done };
            after = Some(last.key.clone());
            let records: Vec<Record<'_>> = batch.iter().map(|(version, row)| Record { id: version.key.join(","), bytes: row }).collect();
            // The receipt is the permission to delete what it is for, and nothing else.
            let receipt = writer.append(&unit, &records).await.map_err(archive)?;
            outcome.archived += receipt.records;
            outcome.bytes += records.iter().map(|record| record.bytes.len() as u64).sum::<u64>();
            let versions: Vec<Version> = batch.into_iter().map(|(version, _)| version).collect();
            let deleted = self.delete(&versions, &condition).await?;
            outcome.deleted += deleted;
            outcome.changed += receipt.records.saturating_sub(deleted);
            (reins.tell)(&outcome);
            rest(reins, batch_began.elapsed()).await;
        };
        writer.finish(self.facts.now).await.map_err(archive)?;
        Ok((stop, outcome))
    }

    /// Deletes these versions in one transaction, where the policy is still about them.
    async fn delete(&self, versions: &[Version], condition: &str) -> Result<u64, TableError> {
        let failed = |step| TableError::store(&self.policy.name, step);
        let begin = format!("BEGIN; SET LOCAL statement_timeout = '{STATEMENT_LIMIT}'; SET LOCAL lock_timeout = '{LOCK_LIMIT}'");
        self.session.run(&begin).await.map_err(failed("beginning to delete"))?;
        let deleted = self.delete_within(versions, condition).await;
        let end = if deleted.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = self.session.run(end).await.map_err(failed("ending to delete"));
        let deleted = deleted?;
        ended?;
        Ok(deleted)
    }

    async fn delete_within(&self, versions: &[Version], condition: &str) -> Result<u64, TableError> {
        let failed = |step| TableError::store(&self.policy.name, step);
        let shape = &self.facts.shape;
        if !self.policy.unless_referenced.is_empty() {
            // A row that comes to refer to one of these waits for the lock; the statement after it sees those that came.
            self.session.run(&shape.lock(versions)).await.map_err(failed("locking rows"))?;
        }
        let gone = self.session.rows(&shape.delete(versions, condition)).await.map_err(failed("deleting rows"))?;
        Ok(gone.first().and_then(|row| row.first()?.as_ref()?.parse().ok()).unwrap_or_default())
    }

    /// Sorts by time; the end keeps two runs of one second apart.
    fn run_name(&self) -> String {
        let time = self.facts.now.strftime("%Y-%m-%dT%H-%M-%SZ");
        format!("{time}-{:08x}", fastrand::u32(..))
    }
}

/// The server is the application's for as long as the batch took; whoever wants the run to end does not wait for that.
async fn rest(reins: &Reins<'_>, took: Duration) {
    let until = Instant::now() + took.mul_f64(reins.rest).min(LONGEST_REST);
    while Instant::now() < until && (reins.ends)().is_none() {
        tokio::time::sleep(LOOK.min(until.saturating_duration_since(Instant::now()))).await;
    }
}
