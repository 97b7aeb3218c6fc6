//! What one thread counts by itself, until it is taken over as a whole.
//!
//! A delta has the same families as those that it was made from, so a rule finds its series in either by the same
//! number. It remembers what it touched: taking it over costs as much as there is news, however many series there are.
//! What concerns more than one series, such as a finish whose start another thread may have seen, or which series is
//! beyond the cap, is decided only then.

use crate::series::families::family::{Family, SeriesValue};
use crate::series::families::{Families, FamilyId, PairsId, SeriesId, WatchId};

/// What a delta remembers of a series.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending {
    /// How often it was updated since it was taken over last.
    updates: u32,
    /// A gauge was set, so that what it had before counts no more.
    is_set: bool,
    /// It is in the list of what was touched.
    is_listed: bool,
    /// The same series among those that take it over, once it is known.
    home: Option<usize>,
}

/// What is decided by those that take over, in its order.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Start { pairs: PairsId, key: u128, time: Option<i64> },
    Finish(Finish),
    Saw { watch: WatchId, time: i64 },
    TooLong(FamilyId),
}

/// A finish, and where its duration goes to.
#[derive(Clone, Debug)]
pub struct Finish {
    /// Which pair.
    pub pairs: PairsId,
    /// What it has in common with its start.
    pub key: u128,
    /// The record's own time, in milliseconds since the epoch.
    pub time: Option<i64>,
    /// The histogram.
    pub series: SeriesId,
    /// The labels of its exemplar; none where it has none.
    pub exemplar: Vec<(String, String)>,
}

/// The series that were touched, and what else has happened.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched {
    series: Vec<SeriesId>,
    events: Vec<Event>,
}

// === impl Families ===

impl Families {
    /// The same families and series with nothing counted in them, to be counted into by one thread.
    #[must_use]
    pub fn delta(&self) -> Self {
        let families = self.families.clone();
        let mut delta = Self { families, touched: Some(Touched::default()), now: self.now, ..Self::default() };
        for family in &mut delta.families {
            family.overflowed = 0;
            for (position, series) in family.series.iter_mut().enumerate() {
                series.value.clear();
                series.exemplars.clear();
                series.pending = Pending { home: Some(position), ..Pending::default() };
            }
        }
        delta
    }

    /// Takes over what a delta of these families has counted, and leaves it empty.
    pub fn absorb(&mut self, delta: &mut Self) {
        let Self { families, touched: Some(touched), now, .. } = delta else { return };
        *now = self.now;
        let mut given_up: Vec<SeriesId> = Vec::new();
        for SeriesId { family: id, series } in touched.series.drain(..) {
            let family = &mut families[id];
            // The cap is that of the families that take over: what overflows is counted where it goes to.
            family.overflowed = 0;
            let (position, is_open, is_overflow) = (series, family.too_long.is_some(), family.overflow == Some(series));
            let series = &mut family.series[series];
            let home = match series.pending.home {
                Some(home) => home,
                None => {
                    let labels: Vec<&str> = series.labels.iter().map(String::as_str).collect();
                    self.series_since(FamilyId(id), &labels, Some(series.created)).series
                }
            };
            let pending = std::mem::replace(&mut series.pending, Pending { home: Some(home), ..Pending::default() });
            let own = &mut self.families[id];
            if own.overflow == Some(home) {
                own.overflowed += u64::from(pending.updates);
                // Of labels without end those that were not taken over are not kept: there may be millions. Those of
                // closed sets are, since rules remember where they are.
                if is_open && !is_overflow {
                    given_up.push(SeriesId { family: id, series: position });
                }
            }
            let target = &mut own.series[home];
            target.known |= pending.updates > 0;
            target.value.take_over(&mut series.value, pending.is_set);
            target.take_exemplars(series);
        }
        for event in touched.events.drain(..) {
            match event {
                Event::Start { pairs, key, time } => self.start(pairs, key, time),
                Event::Finish(finish) => {
                    let SeriesId { family, series } = finish.series;
                    let series = families[family].series[series].pending.home.unwrap_or(series);
                    self.finish(Finish { series: SeriesId { family, series }, ..finish });
                }
                Event::Saw { watch, time } => self.saw(watch, Some(time)),
                Event::TooLong(family) => self.note_too_long(family),
            }
        }
        given_up.into_iter().for_each(|SeriesId { family, series }| families[family].give_up(series));
    }

