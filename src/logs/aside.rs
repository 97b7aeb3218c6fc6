//! Files that a rotation has put aside: renamed, copied, compressed, beside the path where they once stood.
//!
//! Reads folders, metadata and contents; remembers nothing. The oldest file always comes first.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry, File};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::DirEntryExt as _;
use std::path::{Path, PathBuf};

use crate::logs::content::{Content, is_compressed, is_readable};
use crate::logs::file::{HEAD, Identity, Inode, Known, Mark, Seen, read_at};
use crate::logs::interlude;
use crate::logs::state::{Commit, Position};

/// No more files of a folder are opened to find one of them: the youngest are.
const MAX_CANDIDATES: usize = 64;
/// A folder is looked at until two looks agree, but not more often than this.
pub const MAX_LOOKS: usize = 8;
/// What is appended to names that get no number and no date.
const WORDS: [&str; 7] = ["old", "bak", "backup", "orig", "prev", "last", "~"];
/// Dates within a name have at least so many digits.
const DATE_DIGITS: usize = 6;

/// A file that was put aside.
#[derive(Clone, Debug)]
pub struct Aside {
    /// Where it is now.
    pub path: PathBuf,
    /// What a look at it has told.
    pub seen: Seen,
}

/// What is known when files are looked for.
#[derive(Debug)]
pub struct Search<'a> {
    /// Where they stood while they were written.
    pub path: &'a Path,
    /// These are followed, or will be by themselves. One that is gone may have left its inode to another file.
    pub known: HashMap<Inode, Identity>,
    /// These have been read, or are followed.
    pub read: Vec<Known>,
}

/// A point in the life of a path: files that were put aside later are younger.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// When the file was born that stood there, in nanoseconds, where that is known.
    pub born: Option<u64>,
    /// When it had been written to.
    pub modified: (i64, i64),
}

/// Whether a file with the name `other` may once have stood at `path`, by what rotations append to names.
#[must_use]
pub fn is_like(path: &Path, other: &Path) -> bool {
    if path.parent() != other.parent() {
        return false;
    }
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let plain = if is_compressed(other) { other.file_stem() } else { other.file_name() }.unwrap_or_default().as_encoded_bytes();
    let is_date = |bytes: &[u8]| bytes.iter().all(|byte| byte.is_ascii_digit() || b"-_.:+TZ".contains(byte));
    if let Some(end) = plain.strip_prefix(name) {
        return is_date(end) || WORDS.iter().any(|word| end.strip_prefix(b".").unwrap_or(end) == word.as_bytes());
    }
    // `app.log` becomes `app-2026-04-04T09-00-00.000.log`.
    let (stem, end) = (path.file_stem().unwrap_or_default(), path.extension().unwrap_or_default());
    let within = plain.strip_prefix(stem.as_encoded_bytes()).and_then(|rest| rest.strip_suffix(end.as_encoded_bytes()));
    within.is_some_and(|date| is_date(date) && date.iter().filter(|byte| byte.is_ascii_digit()).count() >= DATE_DIGITS)
}

/// The names that a file may once have had, by what rotations append to names; [`is_like`] knows more exactly.
pub fn origins(aside: &Path) -> impl Iterator<Item = OsString> {
    let name = aside.file_name().unwrap_or_default().as_encoded_bytes();
    let end = aside.extension().unwrap_or_default().as_encoded_bytes();
    let cuts = (1..name.len()).filter(|cut| b".-_~".contains(&name[*cut]));
    cuts.flat_map(move |cut| [OsStr::from_bytes(&name[..cut]).to_owned(), OsString::from_vec([&name[..cut], b".", end].concat())])
}

/// Where a file is that was once at `path` and has been renamed within its folder. Where no time of birth tells, its
/// content must, for an inode is used again.
#[must_use]
pub fn renamed(path: &Path, known: &Known) -> Option<PathBuf> {
    let inode = known.identity.inode.number();
    let is_it = |aside: &Aside| {
        let is_born = aside.seen.identity.born.is_some() && known.identity.born.is_some();
        aside.seen.identity.is(&known.identity) && (is_born || (is_like(path, &aside.path) && holds(&aside.path, known)))
    };
    siblings(path, |entry| entry.ino() == inode).find(is_it).map(|aside| aside.path)
}

