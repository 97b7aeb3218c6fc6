//! Secrets as files of a folder, as Docker and Kubernetes mount them: `NAMESPACE-PROJECT-KEY`, one value a file. Only read.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use zeroize::Zeroizing;

use crate::services::secrets::Standing;
use crate::services::secrets::held::Held;

/// No secret is longer; a file that is holds something else.
const LONGEST: u64 = 64 * 1024;
/// More than this no folder of secrets has, and no answer shows.
const MOST: usize = 1000;

/// A folder of secrets.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
    namespace: String,
}

// === impl Folder ===

impl Folder {
    pub(super) fn new(path: PathBuf, namespace: String) -> Self {
        Self { path, namespace }
    }

    /// The secrets of a project by name; a folder that is not there has none. Blocks.
    pub(super) fn list(&self, project: &str) -> io::Result<Vec<Held>> {
        let prefix = format!("{}-{project}-", self.namespace);
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut held = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let Some(key) = name.to_str().and_then(|name| name.strip_prefix(&prefix)).filter(|key| !key.is_empty()) else { continue };
            held.extend(self.read(&name, key)?);
            if held.len() == MOST {
                break;
            }
        }
        held.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(held)
    }

    /// A link is followed: Kubernetes swaps mounted secrets by one.
    fn read(&self, name: &std::ffi::OsStr, key: &str) -> io::Result<Option<Held>> {
        let path = self.path.join(name);
        let metadata = fs::metadata(&path)?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let updated = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let updated = updated.and_then(|since| i64::try_from(since.as_millis()).ok());
        let key = key.to_owned();
        if metadata.len() > LONGEST {
            return Ok(Some(Held { key, value: None, standing: Standing::Malformed, updated }));
        }
        let mut value = Zeroizing::new(Vec::with_capacity(usize::try_from(LONGEST).unwrap_or_default()));
        File::open(path)?.take(LONGEST).read_to_end(&mut value)?;
        // As variables of a configuration are read from files: an editor's line break at the end is no part of it.
        while matches!(value.last(), Some(b'\n' | b'\r')) {
            value.pop();
        }
        Ok(Some(Held { key, value: Some(value), standing: Standing::Current, updated }))
    }
}
