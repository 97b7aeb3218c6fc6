//! `collect`: what is read from the database, and how it becomes metrics.

use std::collections::BTreeSet;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::{Complaints, Problems};
use crate::config::rules::{Metric, MetricKind, RawRule, Rule};
use crate::config::sources::{Source, Sources};
use crate::config::spanned::Spanned;
use crate::config::values::{HumanDuration, OrderedMap};

/// As often as Prometheus usually scrapes.
const EVERY: Duration = Duration::from_secs(15);

/// Operators that run code in the server or write to it: never within a filter of a reader.
const FORBIDDEN_OPERATORS: [&str; 6] = ["$where", "$function", "$accumulator", "$out", "$merge", "$expr"];

/// One entry: a gauge (`metric`) or a tail of new documents (`tail`).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Collector")]
pub(super) struct RawCollector {
    metric: Option<Spanned<String>>,
    #[serde(rename = "type")]
    kind: Option<MetricKind>,
    help: Option<String>,
    /// Constant labels.
    #[serde(default)]
    labels: OrderedMap<String>,
    mongodb: Option<RawQuery>,
    /// The collection whose new documents are read, each once.
    tail: Option<Spanned<String>>,
    /// The date field by which documents are new.
    time: Option<String>,
    filter: Option<serde_json::Value>,
    rules: Option<Vec<RawRule>>,
    /// How often it is read.
    every: Option<HumanDuration>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Query")]
struct RawQuery {
    collection: Option<String>,
    filter: Option<serde_json::Value>,
    /// One series for each value of this field.
    count_by: Option<String>,
    /// The values of `count_by` that are always there; others count as `other`.
    zero: Option<Vec<String>>,
    /// The age of the oldest date of this field.
    oldest: Option<String>,
    groups_over: Option<RawGroupsOver>,
    /// One series for each of these collections: how many documents it has.
    documents_in: Option<Vec<String>>,
    /// One series for each of these collections: the age of its oldest document by this field.
    oldest_in: Option<OrderedMap<String>>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "GroupsOver")]
struct RawGroupsOver {
    by: String,
    more_than: u32,
}

/// What is read from the database.
#[derive(Clone, Debug, Default)]
pub struct Collect {
    /// Values as they are now.
    pub gauges: Vec<GaugeCollector>,
    /// What happened since the last look.
    pub tails: Vec<TailCollector>,
}

/// A value as it is now.
#[derive(Clone, Debug)]
pub struct GaugeCollector {
    /// What it is.
    pub metric: Metric,
    /// Constant labels.
    pub labels: Vec<(String, String)>,
    /// What is asked.
    pub query: Query,
    /// How often.
    pub every: Duration,
}

/// A question to the database whose answer is one number, or one for each value of a label.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// How many documents the filter finds.
    Count {
        /// Where.
        collection: String,
        /// Which.
        filter: Filter,
    },
    /// How many documents there are for each value of a field. The field's last part is the label.
    CountBy {
        /// Where.
        collection: String,
        /// Which.
        filter: Filter,
        /// The field.
        field: String,
        /// The values that are always there; others count as `other`.
        values: Vec<String>,
    },
    /// How old the oldest date of a field is, in seconds; 0 when nothing is found.
    Oldest {
        /// Where.
        collection: String,
        /// Which.
        filter: Filter,
        /// The field; `_id` is the time within an ObjectId.
        field: String,
    },
    /// How many values of a field have more documents than this.
    GroupsOver {
        /// Where.
        collection: String,
        /// Which.
        filter: Filter,
        /// The field.
        by: String,
        /// The number that is still fine.
        more_than: u32,
    },
    /// How many documents each collection has; the label is `collection`.
    DocumentsIn(Vec<String>),
    /// How old the oldest document of each collection is by a field; the label is `collection`.
    OldestIn(Vec<(String, String)>),
}

/// A filter as JSON with the operators of MongoDB; `{older_than: 30m}` stands for a date before that.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter(pub serde_json::Map<String, serde_json::Value>);

/// Documents that are new, each of which counts once.
#[derive(Clone, Debug)]
pub struct TailCollector {
    /// The collection.
    pub collection: String,
    /// The date field by which documents are new.
    pub time: String,
    /// Which.
    pub filter: Filter,
    /// The rules that are active for the database.
    pub rules: Vec<Rule>,
    /// How often.
    pub every: Duration,
}

/// Checks all entries.
pub(super) fn validate(entries: Vec<Spanned<RawCollector>>, sources: &Sources, problems: &mut Problems) -> Collect {
    let mut collect = Collect::default();
    let mut tails = BTreeSet::new();
    for entry in entries {
        let Spanned { place, value: entry } = entry;
        let mut complain = Complaints::new(place, entry.name(), problems);
        match (&entry.metric, &entry.tail) {
            (Some(_), None) => collect.gauges.extend(entry.gauge(&mut complain)),
            (None, Some(tail)) => {
                if !tails.insert(tail.value.clone()) {
                    complain.say("this collection has a tail already; put all rules into one".to_owned());
                }
                collect.tails.extend(entry.tail(sources, &mut complain));
            }
            _ => complain.say("an entry has either `metric` (a value as it is now) or `tail` (new documents)".to_owned()),
        }
    }
    collect
}

