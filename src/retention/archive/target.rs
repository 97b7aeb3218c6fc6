//! Where archives go: a folder, or a bucket of S3, Google Cloud Storage or Azure.
//!
//! Owns what storage must be able to do and how its failures are told. Never tells what a client library said: it may
//! hold a signature.

use std::fmt;
use std::io;
use std::path::PathBuf;

use reqwest::Url;

use crate::config::storage::StorageAccess;
use crate::retention::archive::local::Local;
use crate::retention::archive::remote::{Remote, RemoteFault};

/// The largest file that is read: a segment of many large documents.
pub(super) const MAX_OBJECT: u64 = 1 << 30;

/// Where archives go.
#[derive(Clone, Debug)]
pub struct Target {
    url: String,
    backend: Backend,
}

#[derive(Clone, Debug)]
enum Backend {
    Local(Local),
    Remote(Remote),
}

/// A place within a target, for messages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place(pub String);

/// What is in a folder.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Listing {
    pub folders: Vec<String>,
    pub files: Vec<String>,
}

/// Storage does not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The address is none.
    #[error("`{0}` is no place for archives: write file:///folder, s3://bucket/folder, gs://bucket/folder or az://container/folder")]
    Address(String),
    /// What opens the bucket is missing or wrong.
    #[error("cannot use {url}: {problem}")]
    Access {
        /// The address.
        url: String,
        /// What is missing.
        problem: String,
    },
    /// Something is there already that must not be written over.
    #[error("{0} is there already; nothing is written over it")]
    Exists(Place),
    /// A file could not be read or written.
    #[error("cannot {action} {place}")]
    File {
        /// What was done.
        action: &'static str,
        /// Where.
        place: Place,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An object could not be read or written.
    #[error("cannot {action} {place}: {fault}")]
    Object {
        /// What was done.
        action: &'static str,
        /// Where.
        place: Place,
        /// Why not.
        fault: RemoteFault,
    },
}

// === impl Target ===

impl Target {
    /// The target of an address. Reaches for nothing yet.
    ///
    /// # Errors
    /// When the address is none, or what opens it is missing.
    pub fn open(url: &str, access: &StorageAccess) -> Result<Self, StorageError> {
        let not_a_place = || StorageError::Address(url.to_owned());
        let parsed = Url::parse(url).map_err(|_| not_a_place())?;
        if !parsed.username().is_empty() || parsed.password().is_some() || parsed.query().is_some() || parsed.fragment().is_some() {
            // The address is shown in messages and manifests.
            let problem = "an address holds no password and no options; give them by the environment".to_owned();
            return Err(StorageError::Access { url: format!("{}://…", parsed.scheme()), problem });
        }
        let backend = match parsed.scheme() {
            "file" => {
                let root: PathBuf = parsed.to_file_path().map_err(|()| not_a_place())?;
                Backend::Local(Local { root })
            }
            "s3" | "gs" | "az" => {
                Backend::Remote(Remote::open(&parsed, access).map_err(|problem| StorageError::Access { url: url.to_owned(), problem })?)
            }
            _ => return Err(not_a_place()),
        };
        Ok(Self { url: url.trim_end_matches('/').to_owned(), backend })
    }

    /// The place of a file, for messages.
    pub(super) fn place(&self, key: &str) -> Place {
        Place(format!("{}/{key}", self.url))
    }

    /// Writes files of one folder, none of which may be there. They appear in their order and survive a crash.
    pub(super) async fn create(&self, folder: &str, files: Vec<(String, Vec<u8>)>) -> Result<(), StorageError> {
        match &self.backend {
            Backend::Local(local) => {
                let written = local.create(folder, files).await;
                written.map_err(|source| match source.kind() {
                    io::ErrorKind::AlreadyExists => StorageError::Exists(self.place(folder)),
                    _ => self.file("write to", folder, source),
                })
            }
            Backend::Remote(remote) => {
                for (name, bytes) in files {
                    let key = format!("{folder}/{name}");
                    remote.create(&key, bytes).await.map_err(|fault| match fault {
                        RemoteFault::Exists => StorageError::Exists(self.place(&key)),
                        fault => self.object("write", &key, fault),
                    })?;
                }
                Ok(())
            }
        }
    }

    /// Writes a file, over one that is there.
    pub(super) async fn replace(&self, key: &str, bytes: Vec<u8>) -> Result<(), StorageError> {
        match &self.backend {
            Backend::Local(local) => local.replace(key, bytes).await.map_err(|source| self.file("write", key, source)),
            Backend::Remote(remote) => remote.replace(key, bytes).await.map_err(|fault| self.object("write", key, fault)),
        }
    }

    /// Reads a file; `None` where there is none.
    pub(super) async fn read(&self, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        match &self.backend {
            Backend::Local(local) => local.read(key).await.map_err(|source| self.file("read", key, source)),
            Backend::Remote(remote) => remote.read(key).await.map_err(|fault| self.object("read", key, fault)),
        }
    }

    /// What is in a folder, sorted; nothing where there is none.
    pub(super) async fn list(&self, folder: &str) -> Result<Listing, StorageError> {
        let mut listing = match &self.backend {
            Backend::Local(local) => local.list(folder).await.map_err(|source| self.file("list", folder, source))?,
            Backend::Remote(remote) => remote.list(folder).await.map_err(|fault| self.object("list", folder, fault))?,
        };
        listing.folders.sort_unstable();
        listing.files.sort_unstable();
        Ok(listing)
    }

    fn file(&self, action: &'static str, key: &str, source: io::Error) -> StorageError {
        StorageError::File { action, place: self.place(key), source }
    }

    fn object(&self, action: &'static str, key: &str, fault: RemoteFault) -> StorageError {
        StorageError::Object { action, place: self.place(key), fault }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.url)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_a_password_or_without_a_scheme_is_refused_and_not_shown() {
        let open = |url: &str| Target::open(url, &StorageAccess::default()).map(|target| target.to_string());
        assert_eq!(open("file:///var/lib/archive/").unwrap(), "file:///var/lib/archive");
        for wrong in ["/var/lib/archive", "ftp://host/x", "file://host/x", "archive"] {
            assert!(open(wrong).unwrap_err().to_string().contains("is no place for archives"), "{wrong}");
        }
        let error = open("s3://key:hunter2@bucket/x").unwrap_err().to_string();
        assert!(error.contains("holds no password") && !error.contains("hunter2"), "{error}");
        let error = open("az://container/x?sig=hunter2").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
