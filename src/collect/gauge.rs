//! One question to the database and its answer in numbers.
//!
//! Asks for nothing beyond what the answer needs: counts are made by the server, ages from one field of one document.

use std::time::Duration;

use mongodb::Database;
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};

use crate::collect::filter::{all, document, is_date};
use crate::collect::record::time_at;
use crate::config::collect::Query;
use crate::store::mongodb::{StoreError, within};

/// What documents count as whose value is not in the list.
const OTHER: &str = "other";

/// The value of the query's own label, where it has one, and a number.
pub(super) type Sample = (Option<String>, f64);

/// How one question is asked.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    /// The database.
    pub database: Database,
    /// The database's clock, in milliseconds.
    pub now: i64,
    /// How long the answer may take.
    pub limit: Duration,
}

/// The label that a query's answer has.
pub(super) fn label(query: &Query) -> Option<&str> {
    match query {
        Query::Count { .. } | Query::Oldest { .. } | Query::GroupsOver { .. } => None,
        Query::CountBy { field, .. } => field.rsplit('.').next(),
        Query::DocumentsIn(_) | Query::OldestIn(_) => Some("collection"),
    }
}

// === impl Asking ===

impl Asking {
    /// Asks.
    pub(super) async fn ask(&self, query: &Query) -> Result<Vec<Sample>, StoreError> {
        match query {
            Query::Count { collection, filter } => {
                let count = self.count(collection, document(filter, self.now)).await?;
                Ok(vec![(None, count)])
            }
            Query::CountBy { collection, filter, field, values } => {
                let groups = self.aggregate(collection, count_by(document(filter, self.now), field, values)).await?;
                Ok(by_value(&groups, values))
            }
            Query::Oldest { collection, filter, field } => {
                let age = self.oldest(collection, document(filter, self.now), field).await?;
                Ok(vec![(None, age)])
            }
            Query::GroupsOver { collection, filter, by, more_than } => {
                let found = self.aggregate(collection, groups_over(document(filter, self.now), by, *more_than)).await?;
                Ok(vec![(None, found.first().map_or(0.0, |found| number(found.get("n"))))])
            }
            Query::DocumentsIn(collections) => {
                let mut samples = Vec::with_capacity(collections.len());
                for collection in collections {
                    samples.push((Some(collection.clone()), self.documents_in(collection).await?));
                }
                Ok(samples)
            }
            Query::OldestIn(fields) => {
                let mut samples = Vec::with_capacity(fields.len());
                for (collection, field) in fields {
                    samples.push((Some(collection.clone()), self.oldest(collection, Document::new(), field).await?));
                }
                Ok(samples)
            }
        }
    }

    async fn count(&self, collection: &str, filter: Document) -> Result<f64, StoreError> {
        let collection = self.database.collection::<RawDocumentBuf>(collection);
        let limit = self.limit;
        let count = within(limit, async move { collection.count_documents(filter).max_time(limit).await }).await?;
        Ok(to_number(count))
    }

    /// From the collection's metadata: costs nothing, and is 0 where there is no such collection.
    async fn documents_in(&self, collection: &str) -> Result<f64, StoreError> {
        let collection = self.database.collection::<RawDocumentBuf>(collection);
        let limit = self.limit;
        let count = within(limit, async move { collection.estimated_document_count().max_time(limit).await }).await?;
        Ok(to_number(count))
    }

    /// The age of the oldest date of a field, in seconds; 0 when nothing is found, or when it is in the future.
    async fn oldest(&self, collection: &str, filter: Document, field: &str) -> Result<f64, StoreError> {
        let guard = if field == "_id" { vec![doc! { "_id": { "$type": "objectId" } }] } else { is_date(field).to_vec() };
        let filter = all([filter].into_iter().chain(guard));
        let projection = if field == "_id" {
            doc! { "_id": 1 }
        } else {
            doc! { "_id": 0, field: 1 }
        };
        let collection = self.database.collection::<RawDocumentBuf>(collection);
        let (limit, sort) = (self.limit, doc! { field: 1 });
        let found =
            within(limit, async move { collection.find_one(filter).sort(sort).projection(projection).max_time(limit).await }).await?;
        let oldest = found.and_then(|found| time_at(&found, field));
        #[expect(clippy::cast_precision_loss, reason = "ages in milliseconds are far below 2^53")]
        Ok(oldest.map_or(0.0, |oldest| self.now.saturating_sub(oldest).max(0) as f64 / 1000.0))
    }

