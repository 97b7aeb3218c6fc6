//! Looks, plans, and deletes what the plan says. Blocks: files are waited for on a thread of their own.

use std::ffi::CStr;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, Stat, flock, fstat, openat, unlinkat};
use rustix::io::Errno;

use crate::config::retention::{Budget, FilePolicy};
use crate::retention::files::FileError;
use crate::retention::files::choice::{Decision, File, Ranks, Times};
use crate::retention::files::openers::Openers;
use crate::retention::files::plan::{self, Counts, FilePlan, Jump};
use crate::retention::files::walk::{Found, Root, identity_of};
use crate::retention::outcome::Stop;
use crate::retention::warrant::{Blocked, PlanId};

/// Files a batch: between two, a run rests, and looks whether it may go on.
const BATCH: u64 = 500;
/// A rest is at most so long.
const LONGEST_REST: Duration = Duration::from_secs(5);
/// In a rest, whether to go on is looked at so often.
const LOOK: Duration = Duration::from_millis(100);
/// A network file system leaves a file that is open under such a name; it goes by itself.
const OPEN_ON_NFS: &[u8] = b".nfs";

/// The right to carry one policy out, as long as the root is held.
#[derive(Debug)]
pub struct FileRun<'a> {
    policy: &'a FilePolicy,
    root: Option<Root>,
    times: Times,
    decision: Decision,
    plan: FilePlan,
}

/// What a run has done so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FileTally {
    /// Files that are gone.
    pub deleted: u64,
    /// Bytes that this has freed.
    pub bytes: u64,
    /// Empty folders that are gone.
    pub folders: u64,
    /// Files that stayed, as they had changed since they were looked at.
    pub changed: u64,
    /// Files that stayed, as a process had them open, or had locked them.
    pub open: u64,
    /// Files that could not be deleted.
    pub failed: u64,
}

/// What holds a run back, and what ends it between two batches.
pub struct Reins<'a> {
    /// How much it does at most.
    pub budget: Budget,
    /// A rest after each batch, as a multiple of the time that it took.
    pub rest: f64,
    /// Whether it is to end, and why.
    pub ends: &'a dyn Fn() -> Option<Stop>,
}

/// What a run tells while it goes on.
#[derive(Debug)]
pub enum Told<'a> {
    /// This file goes now.
    Goes(&'a Path),
    /// A batch is done; the sum so far.
    Batch(FileTally),
}

/// How deleting one file ended.
enum Fate {
    Gone,
    Changed,
    Open,
    Failed(Errno),
}

/// What a policy would do. Writes nothing.
///
/// # Errors
/// When the root cannot be opened or read.
pub fn plan(policy: &FilePolicy, now: Timestamp, jump: Jump) -> Result<FilePlan, FileError> {
    FileRun::look(policy, now, None, jump).map(|run| run.plan)
}

// === impl FileRun ===

impl<'a> FileRun<'a> {
    /// Takes the root for itself, looks through it and plans. `confirmed` is the plan that somebody has looked at.
    ///
    /// # Errors
    /// When another process holds the root, it cannot be read, or the plan is not this one.
    pub fn begin(policy: &'a FilePolicy, now: Timestamp, confirmed: Option<&PlanId>, jump: Jump) -> Result<Self, FileError> {
        let run = Self::look(policy, now, confirmed.map(|plan| plan.cutoff), jump)?;
        if let Some(confirmed) = confirmed {
            confirmed.permits(
                &run.plan.policy_hash,
                now.as_millisecond(),
                run.plan.cutoff.as_millisecond(),
                "files",
                run.plan.would_delete,
            )?;
        }
        let stopped: Vec<_> = run.plan.blocking().cloned().collect();
        if !stopped.is_empty() {
            return Err(Blocked::Guards(stopped).into());
        }
        if let Some(root) = &run.root
            && flock(root.folder(), FlockOperation::NonBlockingLockExclusive).is_err()
        {
            return Err(FileError::Locked(policy.name.clone()));
        }
        Ok(run)
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &FilePlan {
        &self.plan
    }

    fn look(policy: &'a FilePolicy, now: Timestamp, decided: Option<i64>, jump: Jump) -> Result<Self, FileError> {
        let failed = |source| FileError::Root { policy: policy.name.clone(), root: policy.root.clone(), source };
        let cutoff = plan::cutoff(policy, now, decided);
        let times = Times { now: now.as_millisecond(), cutoff: cutoff.as_millisecond() };
        let root = Root::open(&policy.root).map_err(failed)?;
        let mut counts = Counts { has_root: root.is_some(), ..Counts::default() };
        let mut decision = Decision::default();
        if let Some(root) = &root {
            decision = rank(policy, root, times).map_err(failed)?;
            count(policy, root, times, &decision, &mut counts).map_err(failed)?;
        }
        let plan = FilePlan::of(policy, &counts, now, cutoff, jump);
        Ok(Self { policy, root, times, decision, plan })
    }

    /// Deletes what the plan says, and never more than a tenth beyond it. `tell` hears of each file before it goes.
    ///
    /// # Errors
    /// When files could not be deleted; the sum says how many were. What else was planned is gone by then.
    pub fn apply(mut self, reins: &Reins<'_>, mut tell: impl FnMut(Told<'_>)) -> Result<(Stop, FileTally), (FileError, FileTally)> {
        let mut tally = FileTally::default();
        let Some(root) = self.root.take() else { return Ok((Stop::Done, tally)) };
        let mut errors = None;
        let began = Instant::now();
        let stop = loop {
            let before = tally.deleted;
            let stop = self.pass(&root, reins, began, &mut tally, &mut errors, &mut tell);
            match stop {
                Ok(None) if self.policy.is_ranked() && tally.deleted > before => {
                    // The newest may have gone meanwhile, by another hand: what is left is ranked anew.
                    match rank(self.policy, &root, self.times) {
                        Ok(decision) => self.decision = decision,
                        Err(error) => break Err(error),
                    }
                }
                Ok(stop) => break Ok(stop.unwrap_or(Stop::Done)),
                Err(error) => break Err(error),
            }
        };
        tell(Told::Batch(tally));
        let fail = |source| FileError::Delete { policy: self.policy.name.clone(), failed: tally.failed, source };
        match (stop, errors) {
            (Err(error), _) | (_, Some(error)) => Err((fail(error), tally)),
            (Ok(stop), None) => Ok((stop, tally)),
        }
    }

