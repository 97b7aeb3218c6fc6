//! Running rules: a record in, updates of series out. Pure.
//!
//! Labels are closed sets, so the series of a record is found by counting, not by hashing: each label value has a
//! number, and the numbers together are the place in a table. Only path templates need a lookup by text.

mod compile;
mod explain;
mod label;
mod literals;
mod matching;

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_128;

use crate::series::families::{Families, FamilyId, Finish, PairsId, SeriesId, WatchId};
use crate::series::record::{FieldId, Record, Value, first};
pub use crate::series::rules::explain::{Explained, Verdict};
use crate::series::rules::label::CompiledLabel;
use crate::series::rules::matching::CompiledMatch;
use crate::series::texts::Texts;
use crate::units::Unit;

/// An id in an exemplar is no longer: OpenMetrics allows 128 characters for names and values together.
const MAX_ID: usize = 64;
/// All names and values of an exemplar, in characters.
const MAX_EXEMPLAR: usize = 128;

/// Rules that are ready to run.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    fields: Vec<String>,
    rules: Vec<CompiledRule>,
    /// The field whose exact value most rules ask for, and which rules can apply for each value.
    dispatch: Option<Dispatch>,
    /// The rules that can apply whatever the value of that field is, in their order.
    otherwise: Vec<Choice>,
    /// The field with the record's own time, where a rule needs it.
    time: Option<FieldId>,
    /// The names of all metrics that they make.
    metrics: Vec<String>,
}

#[derive(Clone, Debug)]
struct Dispatch {
    field: FieldId,
    /// For each value the rules that can apply, those of `otherwise` among them, in their order.
    by_value: Texts<Vec<Choice>>,
}

/// A rule that is looked at.
#[derive(Clone, Debug)]
struct Choice {
    rule: usize,
    /// It cannot apply where none of these fields is there; nothing is known where there are none.
    needs: Vec<FieldId>,
}

#[derive(Clone, Debug)]
struct CompiledRule {
    metric: String,
    matcher: CompiledMatch,
    /// What of the conditions is left to be looked at once the rule has been chosen.
    rest: CompiledMatch,
    action: Action,
    family: FamilyId,
    value: Option<CompiledValue>,
    labels: Vec<CompiledLabel>,
    /// The series of each combination of label values, once it is known. Empty where a label is open.
    table: Vec<Option<SeriesId>>,
    exemplar: Vec<(String, Vec<FieldId>)>,
    watch: Option<WatchId>,
    /// Counts how often it applied.
    hits: Option<SeriesId>,
}

/// What a record that matches does.
#[derive(Clone, Debug)]
enum Action {
    Add,
    Set,
    Observe,
    Start(PairsId, Vec<FieldId>),
    Finish(PairsId, Vec<FieldId>),
}

#[derive(Clone, Debug)]
struct CompiledValue {
    fields: Vec<FieldId>,
    unit: Unit,
    since: Option<FieldId>,
}

// === impl RuleSet ===

impl RuleSet {
    /// The paths of the fields that the rules look at; a record answers by their positions.
    #[must_use]
    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    /// Asks for a field that no rule needs, so that a record can tell it.
    pub fn want(&mut self, field: &str) {
        self.field(field);
    }

    /// The names of all metrics that they make.
    #[must_use]
    pub fn metrics(&self) -> &[String] {
        &self.metrics
    }

    /// Runs all rules on a record. Returns how many applied.
    pub fn apply<R: Record>(&mut self, record: &R, families: &mut Families) -> usize {
        let Self { rules, dispatch, otherwise, time, .. } = self;
        let chosen = dispatch.as_ref().and_then(|Dispatch { field, by_value }| by_value.get(&record.get(*field).text()?));
        let mut hits = 0;
        for Choice { rule, needs } in chosen.unwrap_or(otherwise) {
            if needs.is_empty() || needs.iter().any(|field| record.has(*field)) {
                hits += usize::from(rules[*rule].apply(record, *time, families));
            }
        }
        hits
    }
}

// === impl CompiledRule ===

impl CompiledRule {
    fn apply<R: Record>(&mut self, record: &R, time: Option<FieldId>, families: &mut Families) -> bool {
        if !self.rest.holds(record) {
            return false;
        }
        match &self.action {
            Action::Start(pairs, fields) => {
                let Some(key) = key(record, fields) else { return false };
                families.start(*pairs, key, own_time(record, time));
            }
            Action::Finish(pairs, fields) => {
                let Some(key) = key(record, fields) else { return false };
                let pairs = *pairs;
                let (series, exemplar) = (self.series(record, time, families), self.ids(record));
                families.finish(Finish { pairs, key, time: own_time(record, time), series, exemplar });
            }
            Action::Add | Action::Set | Action::Observe => {
                let Some(amount) = self.amount(record) else { return false };
                self.count(record, amount, time, families);
            }
        }
        if let Some(watch) = self.watch {
            families.saw(watch, own_time(record, time));
        }
        if let Some(hits) = self.hits {
            families.add(hits, 1.0);
        }
        true
    }

