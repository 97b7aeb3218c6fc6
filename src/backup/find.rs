//! Finds the backups of a glob: the newest and the one before. Links are not followed.

use std::fs;
use std::io;
use std::path::Path;

use jiff::Timestamp;

use crate::backup::Found;
use crate::config::backups::Backup;

/// So many names are looked at, so that a wrong glob ends.
const MAX_ENTRIES: usize = 100_000;

/// The backups of a glob, the newest first.
pub(super) fn find(backup: &Backup) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut left = MAX_ENTRIES;
    walk(backup, &backup.root, backup.depth, &mut left, &mut found)?;
    found.sort_by(|one: &Found, other| other.modified.cmp(&one.modified).then_with(|| other.path.cmp(&one.path)));
    Ok(found)
}

fn walk(backup: &Backup, folder: &Path, depth: usize, left: &mut usize, found: &mut Vec<Found>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        *left = left.checked_sub(1).ok_or_else(|| io::Error::other(format!("there are more than {MAX_ENTRIES} names")))?;
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_symlink() {
            continue;
        }
        if depth > 1 {
            if kind.is_dir() {
                walk(backup, &path, depth - 1, left, found)?;
            }
        } else if backup.matcher.is_match(&path) {
            let (size, modified) = measure(&path, left)?;
            found.push(Found { path, modified, size });
        }
    }
    Ok(())
}

/// All bytes of a file or folder, and when any of it was last written.
fn measure(path: &Path, left: &mut usize) -> io::Result<(u64, Timestamp)> {
    let metadata = fs::symlink_metadata(path)?;
    let modified = Timestamp::try_from(metadata.modified()?).unwrap_or(Timestamp::UNIX_EPOCH);
    if !metadata.is_dir() {
        return Ok((metadata.len(), modified));
    }
    let mut sum = (0, modified);
    for entry in fs::read_dir(path)? {
        *left = left.checked_sub(1).ok_or_else(|| io::Error::other(format!("there are more than {MAX_ENTRIES} names")))?;
        let entry = entry?;
        if !entry.file_type()?.is_symlink() {
            let (size, modified) = measure(&entry.path(), left)?;
            sum = (sum.0 + size, sum.1.max(modified));
        }
    }
    Ok(sum)
}