    /// One look through the root that deletes: all of it, or one batch of what is ranked. The reason where it ends early.
    fn pass(
        &self,
        root: &Root,
        reins: &Reins<'_>,
        began: Instant,
        tally: &mut FileTally,
        errors: &mut Option<Errno>,
        tell: &mut impl FnMut(Told<'_>),
    ) -> Result<Option<Stop>, Errno> {
        let most = self.plan.would_delete + PlanId::allowance(self.plan.would_delete);
        let mut openers = Openers::of(root.device);
        let (mut stop, mut batch, mut batch_began) = ((reins.ends)(), 0, Instant::now());
        if stop.is_some() {
            return Ok(stop);
        }
        root.walk(|found| {
            let fate = match found {
                Found::File { folder, name, path, stat } => {
                    let Some(file) = self.goes(path, stat, &mut openers) else { return ControlFlow::Continue(()) };
                    stop = ends(reins, began, tally.deleted).or((tally.deleted >= most).then_some(Stop::Blocked));
                    if stop.is_some() {
                        return ControlFlow::Break(());
                    }
                    let fate = delete(root, folder, name, path, &file, &mut |path| tell(Told::Goes(path)));
                    if matches!(fate, Fate::Gone) && file.links == 1 {
                        tally.bytes += file.identity.size;
                    }
                    fate
                }
                Found::Left { folder, name, path, stat, .. } if self.policy.empty_folders && is_old(stat, self.times) => {
                    // The system refuses where anything is in it, and where it is a folder no more.
                    let _ = path;
                    tally.folders += u64::from(unlinkat(folder, name, AtFlags::REMOVEDIR).is_ok());
                    return ControlFlow::Continue(());
                }
                _ => return ControlFlow::Continue(()),
            };
            match fate {
                Fate::Gone => tally.deleted += 1,
                Fate::Changed => tally.changed += 1,
                Fate::Open => tally.open += 1,
                Fate::Failed(error) => {
                    tally.failed += 1;
                    errors.get_or_insert(error);
                    // Nothing can be deleted there at all.
                    if matches!(error, Errno::ROFS | Errno::IO | Errno::NODEV) {
                        return ControlFlow::Break(());
                    }
                }
            }
            batch += 1;
            if batch == BATCH {
                tell(Told::Batch(*tally));
                stop = (reins.ends)();
                if stop.is_some() || self.policy.is_ranked() {
                    return ControlFlow::Break(());
                }
                rest(reins, batch_began.elapsed());
                (batch, batch_began) = (0, Instant::now());
            }
            ControlFlow::Continue(())
        })?;
        Ok(stop)
    }

    /// The file, where it goes.
    fn goes(&self, path: &Path, stat: &Stat, openers: &mut Openers) -> Option<File> {
        if !matches(self.policy, path) {
            return None;
        }
        let mut file = file_of(stat);
        // The descriptors of all processes are looked at for what is old enough alone.
        if file.stays(self.policy, self.times).is_some() || self.decision.stays(self.policy, &file).is_some() {
            return None;
        }
        file.is_open = openers.hold(file.identity.device, file.identity.inode);
        (!file.is_open).then_some(file)
    }
}

/// Deletes one file, where its place still holds the very file.
fn delete(root: &Root, folder: BorrowedFd<'_>, name: &CStr, path: &Path, file: &File, before: &mut dyn FnMut(&Path)) -> Fate {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match openat(folder, name, flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty()) {
        // One that may not be read has a lock that cannot be asked for; it is open to nobody else's eyes either.
        Err(Errno::ACCESS | Errno::PERM) => openat(folder, name, flags | OFlags::PATH, Mode::empty()).map(|opened| (opened, false)),
        opened => opened.map(|opened| (opened, true)),
    };
    let (opened, can_lock) = match opened {
        Ok(opened) => opened,
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::TXTBSY) => return Fate::Changed,
        Err(error) => return Fate::Failed(error),
    };
    if fstat(&opened).map(|stat| identity_of(&stat)) != Ok(file.identity) {
        return Fate::Changed;
    }
    if can_lock && flock(&opened, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
        return Fate::Open;
    }
    before(path);
    if !root.still_leads_to(path, file.identity, folder, name) {
        return Fate::Changed;
    }
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) => Fate::Gone,
        Err(Errno::NOENT) => Fate::Changed,
        Err(error) => Fate::Failed(error),
    }
}

