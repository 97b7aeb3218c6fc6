//! What a file policy would do and why. Pure.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::config::retention::FilePolicy;
use crate::retention::files::choice::{MOST_RANKED, Stays};
use crate::retention::guard::{Guard, Verdict};
use crate::retention::warrant::PlanId;

/// What a file policy would do. Nothing has been done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FilePlan {
    /// The policy's name.
    pub policy: String,
    /// Says that the policy is still the same.
    pub policy_hash: String,
    /// What the plan is called.
    pub plan_id: String,
    /// The folder that was looked through.
    pub root: String,
    /// Which files below it are meant.
    pub pattern: String,
    /// The clock of the host when the plan was made.
    #[serde(serialize_with = "crate::retention::plan::as_text")]
    pub now: Timestamp,
    /// Files that were last written to before this may go.
    #[serde(serialize_with = "crate::retention::plan::as_text")]
    pub cutoff: Timestamp,
    /// Files that match.
    pub total: u64,
    /// Files that would be deleted.
    pub would_delete: u64,
    /// Bytes that this would free: a file that has other names frees none.
    pub bytes: u64,
    /// The part of the matching files that would be deleted, from 0 to 1.
    pub fraction: f64,
    /// When the oldest file that would be deleted was written to.
    #[serde(serialize_with = "as_text_where_there")]
    pub oldest: Option<Timestamp>,
    /// What would be kept.
    pub kept: FileKept,
    /// Folders that are empty and old, where they go, too.
    pub empty_folders: u64,
    /// Folders that could not be looked into.
    pub unreadable: u64,
    /// Processes of which it cannot be seen what they have open.
    pub unseen_processes: u64,
    /// What must hold before anything is deleted.
    pub guards: Vec<Verdict>,
}

/// How many files would be kept, for each reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct FileKept {
    /// Younger than the cutoff, or exactly as old.
    pub young: u64,
    /// Moved in, unpacked or handed over lately.
    pub settling: u64,
    /// Dated in the future.
    pub future: u64,
    /// Dated before 2000: a date that was never set.
    pub before_floor: u64,
    /// Older, and among the newest.
    pub among_newest: u64,
    /// Older, and all that is newer leaves room for it.
    pub fits: u64,
    /// Older, and a process has it open, or has locked it.
    pub open: u64,
    /// Links, sockets and the like: never touched.
    pub not_files: u64,
}

/// What a look at all files has counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub total: u64,
    pub going: u64,
    pub bytes: u64,
    /// Milliseconds since 1970.
    pub oldest: Option<i64>,
    pub kept: FileKept,
    pub empty_folders: u64,
    pub unreadable: u64,
    pub unseen_processes: u64,
    /// Whether the root is there.
    pub has_root: bool,
    /// There were more files than can be ranked.
    pub is_full: bool,
}

/// How far the clock of the host has jumped lately, in milliseconds; `None` where it has not.
pub type Jump = Option<i64>;

// === impl FileKept ===

impl FileKept {
    pub(super) fn count(&mut self, stays: Stays) {
        let counter = match stays {
            Stays::Young => &mut self.young,
            Stays::Settling => &mut self.settling,
            Stays::Future => &mut self.future,
            Stays::BeforeFloor => &mut self.before_floor,
            Stays::AmongNewest => &mut self.among_newest,
            Stays::Fits => &mut self.fits,
            Stays::Open => &mut self.open,
        };
        *counter += 1;
    }
}

