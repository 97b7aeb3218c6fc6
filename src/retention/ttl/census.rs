//! What a TTL will never delete, and what it should have deleted by now: counted, at a cost that has a bound.
//!
//! A collection of up to 10,000 documents is read as a whole, of each document the field alone. Of a larger one 1000 are
//! drawn by chance, and the numbers are estimates. What is past due is counted by the index, up to 100,000.

use std::time::Duration;

use mongodb::bson::{Bson, DateTime, Document, doc};
use mongodb::options::Hint;
use serde::Serialize;

use crate::config::retention::Ttl;
use crate::retention::ttl::{indexes, number, seconds};
use crate::store::mongodb::{Mongo, StoreError, within};

/// Up to so many documents, all are looked at.
const WHOLE: u64 = 10_000;

/// Of more, so many: what a hundredth of the documents are is missed by one draw in 23,000.
const DRAWN: u64 = 1000;

/// Counts of what is past due end here.
const MOST_DUE: u64 = 100_000;

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Why a document never expires: what its field is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Undated {
    /// The field is missing.
    Missing,
    /// The field is null.
    Null,
    /// The field is a text.
    Text,
    /// The field is a number.
    Number,
    /// The field is an empty list.
    EmptyList,
    /// The field is a list without a date.
    List,
    /// The field is of another type that is no date.
    Other,
}

/// How a declared TTL stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Census {
    /// The collection.
    pub collection: String,
    /// The field.
    pub field: String,
    /// The seconds that are declared.
    pub declared_seconds: u64,
    /// The seconds of the index: the shortest of several. `None` where there is no index; a text where they are no number.
    #[serde(serialize_with = "as_number_or_text")]
    pub index_seconds: Option<f64>,
    /// About how many documents there are.
    pub documents: u64,
    /// How many of them will never expire, for each reason that there is.
    pub never: Vec<Never>,
    /// Whether `never` was estimated by a draw.
    pub is_estimate: bool,
    /// How many should have expired by now, by the index; of more than 100,000, as many.
    pub past_due: Option<u64>,
}

/// Documents that will never expire.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Never {
    /// Why.
    pub reason: Undated,
    /// How many.
    pub documents: u64,
}

// === impl Undated ===

impl Undated {
    /// Every reason.
    pub const ALL: [Self; 7] = [Self::Missing, Self::Null, Self::Text, Self::Number, Self::EmptyList, Self::List, Self::Other];

    /// The word of metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Null => "null",
            Self::Text => "text",
            Self::Number => "number",
            Self::EmptyList => "empty_list",
            Self::List => "list",
            Self::Other => "other",
        }
    }
}

/// Counts for one TTL; `None` where there is no such collection.
///
/// # Errors
/// When the database does not answer, or not in time.
pub async fn census(mongo: &Mongo, ttl: &Ttl) -> Result<Option<Census>, StoreError> {
    let Some(indexes) = indexes(mongo, &ttl.collection).await? else { return Ok(None) };
    let index_seconds = seconds(&indexes, &ttl.field);
    let collection = mongo.database().await?.collection::<Document>(&ttl.collection);
    let counting = collection.clone();
    let documents = within(LIMIT, async move { counting.estimated_document_count().max_time(LIMIT).await }).await?;
    let pipeline = kinds(&ttl.field, documents);
    let found = within(LIMIT, async move {
        let mut cursor = collection.aggregate(pipeline).max_time(LIMIT).await?;
        let mut found = Vec::new();
        while cursor.advance().await? {
            found.push(cursor.deserialize_current()?);
        }
        Ok(found)
    });
    let never = scaled(&found.await?, documents);
    Ok(Some(Census {
        collection: ttl.collection.clone(),
        field: ttl.field.clone(),
        declared_seconds: ttl.expire_after.as_secs(),
        index_seconds,
        documents,
        never,
        is_estimate: documents > WHOLE,
        past_due: past_due(mongo, ttl, &indexes, index_seconds).await?,
    }))
}

/// Where the index says no time, nobody can say what is past it.
async fn past_due(mongo: &Mongo, ttl: &Ttl, indexes: &[Document], seconds: Option<f64>) -> Result<Option<u64>, StoreError> {
    let Some(seconds) = seconds.filter(|seconds| seconds.is_finite()) else { return Ok(None) };
    let is_it = |index: &&Document| {
        let on_field = index.get_document("key").is_ok_and(|key| key.len() == 1 && key.contains_key(&ttl.field));
        on_field && index.get("expireAfterSeconds").map(number).is_some_and(|found| found <= seconds)
    };
    let Some(name) = indexes.iter().find(is_it).and_then(|index| index.get_str("name").ok()) else { return Ok(None) };
    #[expect(clippy::cast_possible_truncation, reason = "seconds of an index are at most 2^31")]
    let due = mongo.server_time(LIMIT).await?.saturating_sub((seconds * 1000.0) as i64);
    let collection = mongo.database().await?.collection::<Document>(&ttl.collection);
    let (filter, hint) = (doc! { &ttl.field: { "$lt": DateTime::from_millis(due) } }, Hint::Name(name.to_owned()));
    let counted = within(LIMIT, async move { collection.count_documents(filter).hint(hint).limit(MOST_DUE).max_time(LIMIT).await }).await?;
    Ok(Some(counted))
}

