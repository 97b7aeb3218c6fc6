//! How a file comes to be followed: what stood at its path before, what was put aside in between, and where it begins.

use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Instant;

use crate::config::logs::Start;
use crate::logs::aside::{Aside, MAX_LOOKS, Moment, Search, is_like};
use crate::logs::content::{Content, is_compressed};
use crate::logs::discover::Found;
use crate::logs::file::{Identity, Inode, Known, Look, Mark, Seen};
use crate::logs::metrics::{Rotation, Trouble};
use crate::logs::rest::take;
use crate::logs::shard::Shard;
use crate::logs::state::Position;
use crate::logs::tail::{Begin, Tail, open};

/// What stood at a path before the file that stands there now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Before {
    /// Nothing that is known.
    Nothing,
    /// A file that is followed.
    Open(Inode),
    /// A file that is gone.
    Gone,
}

impl Shard {
    /// Follows a file that was not known, after those that were at its path before. Whether it could be opened.
    pub(super) fn take_in(&mut self, found: &Found, listed: Seen, here: &HashMap<Inode, Identity>, now: Instant) -> bool {
        // A file that an earlier run has known is no successor: its rotation has been counted.
        let is_new = !self.saved.contains_key(&listed.identity.inode);
        let Some((file, mut look)) = self.acquire(&found.path, found) else {
            if self.is_outdated && is_new {
                self.missed.entry(found.path.clone()).or_insert(listed);
            }
            return false;
        };
        if is_new && self.is_copy_of_open(&file, &look.seen, &found.path, now) {
            return true;
        }
        let was_written = look.seen.modified != listed.modified;
        let mut predecessor = if is_new { self.predecessor(&found.path, now) } else { Before::Nothing };
        let is_first = predecessor == Before::Nothing;
        let after = match self.position_of(predecessor, &found.path) {
            Some(position) => Some(Moment::of(position)),
            None if !is_new || !self.reads_from_begin(found.input) => None,
            // What a listing has found may have been put aside since then, or be in a copy.
            None => self.missed.get(&found.path).or(was_written.then_some(&listed)).map(Moment::of_file),
        };
        if let Some(after) = after {
            // What lies beside it is told from copies of it by what it holds: until it has held that from the look on.
            for _ in 0..MAX_LOOKS {
                let mut search = Search::new(&found.path, &self.shared.commit());
                // Rotated files that a pattern matches are found by that.
                search.known.extend(here);
                search.read.extend(self.gone.get(&found.path).map(|position| position.known));
                let unread = search.unread(after, &file).into_iter();
                // A copy that is older than the listing has what nobody wanted then.
                for aside in unread.filter(|aside| !is_first || aside.seen.modified >= after.modified) {
                    predecessor = self.take_in_aside(&aside, found, predecessor, now);
                    // Its turn comes when all before it have been read: the next look finds the rest of them.
                    if self.is_outdated {
                        return false;
                    }
                }
                if look.is_still_of(&file) {
                    break;
                }
                look = Look::at(&file).unwrap_or(look);
            }
        }
        let Some(inode) = self.follow((file, look), found, predecessor) else { return false };
        self.missed.remove(&found.path);
        self.paths.insert(found.path.clone(), inode);
        self.paths.extend(found.target.clone().map(|target| (target, inode)));
        self.turns.push_back(inode);
        true
    }

    /// Whether a file that is found now is read from its first byte.
    fn reads_from_begin(&self, input: usize) -> bool {
        self.is_started || self.inputs[input].start != Some(Start::End)
    }

    /// Whether a pattern has found the copy of a file that is followed and has not been cut off yet. When that happens,
    /// what the copy has more is read; see `Tail::truncated`.
    fn is_copy_of_open(&mut self, file: &File, seen: &Seen, path: &Path, now: Instant) -> bool {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
        let ends = name.char_indices().rev().filter(|(_, character)| ".-_".contains(*character)).map(|(position, _)| position);
        let original = ends.filter_map(|end| self.paths.get(&path.with_file_name(&name[..end])).copied()).next();
        let Some(original) = original.filter(|original| *original != seen.identity.inode) else { return false };
        self.drain(original, now);
        self.tails.get(&original).is_some_and(|tail| tail.has_prefix(file, seen.size))
    }

    /// The file that stood at a path last, read to its end.
    fn predecessor(&mut self, path: &Path, now: Instant) -> Before {
        let stood_there = |tail: &&Tail| tail.position.path == path;
        let last = self.paths.get(path).and_then(|inode| self.tails.get(inode)).filter(stood_there);
        let last = last.or_else(|| self.tails.values().filter(stood_there).max_by_key(|tail| tail.position.known.identity.born));
        if let Some(before) = last.map(|tail| tail.position.known.identity.inode) {
            self.drain(before, now);
            return Before::Open(before);
        }
        if self.gone.contains_key(path) { Before::Gone } else { Before::Nothing }
    }

    fn position_of(&self, before: Before, path: &Path) -> Option<&Position> {
        match before {
            Before::Nothing => None,
            Before::Open(inode) => self.tails.get(&inode).map(|tail| &tail.position),
            Before::Gone => self.gone.get(path),
        }
    }

