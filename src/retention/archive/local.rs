//! Archives in a folder. File work blocks, and is done on threads that may.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::retention::archive::durable;
use crate::retention::archive::target::{Listing, MAX_OBJECT};

/// A folder.
#[derive(Clone, Debug)]
pub(super) struct Local {
    pub root: PathBuf,
}

// === impl Local ===

impl Local {
    pub(super) async fn create(&self, folder: &str, files: Vec<(String, Vec<u8>)>) -> io::Result<()> {
        let folder = self.root.join(folder);
        blocking(move || {
            let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
            durable::create(&folder, &files)
        })
        .await
    }

    pub(super) async fn replace(&self, key: &str, bytes: Vec<u8>) -> io::Result<()> {
        let path = self.root.join(key);
        blocking(move || durable::replace_file(&path, &bytes)).await
    }

    pub(super) async fn read(&self, key: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.root.join(key);
        blocking(move || match durable::read(&path, MAX_OBJECT) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        })
        .await
    }

    /// What is in a folder; nothing where there is none. Links are not followed.
    pub(super) async fn list(&self, folder: &str) -> io::Result<Listing> {
        let folder = self.root.join(folder);
        blocking(move || {
            let entries = match fs::read_dir(folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Listing::default()),
                entries => entries?,
            };
            let mut listing = Listing::default();
            for entry in entries {
                let entry = entry?;
                // A name that is no text is none of ours.
                let Ok(name) = entry.file_name().into_string() else { continue };
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    listing.folders.push(name);
                } else if kind.is_file() {
                    listing.files.push(name);
                }
            }
            Ok(listing)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|ended| Err(io::Error::other(ended)))
}
