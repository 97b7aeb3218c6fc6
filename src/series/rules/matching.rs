//! Conditions of rules: whether a record fulfils them. Pure.

use crate::config::rules::Test;
use crate::series::record::{FieldId, Record, Value};

/// Conditions that are ready to run.
#[derive(Clone, Debug, Default)]
pub(super) struct CompiledMatch {
    pub(super) all: Vec<(FieldId, Test)>,
    pub(super) any: Vec<CompiledMatch>,
    pub(super) none: Vec<CompiledMatch>,
}

// === impl CompiledMatch ===

impl CompiledMatch {
    /// Whether a record fulfils all of it.
    pub(super) fn holds<R: Record>(&self, record: &R) -> bool {
        self.all.iter().all(|(field, test)| holds(test, &record.get(*field)))
            && (self.any.is_empty() || self.any.iter().any(|alternative| alternative.holds(record)))
            && !self.none.iter().any(|excluded| excluded.holds(record))
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
