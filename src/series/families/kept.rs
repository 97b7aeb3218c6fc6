//! What of the families is kept over a restart, and how it is taken over. Pure.
//!
//! Everything is found again by its name, so that a rule that is added, taken away or changed leaves the others as they
//! are.

use serde::{Deserialize, Serialize};

use crate::series::families::family::{Family, SeriesValue};
use crate::series::families::pairs::PairsState;
use crate::series::families::{Families, OVERFLOW};

/// The values of counters, histograms and known gauges, since when they count, and starts that wait for their finish.
/// Exemplars are not kept: a scraper has them, and new ones come.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct FamiliesState {
    families: Vec<FamilyState>,
    pairs: Vec<(String, PairsState)>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct FamilyState {
    name: String,
    label_names: Vec<String>,
    bounds: Vec<f64>,
    series: Vec<SeriesState>,
    overflowed: u64,
    too_long: Option<u64>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct SeriesState {
    labels: Vec<String>,
    value: SeriesValue,
    created: i64,
}

// === impl Families ===

impl Families {
    /// What is to be kept over a restart.
    #[must_use]
    pub fn state(&self) -> FamiliesState {
        FamiliesState {
            families: self.families.iter().filter(|family| family.is_used()).map(Family::state).collect(),
            pairs: self.pairings.iter().map(|pairing| (pairing.metric.clone(), pairing.pairs.state(self.now))).collect(),
        }
    }

    /// Takes values of an earlier run over. Returns the names of the metrics whose values could not be, because
    /// they are declared in another way now.
    pub fn restore(&mut self, state: FamiliesState) -> Vec<String> {
        let mut lost = Vec::new();
        for kept in state.families {
            let found = self.families.iter_mut().find(|family| family.metric.name == kept.name);
            match found {
                Some(family) if family.label_names == kept.label_names && family.metric.buckets == kept.bounds => family.restore(kept),
                Some(_) => lost.push(kept.name),
                // The rule is gone, and its metric with it.
                None => {}
            }
        }
        for (metric, pairs) in state.pairs {
            if let Some(position) = self.pairings.iter().position(|pairing| pairing.metric == metric) {
                self.pairings[position].pairs.restore(&pairs, self.now);
                self.settle_pairs(position);
            }
        }
        lost
    }
}

// === impl Family ===

impl Family {
    fn state(&self) -> FamilyState {
        let kept = self.series.iter().filter(|series| series.known);
        let series = kept.map(|series| SeriesState { labels: series.labels.clone(), value: series.value.clone(), created: series.created });
        FamilyState {
            name: self.metric.name.clone(),
            label_names: self.label_names.clone(),
            bounds: self.metric.buckets.clone(),
            series: series.collect(),
            overflowed: self.overflowed,
            too_long: self.too_long,
        }
    }

    fn restore(&mut self, kept: FamilyState) {
        self.overflowed = kept.overflowed;
        self.too_long = self.too_long.map(|_| kept.too_long.unwrap_or_default());
        for SeriesState { labels, value, created } in kept.series {
            let is_overflow = !labels.is_empty() && labels.iter().all(|label| label == OVERFLOW);
            let position = match self.index.get(&labels) {
                Some(position) => *position,
                None if is_overflow => self.overflow(created),
                None => self.push(labels, created),
            };
            let series = &mut self.series[position];
            if std::mem::discriminant(&series.value) == std::mem::discriminant(&value) {
                (series.value, series.created) = (value, created);
                series.known = true;
            }
        }
    }
}
