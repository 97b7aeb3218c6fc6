//! Which files go, and why the others stay. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::retention::{FilePolicy, Per};

/// 2000-01-01 in milliseconds since 1970: an earlier date was never set, as in archives that are built reproducibly.
const FLOOR_MS: i64 = 946_684_800_000;
/// So many files are ranked at most: 5 MiB of them.
pub(super) const MOST_RANKED: usize = 100_000;

/// What makes a file the very file.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Identity {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    /// Nanoseconds since 1970.
    pub modified: i128,
    /// When anything about it changed last; nobody can set this one.
    pub changed: i128,
}

/// What is known of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct File {
    pub identity: Identity,
    /// How many names it has.
    pub links: u64,
    pub is_open: bool,
}

/// Why a file stays.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stays {
    Young,
    Settling,
    Future,
    BeforeFloor,
    AmongNewest,
    Fits,
    Open,
}

/// By when a file must have been left alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Milliseconds since 1970.
    pub now: i64,
    /// Files that were written to before go.
    pub cutoff: i64,
}

/// All files that match, for policies by which a file goes for what else is there.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    files: Vec<Ranked>,
    seen: BTreeSet<(u64, u64)>,
    folders: BTreeMap<Vec<u8>, u32>,
    is_full: bool,
}

#[derive(Clone, Copy, Debug)]
struct Ranked {
    folder: u32,
    identity: Identity,
    stays: Option<Stays>,
}

/// What a look at all files has decided.
#[derive(Debug, Default)]
pub(super) struct Decision {
    newest: BTreeSet<Identity>,
    fitting: BTreeSet<Identity>,
    others: BTreeSet<Identity>,
    /// There were more files than can be ranked: nothing may go.
    pub is_full: bool,
}

// === impl File ===

impl File {
    /// Why it stays for its own sake, if it does.
    pub fn stays(&self, policy: &FilePolicy, times: Times) -> Option<Stays> {
        let Identity { modified, changed, .. } = self.identity;
        let modified = millis(modified);
        let settle = i64::try_from(policy.settle.as_millis()).unwrap_or(i64::MAX);
        if modified > times.now {
            Some(Stays::Future)
        } else if modified < FLOOR_MS {
            Some(Stays::BeforeFloor)
        } else if modified >= times.cutoff {
            Some(Stays::Young)
        } else if settle > 0 && millis(changed) > times.now.saturating_sub(settle) {
            Some(Stays::Settling)
        } else if self.is_open {
            Some(Stays::Open)
        } else {
            None
        }
    }
}

fn millis(nanoseconds: i128) -> i64 {
    i64::try_from(nanoseconds.div_euclid(1_000_000)).unwrap_or(if nanoseconds < 0 { i64::MIN } else { i64::MAX })
}

// === impl Ranks ===

impl Ranks {
    /// Notes a file that matches, whether it may go or not.
    pub fn note(&mut self, policy: &FilePolicy, folder: &[u8], file: &File, times: Times) {
        if self.files.len() >= MOST_RANKED {
            self.is_full = true;
            return;
        }
        // A file of several names takes its space once.
        if !self.seen.insert((file.identity.device, file.identity.inode)) {
            return;
        }
        let folder = match policy.keep_newest.map(|newest| newest.per) {
            Some(Per::Folder) => {
                let next = u32::try_from(self.folders.len()).unwrap_or(u32::MAX);
                *self.folders.entry(folder.to_vec()).or_insert(next)
            }
            _ => 0,
        };
        self.files.push(Ranked { folder, identity: file.identity, stays: file.stays(policy, times) });
    }

    /// Decides: the newest first, until their number and their size are reached.
    pub fn decide(mut self, policy: &FilePolicy) -> Decision {
        let mut decision = Decision { is_full: self.is_full, ..Decision::default() };
        self.files.sort_by_key(|file| std::cmp::Reverse((file.identity.modified, file.identity.inode)));
        let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
        let mut total = 0_u64;
        for Ranked { folder, identity, stays } in &self.files {
            if let Some(newest) = policy.keep_newest
                && identity.size >= newest.min_size
                && !matches!(stays, Some(Stays::Future | Stays::BeforeFloor))
            {
                let count = counts.entry(*folder).or_default();
                if *count < newest.count {
                    *count += 1;
                    decision.newest.insert(*identity);
                }
            }
            total = total.saturating_add(identity.size);
            let fits = policy.max_total.is_some_and(|most| total <= most);
            if fits { &mut decision.fitting } else { &mut decision.others }.insert(*identity);
        }
        decision
    }
}

// === impl Decision ===

