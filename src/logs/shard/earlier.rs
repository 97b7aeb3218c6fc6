//! Files that an earlier run has known: found again under another name, or given up with what was lost.

use std::collections::HashMap;
use std::time::Instant;

use crate::logs::discover::{Found, renamed};
use crate::logs::file::{Identity, Inode};
use crate::logs::metrics::Trouble;
use crate::logs::shard::Shard;
use crate::logs::state::Position;

impl Shard {
    /// Finds files of an earlier run that have been renamed since, so that no pattern matches them.
    pub(super) fn find_renamed(&mut self, here: &HashMap<Inode, Identity>, now: Instant) {
        // Another file may have the inode by now.
        let is_here = |position: &Position| here.get(&position.known.identity.inode).is_some_and(|seen| position.known.identity.is(seen));
        let gone: Vec<Inode> = self.saved.iter().filter(|(_, position)| !is_here(position)).map(|(inode, _)| *inode).collect();
        for inode in gone {
            let Some(position) = self.saved.get(&inode) else { continue };
            let input = self.inputs.iter().position(|input| input.name == position.input);
            // An input that is no longer configured is no longer read.
            let Some(input) = input else {
                self.forget_saved(inode, None);
                continue;
            };
            let found = Found { input, path: position.path.clone(), what: Err(Trouble::Vanished), target: None };
            // A rotation that shifts names may hide a file from one look at the folder, not from two.
            let look = || renamed(&position.path, &position.known.identity);
            if let Some(path) = look().or_else(look) {
                self.take_in_rotated(&path, &found, None, now);
            } else {
                let lost = position.size.saturating_sub(position.known.offset);
                if lost > 0 {
                    tracing::warn!(path = %position.path.display(), lost_bytes = lost, "a log file vanished before all of it was read");
                }
                self.forget_saved(inode, Some((input, lost)));
            }
        }
    }

    /// Gives up a file of an earlier run, and counts what was lost with it.
    fn forget_saved(&mut self, inode: Inode, lost: Option<(usize, u64)>) {
        self.saved.remove(&inode);
        let mut commit = self.shared.commit();
        if let Some((input, bytes)) = lost {
            self.inputs[input].series.lost(bytes, &mut commit.families);
        }
        commit.forget(inode);
    }
}
