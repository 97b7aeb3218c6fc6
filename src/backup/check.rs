//! One look at one backup: age, size, and once for each of its states its bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::bufread::MultiGzDecoder;
use jiff::Timestamp;

use crate::backup::paced::{Pace, Paced};
use crate::backup::{Found, Problem, Report, archive, find, pg_dump, rdb};
use crate::config::backups::{Backup, Kind};

/// A plain dump says what it is within so many bytes.
const HEAD: usize = 512;

/// What reading a backup to its end has shown.
type Content = Result<Vec<String>, (Problem, String)>;

/// Looks at backups, and reads none twice that has not changed.
#[derive(Debug, Default)]
pub struct Checker {
    /// What was read last, by the backup's name: one result each.
    read: BTreeMap<String, (PathBuf, Timestamp, u64, Content)>,
}

/// Looks at a backup once.
#[must_use]
pub fn look(backup: &Backup, now: Timestamp, pace: &Pace) -> Report {
    Checker::default().look(backup, now, pace)
}

// === impl Checker ===

impl Checker {
    /// Looks at a backup. Blocks, for as long as the pace makes it.
    pub fn look(&mut self, backup: &Backup, now: Timestamp, pace: &Pace) -> Report {
        let mut report = Report { backup: backup.name.clone(), newest: None, problems: Vec::new(), holds: Vec::new() };
        report.problems.extend(restore_test(backup, now));
        let found = match find::find(backup) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                report.problems.push((Problem::Unreadable, format!("{} cannot be read: {error}", backup.root.display())));
                return report;
            }
        };
        let Some(newest) = found.first() else {
            report.problems.push((Problem::Missing, format!("there is none at {}", backup.glob)));
            return report;
        };
        report.problems.extend(sizes_and_age(backup, newest, found.get(1), now));
        if backup.verify && newest.size > 0 {
            match self.content(backup, newest, pace) {
                Ok(holds) => {
                    let lacking: Vec<&str> = backup.must_hold.iter().filter(|name| !holds.contains(name)).map(String::as_str).collect();
                    if !lacking.is_empty() {
                        report.problems.push((Problem::Lacking, format!("it does not hold {}", lacking.join(", "))));
                    }
                    report.holds = holds;
                }
                Err(problem) => report.problems.push(problem),
            }
        }
        report.newest = Some(newest.clone());
        report
    }

    fn content(&mut self, backup: &Backup, newest: &Found, pace: &Pace) -> Content {
        if let Some((path, modified, size, content)) = self.read.get(&backup.name)
            && (path, modified, size) == (&newest.path, &newest.modified, &newest.size)
        {
            return content.clone();
        }
        let content = match read(&newest.path, backup.kind, pace) {
            Ok(content) => content,
            // May be other the next time.
            Err(error) => return Err(unreadable(&error)),
        };
        self.read.insert(backup.name.clone(), (newest.path.clone(), newest.modified, newest.size, content.clone()));
        content
    }
}

fn unreadable(error: &io::Error) -> (Problem, String) {
    (Problem::Unreadable, format!("it cannot be read: {error}"))
}

fn sizes_and_age(backup: &Backup, newest: &Found, before: Option<&Found>, now: Timestamp) -> Vec<(Problem, String)> {
    let mut problems = Vec::new();
    let age = Duration::try_from(now.duration_since(newest.modified)).unwrap_or_default();
    if age > backup.max_age {
        problems.push((Problem::TooOld, format!("it is {} old; at most {} may be", hours(age), hours(backup.max_age))));
    }
    if newest.size < backup.min_size {
        problems.push((Problem::TooSmall, format!("it has {} bytes; at least {} are expected", newest.size, backup.min_size)));
    }
    #[expect(clippy::cast_precision_loss, reason = "a ratio of sizes need not be exact")]
    if let Some(before) = before.filter(|before| (newest.size as f64) < before.size as f64 * backup.min_ratio) {
        problems.push((Problem::Shrunk, format!("it has {} bytes, and the one before had {}", newest.size, before.size)));
    }
    problems
}

