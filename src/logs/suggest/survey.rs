//! What the lines of a log have in common. Pure and bounded.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use crate::logs::seen::SeenRecord;
use crate::logs::suggest::Values;
use crate::units::{Unit, parse_quantity};

/// More different messages are not told apart.
const MAX_GROUPS: usize = 2000;
/// More fields of a message are not looked at.
const MAX_FIELDS: usize = 64;
/// A longer line is no good example.
const MAX_LINE: usize = 4096;
/// How deep fields within fields are looked for.
const MAX_DEPTH: usize = 3;
/// From this severity on, a message is worth a metric of its own.
pub(super) const WARNING: u8 = 2;

/// What was found in a log.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// How many lines were records.
    pub records: u64,
    pub(super) levels: BTreeMap<String, u64>,
    pub(super) services: Values,
    pub(super) groups: BTreeMap<Key, Group>,
    pub(super) first_line: Option<String>,
}

/// What messages begin with, or are.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Key {
    pub(super) text: String,
    /// What follows varies.
    pub(super) is_prefix: bool,
}

/// The lines of one message.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) count: u64,
    /// The highest one: 0 without a level, 1 info and below, 2 warning, 3 error, 4 fatal.
    pub(super) severity: u8,
    pub(super) fields: BTreeMap<String, Field>,
    /// One of them.
    pub(super) line: Option<String>,
}

/// What a field tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Field {
    pub(super) numbers: u64,
    pub(super) fractions: u64,
    /// Texts such as `5m23s`.
    pub(super) durations: u64,
    pub(super) others: u64,
    pub(super) values: Values,
}

// === impl Survey ===

impl Survey {
    /// Takes a record into account.
    pub fn add(&mut self, record: &SeenRecord, line: &[u8]) {
        self.records += 1;
        let common = |name: &str| record.common.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
        let level = common("level").filter(|level| level.len() <= 16 && level.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        if let Some(level) = level.filter(|level| self.levels.len() < 16 || self.levels.contains_key(*level)) {
            *self.levels.entry(level.to_owned()).or_default() += 1;
        }
        if let Some(service) = record.fields.get("service").and_then(Json::as_str) {
            self.services.add(service);
        }
        let line = String::from_utf8(line.to_vec()).ok().filter(|line| is_example(line));
        if self.first_line.is_none() {
            self.first_line.clone_from(&line);
        }
        let Some(message) = common("message") else { return };
        let key = Key::of(message);
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&key) {
            return;
        }
        let group = self.groups.entry(key).or_default();
        group.count += 1;
        group.severity = group.severity.max(severity(level));
        if group.line.is_none() {
            group.line = line;
        }
        group.add(&record.fields, "", 0);
    }
}

// === impl Key ===

impl Key {
    /// The part of a message before the first word that looks like a value.
    fn of(message: &str) -> Self {
        let varies = |word: &str| {
            word.len() > 32 || word.contains(|character: char| character.is_ascii_digit() || "\"'/=<>{}[]()@\\".contains(character))
        };
        let mut end = 0;
        for word in message.split_inclusive(' ') {
            if varies(word.trim_end()) {
                return Self { text: message[..end].to_owned(), is_prefix: true };
            }
            end += word.len();
            // What follows a colon is mostly the text of an error.
            if word.ends_with(": ") {
                return Self { text: message[..end].to_owned(), is_prefix: end < message.len() };
            }
        }
        Self { text: message.to_owned(), is_prefix: false }
    }

    /// Whether it says enough, and can stand in a configuration.
    pub(super) fn can_be_matched(&self) -> bool {
        let is_plain = !self.text.contains("${") && !self.text.chars().any(char::is_control);
        is_plain && self.text.len() <= 200 && self.text.bytes().filter(u8::is_ascii_alphabetic).count() >= 4
    }
}

// === impl Group ===

impl Group {
    fn add(&mut self, fields: &Map<String, Json>, above: &str, depth: usize) {
        for (name, value) in fields {
            let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
            if let Json::Object(inner) = value
                && depth < MAX_DEPTH
            {
                self.add(inner, &path, depth + 1);
            } else if self.fields.len() < MAX_FIELDS || self.fields.contains_key(&path) {
                self.fields.entry(path).or_default().add(value);
            }
        }
    }
}

// === impl Field ===

impl Field {
    fn add(&mut self, value: &Json) {
        match value {
            Json::Number(number) => {
                self.numbers += 1;
                self.fractions += u64::from(!number.is_i64() && !number.is_u64());
                self.values.add(&number.to_string());
            }
            Json::String(text) => {
                let is_duration = text.parse::<f64>().is_err() && parse_quantity(text, Unit::S).is_some();
                self.durations += u64::from(is_duration);
                self.others += u64::from(!is_duration);
                self.values.add(text);
            }
            Json::Null => {}
            Json::Bool(_) | Json::Array(_) | Json::Object(_) => self.others += 1,
        }
    }
}

fn severity(level: Option<&str>) -> u8 {
    match level {
        None => 0,
        Some("fatal") => 4,
        Some("error") => 3,
        Some("warn") => WARNING,
        Some(_) => 1,
    }
}

/// Whether a line can stand in a configuration.
fn is_example(line: &str) -> bool {
    line.len() <= MAX_LINE
        && !line.contains("${")
        && !line.chars().any(|character| character.is_control() && character != '\t' && character != '\x1b')
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn what_varies_in_a_message_is_left_out() {
        for (message, text, is_prefix) in [
            ("Discovery run completed", "Discovery run completed", false),
            ("Indexed 128 files in 4.2s", "Indexed ", true),
            ("Unhandled exception in POST /api/v1/search", "Unhandled exception in POST ", true),
            ("failed to connect: no such host", "failed to connect: ", true),
            ("Retry:", "Retry:", false),
            ("42", "", true),
            ("", "", false),
        ] {
            assert_eq!(Key::of(message), Key { text: text.to_owned(), is_prefix }, "{message}");
        }
        assert!(!Key::of("42").can_be_matched());
        let variable = Key { text: "cost ${X}".to_owned(), is_prefix: false };
        assert!(!variable.can_be_matched(), "a configuration would fill it in");
    }
}
