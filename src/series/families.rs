//! The values: families of series, each with a cap; what goes beyond it is summed in the series `overflow`.
//!
//! Pure data. [`SharedFamilies`] is the one way in which threads share it and Prometheus reads it.

mod delta;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde::{Deserialize, Serialize};

use crate::config::rules::{Metric, MetricKind};
use crate::series::families::delta::{Pending, Touched};

/// The label value of the series that takes what is beyond the cap.
pub const OVERFLOW: &str = "overflow";

/// All families of one owner.
#[derive(Clone, Debug, Default)]
pub struct Families {
    families: Vec<Family>,
    /// What was touched, where this is the delta of other families.
    touched: Option<Touched>,
}

/// A family within its [`Families`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FamilyId(usize);

/// A series within its [`Families`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SeriesId {
    family: usize,
    series: usize,
}

#[derive(Clone, Debug)]
struct Family {
    metric: Metric,
    label_names: Vec<String>,
    series: Vec<Series>,
    index: HashMap<Vec<String>, usize>,
    overflow: Option<usize>,
    overflowed: u64,
}

#[derive(Clone, Debug)]
struct Series {
    labels: Vec<String>,
    value: SeriesValue,
    /// A gauge that nobody has set, or that is known no longer, is not exposed: unknown is not zero.
    known: bool,
    pending: Pending,
}

/// What a series holds.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
enum SeriesValue {
    Single(f64),
    /// How many observations fell into each bucket (not cumulated; the last one is `+Inf`), and their sum.
    Histogram {
        buckets: Vec<u64>,
        sum: f64,
    },
}

/// The values of counters and histograms, to be kept over a restart.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct FamiliesState(Vec<FamilyState>);

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct FamilyState {
    name: String,
    label_names: Vec<String>,
    bounds: Vec<f64>,
    series: Vec<(Vec<String>, SeriesValue)>,
    overflowed: u64,
}

/// A metric was declared twice in different ways.
#[derive(Debug, thiserror::Error)]
#[error("the metric {0} is declared twice with different types, buckets or labels")]
pub struct DeclareError(String);

/// Families that threads share and Prometheus reads.
#[derive(Clone, Default)]
pub struct SharedFamilies(Arc<Mutex<Families>>);

// === impl Families ===

impl Families {
    /// Adds a family, or finds it where it has been added in the same way.
    ///
    /// # Errors
    /// When it has been added in another way.
    pub fn declare(&mut self, metric: &Metric, label_names: &[String]) -> Result<FamilyId, DeclareError> {
        if let Some(position) = self.families.iter().position(|family| family.metric.name == metric.name) {
            let family = &self.families[position];
            let same = family.metric.kind == metric.kind && family.metric.buckets == metric.buckets && family.label_names == label_names;
            return if same { Ok(FamilyId(position)) } else { Err(DeclareError(metric.name.clone())) };
        }
        self.families.push(Family {
            metric: metric.clone(),
            label_names: label_names.to_vec(),
            series: Vec::new(),
            index: HashMap::new(),
            overflow: None,
            overflowed: 0,
        });
        Ok(FamilyId(self.families.len() - 1))
    }

    /// The series with these label values, which is made where it is missing; past the cap, the series `overflow`.
    pub fn series(&mut self, family: FamilyId, labels: &[&str]) -> SeriesId {
        let id = family.0;
        let family = &mut self.families[id];
        // The key is looked up by value: a miss is rare, since callers keep what they found.
        let key: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        if let Some(series) = family.index.get(&key) {
            return SeriesId { family: id, series: *series };
        }
        let series = if family.series.len() < family.metric.series_limit { family.push(key) } else { family.overflow() };
        let found = SeriesId { family: id, series };
        self.touch(found, 0, false);
        found
    }

