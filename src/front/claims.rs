//! The claims in MongoDB: one document a project, taken and given back by single updates under the server's clock, so that
//! any number of front doors agree and the clocks of their hosts do not matter.
//!
//! | field | says |
//! |---|---|
//! | `_id` | the project |
//! | `epoch` | how often it has been taken |
//! | `holder`, `who` | by which attempt, in which process |
//! | `run` | the run, once it is known; then the claim does not lapse |
//! | `expires`, `lease_ms` | until when the start may take, while there is no run; in 1970 it was given back |
//!
//! Owns the queries on claims and runs. What follows from what they find is `front::admission`'s.

use std::time::{Duration, Instant};

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Document, Uuid, doc};
use mongodb::options::ReturnDocument;

use crate::config::front::admission::Admission;
use crate::front::admission::{Run, Seen, claim_name};
use crate::store::mongodb::{Mongo, Purpose, StoreError, majority, within};
use crate::store::run_claims::{COLLECTION as CLAIMS, given_back, held};

/// The collection of runs, which is the application's.
pub const RUNS: &str = "discovery_runs";

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(5);
/// More runs at the same time are not looked at: it would take an hour to start them.
const MOST_RUNS: i64 = 10_000;

/// Takes claims and looks after them.
#[derive(Debug)]
pub struct Claims {
    mongo: Mongo,
    lease: Duration,
    who: String,
}

/// Whether a claim was got.
#[derive(Debug)]
pub enum Attempt {
    /// It is ours.
    Taken(Claim),
    /// It is another's.
    Held,
}

/// A claim that is ours.
#[derive(Clone, Debug)]
pub struct Claim {
    project: String,
    holder: String,
    usable_until: Instant,
}

/// What keeps a project from being free.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Standing {
    /// Nothing.
    Free,
    /// Somebody is starting a run.
    Starting,
    /// This run.
    Running(String),
}

// === impl Claim ===

impl Claim {
    /// Whose it is.
    #[must_use]
    pub fn project(&self) -> &str {
        &self.project
    }

    /// How much longer a start may be tried under it: another may take it at its whole length, so that two thirds are used.
    #[must_use]
    pub fn rest(&self) -> Duration {
        self.usable_until.saturating_duration_since(Instant::now())
    }
}

// === impl Claims ===

impl Claims {
    /// Nothing is connected yet. `who` is told to people who look at a claim.
    #[must_use]
    pub fn new(admission: &Admission, who: String) -> Self {
        Self { mongo: Mongo::new(&admission.store, Purpose::Front), lease: admission.lease, who }
    }

    /// Takes the claim of a project where it is free: one round trip.
    ///
    /// # Errors
    /// When the server does not answer, or refuses to write.
    pub async fn take(&self, project: &str) -> Result<Attempt, StoreError> {
        let holder = Uuid::new().to_string();
        let began = Instant::now();
        let taken = self.seize(project, &holder, None).await?;
        if !taken {
            return Ok(Attempt::Held);
        }
        Ok(Attempt::Taken(Claim { project: project.to_owned(), holder, usable_until: began + self.lease * 2 / 3 }))
    }

    /// Claims a project for a run that is there already, where it is free.
    ///
    /// # Errors
    /// As [`Claims::take`].
    pub async fn adopt(&self, project: &str, run: &str) -> Result<bool, StoreError> {
        self.seize(project, &Uuid::new().to_string(), Some(run)).await
    }

    async fn seize(&self, project: &str, holder: &str, run: Option<&str>) -> Result<bool, StoreError> {
        let pipeline = seizing(holder, &self.who, self.lease, run);
        for _ in 0..5 {
            let (name, pipeline) = (project.to_owned(), pipeline.clone());
            let claims = self.mongo.database().await?.collection::<Document>(CLAIMS);
            let found = within(LIMIT, async move {
                claims
                    .find_one_and_update(doc! { "_id": name }, pipeline)
                    .upsert(true)
                    .return_document(ReturnDocument::After)
                    .write_concern(majority(LIMIT))
                    .max_time(LIMIT)
                    .await
            });
            match found.await {
                // Of several that make the document at once, one wins; the others look again.
                Err(error) if error.is_duplicate() => {}
                Err(error) => return Err(error),
                Ok(found) => return Ok(found.is_some_and(|found| found.get_str("holder").ok() == Some(holder))),
            }
        }
        Ok(false)
    }