    /// What it adds, sets or observes; `None` where the record has no such number.
    fn amount<R: Record>(&self, record: &R) -> Option<f64> {
        let amount = match &self.value {
            None => 1.0,
            Some(value) => value.of(record)?,
        };
        // A counter never goes back.
        (amount >= 0.0 || !matches!(self.action, Action::Add)).then_some(amount)
    }

    fn count<R: Record>(&mut self, record: &R, amount: f64, time: Option<FieldId>, families: &mut Families) {
        let series = self.series(record, time, families);
        match self.action {
            Action::Add => families.add(series, amount),
            Action::Set => families.set(series, amount),
            Action::Observe => families.observe(series, amount),
            Action::Start(..) | Action::Finish(..) => {}
        }
        if !self.exemplar.is_empty() && families.wants_exemplar(series, amount) {
            let labels = self.ids(record);
            if !labels.is_empty() {
                families.set_exemplar(series, amount, labels);
            }
        }
    }

    /// What an exemplar tells; nothing where it would be longer than OpenMetrics allows.
    fn ids<R: Record>(&self, record: &R) -> Vec<(String, String)> {
        let ids: Vec<(String, String)> =
            self.exemplar.iter().filter_map(|(name, fields)| Some((name.clone(), id(record, fields)?))).collect();
        let length: usize = ids.iter().map(|(name, value)| name.chars().count() + value.len()).sum();
        if length <= MAX_EXEMPLAR { ids } else { Vec::new() }
    }

    fn series<R: Record>(&mut self, record: &R, time: Option<FieldId>, families: &mut Families) -> SeriesId {
        if self.table.is_empty() {
            let mut texts: Vec<Cow<'_, str>> = Vec::with_capacity(self.labels.len());
            for label in &self.labels {
                let (text, is_too_long) = label.text(record);
                texts.push(text);
                if is_too_long {
                    families.note_too_long(self.family);
                }
            }
            let labels: Vec<&str> = texts.iter().map(|text| &**text).collect();
            return families.series_since(self.family, &labels, own_time(record, time));
        }
        let (mut place, mut stride) = (0, 1);
        for label in &mut self.labels {
            place += label.number(record) * stride;
            stride *= label.values.len();
        }
        if let Some(series) = self.table[place] {
            return series;
        }
        let series = families.series_since(self.family, &self.labels_at(place), own_time(record, time));
        if families.is_lasting(series) {
            self.table[place] = Some(series);
        }
        series
    }

    fn labels_at(&self, mut place: usize) -> Vec<&str> {
        let mut labels = Vec::with_capacity(self.labels.len());
        for label in &self.labels {
            labels.push(label.values[place % label.values.len()].as_str());
            place /= label.values.len();
        }
        labels
    }
}

/// The key of a pair, as a number: two keys of a run never have the same one by accident.
fn key<R: Record>(record: &R, fields: &[FieldId]) -> Option<u128> {
    first(record, fields)?.text().filter(|text| !text.is_empty()).map(|text| xxh3_128(text.as_bytes()))
}

/// An id for an exemplar. Free text is none.
fn id<R: Record>(record: &R, fields: &[FieldId]) -> Option<String> {
    let value = first(record, fields)?;
    let text = value.text()?;
    let is_id = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/');
    (!text.is_empty() && text.len() <= MAX_ID && text.bytes().all(is_id)).then(|| text.into_owned())
}

/// The record's own time, in milliseconds since the epoch.
fn own_time<R: Record>(record: &R, time: Option<FieldId>) -> Option<i64> {
    match record.get(time?) {
        Value::Time(millis) => Some(millis),
        _ => None,
    }
}

// === impl CompiledValue ===

impl CompiledValue {
    fn of<R: Record>(&self, record: &R) -> Option<f64> {
        let amount = first(record, &self.fields)?.quantity(self.unit)?;
        match self.since {
            None => Some(amount),
            Some(since) => Some(amount - record.get(since).quantity(self.unit)?).filter(|amount| *amount >= 0.0),
        }
    }
}

#[cfg(test)]
mod tests;
