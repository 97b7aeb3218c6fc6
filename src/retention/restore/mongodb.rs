//! Documents back into their collections. What was inserted is read again and compared.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use mongodb::Database;
use mongodb::bson::{Bson, RawBsonRef, RawDocument, RawDocumentBuf, doc};
use mongodb::error::ErrorKind;

use crate::retention::archive::{Digest, Entry};
use crate::retention::restore::{Batch, Manner, RestoreError, Tally};
use crate::store::mongodb::{Mongo, StoreError, within};

/// How long one answer may take: 500 documents of 16 MiB are not inserted in a moment.
const LIMIT: Duration = Duration::from_secs(120);

/// Collections of one database.
pub(super) struct Documents {
    mongo: Mongo,
    database: String,
}

/// What stands under an `_id`.
type Present = HashMap<Vec<u8>, Digest>;

// === impl Documents ===

impl Documents {
    pub(super) fn new(mongo: Mongo, database: &str) -> Self {
        Self { mongo, database: database.to_owned() }
    }

    pub(super) async fn take(&self, batch: Batch, manner: Manner, tally: &mut Tally) -> Result<(), RestoreError> {
        let unit = batch.unit.as_str();
        let failed = |step| move |source| RestoreError::Store { unit: unit.to_owned(), step, source };
        let database = self.mongo.database().await.map_err(failed("connecting"))?.client().database(&self.database);
        let present = present(&database, unit, &batch.records).await.map_err(failed("looking for what is there"))?;
        let (mut missing, mut other) = (Vec::new(), Vec::new());
        for (entry, bytes) in batch.records.iter() {
            match key(bytes).and_then(|key| present.get(&key)) {
                Some(found) if *found == entry.sha256 => tally.identical += 1,
                Some(_) => other.push((entry, bytes)),
                None => missing.push((entry, bytes)),
            }
        }
        if manner.overwrite {
            tally.overwritten += other.len() as u64;
        } else {
            other.drain(..).for_each(|(entry, _)| tally.differs(unit, &entry.id));
        }
        if manner.dry_run {
            tally.restored += missing.len() as u64;
            return Ok(());
        }
        let documents: Vec<_> = missing.iter().filter_map(|(_, bytes)| RawDocumentBuf::from_bytes((*bytes).clone()).ok()).collect();
        let taken = insert(&database, unit, documents).await.map_err(failed("inserting"))?;
        for (_, bytes) in &other {
            replace(&database, unit, bytes).await.map_err(failed("replacing"))?;
        }
        let written: Vec<_> = missing.iter().chain(&other).map(|(entry, bytes)| ((*entry).clone(), (*bytes).clone())).collect();
        let present = self::present(&database, unit, &written).await.map_err(failed("reading again"))?;
        for (position, (entry, bytes)) in written.iter().enumerate() {
            let found = key(bytes).and_then(|key| present.get(&key));
            if found == Some(&entry.sha256) {
                tally.restored += u64::from(position < missing.len());
            } else if position < missing.len() && (found.is_some() || taken.contains(&position)) {
                // Somebody else wrote it in between, or the same number has another type: not written over.
                tally.differs(unit, &entry.id);
            } else {
                return Err(RestoreError::NotTheSame { unit: unit.to_owned(), id: entry.id.clone() });
            }
        }
        Ok(())
    }
}

/// What is there of these records.
async fn present(database: &Database, unit: &str, records: &[(Entry, Vec<u8>)]) -> Result<Present, StoreError> {
    let ids: Vec<Bson> = records.iter().filter_map(|(_, bytes)| id(bytes)?.try_into().ok()).collect();
    if ids.is_empty() {
        return Ok(Present::new());
    }
    let collection = database.collection::<RawDocumentBuf>(unit);
    let found: Vec<RawDocumentBuf> =
        within(LIMIT, async move { collection.find(doc! { "_id": { "$in": ids } }).await?.try_collect().await }).await?;
    Ok(found.iter().filter_map(|document| Some((key(document.as_bytes())?, Digest::of(document.as_bytes())))).collect())
}

/// Inserts what is not there, and says which of them were there meanwhile: that is no failure.
async fn insert(database: &Database, unit: &str, documents: Vec<RawDocumentBuf>) -> Result<Vec<usize>, StoreError> {
    if documents.is_empty() {
        return Ok(Vec::new());
    }
    let collection = database.collection::<RawDocumentBuf>(unit);
    within(LIMIT, async move {
        match collection.insert_many(documents).ordered(false).await {
            Err(error) => duplicates(&error).ok_or(error),
            Ok(_) => Ok(Vec::new()),
        }
    })
    .await
}

/// The positions of those whose `_id` is taken, where nothing else was wrong.
fn duplicates(error: &mongodb::error::Error) -> Option<Vec<usize>> {
    let ErrorKind::InsertMany(failure) = error.kind.as_ref() else { return None };
    let errors = failure.write_errors.as_ref().filter(|_| failure.write_concern_error.is_none())?;
    errors.iter().map(|error| (error.code == 11_000).then_some(error.index)).collect()
}

async fn replace(database: &Database, unit: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let damaged = || StoreError::Driver { reason: crate::store::mongodb::Reason::Other, code: None };
    let document = RawDocumentBuf::from_bytes(bytes.to_vec()).map_err(|_| damaged())?;
    let id: Bson = id(bytes).and_then(|id| id.try_into().ok()).ok_or_else(damaged)?;
    let collection = database.collection::<RawDocumentBuf>(unit);
    within(LIMIT, async move { collection.replace_one(doc! { "_id": id }, document).upsert(true).await.map(drop) }).await
}

fn id(bytes: &[u8]) -> Option<RawBsonRef<'_>> {
    RawDocument::from_bytes(bytes).ok()?.get("_id").ok()?
}

/// The `_id` with its type, so that 1 and 1.0 are two.
fn key(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut key = RawDocumentBuf::new();
    key.append(mongodb::bson::raw::cstr!("_id"), id(bytes)?);
    Some(key.into_bytes())
}
