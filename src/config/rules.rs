//! Rules: which record counts for which metric, with which labels and value.
//!
//! The same rules serve log lines and documents of a database. Owns what a rule means; `raw` has how it is written, and
//! how it runs is `series::rules`.

mod raw;

use std::collections::BTreeMap;

use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::{Problem, Problems};
pub(super) use crate::config::rules::raw::RawRule;
use crate::units::Unit;

/// Series of one metric beyond this many go to the series `overflow`. Closed label sets of a profile stay below 50.
pub const DEFAULT_SERIES_LIMIT: usize = 1000;

/// What a metric is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum MetricKind {
    /// Only grows: by one, or by the value.
    Counter,
    /// Is set to the value.
    Gauge,
    /// Sorts the values into buckets.
    Histogram,
}

/// A metric that rules feed.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// The name, with its unit and, for counters, `_total`.
    pub name: String,
    /// One line that says what it counts, without a full stop.
    pub help: String,
    /// What it is.
    pub kind: MetricKind,
    /// The upper bounds of a histogram, in base units; empty for the others.
    pub buckets: Vec<f64>,
    /// How many series it may have before `overflow`.
    pub series_limit: usize,
}

/// A rule that can be run.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What it feeds.
    pub metric: Metric,
    /// The fact that it tells, where another source may tell it too.
    pub fact: Option<String>,
    /// When it applies.
    pub matcher: Match,
    /// What it adds, sets or observes; `None` for "one more".
    pub value: Option<ValueSource>,
    /// The labels, in the order of the exposition.
    pub labels: Vec<Label>,
}

/// Conditions that all hold, and alternatives of which one does.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// All of these hold.
    pub all: Vec<Condition>,
    /// One of these holds, where there are any.
    pub any: Vec<Match>,
}

/// One field and what it must be.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The path of the field, with dots.
    pub field: String,
    /// What it must be.
    pub test: Test,
}

/// What a field must be. Numbers and booleans are compared as their text.
#[derive(Clone, Debug)]
pub enum Test {
    /// Exactly one of these.
    OneOf(Vec<String>),
    /// Begins with one of these.
    Prefix(Vec<String>),
    /// Holds one of these.
    Contains(Vec<String>),
    /// Matches one of these.
    Regex(Vec<Regex>),
    /// Is missing or null.
    Absent,
    /// Is there and not null.
    Present,
}

/// Where the value comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueSource {
    /// The first of these that the record has.
    pub fields: Vec<String>,
    /// The unit of a bare number.
    pub unit: Unit,
    /// The value is the time from this field on.
    pub since: Option<String>,
}

/// A label of a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// Its value.
    pub source: LabelSource,
}

/// Where the value of a label comes from. All but path templates are closed sets.
#[derive(Clone, Debug, PartialEq)]
pub enum LabelSource {
    /// Always this.
    Constant(String),
    /// From the first of these fields that the record has. A field that is missing, null or not in the set is `otherwise`.
    Field {
        /// The paths.
        fields: Vec<String>,
        /// What becomes of the text.
        mapping: Mapping,
        /// What everything else becomes.
        otherwise: String,
    },
}

/// What becomes of a field's text.
#[derive(Clone, Debug, PartialEq)]
pub enum Mapping {
    /// These stay as they are.
    Allow(Vec<String>),
    /// These become those.
    Map(Vec<(String, String)>),
    /// The first class of which the text holds one of the words.
    Classify(Vec<(String, Vec<String>)>),
    /// A path, with its variable parts replaced.
    PathTemplate,
}

/// Rules that feed one metric must agree on what it is: says so where they do not.
pub fn check_agreement<'a>(rules: impl IntoIterator<Item = &'a Rule>, problems: &mut Problems) {
    let mut first: BTreeMap<&str, (&Metric, Vec<&str>)> = BTreeMap::new();
    for rule in rules {
        let mut labels: Vec<&str> = rule.labels.iter().map(|label| label.name.as_str()).collect();
        labels.sort_unstable();
        let (metric, names) = first.entry(&rule.metric.name).or_insert((&rule.metric, labels.clone()));
        if **metric != rule.metric || *names != labels {
            problems.error(Problem {
                place: None,
                path: format!("rule {}", rule.metric.name),
                message: "rules that feed one metric must agree on type, help, buckets, limit and label names".to_owned(),
            });
        }
    }
}
