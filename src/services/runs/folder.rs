//! What the disk knows of one run: a folder of small files, each written once and whole, and the output of its agent.
//!
//! | file | written by | says |
//! |---|---|---|
//! | `start.json` | the service | what is to be run, and within which limits |
//! | `agent.json` | the shim | which processes do it |
//! | `output.log` | the agent | all that it writes; an input of the log engine |
//! | `cancelled` | the service | somebody did not want it any more |
//! | `exit.json` | the shim | how the agent ended |
//! | `recorded` | the service | the database knows |
//! | `abandoned` | the service | the shim must not start an agent any more |

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mongodb::bson::oid::ObjectId;
use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::services::runs::process::Identity;
use crate::services::runs::run::Ending;

const START: &str = "start.json";
const AGENT: &str = "agent.json";
const EXIT: &str = "exit.json";
const CANCELLED: &str = "cancelled";
const RECORDED: &str = "recorded";
const ABANDONED: &str = "abandoned";
const OUTPUT: &str = "output.log";
const LOCK: &str = "lock";

/// Where the last error of an agent is looked for.
const TAIL: u64 = 64 * 1024;

/// The folder of one run.
#[derive(Clone, Debug)]
pub(super) struct RunFolder {
    path: PathBuf,
    /// The run.
    pub run: ObjectId,
}

/// What is to be run. Its variables are not here: they hold secrets, and are handed over by the kernel.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Start {
    pub project: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    pub time_millis: u64,
    pub grace_millis: u64,
    pub memory: u64,
    pub output: u64,
}

/// Which processes do it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Processes {
    pub shim: Identity,
    pub agent: Identity,
}

// === impl RunFolder ===

impl RunFolder {
    pub(super) fn new(runs: &Path, run: ObjectId) -> Self {
        Self { path: runs.join(run.to_hex()), run }
    }

    /// The folder at a path, if its name is that of a run.
    pub(super) fn at(path: &Path) -> Option<Self> {
        let run = ObjectId::parse_str(path.file_name()?.to_str()?).ok()?;
        Some(Self { path: path.to_owned(), run })
    }

    /// All folders of runs, the oldest run first.
    pub(super) fn all(runs: &Path) -> io::Result<Vec<Self>> {
        let entries = match fs::read_dir(runs) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found: Vec<Self> = entries.filter_map(|entry| Self::at(&entry.ok()?.path())).collect();
        found.sort_by_key(|folder| folder.run);
        Ok(found)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it, with what is to be run.
    pub(super) fn create(&self, start: &Start) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        self.write(START, start)
    }

    pub(super) fn start(&self) -> io::Result<Start> {
        self.read(START)
    }

    pub(super) fn write_processes(&self, processes: &Processes) -> io::Result<()> {
        self.write(AGENT, processes)
    }

    pub(super) fn processes(&self) -> Option<Processes> {
        self.read(AGENT).ok()
    }

    pub(super) fn write_ending(&self, ending: &Ending) -> io::Result<()> {
        self.write(EXIT, ending)
    }

    pub(super) fn ending(&self) -> Option<Ending> {
        self.read(EXIT).ok()
    }

    pub(super) fn mark_cancelled(&self) -> io::Result<()> {
        self.write(CANCELLED, &())
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.path.join(CANCELLED).exists()
    }

    pub(super) fn mark_recorded(&self) -> io::Result<()> {
        self.write(RECORDED, &())
    }

    pub(super) fn is_recorded(&self) -> bool {
        self.path.join(RECORDED).exists()
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.path.join(ABANDONED).exists()
    }

    /// Keeps the shim from starting an agent from now on. `false` when it is too late: the shim is at work.
    pub(super) fn abandon(&self) -> io::Result<bool> {
        let lock = self.open_lock()?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(false);
        }
        if self.path.join(AGENT).exists() || self.path.join(EXIT).exists() {
            return Ok(false);
        }
        self.write(ABANDONED, &()).map(|()| true)
    }

    /// Held by the shim as long as it lives. Waits for whoever just looks whether it does.
    pub(super) fn lock(&self) -> io::Result<File> {
        let lock = self.open_lock()?;
        flock(&lock, FlockOperation::LockExclusive)?;
        Ok(lock)
    }

    /// The file that the agent writes to, at its end.
    pub(super) fn output(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).mode(0o600).open(self.path.join(OUTPUT))
    }

    /// The last bytes that the agent wrote.
    pub(super) fn tail(&self) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path.join(OUTPUT))?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// How long ago it was recorded; `None` where it is not, or the clock went back.
    pub(super) fn recorded_for(&self, now: SystemTime) -> Option<Duration> {
        now.duration_since(fs::metadata(self.path.join(RECORDED)).ok()?.modified().ok()?).ok()
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
    }

    fn open_lock(&self) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(self.path.join(LOCK))
    }

    fn write(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        write_whole(&self.path.join(name), &serde_json::to_vec(value)?)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<T> {
        Ok(serde_json::from_slice(&fs::read(self.path.join(name))?)?)
    }
}

/// A file is there whole, also after a crash, or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
