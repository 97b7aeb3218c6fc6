//! One holder among any number of processes, by a document in MongoDB: who has it may delete, and nobody else.
//!
//! Time is the server's alone (`$$NOW`), for writing and for comparing, so that the clocks of the hosts do not matter.
//! The epoch grows with every take-over. A holder stops to use its lease at two thirds of its length after the *start*
//! of the last renewal, by its own monotonic clock; another may take it only when its whole length is over.
//!
//! A lease alone never excludes: a process may be frozen between a look at it and the write. So whoever writes puts
//! [`Live::expires`] into the filter of the write itself, and the server refuses what comes too late.

mod keep;
mod metrics;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mongodb::bson::{Bson, DateTime, Document, Uuid, doc};
use mongodb::options::ReturnDocument;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::store::mongodb::{Mongo, StoreError, majority, within};

pub use metrics::LeaseMetrics;

/// The collection, in the application's database. It has no TTL: an epoch that begins anew would let a late writer in.
pub const COLLECTION: &str = "bellwether_leases";

/// How long a lease lasts. Three renewals fit in: two may fail.
pub const TTL: Duration = Duration::from_secs(30);

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Takes leases of one length.
#[derive(Clone, Debug)]
pub struct Leases {
    mongo: Arc<Mongo>,
    ttl: Duration,
}

/// Whether a lease was got.
#[derive(Debug)]
pub enum Attempt {
    /// It is ours.
    Taken(Lease),
    /// It is another's.
    Refused(Seen),
}

/// The lease as another holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// What the holder calls itself.
    pub who: String,
    /// The holder's own id.
    holder: String,
    /// When it expires by the server's clock, in milliseconds since 1970.
    expires: i64,
    /// How long it lasts.
    ttl: Duration,
    /// When this was first seen, by our monotonic clock.
    since: Instant,
}

/// A lease that is ours, renewed in the background until it is dropped, released or lost.
#[derive(Debug)]
pub struct Lease {
    leases: Leases,
    name: String,
    holder: String,
    epoch: i64,
    term: Arc<Mutex<Term>>,
    lost: CancellationToken,
    keeper: JoinHandle<()>,
}

/// How far a lease reaches.
#[derive(Clone, Copy, Debug)]
struct Term {
    /// Beyond this it is not used, by our monotonic clock.
    usable_until: Instant,
    /// When others may take it, by the server's clock, in milliseconds since 1970.
    expires: i64,
    /// When the last renewal that succeeded was begun.
    renewed: Instant,
}

/// A proof that a lease was held a moment ago, with the point up to which a write may still happen.
#[derive(Clone, Copy, Debug)]
pub struct Live<'a> {
    /// By the server's clock: a write that is done later must find nothing.
    pub expires: DateTime,
    /// Grows with each take-over.
    pub epoch: i64,
    /// How long it may still be used.
    pub remaining: Duration,
    lease: &'a Lease,
}

/// The lease is ours no longer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the lease `{0}` was lost: it could not be renewed in time, or another process has taken it")]
pub struct LeaseLost(String);

// === impl Leases ===

impl Leases {
    /// Leases that last `ttl`; nothing is connected yet.
    #[must_use]
    pub fn new(mongo: Arc<Mongo>, ttl: Duration) -> Self {
        Self { mongo, ttl }
    }

    /// How long a lease lasts.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Tries once. `who` is a name for people; `before` is what the last attempt saw.
    ///
    /// # Errors
    /// When the server does not answer, or refuses to write.
    pub async fn take(&self, name: &str, who: &str, before: Option<&Seen>) -> Result<Attempt, StoreError> {
        // An id for each attempt: not even another part of this process is taken for its holder.
        let holder = Uuid::new().to_string();
        let abandoned = before.filter(|seen| seen.is_abandoned(self.ttl, Instant::now()));
        let pipeline = take_over(&holder, who, self.ttl, abandoned);
        let began = Instant::now();
        let mut found = self.update(name, pipeline.clone()).await;
        for _ in 0..4 {
            // Of several that make the document at once, one wins; the others look again.
            if found.as_ref().is_err_and(StoreError::is_duplicate) {
                found = self.update(name, pipeline.clone()).await;
            }
        }
        let found = found?;
        let expires = found.get_datetime("expires").map_or(0, |time| time.timestamp_millis());
        if found.get_str("holder").ok() != Some(holder.as_str()) {
            let text = |key| found.get_str(key).unwrap_or_default().to_owned();
            let ttl = found.get_i64("ttl_ms").ok().and_then(|ttl| u64::try_from(ttl).ok()).map_or(TTL, Duration::from_millis);
            let mut seen = Seen { who: text("who"), holder: text("holder"), expires, ttl, since: Instant::now() };
            if let Some(before) = before.filter(|before| before.holder == seen.holder && before.expires == expires) {
                seen.since = before.since;
            }
            return Ok(Attempt::Refused(seen));
        }
        let epoch = found.get_i64("epoch").unwrap_or_default();
        let term = Term { usable_until: began + usable(self.ttl), expires, renewed: began };
        Ok(Attempt::Taken(Lease::keep(self.clone(), name, holder, epoch, term)))
    }

