//! How rules are written, and the checks that turn them into rules that can be run.

use std::fmt;

use regex::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::config::problems::{Complaints, Problems};
use crate::config::rules::{
    Condition, DEFAULT_SERIES_LIMIT, Label, LabelSource, Mapping, Match, Metric, MetricKind, Rule, Test, ValueSource,
};
use crate::config::spanned::Spanned;
use crate::config::values::{OrderedMap, Texts};
use crate::units::Unit;

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
    value: Option<RawValue>,
    #[serde(default)]
    labels: OrderedMap<RawLabel>,
    /// Upper bounds, in base units, without `+Inf`.
    buckets: Option<Spanned<Vec<f64>>>,
    /// Series beyond this many go to the series `overflow`.
    limit: Option<usize>,
}

/// Conditions of which all must hold: a field and what it must be, and `any` with alternatives.
#[derive(Clone, Debug, Default)]
pub struct RawMatch {
    all: Vec<(String, RawCondition)>,
    any: Vec<RawMatch>,
}

#[derive(Clone, Debug)]
enum RawCondition {
    OneOf(Texts),
    Tests(RawTests),
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawTests {
    prefix: Option<Texts>,
    contains: Option<Texts>,
    regex: Option<Spanned<Texts>>,
    absent: Option<bool>,
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

#[derive(Clone, Debug)]
enum RawLabel {
    Constant(String),
    Field(RawLabelField),
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawLabelField {
    field: Texts,
    allow: Option<Texts>,
    map: Option<OrderedMap<String>>,
    classify: Option<OrderedMap<Texts>>,
    path_template: Option<bool>,
    #[serde(rename = "else")]
    otherwise: Option<String>,
}

// === impl RawRule ===

impl RawRule {
    /// Checks the rule; `None` when it cannot be run.
    pub fn validate(self, problems: &mut Problems) -> Option<Rule> {
        let mut complain = Complaints::new(self.metric.place.clone(), format!("rule {}", self.metric.value), problems);
        check_name(&self.metric.value, self.kind, &mut complain);
        let buckets = self.buckets(&mut complain);
        if self.kind != MetricKind::Counter && self.value.is_none() {
            complain.say("a gauge and a histogram need a `value`");
        }
        let metric = Metric {
            name: self.metric.value,
            help: self.help.unwrap_or_else(|| "Fed by a rule of the configuration".to_owned()),
            kind: self.kind,
            buckets,
            series_limit: self.limit.unwrap_or(DEFAULT_SERIES_LIMIT),
        };
        let matcher = self.matcher.unwrap_or_default().validate(&mut complain);
        let value = self.value.map(|value| ValueSource { fields: value.field.0, unit: value.unit.unwrap_or_default(), since: value.since });
        let labels = self.labels.0.into_iter().filter_map(|(name, label)| label.validate(name, &mut complain)).collect();
        let failed = complain.is_failed();
        (!failed).then_some(Rule { metric, fact: self.fact.map(|fact| fact.value), matcher, value, labels })
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

// === impl RawMatch ===

impl RawMatch {
    fn validate(self, complain: &mut Complaints<'_>) -> Match {
        let mut all = Vec::new();
        for (field, condition) in self.all {
            for test in condition.validate(complain) {
                all.push(Condition { field: field.clone(), test });
            }
        }
        Match { all, any: self.any.into_iter().map(|alternative| alternative.validate(complain)).collect() }
    }
}

impl<'de> Deserialize<'de> for RawMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MatchVisitor;
        impl<'de> Visitor<'de> for MatchVisitor {
            type Value = RawMatch;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map of fields and what they must be")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawMatch, A::Error> {
                let mut matcher = RawMatch::default();
                while let Some(field) = map.next_key::<String>()? {
                    if field == "any" {
                        matcher.any = map.next_value()?;
                    } else {
                        matcher.all.push((field, map.next_value()?));
                    }
                }
                Ok(matcher)
            }
        }
        deserializer.deserialize_map(MatchVisitor)
    }
}

impl JsonSchema for RawMatch {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Match".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (texts, tests) = (generator.subschema_for::<Texts>(), generator.subschema_for::<RawTests>());
        let alternatives = generator.subschema_for::<Self>();
        json_schema!({
            "type": "object",
            "properties": { "any": { "type": "array", "items": alternatives } },
            "additionalProperties": { "anyOf": [texts, tests] }
        })
    }
}

// === impl RawCondition ===

impl RawCondition {
    fn validate(self, complain: &mut Complaints<'_>) -> Vec<Test> {
        let tests = match self {
            Self::OneOf(texts) => return vec![Test::OneOf(texts.0)],
            Self::Tests(tests) => tests,
        };
        let mut found = Vec::new();
        found.extend(tests.prefix.map(|texts| Test::Prefix(texts.0)));
        found.extend(tests.contains.map(|texts| Test::Contains(texts.0)));
        found.extend(tests.absent.map(|absent| if absent { Test::Absent } else { Test::Present }));
        if let Some(patterns) = tests.regex {
            let mut regexes = Vec::new();
            for pattern in patterns.value.0 {
                match Regex::new(&pattern) {
                    Ok(regex) => regexes.push(regex),
                    Err(error) => complain.say(format!("`{pattern}` is not a regular expression: {error}")),
                }
            }
            found.push(Test::Regex(regexes));
        }
        if found.is_empty() {
            complain.say("a condition needs one of prefix, contains, regex, absent, or a value");
        }
        found
    }
}

/// Tells a condition from a plain value by its form.
struct ConditionVisitor;

impl<'de> Visitor<'de> for ConditionVisitor {
    type Value = RawCondition;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value, a list of values, or a map such as {contains: text}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RawCondition, E> {
        Ok(RawCondition::OneOf(Texts(vec![text.to_owned()])))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<RawCondition, E> {
        self.visit_str(if value { "true" } else { "false" })
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<RawCondition, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<RawCondition, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<RawCondition, A::Error> {
        Texts::deserialize(de::value::SeqAccessDeserializer::new(items)).map(RawCondition::OneOf)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawCondition, A::Error> {
        RawTests::deserialize(de::value::MapAccessDeserializer::new(map)).map(RawCondition::Tests)
    }
}

impl<'de> Deserialize<'de> for RawCondition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ConditionVisitor)
    }
}

// === impl RawLabel ===

impl RawLabel {
    fn validate(self, name: String, complain: &mut Complaints<'_>) -> Option<Label> {
        if !is_identifier(&name) || name.starts_with("__") || matches!(name.as_str(), "le" | "quantile" | "job" | "instance") {
            complain.say(format!("`{name}` cannot be a label: letters, digits and _, and none of le, quantile, job, instance"));
        }
        let field = match self {
            Self::Constant(text) => return Some(Label { name, source: LabelSource::Constant(text) }),
            Self::Field(field) => field,
        };
        let mut mappings = Vec::new();
        mappings.extend(field.allow.map(|texts| Mapping::Allow(texts.0)));
        mappings.extend(field.map.map(|map| Mapping::Map(map.0)));
        mappings.extend(field.classify.map(|map| Mapping::Classify(map.0.into_iter().map(|(class, words)| (class, words.0)).collect())));
        mappings.extend(field.path_template.filter(|wanted| *wanted).map(|_| Mapping::PathTemplate));
        if mappings.len() != 1 {
            complain
                .say(format!("the label `{name}` needs exactly one of allow, map, classify, path_template: free text is never a label"));
            return None;
        }
        let source = LabelSource::Field {
            fields: field.field.0,
            mapping: mappings.remove(0),
            otherwise: field.otherwise.unwrap_or_else(|| "other".to_owned()),
        };
        Some(Label { name, source })
    }
}

impl<'de> Deserialize<'de> for RawLabel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LabelVisitor;
        impl<'de> Visitor<'de> for LabelVisitor {
            type Value = RawLabel;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a text, or a map such as {field: level, allow: [info]}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawLabel, E> {
                Ok(RawLabel::Constant(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawLabel, A::Error> {
                RawLabelField::deserialize(de::value::MapAccessDeserializer::new(map)).map(RawLabel::Field)
            }
        }
        deserializer.deserialize_any(LabelVisitor)
    }
}

impl JsonSchema for RawLabel {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Label".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let field = generator.subschema_for::<RawLabelField>();
        json_schema!({ "anyOf": [{ "type": "string" }, field] })
    }
}