/// The disk is the application's for as long as the batch took; whoever wants the run to end does not wait for that.
fn rest(reins: &Reins<'_>, took: Duration) {
    let until = Instant::now() + took.mul_f64(reins.rest).min(LONGEST_REST);
    while Instant::now() < until && (reins.ends)().is_none() {
        std::thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
    }
}

fn ends(reins: &Reins<'_>, began: Instant, deleted: u64) -> Option<Stop> {
    if began.elapsed() >= reins.budget.time {
        Some(Stop::BudgetTime)
    } else if deleted >= reins.budget.documents {
        Some(Stop::BudgetDocuments)
    } else {
        None
    }
}

/// Which files stay for what else is there; nothing is looked at where the age alone counts.
fn rank(policy: &FilePolicy, root: &Root, times: Times) -> Result<Decision, Errno> {
    if !policy.is_ranked() {
        return Ok(Decision::default());
    }
    let mut ranks = Ranks::default();
    root.walk(|found| {
        if let Found::File { path, stat, .. } = found
            && matches(policy, path)
        {
            let folder = path.parent().unwrap_or(Path::new("")).as_os_str().as_encoded_bytes();
            ranks.note(policy, folder, &file_of(stat), times);
        }
        ControlFlow::Continue(())
    })?;
    Ok(ranks.decide(policy))
}

fn count(policy: &FilePolicy, root: &Root, times: Times, decision: &Decision, counts: &mut Counts) -> Result<(), Errno> {
    counts.is_full = decision.is_full;
    let mut openers = Openers::of(root.device);
    root.walk(|found| {
        match found {
            Found::File { path, stat, .. } if matches(policy, path) => {
                let mut file = file_of(stat);
                counts.total += 1;
                let stays = file.stays(policy, times).or_else(|| decision.stays(policy, &file)).or_else(|| {
                    file.is_open = openers.hold(file.identity.device, file.identity.inode);
                    file.stays(policy, times)
                });
                match stays {
                    Some(stays) => counts.kept.count(stays),
                    None => {
                        counts.going += 1;
                        counts.bytes += if file.links == 1 { file.identity.size } else { 0 };
                        let modified = i64::try_from(file.identity.modified / 1_000_000).unwrap_or(times.cutoff);
                        counts.oldest = Some(counts.oldest.map_or(modified, |oldest| oldest.min(modified)));
                    }
                }
            }
            Found::File { .. } => {}
            Found::Other => counts.kept.not_files += 1,
            Found::Unreadable => counts.unreadable += 1,
            Found::Left { stat, is_empty, .. } => {
                counts.empty_folders += u64::from(policy.empty_folders && is_empty && is_old(stat, times));
            }
        }
        ControlFlow::Continue(())
    })?;
    counts.unseen_processes = openers.unseen;
    Ok(())
}

fn matches(policy: &FilePolicy, path: &Path) -> bool {
    let is_nfs = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(OPEN_ON_NFS));
    !is_nfs && policy.matcher.is_match(path)
}

fn is_old(stat: &Stat, times: Times) -> bool {
    let modified = i64::try_from(identity_of(stat).modified / 1_000_000).unwrap_or(i64::MAX);
    modified < times.cutoff
}

#[expect(clippy::useless_conversion, reason = "the number of links is of another width on other systems")]
fn file_of(stat: &Stat) -> File {
    File { identity: identity_of(stat), links: u64::try_from(stat.st_nlink).unwrap_or(1), is_open: false }
}
