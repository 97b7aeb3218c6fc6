//! The values: families of series, each with a cap; what goes beyond it is summed in the series `overflow`.
//!
//! Pure data: the owner says what time it is. [`SharedFamilies`] is the one way in which threads share it and Prometheus
//! reads it.

mod delta;
mod exemplars;
mod family;
mod kept;
mod pairs;
mod shared;
mod waits;
mod write;

use crate::clock::Moment;
use crate::config::rules::{Metric, MetricKind};
pub use crate::series::families::delta::Finish;
use crate::series::families::delta::{Event, Touched};
use crate::series::families::family::{Family, SeriesValue, Standing};
pub use crate::series::families::kept::FamiliesState;
pub use crate::series::families::pairs::Unpaired;
pub use crate::series::families::shared::{Limits, SharedFamilies};
use crate::series::families::waits::{Pairing, Watch};
pub use crate::series::families::waits::{PairsId, WatchId};

/// The label value of the series that takes what is beyond the cap.
pub const OVERFLOW: &str = "overflow";

/// All families of one owner.
#[derive(Clone, Debug, Default)]
pub struct Families {
    families: Vec<Family>,
    /// What was touched, where this is the delta of other families.
    touched: Option<Touched>,
    pairings: Vec<Pairing>,
    watches: Vec<Watch>,
    now: Moment,
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

/// A metric was declared twice in different ways.
#[derive(Debug, thiserror::Error)]
#[error("the metric {0} is declared twice with different types, buckets or labels")]
pub struct DeclareError(String);

// === impl Families ===

impl Families {
    /// Says what time it is: for series that are made from now on, for waits and for what is missed.
    pub fn set_now(&mut self, now: Moment) {
        self.now = now;
    }

    /// Adds a family, or finds it where it has been added in the same way.
    ///
    /// # Errors
    /// When it has been added in another way.
    pub fn declare(&mut self, metric: &Metric, label_names: &[String]) -> Result<FamilyId, DeclareError> {
        let same = |family: &Family| {
            family.metric.kind == metric.kind && family.metric.buckets == metric.buckets && family.label_names == label_names
        };
        let known = self.families.iter_mut().enumerate().filter(|(_, family)| family.metric.name == metric.name);
        for (position, family) in known {
            match (same(family), family.standing) {
                (true, Standing::Used) => {}
                (true, Standing::InDoubt) => (family.metric, family.standing) = (metric.clone(), Standing::Used),
                // A rule that comes back begins anew, as it would after a restart.
                (true, Standing::Retired) => family.revive(metric, self.now),
                (false, Standing::Used) => return Err(DeclareError(metric.name.clone())),
                (false, Standing::InDoubt | Standing::Retired) => continue,
            }
            return Ok(FamilyId(position));
        }
        self.families.push(Family::new(metric.clone(), label_names.to_vec()));
        Ok(FamilyId(self.families.len() - 1))
    }

    /// The rules that feed these metrics are read anew. What of them is declared in the same way until
    /// [`Families::retire_doubtful`] goes on with all its series.
    pub fn doubt(&mut self, metrics: &[String]) {
        let fed = self.families.iter_mut().filter(|family| family.is_used() && metrics.contains(&family.metric.name));
        fed.for_each(|family| family.standing = Standing::InDoubt);
    }

    /// Takes what was not declared again out of the exposition and of what is kept: its rules are gone.
    pub fn retire_doubtful(&mut self) {
        let gone = |family: &&mut Family| family.standing == Standing::InDoubt;
        self.families.iter_mut().filter(gone).for_each(|family| family.standing = Standing::Retired);
        for position in 0..self.pairings.len() {
            let metric = &self.pairings[position].metric;
            if !self.families.iter().any(|family| family.is_used() && family.metric.name == *metric) {
                self.pairings[position].pairs.forget();
            }
        }
    }

    /// Exposes a series; one that was forgotten begins at zero.
    pub fn begin(&mut self, id: SeriesId) {
        let (family, now) = (&mut self.families[id.family], self.now.wall);
        let zero = family.zero();
        let series = &mut family.series[id.series];
        if !series.known {
            (series.value, series.known, series.created) = (zero, true, now);
        }
    }

    /// The series with these label values, which is made where it is missing; past the cap, the series `overflow`.
    pub fn series(&mut self, family: FamilyId, labels: &[&str]) -> SeriesId {
        self.series_since(family, labels, None)
    }

    /// The same; one that is made counts since `time`, which is that of the first record that counts into it.
    pub fn series_since(&mut self, family: FamilyId, labels: &[&str], time: Option<i64>) -> SeriesId {
        let (id, now) = (family.0, self.now.wall);
        let family = &mut self.families[id];
        // The key is looked up by value: a miss is rare, since callers keep what they found.
        let key: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        if let Some(series) = family.index.get(&key) {
            return SeriesId { family: id, series: *series };
        }
        let created = time.map_or(now, |time| time.min(now));
        // In a delta nobody knows what overflows: that is decided by those that take it over.
        let has_room = self.touched.is_some() || family.series.len() < family.metric.series_limit;
        let series = if has_room { family.push(key, created) } else { family.overflow(created) };
        let found = SeriesId { family: id, series };
        self.touch(found, 0, false);
        found
    }

    /// Adds to a counter or a gauge; a negative amount leaves a counter as it is.
    #[inline]
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

    /// Takes a series out of the exposition and of what is kept: of a gauge the value is known no longer, of another one
    /// the rules are gone.
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
        let position = family.metric.bucket(amount);
        if let SeriesValue::Histogram { buckets, sum } = &mut family.series[id.series].value {
            buckets[position] += 1;
            *sum += amount;
        }
    }

    /// A label value was too long, and counts as any other.
    pub fn note_too_long(&mut self, family: FamilyId) {
        if !self.defer(|| Event::TooLong(family)) {
            *self.families[family.0].too_long.get_or_insert(0) += 1;
        }
    }

    /// The labels of this family are no closed sets: how many values are too long is exposed from now on.
    pub fn note_open_labels(&mut self, family: FamilyId) {
        self.families[family.0].too_long.get_or_insert(0);
    }

    /// The value of a counter or gauge, the count of a histogram. `None` where there is no such series.
    #[must_use]
    pub fn value(&self, metric: &str, labels: &[&str]) -> Option<f64> {
        let family = self.families.iter().find(|family| family.metric.name == metric && family.is_used())?;
        let series = family.series.iter().find(|series| series.known && series.labels.iter().eq(labels.iter()))?;
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        Some(match &series.value {
            SeriesValue::Single(value) => *value,
            SeriesValue::Histogram { buckets, .. } => buckets.iter().sum::<u64>() as f64,
        })
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
        let mut registry = crate::metrics::Registry::default();
        registry.expose(SharedFamilies::new(families));
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