impl Decision {
    /// Why a file stays that is old enough to go, if it does. One that was not there, or not like this, when the others
    /// were ranked, has no rank.
    pub fn stays(&self, policy: &FilePolicy, file: &File) -> Option<Stays> {
        if !policy.is_ranked() {
            None
        } else if self.newest.contains(&file.identity) {
            Some(Stays::AmongNewest)
        } else if self.fitting.contains(&file.identity) {
            Some(Stays::Fits)
        } else if self.others.contains(&file.identity) {
            None
        } else {
            Some(Stays::Settling)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::config::retention::KeepNewest;

    const DAY: i64 = 86_400_000;
    const NOW: i64 = 20_000 * DAY;

    fn policy() -> FilePolicy {
        FilePolicy::simple("p", Path::new("/srv/backups"), "**", Duration::from_secs(86_400)).unwrap()
    }

    fn file(inode: u64, age: i64, size: u64) -> File {
        let modified = i128::from(NOW - age) * 1_000_000;
        File { identity: Identity { device: 1, inode, size, modified, changed: modified }, links: 1, is_open: false }
    }

    fn times() -> Times {
        Times { now: NOW, cutoff: NOW - DAY }
    }

    #[test]
    fn a_file_goes_when_it_is_older_to_the_millisecond() {
        let stays = |age| file(1, age, 1).stays(&policy(), times());
        assert_eq!(stays(DAY + 1), None);
        assert_eq!(stays(DAY), Some(Stays::Young), "exactly as old stays");
        assert_eq!(stays(-1), Some(Stays::Future));
        assert_eq!(stays(NOW), Some(Stays::BeforeFloor), "a date of 1970 was never set");
        assert_eq!(stays(NOW - FLOOR_MS), None);
        assert_eq!(stays(i64::MIN / 2), Some(Stays::Future));
        let open = File { is_open: true, ..file(1, 2 * DAY, 1) };
        assert_eq!(open.stays(&policy(), times()), Some(Stays::Open));
    }

    #[test]
    fn what_was_just_moved_in_settles_first() {
        let policy = FilePolicy { settle: Duration::from_secs(600), ..policy() };
        let mut unpacked = file(1, 30 * DAY, 1);
        unpacked.identity.changed = i128::from(NOW - 599_000) * 1_000_000;
        assert_eq!(unpacked.stays(&policy, times()), Some(Stays::Settling));
        unpacked.identity.changed = i128::from(NOW - 601_000) * 1_000_000;
        assert_eq!(unpacked.stays(&policy, times()), None);
    }

    fn going(policy: &FilePolicy, files: &[(&str, File)]) -> Vec<u64> {
        let mut ranks = Ranks::default();
        files.iter().for_each(|(folder, file)| ranks.note(policy, folder.as_bytes(), file, times()));
        let decision = ranks.decide(policy);
        let goes = |file: &File| file.stays(policy, times()).or_else(|| decision.stays(policy, file)).is_none();
        files.iter().filter(|(_, file)| goes(file)).map(|(_, file)| file.identity.inode).collect()
    }

    #[test]
    fn the_newest_stay_however_old_and_what_failed_or_is_misdated_is_none_of_them() {
        let newest = |count, per| FilePolicy { keep_newest: Some(KeepNewest { count, per, min_size: 2 }), ..policy() };
        let files = [
            ("", file(1, 40 * DAY, 9)),
            ("", file(2, 50 * DAY, 9)),
            ("", file(3, 60 * DAY, 9)),
            ("", file(4, 31 * DAY, 1)),
            ("", file(5, -DAY, 9)),
        ];
        assert_eq!(going(&newest(2, Per::All), &files), [3, 4], "the small one is a backup that failed");
        assert_eq!(going(&newest(9, Per::All), &files), [4]);
        let folders = [("a", file(1, 40 * DAY, 9)), ("a", file(2, 50 * DAY, 9)), ("b", file(3, 60 * DAY, 9))];
        assert_eq!(going(&newest(1, Per::Folder), &folders), [2]);
        assert_eq!(going(&newest(1, Per::All), &folders), [2, 3]);
    }

    #[test]
    fn a_total_takes_the_oldest_first_and_nothing_that_is_young() {
        let policy = FilePolicy { max_total: Some(100), ..policy() };
        let logs = [("", file(1, DAY / 2, 60)), ("", file(2, 2 * DAY, 40)), ("", file(3, 3 * DAY, 40)), ("", file(4, 4 * DAY, 1))];
        assert_eq!(going(&policy, &logs), [3, 4]);
        assert_eq!(going(&policy, &[("", file(1, DAY / 2, 500))]), [0; 0], "what is written to stays, however large");
        let linked = [("a", file(1, 2 * DAY, 60)), ("b", file(1, 2 * DAY, 60)), ("", file(2, 3 * DAY, 40))];
        assert_eq!(going(&policy, &linked), [0; 0], "two names of one file take its space once");
    }

    #[test]
    fn what_was_touched_after_the_ranking_has_no_rank_and_stays() {
        let policy = FilePolicy { keep_newest: Some(KeepNewest { count: 1, per: Per::All, min_size: 1 }), ..policy() };
        let (newest, mut old) = (file(1, 2 * DAY, 9), file(2, 3 * DAY, 9));
        let mut ranks = Ranks::default();
        [newest, old].iter().for_each(|file| ranks.note(&policy, b"", file, times()));
        let decision = ranks.decide(&policy);
        assert_eq!((decision.stays(&policy, &newest), decision.stays(&policy, &old)), (Some(Stays::AmongNewest), None));
        let mut touched = newest;
        touched.identity.changed += 1;
        old.identity.changed += 1;
        assert!(decision.stays(&policy, &touched).is_some() && decision.stays(&policy, &old).is_some());
    }

    #[test]
    fn more_than_can_be_ranked_is_said() {
        let mut ranks = Ranks::default();
        let policy = FilePolicy { max_total: Some(100), ..policy() };
        (0..=MOST_RANKED as u64).for_each(|inode| ranks.note(&policy, b"", &file(inode, DAY, 1), times()));
        assert!(ranks.decide(&policy).is_full);
    }
}