// === impl RawCollector ===

impl RawCollector {
    fn name(&self) -> String {
        let name = self.metric.as_ref().or(self.tail.as_ref()).map_or("", |name| name.value.as_str());
        format!("collect {name}")
    }

    fn gauge(self, complain: &mut Complaints<'_>) -> Option<GaugeCollector> {
        if self.kind.is_some_and(|kind| kind != MetricKind::Gauge) {
            complain.say("a value as it is now is a gauge; what only grows is read by a `tail`".to_owned());
        }
        if self.time.is_some() || self.filter.is_some() || self.rules.is_some() {
            complain.say("time, filter and rules belong to a `tail`; a query has its filter below `mongodb`".to_owned());
        }
        let query = match self.mongodb {
            Some(query) => query.validate(complain),
            None => {
                complain.say("`mongodb` is missing: what should be asked?".to_owned());
                None
            }
        };
        let metric = Metric {
            name: self.metric?.value,
            help: self.help.unwrap_or_else(|| "Read from the database".to_owned()),
            kind: MetricKind::Gauge,
            buckets: Vec::new(),
            series_limit: crate::config::rules::DEFAULT_SERIES_LIMIT,
        };
        let every = self.every.map_or(EVERY, |every| every.0);
        query.filter(|_| !complain.is_failed()).map(|query| GaugeCollector { metric, labels: self.labels.0, query, every })
    }

    fn tail(self, sources: &Sources, complain: &mut Complaints<'_>) -> Option<TailCollector> {
        if self.mongodb.is_some() || self.kind.is_some() || self.help.is_some() || !self.labels.0.is_empty() {
            complain.say("mongodb, type, help and labels belong to a `metric`; a tail has them in its rules".to_owned());
        }
        let Some(time) = self.time else {
            complain.say("a tail needs `time`: the date field by which documents are new".to_owned());
            return None;
        };
        let filter = Filter::validate(self.filter, complain)?;
        let mut rules = Vec::new();
        for rule in self.rules.unwrap_or_default() {
            let active = sources.is_active(rule.fact(), Source::Store, complain.whole());
            rules.extend(rule.validate(complain.whole()).filter(|_| active));
        }
        let every = self.every.map_or(EVERY, |every| every.0);
        (!complain.is_failed()).then_some(TailCollector { collection: self.tail?.value, time, filter, rules, every })
    }
}

// === impl RawQuery ===

impl RawQuery {
    fn validate(self, complain: &mut Complaints<'_>) -> Option<Query> {
        let forms = [
            self.count_by.is_some(),
            self.oldest.is_some(),
            self.groups_over.is_some(),
            self.documents_in.is_some(),
            self.oldest_in.is_some(),
        ];
        if forms.iter().filter(|given| **given).count() > 1 {
            complain
                .say("a query has at most one of count_by, oldest, groups_over, documents_in, oldest_in; without one it counts".to_owned());
            return None;
        }
        if let Some(collections) = self.documents_in {
            return Some(Query::DocumentsIn(collections));
        }
        if let Some(collections) = self.oldest_in {
            return Some(Query::OldestIn(collections.0));
        }
        let Some(collection) = self.collection else {
            complain.say("`collection` is missing".to_owned());
            return None;
        };
        let filter = Filter::validate(self.filter, complain)?;
        Some(if let Some(field) = self.count_by {
            Query::CountBy { collection, filter, field, values: self.zero.unwrap_or_default() }
        } else if let Some(field) = self.oldest {
            Query::Oldest { collection, filter, field }
        } else if let Some(groups) = self.groups_over {
            Query::GroupsOver { collection, filter, by: groups.by, more_than: groups.more_than }
        } else {
            Query::Count { collection, filter }
        })
    }
}

// === impl Filter ===

impl Filter {
    fn validate(raw: Option<serde_json::Value>, complain: &mut Complaints<'_>) -> Option<Self> {
        match raw {
            None => Some(Self::default()),
            Some(serde_json::Value::Object(map)) => {
                let value = serde_json::Value::Object(map.clone());
                check_operators(&value, complain);
                (!complain.is_failed()).then_some(Self(map))
            }
            Some(_) => {
                complain.say("a filter is a map such as { status: running }".to_owned());
                None
            }
        }
    }
}

fn check_operators(value: &serde_json::Value, complain: &mut Complaints<'_>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                if FORBIDDEN_OPERATORS.contains(&key.as_str()) {
                    complain.say(format!("{key} is not allowed in a filter: it runs code in the server, or writes"));
                }
                if key == "older_than" && value.as_str().is_none_or(|text| crate::units::parse_duration(text).is_err()) {
                    complain.say("older_than is followed by a duration, such as { older_than: 30m }".to_owned());
                }
                if key == "older_than" && map.len() > 1 {
                    complain.say("older_than stands alone: it sets the date's type and bound by itself".to_owned());
                }
                check_operators(value, complain);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| check_operators(item, complain)),
        _ => {}
    }
}
