//! The files of an engine: which there are, which have gone, and whose turn it is to be read.
//!
//! A sweep compares what is on the disk with what is followed; reading happens between sweeps, a few buffers at a time.
//! Takes the time as an argument and starts no thread, so that tests can go step by step.

mod crew;
mod earlier;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::logs::{FileGlob, Logs, Start};
use crate::logs::decoder::Decoder;
use crate::logs::discover::{Found, Listing, unread};
use crate::logs::file::{Happened, Identity, Inode, Known, Seen};
use crate::logs::metrics::{InputSeries, Rotation, Trouble};
use crate::logs::state::{Position, Shared};
use crate::logs::tail::{Begin, Reader, Tail, open};

/// A file that is at no path any more is kept open until nothing was written to it for so long.
pub const GRACE: Duration = Duration::from_secs(5);
/// Large enough that the calls do not count, small enough to stay in the cache.
const BUFFER: usize = 256 * 1024;
/// How many buffers of a file are read before it is the next one's turn.
const TURN: usize = 16;
/// More files are not opened.
const MAX_FILES: usize = 1024;

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
}

/// The files of an engine. One thread looks after them; what it reads with is the first of the readers, and the others
/// are for threads that help while files are far behind.
#[derive(Debug)]
pub struct Shard {
    inputs: Vec<FileInput>,
    shared: Arc<Shared>,
    readers: Vec<Reader>,
    max_line: usize,
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
        let reader = Reader { shared: Arc::clone(&shared), decoder, counted, buffer: vec![0; BUFFER] };
        let saved = saved.into_iter().map(|position| (position.known.identity.inode, position)).collect();
        Self {
            inputs,
            shared,
            readers: vec![reader],
            max_line: config.max_line,
            threads: config.threads.unwrap_or_else(crew::default_threads),
            far_behind: crew::FAR_BEHIND,
            tails: HashMap::new(),
            paths: HashMap::new(),
            turns: VecDeque::new(),
            saved,
            troubles: HashMap::new(),
            behind: HashSet::new(),
            is_started: false,
            is_outdated: false,
        }
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
        for (inode, tail) in &mut self.tails {
            if !here.contains_key(inode) && tail.leaving.is_none() {
                tail.leaving = Some(now);
                self.turns.push_back(*inode);
            }
        }
        for (found, seen) in new {
            if !self.take_in(&found, seen, &here, now) {
                troubled.insert(found.path);
            }
        }
        // An open file that cannot be read is forgiven when it can be read again.
        self.troubles.retain(|path, _| troubled.contains(path) || self.paths.contains_key(path));
        // A file that was rotated in between is there, too: the start is over when nothing came in between.
        if !self.is_started && !self.is_outdated {
            self.is_started = true;
            self.behind = self.tails.keys().copied().collect();
            self.shared.ready();
        }
        for tail in self.tails.values_mut() {
            tail.expire(&self.shared, &self.inputs[tail.input].series, now);
        }
        let held = self.tails.values().map(|tail| tail.position.framing.held()).sum();
        self.readers.iter_mut().for_each(|reader| reader.decoder.set_held(held));
        self.let_go(now);
        self.send_home();
        self.paths.retain(|_, inode| self.tails.contains_key(inode));
        self.tell();
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

    /// Follows a file that was not known, after those that were at its path before. Whether it could be opened.
    fn take_in(&mut self, found: &Found, seen: Seen, here: &HashMap<Inode, Identity>, now: Instant) -> bool {
        // A file that an earlier run has known is no successor: its rotation has been counted.
        let is_new = !self.saved.contains_key(&seen.identity.inode);
        let Some((file, seen)) = self.acquire(&found.path, found) else { return false };
        let before = self.tails.values().filter(|tail| is_new && tail.position.path == found.path);
        let before = before.max_by_key(|tail| tail.position.known.identity.born).map(|tail| tail.position.known);
        let mut predecessor = None;
        if let Some(before) = before {
            predecessor = Some(before.identity.inode);
            self.drain(before.identity.inode, now);
            // Rotated files that a pattern matches are found by that.
            let known: HashSet<Inode> = self.tails.keys().chain(here.keys()).copied().collect();
            for path in unread(&found.path, &known, &before, &seen.identity) {
                predecessor = self.take_in_rotated(&path, found, predecessor, now).or(predecessor);
            }
        }
        let Some(inode) = self.follow((file, seen), found, predecessor) else { return false };
        self.paths.insert(found.path.clone(), inode);
        self.paths.extend(found.target.clone().map(|target| (target, inode)));
        self.turns.push_back(inode);
        true
    }

