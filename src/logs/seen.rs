//! What the decoder saw in a line, for people who ask why. Only filled when somebody does.

use serde_json::{Map, Value as Json};

use crate::logs::framing::Frame;
use crate::logs::record::Line;
use crate::series::record::{Record as _, Value};
use crate::series::rules::{Explained, RuleSet};

/// What was found in a line, from the outside to the inside.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// What stood around the record, and what form that has.
    pub layers: Vec<String>,
    /// The record, where there was one.
    pub record: Option<SeenRecord>,
}

/// A record as the rules have seen it.
#[derive(Clone, Debug)]
pub struct SeenRecord {
    /// The names that all dialects share, of those that the line has: time (milliseconds since the epoch), level,
    /// message, caller, agent.
    pub common: Vec<(&'static str, String)>,
    /// All fields, as the line has them.
    pub fields: Map<String, Json>,
    /// What each rule makes of it.
    pub rules: Vec<Explained>,
}

/// The names that all dialects share.
pub(super) const COMMON: [&str; 5] = ["time", "level", "message", "caller", "agent"];

// === impl Seen ===

impl Seen {
    /// A part of a line came in the frame of a runtime.
    pub(super) fn frame(&mut self, runtime: &str, frame: Frame) {
        let stream = if frame.is_stderr { "stderr" } else { "stdout" };
        self.layers.push(format!("{runtime} ({stream}, {})", if frame.is_partial { "a part" } else { "whole" }));
    }

    /// A record is about to be counted by rules that ask for [`COMMON`], too.
    pub(super) fn record(&mut self, line: &Line<'_>, rules: &RuleSet) {
        self.layers.push(line.text.map_or("JSON", |text| text.form).to_owned());
        let common = COMMON.into_iter().filter_map(|name| {
            let field = rules.fields().iter().position(|field| field == name)?;
            match line.get(field) {
                Value::Time(millis) => Some((name, millis.to_string())),
                value => value.text().map(|text| (name, text.into_owned())),
            }
        });
        let common = common.collect();
        let fields = match line.text {
            Some(text) if line.json.is_empty() => text.all().map(|(name, value)| (name.into_owned(), to_json(value))).collect(),
            _ => serde_json::from_str(&String::from_utf8_lossy(line.json)).unwrap_or_default(),
        };
        self.record = Some(SeenRecord { common, fields, rules: rules.explain(line) });
    }
}

fn to_json(value: Value<'_>) -> Json {
    match value {
        Value::Bool(is_true) => is_true.into(),
        // `007` is a number for rules, and none in JSON.
        Value::Digits(digits) => serde_json::from_str(digits).unwrap_or_else(|_| digits.into()),
        value => value.text().map_or(Json::Null, |text| text.into_owned().into()),
    }
}
