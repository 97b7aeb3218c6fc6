//! What the files of an archive say beside the records themselves. Pure.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::retention::archive::RunIdentity;

/// The version of the format.
pub(super) const VERSION: u32 = 1;

/// How the records of a unit are written.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// BSON documents, as `mongodump` writes them.
    #[default]
    Bson,
    /// Rows of Postgres' COPY in its text format.
    Copy {
        /// The table with its schema, quoted as SQL wants it.
        table: String,
        /// The columns, in the order of the rows.
        columns: Vec<String>,
    },
}

/// Whose run an archive is, as it is written.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct RunFile {
    pub format: u32,
    pub system: String,
    pub policy: String,
    pub run: String,
    pub plan: String,
    pub cutoff: String,
    pub database: String,
}

/// What is known of a segment.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SegmentReceipt {
    /// The version of the format.
    pub format: u32,
    /// The run.
    pub run: String,
    /// The plan that the run carried out.
    pub plan: String,
    /// The collection or table.
    pub unit: String,
    /// The segment's number within its unit, from one.
    pub number: u32,
    /// How its records are written.
    pub form: Form,
    /// How many bytes the segment has.
    pub stored_bytes: u64,
    /// The sha256 of the segment.
    pub stored_sha256: Digest,
    /// How many bytes its records have.
    pub bytes: u64,
    /// The sha256 of its records, one after the other.
    pub sha256: Digest,
    /// Its records.
    pub records: Vec<Entry>,
}

/// What is known of a record.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Entry {
    /// What names it within its unit.
    pub id: String,
    /// How many bytes it has.
    pub bytes: u32,
    /// Their sha256.
    pub sha256: Digest,
}

/// The sum of a run.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Manifest {
    /// The version of the format.
    pub format: u32,
    /// The version of the program.
    pub written_by: String,
    /// The profile.
    pub system: String,
    /// The policy.
    pub policy: String,
    /// The run.
    pub run: String,
    /// The hash of the plan that the run carried out.
    pub plan: String,
    /// What was older went.
    pub cutoff: String,
    /// The database.
    pub database: String,
    /// When the run ended.
    pub finished: String,
    /// All records.
    pub records: u64,
    /// All their bytes.
    pub bytes: u64,
    /// All bytes that are stored.
    pub stored_bytes: u64,
    /// The collections or tables.
    pub units: Vec<UnitSum>,
}

/// The sum of a collection or table.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct UnitSum {
    /// Its name.
    pub unit: String,
    /// How its records are written.
    pub form: Form,
    /// Its records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The segments, in order.
    pub segments: Vec<SegmentSum>,
}

/// The sum of a segment.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SegmentSum {
    /// Its number.
    pub number: u32,
    /// Its records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many bytes are stored.
    pub stored_bytes: u64,
    /// The sha256 of the segment.
    pub sha256: Digest,
    /// The sha256 of its receipt.
    pub receipt_sha256: Digest,
    /// The first of its records.
    pub first: String,
    /// The last of its records.
    pub last: String,
}

/// A sha256; 64 hexadecimal digits where it is written.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

// === impl Digest ===

impl Digest {
    /// The sha256 of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        use std::fmt::Write as _;
        digest.0.iter().fold(Self::with_capacity(64), |mut text, byte| {
            // Writing to a text cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let problem = "a sha256 has 64 hexadecimal digits";
        let mut digest = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(problem);
        }
        for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| problem)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| problem)?;
        }
        Ok(Self(digest))
    }
}

// === impl Form ===

impl Form {
    pub(super) fn extension(&self) -> &'static str {
        match self {
            Self::Bson => ".bson.zst",
            Self::Copy { .. } => ".copy.zst",
        }
    }
}

// === impl RunFile ===

impl RunFile {
    pub(super) fn of(identity: &RunIdentity) -> Self {
        Self {
            format: VERSION,
            system: identity.system.clone(),
            policy: identity.policy.clone(),
            run: identity.run.clone(),
            plan: identity.plan.clone(),
            cutoff: identity.cutoff.to_string(),
            database: identity.database.clone(),
        }
    }

    /// The first thing in which two differ, theirs and ours.
    pub(super) fn difference(&self, ours: &Self) -> Option<(&'static str, String, String)> {
        [
            ("the format", self.format.to_string(), ours.format.to_string()),
            ("the system", self.system.clone(), ours.system.clone()),
            ("the policy", self.policy.clone(), ours.policy.clone()),
            ("the run", self.run.clone(), ours.run.clone()),
            ("the plan", self.plan.clone(), ours.plan.clone()),
            ("the cutoff", self.cutoff.clone(), ours.cutoff.clone()),
            ("the database", self.database.clone(), ours.database.clone()),
        ]
        .into_iter()
        .find(|(_, theirs, ours)| theirs != ours)
    }
}

// === impl SegmentReceipt ===

impl SegmentReceipt {
    /// Its sum. `stored` is the receipt as it is stored.
    pub(super) fn sum(&self, stored: &[u8]) -> SegmentSum {
        let id = |entry: Option<&Entry>| entry.map(|entry| entry.id.clone()).unwrap_or_default();
        SegmentSum {
            number: self.number,
            records: self.records.len() as u64,
            bytes: self.bytes,
            stored_bytes: self.stored_bytes,
            sha256: self.stored_sha256,
            receipt_sha256: Digest::of(stored),
            first: id(self.records.first()),
            last: id(self.records.last()),
        }
    }
}
