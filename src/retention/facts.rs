//! What a plan needs to know of a collection, read without writing anything and without loading its documents.
//!
//! Counts are made by the server, each with a limit. They are taken one after the other: while the application writes,
//! they may differ by what it wrote in between.

use mongodb::Database;
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use mongodb::options::Hint;

use crate::config::retention::{Hold, KeepLast, Policy};
use crate::retention::children;
use crate::retention::holds::eligible;
use crate::retention::shape::{Field, Window};
use crate::retention::{LIMIT, RetentionError};
use crate::store::mongodb::{Mongo, within};

/// Every type but dates, lists, null, texts and numbers.
const OTHER_TYPES: [&str; 13] = [
    "object",
    "binData",
    "undefined",
    "objectId",
    "bool",
    "regex",
    "dbPointer",
    "javascript",
    "symbol",
    "javascriptWithScope",
    "timestamp",
    "minKey",
    "maxKey",
];

/// What there is in a collection, as a policy divides it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The database.
    pub database: String,
    /// The points in time by which it is divided.
    pub window: Window,
    /// All documents.
    pub total: u64,
    /// Older than the cutoff, with a date that was set.
    pub expired: u64,
    /// Of those, how many are among the newest of their group.
    pub among_newest: u64,
    /// Of the others, how many are held; where that is too much to count, less than that.
    pub held: u64,
    /// Younger than the cutoff, or exactly as old.
    pub young: u64,
    /// Dated in the future.
    pub future: u64,
    /// Dated before 2000.
    pub before_floor: u64,
    /// The field is missing.
    pub missing: u64,
    /// The field is null.
    pub null: u64,
    /// The field is a text.
    pub text: u64,
    /// The field is a number.
    pub number: u64,
    /// The field is a list, or within one.
    pub list: u64,
    /// The field is of any other type.
    pub other: u64,
    /// The oldest date that was set, in milliseconds.
    pub oldest: Option<i64>,
    /// How the server would find the documents.
    pub access: Access,
    /// Collections that each batch looks into and that have no index for it.
    pub scanned: Vec<Scanned>,
    /// How many documents of each child collection would go; `None` where there are too many to count.
    pub children: Option<Vec<u64>>,
    /// The mean size of a document, where the user may know it.
    pub mean_bytes: Option<f64>,
}

/// How the server would find the documents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// By this index.
    pub index: Option<String>,
    /// By reading the whole collection.
    pub scans: bool,
    /// The index proves that no document has a list there.
    pub proves_no_list: bool,
}

/// A collection that is read as a whole whenever something in it is looked for by a field.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scanned {
    /// The collection.
    pub collection: String,
    /// The field.
    pub field: String,
    /// About how many documents it has.
    pub documents: u64,
}

/// Reads the facts of a policy's collection. `now` is the database's clock, in milliseconds.
///
/// # Errors
/// When the database does not answer, or not in time.
pub async fn read(policy: &Policy, mongo: &Mongo, now: i64) -> Result<Facts, RetentionError> {
    read_window(policy, mongo, Window::of(policy, now)).await
}

/// The same for points in time that somebody has decided on.
pub(super) async fn read_window(policy: &Policy, mongo: &Mongo, window: Window) -> Result<Facts, RetentionError> {
    let database = mongo.database().await.map_err(|source| RetentionError::store(policy, "connecting", source))?;
    let reader = Reader { policy, database: &database, window };
    let access = reader.access().await?;
    let field = Field::proved(&policy.field, access.proves_no_list);
    let list = if access.proves_no_list { 0 } else { reader.count(field.listed()).await? };
    let children = children::count(policy, &database, window).await?;
    let among_newest = match (&policy.keep_last, children.among_newest) {
        (None, _) => 0,
        (Some(_), Some(counted)) => counted,
        (Some(last), None) => reader.among_newest(last).await?,
    };
    let expired = reader.count(field.dated(window.expired())).await?;
    let held = match children.held {
        Some(held) => held,
        // Some may be both: counted as few as they can be, so that no guard sees fewer deletions than there may be.
        None => (expired - reader.count(eligible(policy, window)).await?.min(expired)).saturating_sub(among_newest),
    };
    Ok(Facts {
        database: database.name().to_owned(),
        window,
        total: reader.total().await?,
        expired,
        among_newest,
        held,
        young: reader.count(field.dated(window.young())).await?,
        future: reader.count(field.dated(window.future())).await?,
        before_floor: reader.count(field.dated(window.before_floor())).await?,
        missing: reader.count(field.missing()).await?,
        null: reader.count(field.typed(&["null"])).await?,
        text: reader.count(field.typed(&["string"])).await?,
        number: reader.count(field.typed(&["number"])).await?,
        list,
        other: reader.count(field.typed(&OTHER_TYPES)).await?,
        oldest: reader.oldest().await?,
        access,
        scanned: reader.scanned().await?,
        children: children.counts,
        mean_bytes: reader.mean_bytes().await,
    })
}

