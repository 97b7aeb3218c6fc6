//! Looks at all backups every few minutes, beside everything else, and says when something changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::backup::metrics::BackupMetrics;
use crate::backup::{Checker, Pace, Problem, Report};
use crate::clock::Now;
use crate::config::backups::{Backup, Protected};
use crate::runtime::supervise::PartResult;

/// Backups are made once a day, and one that has not changed is not read again.
const EVERY: Duration = Duration::from_secs(300);
/// Reads so many bytes a second: a tenth of what a slow disk can.
const PACE: u64 = 16 << 20;

/// Watches backups.
#[derive(Debug)]
pub struct BackupWatch {
    backups: Vec<Backup>,
    metrics: BackupMetrics,
    checker: Checker,
    known: BTreeMap<String, Vec<Problem>>,
    protected: Vec<Protected>,
    /// What each of the newest backups holds, where it tells.
    holds: BTreeMap<String, Vec<String>>,
}

// === impl BackupWatch ===

impl BackupWatch {
    /// Registers what is expected; nothing is read yet.
    #[must_use]
    pub fn new(backups: &[Backup], protected: &[Protected], registry: &mut Registry) -> Self {
        let metrics = BackupMetrics::default();
        if !backups.is_empty() {
            metrics.register(registry);
            metrics.cover(protected, &BTreeSet::new());
        }
        backups.iter().for_each(|backup| metrics.expect(backup));
        Self {
            backups: backups.to_vec(),
            metrics,
            checker: Checker::default(),
            known: BTreeMap::new(),
            protected: protected.to_vec(),
            holds: BTreeMap::new(),
        }
    }

    /// Looks until `stop`.
    ///
    /// # Errors
    /// None: a folder that is away is a finding.
    pub async fn run(mut self, stop: CancellationToken) -> PartResult {
        let pace = Pace { bytes_per_second: Some(PACE), ..Pace::default() };
        for backup in self.backups.clone().iter().cycle() {
            let (backup, now, on) = (backup.clone(), Now::read().wall, pace.clone());
            let mut checker = std::mem::take(&mut self.checker);
            let mut looked = tokio::task::spawn_blocking(move || {
                let report = checker.look(&backup, now, &on);
                (checker, report)
            });
            let done = tokio::select! {
                done = &mut looked => done,
                () = stop.cancelled() => {
                    // Reading stops within a moment; what it found so far says nothing.
                    pace.stop.store(true, Ordering::Relaxed);
                    let _ = looked.await;
                    return Ok(());
                }
            };
            let (checker, report) = done?;
            self.checker = checker;
            self.metrics.show(&report);
            self.holds.insert(report.backup.clone(), report.holds.clone());
            // Before all have been looked at, one that holds it may be to come.
            if self.holds.len() == self.backups.len() {
                self.metrics.cover(&self.protected, &self.holds.values().flatten().cloned().collect());
            }
            self.tell(&report);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(self.pause()) => {}
            }
        }
        stop.cancelled().await;
        Ok(())
    }

    /// All are looked at at once in the first round, and then one after the other.
    fn pause(&self) -> Duration {
        let all = u32::try_from(self.backups.len()).unwrap_or(1).max(1);
        if self.known.len() < self.backups.len() { Duration::ZERO } else { EVERY / all }
    }

    /// Says what is wrong when it begins, and when it is over.
    fn tell(&mut self, report: &Report) {
        let problems: Vec<Problem> = report.problems.iter().map(|(problem, _)| *problem).collect();
        let before = self.known.insert(report.backup.clone(), problems.clone()).unwrap_or_default();
        if problems == before {
            return;
        }
        for (problem, message) in report.problems.iter().filter(|(problem, _)| !before.contains(problem)) {
            let path = report.newest.as_ref().map(|newest| newest.path.display().to_string()).unwrap_or_default();
            tracing::warn!(backup = report.backup, reason = problem.name(), path, "a backup is not good: {message}");
        }
        if problems.is_empty() {
            tracing::info!(backup = report.backup, "the backup is good again");
        }
    }
}
