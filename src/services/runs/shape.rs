//! Documents in the shape of the application's API: `_id` is `id`, times are RFC 3339. Pure.

use jiff::Timestamp;
use mongodb::bson::{Bson, Document};
use serde_json::{Map, Value};

/// An answer of an LLM is cut to this: a list of debug logs is for people.
const LONGEST_RESPONSE: usize = 4096;

/// A document as JSON.
pub(super) fn shown(document: Document) -> Value {
    let entries = document.into_iter().map(|(name, value)| match (name.as_str(), value) {
        ("_id", id) => ("id".to_owned(), json(id)),
        ("llm_response", Bson::String(mut text)) => {
            text.truncate((0..=LONGEST_RESPONSE.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default());
            (name, Value::String(text))
        }
        (_, value) => (name, json(value)),
    });
    Value::Object(entries.collect::<Map<_, _>>())
}

fn json(value: Bson) -> Value {
    match value {
        Bson::Document(document) => shown(document),
        Bson::Array(items) => items.into_iter().map(json).collect(),
        Bson::DateTime(time) => Timestamp::from_millisecond(time.timestamp_millis()).unwrap_or_default().to_string().into(),
        Bson::ObjectId(id) => id.to_hex().into(),
        Bson::String(text) => text.into(),
        Bson::Boolean(flag) => flag.into(),
        Bson::Int32(number) => number.into(),
        Bson::Int64(number) => number.into(),
        Bson::Double(number) => number.into(),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::oid::ObjectId;
    use mongodb::bson::{DateTime, doc};
    use serde_json::json;

    use super::shown;

    #[test]
    fn a_run_has_the_shape_of_the_api() {
        let id = ObjectId::parse_str("69d0f41bc2b4e5f60718293b").expect("an id");
        let run = doc! {
            "_id": id, "status": "running", "progress": 12, "started_at": DateTime::from_millis(1_700_000_000_500), "error": null,
            "steps": [{ "step_num": 1, "query_time_ms": 5_i64, "query_fixed": false, "ratio": 0.5 }],
        };
        let expected = json!({
            "id": "69d0f41bc2b4e5f60718293b", "status": "running", "progress": 12, "started_at": "2023-11-14T22:13:20.5Z", "error": null,
            "steps": [{ "step_num": 1, "query_time_ms": 5, "query_fixed": false, "ratio": 0.5 }],
        });
        assert_eq!(shown(run), expected);
        let long = shown(doc! { "llm_response": "é".repeat(4000) });
        assert_eq!(long["llm_response"].as_str().map(str::len), Some(4096));
    }
}
