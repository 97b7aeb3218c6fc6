//! Files that an earlier run has known: found again under another name or compressed, or given up with what was lost.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::logs::aside::{is_like, origins, renamed};
use crate::logs::content::is_compressed;
use crate::logs::discover::Found;
use crate::logs::file::{Identity, Inode, Known, Look};
use crate::logs::metrics::Trouble;
use crate::logs::rest::recover;
use crate::logs::shard::Shard;
use crate::logs::shard::arrival::Before;
use crate::logs::state::{Done, Position};
use crate::logs::tail::open;

impl Shard {
    /// Finds files of an earlier run that have been renamed since, so that no pattern matches them.
    pub(super) fn find_renamed(&mut self, here: &HashMap<Inode, Identity>, now: Instant) {
        // Another file may have the inode by now.
        let is_here = |position: &Position| here.get(&position.known.identity.inode).is_some_and(|seen| position.known.identity.is(seen));
        let mut gone: Vec<&Position> = self.saved.values().filter(|position| !is_here(position)).collect();
        // A line may begin in the older one.
        gone.sort_by_key(|position| (position.modified, position.known.identity.born));
        let gone: Vec<Inode> = gone.into_iter().map(|position| position.known.identity.inode).collect();
        for inode in gone {
            let Some(position) = self.saved.get(&inode) else { continue };
            let input = self.inputs.iter().position(|input| input.name == position.input);
            // An input that is no longer configured is no longer read.
            let Some(input) = input else {
                self.saved.remove(&inode);
                self.shared.commit().forget(inode);
                continue;
            };
            let found = Found { input, path: position.path.clone(), what: Err(Trouble::Vanished), target: None };
            // A rotation that shifts names may hide a file from one look at the folder, not from two.
            let look = || renamed(&position.path, &position.known).filter(|path| !is_compressed(path));
            match look().or_else(look) {
                Some(path) => drop(self.take_in_rotated(&path, &found, Before::Nothing, now)),
                None => self.give_up(inode, input),
            }
        }
    }

    /// At the very first start: what was put aside before is nobody's, also when it is compressed later and looks young.
    pub(super) fn disown(&mut self) {
        let mut folders: HashMap<PathBuf, HashMap<OsString, &Path>> = HashMap::new();
        for tail in self.tails.values().filter(|tail| self.inputs[tail.input].start.is_some()) {
            let Ok(real) = fs::canonicalize(&tail.position.path) else { continue };
            let (Some(folder), Some(name)) = (real.parent(), real.file_name()) else { continue };
            folders.entry(folder.to_owned()).or_default().insert(name.to_owned(), &tail.position.path);
        }
        let mut found: Vec<(Look, Done)> = Vec::new();
        for (folder, originals) in folders {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let aside = entry.path();
                let Some(path) = origins(&aside).find_map(|name| originals.get(&name).filter(|_| is_like(&folder.join(&name), &aside)))
                else {
                    continue;
                };
                let known =
                    open(&aside).and_then(|(file, _)| Ok((Look::at(&file)?, file))).and_then(|(look, file)| Ok((look, look.known(&file)?)));
                if let Ok((look, known)) = known
                    && !is_compressed(&aside)
                    && !self.tails.contains_key(&known.identity.inode)
                {
                    found.push((look, Done { path: path.to_path_buf(), known }));
                }
            }
        }
        found.sort_by_key(|(look, _)| look.seen.modified);
        let mut commit = self.shared.commit();
        found.into_iter().for_each(|(_, done)| commit.done(done));
    }

    /// A file is not where it was, nor beside that under another name: its content may be there, or is lost.
    pub(super) fn give_up(&mut self, inode: Inode, input: usize) {
        let Some(mut position) = self.saved.remove(&inode) else { return };
        let series = &self.inputs[input].series;
        let is_found = recover(&mut position, true, &mut self.readers[0], series).is_some() || self.is_done(&position);
        let lost = position.size.saturating_sub(position.known.offset);
        // What is lost counts once, also when a crash comes before the file is forgotten.
        position.size = position.known.offset;
        let mut commit = self.shared.commit();
        series.lost(lost, &mut commit.families);
        commit.set(&position);
        drop(commit);
        if !is_found && position.size > 0 {
            // Once, and never forgiven by a file that comes later: how much was written to it is not known.
            tracing::warn!(path = %position.path.display(), lost_bytes = lost, "a log file vanished while nobody looked; what was written to it after the last look is lost");
            series.troubled(Trouble::Vanished, &mut self.shared.families.lock());
        }
        self.shared.save_now();
        self.is_gone(position.path.clone(), position);
    }

    /// Whether the content of a file has been read to its end from another one.
    fn is_done(&self, position: &Position) -> bool {
        let Known { offset, head, before, .. } = position.known;
        let done = self.shared.commit().done_like(|path| path == position.path);
        done.iter().any(|known| (known.offset, known.head, known.before) == (offset, head, before))
    }

    /// A file that stood at a path last will not be followed. It is remembered until its successor is.
    pub(super) fn is_gone(&mut self, path: PathBuf, position: Position) {
        let inode = position.known.identity.inode;
        if let Some(before) = self.gone.insert(path, position).filter(|before| before.known.identity.inode != inode) {
            self.forget(&before);
        }
    }

    /// Forgets a file whose successor is known. Another one may have its inode.
    pub(super) fn forget(&self, gone: &Position) {
        let inode = gone.known.identity.inode;
        if !self.tails.contains_key(&inode) && !self.saved.contains_key(&inode) {
            self.shared.commit().forget(inode);
        }
    }
}
