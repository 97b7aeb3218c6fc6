//! Labels of rules: a record in, the number or the text of a label value out. Pure.

use std::borrow::Cow;

use crate::series::record::{FieldId, Record, Value, first};
use crate::series::texts::{Memo, Texts};

/// A value of a label that is longer counts as any other: paths of an application stay below it.
const MAX_VALUE: usize = 128;

/// A label that is ready to run.
#[derive(Clone, Debug)]
pub(super) struct CompiledLabel {
    pub(super) name: String,
    pub(super) fields: Vec<FieldId>,
    pub(super) mapping: CompiledMapping,
    /// All values of a closed label; the last one is for everything else.
    pub(super) values: Vec<String>,
}

/// Words that a text may hold.
pub(super) type Words = Vec<memchr::memmem::Finder<'static>>;

/// How a field's text becomes a value.
#[derive(Clone, Debug)]
pub(super) enum CompiledMapping {
    Constant,
    /// The number of the value for each text.
    Exact(Texts<usize>),
    /// The number of the value for each list of words, and what was found for the last texts.
    Classify(Vec<(usize, Words)>, Memo),
    PathTemplate,
}

// === impl CompiledLabel ===

impl CompiledLabel {
    /// Whether its values are not known beforehand.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.mapping, CompiledMapping::PathTemplate)
    }

    /// The number of the value. What is missing, null or not in the set has the last one.
    #[inline]
    pub(super) fn number<R: Record>(&mut self, record: &R) -> usize {
        let otherwise = self.values.len() - 1;
        match &mut self.mapping {
            CompiledMapping::Classify(classes, memo) => {
                let value = first(record, &self.fields);
                let text = value.as_ref().and_then(Value::text);
                text.map_or(otherwise, |text| memo.get(text.as_bytes(), || class_of(classes, &text).unwrap_or(otherwise)))
            }
            _ => self.find(record),
        }
    }

    /// The same, without what was found before.
    fn find<R: Record>(&self, record: &R) -> usize {
        let otherwise = self.values.len() - 1;
        if matches!(self.mapping, CompiledMapping::Constant) {
            return 0;
        }
        let Some(value) = first(record, &self.fields) else { return otherwise };
        let Some(text) = value.text() else { return otherwise };
        let number = match &self.mapping {
            CompiledMapping::Exact(numbers) => numbers.get(&text).copied(),
            CompiledMapping::Classify(classes, _) => class_of(classes, &text),
            CompiledMapping::Constant | CompiledMapping::PathTemplate => None,
        };
        number.unwrap_or(otherwise)
    }

    /// The value, and whether the text of the field was too long to be one.
    pub(super) fn text<R: Record>(&self, record: &R) -> (Cow<'_, str>, bool) {
        let otherwise = || Cow::Borrowed(self.values[self.values.len() - 1].as_str());
        if !self.is_open() {
            return (self.values[self.find(record)].as_str().into(), false);
        }
        let path = first(record, &self.fields).and_then(|value| value.text().map(|path| path_template(&path)));
        match path {
            Some(path) if path.len() <= MAX_VALUE => (path.into(), false),
            Some(_) => (otherwise(), true),
            None => (otherwise(), false),
        }
    }
}

/// The first class of which a text holds a word.
fn class_of(classes: &[(usize, Words)], text: &str) -> Option<usize> {
    let has_any = |words: &Words| words.iter().any(|word| word.find(text.as_bytes()).is_some());
    classes.iter().find(|(_, words)| has_any(words)).map(|(number, _)| *number)
}

/// Replaces what varies in a path: numbers, ids of 8 or more hexadecimal digits, UUIDs, and any segment of more than
/// 40 bytes, become `{id}`. The query is cut off.
fn path_template(path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let varies = |segment: &str| {
        let mut bytes = segment.bytes();
        let is_number = !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit());
        let is_id = segment.len() >= 8
            && segment.bytes().any(|byte| byte.is_ascii_digit())
            && bytes.all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        is_number || is_id || segment.len() > 40
    };
    path.split('/').map(|segment| if varies(segment) { "{id}" } else { segment }).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::path_template;

    #[test]
    fn paths_lose_what_varies() {
        for (path, template) in [
            ("/api/v1/projects/69d0f3a1c2b4e5f60718293a/discover?x=1", "/api/v1/projects/{id}/discover"),
            ("/runs/42", "/runs/{id}"),
            ("/a/550e8400-e29b-41d4-a716-446655440000", "/a/{id}"),
            ("/health/ready", "/health/ready"),
            ("/feedback/deadbeef", "/feedback/deadbeef"),
            ("", ""),
        ] {
            assert_eq!(path_template(path), template);
        }
    }
}
