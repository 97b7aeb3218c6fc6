//! The metrics of health: counters that are kept as things happen, and gauges that are read from the board at each
//! scrape, so that a stale verdict is never exposed as a fresh one.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::clock::Now;
use crate::config::health::LOCAL_NETWORK;
use crate::health::aggregate::{CheckView, Snapshot, State};
use crate::health::board::Board;
use crate::health::outcome::{Outcome, Reason};
use crate::health::schedule::Permits;

/// From a fast local answer to the longest timeout that makes sense.
const BUCKETS: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// The value of `bellwether_check_results_total{reason}` for a pass.
const PASS: &str = "none";

type CheckLabel = [(&'static str, String); 1];
type ResultLabels = [(&'static str, String); 2];

/// What is counted as it happens.
#[derive(Clone, Debug)]
pub struct Metrics {
    results: Family<ResultLabels, Counter>,
    transitions: Family<CheckLabel, Counter>,
    duration: Family<CheckLabel, Histogram>,
}

/// The series of one check. Its loop keeps them, so that a look is counted without being looked up, and so that the last
/// look of a loop that was ended brings back nothing that has been withdrawn.
#[derive(Clone, Debug)]
pub struct CheckMetrics {
    passes: Counter,
    /// In the order of [`Reason::ALL`].
    failures: Vec<Counter>,
    transitions: Counter,
    duration: Histogram,
}

/// What is read from the board at each scrape.
#[derive(Debug)]
struct BoardCollector {
    board: Arc<Board>,
    permits: Permits,
}

// === impl Metrics ===

impl Metrics {
    /// Makes and registers the metrics of a board; every check and reason is exposed from the start.
    pub fn register(board: &Arc<Board>, permits: &Permits, registry: &mut Registry) -> Self {
        let metrics = Self {
            results: Family::default(),
            transitions: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        };
        for watched in board.watched() {
            metrics.expose(&watched.check.name);
        }
        registry.register(
            "bellwether_check_results",
            "Looks at a check by the reason of their failure, none for a pass",
            metrics.results.clone(),
        );
        registry.register("bellwether_check_transitions", "Changes of the verdict on a check", metrics.transitions.clone());
        registry.register("bellwether_check_duration_seconds", "Duration of looks at a check", metrics.duration.clone());
        registry.register_collector(Box::new(BoardCollector { board: Arc::clone(board), permits: permits.clone() }));
        metrics
    }

    /// Exposes everything of a check, as zero where nothing has happened yet.
    pub fn expose(&self, check: &str) -> CheckMetrics {
        let result = |reason| self.results.get_or_create_owned(&labels(check, reason));
        CheckMetrics {
            passes: result(PASS),
            failures: Reason::ALL.into_iter().map(|reason| result(reason.code())).collect(),
            transitions: self.transitions.get_or_create_owned(&[("check", check.to_owned())]),
            duration: self.duration.get_or_create_owned(&[("check", check.to_owned())]),
        }
    }

    /// Withdraws a check that a new configuration does not have.
    pub fn forget(&self, check: &str) {
        self.transitions.remove(&[("check", check.to_owned())]);
        self.duration.remove(&[("check", check.to_owned())]);
        for reason in Reason::ALL.into_iter().map(Reason::code).chain([PASS]) {
            self.results.remove(&labels(check, reason));
        }
    }
}

// === impl CheckMetrics ===

impl CheckMetrics {
    /// Counts a look that broke.
    pub fn broke(&self) {
        self.count(Some(Reason::Panic));
    }

    /// Counts a look.
    pub fn looked(&self, outcome: &Outcome) {
        self.count(outcome.failure);
        self.duration.observe(outcome.duration.as_secs_f64());
    }

    /// Counts a change of the verdict.
    pub fn changed(&self) {
        self.transitions.inc();
    }

    fn count(&self, failure: Option<Reason>) {
        match failure {
            None => self.passes.inc(),
            Some(reason) => self.failures[reason as usize].inc(),
        };
    }
}

fn labels(check: &str, reason: &str) -> ResultLabels {
    [("check", check.to_owned()), ("reason", reason.to_owned())]
}

// === impl BoardCollector ===

impl Collector for BoardCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let snapshot = self.board.snapshot(Now::read());
        let flag = |value: bool| f64::from(u8::from(value));
        let mut per_check = |name: &str, help: &str, value: &dyn Fn(&CheckView) -> Option<f64>| -> std::fmt::Result {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for check in &snapshot.checks {
                if let Some(value) = value(check) {
                    ConstGauge::new(value).encode(metric.encode_family(&[("check", check.name.as_str())])?)?;
                }
            }
            Ok(())
        };
        per_check("bellwether_check_up", "Whether a check passes, after hysteresis; degraded counts as passing.", &|check| {
            Some(flag(check.passes()))
        })?;
        per_check("bellwether_check_raw_success", "Whether the last look at a check passed.", &|check| {
            check.last.as_ref().map(|last| flag(last.failure.is_none()))
        })?;
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since the epoch are below 2^53")]
        per_check("bellwether_check_last_run_timestamp_seconds", "When the last look at a check ended.", &|check| {
            check.last.as_ref().map(|last| last.at.as_millisecond() as f64 / 1000.0)
        })?;
        #[expect(clippy::cast_precision_loss, reason = "seconds since the epoch are below 2^53")]
        per_check(
            "bellwether_check_tls_cert_expiry_timestamp_seconds",
            "Until when the certificate of a check is valid, as it was last seen.",
            &|check| check.last.as_ref().and_then(|last| last.certificate_end).map(|end| end.as_second() as f64),
        )?;
        write_root_causes(&mut encoder, &snapshot)?;
        write_states(&mut encoder, &snapshot)?;
        write_groups(&mut encoder, &snapshot)?;
        write_looks(&mut encoder, &self.permits)
    }
}

/// What alerts are made of: a check in maintenance is not named, although `/health` does name it.
fn write_root_causes(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> std::fmt::Result {
    let help = "Whether a check fails, no other check explains it, and it is not in maintenance; local_network: all that is \
                beyond this machine is out of reach at once.";
    let mut metric = encoder.encode_descriptor("bellwether_check_root_cause", help, None, MetricType::Gauge)?;
    let causes = snapshot.checks.iter().map(|check| (check.name.as_str(), check.is_root_cause && check.maintenance.is_none()));
    for (name, is_cause) in causes.chain([(LOCAL_NETWORK, snapshot.local_network)]) {
        ConstGauge::new(f64::from(u8::from(is_cause))).encode(metric.encode_family(&[("check", name)])?)?;
    }
    Ok(())
}

fn write_looks(encoder: &mut DescriptorEncoder<'_>, permits: &Permits) -> std::fmt::Result {
    let help = "Looks at checks that are under way: asking, or only waiting for an answer.";
    let mut metric = encoder.encode_descriptor("bellwether_check_looks", help, None, MetricType::Gauge)?;
    for (phase, looks) in [("asking", permits.asking()), ("waiting", permits.lingering())] {
        let looks = i64::try_from(looks).unwrap_or(i64::MAX);
        ConstGauge::new(looks).encode(metric.encode_family(&[("phase", phase)])?)?;
    }
    let help = "Looks that had to wait because as many as may ask at once were asking";
    let waits = ConstCounter::new(permits.waits() as u64);
    waits.encode(encoder.encode_descriptor("bellwether_check_queued", help, None, MetricType::Counter)?)
}

fn write_states(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> std::fmt::Result {
    let help = "The state of a check: 1 for the one it is in. Maintenance: failures are expected. Suppressed: down because of another.";
    let mut metric = encoder.encode_descriptor("bellwether_check_state", help, None, MetricType::Gauge)?;
    for check in &snapshot.checks {
        for state in State::ALL {
            let labels = [("check", check.name.as_str()), ("state", state.code())];
            ConstGauge::new(i64::from(check.state == state)).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn write_groups(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> std::fmt::Result {
    let help = "Whether all checks of a group pass; the group `readiness` is what /readyz answers.";
    let mut metric = encoder.encode_descriptor("bellwether_ready", help, None, MetricType::Gauge)?;
    for group in &snapshot.groups {
        ConstGauge::new(i64::from(group.ready)).encode(metric.encode_family(&[("group", group.name.as_str())])?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::health::Health;

    /// The loop of a check that a reload has removed may be in the middle of its last look.
    #[test]
    fn a_late_look_brings_back_nothing_that_was_withdrawn() {
        let mut registry = Registry::default();
        let board = Arc::new(Board::new(&Health::default(), Now::read()));
        let metrics = Metrics::register(&board, &Permits::default(), &mut registry);
        let gone = metrics.expose("gone");
        gone.looked(&Outcome::fail(Reason::Timeout, Duration::ZERO));
        let write = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        assert!(write().contains("bellwether_check_results_total{check=\"gone\",reason=\"timeout\"} 1"), "{}", write());
        metrics.forget("gone");
        gone.looked(&Outcome::pass(Duration::ZERO));
        gone.changed();
        assert!(!write().contains("gone"), "{}", write());
    }
}
