//! Several threads for files that are far behind: after a start, or when more is written than one thread can read.
//!
//! They live for a moment: while one thread is enough, there is one. A file, with those that were rotated away from its
//! path, belongs to one of them at a time, so the lines of a file are counted in their order. Each counts for itself,
//! and hands over what it counted together with the offset, a buffer at a time.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::logs::file::Inode;
use crate::logs::metrics::Trouble;
use crate::logs::shard::{BUFFER, FileInput, Shard, TURN};
use crate::logs::tail::{Reader, Tail, Turn};

/// A file with fewer bytes than this to read is read before threads have started.
pub(super) const FAR_BEHIND: u64 = 4 * BUFFER as u64;
/// After this the other files get their turn, and news of them are looked at. The threads cost less than 1 % of it.
const SHIFT: Duration = Duration::from_millis(20);

/// A sidecar leaves the machine to the application: no more threads than this, unless that is asked for.
const MOST_THREADS: usize = 4;

/// The files of a path, the oldest first: one thread reads them one after the other.
#[derive(Debug)]
struct Work {
    path: PathBuf,
    tails: VecDeque<Tail>,
}

/// What is to be done, and what is done.
#[derive(Debug, Default)]
struct Board {
    open: VecDeque<Work>,
    done: Vec<(Tail, Turn)>,
}

// === impl Shard ===

impl Shard {
    /// Lets several threads read for a moment, where several files are far behind. Whether they did.
    pub(super) fn read_together(&mut self, now: Instant) -> bool {
        // The first one decides, so that nothing is spent on the question while files are only followed.
        if self.threads < 2 || !self.turns.front().is_some_and(|inode| self.is_far_behind(*inode)) {
            return false;
        }
        let open = self.take_work();
        if open.len() < 2 {
            open.into_iter().flat_map(|work| work.tails).for_each(|tail| self.put_back(tail));
            return false;
        }
        let hands = open.len().min(self.threads);
        while self.readers.len() < hands {
            self.readers.push(self.readers[0].clone());
        }
        let board = Mutex::new(Board { open, done: Vec::new() });
        let (inputs, until) = (self.inputs.as_slice(), Instant::now() + SHIFT);
        let (own, others) = self.readers.split_at_mut(1);
        thread::scope(|scope| {
            for reader in &mut others[..hands - 1] {
                let started =
                    thread::Builder::new().name("logs-reader".to_owned()).spawn_scoped(scope, || help(&board, reader, inputs, until));
                if let Err(error) = started {
                    tracing::debug!(%error, "no further thread can be had; files are read one after the other");
                }
            }
            help(&board, &mut own[0], inputs, until);
        });
        let Board { open, done } = board.into_inner().unwrap_or_else(PoisonError::into_inner);
        let waiting = open.into_iter().flat_map(|work| work.tails).map(|tail| (tail, Turn::More));
        for (tail, turn) in done.into_iter().chain(waiting) {
            let inode = tail.position.known.identity.inode;
            self.put_back(tail);
            if self.end_turn(inode, turn, now) {
                self.turns.push_back(inode);
            }
        }
        true
    }

    /// Notes how a turn of a file ended. Whether there is more.
    pub(super) fn end_turn(&mut self, inode: Inode, turn: Turn, now: Instant) -> bool {
        let Some(tail) = self.tails.get_mut(&inode) else { return false };
        let was_any = match turn {
            Turn::More => return true,
            Turn::End(was_any) => was_any,
            Turn::Failed(error) => {
                let (input, path) = (tail.input, tail.position.path.clone());
                self.behind.remove(&inode);
                self.complain(input, &path, Trouble::of(&error));
                return false;
            }
        };
        if was_any && tail.leaving.is_some() {
            tail.leaving = Some(now);
        }
        self.behind.remove(&inode);
        if was_any && !self.troubles.is_empty() {
            self.troubles.remove(&tail.position.path);
        }
        false
    }

    /// Gives the memory of the other threads back when there is no more for them to do.
    pub(super) fn send_home(&mut self) {
        if self.readers.len() > 1 && !self.turns.iter().any(|inode| self.is_far_behind(*inode)) {
            self.readers.truncate(1);
        }
    }

    /// How many threads have read at the same time until now.
    #[cfg(test)]
    pub(in crate::logs) fn readers(&self) -> usize {
        self.readers.len()
    }

    fn is_far_behind(&self, inode: Inode) -> bool {
        self.tails.get(&inode).is_some_and(|tail| tail.lag() >= self.far_behind)
    }

    /// Takes the files that are far behind out of the turns, by their paths.
    fn take_work(&mut self) -> VecDeque<Work> {
        let (far, near): (Vec<Inode>, Vec<Inode>) = self.turns.iter().partition(|inode| self.is_far_behind(**inode));
        let mut all: VecDeque<Work> = VecDeque::new();
        for inode in far {
            let Some(tail) = self.tails.remove(&inode) else { continue };
            match all.iter_mut().find(|work| work.path == tail.position.path) {
                Some(work) => work.tails.push_back(tail),
                None => all.push_back(Work { path: tail.position.path.clone(), tails: VecDeque::from([tail]) }),
            }
        }
        if all.len() > 1 {
            self.turns = near.into();
        }
        for work in &mut all {
            work.tails.make_contiguous().sort_by_key(|tail| tail.position.known.identity.born);
        }
        all
    }

    fn put_back(&mut self, tail: Tail) {
        self.tails.insert(tail.position.known.identity.inode, tail);
    }
}

/// A thread for each CPU that the process may use, which is fewer than the machine has where a container is limited.
pub(super) fn default_threads() -> usize {
    thread::available_parallelism().map_or(1, |cpus| cpus.get().min(MOST_THREADS))
}

/// Takes work, a turn at a time, until nothing is left or the shift ends.
fn help(board: &Mutex<Board>, reader: &mut Reader, inputs: &[FileInput], until: Instant) {
    while Instant::now() < until {
        let Some(mut work) = lock(board).open.pop_front() else { return };
        let Some(mut tail) = work.tails.pop_front() else { continue };
        let mut buffers = 0..TURN;
        let turn = tail.turn(reader, &inputs[tail.input].series, || buffers.next().is_some() && Instant::now() < until);
        let mut board = lock(board);
        match turn {
            Turn::More => work.tails.push_front(tail),
            ended => board.done.push((tail, ended)),
        }
        if !work.tails.is_empty() {
            board.open.push_back(work);
        }
    }
}

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}