fn restore_test(backup: &Backup, now: Timestamp) -> Option<(Problem, String)> {
    let (path, most) = backup.restore_test.as_ref()?;
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok().and_then(|time| Timestamp::try_from(time).ok());
    let Some(modified) = modified else {
        return Some((Problem::RestoreUntested, format!("{} is not there: no restore was tried", path.display())));
    };
    let age = Duration::try_from(now.duration_since(modified)).unwrap_or_default();
    (age > *most).then(|| (Problem::RestoreUntested, format!("a restore was tried {} ago; at most {} may be", hours(age), hours(*most))))
}

fn hours(time: Duration) -> String {
    match time.as_secs() / 3600 {
        hours @ 0..48 => format!("{hours} h"),
        hours => format!("{} days", hours / 24),
    }
}

/// Reads a backup to its last byte.
fn read(path: &Path, kind: Kind, pace: &Pace) -> io::Result<Content> {
    if std::fs::symlink_metadata(path)?.is_dir() {
        return match kind {
            Kind::Auto | Kind::Mongodump => archive::check_folder(path, pace),
            _ => Ok(Err((Problem::Corrupt, "it is a folder, and should be a file".to_owned()))),
        };
    }
    let mut file = BufReader::new(Paced::new(File::open(path)?, pace));
    let head = file.fill_buf()?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let read = if head.starts_with(&[0x1f, 0x8b]) {
        through(BufReader::new(MultiGzDecoder::new(file)), kind, &name)
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        through(BufReader::new(zstd::stream::read::Decoder::with_buffer(file)?), kind, &name)
    } else if name.ends_with(".gz") || name.ends_with(".zst") {
        return Ok(Err((Problem::Corrupt, "its name says that it is compressed, and it is not".to_owned())));
    } else {
        through(file, kind, &name)
    };
    match read {
        Err(error) => compression(error),
        read => read,
    }
}

/// What a decompressor says of bytes that are not what was written.
fn compression(error: io::Error) -> io::Result<Content> {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Ok(Err((Problem::Incomplete, "it ends in the middle of what is compressed".to_owned()))),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            Ok(Err((Problem::Corrupt, "its compressed bytes are not what was written: a checksum or a block is wrong".to_owned())))
        }
        // zstd has no kind of its own for what is corrupt.
        io::ErrorKind::Other if error.to_string().contains("checksum") || error.to_string().contains("orrupt") => {
            Ok(Err((Problem::Corrupt, "its compressed bytes are not what was written".to_owned())))
        }
        _ => Err(error),
    }
}

fn through(mut content: impl BufRead, kind: Kind, name: &str) -> io::Result<Content> {
    let kind = match kind {
        Kind::Auto => guess(content.fill_buf()?, name),
        kind => kind,
    };
    let nothing = |checked: Result<(), (Problem, String)>| checked.map(|()| Vec::new());
    match kind {
        Kind::PgDump if content.fill_buf()?.starts_with(b"PGDMP") => pg_dump::check_custom(content).map(nothing),
        Kind::PgDump => pg_dump::check_plain(content).map(nothing),
        Kind::Rdb => rdb::check(content).map(nothing),
        Kind::MongodumpArchive => archive::check_archive(content),
        Kind::Mongodump => Ok(Err((Problem::Corrupt, "it is a file, and should be a folder of mongodump".to_owned()))),
        Kind::Auto | Kind::File | Kind::Opaque => {
            let mut buffer = [0; 16 << 10];
            while content.read(&mut buffer)? > 0 {}
            Ok(Ok(Vec::new()))
        }
    }
}

/// What a backup is by its first bytes and its name. A dump that failed at once has no bytes, and still its name.
fn guess(head: &[u8], name: &str) -> Kind {
    let begins_as_dump = || String::from_utf8_lossy(&head[..head.len().min(HEAD)]).contains("PostgreSQL database");
    if head.starts_with(b"PGDMP") || name.contains(".sql") || name.contains(".dump") || begins_as_dump() {
        Kind::PgDump
    } else if head.starts_with(b"REDIS") || name.contains(".rdb") {
        Kind::Rdb
    } else if head.starts_with(&archive::MAGIC) || name.contains(".archive") {
        Kind::MongodumpArchive
    } else {
        Kind::File
    }
}
