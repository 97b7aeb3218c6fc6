//! Looks for files that match the patterns of the inputs. What a rotation has put aside is `aside`'s business.
//!
//! Reads folders and metadata, opens nothing, remembers nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::logs::FileGlob;
use crate::logs::content::is_compressed;
use crate::logs::file::Seen;
use crate::logs::metrics::Trouble;

/// Folders below a `**` are followed this deep.
const MAX_DEPTH: usize = 16;

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
            let is_match = glob.is_match(&path);
            if kind.is_dir() {
                if depth > 1 {
                    self.walk(input, glob, &path, depth - 1);
                } else if is_match && glob.depth.is_some() {
                    self.found.push(Found { input, path, what: Err(Trouble::NotAFile), target: None });
                }
            } else if is_match && !is_compressed(&path) {
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

        // What is compressed is no text, whatever the pattern says.
        fs::write(root.join("pod/agent/0.log.2.gz"), "12").unwrap();
        assert_eq!(listing(root, "pod/agent/0.log*").len(), 2);
        let agent = [("pod/agent/0.log".to_owned(), Ok(5)), ("pod/agent/deep.log".to_owned(), Err(Trouble::NotAFile))];
        assert_eq!(listing(root, "*/agent/*.log"), agent);
        assert_eq!(listing(root, "*.log"), [("dangling.log".to_owned(), Err(Trouble::Vanished)), ("link.log".to_owned(), Ok(5))]);
        let all: Vec<String> = listing(root, "**/*.log").into_iter().map(|(path, _)| path).collect();
        assert_eq!(all, ["dangling.log", "link.log", "pod/agent/0.log", "pod/agent/more/1.log"]);
        assert_eq!(listing(root, "missing/*.log"), []);
    }
}
