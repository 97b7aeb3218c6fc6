//! One family: its series by their labels, with the one that takes what is beyond the cap.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::config::rules::{Metric, MetricKind};
use crate::metrics::open_metrics::Exemplar;
use crate::series::families::OVERFLOW;
use crate::series::families::delta::Pending;

/// A metric with all of its series.
#[derive(Clone, Debug)]
pub(super) struct Family {
    pub(super) metric: Metric,
    pub(super) label_names: Vec<String>,
    pub(super) series: Vec<Series>,
    pub(super) index: HashMap<Vec<String>, usize>,
    pub(super) overflow: Option<usize>,
    /// Places of series that a delta has given up, to be used again.
    pub(super) free: Vec<usize>,
    /// Updates that went to the series `overflow`.
    pub(super) overflowed: u64,
    /// Label values that were too long; `None` where the labels are closed sets.
    pub(super) too_long: Option<u64>,
    pub(super) standing: Standing,
}

/// Whether a family is in use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    /// It is exposed and kept.
    Used,
    /// The rules are being read anew: whoever declares it in the same way goes on with it.
    InDoubt,
    /// Its rules are gone: it is neither exposed nor kept.
    Retired,
}

/// One set of label values, and what they hold.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) labels: Vec<String>,
    pub(super) value: SeriesValue,
    /// A gauge that nobody has set, or that is known no longer, is not exposed: unknown is not zero.
    pub(super) known: bool,
    pub(super) pending: Pending,
    /// Since when it counts, in milliseconds since the epoch; 0 where nobody knows.
    pub(super) created: i64,
    /// One for each bucket, one for a counter; empty while there is none.
    pub(super) exemplars: Vec<Option<Exemplar>>,
}

/// What a series holds.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) enum SeriesValue {
    Single(f64),
    /// How many observations fell into each bucket (not cumulated; the last one is `+Inf`), and their sum.
    Histogram {
        buckets: Vec<u64>,
        sum: f64,
    },
}

// === impl Family ===

impl Family {
    pub(super) fn new(metric: Metric, label_names: Vec<String>) -> Self {
        Self {
            metric,
            label_names,
            series: Vec::new(),
            index: HashMap::new(),
            overflow: None,
            free: Vec::new(),
            overflowed: 0,
            too_long: None,
            standing: Standing::Used,
        }
    }

    pub(super) fn push(&mut self, labels: Vec<String>, created: i64) -> usize {
        let series = Series {
            labels: labels.clone(),
            value: self.zero(),
            known: self.metric.kind != MetricKind::Gauge,
            created,
            exemplars: Vec::new(),
            pending: Pending::default(),
        };
        let place = self.free.pop().unwrap_or(self.series.len());
        match self.series.get_mut(place) {
            Some(given_up) => *given_up = series,
            None => self.series.push(series),
        }
        self.index.insert(labels, place);
        place
    }

    pub(super) fn is_used(&self) -> bool {
        self.standing == Standing::Used
    }

    pub(super) fn zero(&self) -> SeriesValue {
        match self.metric.kind {
            MetricKind::Histogram => SeriesValue::Histogram { buckets: vec![0; self.metric.buckets.len() + 1], sum: 0.0 },
            MetricKind::Counter | MetricKind::Gauge => SeriesValue::Single(0.0),
        }
    }

    pub(super) fn revive(&mut self, metric: &Metric, now: Moment) {
        self.metric = metric.clone();
        (self.standing, self.overflowed) = (Standing::Used, 0);
        let (zero, known) = (self.zero(), metric.kind != MetricKind::Gauge);
        for series in &mut self.series {
            series.value.clone_from(&zero);
            (series.known, series.created) = (known, now.wall);
            series.exemplars.clear();
        }
    }

    pub(super) fn overflow(&mut self, created: i64) -> usize {
        if let Some(series) = self.overflow {
            return series;
        }
        let series = self.push(vec![OVERFLOW.to_owned(); self.label_names.len()], created);
        self.overflow = Some(series);
        series
    }

    pub(super) fn note_overflow(&mut self, series: usize) {
        if self.overflow == Some(series) {
            self.overflowed += 1;
        }
    }
}
