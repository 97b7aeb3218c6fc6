//! How rules are written, and the checks that turn them into rules that can be run.

mod labels;
mod matching;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::{Complaints, Problems};
use crate::config::rules::raw::labels::RawLabel;
use crate::config::rules::raw::matching::RawMatch;
use crate::config::rules::{DEFAULT_SERIES_LIMIT, ExemplarLabel, Metric, MetricKind, Pair, Rule, ValueSource};
use crate::config::spanned::Spanned;
use crate::config::values::{HumanDuration, OrderedMap, Texts};
use crate::units::Unit;

/// So many starts may be open at a time, where a rule does not say it: with 100 bytes each, 1 MB.
const DEFAULT_OPEN: usize = 10_000;

/// A rule as it is written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Rule")]
pub struct RawRule {
    metric: Spanned<String>,
    /// The fact that this tells, where another source tells it too; see `sources`.
    fact: Option<Spanned<String>>,
    #[serde(rename = "type")]
    kind: MetricKind,
    help: Option<String>,
    #[serde(rename = "match")]
    matcher: Option<RawMatch>,
    /// A start and a finish on different lines; the histogram has the seconds between them.
    pair: Option<RawPair>,
    value: Option<RawValue>,
    #[serde(default)]
    labels: OrderedMap<RawLabel>,
    /// Upper bounds, in base units, without `+Inf`.
    buckets: Option<Spanned<Vec<f64>>>,
    /// Series beyond this many go to the series `overflow`.
    limit: Option<usize>,
    /// Ids of the event that was counted last, shown to scrapers that ask for OpenMetrics: a name and its field.
    #[serde(default)]
    exemplar: OrderedMap<Texts>,
    /// What this rule counts should come at least so often: adds `…_absent` and `…_last_seen_timestamp_seconds`.
    absent_after: Option<HumanDuration>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Pair")]
struct RawPair {
    /// Which record begins it.
    start: RawMatch,
    /// Which record ends it.
    finish: RawMatch,
    /// The field that both have in common.
    key: Texts,
    /// A start without a finish is given up after this.
    expire: HumanDuration,
    /// So many may be open; beyond it, the oldest is given up.
    limit: Option<usize>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Value")]
struct RawValue {
    /// The first of these that the record has.
    field: Texts,
    /// The unit of a number without one; a text such as `5m23s` tells its own.
    unit: Option<Unit>,
    /// The value is the time from this field to the other.
    since: Option<String>,
}

// === impl RawRule ===

impl RawRule {
    /// Checks the rule; `None` when it cannot be run.
    pub fn validate(self, problems: &mut Problems) -> Option<Rule> {
        let mut complain = Complaints::new(self.metric.place.clone(), format!("rule {}", self.metric.value), problems);
        check_name(&self.metric.value, self.kind, &mut complain);
        let buckets = self.buckets(&mut complain);
        if self.pair.is_some() && (self.kind != MetricKind::Histogram || self.value.is_some() || self.matcher.is_some()) {
            complain.say("a rule with `pair` is a histogram, and has neither `match` nor `value`: both come from the pair");
        } else if self.kind != MetricKind::Counter && self.value.is_none() && self.pair.is_none() {
            complain.say("a gauge and a histogram need a `value`");
        }
        if self.kind == MetricKind::Gauge && !self.exemplar.0.is_empty() {
            complain.say("a gauge has no `exemplar`: only counters and histograms have");
        }
        let metric = Metric {
            name: self.metric.value,
            help: self.help.unwrap_or_else(|| "Fed by a rule of the configuration".to_owned()),
            kind: self.kind,
            buckets,
            series_limit: self.limit.unwrap_or(DEFAULT_SERIES_LIMIT),
        };
        let matcher = self.matcher.unwrap_or_default().validate(&mut complain);
        let pair = self.pair.map(|pair| Pair {
            start: pair.start.validate(&mut complain),
            finish: pair.finish.validate(&mut complain),
            key: pair.key.0,
            expire: pair.expire.0,
            limit: pair.limit.unwrap_or(DEFAULT_OPEN),
        });
        let exemplar = self.exemplar.0.into_iter().map(|(name, fields)| exemplar_label(name, fields, &mut complain)).collect();
        let absent_after = self.absent_after.map(|after| after.0);
        let value = self.value.map(|value| ValueSource { fields: value.field.0, unit: value.unit.unwrap_or_default(), since: value.since });
        let labels = self.labels.0.into_iter().filter_map(|(name, label)| label.validate(name, &mut complain)).collect();
        let failed = complain.is_failed();
        (!failed).then_some(Rule { metric, fact: self.fact.map(|fact| fact.value), matcher, pair, value, labels, exemplar, absent_after })
    }

    /// The fact with its place, for the check against `sources`.
    #[must_use]
    pub fn fact(&self) -> Option<&Spanned<String>> {
        self.fact.as_ref()
    }

    fn buckets(&self, complain: &mut Complaints<'_>) -> Vec<f64> {
        match (&self.buckets, self.kind) {
            (None, MetricKind::Histogram) => {
                complain.say("a histogram needs `buckets`: upper bounds in base units, such as [0.1, 1, 10]");
                Vec::new()
            }
            (Some(buckets), MetricKind::Histogram) => {
                let bounds = &buckets.value;
                let rising = bounds.windows(2).all(|pair| pair[0] < pair[1]);
                if bounds.is_empty() || !rising || bounds.iter().any(|bound| !bound.is_finite()) {
                    complain.say("`buckets` must rise and be finite; +Inf is added by itself");
                }
                bounds.clone()
            }
            (Some(_), _) => {
                complain.say("`buckets` belong to histograms");
                Vec::new()
            }
            (None, _) => Vec::new(),
        }
    }
}

/// Names follow the data model of Prometheus; <https://prometheus.io/docs/practices/naming/> asks for `_total`.
fn check_name(name: &str, kind: MetricKind, complain: &mut Complaints<'_>) {
    if !is_identifier(name) {
        complain.say("a metric's name is made of a-z, A-Z, 0-9 and _, and does not begin with a digit");
    }
    match kind {
        MetricKind::Counter if !name.ends_with("_total") => complain.say("the name of a counter ends in _total"),
        MetricKind::Gauge | MetricKind::Histogram if name.ends_with("_total") => {
            complain.say("only the name of a counter ends in _total");
        }
        _ => {}
    }
}

fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn exemplar_label(name: String, fields: Texts, complain: &mut Complaints<'_>) -> ExemplarLabel {
    if !is_identifier(&name) {
        complain.say(format!("`{name}` cannot be the name of an exemplar's label: letters, digits and _"));
    }
    ExemplarLabel { name, fields: fields.0 }
}