/// Counts documents by what their field is: of a small collection all, of a large one some that are drawn.
fn kinds(field: &str, documents: u64) -> Vec<Document> {
    let value = format!("${field}");
    let is = |kind: &str| doc! { "$eq": [{ "$type": &value }, kind] };
    let branch = |case: Document, then: &str| Bson::from(doc! { "case": case, "then": then });
    let dates = doc! { "$filter": { "input": &value, "as": "item", "cond": { "$eq": [{ "$type": "$$item" }, "date"] } } };
    let branches = vec![
        branch(is("date"), ""),
        branch(is("missing"), Undated::Missing.word()),
        branch(doc! { "$in": [{ "$type": &value }, ["null", "undefined"]] }, Undated::Null.word()),
        branch(is("string"), Undated::Text.word()),
        branch(doc! { "$isNumber": &value }, Undated::Number.word()),
        branch(doc! { "$eq": [&value, []] }, Undated::EmptyList.word()),
        branch(doc! { "$and": [is("array"), { "$eq": [dates, []] }] }, Undated::List.word()),
        branch(is("array"), ""),
    ];
    let size = i64::try_from(if documents > WHOLE { DRAWN } else { WHOLE }).unwrap_or(i64::MAX);
    let first = if documents > WHOLE {
        doc! { "$sample": { "size": size } }
    } else {
        doc! { "$limit": size }
    };
    vec![
        first,
        doc! { "$group": {
            "_id": { "$switch": { "branches": branches, "default": Undated::Other.word() } },
            "n": { "$sum": 1_i64 },
        } },
    ]
}

/// Counts of all documents, by those that were looked at.
fn scaled(found: &[Document], documents: u64) -> Vec<Never> {
    let count = |found: &Document| found.get_i64("n").ok().and_then(|n| u64::try_from(n).ok()).unwrap_or_default();
    let seen: u64 = found.iter().map(count).sum();
    let whole = if documents > WHOLE { documents } else { seen };
    let of = |reason: Undated| {
        let n = found.iter().find(|found| found.get_str("_id").ok() == Some(reason.word())).map(count)?;
        let documents = u128::from(n) * u128::from(whole) / u128::from(seen.max(1));
        Some(Never { reason, documents: u64::try_from(documents).unwrap_or(u64::MAX) })
    };
    Undated::ALL.into_iter().filter_map(of).collect()
}

#[expect(clippy::ref_option, reason = "serde asks for it like this")]
fn as_number_or_text<S: serde::Serializer>(seconds: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match seconds {
        Some(seconds) if seconds.is_finite() => serializer.serialize_f64(*seconds),
        Some(seconds) => serializer.serialize_str(&seconds.to_string()),
        None => serializer.serialize_none(),
    }
}

// === impl Census ===

impl std::fmt::Display for Census {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { collection, field, declared_seconds, documents, .. } = self;
        write!(formatter, "ttl {collection}.{field}: declared {declared_seconds} s, ")?;
        match self.index_seconds {
            None => write!(formatter, "no index with a time to live")?,
            Some(seconds) if seconds.is_nan() => write!(formatter, "the index says NaN: some servers delete at once, others never")?,
            Some(seconds) if seconds <= 0.0 => write!(formatter, "the index says 0 s: whatever is dated in the past is deleted")?,
            Some(seconds) if seconds >= f64::from(i32::MAX) => {
                write!(formatter, "the index says never, which newer servers make of NaN: {seconds} s")?;
            }
            Some(seconds) => write!(formatter, "the index {seconds} s")?,
        }
        if let Some(due) = self.past_due {
            write!(formatter, "; past due {due}{}", if due >= MOST_DUE { " or more" } else { "" })?;
        }
        write!(formatter, "; of {}{documents} documents", if self.is_estimate { "about " } else { "" })?;
        if self.never.is_empty() {
            return write!(formatter, " all will expire");
        }
        let about = if self.is_estimate { "about " } else { "" };
        let never: Vec<String> = self.never.iter().map(|never| format!("{about}{} ({})", never.documents, never.reason.word())).collect();
        write!(formatter, " never expire {}", never.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_is_scaled_to_the_whole_and_a_whole_is_not() {
        let found = [doc! { "_id": "", "n": 900_i64 }, doc! { "_id": "null", "n": 75_i64 }, doc! { "_id": "other", "n": 25_i64 }];
        let never =
            |found: &[Document], documents| scaled(found, documents).iter().map(|one| (one.reason, one.documents)).collect::<Vec<_>>();
        assert_eq!(never(&found, 1_000_000), [(Undated::Null, 75_000), (Undated::Other, 25_000)]);
        assert_eq!(never(&found, 990), [(Undated::Null, 75), (Undated::Other, 25)], "an estimate of the server may be off");
        assert_eq!(never(&[], 0), []);
    }

    #[test]
    fn a_census_reads_like_a_sentence() {
        let census = Census {
            collection: "c".to_owned(),
            field: "f".to_owned(),
            declared_seconds: 60,
            index_seconds: Some(f64::NAN),
            documents: 20_000,
            never: vec![Never { reason: Undated::Null, documents: 40 }],
            is_estimate: true,
            past_due: None,
        };
        let text = census.to_string();
        assert!(text.contains("NaN") && text.ends_with("of about 20000 documents never expire about 40 (null)"), "{text}");
        assert_eq!(serde_json::to_value(&census).unwrap()["index_seconds"], "NaN");
        let whole = Census { index_seconds: Some(0.0), never: Vec::new(), is_estimate: false, past_due: Some(100_000), ..census };
        let text = whole.to_string();
        assert!(text.contains("says 0 s") && text.contains("100000 or more") && text.ends_with("all will expire"), "{text}");
    }
}
