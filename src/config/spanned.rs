//! Values that remember where they stand, for the problems that are found after decoding.
//!
//! A value asks its deserializer for a struct of a name that only `config::decode` knows.

use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::config::problems::Place;

/// The name by which a value asks the decoder for its place.
pub(super) const NAME: &str = "$bellwether::spanned";

/// What the decoder then hands over, in this order.
pub(super) const FIELDS: [&str; 4] = ["source", "line", "column", "value"];

/// A value that remembers where it stands, for the problems that are found later.
#[derive(Clone, Debug)]
pub struct Spanned<T> {
    /// Where it stands.
    pub place: Option<Place>,
    /// The value.
    pub value: T,
}

// === impl Spanned ===

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Spanned<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SpannedVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for SpannedVisitor<T> {
            type Value = Spanned<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a value")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut source, mut line, mut column) = (String::new(), 0, 0);
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "source" => source = map.next_value()?,
                        "line" => line = map.next_value()?,
                        "column" => column = map.next_value()?,
                        _ => {
                            let place = Place { source: source.as_str().into(), line, column };
                            return Ok(Spanned { place: Some(place), value: map.next_value()? });
                        }
                    }
                }
                Err(de::Error::missing_field("value"))
            }
        }
        deserializer.deserialize_struct(NAME, &FIELDS, SpannedVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Spanned<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
