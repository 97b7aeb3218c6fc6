//! What is told of backups as metrics.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::backup::{Problem, Report};
use crate::config::backups::{Backup, Priority, Protected};

type OfBackup = [(&'static str, String); 1];
type OfProblem = [(&'static str, String); 2];
type OfProtected = [(&'static str, String); 2];

/// What is told of backups.
#[derive(Debug, Default)]
pub(super) struct BackupMetrics {
    last_success: Family<OfBackup, Gauge<f64, AtomicU64>>,
    max_age: Family<OfBackup, Gauge<f64, AtomicU64>>,
    size: Family<OfBackup, Gauge>,
    valid: Family<OfBackup, Gauge>,
    problem: Family<OfProblem, Gauge>,
    uncovered: Family<OfProtected, Gauge>,
}

// === impl BackupMetrics ===

impl BackupMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let name = |name: &str| format!("bellwether_backup_{name}");
        registry.register(
            name("last_success_timestamp_seconds"),
            "When the newest backup was written, where nothing but its age may be wrong with it",
            Family::clone(&self.last_success),
        );
        registry.register(name("max_age_seconds"), "How old the newest backup may be", Family::clone(&self.max_age));
        registry.register(name("size_bytes"), "The size of the newest backup", Family::clone(&self.size));
        registry.register(name("valid"), "Whether nothing is wrong with the newest backup", Family::clone(&self.valid));
        registry.register(
            name("uncovered"),
            "Whether a collection that should be backed up is in none of the newest backups that tell what they hold",
            Family::clone(&self.uncovered),
        );
        registry.register(name("problem"), "What is wrong with a backup: 1 for each reason that holds", Family::clone(&self.problem));
    }

    /// Says what is expected before the first look.
    pub(super) fn expect(&self, backup: &Backup) {
        self.max_age.get_or_create_owned(&of(&backup.name)).set(backup.max_age.as_secs_f64());
    }

    /// Says what should be in a backup and is in none of those that tell what they hold.
    pub(super) fn cover(&self, protected: &[Protected], held: &BTreeSet<String>) {
        for one in protected.iter().filter(|one| one.priority != Priority::Low) {
            let labels = [("collection", one.collection.clone()), ("priority", one.priority.name().to_owned())];
            let is_uncovered = !held.is_empty() && !held.contains(&one.collection);
            self.uncovered.get_or_create_owned(&labels).set(i64::from(is_uncovered));
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^53")]
    pub(super) fn show(&self, report: &Report) {
        let labels = of(&report.backup);
        let harmless = [Problem::TooOld, Problem::RestoreUntested];
        let is_whole = report.problems.iter().all(|(problem, _)| harmless.contains(problem));
        match &report.newest {
            Some(newest) => {
                self.size.get_or_create_owned(&labels).set(i64::try_from(newest.size).unwrap_or(i64::MAX));
                if is_whole {
                    self.last_success.get_or_create_owned(&labels).set(newest.modified.as_second() as f64);
                }
            }
            None => {
                self.size.remove(&labels);
            }
        }
        self.valid.get_or_create_owned(&labels).set(i64::from(report.is_good()));
        for problem in Problem::ALL {
            let holds = report.problems.iter().any(|(found, _)| *found == problem);
            let labels = [("backup", report.backup.clone()), ("reason", problem.name().to_owned())];
            self.problem.get_or_create_owned(&labels).set(i64::from(holds));
        }
    }
}

fn of(backup: &str) -> OfBackup {
    [("backup", backup.to_owned())]
}
