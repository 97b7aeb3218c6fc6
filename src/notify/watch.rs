//! Reads our own metrics every half a minute, evaluates the rules, and hands on what fires.
//!
//! Owns the beat and the state on disk. Knows nothing of who is told.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Now;
use crate::metrics::Registry;
use crate::notify::alert::Alert;
use crate::notify::evaluate::Moment;
use crate::notify::evaluator::{Evaluator, State};
use crate::notify::exposition::samples;
use crate::promql::Labels;
use crate::runtime::latch::Latch;
use crate::runtime::supervise::PartResult;
use crate::series::snapshot::Snapshots;
use crate::shipped::compiled::RuleError;
use crate::shipped::rules::RuleFile;

/// How often the rules are asked. Prometheus' default is a minute; the shortest `for` of ours is one, too.
pub const EVERY: Duration = Duration::from_secs(30);
/// The past is written so often, and at the stop.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// What Prometheus adds to what it scrapes.
const JOB: &str = "bellwether";

/// What is exposed of the evaluation.
#[derive(Clone, Debug, Default)]
pub struct WatchMetrics {
    firing: Gauge,
    evaluations: Counter,
    failures: Counter,
    seconds: Gauge<f64, AtomicU64>,
    series: Gauge,
}

/// What is done with the rules.
#[derive(Debug)]
pub struct AlertWatch {
    evaluator: Evaluator,
    snapshots: Option<Snapshots>,
    instance: String,
    metrics: WatchMetrics,
    every: Duration,
    /// The beginning of our clock, which does not jump.
    origin: Instant,
}

/// What stands on disk.
#[derive(Deserialize, Serialize)]
struct Memory {
    at: Timestamp,
    state: State,
}

// === impl WatchMetrics ===

impl WatchMetrics {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("bellwether_notify_alerts_firing", "Alerts of our own rules that fire", self.firing.clone());
        registry.register("bellwether_notify_evaluations", "Rounds in which all alert rules were asked", self.evaluations.clone());
        let help = "Alert rules that had no answer in a round, because their series did not fit together";
        registry.register("bellwether_notify_evaluation_failures", help, self.failures.clone());
        let help = "How long the last round took that asked all alert rules";
        registry.register("bellwether_notify_evaluation_duration_seconds", help, self.seconds.clone());
        registry.register("bellwether_notify_series", "Series whose past is kept for alert rules", self.series.clone());
    }
}

// === impl AlertWatch ===

impl AlertWatch {
    /// Compiles the rules and goes on where the process before stopped. `instance` is the label that tells us from others.
    ///
    /// # Errors
    /// Rules that cannot be used.
    pub fn new(
        rules: &RuleFile,
        state_dir: Option<&Path>,
        instance: String,
        every: Duration,
        metrics: WatchMetrics,
    ) -> Result<Self, RuleError> {
        let mut evaluator = Evaluator::new(rules)?;
        let origin = Instant::now();
        let snapshots = state_dir.map(|folder| {
            let (snapshots, found) = Snapshots::open(folder, "alerts", |bytes| postcard::from_bytes::<Memory>(bytes).ok());
            for (path, damage) in &found.damaged {
                tracing::warn!(path = %path.display(), %damage, "the state of alerts cannot be used; the one before it counts, if there is one");
            }
            if let Some(Memory { at, state }) = found.state {
                let away = Now::read().wall.duration_since(at);
                evaluator.restore(state, 0, Duration::try_from(away).unwrap_or_default());
            }
            snapshots
        });
        Ok(Self { evaluator, snapshots, instance, metrics, every, origin })
    }

    /// What fires as far as is known before the first round: the alerts of the process before.
    #[must_use]
    pub fn alerts(&self) -> Vec<Alert> {
        self.evaluator.alerts()
    }

