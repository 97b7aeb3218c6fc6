//! Files that an earlier run has known: found again under another name or compressed, or given up with what was lost.

use std::collections::HashMap;
use std::time::Instant;

use crate::logs::aside::renamed;
use crate::logs::content::is_compressed;
use crate::logs::discover::Found;
use crate::logs::file::{Identity, Inode};
use crate::logs::metrics::Trouble;
use crate::logs::rest::recover;
use crate::logs::shard::Shard;
use crate::logs::shard::arrival::Before;
use crate::logs::state::Position;

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

    /// A file is not where it was, nor beside that under another name: its content may be there, or is lost.
    pub(super) fn give_up(&mut self, inode: Inode, input: usize) {
        let Some(mut position) = self.saved.remove(&inode) else { return };
        let series = &self.inputs[input].series;
        let is_found = recover(&mut position, &mut self.readers[0], series).is_some();
        let lost = position.size.saturating_sub(position.known.offset);
        let mut commit = self.shared.commit();
        series.lost(lost, &mut commit.families);
        commit.forget(inode);
        drop(commit);
        if !is_found && position.size > 0 {
            // Once, and never forgiven by a file that comes later: how much was written to it is not known.
            tracing::warn!(path = %position.path.display(), lost_bytes = lost, "a log file vanished while nobody looked; what was written to it after the last look is lost");
            series.troubled(Trouble::Vanished, &mut self.shared.families.lock());
        }
        self.shared.save_now();
        self.gone.insert(position.path.clone(), position);
    }
}
