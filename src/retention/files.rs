//! Files that are kept no longer: temporary ones, old backups, rotated logs.
//!
//! The same plan and guards as for documents, and no archive: a file that goes is gone. Folders are held by descriptors
//! and names are taken one at a time, so that no link and no exchange of a folder leads out of the root. A file goes
//! when it is, right before, the very one that was planned: by device, inode, size and times.

mod choice;
mod openers;
mod plan;
mod run;
mod walk;

use std::path::PathBuf;

use rustix::io::Errno;

use crate::retention::warrant::Blocked;

pub(super) use plan::policy_hash;
pub use plan::{FileKept, FilePlan, Jump};
pub use run::{FileRun, FileTally, Reins, Told, plan};

/// Files could not be looked at, or not be deleted.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The root is there and cannot be opened.
    #[error("the policy {policy}: the folder {} cannot be opened; {}", root.display(), remedy(*.source))]
    Root {
        /// The policy.
        policy: String,
        /// The folder.
        root: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
    /// It may not begin, or go on.
    #[error(transparent)]
    Blocked(#[from] Blocked),
    /// Somebody else does it.
    #[error("the policy {0} is being carried out by another process; only one does it at a time")]
    Locked(String),
    /// Files cannot be deleted.
    #[error("the policy {policy}: {failed} files cannot be deleted; {}", remedy(*.source))]
    Delete {
        /// The policy.
        policy: String,
        /// How many.
        failed: u64,
        /// Why, of the first.
        #[source]
        source: Errno,
    },
}

fn remedy(error: Errno) -> &'static str {
    match error {
        Errno::ACCESS | Errno::PERM => "let the sidecar run as the owner of the folder: it needs to read, write and enter it",
        Errno::ROFS => "the file system is read-only: mount it to be written to, or take the policy away",
        Errno::LOOP | Errno::NOTDIR => "a link or a file stands where a folder should be: write the real path",
        _ => "check that the disk is there and answers",
    }
}

// === impl FileError ===

impl FileError {
    /// Whether the user of the process may not do it.
    #[must_use]
    pub fn is_privilege(&self) -> bool {
        let (Self::Root { source, .. } | Self::Delete { source, .. }) = self else { return false };
        matches!(*source, Errno::ACCESS | Errno::PERM)
    }
}
