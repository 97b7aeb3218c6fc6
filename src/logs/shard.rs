//! The files of an engine: which there are, which have gone, and whose turn it is to be read.
//!
//! A sweep compares what is on the disk with what is followed; reading happens between sweeps, a few buffers at a time.
//! Takes the time as an argument and starts no thread, so that tests can go step by step.

mod arrival;
mod crew;
mod earlier;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use crate::config::logs::{FileGlob, Logs, Start};
use crate::logs::decoder::Decoder;
use crate::logs::discover::{Found, Listing};
use crate::logs::file::{Identity, Inode, Seen};
use crate::logs::metrics::{InputSeries, Trouble};
use crate::logs::state::{Position, Shared};
use crate::logs::tail::{Reader, Tail};

/// A file that is at no path any more is kept open until nothing was written to it for so long.
pub const GRACE: Duration = Duration::from_secs(5);
/// Large enough that the calls do not count, small enough to stay in the cache.
const BUFFER: usize = 256 * 1024;
/// How many buffers of a file are read before it is the next one's turn.
const TURN: usize = 16;
/// More files are not followed: each costs a descriptor and about a kilobyte of memory.
const MAX_FILES: usize = 16_384;
/// Descriptors of the process that are not for files of logs.
const OTHER_DESCRIPTORS: u64 = 256;

/// Files that an input reads.
#[derive(Clone, Debug)]
pub struct FileInput {
    /// Its name.
    pub name: String,
    /// The patterns.
    pub globs: Vec<FileGlob>,
    /// Where a file begins that is there at the very first start; `None` where that has been.
    pub start: Option<Start>,
    /// Where it is counted.
    pub series: InputSeries,
    /// Since when there have been bytes that are not counted.
    pub behind_since: Option<Instant>,
}

/// The files of an engine. One thread looks after them; what it reads with is the first of the readers, and the others
/// are for threads that help while files are far behind.
#[derive(Debug)]
pub struct Shard {
    inputs: Vec<FileInput>,
    shared: Arc<Shared>,
    readers: Vec<Reader>,
    max_line: usize,
    /// No more files are followed.
    max_files: usize,
    /// How many threads may read at the same time.
    threads: usize,
    /// A file with at least so many bytes to read may be read by another thread.
    pub(super) far_behind: u64,
    tails: HashMap<Inode, Tail>,
    paths: HashMap<PathBuf, Inode>,
    /// Files whose turn will come; each is in it once.
    turns: VecDeque<Inode>,
    /// Files of an earlier run that have not been found yet.
    saved: BTreeMap<Inode, Position>,
    /// Files of an earlier run that this look has not found, by the paths where they stood.
    gone: HashMap<PathBuf, Position>,
    /// Files that a listing has found and that were gone when they were to be opened for the first time.
    missed: HashMap<PathBuf, Seen>,
    /// Paths that cannot be read, so that each is complained about once.
    troubles: HashMap<PathBuf, Trouble>,
    /// Files that were there at the start and have not been read to their end.
    behind: HashSet<Inode>,
    is_started: bool,
    /// Another file stood at a path than the listing had said: a rotation came in between.
    is_outdated: bool,
}

// === impl Shard ===

impl Shard {
    /// Prepares to read the files of these inputs, and to go on where an earlier run has stopped.
    #[must_use]
    pub fn new(inputs: Vec<FileInput>, shared: Arc<Shared>, decoder: Decoder, config: &Logs, saved: Vec<Position>) -> Self {
        let mut commit = shared.commit();
        saved.iter().for_each(|position| commit.set(position));
        let counted = commit.families.delta();
        drop(commit);
        let reader = Reader { shared: Arc::clone(&shared), decoder, counted, buffer: vec![0; BUFFER], edition: 0 };
        let saved = saved.into_iter().map(|position| (position.known.identity.inode, position)).collect();
        Self {
            inputs,
            shared,
            readers: vec![reader],
            max_line: config.max_line,
            max_files: max_files(),
            threads: config.threads.unwrap_or_else(crew::default_threads),
            far_behind: crew::FAR_BEHIND,
            tails: HashMap::new(),
            paths: HashMap::new(),
            turns: VecDeque::new(),
            saved,
            gone: HashMap::new(),
            missed: HashMap::new(),
            troubles: HashMap::new(),
            behind: HashSet::new(),
            is_started: false,
            is_outdated: false,
        }
    }

