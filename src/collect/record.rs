//! A document of the database as rules see it. Pure.

use mongodb::bson::{RawBson, RawBsonRef, RawDocument, rawdoc};
use xxhash_rust::xxh3::xxh3_64;

use crate::series::record::{FieldId, Record, Value};

/// A document, and the paths of the fields that rules ask for by number.
#[derive(Clone, Copy, Debug)]
pub(super) struct DocumentRecord<'a> {
    /// The document.
    pub document: &'a RawDocument,
    /// The paths.
    pub paths: &'a [String],
}

/// The value at a path with dots; `None` where there is none, or where the document cannot be decoded there.
pub(super) fn at<'a>(document: &'a RawDocument, path: &str) -> Option<RawBsonRef<'a>> {
    match path.split_once('.') {
        None => document.get(path).ok()?,
        Some((first, rest)) => at(document.get_document(first).ok()?, rest),
    }
}

/// The date at a path, in milliseconds; the one within an ObjectId where that is what stands there.
pub(super) fn time_at(document: &RawDocument, path: &str) -> Option<i64> {
    match at(document, path)? {
        RawBsonRef::DateTime(time) => Some(time.timestamp_millis()),
        RawBsonRef::ObjectId(id) => Some(id.timestamp().timestamp_millis()),
        _ => None,
    }
}

/// A number for the document's `_id`, of whatever type that is.
pub(super) fn id_hash(document: &RawDocument) -> Option<u64> {
    let id = RawBson::from(at(document, "_id")?);
    Some(xxh3_64(rawdoc! { "_id": id }.as_bytes()))
}

fn value(value: RawBsonRef<'_>) -> Value<'_> {
    match value {
        RawBsonRef::Boolean(value) => Value::Bool(value),
        RawBsonRef::Int32(number) => Value::Integer(number.into()),
        RawBsonRef::Int64(number) => Value::Integer(number),
        RawBsonRef::Double(number) => Value::Float(number),
        RawBsonRef::Decimal128(number) => Value::Text(number.to_string().into()),
        RawBsonRef::String(text) | RawBsonRef::Symbol(text) => Value::Text(text.into()),
        RawBsonRef::ObjectId(id) => Value::Text(id.to_hex().into()),
        RawBsonRef::DateTime(time) => Value::Time(time.timestamp_millis()),
        RawBsonRef::Timestamp(time) => Value::Time(i64::from(time.time) * 1000),
        RawBsonRef::Null | RawBsonRef::Undefined => Value::Null,
        _ => Value::Composite,
    }
}

// === impl DocumentRecord ===

impl Record for DocumentRecord<'_> {
    fn get(&self, field: FieldId) -> Value<'_> {
        self.paths.get(field).and_then(|path| at(self.document, path)).map_or(Value::Null, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::oid::ObjectId;
    use mongodb::bson::{Bson, DateTime, RawDocumentBuf, doc};

    #[test]
    fn each_type_of_the_database_has_its_value() {
        let id = ObjectId::from_bytes([0x69, 0xd0, 0xf3, 0xa1, 0xc2, 0xb4, 0xe5, 0xf6, 7, 0x18, 0x29, 0x3a]);
        let document = doc! {
            "_id": id, "text": "t", "yes": true, "n": 7_i32, "big": 7_i64, "f": 1.5, "none": Bson::Null,
            "time": DateTime::from_millis(1500), "list": [1], "map": { "inner": { "n": 3 } },
        };
        let raw = RawDocumentBuf::try_from(&document).unwrap();
        let expected = [
            ("_id", Value::Text("69d0f3a1c2b4e5f60718293a".into())),
            ("text", Value::Text("t".into())),
            ("yes", Value::Bool(true)),
            ("n", Value::Integer(7)),
            ("big", Value::Integer(7)),
            ("f", Value::Float(1.5)),
            ("none", Value::Null),
            ("missing", Value::Null),
            ("time", Value::Time(1500)),
            ("list", Value::Composite),
            ("map", Value::Composite),
            ("map.inner.n", Value::Integer(3)),
            ("text.inner", Value::Null),
        ];
        let paths: Vec<String> = expected.iter().map(|(path, _)| (*path).to_owned()).collect();
        let record = DocumentRecord { document: &raw, paths: &paths };
        for (field, (path, value)) in expected.iter().enumerate() {
            assert_eq!(record.get(field), *value, "{path}");
        }
        assert_eq!(record.get(99), Value::Null);
        assert_eq!(time_at(&raw, "_id"), Some(0x69d0_f3a1 * 1000));
    }

    #[test]
    fn ids_of_different_types_have_different_numbers() {
        let hash = |document| id_hash(&RawDocumentBuf::try_from(&document).unwrap());
        assert_ne!(hash(doc! { "_id": 1_i32 }), hash(doc! { "_id": "1" }));
        assert_eq!(hash(doc! { "_id": "1", "x": 1 }), hash(doc! { "_id": "1" }));
        assert_eq!(hash(doc! { "x": 1 }), None);
    }
}
