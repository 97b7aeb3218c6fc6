//! How a run ended and what it did. Pure.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::retention::RetentionError;
use crate::retention::archive::ArchiveError;
use crate::retention::warrant::Blocked;
use crate::store::lease::LeaseLost;
use crate::store::mongodb::{Reason, StoreError};

/// Why a run ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// Everything that the plan says is done.
    Done,
    /// The policy, or the section, only plans.
    PlanOnly,
    /// The policy is new, and its soak is not over.
    Soak,
    /// A guard stops it, or there is more than was planned.
    Blocked,
    /// Its documents are used up; the next run goes on.
    BudgetDocuments,
    /// Its time is used up; the next run goes on.
    BudgetTime,
    /// Somebody has paused retention.
    Paused,
    /// The replication lag did not fall.
    Lag,
    /// The replication lag is not known.
    LagUnknown,
    /// The lease is another's, or was lost.
    Lease,
    /// The archive could not be written, or is not what was written.
    Archive,
    /// The database failed.
    Store,
    /// A privilege is missing.
    Privilege,
    /// The file system failed.
    FileSystem,
    /// The process is ending.
    Shutdown,
}

/// What a policy is about.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Documents of a collection.
    Documents,
    /// Rows of a table.
    Rows,
    /// Files of a folder.
    Files,
}

impl Kind {
    /// The word for it in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Documents => "documents",
            Self::Rows => "rows",
            Self::Files => "files",
        }
    }
}

/// Why a document was not deleted, although the plan has it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// It is among the newest of its group.
    AmongNewest,
    /// Something holds it.
    Held,
    /// It is not what was archived any more, or not there.
    Changed,
    /// Something new refers to it, or something that refers to others, too.
    Referenced,
    /// A process has the file open, or has locked it.
    Open,
}

/// What a run has done so far.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Tally {
    /// Documents of the policy that are in a verified archive.
    pub archived: u64,
    /// Documents of the policy that were deleted.
    pub deleted: u64,
    /// Documents of other collections that were deleted with them.
    pub children: u64,
    /// Bytes that were archived, before compression.
    pub bytes: u64,
    /// Documents that were not deleted, for each reason.
    pub skipped: BTreeMap<Skip, u64>,
}

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The policy.
    pub policy: String,
    /// The run's name; its archive lies in a folder of this name.
    pub run: String,
    /// The plan that it carried out.
    pub plan: String,
    /// Why it ended.
    pub stop: Stop,
    /// The same in words.
    pub why: String,
    /// When it ended.
    #[serde(serialize_with = "as_text")]
    pub ended: Timestamp,
    /// What it did.
    pub tally: Tally,
}

/// A run cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It may not begin.
    #[error(transparent)]
    Blocked(#[from] Blocked),
    /// The plan could not be made.
    #[error(transparent)]
    Plan(#[from] RetentionError),
    /// The archive failed.
    #[error("nothing more is deleted: {0}")]
    Archive(#[from] ArchiveError),
    /// The lease is not ours any more.
    #[error(transparent)]
    Lease(#[from] LeaseLost),
    /// Another process has written since.
    #[error("another process has carried the policy on with a later lease")]
    Fenced,
    /// Another process holds the lease.
    #[error("{0} holds the lease: it deletes, and only one process may")]
    Held(String),
    /// The database failed.
    #[error("{step} failed{}", needs(.step, .source))]
    Store {
        /// What was done.
        step: &'static str,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// The server has refused a part of a write.
    #[error("{step}: the server refused it with code {code}")]
    Refused {
        /// What was done.
        step: &'static str,
        /// The server's code.
        code: i32,
    },
    /// The process is ending.
    #[error("the process is ending")]
    Shutdown,
}

/// The privilege that a step needs, where that is what is missing.
fn needs(step: &str, source: &StoreError) -> String {
    if source.reason() != Reason::Auth {
        return String::new();
    }
    let privilege = match step {
        "deleting" => "`remove` on the policy's collection and on its children",
        "writing the checkpoint" => "`find`, `insert` and `update` on bellwether_retention and bellwether_leases",
        "putting back what refers to a document that has changed" => {
            "`insert` on the policy's children; `retention restore` brings them back"
        }
        "taking the lease" => "`find`, `insert` and `update` on bellwether_leases",
        "asking for the replication lag" => "`replSetGetStatus` of the role clusterMonitor",
        _ => "`find` on the policy's collection, on its children and on what holds them",
    };
    format!("; grant the user {privilege}")
}

// === impl Stop ===

impl Stop {
    /// Every reason.
    pub const ALL: [Self; 15] = [
        Self::Done,
        Self::PlanOnly,
        Self::Soak,
        Self::Blocked,
        Self::BudgetDocuments,
        Self::BudgetTime,
        Self::Paused,
        Self::Lag,
        Self::LagUnknown,
        Self::Lease,
        Self::Archive,
        Self::Store,
        Self::Privilege,
        Self::FileSystem,
        Self::Shutdown,
    ];

    /// The reasons that runs of a kind may have, for metrics that show all of them.
    pub fn of_kind(kind: Kind) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |stop| match kind {
            Kind::Documents => *stop != Self::FileSystem,
            Kind::Rows => !matches!(stop, Self::FileSystem | Self::Lag | Self::LagUnknown),
            Kind::Files => !matches!(stop, Self::Archive | Self::Store | Self::Lag | Self::LagUnknown),
        })
    }

    /// The word of metrics and JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::PlanOnly => "plan_only",
            Self::Soak => "soak",
            Self::Blocked => "blocked",
            Self::BudgetDocuments => "budget_documents",
            Self::BudgetTime => "budget_time",
            Self::Paused => "paused",
            Self::Lag => "lag",
            Self::LagUnknown => "lag_unknown",
            Self::Lease => "lease",
            Self::Archive => "archive",
            Self::Store => "store",
            Self::Privilege => "privilege",
            Self::FileSystem => "file_system",
            Self::Shutdown => "shutdown",
        }
    }

    /// The reason of this word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stop| stop.word() == word)
    }

    /// Whether the run did what it was to do, or will do the rest next time by itself.
    #[must_use]
    pub fn is_success(self) -> bool {
        matches!(self, Self::Done | Self::PlanOnly | Self::Soak | Self::BudgetDocuments | Self::BudgetTime)
    }

    /// Whether the same may succeed a while later without anybody's help: what failed is outside, or the process ended.
    /// A missing privilege, a guard and a pause are ended by people.
    #[must_use]
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Lag | Self::LagUnknown | Self::Lease | Self::Archive | Self::Store | Self::FileSystem | Self::Shutdown)
    }

    /// Whether somebody must do something. A pause, the end of the process and another's lease are nobody's failure.
    #[must_use]
    pub fn is_failure(self) -> bool {
        !self.is_success() && !matches!(self, Self::Paused | Self::Shutdown | Self::Lease)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Done => "done",
            Self::PlanOnly => "the policy only plans",
            Self::Soak => "the policy is new or has changed, and its soak is not over",
            Self::Blocked => "stopped before the first deletion",
            Self::BudgetDocuments => "its documents are used up; the next run goes on",
            Self::BudgetTime => "its time is used up; the next run goes on",
            Self::Paused => "retention is paused",
            Self::Lag => "the replication lag did not fall",
            Self::LagUnknown => "the replication lag is not known",
            Self::Lease => "the lease is another's, or was lost",
            Self::Archive => "the archive failed",
            Self::Store => "the database failed",
            Self::Privilege => "a privilege is missing",
            Self::FileSystem => "the file system failed",
            Self::Shutdown => "the process was ended",
        })
    }
}

