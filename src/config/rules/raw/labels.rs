//! How a label is written.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::config::problems::Complaints;
use crate::config::rules::raw::is_identifier;
use crate::config::rules::{Label, LabelSource, Mapping};
use crate::config::values::{OrderedMap, Texts};

/// A constant text, or a field and what becomes of it.
#[derive(Clone, Debug)]
pub(super) enum RawLabel {
    Constant(String),
    Field(RawLabelField),
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLabelField {
    field: Texts,
    allow: Option<Texts>,
    map: Option<OrderedMap<String>>,
    classify: Option<OrderedMap<Texts>>,
    path_template: Option<bool>,
    #[serde(rename = "else")]
    otherwise: Option<String>,
}

// === impl RawLabel ===

impl RawLabel {
    pub(super) fn validate(self, name: String, complain: &mut Complaints<'_>) -> Option<Label> {
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
