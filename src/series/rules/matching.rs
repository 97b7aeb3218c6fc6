//! Conditions of rules: whether a record fulfils them. Pure.

use std::collections::BTreeSet;

use crate::config::rules::Test;
use crate::series::record::{FieldId, Record, Value};

/// Conditions that are ready to run.
#[derive(Clone, Debug, Default)]
pub(super) struct CompiledMatch {
    pub(super) all: Vec<(FieldId, Test)>,
    pub(super) any: Vec<CompiledMatch>,
    pub(super) none: Vec<CompiledMatch>,
}

/// What a record must have, or conditions cannot hold: one of the values, or one of the fields.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Of the field that rules are chosen by.
    pub(super) values: BTreeSet<String>,
    pub(super) present: Vec<FieldId>,
}

// === impl CompiledMatch ===

impl CompiledMatch {
    /// Whether a record fulfils all of it.
    pub(super) fn holds<R: Record>(&self, record: &R) -> bool {
        self.all.iter().all(|(field, test)| holds(test, &record.get(*field)))
            && (self.any.is_empty() || self.any.iter().any(|alternative| alternative.holds(record)))
            && !self.none.iter().any(|excluded| excluded.holds(record))
    }

    /// What it needs at least; `None` where it may hold for any record. `chosen` is the field that rules are chosen by.
    pub(super) fn needs(&self, chosen: Option<FieldId>) -> Option<Needs> {
        if let Some((_, values)) = self.exact().find(|(field, _)| Some(*field) == chosen) {
            // A value that is written twice must not count a record twice.
            return Some(Needs { values: values.iter().cloned().collect(), present: Vec::new() });
        }
        let alternatives = || -> Option<Needs> {
            let mut all = Needs::default();
            for alternative in &self.any {
                let Needs { values, present } = alternative.needs(chosen)?;
                all.values.extend(values);
                all.present.extend(present);
            }
            Some(all).filter(|_| !self.any.is_empty())
        };
        let has_to_be_there = |test: &Test| !matches!(test, Test::Absent | Test::Not(_));
        let present = self.all.iter().find(|(_, test)| has_to_be_there(test)).map(|(field, _)| *field);
        let by_field = present.map(|field| Needs { values: BTreeSet::new(), present: vec![field] });
        match alternatives() {
            // A value tells more than a field that is there.
            Some(needs) if needs.present.is_empty() => Some(needs),
            needs => by_field.or(needs),
        }
    }

    /// What is left where a field has one of the values that the first exact condition on it asks for.
    pub(super) fn without_exact(&self, field: FieldId) -> Self {
        let mut rest = self.clone();
        let is_exact = |(other, test): &(FieldId, Test)| *other == field && matches!(test, Test::OneOf(_));
        if let Some(position) = rest.all.iter().position(is_exact) {
            rest.all.remove(position);
        }
        rest
    }

    /// The fields whose exact value it asks for.
    pub(super) fn exact(&self) -> impl Iterator<Item = (FieldId, &[String])> {
        self.all.iter().filter_map(|(field, test)| match test {
            Test::OneOf(values) => Some((*field, values.as_slice())),
            _ => None,
        })
    }
}

/// Whether a value fulfils a test. One that is missing or null fulfils only [`Test::Absent`], and what negates another.
pub(super) fn holds(test: &Test, value: &Value<'_>) -> bool {
    let is_any = |texts: &[String], test: fn(&str, &str) -> bool| {
        value.text().is_some_and(|found| texts.iter().any(|text| test(&found, text.as_str())))
    };
    match test {
        Test::Absent => matches!(value, Value::Null),
        Test::Present => !matches!(value, Value::Null),
        Test::OneOf(texts) => is_any(texts, |found, text| found == text),
        Test::Prefix(texts) => is_any(texts, |found, text| found.starts_with(text)),
        Test::Contains(texts) => is_any(texts, |found, text| found.contains(text)),
        Test::Regex(regexes) => value.text().is_some_and(|found| regexes.iter().any(|regex| regex.is_match(&found))),
        Test::Not(tests) => !tests.iter().all(|test| holds(test, value)),
        Test::Compare { comparison, bound, unit } => value.quantity(*unit).is_some_and(|number| comparison.holds(number, *bound)),
    }
}
