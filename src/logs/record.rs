//! A line as rules see it: the names that all dialects share, and the fields as the line has them.
//!
//! `time`, `level` and `message` are the same whichever logger wrote the line; every other path is taken as it is.
//! Knows nothing of how a line was found.

use std::borrow::Cow;

use crate::logs::level::level_name;
use crate::logs::slot::{Kind, Slot, lossy};
use crate::logs::text::Text;
use crate::logs::time::epoch_millis;
use crate::logs::wanted::{SlotId, Wanted};
use crate::series::record::{FieldId, Record, Value};

/// What loggers call the time. The first one that the line has counts; so for the other two.
const TIMES: [&str; 3] = ["time", "ts", "timestamp"];
/// What loggers call the level.
const LEVELS: [&str; 3] = ["level", "severity", "lvl"];
/// What loggers call the message.
const MESSAGES: [&str; 3] = ["message", "msg", "event"];

/// Where each field that the rules ask for is to be found.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the scanner looks for.
    pub wanted: Wanted,
    sources: Vec<Source>,
}

#[derive(Clone, Debug)]
enum Source {
    Time(Vec<SlotId>),
    Level(Vec<SlotId>),
    Message(Vec<SlotId>),
    Caller(Vec<SlotId>),
    Agent(Vec<SlotId>),
    Field(Vec<SlotId>, String),
}

/// One decoded line.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Where its fields are.
    pub plan: &'a Plan,
    /// The JSON that `slots` points into.
    pub json: &'a [u8],
    /// What the scanner found.
    pub slots: &'a [Slot],
    /// The parts of a line of text, whose JSON has at most the other fields.
    pub text: Option<&'a Text<'a>>,
    /// The id in a prefix `[agent <id>] `.
    pub agent: Option<&'a [u8]>,
}

// === impl Plan ===

impl Plan {
    /// Prepares the fields that rules ask for, in their order.
    #[must_use]
    pub fn new(fields: &[String]) -> Self {
        let mut wanted = Wanted::new();
        let sources = fields.iter().map(|field| Source::new(field, &mut wanted)).collect();
        Self { wanted, sources }
    }
}

// === impl Source ===

impl Source {
    fn new(field: &str, wanted: &mut Wanted) -> Self {
        let mut all = |names: &[&str]| names.iter().map(|name| wanted.want(&[name])).collect();
        match field {
            "time" => Self::Time(all(&TIMES)),
            "level" => Self::Level(all(&LEVELS)),
            "message" => Self::Message(all(&MESSAGES)),
            "caller" => Self::Caller(all(&[field])),
            "agent" => Self::Agent(all(&[field])),
            // `http.status` is a path, and in some dialects a key that has a dot.
            _ if field.contains('.') => {
                let path: Vec<&str> = field.split('.').collect();
                Self::Field(vec![wanted.want(&path), wanted.want(&[field])], field.to_owned())
            }
            _ => Self::Field(all(&[field]), field.to_owned()),
        }
    }
}

// === impl Line ===

impl<'a> Line<'a> {
    #[inline]
    fn slot(&self, slots: &[SlotId]) -> Option<&'a Slot> {
        let found = slots.iter().map(|slot| &self.slots[*slot]);
        found.into_iter().find(|slot| !matches!(slot.kind, Kind::Missing | Kind::Null))
    }

    #[inline]
    fn value(&self, slots: &[SlotId]) -> Value<'a> {
        let Some(slot) = self.slot(slots) else { return Value::Null };
        match slot.kind {
            Kind::Missing | Kind::Null => Value::Null,
            Kind::True => Value::Bool(true),
            Kind::False => Value::Bool(false),
            // A number that was scanned has only ASCII.
            Kind::Number => std::str::from_utf8(slot.raw(self.json)).map_or(Value::Null, Value::Digits),
            Kind::Text | Kind::Escaped => slot.text(self.json).map_or(Value::Null, Value::Text),
            Kind::Composite => Value::Composite,
        }
    }

    /// A field of the text, or of its JSON.
    #[inline]
    fn named(&self, slots: &[SlotId], name: &str) -> Value<'a> {
        match self.text.map_or(Value::Null, |text| text.get(&[name])) {
            Value::Null => self.value(slots),
            value => value,
        }
    }

    fn level(&self, slots: &[SlotId]) -> Value<'a> {
        let text = match self.text {
            Some(text) if !text.level.is_empty() => Some(Cow::Borrowed(text.level)),
            Some(text) => text.get(&LEVELS).text().map(|level| Cow::Owned(level.into_owned().into_bytes())),
            None => self.slot(slots).and_then(|slot| match slot.kind {
                Kind::Number | Kind::Text => Some(Cow::Borrowed(slot.raw(self.json))),
                _ => slot.text(self.json).map(|text| Cow::Owned(text.into_owned().into_bytes())),
            }),
        };
        match text {
            None => Value::Null,
            Some(text) => match level_name(&text) {
                Some(name) => Value::Text(name.into()),
                None => Value::Text(String::from_utf8_lossy(&text).to_ascii_lowercase().into()),
            },
        }
    }

    fn time(&self, slots: &[SlotId]) -> Value<'a> {
        let millis = match self.text {
            Some(text) if !text.time.is_empty() => epoch_millis(&lossy(text.time)),
            Some(text) => text.get(&TIMES).text().and_then(|time| epoch_millis(&time)),
            None => self.value(slots).text().and_then(|text| epoch_millis(&text)),
        };
        millis.map_or(Value::Null, Value::Time)
    }
}

