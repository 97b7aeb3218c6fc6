//! Files that are there after a crash, or not at all: written beside their place, synchronised, moved, and the folder
//! synchronised too. Blocks.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, CWD, RenameFlags, fadvise, renameat_with};
use rustix::io::Errno;

/// What is being written ends with this, and begins with a dot.
const UNFINISHED: &str = ".part";

/// Writes files of one folder, none of which may be there already. They appear in their order; when this returns, all
/// of them survive a crash.
///
/// # Errors
/// When one is there already, or cannot be written. What was begun is taken away again.
pub(super) fn create(folder: &Path, files: &[(&str, &[u8])]) -> io::Result<()> {
    make_folder(folder)?;
    let mut parts = Parts(Vec::new());
    for (name, bytes) in files {
        parts.0.push(write_part(folder, name, bytes)?);
    }
    for ((name, _), part) in files.iter().zip(&parts.0) {
        move_to_new(part, &folder.join(name))?;
    }
    // They have their names now: nothing is to be taken away.
    parts.0.clear();
    File::open(folder)?.sync_all()
}

/// Writes a file, over one that is there already. When this returns, it survives a crash; until then the earlier one does.
///
/// # Errors
/// When it cannot be written.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    make_folder(folder)?;
    let mut parts = Parts(vec![write_part(folder, name, bytes)?]);
    fs::rename(&parts.0[0], path)?;
    parts.0.clear();
    File::open(folder)?.sync_all()
}

/// Reads a file of at most `limit` bytes. What has been written is read from where it is stored, not from memory, as
/// far as the system does that.
///
/// # Errors
/// When it cannot be read, or is larger.
pub(super) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // A wish, not a need: file systems in memory have no other place to read from.
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    let length = file.metadata()?.len();
    if length > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has {length} bytes, and at most {limit} are read")));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Makes a folder and those above it, readable by its owner only: what is in it was in a database with a password.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folder(above)?;
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => File::open(above)?.sync_all()?,
        }
    }
    Ok(())
}

fn write_part(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    let part = folder.join(format!(".{name}{UNFINISHED}"));
    // What a crash left behind has no name of its own, and nobody trusts it.
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        // A full disk is not made fuller.
        let _ = fs::remove_file(&part);
    }
    written.map(|()| part)
}

/// Moves a file to a name that must be free.
fn move_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // NFS and the like cannot do it in one step; a link to a name that is taken fails as well.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => fs::hard_link(from, to).and_then(|()| fs::remove_file(from)),
        Err(error) => Err(error.into()),
    }
}

/// Files that are taken away again unless they get their names.
struct Parts(Vec<PathBuf>);

impl Drop for Parts {
    fn drop(&mut self) {
        for part in &self.0 {
            // It may have been moved already.
            let _ = fs::remove_file(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_is_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        create(&below, &[("one", b"1"), ("two", b"2")]).unwrap();
        assert_eq!(create(&below, &[("three", b"3"), ("one", b"4")]).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read(&below.join("one"), 9).unwrap(), b"1");
        assert!(fs::read_dir(&below).unwrap().all(|entry| !entry.unwrap().file_name().to_string_lossy().starts_with('.')));
        replace_file(&below.join("one"), b"5").unwrap();
        assert_eq!(read(&below.join("one"), 1).unwrap(), b"5");
        assert_eq!(read(&below.join("one"), 0).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