/// Says that a policy is still the same: another root, pattern or time makes another hash.
pub(in crate::retention) fn policy_hash(policy: &FilePolicy) -> String {
    let FilePolicy { name, mode: _, root, pattern, matcher: _, keep, settle, keep_newest, max_total, empty_folders, guards } = policy;
    let text = format!("{:?}", (name, root, pattern, keep, settle, keep_newest, max_total, empty_folders, guards));
    Sha256::digest(text).iter().take(16).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// What is older goes. Never later than what somebody has decided on, in milliseconds since 1970.
pub(super) fn cutoff(policy: &FilePolicy, now: Timestamp, decided: Option<i64>) -> Timestamp {
    let keep = SignedDuration::try_from(policy.keep).unwrap_or(SignedDuration::MAX);
    let by_age = now.checked_sub(keep).unwrap_or(Timestamp::MIN);
    let decided = decided.and_then(|cutoff| Timestamp::from_millisecond(cutoff).ok());
    let cutoff = decided.map_or(by_age, |decided| decided.min(by_age));
    // As the plan's name can say it.
    Timestamp::from_millisecond(cutoff.as_millisecond()).unwrap_or(cutoff)
}

// === impl FilePlan ===

impl FilePlan {
    /// Decides.
    pub(super) fn of(policy: &FilePolicy, counts: &Counts, now: Timestamp, cutoff: Timestamp, jump: Jump) -> Self {
        let policy_hash = policy_hash(policy);
        let fraction = fraction(counts.going, counts.total);
        let id = PlanId::new(now.as_millisecond(), cutoff.as_millisecond(), counts.going, 0, &policy_hash);
        Self {
            policy: policy.name.clone(),
            plan_id: id.to_string(),
            policy_hash,
            root: policy.root.display().to_string(),
            pattern: policy.pattern.clone(),
            now,
            cutoff,
            total: counts.total,
            would_delete: counts.going,
            bytes: counts.bytes,
            fraction,
            oldest: counts.oldest.and_then(|oldest| Timestamp::from_millisecond(oldest).ok()),
            kept: counts.kept,
            empty_folders: counts.empty_folders,
            unreadable: counts.unreadable,
            unseen_processes: counts.unseen_processes,
            guards: verdicts(policy, counts, fraction, jump),
        }
    }

    /// The guards that do not let it go on.
    pub fn blocking(&self) -> impl Iterator<Item = &Verdict> {
        self.guards.iter().filter(|verdict| !verdict.passes)
    }
}

fn verdicts(policy: &FilePolicy, counts: &Counts, fraction: f64, jump: Jump) -> Vec<Verdict> {
    let Counts { total, going, unreadable, .. } = *counts;
    let guards = policy.guards;
    let (part, most) = (fraction * 100.0, guards.max_fraction * 100.0);
    let remaining = total.saturating_sub(going);
    let ranked = policy.is_ranked();
    let verdict = |guard, passes, finding: String| Verdict { guard, passes, finding };
    let folder = match (counts.has_root, unreadable, counts.is_full) {
        (false, ..) => (false, format!("the folder {} is not there; is its disk mounted?", policy.root.display())),
        (_, _, true) => (false, format!("more than {MOST_RANKED} files match, and so many cannot be ranked; narrow `pattern` or `root`")),
        (_, 1.., _) if ranked => {
            (false, format!("{unreadable} folders cannot be looked into, and what is newest may be in them; let the sidecar read them"))
        }
        (_, 1.., _) => (true, format!("{unreadable} folders cannot be looked into, and what is in them stays")),
        _ if total == 0 => (true, format!("no file of {} matches {}; is `pattern` right?", policy.root.display(), policy.pattern)),
        _ => (true, "every folder was looked into".to_owned()),
    };
    vec![
        verdict(
            Guard::Fraction,
            fraction <= guards.max_fraction,
            format!("{part:.1} % of the files that match would be deleted; at most {most:.0} % may be (`guards.max_fraction`)"),
        ),
        verdict(
            Guard::Documents,
            going <= guards.max_files,
            format!("{going} files would be deleted; at most {} may be (`guards.max_files`)", guards.max_files),
        ),
        verdict(
            Guard::Remaining,
            remaining >= guards.min_remaining || going == 0,
            format!("{remaining} files would remain; at least {} must (`guards.min_remaining`)", guards.min_remaining),
        ),
        verdict(
            Guard::Clocks,
            jump.is_none(),
            match jump {
                Some(millis) => {
                    format!("the clock of this host jumped by {} s within the last day; ages by it cannot be trusted yet", millis / 1000)
                }
                None => "the clock of this host has not jumped".to_owned(),
            },
        ),
        verdict(Guard::Folder, folder.0, folder.1),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "numbers of files are far below 2^53")]
fn fraction(part: u64, total: u64) -> f64 {
    if total == 0 { f64::from(u8::from(part > 0)) } else { part as f64 / total as f64 }
}

#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn as_text_where_there<S: serde::Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(time),
        None => serializer.serialize_none(),
    }
}

impl std::fmt::Display for FilePlan {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(formatter, "PLAN ONLY, nothing has been deleted: policy {} on the files {} of {}", self.policy, self.pattern, self.root)?;
        writeln!(formatter, "  last written to before {}", self.cutoff)?;
        writeln!(formatter, "  {:>9} of {} would be deleted, {} bytes; files are not archived", self.would_delete, self.total, self.bytes)?;
        for (files, reason) in [
            (self.kept.young, "younger, or exactly as old"),
            (self.kept.settling, "moved in, unpacked or handed over lately"),
            (self.kept.among_newest, "older, and among the newest"),
            (self.kept.fits, "older, and within the total"),
            (self.kept.open, "older, and open or locked"),
            (self.kept.future, "dated in the future"),
            (self.kept.before_floor, "dated before 2000: a date that was never set"),
            (self.kept.not_files, "links, sockets and the like"),
        ] {
            if files > 0 {
                writeln!(formatter, "  {files:>9} kept: {reason}")?;
            }
        }
        if self.empty_folders > 0 {
            writeln!(formatter, "  {:>9} empty folders would go, too", self.empty_folders)?;
        }
        if self.unseen_processes > 0 {
            writeln!(formatter, "  what {} processes have open cannot be seen from here; locks and ages count", self.unseen_processes)?;
        }
        for Verdict { guard, passes, finding } in &self.guards {
            writeln!(formatter, "  {:<5} {guard:<9} {finding}", if *passes { "ok" } else { "STOP" })?;
        }
        write!(formatter, "  policy {}\n  plan {}", self.policy_hash, self.plan_id)
    }
}