    /// The API has started this run under the claim.
    ///
    /// # Errors
    /// When the server does not answer, or refuses to write.
    pub async fn started(&self, claim: &Claim, run: &str) -> Result<(), StoreError> {
        self.update(doc! { "_id": &claim.project, "holder": &claim.holder }, doc! { "$set": { "run": run } }).await
    }

    /// Gives a claim back under which nothing was started.
    ///
    /// # Errors
    /// When the server does not answer, or refuses to write.
    pub async fn give_back(&self, claim: &Claim) -> Result<(), StoreError> {
        self.update(doc! { "_id": &claim.project, "holder": &claim.holder, "run": Bson::Null }, given_back()).await
    }

    /// Gives a claim back whose start nobody can tell the end of, where it has lapsed.
    ///
    /// # Errors
    /// When the server does not answer, or refuses to write.
    pub async fn lapse(&self, project: &str) -> Result<(), StoreError> {
        let has_lapsed = doc! { "$lte": ["$expires", "$$NOW"] };
        self.update(doc! { "_id": project, "run": Bson::Null, "$expr": has_lapsed }, given_back()).await
    }

    /// A run is over.
    ///
    /// # Errors
    /// When the server does not answer, or refuses to write.
    pub async fn end(&self, project: &str, run: &str) -> Result<(), StoreError> {
        self.update(doc! { "_id": project, "run": run }, given_back()).await
    }

    async fn update(&self, filter: Document, update: Document) -> Result<(), StoreError> {
        let claims = self.mongo.database().await?.collection::<Document>(CLAIMS);
        within(LIMIT, async move { claims.update_one(filter, update).write_concern(majority(LIMIT)).await }).await.map(|_| ())
    }

    /// What keeps a project from being free now. A run that is over does not, whoever has noticed it.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn standing(&self, project: &str) -> Result<Standing, StoreError> {
        let Some(claim) = self.read_claims(doc! { "_id": project, "expires": held() }).await?.pop() else { return Ok(Standing::Free) };
        let Some(run) = claim.run else { return Ok(if claim.is_lapsed { Standing::Free } else { Standing::Starting }) };
        let filter = doc! { "_id": run_id(&run), "status": { "$in": ACTIVE.to_vec() } };
        if !self.read_runs(filter).await?.is_empty() {
            return Ok(Standing::Running(run));
        }
        self.end(project, &run).await?;
        Ok(Standing::Free)
    }

    /// The run of a project that is pending or running, where there is one.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn run_of(&self, project: &str) -> Result<Option<String>, StoreError> {
        let runs = self.read_runs(doc! { "status": { "$in": ACTIVE.to_vec() } }).await?;
        Ok(runs.into_iter().find(|run| claim_name(&run.project).as_deref() == Some(project)).map(|run| run.id))
    }

    /// All claims that are held.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn held(&self) -> Result<Vec<Seen>, StoreError> {
        self.read_claims(doc! { "expires": held() }).await
    }

    /// All runs that are pending or running.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn active(&self) -> Result<Vec<Run>, StoreError> {
        self.read_runs(doc! { "status": { "$in": ACTIVE.to_vec() } }).await
    }

    /// Marks a run as failed, where nobody has updated it for so long; whether it was done.
    ///
    /// # Errors
    /// When the server does not answer, or refuses to write.
    pub async fn mark_failed(&self, run: &str, stale_after: Duration) -> Result<bool, StoreError> {
        let runs = self.mongo.database().await?.collection::<Document>(RUNS);
        let millis = millis(stale_after);
        let is_stale = doc! { "$gt": [{ "$subtract": ["$$NOW", "$updated_at"] }, millis] };
        let filter = doc! { "_id": run_id(run), "status": { "$in": ACTIVE.to_vec() }, "$expr": is_stale };
        let words =
            format!("stale: no update for more than {}; marked as failed by Bellwether", crate::units::format_duration(stale_after));
        let failed = doc! {
            "status": "failed", "error": words, "phase_detail": "Failed: the agent is gone", "completed_at": "$$NOW", "updated_at": "$$NOW",
        };
        let update = vec![doc! { "$set": failed }];
        let done = within(LIMIT, async move { runs.update_one(filter, update).write_concern(majority(LIMIT)).await }).await?;
        Ok(done.modified_count > 0)
    }

    async fn read_claims(&self, filter: Document) -> Result<Vec<Seen>, StoreError> {
        let lapsed = doc! { "$lte": [{ "$ifNull": ["$expires", DateTime::from_millis(0)] }, "$$NOW"] };
        let found = self.aggregate(CLAIMS, filter, doc! { "run": 1, "lapsed": lapsed }).await?;
        let read = |claim: &Document| {
            let run = claim.get_str("run").ok().map(str::to_owned);
            Some(Seen { project: claim.get_str("_id").ok()?.to_owned(), run, is_lapsed: claim.get_bool("lapsed").unwrap_or(false) })
        };
        Ok(found.iter().filter_map(read).collect())
    }

    async fn read_runs(&self, filter: Document) -> Result<Vec<Run>, StoreError> {
        let since = doc! { "$ifNull": ["$updated_at", "$started_at"] };
        // Whatever else stands there tells no age, and must not keep the others from being read.
        let is_date = doc! { "$eq": [{ "$type": &since }, "date"] };
        let silence = doc! { "$cond": [is_date, { "$subtract": ["$$NOW", since] }, 0_i64] };
        let found = self.aggregate(RUNS, filter, doc! { "project_id": 1, "silence": silence }).await?;
        let read = |run: &Document| {
            let id = match run.get("_id")? {
                Bson::ObjectId(id) => id.to_hex(),
                Bson::String(id) => id.clone(),
                _ => return None,
            };
            let silence = run.get_i64("silence").ok().and_then(|silence| u64::try_from(silence).ok()).unwrap_or(0);
            Some(Run { id, project: run.get_str("project_id").ok()?.to_owned(), silence: Duration::from_millis(silence) })
        };
        Ok(found.iter().filter_map(read).collect())
    }

    async fn aggregate(&self, collection: &str, filter: Document, projection: Document) -> Result<Vec<Document>, StoreError> {
        let collection = self.mongo.database().await?.collection::<Document>(collection);
        let pipeline = vec![doc! { "$match": filter }, doc! { "$limit": MOST_RUNS }, doc! { "$project": projection }];
        within(LIMIT, async move {
            let mut cursor = collection.aggregate(pipeline).max_time(LIMIT).await?;
            let mut found = Vec::new();
            while cursor.advance().await? {
                found.push(cursor.deserialize_current()?);
            }
            Ok(found)
        })
        .await
    }
}

