//! What must be kept together: the series, and how far each file has been counted into them.
//!
//! One lock holds both: whoever changes positions holds the lock of the families, and so does whoever copies them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::logs::fatal::FatalLines;
use crate::logs::file::{Identity, Inode, Known, Seen};
use crate::logs::framing::Framing;
use crate::logs::revision::Current;
use crate::logs::samples::Samples;
use crate::series::families::{Families, FamiliesState, SharedFamilies};

/// The layout of [`Saved`]. Another one cannot be read.
const VERSION: u16 = 4;
/// So many files that have been read to their end are remembered of each path: a rotation may compress them later. Twice as
/// many as are looked through beside a log (`aside`), as one that is forgotten and found there would be counted again.
const DONE_OF_A_PATH: usize = 128;
/// And so many of all paths: as many as files are followed. The worst case has a few megabytes.
const MAX_DONE: usize = 16_384;

/// How far a file has been counted.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Position {
    /// The input that reads it.
    pub input: String,
    /// Where it was found; after a rotation another file is there.
    #[serde(with = "path_bytes")]
    pub path: PathBuf,
    /// Who it is, and up to where it is counted.
    pub known: Known,
    /// When it was last written to, at the last look while it stood at its path: what was put aside later is younger.
    pub modified: (i64, i64),
    /// When the copy of its last content was born, where that was copied and cut off: older copies have been read.
    pub since: Option<u64>,
    /// The longest that it has been seen: what is between this and the offset is lost when the file is.
    pub size: u64,
    /// The offset is within a line that is passed over.
    pub skipping: bool,
    /// What its next line may go on with.
    pub framing: Framing,
}

/// A file that has been read to its end and is followed no longer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Done {
    /// Where it stood while it was written.
    #[serde(with = "path_bytes")]
    pub path: PathBuf,
    /// Who it was, and what is in it.
    pub known: Known,
}

/// What is written to the disk.
#[derive(Debug, Deserialize, Serialize)]
pub struct Saved {
    version: u16,
    /// The inputs that have been started: `start` counts no more for them.
    pub inputs: Vec<String>,
    /// The files that were read to their end last; the oldest first.
    pub done: Vec<Done>,
    /// All files that are being read.
    pub positions: Vec<Position>,
    /// All counters and histograms.
    pub families: FamiliesState,
}

/// What threads of the engine share.
#[derive(Debug, Default)]
pub struct Shared {
    /// All series.
    pub families: SharedFamilies,
    /// The last lines that told nothing.
    pub samples: Samples,
    /// Whoever wants to hear of fatal lines.
    pub fatal: Option<FatalLines>,
    /// The rules by which is counted.
    pub rules: Current,
    /// Touched only while `families` is locked.
    positions: Mutex<Positions>,
    request: Mutex<Request>,
    asked: Condvar,
}

#[derive(Debug, Default)]
struct Positions {
    open: BTreeMap<Inode, Position>,
    done: Vec<Done>,
}

#[derive(Debug, Default)]
struct Request {
    /// Before all files have been looked at once, a snapshot would forget those that have not.
    is_ready: bool,
    changed: bool,
    now: bool,
    stop: bool,
}

/// Families and positions while nobody else can see them.
#[derive(Debug)]
pub struct Commit<'a> {
    /// All series.
    pub families: MutexGuard<'a, Families>,
    positions: MutexGuard<'a, Positions>,
}

// === impl Position ===

impl Position {
    /// Of a file that is looked at for the first time.
    #[must_use]
    pub fn new(input: &str, path: PathBuf, known: Known, seen: &Seen) -> Self {
        let (modified, size) = (seen.modified, seen.size);
        Self { input: input.to_owned(), path, known, modified, since: None, size, skipping: false, framing: Framing::default() }
    }
}

// === impl Shared ===

impl Shared {
    /// Shares families, and what an earlier run has read to its end.
    #[must_use]
    pub fn new(families: Families, done: Vec<Done>, fatal: Option<FatalLines>) -> Self {
        let positions = Mutex::new(Positions { open: BTreeMap::new(), done });
        Self { families: SharedFamilies::new(families), positions, fatal, ..Self::default() }
    }