struct Reader<'a> {
    policy: &'a Policy,
    database: &'a Database,
    window: Window,
}

// === impl Reader ===

impl Reader<'_> {
    async fn count(&self, filter: Document) -> Result<u64, RetentionError> {
        let collection = self.database.collection::<RawDocumentBuf>(&self.policy.collection);
        within(LIMIT, async move { collection.count_documents(filter).max_time(LIMIT).await })
            .await
            .map_err(|source| RetentionError::store(self.policy, "counting documents by their date", source))
    }

    /// By the index on `_id`, which reads no document.
    async fn total(&self) -> Result<u64, RetentionError> {
        let collection = self.database.collection::<RawDocumentBuf>(&self.policy.collection);
        let hint = Hint::Keys(doc! { "_id": 1 });
        within(LIMIT, async move { collection.count_documents(doc! {}).hint(hint).max_time(LIMIT).await })
            .await
            .map_err(|source| RetentionError::store(self.policy, "counting all documents", source))
    }

    async fn oldest(&self) -> Result<Option<i64>, RetentionError> {
        let (collection, field) = (self.database.collection::<Document>(&self.policy.collection), self.policy.field.clone());
        let filter = Field::new(&field).dated(self.window.plausible());
        // The date comes under a plain name, so that nothing needs to know where it stands.
        let pipeline = vec![
            doc! { "$match": filter },
            doc! { "$sort": { &field: 1 } },
            doc! { "$limit": 1 },
            doc! { "$project": { "_id": 0, "date": format!("${field}") } },
        ];
        let found = self.first(collection, pipeline, "looking for the oldest document").await?;
        Ok(found.and_then(|found| found.get_datetime("date").ok().map(|date| date.timestamp_millis())))
    }

    /// Of each group the newest N stay. The young ones are the newest; of the expired ones as many stay as are missing
    /// to N. Dates in the future take no place: they are no proof that there is something newer.
    async fn among_newest(&self, last: &KeepLast) -> Result<u64, RetentionError> {
        let collection = self.database.collection::<Document>(&self.policy.collection);
        let (date, cutoff) = (format!("${}", self.policy.field), mongodb::bson::DateTime::from_millis(self.window.cutoff));
        let is_expired = doc! { "$lt": [&date, cutoff] };
        let open = doc! { "$max": [0_i64, { "$subtract": [i64::from(last.count), "$young"] }] };
        let pipeline = vec![
            doc! { "$match": Field::new(&self.policy.field).dated(self.window.plausible()) },
            doc! { "$group": {
                "_id": { "$ifNull": [format!("${}", last.per), Bson::Null] },
                "expired": { "$sum": { "$cond": [&is_expired, 1_i64, 0_i64] } },
                "young": { "$sum": { "$cond": [&is_expired, 0_i64, 1_i64] } },
            } },
            doc! { "$group": { "_id": Bson::Null, "n": { "$sum": { "$min": ["$expired", open] } } } },
        ];
        let found = self.first(collection, pipeline, "counting the newest of each group").await?;
        Ok(found.and_then(|found| u64::try_from(found.get_i64("n").ok()?).ok()).unwrap_or_default())
    }

    /// A figure for people: where the user may not ask for it, the plan goes without.
    async fn mean_bytes(&self) -> Option<f64> {
        let collection = self.database.collection::<Document>(&self.policy.collection);
        let size = doc! { "$project": { "_id": 0, "n": "$storageStats.avgObjSize" } };
        let pipeline = vec![doc! { "$collStats": { "storageStats": {} } }, size];
        match self.first(collection, pipeline, "asking for sizes").await.ok()??.get("n")? {
            Bson::Int32(size) => Some(f64::from(*size)),
            #[expect(clippy::cast_precision_loss, reason = "a document has at most 16 MiB")]
            Bson::Int64(size) => Some(*size as f64),
            Bson::Double(size) => Some(*size),
            _ => None,
        }
    }

    async fn access(&self) -> Result<Access, RetentionError> {
        let (filter, sort) = (Field::new(&self.policy.field).dated(self.window.expired()), doc! { &self.policy.field: 1 });
        self.explain(doc! { "find": &self.policy.collection, "filter": filter, "sort": sort }).await
    }

    /// What refers to the documents, and what holds them, is looked for in each batch.
    async fn scanned(&self) -> Result<Vec<Scanned>, RetentionError> {
        let holding = self.policy.holds.iter().filter_map(|hold| if let Hold::Collection(edge) = hold { Some(edge) } else { None });
        let mut scanned = Vec::new();
        for edge in self.policy.children.iter().chain(holding) {
            // Two values, as one alone may be found by a shorter way.
            let find = doc! { "find": &edge.collection, "filter": { &edge.field: { "$in": ["", "a"] } } };
            if self.explain(find).await?.scans {
                let collection = self.database.collection::<RawDocumentBuf>(&edge.collection);
                let documents = within(LIMIT, async move { collection.estimated_document_count().max_time(LIMIT).await });
                let documents = documents
                    .await
                    .map_err(|source| RetentionError::store(self.policy, "counting what refers to the documents", source))?;
                scanned.push(Scanned { collection: edge.collection.clone(), field: edge.field.clone(), documents });
            }
        }
        Ok(scanned)
    }

    async fn explain(&self, find: Document) -> Result<Access, RetentionError> {
        let database = self.database.clone();
        let command = doc! { "explain": find, "verbosity": "queryPlanner", "maxTimeMS": 5000 };
        let reply = within(LIMIT, async move { database.run_command(command).await })
            .await
            .map_err(|source| RetentionError::store(self.policy, "asking how the documents would be found", source))?;
        let mut access = Access::default();
        let planner = reply.get_document("queryPlanner").cloned().unwrap_or_default();
        walk(&planner, &mut access);
        Ok(access)
    }

    async fn first(
        &self,
        collection: mongodb::Collection<Document>,
        pipeline: Vec<Document>,
        step: &'static str,
    ) -> Result<Option<Document>, RetentionError> {
        within(LIMIT, async move {
            let mut cursor = collection.aggregate(pipeline).allow_disk_use(false).max_time(LIMIT).await?;
            if cursor.advance().await? { cursor.deserialize_current().map(Some) } else { Ok(None) }
        })
        .await
        .map_err(|source| RetentionError::store(self.policy, step, source))
    }
}

