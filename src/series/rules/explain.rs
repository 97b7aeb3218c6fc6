//! Why rules apply to a record, or do not, in words. Pure; slow, for people.

use crate::config::rules::{Comparison, Test};
use crate::series::record::{FieldId, Record, Value, first};
use crate::series::rules::matching::{CompiledMatch, holds};
use crate::series::rules::{Action, CompiledRule, RuleSet, key};
use crate::units::Unit;

/// Longer values are cut in an explanation.
const MAX_SHOWN: usize = 80;

/// What a rule makes of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// The metric that it feeds.
    pub metric: String,
    /// Which end of a pair it is, if it is one.
    pub role: Option<&'static str>,
    /// What comes of it.
    pub verdict: Verdict,
}

/// What comes of a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It applies.
    Applies {
        /// The names and values of its labels.
        labels: Vec<(String, String)>,
        /// What it adds, sets or observes; `None` where the other end of a pair tells.
        value: Option<f64>,
    },
    /// It does not; the first condition that fails.
    Fails(String),
}

// === impl RuleSet ===

impl RuleSet {
    /// What each rule makes of a record, in their order. Changes nothing.
    pub fn explain<R: Record>(&self, record: &R) -> Vec<Explained> {
        self.rules.iter().map(|rule| rule.explain(record, &self.fields)).collect()
    }
}

// === impl CompiledRule ===

impl CompiledRule {
    fn explain<R: Record>(&self, record: &R, names: &[String]) -> Explained {
        let role = match self.action {
            Action::Start(..) => Some("start"),
            Action::Finish(..) => Some("finish"),
            Action::Add | Action::Set | Action::Observe => None,
        };
        let verdict = match self.failure(record, names) {
            Some(why) => Verdict::Fails(why),
            None => {
                let labels = self.labels.iter().map(|label| (label.name.clone(), label.text(record).0.into_owned())).collect();
                let value = if role.is_none() { self.amount(record) } else { None };
                Verdict::Applies { labels, value }
            }
        };
        Explained { metric: self.metric.clone(), role, verdict }
    }

    fn failure<R: Record>(&self, record: &R, names: &[String]) -> Option<String> {
        if let Some(why) = self.matcher.failure(record, names) {
            return Some(why);
        }
        match &self.action {
            Action::Start(_, fields) | Action::Finish(_, fields) => {
                key(record, fields).is_none().then(|| format!("there is no key: {}", missing(fields, names)))
            }
            Action::Add | Action::Set | Action::Observe => {
                let value = self.value.as_ref().filter(|_| self.amount(record).is_none())?;
                Some(match first(record, &value.fields) {
                    None => format!("there is no value: {}", missing(&value.fields, names)),
                    Some(found) => match (found.quantity(value.unit), value.since) {
                        (None, _) => format!("the value {} is no number and no duration", shown(&found)),
                        (Some(_), Some(since)) if record.get(since).quantity(value.unit).is_none() => {
                            format!("there is no value: {}", missing(&[since], names))
                        }
                        (Some(_), _) => format!("the value {} is negative", shown(&found)),
                    },
                })
            }
        }
    }
}

fn missing(fields: &[FieldId], names: &[String]) -> String {
    let names: Vec<&str> = fields.iter().map(|field| names[*field].as_str()).collect();
    format!("{} is missing", names.join(", "))
}

// === impl CompiledMatch ===

impl CompiledMatch {
    /// The first condition that a record does not fulfil.
    fn failure<R: Record>(&self, record: &R, names: &[String]) -> Option<String> {
        let failed = self.all.iter().find(|(field, test)| !holds(test, &record.get(*field)));
        if let Some((field, test)) = failed {
            let (name, value) = (&names[*field], shown(&record.get(*field)));
            return Some(match test {
                Test::Not(_) => format!("{name} is {value}, which `not` excludes"),
                test => format!("{name} is {value}, not {}", wanted(test)),
            });
        }
        if !self.any.is_empty() && !self.any.iter().any(|alternative| alternative.holds(record)) {
            let reasons: Vec<String> = self.any.iter().filter_map(|alternative| alternative.failure(record, names)).collect();
            return Some(format!("no alternative holds: {}", reasons.join("; ")));
        }
        self.none.iter().position(|excluded| excluded.holds(record)).map(|place| format!("it is excluded by `none`, entry {}", place + 1))
    }
}

fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Null => "missing".to_owned(),
        Value::Composite => "a list or a map".to_owned(),
        Value::Text(text) => quoted(text),
        other => other.text().unwrap_or_default().into_owned(),
    }
}

fn quoted(text: &str) -> String {
    if text.chars().count() <= MAX_SHOWN {
        return format!("{text:?}");
    }
    let begin: String = text.chars().take(MAX_SHOWN).collect();
    format!("{begin:?}…")
}

/// What a test asks for, so that it reads on from "is …, not".
fn wanted(test: &Test) -> String {
    let list = |texts: &[String]| texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(" or ");
    match test {
        Test::OneOf(texts) => list(texts),
        Test::Prefix(texts) => format!("a text that begins with {}", list(texts)),
        Test::Contains(texts) => format!("a text that contains {}", list(texts)),
        Test::Regex(regexes) => {
            let patterns: Vec<String> = regexes.iter().map(|regex| format!("/{regex}/")).collect();
            format!("a text that matches {}", patterns.join(" or "))
        }
        Test::Absent => "missing".to_owned(),
        Test::Present => "there".to_owned(),
        Test::Not(tests) => format!("other than {}", tests.iter().map(wanted).collect::<Vec<_>>().join(" and ")),
        Test::Compare { comparison, bound, unit } => {
            let sign = match comparison {
                Comparison::Greater => ">",
                Comparison::GreaterOrEqual => ">=",
                Comparison::Less => "<",
                Comparison::LessOrEqual => "<=",
                Comparison::Equal => "=",
            };
            let base = match unit {
                Unit::None => "",
                Unit::Bytes | Unit::Kib | Unit::Mib | Unit::Gib => " bytes",
                Unit::Ns | Unit::Us | Unit::Ms | Unit::S | Unit::M | Unit::H => " seconds",
            };
            format!("a number {sign} {bound}{base}")
        }
    }
}
