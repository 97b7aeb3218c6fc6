//! Who set what, when, and what came of it: one line of JSON each in a file of the state folder, and in our own log.
//! Never the value.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::json;

use crate::runtime::caller::Caller;

/// About forty thousand entries. The file before it is kept, too.
const LONGEST: u64 = 8 << 20;

/// Writes down who set what.
#[derive(Clone, Debug)]
pub(super) struct Trail {
    /// `None` where there is no state folder: then our own log is all there is.
    path: Option<PathBuf>,
    /// One writes at a time.
    turn: Arc<Mutex<()>>,
}

/// One attempt.
#[derive(Debug)]
pub(super) struct Entry {
    pub time: Timestamp,
    pub caller: Caller,
    pub namespace: String,
    pub project: String,
    pub key: String,
    /// `saved` or `failed`.
    pub outcome: &'static str,
}

// === impl Trail ===

impl Trail {
    pub(super) fn new(state_dir: Option<&Path>) -> Self {
        Self { path: state_dir.map(|folder| folder.join("audit/secrets.jsonl")), turn: Arc::default() }
    }

    /// Writes an entry, and waits until it is on the disk.
    pub(super) async fn write(&self, entry: Entry) {
        let Entry { caller, project, key, outcome, .. } = &entry;
        tracing::info!(%caller, project = %project.escape_debug(), key = %key.escape_debug(), outcome, "a secret was set");
        let Some(path) = self.path.clone() else { return };
        let turn = Arc::clone(&self.turn);
        let written = tokio::task::spawn_blocking(move || {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            append(&path, &entry)
        });
        if let Ok(Err(error)) = written.await {
            tracing::error!(%error, "the audit trail of secrets cannot be written; what it should hold stands in this log alone");
        }
    }
}

fn append(path: &Path, entry: &Entry) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() > LONGEST) {
        fs::rename(path, path.with_extension("jsonl.1"))?;
    }
    let mut file: File = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let line = json!({
        "time": entry.time.to_string(),
        "caller": entry.caller.0,
        "action": "set",
        "namespace": entry.namespace,
        "project_id": entry.project,
        "key": entry.key,
        "outcome": entry.outcome,
    });
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_data()
}
