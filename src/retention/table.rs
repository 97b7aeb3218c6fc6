//! Rows of Postgres that are kept no longer: the same plan, guards, batches and archive as for documents.
//!
//! A row is deleted when it is in a verified archive, is still the very version that was archived (`xmin`), and still
//! is what the policy is about; all of that is asked again in the transaction that deletes. One process does it at a
//! time, by an advisory lock of the session that also deletes: whoever loses the session loses both.

mod facts;
mod plan;
mod run;
mod sql;

use crate::retention::archive::ArchiveError;
use crate::retention::warrant::Blocked;
use crate::store::fault::Fault;
use crate::store::postgres::PostgresError;

pub use facts::TableFacts;
pub(super) use plan::policy_hash;
pub use plan::{TableKept, TablePlan};
pub use run::{Reins, TableOutcome, TableRun, plan};
pub(super) use sql::quoted;

/// Rows could not be planned for, or deleted.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The server did not do it.
    #[error("the policy {policy}: {step} failed; {}", remedy(source))]
    Store {
        /// The policy.
        policy: String,
        /// What was asked.
        step: &'static str,
        /// Why not.
        #[source]
        source: PostgresError,
    },
    /// The table or column is not what the policy says.
    #[error("the policy {policy}: {problem}")]
    Mismatch {
        /// The policy.
        policy: String,
        /// What differs.
        problem: String,
    },
    /// It may not begin.
    #[error(transparent)]
    Blocked(#[from] Blocked),
    /// Somebody else does it.
    #[error("the policy {0} is being carried out by another process; only one does it at a time")]
    Locked(String),
    /// Rows cannot be archived. Nothing was deleted that is not.
    #[error("the policy {policy} stops, and what is not archived stays: rows cannot be archived")]
    Archive {
        /// The policy.
        policy: String,
        /// Why not.
        #[source]
        source: ArchiveError,
    },
}

fn remedy(error: &PostgresError) -> &'static str {
    match error.fault {
        Fault::Auth => "grant the user SELECT and DELETE on the table, SELECT on what refers to it, and UPDATE where rows are locked",
        Fault::Timeout => "the table is large or locked; try again, or raise the limit of the server",
        Fault::Missing => "check the names of table and columns",
        _ => "check that the server runs, and `stores.postgres.url`",
    }
}

// === impl TableError ===

impl TableError {
    fn store(policy: &str, step: &'static str) -> impl FnOnce(PostgresError) -> Self {
        let policy = policy.to_owned();
        move |source| Self::Store { policy, step, source }
    }
}