    /// Asks the rules until `stop`, once counters are what they were before the last restart.
    ///
    /// # Errors
    /// Never.
    pub async fn run(
        mut self,
        registry: Arc<Registry>,
        caught_up: Latch,
        to: watch::Sender<Arc<Vec<Alert>>>,
        stop: CancellationToken,
    ) -> PartResult {
        let mut saved = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(self.every) => {}
            }
            if !caught_up.is_set() {
                continue;
            }
            if self.round(&registry) {
                // Nobody may be left to be told.
                drop(to.send(Arc::new(self.alerts())));
            }
            if saved.elapsed() >= SAVE_EVERY {
                saved = Instant::now();
                self = self.saved().await?;
            }
        }
        self.saved().await?;
        Ok(())
    }

    /// One round. Whether our metrics could be read.
    fn round(&mut self, registry: &Registry) -> bool {
        let begin = Instant::now();
        let Ok(text) = registry.open_metrics() else {
            self.metrics.failures.inc();
            return false;
        };
        let (at, now) = (self.at(begin), Now::read());
        self.take(&text, at);
        let moment = Moment { at, seconds: now.wall.as_duration().as_secs_f64() };
        let failures = self.evaluator.evaluate(moment, now.wall);
        self.metrics.failures.inc_by(failures as u64);
        self.metrics.evaluations.inc();
        let firing = self.evaluator.alerts().iter().filter(|alert| alert.is_firing()).count();
        self.metrics.firing.set(i64::try_from(firing).unwrap_or(i64::MAX));
        self.metrics.series.set(i64::try_from(self.evaluator.samples().series()).unwrap_or(i64::MAX));
        self.metrics.seconds.set(begin.elapsed().as_secs_f64());
        true
    }

    /// Milliseconds on our clock.
    fn at(&self, instant: Instant) -> i64 {
        i64::try_from(instant.saturating_duration_since(self.origin).as_millis()).unwrap_or(i64::MAX)
    }

    fn take(&mut self, text: &str, at: i64) {
        let target = [("instance", self.instance.as_str()), ("job", JOB)].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let names: Vec<String> = self.evaluator.scraped().map(str::to_owned).collect();
        let past = self.evaluator.samples_mut();
        let mut found: HashMap<&str, Vec<(Labels, f64)>> = HashMap::new();
        for (name, mut labels, value) in samples(text, |name| past.wants(name)) {
            labels.extend(target.clone());
            found.entry(name).or_default().push((labels, value));
        }
        found.entry("up").or_default().push((Labels::from(target), 1.0));
        for name in names {
            let values = found.remove(name.as_str()).unwrap_or_default();
            past.note(&name, at, values);
        }
    }

    async fn saved(mut self) -> Result<Self, tokio::task::JoinError> {
        tokio::task::spawn_blocking(move || {
            let memory = Memory { at: Now::read().wall, state: self.evaluator.save(self.at(Instant::now())) };
            let written = postcard::to_stdvec(&memory).map(|bytes| self.snapshots.as_mut().map(|snapshots| snapshots.write(&bytes)));
            if let Ok(Some(Err(error))) = written {
                tracing::warn!(%error, "the state of alerts cannot be written: after a restart they may be told again");
            }
            self
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::metrics::registry;

    const RULES: &str = "
groups:
  - name: g
    rules:
      - { alert: Down, expr: 'down == 1', for: 60ms, labels: { severity: critical } }
      - { record: sum_of_down, expr: 'sum(down)' }
      - { alert: Recorded, expr: 'sum_of_down > 0' }
      - { alert: Gone, expr: 'absent(down)' }
";

    fn watch(folder: &Path, metrics: WatchMetrics) -> AlertWatch {
        let rules: RuleFile = serde_saphyr::from_str(RULES).unwrap();
        AlertWatch::new(&rules, Some(folder), "host:9600".to_owned(), Duration::from_millis(20), metrics).unwrap()
    }

    fn named(alerts: &[Alert]) -> BTreeMap<String, bool> {
        alerts.iter().map(|alert| (alert.name().to_owned(), alert.is_firing())).collect()
    }

    #[tokio::test]
    async fn our_own_series_fire_alerts_and_a_restart_goes_on_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut registry = registry();
        let (metrics, down) = (WatchMetrics::default(), Gauge::<i64>::default());
        metrics.register(&mut registry);
        registry.register("down", "Whether it is down", down.clone());
        let registry = Arc::new(registry);
        let caught_up = Latch::default();
        let mut before = Vec::new();
        for life in 0..2 {
            let watch = watch(folder.path(), metrics.clone());
            assert_eq!(watch.alerts(), before, "what fired before the restart fires");
            let (sender, mut alerts) = tokio::sync::watch::channel(Arc::new(watch.alerts()));
            let stop = CancellationToken::new();
            #[expect(clippy::disallowed_methods, reason = "the test ends it")]
            let task = tokio::spawn(watch.run(Arc::clone(&registry), caught_up.clone(), sender, stop.clone()));
            if life == 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                assert!(!alerts.has_changed().unwrap(), "nothing is asked before the counters are what they were");
                caught_up.set();
                down.set(1);
                alerts.wait_for(|alerts| named(alerts).get("Down") == Some(&true)).await.unwrap();
                assert_eq!(named(&alerts.borrow()), BTreeMap::from([("Down".to_owned(), true), ("Recorded".to_owned(), true)]));
                assert_eq!(alerts.borrow()[0].labels["instance"], "host:9600");
            } else {
                down.set(0);
                alerts.wait_for(|alerts| named(alerts).get("Down") == Some(&false)).await.unwrap();
                assert_eq!(named(&alerts.borrow()), BTreeMap::from([("Down".to_owned(), false), ("Recorded".to_owned(), false)]));
                assert_eq!(alerts.borrow()[0].starts_at, before[0].starts_at);
            }
            stop.cancel();
            task.await.unwrap().unwrap();
            before.clone_from(&alerts.borrow());
        }
        assert!(metrics.evaluations.get() > 2 && metrics.failures.get() == 0);
        assert_eq!(metrics.firing.get(), 0);
    }
}
