//! Policies that need no MongoDB: rows of Postgres, and files. Plans them, carries them out, remembers how that ended.
//!
//! What is remembered lies in the state folder, a file for each policy; without the folder, in memory alone. One runs at
//! a time: rows by an advisory lock of the database, files by a lock of their folder.

mod engine;
mod jump;
mod memory;
mod report;
mod service;

use serde::{Deserialize, Serialize};

use crate::config::retention::{FilePolicy, Mode, TablePolicy};
use crate::retention::archive::ArchiveError;
use crate::retention::files::{self, FileError, FilePlan};
use crate::retention::metrics::RetentionMetrics;
use crate::retention::outcome::{Kind, Stop, Tally};
use crate::retention::table::{self, TableError, TablePlan};
use crate::retention::warrant::{Blocked, PlanId};
use crate::store::fault::Fault;

pub use engine::{Local, Progress};
pub use service::LocalService;

/// A policy that needs no MongoDB.
#[derive(Clone, Debug)]
pub enum LocalPolicy {
    /// Rows.
    Table(TablePolicy),
    /// Files.
    Files(FilePolicy),
}

/// What a policy would do.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum LocalPlan {
    /// Rows.
    Table(Box<TablePlan>),
    /// Files.
    Files(Box<FilePlan>),
}

/// What is asked of a run.
#[derive(Clone, Debug, Default)]
pub struct LocalRequest {
    /// The plan that somebody has looked at; the schedule has none.
    pub confirmed: Option<PlanId>,
    /// Does not wait for the soak.
    pub now: bool,
}

/// A run that has ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LocalOutcome {
    /// The policy.
    pub policy: String,
    /// What it is about.
    pub kind: Kind,
    /// The run's name, where rows went to an archive.
    pub run: String,
    /// The plan that it carried out.
    pub plan: String,
    /// Why it ended.
    pub stop: Stop,
    /// The same in words.
    pub why: String,
    /// When it ended.
    pub ended: String,
    /// What it did.
    pub tally: Tally,
}

/// How a policy stands.
#[derive(Clone, Debug, Serialize)]
pub struct LocalStanding {
    /// The policy.
    pub policy: String,
    /// What it is about.
    pub kind: Kind,
    /// Whether it deletes.
    pub enforces: bool,
    /// How its last run ended, where there was one.
    pub last: Option<LocalOutcome>,
    /// When the policy was first seen as it is now, where it was.
    pub first_seen: Option<String>,
}

/// A run cannot begin, or go on.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Rows.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Files.
    #[error(transparent)]
    Files(#[from] FileError),
    /// The policy may not.
    #[error(transparent)]
    Blocked(#[from] Blocked),
    /// There is no database.
    #[error("the policy {0} is about Postgres, and there is no `stores.postgres`")]
    NoStore(String),
    /// The archive cannot be opened.
    #[error("nothing is deleted: {0}")]
    Archive(#[from] ArchiveError),
    /// The pause cannot be noted.
    #[error("cannot write {path}; a pause of tables and files lies in `state_dir`, which the sidecar must be able to write to")]
    State {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A bug of ours.
    #[error("the thread that looked at files has panicked; this is a bug")]
    Panicked,
}

// === impl LocalPolicy ===

impl LocalPolicy {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Table(policy) => &policy.name,
            Self::Files(policy) => &policy.name,
        }
    }

    /// Whether it deletes.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match self {
            Self::Table(policy) => policy.mode,
            Self::Files(policy) => policy.mode,
        }
    }

    /// What it is about.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Table(_) => Kind::Rows,
            Self::Files(_) => Kind::Files,
        }
    }

    /// Whether a plan is of this policy, as it is now.
    #[must_use]
    pub fn owns(&self, plan: &PlanId) -> bool {
        plan.is_of(&self.hash())
    }

    fn hash(&self) -> String {
        match self {
            Self::Table(policy) => table::policy_hash(policy),
            Self::Files(policy) => files::policy_hash(policy),
        }
    }
}

// === impl LocalPlan ===

impl LocalPlan {
    /// What the plan is called.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Table(plan) => &plan.plan_id,
            Self::Files(plan) => &plan.plan_id,
        }
    }

    /// How much would go.
    #[must_use]
    pub fn would_delete(&self) -> u64 {
        match self {
            Self::Table(plan) => plan.would_delete,
            Self::Files(plan) => plan.would_delete,
        }
    }

    /// Whether every guard would let it go on.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::Table(plan) => plan.blocking().next().is_none(),
            Self::Files(plan) => plan.blocking().next().is_none(),
        }
    }

    fn tell(&self, metrics: &RetentionMetrics) {
        match self {
            Self::Table(plan) => metrics.found(&plan.policy, plan.would_delete, plan.cutoff, plan.oldest, &plan.guards),
            Self::Files(plan) => metrics.found(&plan.policy, plan.would_delete, plan.cutoff, plan.oldest, &plan.guards),
        }
    }
}

// === impl LocalError ===

impl LocalError {
    /// The kind of end that it is.
    #[must_use]
    pub fn stop(&self) -> Stop {
        match self {
            Self::Blocked(Blocked::Mode(_)) => Stop::PlanOnly,
            Self::Blocked(_) | Self::Table(TableError::Blocked(_) | TableError::Mismatch { .. }) | Self::Files(FileError::Blocked(_)) => {
                Stop::Blocked
            }
            Self::Table(TableError::Locked(_)) | Self::Files(FileError::Locked(_)) => Stop::Lease,
            Self::Table(TableError::Archive { .. }) | Self::Archive(_) => Stop::Archive,
            Self::Table(TableError::Store { source, .. }) if source.fault == Fault::Auth => Stop::Privilege,
            Self::Table(TableError::Store { .. }) | Self::NoStore(_) => Stop::Store,
            Self::Files(error) if error.is_privilege() => Stop::Privilege,
            Self::Files(_) | Self::State { .. } | Self::Panicked => Stop::FileSystem,
        }
    }
}