/// Finds the stages of the plan that was chosen, however deep servers of different versions and shards nest it.
fn walk(plan: &Document, access: &mut Access) {
    let stage = plan.get_str("stage").unwrap_or_default();
    if stage == "COLLSCAN" {
        access.scans = true;
    } else if stage.ends_with("IXSCAN") {
        let is_false = |name| plan.get_bool(name).ok() == Some(false);
        let proves = is_false("isMultiKey") && is_false("isPartial");
        access.proves_no_list = proves && (access.index.is_none() || access.proves_no_list);
        access.index = plan.get_str("indexName").ok().map(str::to_owned).or(access.index.take());
    }
    for (key, value) in plan {
        match value {
            // Plans that were not chosen, and the query itself.
            _ if matches!(key.as_str(), "rejectedPlans" | "parsedQuery" | "slotBasedPlan" | "indexBounds") => {}
            Bson::Document(inner) => walk(inner, access),
            Bson::Array(items) => items.iter().filter_map(Bson::as_document).for_each(|inner| walk(inner, access)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(plan: Document) -> Access {
        let mut access = Access::default();
        walk(&plan, &mut access);
        access
    }

    #[test]
    fn the_chosen_plan_is_found_at_any_depth() {
        let scan = doc! { "stage": "IXSCAN", "indexName": "created_at_-1", "isMultiKey": false, "isPartial": false };
        let classic = doc! { "winningPlan": { "stage": "FETCH", "inputStage": scan.clone() }, "rejectedPlans": [{ "stage": "COLLSCAN" }] };
        let expected = Access { index: Some("created_at_-1".to_owned()), scans: false, proves_no_list: true };
        assert_eq!(access(classic.clone()), expected);
        assert_eq!(access(doc! { "winningPlan": { "queryPlan": classic.clone(), "slotBasedPlan": { "stages": "x" } } }), expected);
        let sharded = doc! { "winningPlan": { "stage": "SHARD_MERGE", "shards": [classic, { "winningPlan": { "stage": "COLLSCAN" } }] } };
        assert_eq!(access(sharded), Access { scans: true, ..expected.clone() });
        let mut multikey = scan;
        multikey.insert("isMultiKey", true);
        assert!(!access(doc! { "winningPlan": multikey }).proves_no_list);
    }
}
