//! Rules: which record counts for which metric, with which labels and value.
//!
//! The same rules serve log lines and documents of a database. Owns what a rule means; `raw` has how it is written, and
//! how it runs is `series::rules`.

mod raw;

use std::collections::BTreeMap;
use std::time::Duration;

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

// === impl Metric ===

impl Metric {
    /// The bucket of a value: a bound belongs to its own.
    #[must_use]
    pub fn bucket(&self, value: f64) -> usize {
        self.buckets.partition_point(|bound| *bound < value)
    }
}

/// A rule that can be run.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What it feeds.
    pub metric: Metric,
    /// The fact that it tells, where another source may tell it too.
    pub fact: Option<String>,
    /// When it applies; without meaning where there is a pair.
    pub matcher: Match,
    /// A start and a finish on different records, whose distance is the value.
    pub pair: Option<Pair>,
    /// What it adds, sets or observes; `None` for "one more".
    pub value: Option<ValueSource>,
    /// The labels, in the order of the exposition.
    pub labels: Vec<Label>,
    /// What an exemplar tells.
    pub exemplar: Vec<ExemplarLabel>,
    /// What it counts is held to be missing when it has not come for so long.
    pub absent_after: Option<Duration>,
}

/// A start and a finish that have a key in common.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Which record begins it.
    pub start: Match,
    /// Which record ends it.
    pub finish: Match,
    /// The first of these that the record has is the key.
    pub key: Vec<String>,
    /// A start without a finish is given up after this.
    pub expire: Duration,
    /// So many may be open.
    pub limit: usize,
}

/// A label of an exemplar.
#[derive(Clone, Debug, PartialEq)]
pub struct ExemplarLabel {
    /// Its name.
    pub name: String,
    /// The first of these that the record has is its value.
    pub fields: Vec<String>,
}

/// Conditions that all hold, alternatives of which one does, and others of which none does.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// All of these hold.
    pub all: Vec<Condition>,
    /// One of these holds, where there are any.
    pub any: Vec<Match>,
    /// None of these holds.
    pub none: Vec<Match>,
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
    /// Not all of these hold. A field that is missing holds none but [`Test::Absent`].
    Not(Vec<Test>),
    /// Is a number that compares so with the bound.
    Compare {
        /// How.
        comparison: Comparison,
        /// In base units.
        bound: f64,
        /// The unit of a bare number in the field.
        unit: Unit,
    },
}

/// How a number compares with a bound.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Comparison {
    /// `gt`
    Greater,
    /// `ge`
    GreaterOrEqual,
    /// `lt`
    Less,
    /// `le`
    LessOrEqual,
    /// `eq`
    Equal,
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

// === impl Comparison ===

impl Comparison {
    /// Whether a number compares so with a bound.
    #[must_use]
    pub fn holds(self, number: f64, bound: f64) -> bool {
        match self {
            Self::Greater => number > bound,
            Self::GreaterOrEqual => number >= bound,
            Self::Less => number < bound,
            Self::LessOrEqual => number <= bound,
            Self::Equal => number == bound,
        }
    }
}

// === impl Rule ===

impl Rule {
    /// What the names of the metrics that come with this one begin with: `app_runs` for `app_runs_total`, `app_run` for
    /// the pair `app_run_duration_seconds`.
    #[must_use]
    pub fn base(&self) -> &str {
        let name = self.metric.name.as_str();
        let ends = ["_total", "_duration_seconds", "_seconds"];
        ends.iter().find_map(|end| name.strip_suffix(end)).filter(|base| !base.is_empty()).unwrap_or(name)
    }

    /// The names of all metrics that this rule makes.
    #[must_use]
    pub fn metrics(&self) -> Vec<String> {
        let base = self.base();
        let mut names = vec![self.metric.name.clone()];
        if self.pair.is_some() {
            names.extend(["_open", "_unpaired_total"].map(|end| format!("{base}{end}")));
        }
        if self.absent_after.is_some() {
            names.extend(["_absent", "_last_seen_timestamp_seconds"].map(|end| format!("{base}{end}")));
        }
        names
    }
}

/// Rules that feed one metric must agree on what it is: says so where they do not.
pub fn check_agreement<'a>(rules: impl IntoIterator<Item = &'a Rule>, problems: &mut Problems) {
    let mut first: BTreeMap<&str, (&Rule, Vec<&str>)> = BTreeMap::new();
    let mut made: BTreeMap<String, &str> = BTreeMap::new();
    for rule in rules {
        let mut labels: Vec<&str> = rule.labels.iter().map(|label| label.name.as_str()).collect();
        labels.sort_unstable();
        let (other, names) = first.entry(&rule.metric.name).or_insert((rule, labels.clone()));
        if other.metric != rule.metric || other.absent_after != rule.absent_after || *names != labels {
            problems.error(Problem {
                place: None,
                path: format!("rule {}", rule.metric.name),
                message: "rules that feed one metric must agree on type, help, buckets, limit, absent_after and label names".to_owned(),
            });
        }
        for name in rule.metrics() {
            let maker = *made.entry(name.clone()).or_insert(&rule.metric.name);
            if maker != rule.metric.name {
                problems.error(Problem {
                    place: None,
                    path: format!("rule {}", rule.metric.name),
                    message: format!("the metric {name} is made by the rule {maker}, too: rename one of them"),
                });
            }
        }
    }
}