    /// Lets no more files be followed than this.
    #[cfg(test)]
    pub(in crate::logs) fn set_max_files(&mut self, files: usize) {
        self.max_files = files;
    }

    /// Whether a file was rotated between the listing and its opening, so that the next sweep should come at once.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    /// Whether all files that were there at the start have been read to their end.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.is_started && self.behind.is_empty()
    }

    /// What is on the disk. Asked for before [`Shard::sweep`], so that its folders are watched before files are read.
    #[must_use]
    pub fn list(&self) -> Listing {
        let mut listing = Listing::default();
        for (number, input) in self.inputs.iter().enumerate() {
            input.globs.iter().for_each(|glob| listing.add(number, glob));
        }
        listing
    }

    /// Takes over what is on the disk.
    pub fn sweep(&mut self, listing: Listing, now: Instant) {
        let mut here: HashMap<Inode, Identity> = HashMap::new();
        let (mut new, mut troubled) = (Vec::new(), HashSet::new());
        for found in listing.found {
            match found.what {
                Err(trouble) => {
                    troubled.insert(found.path.clone());
                    self.complain(found.input, &found.path, trouble);
                }
                // A file that is found twice, through a link or by two inputs, is counted once.
                Ok(seen) if here.insert(seen.identity.inode, seen.identity).is_some() => {}
                Ok(seen) if self.tails.contains_key(&seen.identity.inode) => self.still_here(found, seen),
                Ok(seen) => new.push((found, seen)),
            }
        }
        self.is_outdated = false;
        self.find_renamed(&here, now);
        // What an earlier run has known tells which of the others are copies of it.
        new.sort_by_key(|(_, seen)| !self.saved.contains_key(&seen.identity.inode));
        for (inode, tail) in &mut self.tails {
            if !here.contains_key(inode) && tail.leaving.is_none() {
                tail.leaving = Some(now);
                self.turns.push_back(*inode);
            }
        }
        for (found, seen) in new {
            // Where a file of an earlier run was just moved on, the next look finds it, and then those that came after.
            if self.is_outdated || !self.take_in(&found, seen, &here, now) {
                troubled.insert(found.path);
            }
        }
        // An open file that cannot be read is forgiven when it can be read again.
        self.troubles.retain(|path, _| troubled.contains(path) || self.paths.contains_key(path));
        // A file that was rotated in between is there, too: the start is over when nothing came in between.
        if !self.is_started && !self.is_outdated {
            self.is_started = true;
            self.behind = self.tails.keys().copied().collect();
            self.disown();
            self.shared.ready();
        }
        for tail in self.tails.values_mut() {
            tail.expire(&self.shared, &self.inputs[tail.input].series, now);
        }
        let held = self.tails.values().map(|tail| tail.position.framing.held()).sum();
        self.readers.iter_mut().for_each(|reader| reader.decoder.set_held(held));
        if !self.is_outdated {
            // Whoever came after them is followed.
            let gone: Vec<Position> = self.gone.drain().map(|(_, position)| position).collect();
            gone.iter().for_each(|position| self.forget(position));
            self.missed.clear();
        }
        self.let_go(now);
        self.send_home();
        self.paths.retain(|_, inode| self.tails.contains_key(inode));
        self.tell(now);
    }

    /// These files have new content.
    pub fn touched(&mut self, paths: &HashSet<PathBuf>) {
        for path in paths {
            match self.paths.get(path) {
                Some(inode) => self.turns.push_back(*inode),
                // It may be one that has been rotated away and is still written to.
                None => self.turns.extend(self.tails.iter().filter(|(_, tail)| tail.leaving.is_some()).map(|(inode, _)| *inode)),
            }
        }
        self.once_each();
    }

    /// Reads a few buffers of one file, or of several at once that are far behind. Whether there is more to do.
    pub fn read(&mut self, now: Instant) -> bool {
        if self.read_together(now) {
            return !self.turns.is_empty();
        }
        if let Some(inode) = self.turns.pop_front()
            && self.turn(inode, now)
        {
            self.turns.push_back(inode);
        }
        !self.turns.is_empty()
    }

    /// A file that is followed stands at a path; it may have been renamed.
    fn still_here(&mut self, found: Found, seen: Seen) {
        let inode = seen.identity.inode;
        let Some(tail) = self.tails.get_mut(&inode) else { return };
        tail.leaving = None;
        if tail.note(&seen) {
            self.turns.push_back(inode);
        }
        if tail.position.path != found.path {
            // The old path is kept until another file stands there: that one is the successor.
            if self.paths.get(&tail.position.path) != Some(&inode) || found.target.is_some() {
                tail.position.path.clone_from(&found.path);
            }
            self.paths.insert(found.path, inode);
        }
    }

    /// Reads a file to its end at once.
    fn drain(&mut self, inode: Inode, now: Instant) {
        while self.turn(inode, now) {}
    }

    /// Reads some buffers of a file. Whether there is more.
    fn turn(&mut self, inode: Inode, now: Instant) -> bool {
        let Some(tail) = self.tails.get_mut(&inode) else { return false };
        let mut buffers = 0..TURN;
        let turn = tail.turn(&mut self.readers[0], &self.inputs[tail.input].series, || buffers.next().is_some());
        self.end_turn(inode, turn, now)
    }

    /// Closes files that are at no path and to which nobody has written for a while.
    fn let_go(&mut self, now: Instant) {
        let leaving: Vec<Inode> = self.tails.iter().filter(|(_, tail)| tail.leaving.is_some()).map(|(inode, _)| *inode).collect();
        for inode in leaving {
            if self.turn(inode, now) {
                self.turns.push_back(inode);
            }
            let is_quiet = |tail: &Tail| tail.leaving.is_some_and(|since| now.saturating_duration_since(since) >= GRACE);
            if !self.tails.get(&inode).is_some_and(is_quiet) {
                continue;
            }
            if let Some(tail) = self.tails.remove(&inode) {
                let series = &self.inputs[tail.input].series;
                tail.finish(&mut self.readers[0], series);
            }
            self.behind.remove(&inode);
        }
        self.once_each();
    }

    fn once_each(&mut self) {
        let mut seen = HashSet::new();
        self.turns.retain(|inode| seen.insert(*inode));
    }

    fn complain(&mut self, input: usize, path: &Path, trouble: Trouble) {
        if self.troubles.insert(path.to_owned(), trouble) == Some(trouble) {
            return;
        }
        tracing::warn!(path = %path.display(), reason = trouble.name(), remedy = trouble.remedy(), "a log file cannot be read; it is tried again every second");
        self.inputs[input].series.troubled(trouble, &mut self.shared.families.lock());
        self.shared.changed();
    }

    /// Says how many files each input has open, and how far behind it is.
    fn tell(&mut self, now: Instant) {
        let mut totals = vec![(0, 0); self.inputs.len()];
        for tail in self.tails.values() {
            totals[tail.input].0 += 1;
            totals[tail.input].1 += tail.lag();
        }
        let mut families = self.shared.families.lock();
        for (input, (files, lag)) in self.inputs.iter_mut().zip(totals) {
            input.behind_since = if lag > 0 { input.behind_since.or(Some(now)) } else { None };
            let behind = input.behind_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            input.series.set_open(files, lag, behind, &mut families);
        }
    }
}

/// As many as the process may open, but for what else needs descriptors.
fn max_files() -> usize {
    let limit = getrlimit(Resource::Nofile).current.map(|limit| limit.saturating_sub(OTHER_DESCRIPTORS).max(limit / 2));
    limit.and_then(|limit| usize::try_from(limit).ok()).map_or(MAX_FILES, |limit| limit.min(MAX_FILES))
}
