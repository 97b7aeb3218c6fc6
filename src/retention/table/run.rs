//! Carries a plan out: batch by batch, archived before it is deleted.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::config::retention::TablePolicy;
use crate::retention::archive::{ArchiveWriter, Record, RunIdentity, Target};
use crate::retention::table::TableError;
use crate::retention::table::facts::{self, TableFacts};
use crate::retention::table::plan::TablePlan;
use crate::retention::table::sql::{self, Version};
use crate::store::postgres::{Postgres, PostgresSession};

/// Rows a batch, as documents.
const BATCH: u32 = 500;
/// A batch is cut where it grows larger: rows are in memory as long as they are archived.
const BATCH_BYTES: usize = 4 << 20;
/// The lock is of the program, and of the policy.
const LOCK_CLASS: i32 = 0x0042_454C;
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
    /// Rows were left for the next run.
    pub is_cut_short: bool,
}

/// The plan of a policy, made without writing anything.
///
/// # Errors
/// When the server does not answer, or the table is not what the policy says.
pub async fn plan(policy: &TablePolicy, postgres: &Postgres, host_now: Timestamp) -> Result<TablePlan, TableError> {
    let session = postgres.session().await.map_err(TableError::store(&policy.name, "connecting"))?;
    Ok(TablePlan::of(policy, &facts::read(policy, &session).await?, host_now))
}

// === impl TableRun ===

impl<'a> TableRun<'a> {
    /// Takes the lock and plans anew.
    ///
    /// # Errors
    /// When another process holds the lock, or there can be no plan.
    pub async fn begin(policy: &'a TablePolicy, postgres: &Postgres, host_now: Timestamp) -> Result<Self, TableError> {
        let failed = |step| TableError::store(&policy.name, step);
        let session = postgres.session().await.map_err(failed("connecting"))?;
        let lock = format!("SELECT pg_try_advisory_lock({LOCK_CLASS}, hashtext({}))", sql::literal(&policy.name));
        let locked = session.rows(&lock).await.map_err(failed("taking the lock"))?;
        if locked.first().and_then(|row| row.first()?.as_deref()) != Some("t") {
            return Err(TableError::Locked(policy.name.clone()));
        }
        let facts = facts::read(policy, &session).await?;
        let plan = TablePlan::of(policy, &facts, host_now);
        Ok(Self { policy, session, facts, plan })
    }

    /// What would be done.
    #[must_use]
    pub fn plan(&self) -> &TablePlan {
        &self.plan
    }

    /// Archives and deletes what the plan says. `each` is told how many rows are done. Where it fails, every row is in
    /// the table or in a verified archive, and the next run goes on.
    ///
    /// # Errors
    /// When a guard does not let it go on, or when the archive or the server fails.
    pub async fn apply(self, target: &Target, system: &str, mut each: impl FnMut(u64)) -> Result<TableOutcome, TableError> {
        if let Some(verdict) = self.plan.blocked() {
            return Err(TableError::Guarded { policy: self.policy.name.clone(), finding: verdict.finding.clone() });
        }
        let failed = |step| TableError::store(&self.policy.name, step);
        let archive = |source| TableError::Archive { policy: self.policy.name.clone(), source };
        self.session.run("SET TimeZone = 'UTC'").await.map_err(failed("beginning"))?;
        let mut outcome = TableOutcome { run: self.run_name(), ..TableOutcome::default() };
        if self.plan.would_delete == 0 {
            return Ok(outcome);
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
        loop {
            let began = Instant::now();
            let left = self.policy.max_rows - outcome.archived.min(self.policy.max_rows);
            if left == 0 {
                outcome.is_cut_short = true;
                break;
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
            let Some((last, _)) = batch.last() else { break };
            after = Some(last.key.clone());
            let records: Vec<Record<'_>> = batch.iter().map(|(version, row)| Record { id: version.key.join(","), bytes: row }).collect();
            // The receipt is the permission to delete what it is for, and nothing else.
            let receipt = writer.append(&unit, &records).await.map_err(archive)?;
            outcome.archived += receipt.records;
            let versions: Vec<Version> = batch.into_iter().map(|(version, _)| version).collect();
            let deleted = self.delete(&versions, &condition).await?;
            outcome.deleted += deleted;
            outcome.changed += receipt.records.saturating_sub(deleted);
            each(receipt.records);
            // As long as the batch took: half of the time is the application's.
            tokio::time::sleep(began.elapsed().min(Duration::from_secs(5))).await;
        }
        writer.finish(self.facts.now).await.map_err(archive)?;
        Ok(outcome)
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