/// What the application calls a run that is not over.
const ACTIVE: [&str; 2] = ["pending", "running"];

fn run_id(run: &str) -> Bson {
    ObjectId::parse_str(run).map_or_else(|_| Bson::from(run), Bson::from)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Takes the claim where it is free: given back, or without a run and lapsed by the server's clock, or so far ahead of it that
/// the clock must have jumped back. A condition in the filter would make the upsert insert a second document, so it stands in the update. Pure.
fn seizing(holder: &str, who: &str, lease: Duration, run: Option<&str>) -> Vec<Document> {
    let expires = doc! { "$ifNull": ["$expires", DateTime::from_millis(0)] };
    let furthest = doc! { "$add": ["$$NOW", { "$multiply": [2_i64, { "$ifNull": ["$lease_ms", 0_i64] }] }] };
    let lapsed = doc! { "$or": [{ "$lte": [&expires, "$$NOW"] }, { "$gt": [&expires, furthest] }] };
    let given_back = doc! { "$lte": [&expires, DateTime::from_millis(0)] };
    let has_lapsed = doc! { "$and": [{ "$eq": [{ "$ifNull": ["$run", Bson::Null] }, Bson::Null] }, lapsed] };
    let is_free = doc! { "$or": [given_back, has_lapsed] };
    let or_as_it_is = |taken: Bson, field: &str| doc! { "$cond": ["$_free", taken, field] };
    let run = run.map_or(Bson::Null, |run| doc! { "$literal": run }.into());
    vec![
        doc! { "$set": { "_free": is_free } },
        doc! { "$set": {
            "epoch": or_as_it_is(doc! { "$add": [{ "$ifNull": ["$epoch", 0_i64] }, 1_i64] }.into(), "$epoch"),
            "holder": or_as_it_is(holder.into(), "$holder"),
            "who": or_as_it_is(doc! { "$literal": who }.into(), "$who"),
            "taken": or_as_it_is("$$NOW".into(), "$taken"),
            "expires": or_as_it_is(doc! { "$add": ["$$NOW", millis(lease)] }.into(), "$expires"),
            "lease_ms": or_as_it_is(millis(lease).into(), "$lease_ms"),
            "run": or_as_it_is(run, "$run"),
        } },
        doc! { "$unset": "_free" },
    ]
}
