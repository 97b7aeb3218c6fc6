//! What is remembered of policies that need no MongoDB, in files of the state folder: small, replaced as a whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::retention::archive::replace_file;
use crate::retention::local::{LocalError, LocalOutcome};

/// Below the state folder.
const FOLDER: &str = "retention";
/// Holds the reason of a pause. No policy has a name with a dot.
const PAUSED: &str = "paused.txt";
/// A reason is a sentence.
const LONGEST_REASON: usize = 4096;

/// Where it is remembered.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    folder: Option<PathBuf>,
    /// What is known, where there is no folder.
    known: Arc<Mutex<BTreeMap<String, Known>>>,
}

/// What is remembered of one policy.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(super) struct Known {
    /// The policy as it was when it was last looked at.
    #[serde(default)]
    hash: String,
    /// Since when it is like this, in milliseconds since 1970.
    #[serde(default)]
    first_seen: Option<i64>,
    /// The last start of the schedule that was made, in milliseconds since 1970.
    #[serde(default)]
    started: Option<i64>,
    /// Whether that one has not come to an end yet.
    #[serde(default)]
    start_open: bool,
    /// How the last run ended.
    #[serde(default)]
    pub last: Option<LocalOutcome>,
}

// === impl Memory ===

impl Memory {
    pub fn new(state_dir: Option<&Path>) -> Self {
        Self { folder: state_dir.map(|folder| folder.join(FOLDER)), known: Arc::default() }
    }

    /// What is known of a policy; nothing, where that cannot be read.
    pub fn read(&self, policy: &str) -> Known {
        let Some(folder) = &self.folder else {
            return self.known.lock().unwrap_or_else(PoisonError::into_inner).get(policy).cloned().unwrap_or_default();
        };
        let path = folder.join(format!("{policy}.json"));
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "what was remembered of a policy cannot be read; it counts as new");
                Known::default()
            }),
            Err(_) => Known::default(),
        }
    }

    fn change(&self, policy: &str, change: impl FnOnce(&mut Known)) {
        let mut known = self.read(policy);
        let before = known.clone();
        change(&mut known);
        if known == before {
            return;
        }
        let Some(folder) = &self.folder else {
            self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(policy.to_owned(), known);
            return;
        };
        let path = folder.join(format!("{policy}.json"));
        let written = serde_json::to_vec_pretty(&known).map_err(std::io::Error::other).and_then(|bytes| replace_file(&path, &bytes));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "what is to be remembered of a policy cannot be written; is `state_dir` writable?");
        }
    }

    /// Remembers how a run ended.
    pub fn note(&self, outcome: &LocalOutcome) {
        self.change(&outcome.policy, |known| {
            known.last = Some(outcome.clone());
            known.start_open &= outcome.stop.may_pass();
        });
    }

    /// Until when a policy is only planned, where that is not over. Notes since when it is as it is.
    pub fn soaks_until(&self, policy: &str, hash: &str, soak: Duration, now: Timestamp) -> Option<Timestamp> {
        self.change(policy, |known| {
            if known.hash != hash || known.first_seen.is_none() {
                (known.hash, known.first_seen) = (hash.to_owned(), Some(now.as_millisecond()));
            }
        });
        // What could not be noted is as new as can be. A clock that was wrong may have noted the future: as new, too.
        let known = self.read(policy);
        let first = known.first_seen_of(hash).map_or(now.as_millisecond(), Timestamp::as_millisecond);
        let until = first.saturating_add(i64::try_from(soak.as_millis()).unwrap_or(i64::MAX));
        (now.as_millisecond() < until).then(|| Timestamp::from_millisecond(until).unwrap_or(Timestamp::MAX))
    }

    /// Takes a start of the schedule; false where it, or a later one, was taken before, unless its run was killed or
    /// failed by what may pass.
    pub fn take_start(&self, policy: &str, start: Timestamp) -> bool {
        let start = start.as_millisecond();
        let known = self.read(policy);
        if known.started.is_some_and(|started| started > start || (started == start && !known.start_open)) {
            return false;
        }
        self.change(policy, |known| (known.started, known.start_open) = (Some(start), true));
        true
    }

    /// Why tables and files are paused, where they are.
    pub fn paused(&self) -> Option<String> {
        let folder = self.folder.as_ref()?;
        match fs::read(folder.join(PAUSED)) {
            Ok(mut reason) => {
                reason.truncate(LONGEST_REASON);
                Some(String::from_utf8_lossy(&reason).trim().to_owned())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            // Whether there is a pause is not known: nothing is deleted.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Some(format!("{PAUSED} cannot be read: {error}")),
            Err(_) => None,
        }
    }

    /// Pauses, or ends the pause.
    pub fn set_paused(&self, reason: Option<&str>) -> Result<(), LocalError> {
        let path = self.folder.as_ref().map(|folder| folder.join(PAUSED)).unwrap_or_default();
        let done = match reason {
            Some(reason) => replace_file(&path, reason.as_bytes()),
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            },
        };
        done.map_err(|source| LocalError::State { path: path.display().to_string(), source })
    }
}

