//! The metrics of health: counters that are kept as things happen, and gauges that are read from the board at each
//! scrape, so that a stale verdict is never exposed as a fresh one.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::clock::Now;
use crate::health::aggregate::{CheckView, Snapshot, State};
use crate::health::board::Board;
use crate::health::outcome::{Outcome, Reason};

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

/// What is read from the board at each scrape.
#[derive(Debug)]
struct BoardCollector(Arc<Board>);

// === impl Metrics ===

impl Metrics {
    /// Makes and registers the metrics of a board; every check and reason is exposed from the start.
    pub fn register(board: &Arc<Board>, registry: &mut Registry) -> Self {
        let metrics = Self {
            results: Family::default(),
            transitions: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        };
        for check in board.checks() {
            metrics.transitions.get_or_create_owned(&[("check", check.name.clone())]);
            metrics.duration.get_or_create_owned(&[("check", check.name.clone())]);
            for reason in Reason::ALL.into_iter().map(Reason::code).chain([PASS]) {
                metrics.results.get_or_create_owned(&labels(&check.name, reason));
            }
        }
        registry.register(
            "bellwether_check_results",
            "Looks at a check by the reason of their failure, none for a pass",
            metrics.results.clone(),
        );
        registry.register("bellwether_check_transitions", "Changes of the verdict on a check", metrics.transitions.clone());
        registry.register("bellwether_check_duration_seconds", "Duration of looks at a check", metrics.duration.clone());
        registry.register_collector(Box::new(BoardCollector(Arc::clone(board))));
        metrics
    }

    /// Counts a look.
    pub fn looked(&self, check: &str, outcome: &Outcome) {
        let reason = outcome.failure.map_or(PASS, Reason::code);
        self.results.get_or_create_owned(&labels(check, reason)).inc();
        self.duration.get_or_create_owned(&[("check", check.to_owned())]).observe(outcome.duration.as_secs_f64());
    }

    /// Counts a change of the verdict.
    pub fn changed(&self, check: &str) {
        self.transitions.get_or_create_owned(&[("check", check.to_owned())]).inc();
    }
}

fn labels(check: &str, reason: &str) -> ResultLabels {
    [("check", check.to_owned()), ("reason", reason.to_owned())]
}

// === impl BoardCollector ===

impl Collector for BoardCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let snapshot = self.0.snapshot(Now::read());
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
            Some(flag(check.state.passes()))
        })?;
        per_check("bellwether_check_raw_success", "Whether the last look at a check passed.", &|check| {
            check.last.as_ref().map(|last| flag(last.failure.is_none()))
        })?;
        per_check("bellwether_check_root_cause", "Whether a check fails and no other check explains it.", &|check| {
            Some(flag(check.is_root_cause))
        })?;
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since the epoch are below 2^53")]
        per_check("bellwether_check_last_run_timestamp_seconds", "When the last look at a check ended.", &|check| {
            check.last.as_ref().map(|last| last.at.as_millisecond() as f64 / 1000.0)
        })?;
        write_states(&mut encoder, &snapshot)?;
        write_groups(&mut encoder, &snapshot)
    }
}

fn write_states(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> std::fmt::Result {
    let help = "The state of a check: 1 for the one it is in.";
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
