//! What keeps a document however old it is: as conditions of a filter, and by looking into other collections.
//!
//! Read anew for each batch. Where a hold cannot be read, nothing is deleted.

use std::collections::HashSet;

use mongodb::Database;
use mongodb::bson::{Bson, Document, doc};

use crate::config::retention::{Child, Hold, Policy};
use crate::retention::edge::{at, key, meanings, reference};
use crate::retention::shape::Field;
use crate::retention::{LIMIT, RetentionError, Window};
use crate::store::mongodb::within;

/// Documents that are old enough and held neither by a field nor by their id: the filter of reading and of deleting.
pub(super) fn eligible(policy: &Policy, window: Window) -> Document {
    let mut conditions = vec![Field::new(&policy.field).dated(window.expired())];
    conditions.extend(policy.holds.iter().filter_map(not_held));
    doc! { "$and": conditions }
}

/// Whether a hold can be told from the document alone.
pub(super) fn is_in_document(hold: &Hold) -> bool {
    matches!(hold, Hold::Field(_) | Hold::Ids(_))
}

/// The condition that a hold does not apply, where the document alone tells.
fn not_held(hold: &Hold) -> Option<Document> {
    match hold {
        // Only what is missing, null or false does not hold; a list holds, whatever is in it.
        Hold::Field(path) => Some(Field::new(path).outside_lists_and(doc! { path: { "$in": [Bson::Null, Bson::Boolean(false)] } })),
        Hold::Ids(ids) => {
            let held: Vec<Bson> = ids.iter().flat_map(|id| meanings(id)).collect();
            Some(doc! { "_id": { "$nin": held } })
        }
        Hold::Collection(_) => None,
    }
}

/// Of these documents, those that another collection holds: the keys of their ids.
///
/// # Errors
/// When a collection cannot be read.
pub(super) async fn held_elsewhere(policy: &Policy, database: &Database, ids: &[Bson]) -> Result<HashSet<Vec<u8>>, RetentionError> {
    let mut held = HashSet::new();
    for hold in &policy.holds {
        if let Hold::Collection(edge) = hold {
            let named = named(policy, database, edge, ids).await?;
            held.extend(ids.iter().filter(|id| named.contains(&key(&reference(id, edge.id)))).map(key));
        }
    }
    Ok(held)
}

/// The keys of all references that the documents of a collection make to these.
async fn named(policy: &Policy, database: &Database, edge: &Child, ids: &[Bson]) -> Result<HashSet<Vec<u8>>, RetentionError> {
    let references: Vec<Bson> = ids.iter().map(|id| reference(id, edge.id)).collect();
    let collection = database.collection::<Document>(&edge.collection);
    let field = edge.field.clone();
    within(LIMIT, async move {
        let found = collection.find(doc! { &field: { "$in": references } }).projection(doc! { "_id": 0, &field: 1 });
        let mut cursor = found.max_time(LIMIT).await?;
        let mut named = HashSet::new();
        while cursor.advance().await? {
            match at(&cursor.deserialize_current()?, &field) {
                Some(Bson::Array(items)) => named.extend(items.iter().map(key)),
                Some(value) => drop(named.insert(key(value))),
                None => {}
            }
        }
        Ok(named)
    })
    .await
    .map_err(|source| RetentionError::store(policy, "reading what holds documents", source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_is_a_condition_that_only_absence_fulfils() {
        let not_held = |hold| not_held(&hold).unwrap().to_string();
        assert_eq!(
            not_held(Hold::Field("hold".to_owned())),
            r#"{ "$and": [{ "hold": { "$in": [null, false] } }, { "hold": { "$not": { "$type": "array" } } }] }"#
        );
        assert_eq!(not_held(Hold::Ids(vec!["7".to_owned()])), r#"{ "_id": { "$nin": ["7", 7] } }"#);
    }
}