    async fn update(&self, name: &str, pipeline: Vec<Document>) -> Result<Document, StoreError> {
        let database = self.mongo.database().await?;
        let name = name.to_owned();
        let found = within(LIMIT, async move {
            database
                .collection::<Document>(COLLECTION)
                .find_one_and_update(doc! { "_id": name }, pipeline)
                .upsert(true)
                .return_document(ReturnDocument::After)
                .write_concern(majority(LIMIT))
                .max_time(LIMIT)
                .await
        });
        Ok(found.await?.unwrap_or_default())
    }
}

/// How long after the start of a renewal a lease may be used.
fn usable(ttl: Duration) -> Duration {
    ttl * 2 / 3
}

/// Takes the lease where it is free: never taken, expired by the server's clock, or found unchanged for so long that
/// only a clock that jumped back can explain it. A condition in the filter would make the upsert insert a second
/// document, so it stands in the update. Pure.
fn take_over(holder: &str, who: &str, ttl: Duration, abandoned: Option<&Seen>) -> Vec<Document> {
    let ttl = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
    let mut is_free = vec![Bson::from(doc! { "$lte": [{ "$ifNull": ["$expires", DateTime::from_millis(0)] }, "$$NOW"] })];
    if let Some(seen) = abandoned {
        let same = doc! { "$and": [{ "$eq": ["$holder", &seen.holder] }, { "$eq": ["$expires", DateTime::from_millis(seen.expires)] }] };
        is_free.push(same.into());
    }
    let or_as_it_is = |taken: Bson, field: &str| doc! { "$cond": ["$_free", taken, field] };
    vec![
        doc! { "$set": { "_free": { "$or": is_free } } },
        doc! { "$set": {
            "epoch": or_as_it_is(doc! { "$add": [{ "$ifNull": ["$epoch", 0_i64] }, 1_i64] }.into(), "$epoch"),
            "expires": or_as_it_is(doc! { "$add": ["$$NOW", ttl] }.into(), "$expires"),
            "holder": or_as_it_is(holder.into(), "$holder"),
            "who": or_as_it_is(doc! { "$literal": who }.into(), "$who"),
            "ttl_ms": or_as_it_is(ttl.into(), "$ttl_ms"),
            "taken": or_as_it_is("$$NOW".into(), "$taken"),
        } },
        doc! { "$unset": "_free" },
    ]
}

// === impl Seen ===

impl Seen {
    /// A live holder writes a new expiry three times within its length. One that has not for twice as long is gone,
    /// and the server's clock has jumped back; without this nobody could take the lease until it has caught up.
    fn is_abandoned(&self, ttl: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.since) > ttl.max(self.ttl) * 2
    }
}

// === impl Lease ===

impl Lease {
    /// The lease, if it can still be used.
    ///
    /// # Errors
    /// When it is lost, or was not renewed in time.
    pub fn live(&self) -> Result<Live<'_>, LeaseLost> {
        let term = *self.term();
        let remaining = term.usable_until.saturating_duration_since(Instant::now());
        if remaining.is_zero() || self.lost.is_cancelled() {
            self.lost.cancel();
            return Err(LeaseLost(self.name.clone()));
        }
        Ok(Live { expires: DateTime::from_millis(term.expires), epoch: self.epoch, remaining, lease: self })
    }

    /// How long it lasts without a renewal.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.leases.ttl
    }

    /// Is cancelled when the lease is lost.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Grows with each take-over.
    #[must_use]
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// How long ago the last renewal that succeeded was begun.
    #[must_use]
    pub fn renewal_age(&self) -> Duration {
        self.term().renewed.elapsed()
    }

    /// Gives it back, where it is still ours; the epoch stays.
    pub async fn release(self) {
        self.lost.cancel();
        self.keeper.abort();
        let (name, holder, epoch) = (self.name.clone(), self.holder.clone(), self.epoch);
        let Ok(database) = self.leases.mongo.database().await else { return };
        let given_back = within(LIMIT, async move {
            database
                .collection::<Document>(COLLECTION)
                .update_one(
                    doc! { "_id": name, "holder": holder, "epoch": epoch },
                    doc! { "$set": { "expires": DateTime::from_millis(0) } },
                )
                .write_concern(majority(LIMIT))
                .await
        });
        if let Err(error) = given_back.await {
            tracing::debug!(%error, name = self.name, "a lease could not be given back; it expires by itself");
        }
    }

    fn term(&self) -> MutexGuard<'_, Term> {
        self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.lost.cancel();
        self.keeper.abort();
    }
}

// === impl Live ===

impl Live<'_> {
    /// The name of the lease.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.lease.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_used_for_two_thirds_of_its_length() {
        assert_eq!(usable(TTL), Duration::from_secs(20));
    }

    #[test]
    fn a_holder_that_has_not_stirred_for_twice_the_length_is_gone() {
        let began = Instant::now();
        let seen = Seen { who: String::new(), holder: "a".to_owned(), expires: 1, ttl: TTL, since: began };
        assert!(!seen.is_abandoned(TTL, began + TTL * 2));
        assert!(seen.is_abandoned(TTL, began + TTL * 2 + Duration::from_millis(1)));
        assert!(!seen.is_abandoned(TTL * 3, began + TTL * 3), "by the longer of the two lengths");
        assert!(!seen.is_abandoned(Duration::from_secs(1), began + TTL), "never by one that is shorter than the holder's");
    }
}
