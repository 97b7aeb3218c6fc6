//! A line of text that some logger wrote, taken apart: time, level, message, and fields by name. Pure.
//!
//! `grammar` knows the forms, `pairs` the `key=value` within them. Knows nothing of rules.

pub mod ansi;
pub mod grammar;
pub mod pairs;

use std::borrow::Cow;

use crate::logs::console::Console;
use crate::logs::slot::{lossy, unescape};
use crate::logs::text::pairs::{Pairs, Written};
use crate::series::record::Value;

/// The most fields that a form has at fixed places.
const MAX_NAMED: usize = 8;

/// A line of text, taken apart. What is absent is empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Text<'a> {
    /// What the form is called.
    pub form: &'static str,
    /// The time, as it is written.
    pub time: &'a [u8],
    /// The level, as it is written.
    pub level: &'a [u8],
    /// What it says.
    pub message: &'a [u8],
    /// The other fields.
    pub fields: Fields<'a>,
    named: [(&'static str, &'a [u8]); MAX_NAMED],
}

/// Fields by name, in one of several forms.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Fields<'a> {
    /// There are none.
    #[default]
    None,
    /// `key=value key="quoted value"`
    Logfmt(&'a [u8]),
    /// `key=value with spaces key=value`
    Structlog(&'a [u8]),
}

// === impl Text ===

impl<'a> Text<'a> {
    /// The same with a field at a fixed place, if it is not empty.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &'a [u8]) -> Self {
        if !value.is_empty()
            && let Some(free) = self.named.iter_mut().find(|(taken, _)| taken.is_empty())
        {
            *free = (name, value);
        }
        self
    }

    /// The first of these fields that the line has and that is not null.
    #[must_use]
    pub fn get(&self, names: &[&str]) -> Value<'a> {
        for name in names {
            if let Some((_, value)) = self.named.iter().find(|(named, _)| named == name) {
                return plain(value);
            }
            // As in JSON, the last one counts.
            if let Some((_, value)) = self.pairs().filter(|(key, _)| *key == name.as_bytes()).last() {
                match read(value) {
                    Value::Null => {}
                    value => return value,
                }
            }
        }
        Value::Null
    }

    /// All fields but time, level and message, in their order.
    pub fn all(&self) -> impl Iterator<Item = (Cow<'a, str>, Value<'a>)> {
        let named = self.named.into_iter().filter(|(name, _)| !name.is_empty()).map(|(name, value)| (Cow::Borrowed(name), plain(value)));
        named.chain(self.pairs().map(|(name, value)| (lossy(name), read(value))))
    }

    fn pairs(&self) -> Pairs<'a> {
        match self.fields {
            Fields::None => Pairs::logfmt(b""),
            Fields::Logfmt(text) => Pairs::logfmt(text),
            Fields::Structlog(text) => Pairs::structlog(text),
        }
    }
}

impl<'a> From<Console<'a>> for Text<'a> {
    /// Its fields are JSON, which is scanned elsewhere.
    fn from(console: Console<'a>) -> Self {
        let Console { time, level, caller, message, .. } = console;
        Self { form: "console", time, level, message, ..Self::default() }.with("caller", caller)
    }
}

fn read<'a>(written: Written<'a>) -> Value<'a> {
    match written {
        Written::Plain(value) => plain(value),
        Written::Quoted(value) => Value::Text(lossy(value)),
        Written::Escaped(value) => {
            let mut decoded = Vec::with_capacity(value.len());
            unescape(value, &mut decoded);
            Value::Text(Cow::Owned(String::from_utf8_lossy(&decoded).into_owned()))
        }
    }
}

/// What stands there without quotes may be a number, a truth or nothing at all.
fn plain(value: &[u8]) -> Value<'_> {
    match value {
        b"" | b"null" | b"nil" | b"None" | b"<nil>" => Value::Null,
        b"true" | b"True" => Value::Bool(true),
        b"false" | b"False" => Value::Bool(false),
        [b'-' | b'0'..=b'9', ..] => match std::str::from_utf8(value) {
            Ok(text) if text.parse::<f64>().is_ok() => Value::Digits(text),
            _ => Value::Text(lossy(value)),
        },
        _ => Value::Text(lossy(value)),
    }
}
