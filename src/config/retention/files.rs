//! `retention.files`: which files of a folder are kept for how long.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use globset::{GlobBuilder, GlobMatcher};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::Complaints;
use crate::config::retention::Mode;
use crate::config::values::{HumanDuration, HumanSize};

/// A policy that keeps less than an hour is a mistake of units until proven otherwise; and a rotated log is read by then.
const SHORTEST_KEEP: Duration = Duration::from_secs(3600);
/// A file that was just unpacked, moved in or handed over is old by its date, and yet somebody's work of this moment.
const SETTLE: Duration = Duration::from_secs(600);

/// Folders that belong to the system: nothing is deleted in them, nor below.
const SYSTEM: [&str; 13] =
    ["/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/root", "/sbin", "/sys", "/usr"];
/// Folders that hold what belongs to many: one of them is never a root, a folder in them may be.
const SHARED: [&str; 12] = [
    "/home/*",
    "/Users/*",
    "/opt/*",
    "/var/lib",
    "/var/log",
    "/var/tmp",
    "/var/run",
    "/var/spool",
    "/var/cache",
    "/run/*",
    "/mnt/*",
    "/media/*",
];

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FilePolicy")]
pub(super) struct RawFilePolicy {
    pub name: String,
    /// `plan` keeps this policy from deleting, whatever the section says.
    mode: Option<Mode>,
    /// The folder that is looked through. Nothing outside of it is ever touched, and no link is followed.
    root: PathBuf,
    /// Which files below it are meant: `*` stands for one name, `**` for any depth. All of them: `**`.
    pattern: Option<String>,
    /// Files that were written to within this time are kept: at least 1h.
    keep: HumanDuration,
    /// Files that were moved in, unpacked or handed over within this time are kept: 10m.
    settle: Option<HumanDuration>,
    keep_last: Option<RawKeepNewest>,
    /// Of the files that are older than `keep`, only so many go that all that match have this size together.
    max_total: Option<HumanSize>,
    /// Takes folders away that are empty and older than `keep`. The root itself stays.
    #[serde(default)]
    empty_folders: bool,
    #[serde(default)]
    guards: RawFileGuards,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "KeepNewest")]
struct RawKeepNewest {
    /// So many are kept, however old they are.
    count: u32,
    /// Of all files that match, or of each folder: all.
    #[serde(default)]
    per: Per,
    /// Smaller files are none of the newest: what a backup that failed leaves behind. 1.
    min_size: Option<HumanSize>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FileGuards")]
struct RawFileGuards {
    /// The greatest part of the matching files that a plan may delete, above 0 and up to 1: 0.5.
    max_fraction: Option<f64>,
    /// The most files that a plan may delete: 100000.
    max_files: Option<u64>,
    /// So many matching files stay in any case: 0.
    min_remaining: Option<u64>,
}

/// Among which files the newest are kept.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// All that match.
    #[default]
    All,
    /// Those of each folder.
    Folder,
}

/// Which files are to be kept.
#[derive(Clone, Debug)]
pub struct FilePolicy {
    /// Its name.
    pub name: String,
    /// Whether it deletes.
    pub mode: Mode,
    /// The folder that is looked through.
    pub root: PathBuf,
    /// The pattern as it is written.
    pub pattern: String,
    /// The same, for paths below the root.
    pub matcher: GlobMatcher,
    /// Files that were written to within this time are kept.
    pub keep: Duration,
    /// Files that were moved in or handed over within this time are kept.
    pub settle: Duration,
    /// The newest are kept, however old they are.
    pub keep_newest: Option<KeepNewest>,
    /// What all that match may take together.
    pub max_total: Option<u64>,
    /// Folders that are empty and old go, too.
    pub empty_folders: bool,
    /// What must hold before anything is deleted.
    pub guards: FileGuards,
}

/// The newest are kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeepNewest {
    /// How many.
    pub count: u32,
    /// Among which.
    pub per: Per,
    /// Smaller files do not count.
    pub min_size: u64,
}

