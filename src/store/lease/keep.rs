//! Renews a lease in the background, and says at once when it is lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use mongodb::options::ReturnDocument;
use tokio_util::sync::CancellationToken;

use crate::store::lease::{COLLECTION, LIMIT, Lease, Leases, Term, usable};
use crate::store::mongodb::{StoreError, majority, within};

/// What keeps one lease.
struct Keeper {
    leases: Leases,
    name: String,
    holder: String,
    epoch: i64,
    term: Arc<Mutex<Term>>,
    lost: CancellationToken,
}

// === impl Lease ===

impl Lease {
    /// A lease that was just taken, with its keeper.
    pub(super) fn keep(leases: Leases, name: &str, holder: String, epoch: i64, term: Term) -> Self {
        let (term, lost) = (Arc::new(Mutex::new(term)), CancellationToken::new());
        let keeper = Keeper {
            leases: leases.clone(),
            name: name.to_owned(),
            holder: holder.clone(),
            epoch,
            term: Arc::clone(&term),
            lost: lost.clone(),
        };
        #[expect(clippy::disallowed_methods, reason = "lives no longer than the lease, which ends it when it is dropped")]
        let keeper = tokio::spawn(keeper.run());
        Self { leases, name: name.to_owned(), holder, epoch, term, lost, keeper }
    }
}

// === impl Keeper ===

impl Keeper {
    async fn run(self) {
        let every = self.leases.ttl / 3;
        // After a failure sooner, so that two more attempts fit in before the lease cannot be used any more.
        let retry = self.leases.ttl / 12;
        let mut pause = every;
        loop {
            let end = self.usable_until();
            tokio::select! {
                () = self.lost.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let began = Instant::now();
            let renewed = tokio::select! {
                renewed = self.renew() => renewed,
                () = tokio::time::sleep_until(end.into()) => break,
            };
            match renewed {
                Ok(Some(expires)) => {
                    self.extend(Term { usable_until: began + usable(self.leases.ttl), expires, renewed: began });
                    pause = every.saturating_sub(began.elapsed());
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, lease = self.name, "the lease could not be renewed; trying again until it ends");
                    pause = retry;
                }
            }
            if self.usable_until() <= Instant::now() {
                break;
            }
        }
        tracing::error!(lease = self.name, epoch = self.epoch, "the lease was lost: what needs it stops at once");
        self.lost.cancel();
    }

    /// Extends the lease where it is still ours and has not expired; never takes it again. The new expiry in
    /// milliseconds since 1970, or `None` where it is lost.
    async fn renew(&self) -> Result<Option<i64>, StoreError> {
        let database = self.leases.mongo.database().await?;
        let ours = doc! {
            "_id": &self.name, "holder": &self.holder, "epoch": self.epoch, "$expr": { "$gt": ["$expires", "$$NOW"] },
        };
        let ttl = i64::try_from(self.leases.ttl.as_millis()).unwrap_or(i64::MAX);
        let update = vec![doc! { "$set": { "expires": { "$add": ["$$NOW", ttl] } } }];
        let limit = LIMIT.min(self.leases.ttl / 4).max(Duration::from_millis(500));
        let found = within(limit, async move {
            database
                .collection::<Document>(COLLECTION)
                .find_one_and_update(ours, update)
                .return_document(ReturnDocument::After)
                .write_concern(majority(LIMIT))
                .max_time(limit)
                .await
        });
        Ok(found.await?.and_then(|found| found.get_datetime("expires").ok().map(|time| time.timestamp_millis())))
    }

    fn extend(&self, term: Term) {
        *self.term.lock().unwrap_or_else(PoisonError::into_inner) = term;
    }

    fn usable_until(&self) -> Instant {
        self.term.lock().unwrap_or_else(PoisonError::into_inner).usable_until
    }
}
