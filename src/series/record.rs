//! A record as rules see it: fields by number, values of a few types.

use std::borrow::Cow;

use crate::units::{Unit, parse_quantity};

/// The position of a field in the list that a rule set asks for.
pub type FieldId = usize;

/// Something that rules can look at.
pub trait Record {
    /// The value of a field; [`Value::Null`] where it is missing.
    fn get(&self, field: FieldId) -> Value<'_>;

    /// Whether a field is there and not null.
    fn has(&self, field: FieldId) -> bool {
        !matches!(self.get(field), Value::Null)
    }
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Missing, or null.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number as it was written.
    Digits(&'a str),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(Cow<'a, str>),
    /// A point in time, in milliseconds since the epoch.
    Time(i64),
    /// A list or a map.
    Composite,
}

/// The value of the first of these fields that the record has.
#[inline]
pub fn first<'a, R: Record>(record: &'a R, fields: &[FieldId]) -> Option<Value<'a>> {
    fields.iter().map(|field| record.get(*field)).find(|value| !matches!(value, Value::Null))
}

// === impl Value ===

impl Value<'_> {
    /// The text by which the value is compared and classified: numbers and booleans as they are written. `None` where
    /// there is none.
    #[must_use]
    #[inline]
    pub fn text(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Self::Null | Self::Composite => return None,
            Self::Bool(true) => "true".into(),
            Self::Bool(false) => "false".into(),
            Self::Digits(digits) => (*digits).into(),
            Self::Integer(number) => number.to_string().into(),
            Self::Float(number) => number.to_string().into(),
            Self::Time(millis) => millis.to_string().into(),
            Self::Text(text) => (&**text).into(),
        })
    }

    /// The value in base units. A text may be a number, or tell its own unit, such as `5m23s` or `1.5 MB`.
    /// `None` for what is no finite number.
    #[must_use]
    pub fn quantity(&self, unit: Unit) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "counts and times of logs are far below 2^53")]
        let number = match self {
            Self::Digits(digits) => unit.to_base(digits.parse().ok()?),
            Self::Integer(number) => unit.to_base(*number as f64),
            Self::Float(number) => unit.to_base(*number),
            Self::Text(text) => match text.trim().parse::<f64>() {
                Ok(number) => unit.to_base(number),
                Err(_) => parse_quantity(text.trim(), unit)?,
            },
            Self::Time(millis) => *millis as f64 / 1000.0,
            Self::Null | Self::Bool(_) | Self::Composite => return None,
        };
        number.is_finite().then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_tells_its_own_unit_and_a_number_gets_the_one_of_the_rule() {
        for (value, unit, seconds) in [
            (Value::Text("5m23.412345678s".into()), Unit::S, Some(323.412_345_678)),
            (Value::Text("323.4".into()), Unit::S, Some(323.4)),
            (Value::Digits("1023412"), Unit::Ms, Some(1023.412)),
            (Value::Integer(1500), Unit::Ms, Some(1.5)),
            (Value::Float(323.412_345_678), Unit::S, Some(323.412_345_678)),
            (Value::Text("soon".into()), Unit::S, None),
            (Value::Text("NaN".into()), Unit::S, None),
            (Value::Digits("1e400"), Unit::S, None),
            (Value::Bool(true), Unit::None, None),
            (Value::Null, Unit::None, None),
        ] {
            assert_eq!(value.quantity(unit), seconds, "{value:?}");
        }
    }
}
