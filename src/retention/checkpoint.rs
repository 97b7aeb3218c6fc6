//! What the database remembers of each policy: since when it is known, how its run goes on, how the last one ended.
//!
//! One document a policy, in the application's database. Every write is fenced: by the epoch, so that a later holder of
//! the lease is never overwritten, and by the server's clock, so that what a frozen process sends late finds nothing.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use mongodb::bson::{Bson, DateTime, Document, doc};
use mongodb::options::ReturnDocument;
use mongodb::{Collection, Database};
use tokio_util::sync::CancellationToken;

use crate::retention::outcome::{Outcome, RunError, Stop, Tally};
use crate::retention::plan::Plan;
use crate::store::lease::{Lease, Live};
use crate::store::mongodb::{StoreError, majority, within};

/// The collection, in the application's database.
pub const COLLECTION: &str = "bellwether_retention";

/// The document that pauses everything.
pub(super) const CONTROL: &str = "$control";

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A server ends a transaction that nobody ends after `transactionLifetimeLimitSeconds`, 60 by default, and looks for such
/// ones now and then.
const TRANSACTION_LIFETIME: Duration = Duration::from_secs(90);

/// How soon a write that has failed is tried again.
const LOOK: Duration = Duration::from_secs(1);

/// Whether the start that was taken last has not come to an end yet.
const START_OPEN: &str = "start_open";

/// The writes of one run to its policy's document.
#[derive(Clone, Debug)]
pub(super) struct Checkpoint {
    collection: Collection<Document>,
    policy: String,
    transactions: bool,
}

/// Up to where a write may happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fence {
    epoch: i64,
    expires: DateTime,
    spare: Duration,
}

/// How long the first writes of a run are tried: the transaction of a process that was killed is open until the server ends
/// it, and all that writes what it has written waits for that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience<'a> {
    policy: &'a str,
    stop: &'a CancellationToken,
    began: Instant,
}

/// What is remembered of a policy.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// When the policy was first seen as it is, in milliseconds since 1970.
    pub first_seen: Option<i64>,
    /// A run that has not ended: its name, plan and cutoff.
    pub unfinished: Option<Unfinished>,
    /// The ids of the last batch, whose children may have been added late.
    pub batch: Vec<Bson>,
    /// How the last run ended.
    pub last: Option<Outcome>,
}

/// A run that has not ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unfinished {
    pub run: String,
    pub plan: String,
    pub cutoff: i64,
}

// === impl Patience ===

impl<'a> Patience<'a> {
    pub fn new(policy: &'a str, stop: &'a CancellationToken) -> Self {
        Self { policy, stop, began: Instant::now() }
    }

    /// Waits a moment where the write may succeed then.
    ///
    /// # Errors
    /// The error itself, where it does not pass or has not passed for long; that the process ends.
    pub async fn wait(&self, error: RunError) -> Result<(), RunError> {
        if !error.may_pass() || self.began.elapsed() >= TRANSACTION_LIFETIME {
            return Err(error);
        }
        tracing::warn!(policy = self.policy, %error, "the checkpoint cannot be written yet; a run that was killed may have left a transaction");
        tokio::select! {
            () = self.stop.cancelled() => Err(RunError::Shutdown),
            () = tokio::time::sleep(LOOK) => Ok(()),
        }
    }
}

// === impl Fence ===

impl Fence {
    /// The fence of a lease: a write is over before the lease is.
    pub fn of(live: &Live<'_>, ttl: Duration) -> Self {
        Self { epoch: live.epoch, expires: live.expires, spare: (ttl / 3).min(Duration::from_secs(5)) }
    }

    /// By the server's clock: a write that begins later finds nothing.
    pub fn until(&self) -> DateTime {
        DateTime::from_millis(self.expires.timestamp_millis() - self.spare_ms())
    }

    /// How long a write may take, in milliseconds.
    pub fn spare_ms(&self) -> i64 {
        i64::try_from(self.spare.as_millis()).unwrap_or_default()
    }
}

// === impl Memory ===

impl Memory {
    /// What a document says; nothing, where there is none.
    fn of(policy: &str, document: &Document) -> Self {
        let text = |name| document.get_str(name).unwrap_or_default().to_owned();
        let time = |name| document.get_datetime(name).ok().map(|time| time.timestamp_millis());
        let is_running = document.get_bool("running").unwrap_or(false);
        let unfinished = is_running.then(|| time("cutoff").map(|cutoff| Unfinished { run: text("run"), plan: text("plan"), cutoff }));
        Self {
            first_seen: time("first_seen"),
            unfinished: unfinished.flatten(),
            batch: document.get_array("batch").cloned().unwrap_or_default(),
            last: document.get_document("last").ok().and_then(|last| outcome(policy, last)),
        }
    }
}

