//! What our series were, as far back as the rules look.
//!
//! Times are milliseconds on a clock that does not jump; whoever gives them sees to that. Owns the memory of the past and
//! knows nothing of what is asked of it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::promql::{Expression, Labels, Selector};

/// An instant query finds what is at most this old. The same as in Prometheus.
pub const LOOKBACK: Duration = Duration::from_mins(5);

/// The past of all series that some rule asks for.
#[derive(Debug, Default)]
pub struct Samples {
    metrics: HashMap<String, Metric>,
}

/// The past in a form that is written to disk: ages instead of times.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Saved(Vec<(String, Labels, Aged)>);

/// Ages in milliseconds, and values.
type Aged = Vec<(u32, f64)>;

#[derive(Debug, Default)]
struct Metric {
    /// How far back anybody looks, in milliseconds.
    keep: i64,
    series: BTreeMap<Labels, Series>,
}

/// The past of one series.
#[derive(Debug, Default)]
pub struct Series {
    points: VecDeque<Point>,
}

/// A value at a time.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Milliseconds.
    pub at: i64,
    /// The value; `None` where the series ended.
    pub value: Option<f64>,
}

// === impl Samples ===

impl Samples {
    /// A past for what these queries look at.
    pub fn of<'a>(queries: impl Iterator<Item = &'a Expression>) -> Self {
        let mut metrics: HashMap<String, Metric> = HashMap::new();
        for query in queries {
            query.selectors(LOOKBACK, &mut |selector, back| {
                let metric = metrics.entry(selector.name.clone()).or_default();
                metric.keep = metric.keep.max(i64::try_from(back.as_millis()).unwrap_or(i64::MAX));
            });
        }
        Self { metrics }
    }

    /// Whether anybody asks for it.
    #[must_use]
    pub fn wants(&self, metric: &str) -> bool {
        self.metrics.contains_key(metric)
    }

    /// The names of all metrics that are asked for.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.metrics.keys().map(String::as_str)
    }

    /// Notes all series of a metric, as they are at a time: one that is not among them has ended.
    pub fn note(&mut self, name: &str, at: i64, values: Vec<(Labels, f64)>) {
        let Some(metric) = self.metrics.get_mut(name) else { return };
        for (labels, value) in values {
            metric.series.entry(labels).or_default().push(at, Some(value));
        }
        let oldest = at - metric.keep;
        metric.series.retain(|_, series| {
            series.end_before(at);
            series.forget(oldest);
            !series.points.is_empty()
        });
    }

    /// Notes a single value; what else there is of the metric goes on.
    pub fn push(&mut self, name: &str, labels: Labels, at: i64, value: Option<f64>) {
        if let Some(metric) = self.metrics.get_mut(name) {
            metric.series.entry(labels).or_default().push(at, value);
        }
    }

    /// The series that fit.
    pub fn select<'a>(&'a self, selector: &'a Selector) -> impl Iterator<Item = (&'a Labels, &'a Series)> {
        let all = self.metrics.get(&selector.name).into_iter().flat_map(|metric| &metric.series);
        all.filter(|(labels, _)| {
            selector.matchers.iter().all(|matcher| matcher.passes(labels.get(&matcher.label).map_or("", String::as_str)))
        })
    }

    /// How many series there are.
    #[must_use]
    pub fn series(&self) -> usize {
        self.metrics.values().map(|metric| metric.series.len()).sum()
    }

    /// The past, as ages at a time.
    #[must_use]
    pub fn save(&self, now: i64) -> Saved {
        let age = |point: &Point| Some((u32::try_from(now - point.at).ok()?, point.value.unwrap_or(f64::NAN)));
        let all = self.metrics.iter().flat_map(|(name, metric)| metric.series.iter().map(move |series| (name, series)));
        Saved(all.map(|(name, (labels, series))| (name.clone(), labels.clone(), series.points.iter().filter_map(age).collect())).collect())
    }

    /// Takes over a past that was saved so many milliseconds before `now`. What nobody asks for any more is left.
    pub fn restore(&mut self, saved: Saved, now: i64, since: i64) {
        for (name, labels, points) in saved.0 {
            let Some(metric) = self.metrics.get_mut(&name) else { continue };
            let oldest = now - metric.keep;
            let mut series = Series::default();
            for (age, value) in points {
                series.push(now - since - i64::from(age), (!value.is_nan()).then_some(value));
            }
            series.forget(oldest);
            if !series.points.is_empty() {
                metric.series.insert(labels, series);
            }
        }
    }
}