    /// Adds to a counter or a gauge; a negative amount leaves a counter as it is.
    pub fn add(&mut self, id: SeriesId, amount: f64) {
        self.touch(id, 1, false);
        let family = &mut self.families[id.family];
        family.note_overflow(id.series);
        let is_counter = family.metric.kind == MetricKind::Counter;
        let series = &mut family.series[id.series];
        if let SeriesValue::Single(value) = &mut series.value
            && (amount >= 0.0 || !is_counter)
        {
            *value += amount;
            series.known = true;
        }
    }

    /// Sets a gauge.
    pub fn set(&mut self, id: SeriesId, amount: f64) {
        self.touch(id, 1, true);
        let series = &mut self.families[id.family].series[id.series];
        series.value = SeriesValue::Single(amount);
        series.known = true;
    }

    /// Takes a gauge out of the exposition: its value is known no longer.
    pub fn forget(&mut self, id: SeriesId) {
        self.families[id.family].series[id.series].known = false;
    }

    /// Takes all series of a family out of the exposition.
    pub fn forget_all(&mut self, family: FamilyId) {
        self.families[family.0].series.iter_mut().for_each(|series| series.known = false);
    }

    /// Adds an observation to a histogram.
    pub fn observe(&mut self, id: SeriesId, amount: f64) {
        self.touch(id, 1, false);
        let family = &mut self.families[id.family];
        family.note_overflow(id.series);
        let position = family.metric.buckets.partition_point(|bound| *bound < amount);
        if let SeriesValue::Histogram { buckets, sum } = &mut family.series[id.series].value {
            buckets[position] += 1;
            *sum += amount;
        }
    }

    /// The value of a counter or gauge, the count of a histogram. `None` where there is no such series.
    #[must_use]
    pub fn value(&self, metric: &str, labels: &[&str]) -> Option<f64> {
        let family = self.families.iter().find(|family| family.metric.name == metric)?;
        let series = family.series.iter().find(|series| series.known && series.labels.iter().eq(labels.iter()))?;
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        Some(match &series.value {
            SeriesValue::Single(value) => *value,
            SeriesValue::Histogram { buckets, .. } => buckets.iter().sum::<u64>() as f64,
        })
    }

    /// What is to be kept over a restart: counters, histograms, and the gauges that are known.
    #[must_use]
    pub fn state(&self) -> FamiliesState {
        FamiliesState(self.families.iter().map(Family::state).collect())
    }

    /// Takes values of an earlier run over. Returns the names of the metrics whose values could not be, because
    /// they are declared in another way now.
    pub fn restore(&mut self, state: FamiliesState) -> Vec<String> {
        let mut lost = Vec::new();
        for kept in state.0 {
            let found = self.families.iter_mut().find(|family| family.metric.name == kept.name);
            match found {
                Some(family) if family.label_names == kept.label_names && family.metric.buckets == kept.bounds => family.restore(kept),
                Some(_) => lost.push(kept.name),
                // The rule is gone, and its metric with it.
                None => {}
            }
        }
        lost
    }
}

// === impl Family ===

impl Family {
    fn push(&mut self, labels: Vec<String>) -> usize {
        let value = match self.metric.kind {
            MetricKind::Histogram => SeriesValue::Histogram { buckets: vec![0; self.metric.buckets.len() + 1], sum: 0.0 },
            MetricKind::Counter | MetricKind::Gauge => SeriesValue::Single(0.0),
        };
        self.series.push(Series {
            labels: labels.clone(),
            value,
            known: self.metric.kind != MetricKind::Gauge,
            pending: Pending::default(),
        });
        self.index.insert(labels, self.series.len() - 1);
        self.series.len() - 1
    }

    fn overflow(&mut self) -> usize {
        if let Some(series) = self.overflow {
            return series;
        }
        let series = self.push(vec![OVERFLOW.to_owned(); self.label_names.len()]);
        self.overflow = Some(series);
        series
    }

    fn note_overflow(&mut self, series: usize) {
        if self.overflow == Some(series) {
            self.overflowed += 1;
        }
    }

    fn state(&self) -> FamilyState {
        let kept = self.series.iter().filter(|series| series.known);
        FamilyState {
            name: self.metric.name.clone(),
            label_names: self.label_names.clone(),
            bounds: self.metric.buckets.clone(),
            series: kept.map(|series| (series.labels.clone(), series.value.clone())).collect(),
            overflowed: self.overflowed,
        }
    }