    async fn aggregate(&self, collection: &str, pipeline: Vec<Document>) -> Result<Vec<Document>, StoreError> {
        let collection = self.database.collection::<Document>(collection);
        let limit = self.limit;
        within(limit, async move {
            // A sidecar's question must not fill the server's disk.
            let mut cursor = collection.aggregate(pipeline).allow_disk_use(false).max_time(limit).await?;
            let mut found = Vec::new();
            while cursor.advance().await? {
                found.push(cursor.deserialize_current()?);
            }
            Ok(found)
        })
        .await
    }
}

/// Counts by value on the server, which answers with no more groups than there are values: a field that holds free
/// text makes one more group, not one for each text.
fn count_by(filter: Document, field: &str, values: &[String]) -> Vec<Document> {
    let text = doc! { "$convert": { "input": format!("${field}"), "to": "string", "onError": Bson::Null, "onNull": Bson::Null } };
    // True of every document; lets the server count by an index on the field instead of reading the documents.
    let by_index = doc! { field: { "$gte": Bson::MinKey } };
    vec![
        doc! { "$match": all([filter, by_index]) },
        doc! { "$group": { "_id": { "$cond": [{ "$in": [text.clone(), values] }, text, Bson::Null] }, "n": { "$sum": 1 } } },
    ]
}

/// Every listed value is there, with 0 where it was not found; all others are one value, and only when there are any.
fn by_value(groups: &[Document], values: &[String]) -> Vec<Sample> {
    // Not `sum`, whose zero for numbers with a fraction is -0.
    let of = |name: Option<&str>| {
        groups.iter().filter(|group| group.get_str("_id").ok() == name).fold(0.0, |sum, group| sum + number(group.get("n")))
    };
    let mut samples: Vec<Sample> = values.iter().map(|value| (Some(value.clone()), of(Some(value)))).collect();
    let others = of(None);
    match samples.iter_mut().find(|(value, _)| value.as_deref() == Some(OTHER)) {
        Some((_, count)) => *count += others,
        None if others > 0.0 => samples.push((Some(OTHER.to_owned()), others)),
        None => {}
    }
    samples
}

/// Documents without the field make no group: "nobody" has not too many.
fn groups_over(filter: Document, by: &str, more_than: u32) -> Vec<Document> {
    vec![
        doc! { "$match": all([filter, doc! { by: { "$ne": Bson::Null } }]) },
        doc! { "$group": { "_id": format!("${by}"), "n": { "$sum": 1 } } },
        doc! { "$match": { "n": { "$gt": i64::from(more_than) } } },
        doc! { "$count": "n" },
    ]
}

#[expect(clippy::cast_precision_loss, reason = "numbers of documents are far below 2^53")]
fn number(value: Option<&Bson>) -> f64 {
    match value {
        Some(Bson::Int32(number)) => f64::from(*number),
        Some(Bson::Int64(number)) => *number as f64,
        Some(Bson::Double(number)) => *number,
        _ => 0.0,
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of documents are far below 2^53")]
fn to_number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_values_are_always_there_and_others_only_when_there_are_any() {
        let values = ["running".to_owned(), "failed".to_owned()];
        let sample = |value: &str, count| (Some(value.to_owned()), count);
        assert_eq!(by_value(&[], &values), [sample("running", 0.0), sample("failed", 0.0)]);
        assert!(by_value(&[], &values).iter().all(|(_, count)| count.is_sign_positive()), "-0 is exposed as -0");
        let groups = [doc! { "_id": "failed", "n": 2_i32 }, doc! { "_id": Bson::Null, "n": 3_i64 }];
        assert_eq!(by_value(&groups, &values), [sample("running", 0.0), sample("failed", 2.0), sample("other", 3.0)]);
        assert_eq!(by_value(&groups, &["other".to_owned()]), [sample("other", 3.0)]);
    }

    #[test]
    fn the_label_is_the_last_part_of_the_path() {
        let query = |field: &str| Query::CountBy {
            collection: "c".to_owned(),
            filter: crate::config::collect::Filter::default(),
            field: field.to_owned(),
            values: Vec::new(),
        };
        assert_eq!(label(&query("status")), Some("status"));
        assert_eq!(label(&query("warehouse.provider")), Some("provider"));
        assert_eq!(label(&Query::DocumentsIn(Vec::new())), Some("collection"));
    }
}
