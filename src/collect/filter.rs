//! A filter of the configuration as the database reads it. Pure.

use mongodb::bson::{Bson, DateTime, Document, doc};
use serde_json::Value;

use crate::config::collect::Filter;
use crate::units::parse_duration;

/// The filter at a point in time: `{older_than: 30m}` becomes "a date before 30 minutes ago", all else stays.
///
/// `now` is the database's clock, in milliseconds: ages are never measured with two clocks.
pub(super) fn document(filter: &Filter, now: i64) -> Document {
    map(&filter.0, now)
}

/// A filter that holds where all of these do. Two conditions on one field stay two.
pub(super) fn all(conditions: impl IntoIterator<Item = Document>) -> Document {
    let mut conditions: Vec<Document> = conditions.into_iter().filter(|condition| !condition.is_empty()).collect();
    match conditions.len() {
        0 => Document::new(),
        1 => conditions.remove(0),
        _ => doc! { "$and": conditions },
    }
}

/// A field that is one date: not a text, not a number, and not a list that holds a date.
pub(super) fn is_date(field: &str) -> [Document; 2] {
    [doc! { field: { "$type": "date" } }, doc! { field: { "$not": { "$type": "array" } } }]
}

fn map(map: &serde_json::Map<String, Value>, now: i64) -> Document {
    let mut document = Document::new();
    for (key, value) in map {
        match before(key, value, now) {
            Some(before) => document.extend(doc! { "$type": "date", "$lt": before }),
            None => {
                document.insert(key.clone(), bson(value, now));
            }
        }
    }
    document
}

/// The point in time that `older_than` stands for. The configuration has checked the duration.
fn before(key: &str, value: &Value, now: i64) -> Option<DateTime> {
    let age = (key == "older_than").then(|| parse_duration(value.as_str()?).ok()).flatten()?;
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    Some(DateTime::from_millis(now.saturating_sub(age)))
}

fn bson(value: &Value, now: i64) -> Bson {
    match value {
        Value::Null => Bson::Null,
        Value::Bool(value) => Bson::Boolean(*value),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => i32::try_from(whole).map_or(Bson::Int64(whole), Bson::Int32),
            None => Bson::Double(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Bson::String(text.clone()),
        Value::Array(items) => Bson::Array(items.iter().map(|item| bson(item, now)).collect()),
        Value::Object(object) => Bson::Document(map(object, now)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: i64 = 1_763_712_000_000;

    #[track_caller]
    fn check(filter: &Value, expected: Document) {
        let filter = Filter(filter.as_object().unwrap().clone());
        assert_eq!(document(&filter, NOW), expected);
    }

    #[test]
    fn operators_and_types_pass_through() {
        check(
            &json!({ "encrypted": { "$ne": true }, "n": 3, "big": 5_000_000_000_i64, "f": 1.5, "none": null }),
            doc! { "encrypted": { "$ne": true }, "n": 3_i32, "big": 5_000_000_000_i64, "f": 1.5, "none": Bson::Null },
        );
        check(
            &json!({ "$or": [{ "a": { "$in": ["x", "y"] } }, { "b": { "$exists": false } }] }),
            doc! { "$or": [{ "a": { "$in": ["x", "y"] } }, { "b": { "$exists": false } }] },
        );
    }

    #[test]
    fn an_age_becomes_a_date_by_the_given_clock() {
        let before = DateTime::from_millis(NOW - 30 * 60 * 1000);
        check(
            &json!({ "status": "running", "updated_at": { "older_than": "30m" } }),
            doc! { "status": "running", "updated_at": { "$type": "date", "$lt": before } },
        );
        check(
            &json!({ "$or": [{ "updated_at": { "older_than": "30m" } }] }),
            doc! { "$or": [{ "updated_at": { "$type": "date", "$lt": before } }] },
        );
    }

    #[test]
    fn conditions_on_one_field_do_not_replace_each_other() {
        assert_eq!(all([doc! {}, doc! { "a": 1 }, doc! { "a": 2 }]), doc! { "$and": [{ "a": 1 }, { "a": 2 }] });
        assert_eq!(all([doc! {}, doc! { "a": 1 }]), doc! { "a": 1 });
        assert_eq!(all([doc! {}]), doc! {});
    }
}