// === impl Search ===

impl<'a> Search<'a> {
    /// Looks beside a path for what is neither followed nor done.
    #[must_use]
    pub fn new(path: &'a Path, commit: &Commit<'_>) -> Self {
        let mut read = commit.done_like(|other| is_like(path, other));
        read.extend(commit.open_like(|other| is_like(path, other)));
        Self { path, known: commit.identities().map(|identity| (identity.inode, identity)).collect(), read }
    }

    /// Files that once were at the path and that nobody has read: between two looks there was more than one rotation.
    /// They are younger than `after`. A file that has the begin of what stands there `now` is a copy of that.
    #[must_use]
    pub fn unread(&self, after: Moment, now: &File) -> Vec<Aside> {
        let mut found = self.candidates();
        found.retain(|aside| aside.is_younger(after) && !self.is_read(aside) && !aside.is_copy_of_file(now));
        found
    }

    /// The file that holds what is known, whoever it is: a copy, or a compressed one. Its content goes on after that.
    #[must_use]
    pub fn content_of(&self, known: &Known, after: Moment) -> Option<(Aside, Content)> {
        // Every file begins with nothing.
        if known.head.length == 0 {
            return None;
        }
        for _ in 0..MAX_LOOKS {
            let mut is_outdated = false;
            for aside in self.candidates() {
                if !aside.is_younger(Moment { modified: (0, 0), ..after }) || self.is_read(&aside) {
                    continue;
                }
                match Content::open(&aside.path).and_then(|content| content.after(known)) {
                    Ok(Some(content)) => return Some((aside, content)),
                    // It has been compressed or renamed since the look.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => is_outdated = true,
                    _ => {}
                }
            }
            if !is_outdated {
                break;
            }
        }
        None
    }

    fn candidates(&self) -> Vec<Aside> {
        let name = real(self.path);
        let look = || -> Vec<Aside> {
            siblings(&name, |entry| *entry.path() != name && is_like(&name, &entry.path()) && is_readable(&entry.path())).collect()
        };
        // A file that is renamed or compressed meanwhile may hide from one look at the folder.
        let paths = |found: &[Aside]| -> HashSet<PathBuf> { found.iter().map(|aside| aside.path.clone()).collect() };
        let mut found = look();
        for _ in 0..MAX_LOOKS {
            let before = paths(&found);
            found = look();
            if paths(&found) == before {
                break;
            }
        }
        // It is being compressed: until that is done, the file itself is there.
        let plain = paths(&found);
        found.retain(|aside| !is_compressed(&aside.path) || !plain.contains(&aside.path.with_extension("")));
        found.sort_by(|one, other| one.age().cmp(&other.age()));
        found.drain(..found.len().saturating_sub(MAX_CANDIDATES));
        found
    }

    /// Whether it is followed, or its content has been read. A file that was compressed later is another file, so its
    /// content is asked.
    fn is_read(&self, aside: &Aside) -> bool {
        let identity = aside.seen.identity;
        if self.known.get(&identity.inode).is_some_and(|known| known.is(&identity)) {
            return true;
        }
        let is_packed = is_compressed(&aside.path);
        let Ok(head) = Content::open(&aside.path).and_then(Content::head) else { return is_packed };
        let begins_alike = |known: &&Known| head.get(..usize::from(known.head.length)).is_some_and(|head| Mark::of(head) == known.head);
        self.read.iter().filter(begins_alike).any(|known| match is_packed {
            true => aside.is_copy(known),
            false => aside.seen.identity.is(&known.identity) && holds(&aside.path, known),
        })
    }
}

// === impl Moment ===

impl Moment {
    /// When a file that is followed began to be written, and was written to while it stood at its path.
    #[must_use]
    pub fn of(position: &Position) -> Self {
        Self { born: position.since.or(position.known.identity.born), modified: position.modified }
    }

    /// When a file was born of which nothing is known yet, and had been written to.
    #[must_use]
    pub fn of_file(seen: &Seen) -> Self {
        Self { born: seen.identity.born, modified: seen.modified }
    }
}