// === impl Series ===

impl Series {
    /// The last value at most `lookback` milliseconds before a time.
    #[must_use]
    pub fn at(&self, time: i64, lookback: i64) -> Option<f64> {
        let last = self.points.iter().rev().find(|point| point.at <= time)?;
        last.value.filter(|_| last.at > time - lookback)
    }

    /// The values from one time to another, both included, in their order.
    pub fn within(&self, from: i64, to: i64) -> impl Iterator<Item = (i64, f64)> {
        let start = self.points.partition_point(|point| point.at < from);
        self.points.range(start..).take_while(move |point| point.at <= to).filter_map(|point| Some((point.at, point.value?)))
    }

    /// A value that is not later than what is there is left: the clock does not go back.
    fn push(&mut self, at: i64, value: Option<f64>) {
        if self.points.back().is_none_or(|last| last.at < at) {
            self.points.push_back(Point { at, value: value.filter(|value| !value.is_nan()) });
        }
    }

    fn end_before(&mut self, at: i64) {
        if self.points.back().is_some_and(|last| last.at < at && last.value.is_some()) {
            self.points.push_back(Point { at, value: None });
        }
    }

    fn forget(&mut self, oldest: i64) {
        while self.points.front().is_some_and(|first| first.at < oldest) {
            self.points.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::parse;

    fn labels(value: &str) -> Labels {
        Labels::from([("x".to_owned(), value.to_owned())])
    }

    #[test]
    fn only_what_is_asked_for_is_kept_and_only_so_long() {
        let query = parse("a[1m] + b").unwrap();
        let mut samples = Samples::of([&query].into_iter());
        assert!(samples.wants("a") && samples.wants("b") && !samples.wants("c"));
        for second in 0..100 {
            samples.note("a", second * 10_000, vec![(labels("1"), 1.0)]);
            samples.note("c", second * 10_000, vec![(labels("1"), 1.0)]);
        }
        let Expression::Binary(binary) = &query else { panic!("{query:?}") };
        let Expression::Range(selector, _) = &binary.left else { panic!("{query:?}") };
        let (_, series) = samples.select(selector).next().unwrap();
        assert_eq!((series.points.len(), samples.series()), (7, 1), "both ends of a minute are kept");
    }

    #[test]
    fn a_series_that_is_not_there_any_more_has_ended_and_leaves() {
        let query = parse("a").unwrap();
        let mut samples = Samples::of([&query].into_iter());
        let Expression::Instant(selector) = &query else { panic!("{query:?}") };
        samples.note("a", 0, vec![(labels("1"), 1.0), (labels("2"), 2.0)]);
        samples.note("a", 1000, vec![(labels("2"), 3.0)]);
        let found = |samples: &Samples, at| samples.select(selector).map(|(_, series)| series.at(at, 300_000)).collect::<Vec<_>>();
        assert_eq!(found(&samples, 1000), [None, Some(3.0)]);
        assert_eq!(found(&samples, 999), [Some(1.0), Some(2.0)]);
        samples.note("a", 400_000, vec![(labels("2"), 3.0)]);
        assert_eq!(samples.series(), 1);
    }

    #[test]
    fn what_is_saved_comes_back_with_the_time_in_between() {
        let query = parse("a[5m]").unwrap();
        let Expression::Range(selector, _) = &query else { panic!("{query:?}") };
        let mut samples = Samples::of([&query].into_iter());
        samples.note("a", 0, vec![(labels("1"), 1.0)]);
        samples.note("a", 10_000, vec![]);
        samples.note("a", 20_000, vec![(labels("1"), 2.0)]);
        let saved = postcard::to_stdvec(&samples.save(25_000)).unwrap();
        let mut restored = Samples::of([&query].into_iter());
        restored.restore(postcard::from_bytes(&saved).unwrap(), 1_000_000, 60_000);
        let (_, series) = restored.select(selector).next().unwrap();
        let points: Vec<_> = series.points.iter().map(|point| (point.at, point.value)).collect();
        assert_eq!(points, [(915_000, Some(1.0)), (925_000, None), (935_000, Some(2.0))]);
    }
}
