//! What is kept for how long: the time to live that indexes enforce, observed, and the policies, planned.
//!
//! Owns what a policy would do and why, and reads it without writing anything. Nothing here deletes or alters an
//! index: the application declares its indexes at each start and ends where one differs.

pub mod archive;
mod children;
mod facts;
mod guard;
mod plan;
mod report;
pub mod restore;
mod shape;
pub mod table;
mod ttl;

use std::time::Duration;

use jiff::Timestamp;

use crate::config::retention::Policy;
use crate::store::mongodb::{Mongo, Reason, StoreError};

pub use facts::{Access, Facts, read as read_facts};
pub use guard::{Guard, Verdict};
pub use plan::{ChildPlan, KeepReason, Kept, Plan};
pub use shape::Window;
pub use ttl::TtlObserver;

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(20);

/// A plan could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// The database did not tell what the plan needs.
    #[error("cannot plan the policy {policy}: {step} failed; {remedy}")]
    Store {
        /// The policy.
        policy: String,
        /// What was asked.
        step: &'static str,
        /// What may help.
        remedy: &'static str,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The database's clock cannot be right.
    #[error("the database's clock is at {0} ms since 1970, which is no time; correct it before anything is planned by it")]
    Clock(i64),
}

/// Says what a policy would do now, by the database's clock, and why. Reads only, and writes nothing anywhere.
///
/// # Errors
/// When the database does not answer, or not in time.
pub async fn plan(policy: &Policy, mongo: &Mongo, host_now: Timestamp) -> Result<Plan, RetentionError> {
    let now = mongo.server_time(LIMIT).await.map_err(|source| RetentionError::store(policy, "asking for its clock", source))?;
    let facts = facts::read(policy, mongo, now).await?;
    Plan::of(policy, &facts, host_now)
}

// === impl RetentionError ===

impl RetentionError {
    /// Says what failed and what may help.
    fn store(policy: &Policy, step: &'static str, source: StoreError) -> Self {
        let remedy = match source.reason() {
            Reason::Timeout => "an index on the date field is needed; without one the whole collection is read",
            Reason::Auth => "grant the user the role `read` on the application's database",
            _ => "check that the server runs, and `stores.mongodb.uri`",
        };
        Self::Store { policy: policy.name.clone(), step, remedy, source }
    }
}
