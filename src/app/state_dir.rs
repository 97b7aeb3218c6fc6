//! The one folder that is written to: made with mode 0700, and locked, so that two processes never share it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// A folder that is ours as long as this lives.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    _lock: File,
}

/// Two processes would count everything twice and overwrite each other's positions.
#[derive(Debug, thiserror::Error)]
#[error("the state folder {} is in use by {holder}; stop it, or give this process a `state_dir` of its own", path.display())]
pub struct StateDirError {
    path: PathBuf,
    holder: String,
}

// === impl StateDir ===

impl StateDir {
    /// Opens and locks the folder. `None` where it cannot be written to: the process runs on without a memory.
    ///
    /// # Errors
    /// When another process holds it.
    pub fn open(path: &Path) -> Result<Option<Self>, StateDirError> {
        let opened = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .and_then(|()| OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path.join("lock")));
        let mut lock = match opened {
            Ok(lock) => lock,
            Err(error) => {
                tracing::warn!(
                    path = %path.display(), %error,
                    "the state folder cannot be written to: counters and positions are lost at the next restart; \
                     make it writable, or choose another with `state_dir` or BELLWETHER_STATE_DIR"
                );
                return Ok(None);
            }
        };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            // The process id is a courtesy; the lock counts.
            let _ = lock.read_to_string(&mut holder);
            let holder = if holder.trim().is_empty() { "another process".to_owned() } else { format!("process {}", holder.trim()) };
            return Err(StateDirError { path: path.to_owned(), holder });
        }
        let noted = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
        if let Err(error) = noted {
            tracing::warn!(path = %path.display(), %error, "the process id could not be noted in the state folder; is the disk full?");
        }
        Ok(Some(Self { path: path.to_owned(), _lock: lock }))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::StateDir;

    #[test]
    fn a_second_process_is_told_who_holds_the_folder() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let first = StateDir::open(&path).unwrap().expect("writable");
        assert_eq!(first.path(), path);
        let error = StateDir::open(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(first);
        assert!(StateDir::open(&path).unwrap().is_some());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_done_without() {
        let parent = tempfile::NamedTempFile::new().unwrap();
        assert!(StateDir::open(&parent.path().join("below a file")).unwrap().is_none());
    }
}
