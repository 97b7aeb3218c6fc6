//! A folder that `mongorestore` and `psql` read: `{database}/{collection}.bson`, and for tables the rows with the
//! command that copies them in.

use std::collections::{BTreeMap, HashSet};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::retention::archive::Form;
use crate::retention::restore::{Batch, RestoreError, Tally};

/// A folder that is written to.
pub(super) struct Dump {
    folder: PathBuf,
    database: String,
    dry_run: bool,
    files: BTreeMap<PathBuf, Option<File>>,
    /// Records that are written already: only the last state of each goes in. Half a hash is enough for that.
    seen: HashSet<[u8; 16]>,
}

// === impl Dump ===

impl Dump {
    pub(super) fn new(folder: PathBuf, dry_run: bool) -> Self {
        Self { folder, database: String::new(), dry_run, files: BTreeMap::new(), seen: HashSet::new() }
    }

    pub(super) fn enter(&mut self, database: &str) {
        database.clone_into(&mut self.database);
    }

    pub(super) fn take(&mut self, batch: &Batch, tally: &mut Tally) -> Result<(), RestoreError> {
        let path = self.path(&batch.unit, if batch.form == Form::Bson { "bson" } else { "copy" });
        if !self.files.contains_key(&path) {
            let file = if self.dry_run { None } else { Some(self.begin(&path, batch)?) };
            self.files.insert(path.clone(), file);
        }
        for (entry, bytes) in &batch.records {
            let mut hash = [0; 16];
            hash.copy_from_slice(&Sha256::digest(format!("{}\0{}\0{}", self.database, batch.unit, entry.id))[..16]);
            if !self.seen.insert(hash) {
                tally.identical += 1;
                continue;
            }
            if let Some(Some(file)) = self.files.get_mut(&path) {
                file.write_all(bytes).map_err(|source| RestoreError::Dump { path: path.clone(), source })?;
            }
            tally.restored += 1;
        }
        Ok(())
    }

    /// Makes the file, and for a table the command beside it.
    fn begin(&self, path: &Path, batch: &Batch) -> Result<File, RestoreError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| RestoreError::Dump { path, source }
        };
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(path))?;
        }
        if let Form::Copy { table, columns } = &batch.form {
            let command = path.with_extension("sql");
            let columns: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
            // psql reads its own files relative to where it was started.
            let text = format!("\\copy {table} ({}) from '{}'\n", columns.join(", "), file_name(path));
            create(&command).and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed(&command))?;
        }
        create(path).map_err(failed(path))
    }

    pub(super) fn finish(self) -> Result<(), RestoreError> {
        for (path, file) in self.files {
            if let Some(file) = file {
                file.sync_all().map_err(|source| RestoreError::Dump { path, source })?;
            }
        }
        Ok(())
    }

    /// Names of files as `mongodump` makes them: what a path cannot hold is escaped as in a URL.
    fn path(&self, unit: &str, extension: &str) -> PathBuf {
        let safe = |name: &str| {
            let escaped = name.replace('%', "%25").replace('/', "%2F").replace('\\', "%5C").replace(':', "%3A").replace('\0', "%00");
            escaped.strip_prefix('.').map_or_else(|| escaped.clone(), |rest| format!("%2E{rest}"))
        };
        self.folder.join(safe(&self.database)).join(format!("{}.{extension}", safe(unit)))
    }
}

/// Nothing is written over: a dump goes into a folder of its own.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().replace('\'', "''")).unwrap_or_default()
}