    fn restore(&mut self, kept: FamilyState) {
        self.overflowed = kept.overflowed;
        for (labels, value) in kept.series {
            let is_overflow = !labels.is_empty() && labels.iter().all(|label| label == OVERFLOW);
            let position = match self.index.get(&labels) {
                Some(position) => *position,
                None if is_overflow => self.overflow(),
                None => self.push(labels),
            };
            let series = &mut self.series[position];
            if std::mem::discriminant(&series.value) == std::mem::discriminant(&value) {
                series.value = value;
                series.known = true;
            }
        }
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match self.metric.kind {
            MetricKind::Counter => MetricType::Counter,
            MetricKind::Gauge => MetricType::Gauge,
            MetricKind::Histogram => MetricType::Histogram,
        };
        // The encoder adds `_total` to counters by itself.
        let name = if self.metric.kind == MetricKind::Counter {
            self.metric.name.strip_suffix("_total").unwrap_or(&self.metric.name)
        } else {
            &self.metric.name
        };
        let help = format!("{}.", self.metric.help.replace('\\', "\\\\").replace('\n', "\\n"));
        let mut metric = encoder.encode_descriptor(name, &help, None, kind)?;
        let mut known = self.series.iter().filter(|series| series.known);
        if self.label_names.is_empty() {
            // The encoder would write empty braces for an empty set of labels.
            return known.next().map_or(Ok(()), |series| self.encode_series(series, metric));
        }
        for series in known {
            let labels: Vec<(&str, &str)> =
                self.label_names.iter().map(String::as_str).zip(series.labels.iter().map(String::as_str)).collect();
            self.encode_series(series, metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn encode_series(&self, series: &Series, mut sample: MetricEncoder<'_>) -> fmt::Result {
        match &series.value {
            SeriesValue::Histogram { buckets, sum } => {
                let bounds = self.metric.buckets.iter().copied().chain([f64::INFINITY]);
                let pairs: Vec<(f64, u64)> = bounds.zip(buckets.iter().copied()).collect();
                sample.encode_histogram::<NoLabelSet>(*sum, buckets.iter().sum(), &pairs, None)
            }
            SeriesValue::Single(value) if self.metric.kind == MetricKind::Counter => ConstCounter::new(*value).encode(sample),
            SeriesValue::Single(value) => ConstGauge::new(*value).encode(sample),
        }
    }
}

// === impl SharedFamilies ===

impl SharedFamilies {
    /// Shares families.
    #[must_use]
    pub fn new(families: Families) -> Self {
        Self(Arc::new(Mutex::new(families)))
    }

    /// Locks them. A panic of another holder leaves values that are whole: each update is one assignment.
    pub fn lock(&self) -> MutexGuard<'_, Families> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SharedFamilies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SharedFamilies")
    }
}

impl Collector for SharedFamilies {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.lock().families.iter().try_for_each(|family| family.encode(&mut encoder))
    }
}

/// `bellwether_series_overflow_total` of several owners: one family, as the exposition demands.
#[derive(Debug, Default)]
pub struct Overflow(pub Vec<SharedFamilies>);

impl Collector for Overflow {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Updates that went to the series `overflow`, because their metric has too many others.";
        let mut metric = encoder.encode_descriptor("bellwether_series_overflow", help, None, MetricType::Counter)?;
        let mut totals: Vec<(String, u64)> = Vec::new();
        for owner in &self.0 {
            for family in &owner.lock().families {
                match totals.iter_mut().find(|(name, _)| *name == family.metric.name) {
                    Some((_, total)) => *total += family.overflowed,
                    None => totals.push((family.metric.name.clone(), family.overflowed)),
                }
            }
        }
        for (name, total) in &totals {
            let labels = [("metric", name.as_str())];
            ConstCounter::new(*total).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(kind: MetricKind, limit: usize) -> Metric {
        let name = if kind == MetricKind::Counter { "m_total" } else { "m" };
        let buckets = if kind == MetricKind::Histogram { vec![1.0, 2.0] } else { Vec::new() };
        Metric { name: name.to_owned(), help: "M".to_owned(), kind, buckets, series_limit: limit }
    }

    fn exposition(families: Families) -> String {
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(Box::new(SharedFamilies::new(families)));
        crate::metrics::exposition::Format::Text.write(&registry).unwrap()
    }

    #[test]
    fn past_the_cap_sums_stay_right() {
        let mut families = Families::default();
        let family = families.declare(&metric(MetricKind::Counter, 2), &["l".to_owned()]).unwrap();
        for label in ["a", "b", "c", "d", "a"] {
            let series = families.series(family, &[label]);
            families.add(series, 1.0);
        }
        assert_eq!(families.value("m_total", &["a"]), Some(2.0));
        assert_eq!(families.value("m_total", &[OVERFLOW]), Some(2.0));
        assert_eq!(families.families[0].overflowed, 2);
    }

    #[test]
    fn a_histogram_counts_a_bound_into_its_own_bucket() {
        let mut families = Families::default();
        let family = families.declare(&metric(MetricKind::Histogram, 9), &[]).unwrap();
        let series = families.series(family, &[]);
        for amount in [0.5, 1.0, 1.5, 3.0] {
            families.observe(series, amount);
        }
        let text = exposition(families);
        assert!(text.contains("m_bucket{le=\"1.0\"} 2\nm_bucket{le=\"2.0\"} 3\nm_bucket{le=\"+Inf\"} 4\n"), "{text}");
        assert!(text.contains("m_sum 6.0\nm_count 4\n"), "{text}");
    }

    #[test]
    fn hostile_label_values_and_help_texts_are_escaped() {
        let mut families = Families::default();
        let hostile = Metric { help: "a\nb \\".to_owned(), ..metric(MetricKind::Counter, 9) };
        let family = families.declare(&hostile, &["l".to_owned()]).unwrap();
        families.series(family, &["q\" \\ \n"]);
        assert_eq!(exposition(families), "# HELP m_total a\\nb \\\\.\n# TYPE m_total counter\nm_total{l=\"q\\\" \\\\ \\n\"} 0.0\n");
    }

    #[test]
    fn a_gauge_that_is_not_known_is_not_exposed() {
        let mut families = Families::default();
        let family = families.declare(&metric(MetricKind::Gauge, 9), &[]).unwrap();
        let series = families.series(family, &[]);
        assert_eq!(families.value("m", &[]), None);
        families.set(series, 3.0);
        assert_eq!(families.value("m", &[]), Some(3.0));
        families.forget(series);
        assert_eq!(families.value("m", &[]), None);
    }

    #[test]
    fn values_survive_and_a_changed_shape_is_named() {
        let mut families = Families::default();
        let family = families.declare(&metric(MetricKind::Counter, 1), &["l".to_owned()]).unwrap();
        for label in ["a", "b", "b"] {
            let series = families.series(family, &[label]);
            families.add(series, 1.0);
        }
        let state = families.state();

        let mut same = Families::default();
        same.declare(&metric(MetricKind::Counter, 1), &["l".to_owned()]).unwrap();
        assert!(same.restore(state.clone()).is_empty());
        assert_eq!(same.state(), state);
        assert_eq!(same.value("m_total", &[OVERFLOW]), Some(2.0));

        let mut other = Families::default();
        other.declare(&metric(MetricKind::Counter, 1), &["other".to_owned()]).unwrap();
        assert_eq!(other.restore(state), ["m_total"]);
    }

    #[test]
    fn a_counter_never_goes_back() {
        let mut families = Families::default();
        let family = families.declare(&metric(MetricKind::Counter, 9), &[]).unwrap();
        let series = families.series(family, &[]);
        families.add(series, 5.0);
        families.add(series, -3.0);
        families.add(series, f64::NAN);
        assert_eq!(families.value("m_total", &[]), Some(5.0));
    }
}