// === impl Skip ===

impl Skip {
    /// The reasons that a kind of policy may have, for metrics that show all of them.
    #[must_use]
    pub fn of_kind(kind: Kind) -> &'static [Self] {
        match kind {
            Kind::Documents => &[Self::AmongNewest, Self::Held, Self::Changed, Self::Referenced],
            Kind::Rows => &[Self::Changed],
            Kind::Files => &[Self::Changed, Self::Open],
        }
    }

    /// The word of metrics and JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::AmongNewest => "among_newest",
            Self::Held => "held",
            Self::Changed => "changed",
            Self::Referenced => "referenced",
            Self::Open => "open",
        }
    }
}

// === impl Tally ===

impl Tally {
    pub(super) fn skip(&mut self, why: Skip, documents: usize) {
        if documents > 0 {
            *self.skipped.entry(why).or_default() += documents as u64;
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// The end of what did not begin to delete.
    pub(super) fn plan_only(policy: &str, ended: Timestamp) -> Self {
        let (stop, tally) = (Stop::PlanOnly, Tally::default());
        Self { policy: policy.to_owned(), run: String::new(), plan: String::new(), stop, why: stop.to_string(), ended, tally }
    }
}

// === impl RunError ===

impl RunError {
    pub(super) fn store(step: &'static str) -> impl FnOnce(StoreError) -> Self {
        move |source| Self::Store { step, source }
    }

    /// The kind of end that it is.
    #[must_use]
    pub fn stop(&self) -> Stop {
        match self {
            Self::Blocked(_) => Stop::Blocked,
            Self::Archive(_) => Stop::Archive,
            Self::Lease(_) | Self::Fenced | Self::Held(_) => Stop::Lease,
            Self::Plan(error) if error.reason() == Some(Reason::Auth) => Stop::Privilege,
            Self::Store { source, .. } if source.reason() == Reason::Auth => Stop::Privilege,
            Self::Plan(_) | Self::Store { .. } | Self::Refused { .. } => Stop::Store,
            Self::Shutdown => Stop::Shutdown,
        }
    }

    /// Whether the same may succeed a moment later: the server was away, slow, or has stepped down.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Store { source, .. } => source.reason() != Reason::Auth && !matches!(source, StoreError::Panicked),
            Self::Refused { code, .. } => TRANSIENT.contains(code),
            _ => false,
        }
    }
}

/// Codes of what passes by itself: a write conflict, a transaction that was ended, a step-down, a time limit, a
/// majority that does not answer.
const TRANSIENT: [i32; 10] = [24, 50, 64, 91, 112, 189, 251, 10_107, 11_600, 11_602];

fn as_text<S: serde::Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_json_and_are_read_back() {
        for stop in Stop::ALL {
            assert_eq!(serde_json::to_value(stop).unwrap(), stop.word());
            assert_eq!(Stop::of_word(stop.word()), Some(stop));
        }
        for kind in [Kind::Documents, Kind::Rows, Kind::Files] {
            for skip in Skip::of_kind(kind) {
                assert_eq!(serde_json::to_value(skip).unwrap(), skip.word());
            }
            assert!(Stop::of_kind(kind).any(|stop| stop == Stop::Done));
        }
    }

    #[test]
    fn a_missing_privilege_is_named() {
        let source = StoreError::Driver { reason: Reason::Auth, code: Some(13) };
        let error = RunError::Store { step: "deleting", source };
        assert!(error.to_string().contains("`remove` on the policy's collection"), "{error}");
        assert_eq!((error.stop(), error.may_pass()), (Stop::Privilege, false));
    }
}