    /// Begins a change that is seen as a whole.
    pub fn commit(&self) -> Commit<'_> {
        let families = self.families.lock();
        Commit { families, positions: self.positions.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Says that something has changed, so that it is written within a second.
    pub fn changed(&self) {
        let mut request = self.request();
        if !request.changed {
            request.changed = true;
            self.asked.notify_one();
        }
    }

    /// Asks for a snapshot without the wait.
    pub fn save_now(&self) {
        let mut request = self.request();
        (request.changed, request.now) = (true, true);
        self.asked.notify_one();
    }

    /// Allows snapshots: the positions are complete.
    pub fn ready(&self) {
        self.request().is_ready = true;
        self.save_now();
    }

    /// Ends [`Shared::wait`] for good.
    pub fn stop(&self) {
        self.request().stop = true;
        self.asked.notify_one();
    }

    /// Waits until a snapshot is due: at once when asked for, else `interval` after the last one if something has
    /// changed. `false` at the stop.
    pub fn wait(&self, last: Instant, interval: Duration) -> bool {
        let mut request = self.request();
        loop {
            let due = interval.saturating_sub(last.elapsed());
            if request.stop {
                return false;
            }
            if request.is_ready && (request.now || (request.changed && due.is_zero())) {
                (request.changed, request.now) = (false, false);
                return true;
            }
            let wait = if request.is_ready && request.changed { due } else { Duration::from_secs(3600) };
            request = self.asked.wait_timeout(request, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Copies everything in one look, as bytes.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn encode(&self, inputs: &[String]) -> Result<Vec<u8>, postcard::Error> {
        let commit = self.commit();
        let (families, done) = (commit.families.state(), commit.positions.done.clone());
        let positions = commit.positions.open.values().cloned().collect();
        drop(commit);
        postcard::to_stdvec(&Saved { version: VERSION, inputs: inputs.to_vec(), done, positions, families })
    }

    fn request(&self) -> MutexGuard<'_, Request> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Commit ===

impl Commit<'_> {
    /// Sets how far a file has been counted.
    pub fn set(&mut self, position: &Position) {
        self.positions.open.insert(position.known.identity.inode, position.clone());
    }

    /// Forgets a file that will not be read any more.
    pub fn forget(&mut self, inode: Inode) {
        self.positions.open.remove(&inode);
    }

    /// Remembers a file that was read to its end, so that it is known when it comes back, compressed or with another
    /// name. The oldest are forgotten.
    pub fn done(&mut self, done: Done) {
        let all = &mut self.positions.done;
        // One that is read again after a crash takes no second place.
        all.retain(|other| other.path != done.path || !other.known.identity.is(&done.known.identity));
        let of_path = all.iter().filter(|other| other.path == done.path).count();
        let oldest = if of_path >= DONE_OF_A_PATH { all.iter().position(|other| other.path == done.path) } else { None };
        if let Some(position) = oldest.or_else(|| (all.len() >= MAX_DONE).then_some(0)) {
            all.remove(position);
        }
        all.push(done);
    }

    /// All files that are followed, or were by an earlier run.
    pub fn identities(&self) -> impl Iterator<Item = Identity> {
        self.positions.open.values().map(|position| position.known.identity)
    }

    /// The files that are followed and stood at paths like this.
    #[must_use]
    pub fn open_like(&self, is_like: impl Fn(&Path) -> bool) -> Vec<Known> {
        self.positions.open.values().filter(|position| is_like(&position.path)).map(|position| position.known).collect()
    }

    /// The files that have been read to their end and stood at paths like this.
    #[must_use]
    pub fn done_like(&self, is_like: impl Fn(&Path) -> bool) -> Vec<Known> {
        self.positions.done.iter().filter(|done| is_like(&done.path)).map(|done| done.known).collect()
    }
}

// === impl Saved ===

impl Saved {
    /// Reads what [`Shared::encode`] wrote; `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, _) = postcard::take_from_bytes::<u16>(bytes).ok()?;
        if version != VERSION {
            return None;
        }
        let saved: Self = postcard::from_bytes(bytes).ok()?;
        let is_sound =
            saved.positions.iter().map(|position| &position.known).chain(saved.done.iter().map(|done| &done.known)).all(Known::is_sound);
        is_sound.then_some(saved)
    }
}

/// Paths are bytes: a log may have a name that is no UTF-8.
mod path_bytes {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().as_bytes().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(|bytes| PathBuf::from(OsString::from_vec(bytes)))
    }
}
