//! Looks for files: those that match the patterns of the inputs, and those that a rotation has put aside.
//!
//! Reads folders and metadata, opens nothing, remembers nothing.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::logs::FileGlob;
use crate::logs::file::{HEAD, Identity, Inode, Known, Mark, Seen, before_of, head_of};
use crate::logs::metrics::Trouble;

/// Folders below a `**` are followed this deep.
const MAX_DEPTH: usize = 16;
/// What a rotation leaves compressed cannot be read on.
const COMPRESSED: [&str; 5] = ["gz", "zst", "bz2", "xz", "zip"];

/// What was found.
#[derive(Debug, Default)]
pub struct Listing {
    /// Files that match, and what is in the way of others.
    pub found: Vec<Found>,
    /// All folders in which something may change.
    pub folders: BTreeSet<PathBuf>,
}

/// Something at a path.
#[derive(Debug)]
pub struct Found {
    /// The number of the input whose pattern matches.
    pub input: usize,
    /// Where.
    pub path: PathBuf,
    /// A file, or why there is none.
    pub what: Result<Seen, Trouble>,
    /// Where the file really is, when the path is a link.
    pub target: Option<PathBuf>,
}

// === impl Listing ===

impl Listing {
    /// Adds what matches a pattern of an input.
    pub fn add(&mut self, input: usize, glob: &FileGlob) {
        self.walk(input, glob, &glob.root, glob.depth.unwrap_or(MAX_DEPTH));
    }

    fn walk(&mut self, input: usize, glob: &FileGlob, folder: &Path, depth: usize) {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            // It may come later.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return,
            Err(error) => {
                self.found.push(Found { input, path: folder.to_owned(), what: Err(Trouble::of(&error)), target: None });
                return;
            }
        };
        self.folders.insert(folder.to_owned());
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            // Patterns below the working folder are written without a dot.
            let path = if folder == Path::new(".") { PathBuf::from(entry.file_name()) } else { folder.join(entry.file_name()) };
            let is_match = glob.matcher.is_match(&path);
            if kind.is_dir() {
                if depth > 1 {
                    self.walk(input, glob, &path, depth - 1);
                } else if is_match && glob.depth.is_some() {
                    self.found.push(Found { input, path, what: Err(Trouble::NotAFile), target: None });
                }
            } else if is_match {
                // The kernel's events name files by absolute paths.
                let target = if kind.is_symlink() || path.is_relative() { fs::canonicalize(&path).ok() } else { None };
                // What changes behind a link is told by the folder of its target.
                self.folders.extend(target.as_deref().and_then(Path::parent).map(Path::to_owned));
                self.found.push(Found { input, what: look(&path), path, target });
            }
        }
    }
}

/// Looks at a path, through links.
fn look(path: &Path) -> Result<Seen, Trouble> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Seen::of(&metadata)),
        Ok(_) => Err(Trouble::NotAFile),
        Err(error) => Err(Trouble::of(&error)),
    }
}

/// Where a file is that was once at `path` and has been renamed within its folder.
#[must_use]
pub fn renamed(path: &Path, identity: &Identity) -> Option<PathBuf> {
    siblings(path)?.find(|(_, seen)| seen.identity.is(identity)).map(|(path, _)| path)
}

/// Files that once were at `path` and that nobody has read: between two looks there was more than one rotation. They
/// have the name with something behind it, are none of `known`, and are younger than the one that was read before
/// them, and older than the one that stands there now. A copy of the former is none of them. The oldest comes first.
#[must_use]
pub fn unread(path: &Path, known: &HashSet<Inode>, before: &Known, now_there: &Identity) -> Vec<PathBuf> {
    let (Some(name), Some(after), Some(until)) = (path.file_name(), before.identity.born, now_there.born) else { return Vec::new() };
    // Files of one application often begin alike: a copy also has the same bytes where the original was left. A few
    // bytes prove nothing, unless they are all there is.
    let is_copy = |path: &Path, size: u64| {
        let is_proof = usize::from(before.head.length) == HEAD || size == before.offset;
        let Some(file) = fs::File::open(path).ok().filter(|_| is_proof) else { return false };
        let head = head_of(&file, usize::from(before.head.length)).is_ok_and(|head| head == before.head);
        let tail = before_of(&file, before.offset, usize::from(before.before.length)).is_ok_and(|bytes| Mark::of(&bytes) == before.before);
        before.offset > 0 && head && tail
    };
    let name = name.as_encoded_bytes();
    let is_rotated = |path: &Path| {
        let other = path.file_name().unwrap_or_default().as_encoded_bytes();
        let compressed = path.extension().is_some_and(|end| COMPRESSED.iter().any(|compressed| end == *compressed));
        other.len() > name.len() && other.starts_with(name) && !compressed
    };
    let mut found: Vec<(Option<u64>, PathBuf)> = siblings(path)
        .into_iter()
        .flatten()
        .filter(|(path, seen)| {
            let is_between = seen.identity.born.is_some_and(|born| (after..=until).contains(&born));
            is_rotated(path) && !known.contains(&seen.identity.inode) && is_between && !is_copy(path, seen.size)
        })
        .map(|(path, seen)| (seen.identity.born, path))
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

/// All files in the folder where the file at `path` really is, or was.
fn siblings(path: &Path) -> Option<impl Iterator<Item = (PathBuf, Seen)>> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let entries = fs::read_dir(real.parent()?).ok()?;
    Some(entries.flatten().filter_map(|entry| {
        let path = entry.path();
        let metadata = fs::symlink_metadata(&path).ok()?;
        metadata.is_file().then(|| (path, Seen::of(&metadata)))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(root: &Path, pattern: &str) -> Vec<(String, Result<u64, Trouble>)> {
        let glob = FileGlob::parse(&format!("{}/{pattern}", root.display())).unwrap();
        let mut listing = Listing::default();
        listing.add(0, &glob);
        let relative = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
        let mut found: Vec<_> = listing.found.into_iter().map(|found| (relative(&found.path), found.what.map(|seen| seen.size))).collect();
        found.sort_by(|left, right| left.0.cmp(&right.0));
        found
    }

    #[test]
    fn patterns_find_files_at_their_depth_and_through_links() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir_all(root.join("pod/agent/deep.log")).unwrap();
        fs::create_dir_all(root.join("pod/agent/more")).unwrap();
        fs::write(root.join("pod/agent/0.log"), "12345").unwrap();
        fs::write(root.join("pod/agent/0.log.1"), "123").unwrap();
        fs::write(root.join("pod/agent/more/1.log"), "1").unwrap();
        std::os::unix::fs::symlink(root.join("pod/agent/0.log"), root.join("link.log")).unwrap();
        std::os::unix::fs::symlink(root.join("nowhere"), root.join("dangling.log")).unwrap();

        let agent = [("pod/agent/0.log".to_owned(), Ok(5)), ("pod/agent/deep.log".to_owned(), Err(Trouble::NotAFile))];
        assert_eq!(listing(root, "*/agent/*.log"), agent);
        assert_eq!(listing(root, "*.log"), [("dangling.log".to_owned(), Err(Trouble::Vanished)), ("link.log".to_owned(), Ok(5))]);
        let all: Vec<String> = listing(root, "**/*.log").into_iter().map(|(path, _)| path).collect();
        assert_eq!(all, ["dangling.log", "link.log", "pod/agent/0.log", "pod/agent/more/1.log"]);
        assert_eq!(listing(root, "missing/*.log"), []);
    }
}
