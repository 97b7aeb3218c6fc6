//! How documents name each other, and what makes two values the same. Pure.

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, RawDocument, doc};

use crate::config::retention::IdForm;

/// How a child names a parent.
pub(super) fn reference(id: &Bson, form: IdForm) -> Bson {
    match (form, id) {
        (IdForm::ObjectidHex, Bson::ObjectId(id)) => Bson::String(id.to_hex()),
        _ => id.clone(),
    }
}

/// Bytes that are the same for the same value.
pub(super) fn key(value: &Bson) -> Vec<u8> {
    doc! { "": value.clone() }.to_vec().unwrap_or_default()
}

/// The value at a path, through documents only: a list on the way has no value of its own.
pub(super) fn at<'a>(document: &'a Document, path: &str) -> Option<&'a Bson> {
    match path.split_once('.') {
        None => document.get(path),
        Some((first, rest)) => at(document.get_document(first).ok()?, rest),
    }
}

/// The same in a document that is not decoded.
pub(super) fn raw_at(document: &RawDocument, path: &str) -> Option<Bson> {
    match path.split_once('.') {
        None => document.get(path).ok()?.and_then(|value| Bson::try_from(value).ok()),
        Some((first, rest)) => raw_at(document.get_document(first).ok()?, rest),
    }
}

/// An `_id` as people write it and archives name it: the digits of an ObjectId, a text as it is, and anything else in
/// extended JSON.
pub(super) fn written(id: &Bson) -> String {
    match id {
        Bson::ObjectId(id) => id.to_hex(),
        Bson::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Every value that a written id may stand for.
pub(super) fn meanings(text: &str) -> Vec<Bson> {
    let mut values = vec![Bson::from(text)];
    values.extend(ObjectId::parse_str(text).ok().map(Bson::ObjectId));
    values.extend(text.parse::<i64>().ok().map(Bson::Int64));
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_converted_as_declared() {
        let id = ObjectId::from_bytes([7; 12]);
        assert_eq!(reference(&id.into(), IdForm::ObjectidHex), Bson::from("070707070707070707070707"));
        assert_eq!(reference(&id.into(), IdForm::Same), Bson::from(id));
        assert_eq!(reference(&"uuid".into(), IdForm::ObjectidHex), Bson::from("uuid"));
    }

    #[test]
    fn a_written_id_stands_for_all_that_it_may_mean() {
        assert_eq!(meanings("7"), [Bson::from("7"), Bson::from(7_i64)]);
        let id = ObjectId::from_bytes([7; 12]);
        assert_eq!(meanings(&id.to_hex()), [Bson::from(id.to_hex()), Bson::from(id)]);
    }

    #[test]
    fn a_value_is_found_through_documents_and_not_through_lists() {
        let document = doc! { "a": { "b": 1 }, "l": [{ "b": 2 }] };
        let raw = mongodb::bson::RawDocumentBuf::try_from(&document).unwrap();
        assert_eq!((at(&document, "a.b"), at(&document, "l.b")), (Some(&Bson::from(1)), None));
        assert_eq!((raw_at(&raw, "a.b"), raw_at(&raw, "l.b"), raw_at(&raw, "x")), (Some(Bson::from(1)), None, None));
    }
}
