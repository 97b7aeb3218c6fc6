//! What is kept for how long: the time to live that indexes enforce, and the policies, planned and carried out.
//!
//! Owns what a policy would do and why, and carries it out: archive first, read back, look again, delete. A plan writes
//! nothing. Documents are deleted in `erase` alone, which takes a warrant, a lease and archived documents; rows of
//! Postgres in `table::run` alone, behind an advisory lock.

mod agenda;
pub mod archive;
mod batch;
mod checkpoint;
mod children;
mod edge;
mod engine;
mod erase;
mod facts;
pub mod files;
mod guard;
mod holds;
pub mod local;
mod metrics;
mod outcome;
mod pace;
mod plan;
mod ranks;
mod report;
pub mod restore;
mod run;
mod service;
mod shape;
mod soak;
pub mod table;
mod ttl;
mod ttl_owner;
mod warrant;

use std::time::Duration;

use jiff::Timestamp;

use crate::config::retention::Policy;
use crate::store::mongodb::{Mongo, Reason, StoreError};

pub use engine::{Engine, LEASE, Request, Standing};
pub use facts::{Access, Facts, Scanned, read as read_facts};
pub use guard::{Guard, Verdict};
pub use metrics::RetentionMetrics;
pub use outcome::{Kind, Outcome, RunError, Skip, Stop, Tally};
pub use plan::{ChildPlan, KeepReason, Kept, Plan};
pub use service::{Ask, Question, Questions, Service};
pub use shape::Window;
pub use ttl::{Census, Never, TtlObserver, Undated, census};
pub use ttl_owner::TtlOwner;
pub use warrant::{Blocked, NoPlanId, PlanId, Warrant};

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
    plan_up_to(policy, mongo, host_now, None).await
}

/// The same, for a cutoff that is not later than somebody has decided on, in milliseconds since 1970.
///
/// # Errors
/// When the database does not answer, or not in time.
pub async fn plan_up_to(policy: &Policy, mongo: &Mongo, host_now: Timestamp, cutoff: Option<i64>) -> Result<Plan, RetentionError> {
    let now = mongo.server_time(LIMIT).await.map_err(|source| RetentionError::store(policy, "asking for its clock", source))?;
    let mut window = Window::of(policy, now);
    window.cutoff = cutoff.map_or(window.cutoff, |cutoff| cutoff.min(window.cutoff));
    let facts = facts::read_window(policy, mongo, window).await?;
    Plan::of(policy, &facts, host_now)
}

// === impl RetentionError ===

impl RetentionError {
    /// Says what failed and what may help.
    /// What kind of failure of the database it was.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        if let Self::Store { source, .. } = self { Some(source.reason()) } else { None }
    }

    fn store(policy: &Policy, step: &'static str, source: StoreError) -> Self {
        let remedy = match source.reason() {
            Reason::Timeout => "an index on the date field is needed; without one the whole collection is read",
            Reason::Auth => "grant the user the role `read` on the application's database",
            _ => "check that the server runs, and `stores.mongodb.uri`",
        };
        Self::Store { policy: policy.name.clone(), step, remedy, source }
    }
}