fn outcome(policy: &str, last: &Document) -> Option<Outcome> {
    let number = |name: &str| last.get_i64(name).ok().and_then(|number| u64::try_from(number).ok()).unwrap_or_default();
    let text = |name: &str| last.get_str(name).unwrap_or_default().to_owned();
    let ended = Timestamp::from_millisecond(last.get_datetime("ended").ok()?.timestamp_millis()).ok()?;
    Some(Outcome {
        policy: policy.to_owned(),
        run: text("run"),
        plan: text("plan"),
        stop: Stop::of_word(last.get_str("stop").ok()?)?,
        why: text("why"),
        ended,
        tally: Tally {
            archived: number("archived"),
            deleted: number("deleted"),
            children: number("children"),
            bytes: number("bytes"),
            skipped: crate::retention::outcome::Skip::of_kind(crate::retention::outcome::Kind::Documents)
                .iter()
                .map(|skip| (*skip, number(&format!("skipped_{}", skip.word()))))
                .filter(|(_, documents)| *documents > 0)
                .collect(),
        },
    })
}

fn numbers(tally: &Tally) -> Document {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let mut document = doc! {
        "archived": number(tally.archived), "deleted": number(tally.deleted),
        "children": number(tally.children), "bytes": number(tally.bytes),
    };
    for (skip, documents) in &tally.skipped {
        document.insert(format!("skipped_{}", skip.word()), number(*documents));
    }
    document
}

/// What is remembered of a policy.
///
/// # Errors
/// When the database does not answer.
pub(super) async fn remember(database: &Database, policy: &str) -> Result<Memory, StoreError> {
    let (collection, id) = (database.collection::<Document>(COLLECTION), policy.to_owned());
    let found = within(LIMIT, async move { collection.find_one(doc! { "_id": id }).max_time(LIMIT).await }).await?;
    Ok(found.map(|document| Memory::of(policy, &document)).unwrap_or_default())
}

/// Notes when a policy was first seen as it is now; a change begins its soak anew. When that was, in milliseconds.
///
/// # Errors
/// When the database does not answer, or refuses.
pub(super) async fn note_first_seen(database: &Database, policy: &str, hash: &str) -> Result<Option<i64>, StoreError> {
    let (collection, id, hash) = (database.collection::<Document>(COLLECTION), policy.to_owned(), hash.to_owned());
    let is_same = doc! { "$eq": ["$policy_hash", &hash] };
    let update = vec![doc! { "$set": {
        "first_seen": { "$cond": [is_same, { "$ifNull": ["$first_seen", "$$NOW"] }, "$$NOW"] },
        "policy_hash": { "$literal": hash },
    } }];
    let found = within(LIMIT, async move {
        let noted = collection.find_one_and_update(doc! { "_id": id }, update).upsert(true);
        noted.return_document(ReturnDocument::After).write_concern(majority(LIMIT)).max_time(LIMIT).await
    });
    Ok(found.await?.and_then(|found| found.get_datetime("first_seen").ok().map(|time| time.timestamp_millis())))
}

