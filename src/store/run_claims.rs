//! One run a project, among any number of processes: a claim in MongoDB, one document a project.
//!
//! A claim is `{ _id: project, run, holder, epoch, expires }`; front doors take the same for runs of the API (`front::claims`).
//! Time is the server's alone (`$$NOW`). The epoch grows with each run. A claim that was given back has expired in 1970, and
//! names no run; one that has merely expired is not free: its run may go on without its holder, so whoever takes it over has
//! looked first, and takes it only as it was seen.

use std::sync::Arc;
use std::time::Duration;

use mongodb::bson::{Bson, DateTime, Document, doc};
use mongodb::options::ReturnDocument;

use crate::store::mongodb::{Mongo, StoreError, majority, within};

/// The collection, in the application's database. It has no TTL: an epoch that begins anew would let a late writer in.
pub const COLLECTION: &str = "bellwether_run_claims";

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The claims of one holder.
#[derive(Clone, Debug)]
pub struct RunClaims {
    mongo: Arc<Mongo>,
    holder: String,
    ttl: Duration,
}

/// A claim as it stands in the database.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    /// The project.
    pub project: String,
    /// The run that it is for.
    pub run: String,
    /// Whose it is.
    pub holder: String,
    /// Grows with each run.
    pub epoch: i64,
    /// When it expires, by the server's clock, in milliseconds since 1970.
    pub expires: i64,
    /// The run that somebody without a hold on it wants to end.
    pub cancel: Option<String>,
}

/// Whether a claim was got.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Claiming {
    /// It is ours.
    Ours,
    /// It is of another run.
    Held(Claim),
}

// === impl RunClaims ===

impl RunClaims {
    /// The claims of `holder`, each of which lasts `ttl` from its last heartbeat.
    #[must_use]
    pub fn new(mongo: Arc<Mongo>, holder: String, ttl: Duration) -> Self {
        Self { mongo, holder, ttl }
    }

    /// Takes a project's claim where it was never taken, or was given back: one round trip, and a second where it is held.
    ///
    /// # Errors
    /// When the server does not answer; whether it was taken is not known then.
    pub async fn take(&self, project: &str, run: &str) -> Result<Claiming, StoreError> {
        let free = doc! { "_id": project, "expires": { "$lte": DateTime::from_millis(0) } };
        match self.put(free, run, true).await {
            Ok(_) => Ok(Claiming::Ours),
            Err(error) if error.is_duplicate() => match self.find(project).await? {
                Some(claim) if claim.run == run && claim.holder == self.holder => Ok(Claiming::Ours),
                Some(claim) => Ok(Claiming::Held(claim)),
                None => Err(StoreError::Driver { reason: crate::store::mongodb::Reason::Other, code: None }),
            },
            Err(error) => Err(error),
        }
    }

