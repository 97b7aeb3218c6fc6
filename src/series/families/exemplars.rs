//! Which event a series has counted last, for those who want to look at one. Pure.

use crate::config::rules::MetricKind;
use crate::metrics::open_metrics::Exemplar;
use crate::series::families::family::{Family, Series};
use crate::series::families::{Families, SeriesId};

/// An exemplar is replaced no sooner than this, in milliseconds: one a scrape is what a scraper keeps.
const EXEMPLAR_AGE: i64 = 1000;

// === impl Families ===

impl Families {
    /// Whether an exemplar of this amount would be taken: the last one is older than a second.
    #[must_use]
    pub fn wants_exemplar(&self, id: SeriesId, amount: f64) -> bool {
        let family = &self.families[id.family];
        let place = family.exemplar_place(amount);
        let last = family.series[id.series].exemplars.get(place).and_then(Option::as_ref);
        last.is_none_or(|last| (self.now.wall - last.millis).abs() >= EXEMPLAR_AGE)
    }

    /// Says which event has just been counted or observed, for those who want to look at one.
    pub fn set_exemplar(&mut self, id: SeriesId, amount: f64, labels: Vec<(String, String)>) {
        let family = &mut self.families[id.family];
        let (place, places) = (family.exemplar_place(amount), family.metric.buckets.len() + 1);
        let exemplars = &mut family.series[id.series].exemplars;
        exemplars.resize(places, None);
        exemplars[place] = Some(Exemplar { labels, value: amount, millis: self.now.wall });
    }
}

// === impl Family ===

impl Family {
    fn exemplar_place(&self, amount: f64) -> usize {
        if self.metric.kind == MetricKind::Histogram { self.metric.bucket(amount) } else { 0 }
    }
}

// === impl Series ===

impl Series {
    /// Takes over what the same series of a delta has, where it is newer by enough.
    pub(super) fn take_exemplars(&mut self, other: &mut Self) {
        for (place, exemplar) in other.exemplars.drain(..).enumerate() {
            let Some(exemplar) = exemplar else { continue };
            if self.exemplars.len() <= place {
                self.exemplars.resize(place + 1, None);
            }
            let own = &mut self.exemplars[place];
            if own.as_ref().is_none_or(|own| (exemplar.millis - own.millis).abs() >= EXEMPLAR_AGE) {
                *own = Some(exemplar);
            }
        }
    }
}