/// What must hold before anything is deleted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FileGuards {
    /// The greatest part of the matching files that a plan may delete.
    pub max_fraction: f64,
    /// The most files that a plan may delete.
    pub max_files: u64,
    /// So many matching files stay.
    pub min_remaining: u64,
}

// === impl RawFilePolicy ===

impl RawFilePolicy {
    /// `ours` are folders that the sidecar itself writes to, each with what it is.
    pub(super) fn validate(self, mode: Mode, ours: &[(&str, PathBuf)], complaints: &mut Complaints<'_>) -> Option<FilePolicy> {
        if self.keep.0 < SHORTEST_KEEP {
            complaints.say("`keep` is at least 1h: a shorter time is mostly a mistake of units, and takes files that are in use");
        }
        if let Err(message) = check_root(&self.root, ours) {
            complaints.say(message);
        }
        let pattern = self.pattern.unwrap_or_else(|| "**".to_owned());
        let matcher = match compile(&pattern) {
            Ok(matcher) => Some(matcher),
            Err(message) => {
                complaints.say(message);
                None
            }
        };
        let keep_newest = self.keep_last.map(|last| {
            if last.count == 0 {
                complaints.say("`keep_last.count` is at least 1; leave `keep_last` out where nothing is kept for its rank");
            }
            KeepNewest { count: last.count, per: last.per, min_size: last.min_size.map_or(1, |size| size.0) }
        });
        if self.max_total.is_some_and(|total| total.0 == 0) {
            complaints.say("`max_total` is above 0: write the size that is to stay, such as 120MiB");
        }
        let guards = self.guards.checked(complaints);
        Some(FilePolicy {
            name: self.name,
            mode: if mode == Mode::Plan { Mode::Plan } else { self.mode.unwrap_or(mode) },
            root: self.root,
            pattern,
            matcher: matcher?,
            keep: self.keep.0,
            settle: self.settle.map_or(SETTLE, |settle| settle.0),
            keep_newest,
            max_total: self.max_total.map(|size| size.0),
            empty_folders: self.empty_folders,
            guards,
        })
    }
}

fn compile(pattern: &str) -> Result<GlobMatcher, String> {
    if pattern.is_empty() || pattern.starts_with('/') || pattern.split('/').any(|part| part == "..") {
        return Err(format!("`pattern` is of paths below `root`, such as *.sql.gz or **/*.tmp, and {pattern:?} is not"));
    }
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|error| format!("`pattern` is no glob: {}", error.kind()))
}

/// A root is a folder of one purpose. What looks like a slip is refused, since what is deleted there is gone.
fn check_root(root: &Path, ours: &[(&str, PathBuf)]) -> Result<(), String> {
    let shown = root.display();
    let plain = root.is_absolute() && root.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    if !plain || root.as_os_str().as_encoded_bytes().contains(&b'*') {
        return Err(format!(
            "`root` is a whole path without `..` and patterns, and {shown} is not; what is meant below it is said by `pattern`"
        ));
    }
    if root.components().count() < 3 {
        return Err(format!("`root` {shown} is too much: name a folder of one purpose, at least two names deep, such as /tmp/uploads"));
    }
    if SYSTEM.iter().any(|system| root.starts_with(system)) {
        return Err(format!("`root` {shown} belongs to the system; nothing is deleted there"));
    }
    let names: Vec<_> = root.components().skip(1).collect();
    let is_shared = SHARED.iter().any(|shared| match shared.strip_suffix("/*") {
        Some(parent) => root.parent() == Some(Path::new(parent)),
        None => root == Path::new(shared),
    });
    if is_shared || names.is_empty() {
        return Err(format!("`root` {shown} holds what belongs to many; name a folder of one purpose in it"));
    }
    for (what, folder) in ours {
        if root.starts_with(folder) || folder.starts_with(root) {
            return Err(format!(
                "`root` {shown} and {what} {} lie in each other: the sidecar would delete what it needs",
                folder.display()
            ));
        }
    }
    // What is not there yet cannot be a link; a run looks again.
    match root.canonicalize() {
        Ok(real) if real != *root => {
            Err(format!("`root` {shown} goes through a symbolic link, which may lead elsewhere tomorrow; write {}", real.display()))
        }
        _ => Ok(()),
    }
}