/// Takes a start of the schedule, so that no other process takes the same. Whether it was still to be had: one whose run
/// was killed, or failed by what may pass, is.
///
/// # Errors
/// When the database does not answer, or refuses.
pub(super) async fn take_start(database: &Database, policy: &str, start: i64) -> Result<bool, StoreError> {
    let (collection, id, start) = (database.collection::<Document>(COLLECTION), policy.to_owned(), DateTime::from_millis(start));
    let open = doc! { "_id": id, "$or": [
        { "scheduled_for": { "$exists": false } }, { "scheduled_for": { "$lt": start } }, { "scheduled_for": start, START_OPEN: true },
    ] };
    let update = doc! { "$set": { "scheduled_for": start, START_OPEN: true } };
    let taken = within(LIMIT, async move {
        collection.find_one_and_update(open, update).upsert(true).write_concern(majority(LIMIT)).max_time(LIMIT).await
    });
    match taken.await {
        Ok(_) => Ok(true),
        // Tried to insert a second one: it is there, and its start is not earlier.
        Err(error) if error.is_duplicate() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether somebody has paused retention, and why.
///
/// # Errors
/// When the database does not answer.
pub(super) async fn paused(database: &Database) -> Result<Option<String>, StoreError> {
    let collection = database.collection::<Document>(COLLECTION);
    let found = within(LIMIT, async move { collection.find_one(doc! { "_id": CONTROL }).max_time(LIMIT).await }).await?;
    let paused = found.filter(|control| control.get_bool("paused").unwrap_or(true));
    Ok(paused.map(|control| control.get_str("reason").unwrap_or_default().to_owned()))
}

/// Pauses retention for every process, or lets it go on.
///
/// # Errors
/// When the database does not answer, or refuses.
pub(super) async fn set_paused(database: &Database, reason: Option<&str>) -> Result<(), StoreError> {
    let collection = database.collection::<Document>(COLLECTION);
    let update = doc! {
        "$set": { "paused": reason.is_some(), "reason": reason.unwrap_or_default() }, "$currentDate": { "changed": true },
    };
    let set =
        within(
            LIMIT,
            async move { collection.update_one(doc! { "_id": CONTROL }, update).upsert(true).write_concern(majority(LIMIT)).await },
        );
    set.await.map(drop)
}

// === impl Checkpoint ===

impl Checkpoint {
    /// Begins a run, or goes on with it: from now on an earlier holder of the lease cannot write any more.
    pub async fn begin(database: &Database, lease: &Lease, plan: &Plan, run: &Unfinished, transactions: bool) -> Result<Self, RunError> {
        let checkpoint = Self { collection: database.collection(COLLECTION), policy: plan.policy.clone(), transactions };
        let cutoff = DateTime::from_millis(run.cutoff);
        // The last batch stays, until the next one: its children may not have been swept.
        let set = doc! { "running": true, "run": &run.run, "plan": &run.plan, "cutoff": cutoff };
        checkpoint.write(lease, set, true).await?;
        Ok(checkpoint)
    }

    /// Whether deletions and their checkpoint go into one transaction.
    pub fn transactions(&self) -> bool {
        self.transactions
    }

    /// Notes what has been archived and is about to be deleted.
    pub async fn note_archived(&self, lease: &Lease, ids: Vec<Bson>, segments: Vec<String>, tally: &Tally) -> Result<(), RunError> {
        self.write(lease, doc! { "phase": "archived", "batch": ids, "segments": segments, "tally": numbers(tally) }, false).await
    }

    /// Notes how the run ended.
    pub async fn end(&self, lease: &Lease, outcome: &Outcome) -> Result<(), RunError> {
        let goes_on = matches!(outcome.stop, Stop::BudgetDocuments | Stop::BudgetTime);
        let mut set = doc! { "running": false, "phase": "ended", "last": ended(outcome), "goes_on": goes_on };
        set.extend(closing(outcome));
        self.write(lease, set, false).await
    }

    /// The first write of a transaction: fails where a later holder of the lease has written.
    pub fn claim(&self, fence: Fence) -> Document {
        let update = doc! { "$set": { "epoch": fence.epoch, "phase": "deleted" }, "$inc": { "batches": 1_i64 } };
        doc! { "update": COLLECTION, "updates": [{ "q": self.fenced(fence), "u": update }] }
    }

    async fn write(&self, lease: &Lease, mut set: Document, upsert: bool) -> Result<(), RunError> {
        let live = lease.live()?;
        let fence = Fence::of(&live, lease.ttl());
        set.insert("epoch", live.epoch);
        let (collection, mut filter) = (self.collection.clone(), self.fenced(fence));
        if upsert {
            // An upsert takes no expression; the lease was taken a moment ago.
            filter.remove("$expr");
        }
        // The server gives up with us: what waited there behind an open transaction must not be written later.
        let limit = LIMIT.min(live.remaining);
        let written = within(limit, async move {
            let update = doc! { "$set": set, "$currentDate": { "updated": true } };
            let written = collection.find_one_and_update(filter, update).projection(doc! { "_id": 1 }).upsert(upsert);
            written.return_document(ReturnDocument::After).write_concern(majority(LIMIT)).max_time(limit).await
        });
        match written.await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(RunError::Fenced),
            Err(error) if error.is_duplicate() => Err(RunError::Fenced),
            Err(source) => Err(RunError::Store { step: "writing the checkpoint", source }),
        }
    }

    fn fenced(&self, fence: Fence) -> Document {
        doc! {
            "_id": &self.policy,
            "$or": [{ "epoch": { "$exists": false } }, { "epoch": { "$lte": fence.epoch } }],
            "$expr": { "$lt": ["$$NOW", fence.until()] },
        }
    }
}

fn ended(outcome: &Outcome) -> Document {
    let mut document = numbers(&outcome.tally);
    document.extend(doc! {
        "run": &outcome.run, "plan": &outcome.plan, "stop": outcome.stop.word(), "why": &outcome.why,
        "ended": DateTime::from_millis(outcome.ended.as_millisecond()),
    });
    document
}

/// A start stays open where the same may succeed later.
fn closing(outcome: &Outcome) -> Document {
    if outcome.stop.may_pass() {
        Document::new()
    } else {
        doc! { START_OPEN: false }
    }
}

/// Notes how an attempt ended that never got so far as to begin a run.
///
/// # Errors
/// When the database does not answer, or refuses.
pub(super) async fn note_outcome(database: &Database, outcome: &Outcome) -> Result<(), StoreError> {
    let (collection, id) = (database.collection::<Document>(COLLECTION), outcome.policy.clone());
    let mut set = doc! { "last": ended(outcome) };
    set.extend(closing(outcome));
    let noted = within(LIMIT, async move {
        collection.update_one(doc! { "_id": id }, doc! { "$set": set }).upsert(true).write_concern(majority(LIMIT)).await
    });
    noted.await.map(drop)
}