    /// Reads a file that was put aside before anybody has read it.
    fn take_in_aside(&mut self, aside: &Aside, successor: &Found, predecessor: Before, now: Instant) -> Before {
        if !is_compressed(&aside.path) {
            return self.take_in_rotated(&aside.path, successor, predecessor, now).map_or(predecessor, Before::Open);
        }
        let content = match Content::open(&aside.path) {
            Ok(content) => content,
            Err(error) => {
                self.is_outdated |= error.kind() == ErrorKind::NotFound;
                return predecessor;
            }
        };
        let known = Known { identity: aside.seen.identity, offset: 0, head: Mark::of(&[]), before: Mark::of(&[]) };
        let input = &self.inputs[successor.input];
        let mut position = Position { size: 0, ..Position::new(&input.name, successor.path.clone(), known, &aside.seen) };
        // Of a file in which nothing was yet, this is all that is left.
        let is_same = predecessor == Before::Gone && self.gone.get(&successor.path).is_some_and(|gone| gone.known.head.length == 0);
        self.succeed(&mut position, successor, predecessor, !is_same);
        take(&mut position, aside, content, &mut self.readers[0], &self.inputs[successor.input].series);
        self.is_gone(successor.path.clone(), position);
        Before::Gone
    }

    /// Follows a file that was rotated away before anybody has read it, to its end.
    pub(super) fn take_in_rotated(&mut self, path: &Path, successor: &Found, predecessor: Before, now: Instant) -> Option<Inode> {
        let opened = self.acquire(path, successor)?;
        let inode = self.follow(opened, successor, predecessor)?;
        if let Some(tail) = self.tails.get_mut(&inode) {
            tail.leaving = Some(now);
        }
        self.drain(inode, now);
        Some(inode)
    }

    /// Opens a file. Where the listing named it, it must be the file that stood there then: whatever is done about those
    /// before it relies on that. The same inode is not enough: that of a file which has just been compressed is free.
    fn acquire(&mut self, path: &Path, found: &Found) -> Option<(File, Look)> {
        if self.tails.len() >= self.max_files {
            self.complain(found.input, path, Trouble::TooManyFiles);
            return None;
        }
        let listed = found.what.as_ref().ok().filter(|_| path == found.path).map(|seen| seen.identity);
        let was_there = |identity: Identity| listed.is_none_or(|listed| listed.is(&identity));
        let look = |(file, _): (File, Seen)| Look::at(&file).map(|look| (file, look));
        match open(path).and_then(look) {
            Ok((file, look)) if was_there(look.seen.identity) => return Some((file, look)),
            Err(error) if error.kind() != ErrorKind::NotFound => {
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
    fn follow(&mut self, (file, look): (File, Look), found: &Found, predecessor: Before) -> Option<Inode> {
        let seen = look.seen;
        let inode = seen.identity.inode;
        // Another file may have got the inode since the listing.
        if self.saved.get(&inode).is_some_and(|position| !position.known.identity.is(&seen.identity)) {
            self.give_up(inode, found.input);
        }
        let earlier = self.saved.remove(&inode).or_else(|| self.done_before(&file, &seen, found));
        let input = &self.inputs[found.input];
        let opened = match earlier {
            Some(position) => Tail::resume(file, look, found.input, position),
            None => {
                let begin = if self.reads_from_begin(found.input) { Begin::Start } else { Begin::End };
                let name = (found.input, input.name.as_str());
                Tail::new(file, look, name, found.path.clone(), begin, self.max_line).map(|tail| (tail, true))
            }
        };
        match opened {
            Ok((mut tail, goes_on)) => {
                let series = &self.inputs[found.input].series;
                if !goes_on {
                    tail.truncated(&mut self.readers[0], series);
                } else if !tail.was_cut_off_unseen(&mut self.readers[0], series) {
                    tail.learn(&look);
                }
                self.insert(tail, found, predecessor);
            }
            Err(error) => {
                self.complain(found.input, &found.path, Trouble::of(&error));
                return None;
            }
        }
        Some(inode)
    }

    /// A file that was read to its end before and comes back, for example because a pattern matches it, too.
    fn done_before(&self, file: &File, seen: &Seen, found: &Found) -> Option<Position> {
        let done = self.shared.commit().done_like(|path| is_like(path, &found.path));
        let goes_on = |known: &&Known| known.identity.is(&seen.identity) && known.goes_on_in(file, seen).is_ok_and(|(goes_on, _)| goes_on);
        let known = *done.iter().rfind(goes_on)?;
        Some(Position::new(&self.inputs[found.input].name, found.path.clone(), known, seen))
    }

    fn insert(&mut self, mut tail: Tail, found: &Found, predecessor: Before) {
        tail.position.path.clone_from(&found.path);
        tail.target.clone_from(&found.target);
        let Known { identity, offset, .. } = tail.position.known;
        tracing::debug!(path = %found.path.display(), inode = identity.inode.number(), offset, "a log file is followed");
        self.succeed(&mut tail.position, found, predecessor, true);
        self.tails.insert(identity.inode, tail);
        self.shared.save_now();
    }

    /// Begins a file after the one that stood at its path before.
    fn succeed(&mut self, position: &mut Position, found: &Found, predecessor: Before, is_rotation: bool) {
        let mut commit = self.shared.commit();
        if predecessor != Before::Nothing && is_rotation {
            self.inputs[found.input].series.rotated(Rotation::Rename, &mut commit.families);
        }
        // A line may begin at the end of the file before and end in this one.
        match predecessor {
            Before::Nothing => {}
            Before::Open(inode) => {
                if let Some(before) = self.tails.get_mut(&inode) {
                    position.framing.inherit(&mut before.position.framing);
                    commit.set(&before.position);
                }
            }
            Before::Gone => {
                if let Some(before) = self.gone.get_mut(&found.path) {
                    position.framing.inherit(&mut before.framing);
                }
            }
        }
        commit.set(position);
    }
}