    /// Whether a series stays at its place: one of a delta does not before it has been taken over, where its labels
    /// have no end.
    #[must_use]
    pub fn is_lasting(&self, id: SeriesId) -> bool {
        let family = &self.families[id.family];
        self.touched.is_none() || family.too_long.is_none() || family.series[id.series].pending.home.is_some()
    }

    /// Leaves something to those that take this over, where this is a delta. Whether it is.
    pub(super) fn defer(&mut self, event: impl FnOnce() -> Event) -> bool {
        let Some(touched) = &mut self.touched else { return false };
        match (touched.events.last_mut(), event()) {
            // The same is seen over and over again: the latest time counts.
            (Some(Event::Saw { watch, time }), Event::Saw { watch: other, time: later }) if *watch == other => *time = later.max(*time),
            (_, event) => touched.events.push(event),
        }
        true
    }

    /// Notes in a delta that a series gets a value.
    #[inline]
    pub(super) fn touch(&mut self, id: SeriesId, updates: u32, is_set: bool) {
        let Some(Touched { series: touched, .. }) = &mut self.touched else { return };
        let pending = &mut self.families[id.family].series[id.series].pending;
        pending.updates += updates;
        pending.is_set |= is_set;
        if !pending.is_listed {
            pending.is_listed = true;
            touched.push(id);
        }
    }
}

// === impl Family ===

impl Family {
    /// Forgets a series of a delta, whose place the next new one gets.
    fn give_up(&mut self, place: usize) {
        let series = &mut self.series[place];
        self.index.remove(&std::mem::take(&mut series.labels));
        series.pending = Pending::default();
        self.free.push(place);
    }
}

// === impl SeriesValue ===

impl SeriesValue {
    fn clear(&mut self) {
        match self {
            Self::Single(value) => *value = 0.0,
            Self::Histogram { buckets, sum } => {
                buckets.fill(0);
                *sum = 0.0;
            }
        }
    }

