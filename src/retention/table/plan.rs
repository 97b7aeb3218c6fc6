//! What a table policy would do and why: facts in, a plan out. Pure.

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::config::retention::TablePolicy;
use crate::retention::guard::{Guard, Verdict};
use crate::retention::table::facts::TableFacts;
use crate::retention::warrant::PlanId;

/// How far the clocks of the database and of the host may differ, in milliseconds.
const MAX_SKEW_MS: u64 = 60_000;

/// What a table policy would do. Nothing has been done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TablePlan {
    /// The policy's name.
    pub policy: String,
    /// Says that the policy is still the same.
    pub policy_hash: String,
    /// What the plan is called.
    pub plan_id: String,
    /// The table, quoted.
    pub table: String,
    /// The column that says how old a row is.
    pub column: String,
    /// The database's clock when the plan was made.
    #[serde(serialize_with = "crate::retention::plan::as_text")]
    pub database_now: Timestamp,
    /// Rows that are older may go; one that is exactly as old stays.
    #[serde(serialize_with = "crate::retention::plan::as_text")]
    pub cutoff: Timestamp,
    /// All rows.
    pub total: u64,
    /// Rows that would be deleted.
    pub would_delete: u64,
    /// The date of the oldest row that is older than the cutoff.
    #[serde(skip)]
    pub oldest: Option<Timestamp>,
    /// The part of the table that would be deleted, from 0 to 1.
    pub fraction: f64,
    /// What would be kept.
    pub kept: TableKept,
    /// What must hold before anything is deleted.
    pub guards: Vec<Verdict>,
}

/// How many rows would be kept, for each reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct TableKept {
    /// Younger than the cutoff, or exactly as old.
    pub young: u64,
    /// Older, and referred to.
    pub referenced: u64,
    /// Without a date.
    pub null: u64,
    /// Dated before 2000: a date that was never set.
    pub before_floor: u64,
    /// Dated in the future.
    pub future: u64,
}

/// Says that a policy is still the same: another table, column or time makes another hash.
pub(in crate::retention) fn policy_hash(policy: &TablePolicy) -> String {
    let TablePolicy { name, mode: _, table, column, keep, keep_current_month, unless_referenced, archive, max_fraction, max_rows } = policy;
    let text = format!("{:?}", (name, table, column, keep, keep_current_month, unless_referenced, archive, max_fraction, max_rows));
    Sha256::digest(text).iter().take(16).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

// === impl TablePlan ===

impl TablePlan {
    /// Decides.
    #[must_use]
    pub fn of(policy: &TablePolicy, facts: &TableFacts, host_now: Timestamp) -> Self {
        let would_delete = facts.expired.saturating_sub(facts.kept.referenced);
        let policy_hash = policy_hash(policy);
        let id = PlanId::new(facts.now.as_millisecond(), facts.cutoff.as_millisecond(), would_delete, 0, &policy_hash);
        let mut plan = Self {
            policy: policy.name.clone(),
            policy_hash,
            plan_id: id.to_string(),
            table: facts.shape.table.clone(),
            column: policy.column.clone(),
            database_now: facts.now,
            cutoff: facts.cutoff,
            total: facts.total,
            would_delete,
            oldest: facts.oldest,
            fraction: fraction(would_delete, facts.total),
            kept: facts.kept,
            guards: Vec::new(),
        };
        plan.guards = plan.verdicts(policy, facts, host_now);
        plan
    }

    fn verdicts(&self, policy: &TablePolicy, facts: &TableFacts, host_now: Timestamp) -> Vec<Verdict> {
        let skew = host_now.as_millisecond().abs_diff(self.database_now.as_millisecond());
        let key = facts.shape.key.len();
        let single_key = policy.unless_referenced.is_empty() || key == 1;
        let (part, most) = (self.fraction * 100.0, policy.max_fraction * 100.0);
        let verdict = |guard, passes, finding: String| Verdict { guard, passes, finding };
        vec![
            verdict(
                Guard::Fraction,
                self.fraction <= policy.max_fraction,
                format!("{part:.1} % of the table would be deleted; at most {most:.0} % may be"),
            ),
            verdict(
                Guard::Index,
                key > 0 && single_key,
                match (key, single_key) {
                    (0, _) => "the table has no primary key, by which rows are deleted".to_owned(),
                    (_, false) => "the primary key has several columns, and a reference has one".to_owned(),
                    _ => "rows are deleted by their primary key".to_owned(),
                },
            ),
            verdict(
                Guard::Clocks,
                skew <= MAX_SKEW_MS,
                format!("the clocks of database and host differ by {} ms; at most {MAX_SKEW_MS} may be", skew),
            ),
            verdict(
                Guard::Children,
                facts.uncovered.is_empty(),
                if facts.uncovered.is_empty() {
                    "no other row goes or changes with the rows".to_owned()
                } else {
                    format!(
                        "rows of {} would go or change unarchived with the rows they refer to; name them in `unless_referenced`",
                        facts.uncovered.join(", ")
                    )
                },
            ),
        ]
    }

    /// The guards that do not let it go on.
    pub fn blocking(&self) -> impl Iterator<Item = &Verdict> {
        self.guards.iter().filter(|verdict| !verdict.passes)
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of rows are far below 2^53")]
fn fraction(part: u64, total: u64) -> f64 {
    // Rows of which there seem to be more than there are all in all: everything.
    if total == 0 { f64::from(u8::from(part > 0)) } else { part as f64 / total as f64 }
}

impl std::fmt::Display for TablePlan {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(formatter, "PLAN ONLY, nothing has been deleted: policy {}", self.policy)?;
        writeln!(formatter, "  rows of {} whose {} is before {}", self.table, self.column, self.cutoff)?;
        writeln!(formatter, "  {:>9} of {} would be deleted", self.would_delete, self.total)?;
        for (rows, reason) in [
            (self.kept.young, "younger, or exactly as old"),
            (self.kept.referenced, "older, and other rows refer to them"),
            (self.kept.null, "without a date"),
            (self.kept.before_floor, "dated before 2000: a date that was never set"),
            (self.kept.future, "dated in the future"),
        ] {
            if rows > 0 {
                writeln!(formatter, "  {rows:>9} kept: {reason}")?;
            }
        }
        for verdict in &self.guards {
            writeln!(formatter, "  {} {}", if verdict.passes { "ok  " } else { "STOP" }, verdict.finding)?;
        }
        write!(formatter, "  policy {}\n  plan {}", self.policy_hash, self.plan_id)
    }
}
