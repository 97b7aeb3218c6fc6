//! What the collectors tell of themselves.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::clock::Now;
use crate::store::mongodb::Reason;

/// From a count by metadata to the limit of a read.
const BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0];

type OfCollector = [(&'static str, String); 1];
type OfFailure = [(&'static str, String); 2];

/// What went wrong: a closed set, fit for a label.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Failure {
    /// The database.
    Store(Reason),
    /// What was read could not be written down, and is exposed nevertheless.
    State,
    /// More documents came at once than are remembered, so that late ones may be missed.
    Crowded,
}

/// The metrics of all collectors.
#[derive(Clone, Debug)]
pub(super) struct CollectMetrics {
    success: Family<OfCollector, Gauge>,
    duration: Family<OfCollector, Histogram, fn() -> Histogram>,
    last_success: Family<OfCollector, Gauge<f64, AtomicU64>>,
    errors: Family<OfFailure, Counter>,
}

// === impl CollectMetrics ===

impl CollectMetrics {
    /// Adds them to what is exposed.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let duration: fn() -> Histogram = || Histogram::new(BUCKETS);
        let metrics = Self {
            success: Family::default(),
            duration: Family::new_with_constructor(duration),
            last_success: Family::default(),
            errors: Family::default(),
        };
        let (success, last_success) = (metrics.success.clone(), metrics.last_success.clone());
        registry.register("bellwether_collector_success", "Whether the last read of a collector succeeded", success);
        registry.register("bellwether_collector_duration_seconds", "Duration of the reads of a collector", metrics.duration.clone());
        registry.register("bellwether_collector_last_success_timestamp_seconds", "When a collector last succeeded", last_success);
        registry.register("bellwether_collector_errors", "What went wrong in a collector, by reason", metrics.errors.clone());
        metrics
    }

    /// A collector exists: it has not succeeded yet.
    pub(super) fn announce(&self, collector: &str) {
        self.success.get_or_create_owned(&of(collector)).set(0);
        self.duration.get_or_create_owned(&of(collector));
    }

    /// A collector has read.
    pub(super) fn succeeded(&self, collector: &str, took: Duration) {
        self.success.get_or_create_owned(&of(collector)).set(1);
        self.duration.get_or_create_owned(&of(collector)).observe(took.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below 2^53")]
        let now = Now::read().wall.as_millisecond() as f64 / 1000.0;
        self.last_success.get_or_create_owned(&of(collector)).set(now);
    }

    /// A collector could not read.
    pub(super) fn failed(&self, collector: &str, failure: Failure, took: Duration) {
        self.success.get_or_create_owned(&of(collector)).set(0);
        self.duration.get_or_create_owned(&of(collector)).observe(took.as_secs_f64());
        self.note(collector, failure);
    }

    /// Something went wrong that did not keep a collector from reading.
    pub(super) fn note(&self, collector: &str, failure: Failure) {
        let labels = [("collector", collector.to_owned()), ("reason", failure.label().to_owned())];
        self.errors.get_or_create_owned(&labels).inc();
    }
}

fn of(collector: &str) -> OfCollector {
    [("collector", collector.to_owned())]
}

// === impl Failure ===

impl Failure {
    fn label(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Crowded => "crowded",
            Self::Store(reason) => match reason {
                Reason::Timeout => "timeout",
                Reason::Refused => "refused",
                Reason::Reset => "reset",
                Reason::Dns => "dns",
                Reason::Unreachable => "unreachable",
                Reason::Tls => "tls",
                Reason::Auth => "auth",
                Reason::NotPrimary => "not_primary",
                Reason::NoPrimary => "no_primary",
                Reason::Other => "other",
            },
        }
    }
}