// === impl Known ===

impl Known {
    /// Since when the policy is as this hash says.
    pub fn first_seen_of(&self, hash: &str) -> Option<Timestamp> {
        self.first_seen.filter(|_| self.hash == hash).and_then(|time| Timestamp::from_millisecond(time).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retention::outcome::{Kind, Stop, Tally};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_soak_is_remembered_and_begins_anew_when_the_policy_changes() {
        let folder = tempfile::tempdir().unwrap();
        for memory in [Memory::new(Some(folder.path())), Memory::new(None)] {
            let soak = Duration::from_secs(100);
            assert_eq!(memory.soaks_until("p", "a", soak, at(1000)), Some(at(1100)));
            assert_eq!(memory.soaks_until("p", "a", soak, at(1099)), Some(at(1100)));
            assert_eq!(memory.soaks_until("p", "a", soak, at(1100)), None);
            assert_eq!(memory.soaks_until("p", "b", soak, at(1100)), Some(at(1200)));
            assert_eq!(memory.soaks_until("p", "a", soak, at(1100)), Some(at(1200)), "back again is a change, too");
            assert_eq!(memory.soaks_until("p", "a", Duration::ZERO, at(1100)), None);
        }
        let after_restart = Memory::new(Some(folder.path()));
        assert_eq!(after_restart.read("p").first_seen_of("a"), Some(at(1100)));
        fs::write(folder.path().join("retention/p.json"), "{").unwrap();
        assert_eq!(after_restart.soaks_until("p", "a", Duration::from_secs(1), at(5000)), Some(at(5001)), "what is broken is new");
    }

    #[test]
    fn a_start_is_taken_until_its_run_has_ended_by_more_than_what_may_pass() {
        let outcome = |stop| LocalOutcome {
            policy: "p".to_owned(),
            kind: Kind::Rows,
            run: String::new(),
            plan: String::new(),
            stop,
            why: String::new(),
            ended: String::new(),
            tally: Tally::default(),
        };
        let folder = tempfile::tempdir().unwrap();
        for memory in [Memory::new(Some(folder.path())), Memory::new(None)] {
            assert!(memory.take_start("p", at(5)) && !memory.take_start("p", at(4)));
            assert!(memory.take_start("p", at(5)), "it was killed");
            memory.note(&outcome(Stop::Store));
            assert!(memory.take_start("p", at(5)), "the database was away");
            memory.note(&outcome(Stop::Done));
            assert!(!memory.take_start("p", at(5)) && memory.take_start("p", at(6)));
            memory.note(&outcome(Stop::Blocked));
            assert!(!memory.take_start("p", at(6)), "a guard does not pass by itself");
        }
        assert!(!Memory::new(Some(folder.path())).take_start("p", at(6)));
    }

    #[test]
    fn a_pause_lasts_until_it_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(Some(folder.path()));
        assert_eq!(memory.paused(), None);
        memory.set_paused(Some("migration")).unwrap();
        assert_eq!(Memory::new(Some(folder.path())).paused().as_deref(), Some("migration"));
        memory.set_paused(None).unwrap();
        memory.set_paused(None).unwrap();
        assert_eq!(memory.paused(), None);
        assert!(Memory::new(None).set_paused(Some("x")).is_err(), "a pause that nobody would see is refused");
    }
}
