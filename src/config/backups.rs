//! `backups`: which backups there should be, and what makes one good.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use globset::{GlobBuilder, GlobMatcher};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::{Complaints, Problems};
use crate::config::spanned::Spanned;
use crate::config::values::{HumanDuration, HumanSize};

/// A day and two hours: a nightly backup may be late.
const MAX_AGE: Duration = Duration::from_secs(26 * 3600);
/// A backup that has lost more than half of itself since the last one has lost something.
const MIN_RATIO: f64 = 0.5;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Backup")]
pub(super) struct RawBackup {
    name: String,
    /// Where the backups lie: a glob of files, or of folders of `mongodump`. Empty: not watched.
    path: String,
    /// What they are; found out by itself where it is not said.
    #[serde(default)]
    kind: Kind,
    /// The newest is at most so old: 26h.
    max_age: Option<HumanDuration>,
    /// It has at least so many bytes: 1.
    min_size: Option<HumanSize>,
    /// It has at least this part of the bytes of the one before: 0.5.
    min_ratio: Option<f64>,
    /// It is read to its last byte: true.
    verify: Option<bool>,
    /// Collections that a `mongodump` must hold.
    #[serde(default)]
    must_hold: Vec<String>,
    /// A file that is touched whenever a restore has been tried.
    restore_test: Option<RawRestoreTest>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RestoreTest")]
struct RawRestoreTest {
    path: PathBuf,
    /// It was touched at most so long ago.
    max_age: HumanDuration,
}

/// What a backup is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Found out by its first bytes.
    #[default]
    Auto,
    /// A folder of `mongodump`.
    Mongodump,
    /// A file of `mongodump --archive`.
    MongodumpArchive,
    /// A file of `pg_dump`, plain or custom.
    PgDump,
    /// A snapshot of Redis.
    Rdb,
    /// Anything else: its compression is checked where it has one.
    File,
    /// Encrypted: nothing but its age and size can be known.
    Opaque,
}

/// Which backups there should be.
#[derive(Clone, Debug)]
pub struct Backup {
    /// Its name; the value of the label `backup`.
    pub name: String,
    /// The folder that the glob begins in.
    pub root: PathBuf,
    /// How deep below it the backups lie.
    pub depth: usize,
    /// Which of them are meant.
    pub matcher: GlobMatcher,
    /// The glob as it is written.
    pub glob: String,
    /// What they are.
    pub kind: Kind,
    /// The newest is at most so old.
    pub max_age: Duration,
    /// It has at least so many bytes.
    pub min_size: u64,
    /// It has at least this part of the bytes of the one before.
    pub min_ratio: f64,
    /// It is read to its last byte.
    pub verify: bool,
    /// Collections that a `mongodump` must hold.
    pub must_hold: Vec<String>,
    /// A file that is touched whenever a restore has been tried, and how old it may be.
    pub restore_test: Option<(PathBuf, Duration)>,
}

// === impl RawBackup ===

impl RawBackup {
    pub(super) fn validate_all(raw: Vec<Spanned<Self>>, problems: &mut Problems) -> Vec<Backup> {
        let mut names = BTreeSet::new();
        let mut backups = Vec::new();
        for Spanned { place, value } in raw.into_iter().filter(|raw| !raw.value.path.is_empty()) {
            let mut complaints = Complaints::new(place, format!("backups.{}", value.name), problems);
            if !names.insert(value.name.clone()) {
                complaints.say("there are two backups of this name");
            }
            backups.extend(value.validate(&mut complaints));
        }
        backups
    }

    fn validate(self, complaints: &mut Complaints<'_>) -> Option<Backup> {
        if !self.path.starts_with('/') || self.path.contains("**") {
            complaints.say("`path` is a whole path, and `*` stands for one name: `**` would read whatever there is");
            return None;
        }
        let matcher = match GlobBuilder::new(self.path.trim_end_matches('/')).literal_separator(true).build() {
            Ok(glob) => glob.compile_matcher(),
            Err(error) => {
                complaints.say(format!("`path` is no glob: {}", error.kind()));
                return None;
            }
        };
        let ratio = self.min_ratio.unwrap_or(MIN_RATIO);
        if !(0.0..=1.0).contains(&ratio) {
            complaints.say("`min_ratio` is from 0 to 1");
        }
        let max_age = self.max_age.map_or(MAX_AGE, |age| age.0);
        if max_age.is_zero() {
            complaints.say("`max_age` is above 0s");
        }
        let parts: Vec<&str> = self.path.trim_end_matches('/').split('/').skip(1).collect();
        let plain = parts.iter().take(parts.len() - 1).take_while(|part| !part.contains(['*', '?', '[', '{', '\\'])).count();
        Some(Backup {
            name: self.name,
            root: PathBuf::from(format!("/{}", parts[..plain].join("/"))),
            depth: parts.len() - plain,
            matcher,
            glob: self.path,
            kind: self.kind,
            max_age,
            min_size: self.min_size.map_or(1, |size| size.0),
            min_ratio: ratio,
            verify: self.verify.unwrap_or(true) && self.kind != Kind::Opaque,
            must_hold: self.must_hold,
            restore_test: self.restore_test.map(|test| (test.path, test.max_age.0)),
        })
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Protected")]
pub(super) struct RawProtected {
    collection: String,
    priority: Priority,
}

/// How bad it would be to lose it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// The application cannot go on without it.
    Critical,
    /// It cannot be made again.
    Important,
    /// It is made again, or expires.
    Low,
}

/// What should be backed up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Protected {
    /// The collection.
    pub collection: String,
    /// How bad it would be to lose it.
    pub priority: Priority,
}

impl Priority {
    /// The word of configuration, labels and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Important => "important",
            Self::Low => "low",
        }
    }
}

impl From<RawProtected> for Protected {
    fn from(raw: RawProtected) -> Self {
        Self { collection: raw.collection, priority: raw.priority }
    }
}