    /// Takes a claim over that has expired by the server's clock, and only as it was seen. Whether it was taken.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn take_over(&self, seen: &Claim, run: &str) -> Result<bool, StoreError> {
        let unchanged = doc! {
            "_id": &seen.project, "run": run_of(&seen.run), "epoch": seen.epoch, "expires": DateTime::from_millis(seen.expires),
            "$expr": { "$lte": ["$expires", "$$NOW"] },
        };
        self.put(unchanged, run, false).await
    }

    async fn put(&self, filter: Document, run: &str, upsert: bool) -> Result<bool, StoreError> {
        let ttl = self.ttl_millis();
        let update = vec![
            doc! { "$set": {
                "run": run,
                "holder": &self.holder,
                "epoch": { "$add": [{ "$ifNull": ["$epoch", 0_i64] }, 1_i64] },
                "expires": { "$add": ["$$NOW", ttl] },
                "taken": "$$NOW",
            } },
            doc! { "$unset": "cancel" },
        ];
        let collection = self.mongo.database().await?.collection::<Document>(COLLECTION);
        let put = within(LIMIT, async move {
            collection
                .find_one_and_update(filter, update)
                .upsert(upsert)
                .return_document(ReturnDocument::After)
                .write_concern(majority(LIMIT))
                .max_time(LIMIT)
                .await
        });
        Ok(put.await?.is_some())
    }

    /// The claim of a project.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn find(&self, project: &str) -> Result<Option<Claim>, StoreError> {
        Ok(self.all(doc! { "_id": project }).await?.pop())
    }

    /// All claims of this holder that were not given back.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn ours(&self) -> Result<Vec<Claim>, StoreError> {
        self.all(doc! { "holder": &self.holder, "expires": held() }).await
    }

    /// Those of them that nobody has renewed in time, by the server's clock.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn lapsed(&self) -> Result<Vec<Claim>, StoreError> {
        let has_lapsed = doc! { "$lte": ["$expires", "$$NOW"] };
        self.all(doc! { "holder": &self.holder, "expires": held(), "$expr": has_lapsed }).await
    }

    async fn all(&self, filter: Document) -> Result<Vec<Claim>, StoreError> {
        let collection = self.mongo.database().await?.collection::<Document>(COLLECTION);
        within(LIMIT, async move {
            let mut cursor = collection.find(filter).max_time(LIMIT).await?;
            let mut found = Vec::new();
            while cursor.advance().await? {
                found.push(Claim::of(&cursor.deserialize_current()?));
            }
            Ok(found)
        })
        .await
    }

    /// The heartbeat of runs: their claims last from now on.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn renew(&self, runs: Vec<String>) -> Result<(), StoreError> {
        let ours = doc! { "holder": &self.holder, "run": { "$in": runs }, "expires": held() };
        let update = vec![doc! { "$set": { "expires": { "$add": ["$$NOW", self.ttl_millis()] } } }];
        let collection = self.mongo.database().await?.collection::<Document>(COLLECTION);
        within(LIMIT, async move { collection.update_many(ours, update).write_concern(majority(LIMIT)).await }).await.map(|_| ())
    }

    /// Gives the claim of a run back, where it is still ours. Whether this was it: of several that share a holder, one gives it back.
    ///
    /// # Errors
    /// When the server does not answer; whether it was given back is not known then.
    pub async fn release(&self, project: &str, run: &str) -> Result<bool, StoreError> {
        let ours = doc! { "_id": project, "run": run, "holder": &self.holder };
        self.update(ours, given_back()).await
    }

    /// Asks whoever holds a run to end it.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn ask_to_cancel(&self, project: &str, run: &str) -> Result<(), StoreError> {
        self.update(doc! { "_id": project, "run": run }, doc! { "$set": { "cancel": run } }).await.map(|_| ())
    }

    async fn update(&self, filter: Document, update: Document) -> Result<bool, StoreError> {
        let collection = self.mongo.database().await?.collection::<Document>(COLLECTION);
        let updated = within(LIMIT, async move { collection.update_one(filter, update).write_concern(majority(LIMIT)).await }).await?;
        Ok(updated.matched_count > 0)
    }

    fn ttl_millis(&self) -> i64 {
        i64::try_from(self.ttl.as_millis()).unwrap_or(i64::MAX)
    }
}

/// Gives a claim back: the project is free; how often it was taken stays.
#[must_use]
pub fn given_back() -> Document {
    doc! { "$set": { "expires": DateTime::from_millis(0) }, "$unset": { "run": "", "cancel": "" } }
}

/// When a claim expires that was not given back.
#[must_use]
pub fn held() -> Document {
    doc! { "$gt": DateTime::from_millis(0) }
}

/// A front door that has claimed a project before its run was known, and died, has left none.
fn run_of(run: &str) -> Bson {
    if run.is_empty() { Bson::Null } else { run.into() }
}

// === impl Claim ===

impl Claim {
    fn of(document: &Document) -> Self {
        let text = |name| document.get_str(name).unwrap_or_default().to_owned();
        Self {
            project: text("_id"),
            run: text("run"),
            holder: text("holder"),
            epoch: document.get_i64("epoch").unwrap_or_default(),
            expires: document.get_datetime("expires").map_or(0, |time| time.timestamp_millis()),
            cancel: document.get_str("cancel").ok().map(str::to_owned),
        }
    }
}
