//! Archives: what is deleted is written there first, read back, and compared.
//!
//! Owns the format, where archives lie, and when something counts as archived. Knows nothing of policies, nor of
//! databases: records come as bytes and go as bytes.
//!
//! One run of one policy is one folder, `{policy}/{run}/`:
//!
//! | file | holds |
//! |---|---|
//! | `run.json` | whose run it is; written before anything else |
//! | `{unit}/{number}.bson.zst` | a segment: the records of one batch as they were, one after the other, compressed |
//! | `{unit}/{number}.copy.zst` | the same for rows of a table, in Postgres' COPY text format |
//! | `{unit}/{number}.receipt.json.zst` | of each record its id, length and sha256; of the segment its own |
//! | `manifest.json` | the sum of it, written at the end |
//!
//! A segment counts when its receipt is there and fits. One without a receipt is what a crash left behind: its records
//! were not deleted. Nothing is ever overwritten but the manifest.

mod durable;
mod form;
mod layout;
mod local;
mod reader;
mod remote;
mod segment;
mod target;
mod writer;

use jiff::Timestamp;

pub use durable::replace_file;
pub use form::{Digest, Entry, Form, Manifest, SegmentReceipt, SegmentSum, UnitSum};
pub use reader::{Finding, Run, RunName, Segment, Severity};
pub use segment::Damage;
pub use target::{Place, StorageError, Target};
pub use writer::{ArchiveWriter, Receipt};

/// A record may have so many bytes: a document of MongoDB has at most 16 MiB and a little.
pub const MAX_RECORD: usize = 32 << 20;

/// Whose archive it is. A run that goes on after a crash has the same identity.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RunIdentity {
    /// The profile's name.
    pub system: String,
    /// The policy.
    pub policy: String,
    /// The run's name, unique within the policy; names sort by time.
    pub run: String,
    /// The hash of the plan that the run carries out.
    pub plan: String,
    /// What is older goes.
    pub cutoff: Timestamp,
    /// The database that the records are of.
    pub database: String,
}

/// One record as it is in the database.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record<'a> {
    /// What names it within its unit: the `_id` or the primary key, in a canonical form.
    pub id: String,
    /// A whole BSON document, or one row of COPY's text format with its line break.
    pub bytes: &'a [u8],
}

/// Something could not be archived, or an archive could not be read. Nothing may be deleted then.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The storage does not do what it should.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Another run has this name already.
    #[error(
        "{place} is the archive of another run: {what} is {theirs} there and {ours} here; nothing is written over it. \
         Give the run another name, or the policy another archive"
    )]
    AnotherRun {
        /// Where it is.
        place: Place,
        /// What differs.
        what: &'static str,
        /// Theirs.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// What was written is not what is read.
    #[error("{place} is damaged: {damage}; its records must not be deleted, and what is in it is not safe")]
    Damaged {
        /// Where it is.
        place: Place,
        /// What is wrong.
        #[source]
        damage: Damage,
    },
    /// A file of an archive cannot be understood.
    #[error("{place} is no {what} of an archive of this version: {problem}")]
    Unreadable {
        /// Where it is.
        place: Place,
        /// What it should be.
        what: &'static str,
        /// Why not.
        problem: String,
    },
    /// A record that cannot be archived as it is.
    #[error("the record {id} of {unit} cannot be archived: {problem}")]
    Record {
        /// The collection or table.
        unit: String,
        /// The record.
        id: String,
        /// Why not.
        problem: &'static str,
    },
    /// A batch without records.
    #[error("a segment of {0} has no records")]
    Empty(String),
    /// The compressor failed.
    #[error("cannot compress records of {unit}")]
    Compress {
        /// The collection or table.
        unit: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests;