// === impl Aside ===

impl Aside {
    /// A file that is compressed is born when that is done, and most programs give it the time of the original.
    fn is_younger(&self, after: Moment) -> bool {
        match (self.seen.identity.born, after.born) {
            (Some(born), Some(after)) if !is_compressed(&self.path) => born >= after,
            _ => self.seen.modified >= after.modified,
        }
    }

    /// Whether an open file begins with this one. Nothing is counted of one that cannot be unpacked.
    fn is_copy_of_file(&self, file: &File) -> bool {
        let is_copy = || -> io::Result<bool> {
            let (mut content, mut position) = (Content::open(&self.path)?, 0);
            let (mut ours, mut theirs) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
            loop {
                let read = content.read(&mut theirs)?;
                if read == 0 {
                    return Ok(position > 0);
                }
                if read_at(file, &mut ours[..read], position)? < read || ours[..read] != theirs[..read] {
                    return Ok(false);
                }
                position += read as u64;
            }
        };
        // One that is not there any more is looked for again by whoever opens it.
        is_copy().unwrap_or_else(|error| error.kind() != io::ErrorKind::NotFound)
    }

    /// Files of one application often begin alike: a few equal bytes prove nothing, unless they are all there is. Of a
    /// file that cannot be unpacked nobody knows, so nothing of it is counted.
    fn is_copy(&self, known: &Known) -> bool {
        let is_all = |mut rest: Content| Ok(known.offset > 0 && rest.read(&mut [0])? == 0);
        match Content::open(&self.path).and_then(|content| content.after(known)?.map(is_all).transpose()) {
            Ok(is_all) => is_all.is_some_and(|is_all| is_all || usize::from(known.head.length) == HEAD),
            Err(_) => is_compressed(&self.path),
        }
    }

    /// Whether it has the content that is known, and perhaps more.
    #[must_use]
    pub fn goes_on_after(&self, known: &Known) -> bool {
        holds(&self.path, known)
    }

    fn age(&self) -> ((i64, i64), Option<u64>, &Path) {
        (self.seen.modified, self.seen.identity.born, &self.path)
    }

    /// What was put aside later is younger than this.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment { born: self.seen.identity.born.filter(|_| !is_compressed(&self.path)), modified: self.seen.modified }
    }
}

/// Whether a file has the content that is known, and perhaps more.
fn holds(path: &Path, known: &Known) -> bool {
    Content::open(path).and_then(|content| content.after(known)).is_ok_and(|rest| rest.is_some())
}

fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// The files that are wanted in the folder where the file at `path` really is, or was. The others cost no call each.
fn siblings<W: Fn(&DirEntry) -> bool>(path: &Path, is_wanted: W) -> impl Iterator<Item = Aside> + use<W> {
    interlude::pass();
    let entries = real(path).parent().and_then(|folder| fs::read_dir(folder).ok());
    entries.into_iter().flatten().flatten().filter(move |entry| is_wanted(entry)).filter_map(|entry| {
        let path = entry.path();
        let metadata = fs::symlink_metadata(&path).ok()?;
        metadata.is_file().then(|| Aside { path, seen: Seen::of(&metadata) })
    })
}

#[cfg(test)]
mod tests {
    use super::is_like;
    use std::path::Path;

    #[test]
    fn names_tell_what_a_rotation_has_put_aside() {
        let like = |path: &str, other: &str| is_like(Path::new(path), Path::new(other));
        for other in [
            "app.log.1",
            "app.log.12.gz",
            "app.log-20260404",
            "app.log.2026-04-04_09",
            "app.log.old",
            "app.log~",
            "app.log.gz",
            "app.log.20260404-090001.gz",
            "app-2026-04-04T09-00-00.000.log",
            "app-2026-04-04T09-00-00.000.log.gz",
        ] {
            assert!(like("/logs/app.log", &format!("/logs/{other}")), "{other}");
        }
        for other in ["app.log.pos", "app.log.1.tmp", "app.logs", "app-worker.log", "app-1.log", "other.log.1", "../app.log.1"] {
            assert!(!like("/logs/app.log", &format!("/logs/{other}")), "{other}");
        }
    }
}
