//! What families do as time passes: starts that wait for their finish, and what is missed when it does not come. Pure.

use crate::config::rules::{Metric, MetricKind};
use crate::series::families::delta::{Event, Finish};
use crate::series::families::family::SeriesValue;
use crate::series::families::pairs::{Pairs, Unpaired};
use crate::series::families::{DeclareError, Families, SeriesId};

/// A pair of a start and a finish within its [`Families`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PairsId(usize);

/// Something that is missed when it does not come, within its [`Families`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WatchId(usize);

#[derive(Clone, Debug)]
pub(super) struct Pairing {
    pub(super) metric: String,
    pub(super) pairs: Pairs,
    open: SeriesId,
    unpaired: [SeriesId; 4],
}

#[derive(Clone, Debug)]
pub(super) struct Watch {
    seen: SeriesId,
    absent: SeriesId,
    /// In milliseconds.
    after: i64,
}

// === impl Families ===

impl Families {
    /// Adds what belongs to a pair of a start and a finish: `<base>_open` and `<base>_unpaired_total`. Starts expire
    /// `expire` milliseconds after they began, and beyond `limit` the oldest is given up.
    ///
    /// # Errors
    /// When there are other metrics of these names.
    pub fn declare_pairs(&mut self, metric: &str, base: &str, expire: i64, limit: usize) -> Result<PairsId, DeclareError> {
        let help = "Starts that wait for their finish";
        let open = self.declare(&plain(format!("{base}_open"), help, MetricKind::Gauge), &[])?;
        let open = self.series(open, &[]);
        self.set(open, 0.0);
        let help = "Starts without a finish and finishes without a start, by reason";
        let family = self.declare(&plain(format!("{base}_unpaired_total"), help, MetricKind::Counter), &["reason".to_owned()])?;
        let unpaired = Unpaired::ALL.map(|why| self.series(family, &[why.name()]));
        let pairing = Pairing { metric: metric.to_owned(), pairs: Pairs::new(expire, limit), open, unpaired };
        // What is open stays open when the rules are read again.
        let position = self.pairings.iter().position(|pairing| pairing.metric == metric);
        let position = match position {
            Some(position) => {
                let state = self.pairings[position].pairs.state(self.now);
                self.pairings[position] = pairing;
                self.pairings[position].pairs.restore(&state, self.now);
                position
            }
            None => {
                self.pairings.push(pairing);
                self.pairings.len() - 1
            }
        };
        self.settle_pairs(position);
        Ok(PairsId(position))
    }

    /// Adds what tells that something has not come for `after` milliseconds: `<base>_absent`, and
    /// `<base>_last_seen_timestamp_seconds` once it has.
    ///
    /// # Errors
    /// When there are other metrics of these names.
    pub fn declare_watch(&mut self, base: &str, after: i64) -> Result<WatchId, DeclareError> {
        let help = "When it was last seen, in seconds since the epoch";
        let seen = self.declare(&plain(format!("{base}_last_seen_timestamp_seconds"), help, MetricKind::Gauge), &[])?;
        let seen = self.series(seen, &[]);
        let help = "Whether it has not been seen for longer than its rule allows";
        let absent = self.declare(&plain(format!("{base}_absent"), help, MetricKind::Gauge), &[])?;
        let absent = self.series(absent, &[]);
        self.set(absent, 0.0);
        let watch = Watch { seen, absent, after };
        let position = self.watches.iter().position(|known| known.absent == absent);
        match position {
            Some(position) => self.watches[position] = watch,
            None => self.watches.push(watch),
        }
        Ok(WatchId(position.unwrap_or(self.watches.len() - 1)))
    }

    /// A record tells of a start; `time` is its own, in milliseconds since the epoch.
    pub fn start(&mut self, id: PairsId, key: u128, time: Option<i64>) {
        if !self.defer(|| Event::Start { pairs: id, key, time }) {
            self.pairings[id.0].pairs.start(key, time, self.now);
            self.settle_pairs(id.0);
        }
    }

    /// A record tells of a finish: observes the seconds since its start, where that is known.
    pub fn finish(&mut self, finish: Finish) {
        let Finish { pairs, key, time, series, .. } = finish;
        if self.defer(|| Event::Finish(finish.clone())) {
            return;
        }
        let seconds = self.pairings[pairs.0].pairs.finish(key, time, self.now);
        self.settle_pairs(pairs.0);
        if let Some(seconds) = seconds {
            self.observe(series, seconds);
            if !finish.exemplar.is_empty() && self.wants_exemplar(series, seconds) {
                self.set_exemplar(series, seconds, finish.exemplar);
            }
        }
    }

    /// Something that is watched for has come; `time` is the record's own, in milliseconds since the epoch.
    pub fn saw(&mut self, id: WatchId, time: Option<i64>) {
        let time = time.map_or(self.now.wall, |time| time.min(self.now.wall));
        if self.defer(|| Event::Saw { watch: id, time }) {
            return;
        }
        let seen = self.watches[id.0].seen;
        if self.last_seen(seen).is_none_or(|last| last < time) {
            self.set(seen, seconds(time));
        }
    }

    /// Gives up what has waited for too long, and says what is missing.
    pub fn tick(&mut self) {
        for position in 0..self.pairings.len() {
            self.pairings[position].pairs.expire(self.now);
            self.settle_pairs(position);
        }
        for Watch { seen, absent, after } in self.watches.clone() {
            let begin = self.families[absent.family].series[absent.series].created;
            let last = self.last_seen(seen).map_or(begin, |last| last.max(begin));
            self.set(absent, if self.now.wall.saturating_sub(last) > after { 1.0 } else { 0.0 });
        }
    }

    pub(super) fn settle_pairs(&mut self, position: usize) {
        let Pairing { pairs, open, unpaired, .. } = &mut self.pairings[position];
        let (open, unpaired, count, ended) = (*open, *unpaired, pairs.len(), pairs.take_unpaired());
        #[expect(clippy::cast_precision_loss, reason = "their number is bounded")]
        self.set(open, count as f64);
        for (series, count) in unpaired.into_iter().zip(ended).filter(|(_, count)| *count > 0) {
            self.add(series, f64::from(count));
        }
    }

    /// In milliseconds; `None` where it has never been seen.
    fn last_seen(&self, seen: SeriesId) -> Option<i64> {
        let series = &self.families[seen.family].series[seen.series];
        #[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
        match series.value {
            SeriesValue::Single(value) if series.known => Some((value * 1000.0).round() as i64),
            _ => None,
        }
    }
}

fn plain(name: String, help: &str, kind: MetricKind) -> Metric {
    Metric { name, help: help.to_owned(), kind, buckets: Vec::new(), series_limit: 16 }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since the epoch are below 2^53")]
fn seconds(millis: i64) -> f64 {
    millis as f64 / 1000.0
}
