//! What Prometheus learns about policies.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::config::retention::Mode;
use crate::retention::guard::{Guard, Verdict};
use crate::retention::outcome::{Kind, Outcome, Skip, Stop, Tally};
use crate::retention::plan::Plan;

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfPolicy {
    policy: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfKind {
    policy: String,
    kind: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfSkip {
    policy: String,
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfStop {
    policy: String,
    stop: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfGuard {
    policy: String,
    guard: String,
}

type Counts = Family<OfPolicy, Counter>;
type Values = Family<OfPolicy, Gauge<f64, AtomicU64>>;
type Numbers = Family<OfPolicy, Gauge>;

/// What policies would do, and what runs have done.
#[derive(Clone, Debug, Default)]
pub struct RetentionMetrics {
    matched: Numbers,
    oldest_eligible_age: Values,
    dry_run: Numbers,
    running: Numbers,
    last_success: Values,
    last_failure: Values,
    due: Family<OfKind, Gauge<f64, AtomicU64>>,
    archived: Counts,
    archived_bytes: Counts,
    deleted: Counts,
    children_deleted: Counts,
    verify_failures: Counts,
    busy_seconds: Family<OfPolicy, Counter<f64, AtomicU64>>,
    batches: Counts,
    skipped: Family<OfSkip, Counter>,
    runs: Family<OfStop, Counter>,
    guard_blocked: Family<OfGuard, Gauge>,
    paused: Gauge,
}

// === impl RetentionMetrics ===

impl RetentionMetrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        let name = |name: &str| format!("bellwether_retention_{name}");
        registry.register(
            name("matched_documents"),
            "Documents, rows or files that the last plan of a policy would delete; 0 once a run has done all of it",
            self.matched.clone(),
        );
        registry.register(
            name("oldest_eligible_age_seconds"),
            "How far beyond its cutoff the oldest was that the last plan would delete; 0 where there is none, or a run has done all of it",
            self.oldest_eligible_age.clone(),
        );
        registry.register(name("dry_run"), "Whether a policy only plans", self.dry_run.clone());
        registry.register(name("running"), "Whether a run of a policy goes on in this process", self.running.clone());
        registry.register(
            name("last_success_timestamp_seconds"),
            "When a run of a policy last ended as it should, by this process; 0 where none has",
            self.last_success.clone(),
        );
        registry.register(
            name("last_failure_timestamp_seconds"),
            "When a run of a policy last failed or was stopped by a guard, in this process; 0 where none has",
            self.last_failure.clone(),
        );
        registry.register(
            name("due_timestamp_seconds"),
            "The start of the schedule that comes next, or that is past and has not been made; absent without a schedule. Of documents any sidecar makes it, of rows and files each its own",
            self.due.clone(),
        );
        registry.register(
            name("archived_documents"),
            "Documents or rows that were archived, read back and compared",
            self.archived.clone(),
        );
        registry.register(name("archived_bytes"), "Bytes that were archived, before compression", self.archived_bytes.clone());
        registry.register(name("deleted_documents"), "Documents, rows or files that were deleted", self.deleted.clone());
        registry.register(
            name("deleted_children"),
            "Documents that were deleted with those that they referred to",
            self.children_deleted.clone(),
        );
        registry.register(
            name("archive_failures"),
            "Archives that could not be written, or were not what was written",
            self.verify_failures.clone(),
        );
        registry.register(name("busy_seconds"), "Time that batches took, without the rests between them", self.busy_seconds.clone());
        registry.register(name("batches"), "Batches that were carried out", self.batches.clone());
        registry.register(
            name("skipped_documents"),
            "Documents, rows or files that were planned and not deleted, by the reason",
            self.skipped.clone(),
        );
        registry.register(name("runs"), "Runs that have ended, by why", self.runs.clone());
        registry.register(name("guard_blocked"), "Whether a guard stopped the last plan", self.guard_blocked.clone());
        registry.register(name("paused"), "Whether retention is paused for every process", self.paused.clone());
    }

    /// Makes a series of everything that there may be of a policy, from the start.
    pub fn expect(&self, policy: &str, mode: Mode, kind: Kind) {
        let of = OfPolicy { policy: policy.to_owned() };
        self.dry_run.get_or_create_owned(&of).set(i64::from(mode == Mode::Plan));
        self.running.get_or_create_owned(&of).set(0);
        self.last_success.get_or_create_owned(&of).set(0.0);
        self.last_failure.get_or_create_owned(&of).set(0.0);
        let (mut counters, mut guards) = (vec![&self.deleted], Guard::FILES.as_slice());
        if kind != Kind::Files {
            counters.extend([&self.archived, &self.archived_bytes, &self.verify_failures]);
            guards = &Guard::TABLES;
        }
        if kind == Kind::Documents {
            counters.extend([&self.children_deleted, &self.batches]);
            guards = &Guard::DOCUMENTS;
            drop(self.busy_seconds.get_or_create_owned(&of));
        }
        counters.iter().for_each(|counter| drop(counter.get_or_create_owned(&of)));
        for skip in Skip::of_kind(kind) {
            drop(self.skipped.get_or_create_owned(&OfSkip { policy: policy.to_owned(), reason: skip.word() }));
        }
        for stop in Stop::of_kind(kind) {
            drop(self.runs.get_or_create_owned(&OfStop { policy: policy.to_owned(), stop: stop.word() }));
        }
        for guard in guards {
            self.guard_blocked.get_or_create_owned(&OfGuard { policy: policy.to_owned(), guard: guard.to_string() }).set(0);
        }
    }

    /// Tells what a plan found.
    pub(super) fn planned(&self, plan: &Plan) {
        self.found(&plan.policy, plan.would_delete, plan.cutoff, plan.oldest, &plan.guards);
    }

    /// Tells what a plan of any kind found.
    pub(super) fn found(&self, policy: &str, going: u64, cutoff: Timestamp, oldest: Option<Timestamp>, guards: &[Verdict]) {
        let of = OfPolicy { policy: policy.to_owned() };
        self.matched.get_or_create_owned(&of).set(i64::try_from(going).unwrap_or(i64::MAX));
        let beyond = oldest.map_or(0, |oldest| cutoff.as_millisecond().saturating_sub(oldest.as_millisecond()).max(0));
        let beyond = if going == 0 { 0 } else { beyond };
        self.oldest_eligible_age
            .get_or_create_owned(&of)
            .set(Duration::from_millis(u64::try_from(beyond).unwrap_or_default()).as_secs_f64());
        for verdict in guards {
            let of = OfGuard { policy: policy.to_owned(), guard: verdict.guard.to_string() };
            self.guard_blocked.get_or_create_owned(&of).set(i64::from(!verdict.passes));
        }
    }

    /// Tells that a run begins or has ended.
    pub(super) fn running(&self, policy: &str, is_running: bool) {
        self.running.get_or_create_owned(&OfPolicy { policy: policy.to_owned() }).set(i64::from(is_running));
    }

    /// Tells what a batch did: what a run had done before it, and after it.
    pub(super) fn batch(&self, policy: &str, before: &Tally, after: &Tally, took: Duration) {
        let of = OfPolicy { policy: policy.to_owned() };
        self.archived.get_or_create_owned(&of).inc_by(after.archived - before.archived);
        self.archived_bytes.get_or_create_owned(&of).inc_by(after.bytes - before.bytes);
        self.deleted.get_or_create_owned(&of).inc_by(after.deleted - before.deleted);
        self.children_deleted.get_or_create_owned(&of).inc_by(after.children - before.children);
        self.batches.get_or_create_owned(&of).inc();
        self.busy_seconds.get_or_create_owned(&of).inc_by(took.as_secs_f64());
        for (skip, documents) in &after.skipped {
            let new = documents - before.skipped.get(skip).copied().unwrap_or_default();
            self.skipped.get_or_create_owned(&OfSkip { policy: policy.to_owned(), reason: skip.word() }).inc_by(new);
        }
    }

    /// Tells how a run ended.
    pub(super) fn ended(&self, outcome: &Outcome) {
        self.finished(&outcome.policy, outcome.stop, outcome.ended);
    }

    /// Tells how a run of any kind ended.
    pub(super) fn finished(&self, policy: &str, stop: Stop, ended: Timestamp) {
        let of = OfPolicy { policy: policy.to_owned() };
        self.runs.get_or_create_owned(&OfStop { policy: policy.to_owned(), stop: stop.word() }).inc();
        if stop.is_success() {
            self.last_success.get_or_create_owned(&of).set(seconds(ended));
        } else if stop.is_failure() {
            self.last_failure.get_or_create_owned(&of).set(seconds(ended));
        }
        if stop == Stop::Done {
            // Else what is gone would be told of until the next plan, and a weekly policy would look far behind.
            self.matched.get_or_create_owned(&of).set(0);
            self.oldest_eligible_age.get_or_create_owned(&of).set(0.0);
        }
        if stop == Stop::Archive {
            self.verify_failures.get_or_create_owned(&of).inc();
        }
    }

    /// Tells what a run of rows or files has done since it was last asked.
    pub(super) fn progressed(&self, policy: &str, kind: Kind, before: &Tally, after: &Tally) {
        let of = OfPolicy { policy: policy.to_owned() };
        self.deleted.get_or_create_owned(&of).inc_by(after.deleted.saturating_sub(before.deleted));
        if kind == Kind::Rows {
            self.archived.get_or_create_owned(&of).inc_by(after.archived.saturating_sub(before.archived));
            self.archived_bytes.get_or_create_owned(&of).inc_by(after.bytes.saturating_sub(before.bytes));
        }
        for (skip, number) in &after.skipped {
            let new = number.saturating_sub(before.skipped.get(skip).copied().unwrap_or_default());
            self.skipped.get_or_create_owned(&OfSkip { policy: policy.to_owned(), reason: skip.word() }).inc_by(new);
        }
    }

    /// Forgets what kept policies from running: whoever leads now tells of them.
    pub(super) fn stood_down<'a>(&self, policies: impl IntoIterator<Item = &'a str>) {
        for policy in policies {
            self.last_failure.get_or_create_owned(&OfPolicy { policy: policy.to_owned() }).set(0.0);
            for guard in Guard::DOCUMENTS {
                self.guard_blocked.get_or_create_owned(&OfGuard { policy: policy.to_owned(), guard: guard.to_string() }).set(0);
            }
        }
    }

    /// Tells which guards stopped a run.
    pub(super) fn blocked_by(&self, policy: &str, verdicts: &[Verdict]) {
        for verdict in verdicts {
            let of = OfGuard { policy: policy.to_owned(), guard: verdict.guard.to_string() };
            self.guard_blocked.get_or_create_owned(&of).set(1);
        }
    }

    /// Tells when the next run of a policy is to begin.
    pub(super) fn due(&self, policy: &str, kind: Kind, at: Timestamp) {
        self.due.get_or_create_owned(&OfKind { policy: policy.to_owned(), kind: kind.word() }).set(seconds(at));
    }

    /// Tells whether retention is paused.
    pub(super) fn paused(&self, is_paused: bool) {
        self.paused.set(i64::from(is_paused));
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since the epoch are below 2^53")]
fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}
