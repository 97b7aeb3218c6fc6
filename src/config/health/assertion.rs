//! What an answer must be: statuses, and values on paths of a JSON body. Pure.

use std::fmt;
use std::ops::RangeInclusive;

use serde_json::Value;

use crate::config::values::Texts;

/// As much of a value as a message shows: the word that was wrong, and not what a stranger wants to write there.
const SHOWN: usize = 100;

/// A set of HTTP statuses.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Statuses(Vec<RangeInclusive<u16>>);

/// What one place of a JSON body must say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Assertion {
    /// Keys and positions with dots between them, or a JSON pointer, which begins with a slash.
    path: String,
    /// The values that pass, as texts; `*` stands for any but null.
    any_of: Vec<String>,
}

/// Why a body does not say what it must. Shows a path of the configuration and at most the value that stands there.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Mismatch {
    /// There is nothing on the path.
    #[error("{0} is missing")]
    Missing(String),
    /// There is something else.
    #[error("{path} is {found}")]
    Other {
        /// The path.
        path: String,
        /// What stands there, shortened.
        found: String,
    },
}

// === impl Statuses ===

impl Statuses {
    /// What the kubelet takes for a success.
    #[must_use]
    pub fn successes() -> Self {
        Self(vec![200..=399])
    }

    /// Reads `204`, `200..299`, `200-299` and `2xx`; `None` when one of the texts is none of these.
    #[must_use]
    pub fn parse(texts: &Texts) -> Option<Self> {
        texts.0.iter().map(|text| range(text.trim())).collect::<Option<Vec<_>>>().map(Self)
    }

    /// Whether this status is one of them.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let status = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    if let Some(hundreds) = text.to_ascii_lowercase().strip_suffix("xx") {
        let first = status(&format!("{hundreds}00"))?;
        return Some(first..=first + 99);
    }
    match text.split_once("..").or_else(|| text.split_once('-')) {
        Some((first, last)) => {
            let (first, last) = (status(first)?, status(last.trim_start_matches('='))?);
            (first <= last).then_some(first..=last)
        }
        None => status(text).map(|status| status..=status),
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self
            .0
            .iter()
            .map(
                |range| {
                    if range.start() == range.end() { range.start().to_string() } else { format!("{}..{}", range.start(), range.end()) }
                },
            )
            .collect();
        formatter.write_str(&texts.join(", "))
    }
}

// === impl Assertion ===

impl Assertion {
    /// What stands on `path` must be one of these.
    #[must_use]
    pub fn new(path: String, any_of: Vec<String>) -> Self {
        Self { path, any_of }
    }

    /// Holds the body to it.
    ///
    /// # Errors
    /// What stands there instead.
    pub fn check(&self, body: &Value) -> Result<(), Mismatch> {
        let Some(found) = find(body, &self.path) else { return Err(Mismatch::Missing(self.path.clone())) };
        if self.any_of.iter().any(|expected| is_equal(found, expected)) {
            return Ok(());
        }
        Err(Mismatch::Other { path: self.path.clone(), found: show(found) })
    }
}

fn find<'a>(body: &'a Value, path: &str) -> Option<&'a Value> {
    if path.starts_with('/') {
        return body.pointer(path);
    }
    path.split('.').try_fold(body, |value, step| match value {
        Value::Object(entries) => entries.get(step),
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        _ => None,
    })
}

fn is_equal(found: &Value, expected: &str) -> bool {
    match found {
        Value::Null => expected == "null",
        _ if expected == "*" => true,
        Value::String(text) => text == expected,
        Value::Bool(flag) => expected == if *flag { "true" } else { "false" },
        Value::Number(number) => number.to_string() == expected || (expected.parse().ok() == number.as_f64() && number.as_f64().is_some()),
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn show(found: &Value) -> String {
    match found {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => format!("\"{}\"", bounded(text)),
        other => bounded(&other.to_string()),
    }
}

/// A text of a stranger: short, and of one line.
#[must_use]
pub fn bounded(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn statuses(texts: &[&str]) -> Option<String> {
        Statuses::parse(&Texts(texts.iter().map(|text| (*text).to_owned()).collect())).map(|statuses| statuses.to_string())
    }

    #[test]
    fn statuses_are_numbers_ranges_and_classes() {
        assert_eq!(statuses(&["200", "204"]).as_deref(), Some("200, 204"));
        assert_eq!(statuses(&["200..299"]).as_deref(), Some("200..299"));
        assert_eq!(statuses(&["200..=299", "401-403"]).as_deref(), Some("200..299, 401..403"));
        assert_eq!(statuses(&["5xx"]).as_deref(), Some("500..599"));
        for wrong in ["", "20", "600", "ok", "299..200", "0xx", "200..", "-200"] {
            assert_eq!(statuses(&[wrong]), None, "{wrong}");
        }
    }

    #[track_caller]
    fn check(path: &str, any_of: &[&str], expected: Result<(), &str>) {
        let body = json!({
            "status": "ok",
            "services": { "mongodb": { "status": "down" } },
            "checks": { "redis": true, "queue": false },
            "list": [{ "name": "a" }],
            "number": 1.0,
            "whole": 7,
            "nothing": null,
            "a.b": "dotted",
            "long": "x".repeat(200),
            "lines": "a\nb\u{1b}[31m",
        });
        let any_of = any_of.iter().map(|text| (*text).to_owned()).collect();
        let found = Assertion::new(path.to_owned(), any_of).check(&body).map_err(|mismatch| mismatch.to_string());
        assert_eq!(found, expected.map_err(str::to_owned), "{path}");
    }

    #[test]
    fn values_are_found_by_path_and_compared_as_written() {
        check("status", &["ok"], Ok(()));
        check("status", &["up", "ok"], Ok(()));
        check("services.mongodb.status", &["ok"], Err("services.mongodb.status is \"down\""));
        check("services.redis.status", &["ok"], Err("services.redis.status is missing"));
        check("checks.redis", &["true"], Ok(()));
        check("checks.queue", &["true"], Err("checks.queue is false"));
        check("list.0.name", &["a"], Ok(()));
        check("list.1.name", &["a"], Err("list.1.name is missing"));
        check("list.x", &["a"], Err("list.x is missing"));
        check("list", &["a"], Err("list is a list"));
        check("services", &["*"], Ok(()));
        check("number", &["1"], Ok(()));
        check("whole", &["7"], Ok(()));
        check("whole", &["8"], Err("whole is 7"));
        check("nothing", &["*"], Err("nothing is null"));
        check("nothing", &["null"], Ok(()));
        check("/a.b", &["dotted"], Ok(()));
        check("/list/0/name", &["a"], Ok(()));
        check("status", &["1"], Err("status is \"ok\""));
    }

    #[test]
    fn what_a_server_says_is_shown_short_and_on_one_line() {
        check("long", &["ok"], Err(&format!("long is \"{}…\"", "x".repeat(100))));
        check("lines", &["ok"], Err("lines is \"a b [31m\""));
    }
}