    /// Follows a file that was rotated away before anybody has read it, to its end.
    fn take_in_rotated(&mut self, path: &Path, successor: &Found, predecessor: Option<Inode>, now: Instant) -> Option<Inode> {
        let opened = self.acquire(path, successor)?;
        let inode = self.follow(opened, successor, predecessor)?;
        if let Some(tail) = self.tails.get_mut(&inode) {
            tail.leaving = Some(now);
        }
        self.drain(inode, now);
        Some(inode)
    }

    /// Opens a file. Where the listing named it, it must be the file that stood there then: whatever is done about those
    /// before it relies on that.
    fn acquire(&mut self, path: &Path, found: &Found) -> Option<(File, Seen)> {
        if self.tails.len() >= MAX_FILES {
            self.complain(found.input, path, Trouble::TooManyFiles);
            return None;
        }
        let listed = found.what.as_ref().ok().filter(|_| path == found.path).map(|seen| seen.identity.inode);
        let was_there = |inode: Inode| listed.is_none_or(|listed| listed == inode);
        match open(path) {
            Ok((file, seen)) if was_there(seen.identity.inode) => return Some((file, seen)),
            Err(error) if listed.is_none() || error.kind() != std::io::ErrorKind::NotFound => {
                self.complain(found.input, path, Trouble::of(&error));
            }
            _ => {
                tracing::debug!(path = %path.display(), "a log file was rotated while it was being looked at; looking again");
                self.is_outdated = true;
            }
        }
        None
    }

    /// Follows a file, and goes on with it where it is known from an earlier run. `found` says for which input.
    fn follow(&mut self, (file, seen): (File, Seen), found: &Found, predecessor: Option<Inode>) -> Option<Inode> {
        let inode = seen.identity.inode;
        let input = &self.inputs[found.input];
        let opened = match self.saved.remove(&inode) {
            Some(position) => {
                let behind = position.size.saturating_sub(position.known.offset);
                Tail::resume(file, seen, found.input, position).map(|(tail, happened)| (tail, Some((happened, behind))))
            }
            None => {
                let begin = match input.start {
                    Some(Start::End) if !self.is_started => Begin::End,
                    _ => Begin::Start,
                };
                let name = (found.input, input.name.as_str());
                Tail::new(file, seen, name, found.path.clone(), begin, self.max_line).map(|tail| (tail, None))
            }
        };
        match opened {
            Ok((tail, resumed)) => self.insert(tail, found, resumed, predecessor),
            Err(error) => {
                self.complain(found.input, &found.path, Trouble::of(&error));
                return None;
            }
        }
        Some(inode)
    }

    fn insert(&mut self, mut tail: Tail, found: &Found, resumed: Option<(Happened, u64)>, predecessor: Option<Inode>) {
        tail.position.path.clone_from(&found.path);
        tail.target.clone_from(&found.target);
        let Known { identity, offset, .. } = tail.position.known;
        tracing::debug!(path = %found.path.display(), inode = identity.inode.number(), offset, "a log file is followed");
        let series = &self.inputs[found.input].series;
        let mut commit = self.shared.commit();
        if let Some((happened, behind)) = resumed.filter(|(happened, _)| *happened != Happened::GoesOn) {
            tracing::info!(path = %found.path.display(), ?happened, lost_bytes = behind, "a log file has changed while nobody looked; it is read from its begin");
            series.lost(behind, &mut commit.families);
            if happened == Happened::Truncated {
                series.rotated(Rotation::Truncate, &mut commit.families);
            }
        }
        if predecessor.is_some() {
            series.rotated(Rotation::Rename, &mut commit.families);
        }
        // A line may begin at the end of the file before and end in this one.
        if let Some(before) = predecessor.and_then(|inode| self.tails.get_mut(&inode)) {
            tail.position.framing.inherit(&mut before.position.framing);
            commit.set(&before.position);
        }
        commit.set(&tail.position);
        drop(commit);
        self.tails.insert(tail.position.known.identity.inode, tail);
        self.shared.save_now();
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
    fn tell(&self) {
        let mut totals = vec![(0, 0); self.inputs.len()];
        for tail in self.tails.values() {
            totals[tail.input].0 += 1;
            totals[tail.input].1 += tail.lag();
        }
        let mut families = self.shared.families.lock();
        for (input, (files, lag)) in self.inputs.iter().zip(totals) {
            input.series.set_open(files, lag, &mut families);
        }
    }
}
