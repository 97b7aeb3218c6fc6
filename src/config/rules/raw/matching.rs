//! How a condition is written: a value, a list of values, or tests by name.

use std::fmt;

use regex::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::config::problems::Complaints;
use crate::config::rules::{Comparison, Condition, Match, Test};
use crate::config::spanned::Spanned;
use crate::config::values::Texts;
use crate::units::{Unit, parse_duration, parse_go_duration, parse_size};

/// Conditions of which all must hold: a field and what it must be, `any` with alternatives, and `none` with what must
/// not hold.
#[derive(Clone, Debug, Default)]
pub struct RawMatch {
    all: Vec<(String, RawCondition)>,
    any: Vec<RawMatch>,
    none: Vec<RawMatch>,
}

#[derive(Clone, Debug)]
enum RawCondition {
    OneOf(Texts),
    Tests(Box<RawTests>),
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Tests")]
struct RawTests {
    prefix: Option<Texts>,
    contains: Option<Texts>,
    regex: Option<Spanned<Texts>>,
    /// Whether the field is missing or null.
    absent: Option<bool>,
    /// Whether the field is there and not null.
    exists: Option<bool>,
    /// Holds where this does not; so it does for a field that is missing.
    not: Option<RawCondition>,
    gt: Option<RawBound>,
    ge: Option<RawBound>,
    lt: Option<RawBound>,
    le: Option<RawBound>,
    eq: Option<RawBound>,
    /// The unit of numbers without one, on both sides of the comparison.
    unit: Option<Unit>,
}

/// What a number is compared with: a number, or a text with its unit.
#[derive(Clone, Debug)]
struct RawBound(String);

// === impl RawMatch ===

impl RawMatch {
    pub(super) fn validate(self, complain: &mut Complaints<'_>) -> Match {
        let mut all = Vec::new();
        for (field, condition) in self.all {
            for test in condition.validate(complain) {
                all.push(Condition { field: field.clone(), test });
            }
        }
        let mut each = |matches: Vec<Self>| matches.into_iter().map(|inner| inner.validate(complain)).collect();
        Match { all, any: each(self.any), none: each(self.none) }
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
                    match field.as_str() {
                        "any" => matcher.any = map.next_value()?,
                        "none" => matcher.none = map.next_value()?,
                        _ => matcher.all.push((field, map.next_value()?)),
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
        let condition = generator.subschema_for::<RawCondition>();
        let alternatives = generator.subschema_for::<Self>();
        json_schema!({
            "type": "object",
            "properties": { "any": { "type": "array", "items": alternatives }, "none": { "type": "array", "items": alternatives } },
            "additionalProperties": condition
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
        let RawTests { prefix, contains, regex, absent, exists, not, gt, ge, lt, le, eq, unit } = *tests;
        found.extend(prefix.map(|texts| Test::Prefix(texts.0)));
        found.extend(contains.map(|texts| Test::Contains(texts.0)));
        let present = [absent.map(|absent| !absent), exists];
        found.extend(present.into_iter().flatten().map(|present| if present { Test::Present } else { Test::Absent }));
        found.extend(not.map(|not| Test::Not(not.validate(complain))));
        let bounds = [
            (Comparison::Greater, gt),
            (Comparison::GreaterOrEqual, ge),
            (Comparison::Less, lt),
            (Comparison::LessOrEqual, le),
            (Comparison::Equal, eq),
        ];
        for (comparison, bound) in bounds {
            found.extend(bound.and_then(|bound| bound.validate(comparison, unit, complain)));
        }
        if let Some(patterns) = regex {
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
            complain.say("a condition needs one of prefix, contains, regex, exists, not, gt, ge, lt, le, eq, or a value");
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
        RawTests::deserialize(de::value::MapAccessDeserializer::new(map)).map(|tests| RawCondition::Tests(Box::new(tests)))
    }
}

impl<'de> Deserialize<'de> for RawCondition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ConditionVisitor)
    }
}

impl JsonSchema for RawCondition {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Condition".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (texts, tests) = (generator.subschema_for::<Texts>(), generator.subschema_for::<RawTests>());
        json_schema!({ "anyOf": [texts, tests] })
    }
}

// === impl RawBound ===

impl RawBound {
    fn validate(self, comparison: Comparison, unit: Option<Unit>, complain: &mut Complaints<'_>) -> Option<Test> {
        let text = self.0.trim();
        // The unit of the bound is that of a bare number in the field, too, where nothing else is said.
        #[expect(clippy::cast_precision_loss, reason = "sizes that are compared are far below 2^53")]
        let read = match text.parse::<f64>() {
            Ok(number) => Some((unit.unwrap_or(Unit::None).to_base(number), Unit::None)),
            Err(_) => {
                let duration = parse_go_duration(text).or_else(|| parse_duration(text).ok().map(|duration| duration.as_secs_f64()));
                duration.map(|seconds| (seconds, Unit::S)).or_else(|| Some((parse_size(text).ok()? as f64, Unit::Bytes)))
            }
        };
        let Some((bound, own)) = read.filter(|(bound, _)| bound.is_finite()) else {
            complain.say(format!("`{text}` cannot be compared with; write a number, a duration such as 5s, or a size such as 1MiB"));
            return None;
        };
        Some(Test::Compare { comparison, bound, unit: unit.unwrap_or(own) })
    }
}

impl<'de> Deserialize<'de> for RawBound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Texts(mut texts) = Texts::deserialize(deserializer)?;
        match (texts.pop(), texts.is_empty()) {
            (Some(text), true) => Ok(Self(text)),
            _ => Err(de::Error::custom("a number is compared with one value")),
        }
    }
}

impl JsonSchema for RawBound {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bound".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["number", "string"], "description": "A number, a duration such as 5s, or a size such as 1MiB." })
    }
}
