//! Families as they stand in an exposition. Pure.

use crate::config::rules::MetricKind;
use crate::metrics::open_metrics::{Buckets, Kind, Labels, OpenMetrics};
use crate::series::families::Families;
use crate::series::families::family::{Family, Series, SeriesValue};

/// The name under which OpenMetrics knows a metric: its writer adds `_total` by itself.
pub(super) fn family_name(name: &str, kind: MetricKind) -> &str {
    if kind == MetricKind::Counter { name.strip_suffix("_total").unwrap_or(name) } else { name }
}

// === impl Families ===

impl Families {
    /// Appends all families that are in use.
    pub fn write(&self, to: &mut OpenMetrics) {
        self.families.iter().filter(|family| family.is_used()).for_each(|family| family.write(to));
    }
}

// === impl Family ===

impl Family {
    fn write(&self, to: &mut OpenMetrics) {
        let kind = match self.metric.kind {
            MetricKind::Counter => Kind::Counter,
            MetricKind::Gauge => Kind::Gauge,
            MetricKind::Histogram => Kind::Histogram,
        };
        let name = family_name(&self.metric.name, self.metric.kind);
        to.family(name, &format!("{}.", self.metric.help), kind);
        for series in self.series.iter().filter(|series| series.known) {
            self.write_series(name, series, to);
        }
    }

    fn write_series(&self, name: &str, series: &Series, to: &mut OpenMetrics) {
        let labels = Labels::new(self.label_names.iter().map(String::as_str).zip(series.labels.iter().map(String::as_str)));
        match &series.value {
            SeriesValue::Histogram { buckets, sum } => {
                let bounds = &self.metric.buckets;
                let buckets = Buckets { bounds, counts: buckets, sum: *sum, exemplars: &series.exemplars };
                to.histogram(name, &labels, &buckets, series.created);
            }
            SeriesValue::Single(value) if self.metric.kind == MetricKind::Counter => {
                to.counter(name, &labels, *value, series.created, series.exemplars.first().and_then(Option::as_ref));
            }
            SeriesValue::Single(value) => to.gauge(name, &labels, *value),
        }
    }
}