// === impl RawFileGuards ===

impl RawFileGuards {
    fn checked(&self, complaints: &mut Complaints<'_>) -> FileGuards {
        let without = FileGuards::default();
        let guards = FileGuards {
            max_fraction: self.max_fraction.unwrap_or(without.max_fraction),
            max_files: self.max_files.unwrap_or(without.max_files),
            min_remaining: self.min_remaining.unwrap_or(without.min_remaining),
        };
        if !(guards.max_fraction > 0.0 && guards.max_fraction <= 1.0) {
            complaints.say("`max_fraction` is a part of the matching files, above 0 and up to 1, such as 0.5");
        }
        if guards.max_files == 0 {
            complaints.say("`max_files` is at least 1; write `mode: plan` where nothing is to be deleted");
        }
        guards
    }
}

// === impl FileGuards ===

impl Default for FileGuards {
    fn default() -> Self {
        Self { max_fraction: 0.5, max_files: 100_000, min_remaining: 0 }
    }
}

// === impl FilePolicy ===

impl FilePolicy {
    /// A policy that says no more than it must. `None` where the pattern is none.
    #[must_use]
    pub fn simple(name: &str, root: &Path, pattern: &str, keep: Duration) -> Option<Self> {
        Some(Self {
            name: name.to_owned(),
            mode: Mode::Enforce,
            root: root.to_owned(),
            pattern: pattern.to_owned(),
            matcher: compile(pattern).ok()?,
            keep,
            settle: Duration::ZERO,
            keep_newest: None,
            max_total: None,
            empty_folders: false,
            guards: FileGuards { max_fraction: 1.0, ..FileGuards::default() },
        })
    }

    /// Whether a file goes not by its age alone, but by what else is there.
    #[must_use]
    pub fn is_ranked(&self) -> bool {
        self.keep_newest.is_some() || self.max_total.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(root: &str, part: &str) {
        let ours = [("the `state_dir`", PathBuf::from("/var/lib/bellwether")), ("the archive", PathBuf::from("/srv/backups/archive"))];
        let message = check_root(Path::new(root), &ours).unwrap_err();
        assert!(message.contains(part), "{root}: {message}");
    }

    #[test]
    fn a_root_that_looks_like_a_slip_is_refused() {
        for root in ["/", "/tmp", "/data"] {
            refused(root, "too much");
        }
        for root in ["tmp/uploads", "/tmp/../etc", "/tmp/*", ""] {
            refused(root, "whole path");
        }
        for root in ["/etc/app", "/usr/share/app", "/root/tmp", "/proc/1"] {
            refused(root, "belongs to the system");
        }
        for root in ["/home/ann", "/var/lib", "/var/log", "/opt/app", "/run/app"] {
            refused(root, "belongs to many");
        }
        refused("/var/lib/bellwether/logs", "lie in each other");
        refused("/srv/backups", "the archive /srv/backups/archive lie in each other");
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, folder.path().join("link")).unwrap();
        refused(folder.path().join("link").to_str().unwrap(), "goes through a symbolic link");
        refused(folder.path().join("link").to_str().unwrap(), real.to_str().unwrap());
        assert_eq!(check_root(&real, &[]), Ok(()));
        assert_eq!(check_root(Path::new("/var/log/myragdb"), &[]), Ok(()));
        assert_eq!(check_root(Path::new("/home/ann/uploads"), &[]), Ok(()));
        assert_eq!(check_root(Path::new("/nowhere/yet/there"), &[]), Ok(()));
    }

    #[test]
    fn a_pattern_never_leaves_the_root() {
        for pattern in ["", "/etc/*", "../*", "a/../../b", "a[", "a/{b"] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
        let one = compile("*.sql.gz").unwrap();
        assert!(one.is_match("a.sql.gz") && !one.is_match("b/a.sql.gz"));
        let any = compile("**").unwrap();
        assert!(any.is_match("a") && any.is_match("a/b/.c"));
    }
}