    /// Adds another value, or becomes it, and clears the other one.
    fn take_over(&mut self, other: &mut Self, is_set: bool) {
        match (&mut *self, &mut *other) {
            (Self::Single(value), Self::Single(more)) => *value = if is_set { *more } else { *value + *more },
            (Self::Histogram { buckets, sum }, Self::Histogram { buckets: more, sum: added }) => {
                buckets.iter_mut().zip(more).for_each(|(bucket, more)| *bucket += *more);
                *sum += *added;
            }
            // A family has one kind, in a delta as well.
            _ => {}
        }
        other.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::rules::{Metric, MetricKind};
    use crate::series::families::OVERFLOW;

    fn declare(families: &mut Families, kind: MetricKind, limit: usize) -> FamilyId {
        let buckets = if kind == MetricKind::Histogram { vec![1.0, 2.0] } else { Vec::new() };
        let metric = Metric { name: format!("{kind:?}"), help: "M".to_owned(), kind, buckets, series_limit: limit };
        families.declare(&metric, &["l".to_owned()]).unwrap()
    }

    #[test]
    fn whatever_is_counted_in_deltas_is_as_if_counted_directly() {
        let (mut direct, mut shared) = (Families::default(), Families::default());
        let kinds = [MetricKind::Counter, MetricKind::Gauge, MetricKind::Histogram];
        let ids = kinds.map(|kind| {
            declare(&mut direct, kind, 5);
            declare(&mut shared, kind, 5)
        });
        let known = shared.series(ids[0], &["a"]);
        assert_eq!(known, direct.series(ids[0], &["a"]));
        for families in [&mut direct, &mut shared] {
            families.add(known, 7.0);
        }
        let mut deltas = [shared.delta(), shared.delta()];
        let mut random = fastrand::Rng::with_seed(1);
        for step in 0..2000 {
            let (kind, label) = (random.usize(0..3), ["a", "b", "c", "d"][random.usize(0..4)]);
            let amount = f64::from(random.u32(0..4));
            let delta = &mut deltas[step / 50 % 2];
            for families in [&mut direct, delta] {
                let series = families.series(ids[kind], &[label]);
                match kinds[kind] {
                    MetricKind::Counter => families.add(series, amount),
                    MetricKind::Gauge if amount > 2.0 => families.add(series, amount),
                    MetricKind::Gauge => families.set(series, amount),
                    MetricKind::Histogram => families.observe(series, amount),
                }
            }
            if step % 25 == 24 {
                shared.absorb(delta);
                for kind in kinds {
                    for label in ["a", "b", "c", "d"] {
                        let name = format!("{kind:?}");
                        assert_eq!(shared.value(&name, &[label]), direct.value(&name, &[label]), "{name} {label} {step}");
                    }
                }
            }
        }
        assert_eq!(shared.value("Counter", &[OVERFLOW]), None);
    }

    /// Counts into the series of a label.
    fn count(families: &mut Families, family: FamilyId, label: &str) {
        let series = families.series(family, &[label]);
        families.add(series, 1.0);
    }

    #[test]
    fn a_series_that_another_thread_has_made_takes_what_is_its_own_however_many_have_overflowed_before() {
        for is_open in [false, true] {
            let mut shared = Families::default();
            let family = declare(&mut shared, MetricKind::Counter, 3);
            if is_open {
                shared.note_open_labels(family);
            }
            let [mut first, mut second] = [shared.delta(), shared.delta()];
            ["a", "b", "c"].into_iter().for_each(|label| count(&mut first, family, label));
            shared.absorb(&mut first);
            for round in 1..=3 {
                ["d", "e", "f", "a", "c"].into_iter().for_each(|label| count(&mut second, family, label));
                shared.absorb(&mut second);
                let values = ["a", "b", "c", OVERFLOW].map(|label| shared.value("Counter", &[label]).unwrap());
                let round = f64::from(round);
                assert_eq!(values, [1.0 + round, 1.0, 1.0 + round, 3.0 * round], "{is_open}");
            }
        }
    }

    #[test]
    fn caps_under_many_threads_are_as_if_each_buffer_had_been_counted_directly() {
        let mut random = fastrand::Rng::with_seed(7);
        for limit in 1..8 {
            let (mut direct, mut shared) = (Families::default(), Families::default());
            let families = [MetricKind::Counter, MetricKind::Histogram].map(|kind| {
                declare(&mut direct, kind, limit);
                declare(&mut shared, kind, limit)
            });
            if limit % 2 == 0 {
                families.iter().for_each(|family| shared.note_open_labels(*family));
                families.iter().for_each(|family| direct.note_open_labels(*family));
            }
            let mut deltas = [shared.delta(), shared.delta(), shared.delta()];
            for _ in 0..300 {
                let delta = &mut deltas[random.usize(0..3)];
                for _ in 0..random.usize(0..12) {
                    let (family, label) = (random.usize(0..2), random.usize(0..12).to_string());
                    for counted in [&mut direct, &mut *delta] {
                        let series = counted.series(families[family], &[&label]);
                        if family == 0 { counted.add(series, 1.0) } else { counted.observe(series, 1.5) }
                    }
                }
                shared.absorb(delta);
                assert_eq!(shared.state(), direct.state(), "limit {limit}");
            }
        }
    }

    #[test]
    fn millions_of_labels_are_no_more_memory_than_those_of_a_buffer() {
        let mut shared = Families::default();
        let family = declare(&mut shared, MetricKind::Counter, 10);
        shared.note_open_labels(family);
        let mut delta = shared.delta();
        for buffer in 0..1000 {
            (0..50).for_each(|label| count(&mut delta, family, &format!("{buffer} {label}")));
            shared.absorb(&mut delta);
        }
        let known = &delta.families[0];
        assert!(known.series.len() <= 10 + 50 + 1 && known.index.len() <= 11, "{} {}", known.series.len(), known.index.len());
        assert_eq!(shared.value("Counter", &[OVERFLOW]), Some(f64::from(1000 * 50 - 10)));
    }

    #[test]
    fn the_cap_holds_for_all_deltas_together_and_sums_stay_right() {
        let mut shared = Families::default();
        let family = declare(&mut shared, MetricKind::Counter, 3);
        let mut deltas = [shared.delta(), shared.delta()];
        for round in 0..3 {
            for (number, delta) in deltas.iter_mut().enumerate() {
                for label in 0..4 {
                    let series = delta.series(family, &[&format!("{number} {label}")]);
                    delta.add(series, 1.0);
                }
                shared.absorb(delta);
                shared.absorb(delta);
                let direct = shared.series(family, &["another"]);
                shared.add(direct, f64::from(round));
            }
        }
        let state = &shared.families[0];
        let values: Vec<f64> = ["0 0", "0 1", "0 2"].map(|label| shared.value("Counter", &[label]).unwrap()).to_vec();
        assert_eq!((values, state.series.len()), (vec![3.0; 3], 4));
        // Of four labels of the first delta one overflowed, of the second all; and six times the direct one.
        assert_eq!((shared.value("Counter", &[OVERFLOW]), state.overflowed), (Some(3.0 + 12.0 + 6.0), 3 + 12 + 6));
    }
}
