//! Backups: are they there, are they new, are they whole.
//!
//! Owns what makes a backup good. Makes none, moves none and deletes none; reads no faster than it is told to.

mod archive;
mod check;
mod find;
mod metrics;
mod paced;
mod pg_dump;
mod rdb;
mod watch;

use std::path::PathBuf;

use jiff::Timestamp;

pub use check::{Checker, look};
pub use paced::Pace;
pub use watch::BackupWatch;

/// Why a backup is not good: a closed set, fit for a label.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Problem {
    /// There is none.
    Missing,
    /// The newest is too old.
    TooOld,
    /// It has too few bytes.
    TooSmall,
    /// It has far fewer bytes than the one before.
    Shrunk,
    /// Its bytes are not what was written.
    Corrupt,
    /// It ends before its end.
    Incomplete,
    /// It does not hold what it must.
    Lacking,
    /// It cannot be read.
    Unreadable,
    /// No restore has been tried for too long.
    RestoreUntested,
}

/// What was found of one backup.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Its name.
    pub backup: String,
    /// The newest, where there is one.
    pub newest: Option<Found>,
    /// What is wrong, each with what was seen.
    pub problems: Vec<(Problem, String)>,
    /// Collections that the newest holds, where it tells.
    pub holds: Vec<String>,
}

/// A backup that is there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// The file or folder.
    pub path: PathBuf,
    /// When it was last written.
    pub modified: Timestamp,
    /// All its bytes.
    pub size: u64,
}

// === impl Problem ===

impl Problem {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Missing,
        Self::TooOld,
        Self::TooSmall,
        Self::Shrunk,
        Self::Corrupt,
        Self::Incomplete,
        Self::Lacking,
        Self::Unreadable,
        Self::RestoreUntested,
    ];

    /// The value of the label `reason`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::TooOld => "too_old",
            Self::TooSmall => "too_small",
            Self::Shrunk => "shrunk",
            Self::Corrupt => "corrupt",
            Self::Incomplete => "incomplete",
            Self::Lacking => "lacking",
            Self::Unreadable => "unreadable",
            Self::RestoreUntested => "restore_untested",
        }
    }
}

// === impl Report ===

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }
}