fn text(bytes: &[u8]) -> Value<'_> {
    Value::Text(lossy(bytes))
}

impl Record for Line<'_> {
    #[inline]
    fn get(&self, field: FieldId) -> Value<'_> {
        match (&self.plan.sources[field], self.text) {
            (Source::Time(slots), _) => self.time(slots),
            (Source::Level(slots), _) => self.level(slots),
            (Source::Message(_), Some(line)) if !line.message.is_empty() => text(line.message),
            (Source::Message(_), Some(line)) => line.get(&MESSAGES),
            (Source::Agent(slots), _) => match (self.slot(slots), self.agent) {
                (None, Some(agent)) => text(agent),
                _ => self.named(slots, "agent"),
            },
            (Source::Caller(slots), _) => self.named(slots, "caller"),
            (Source::Field(slots, name), _) => self.named(slots, name),
            (Source::Message(slots), None) => self.value(slots),
        }
    }

    #[inline]
    fn has(&self, field: FieldId) -> bool {
        match (&self.plan.sources[field], self.text) {
            (Source::Field(slots, _), None) => self.slot(slots).is_some(),
            _ => !matches!(self.get(field), Value::Null),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::scanner::scan;

    #[track_caller]
    fn check(line: &str, field: &str, expected: Value<'_>) {
        let plan = Plan::new(&[field.to_owned()]);
        let mut slots = vec![Slot::default(); plan.wanted.slots()];
        scan(&plan.wanted, line.as_bytes(), &mut slots).unwrap();
        let line = Line { plan: &plan, json: line.as_bytes(), slots: &slots, text: None, agent: None };
        assert_eq!(line.get(0), expected);
    }

    #[test]
    fn the_dialects_share_their_names() {
        for (line, level) in [
            (r#"{"severity":"WARN"}"#, "warn"),
            (r#"{"level":"warning"}"#, "warn"),
            (r#"{"level":50}"#, "error"),
            (r#"{"level":"DPANIC"}"#, "fatal"),
            (r#"{"level":"\u0045RROR"}"#, "error"),
            (r#"{"level":"Notice"}"#, "notice"),
            (r#"{"level":null,"severity":"INFO"}"#, "info"),
        ] {
            check(line, "level", Value::Text(level.into()));
        }
        for line in [r#"{"message":"m"}"#, r#"{"msg":"m"}"#, r#"{"event":"m"}"#, r#"{"event":{},"message":"m"}"#] {
            check(line, "message", Value::Text("m".into()));
        }
        check(r#"{"severity":"WARN"}"#, "severity", Value::Text("WARN".into()));
        check(r#"{"level":{}}"#, "level", Value::Null);
        check(r#"{"ts":"2026-04-04T09:00:01.733Z"}"#, "time", Value::Time(1_775_293_201_733));
    }

    #[test]
    fn a_path_may_be_a_key_with_a_dot() {
        check(r#"{"http":{"status":503}}"#, "http.status", Value::Digits("503"));
        check(r#"{"http.status":503}"#, "http.status", Value::Digits("503"));
        check(r#"{"http":503}"#, "http.status", Value::Null);
    }
}
