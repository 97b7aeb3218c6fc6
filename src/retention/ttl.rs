//! The time to live that the application declares, against what its indexes really say. Observes, and alters nothing.

mod census;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use mongodb::bson::{Bson, Document, doc};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::config::retention::Ttl;
use crate::config::stores::MongoStore;
use crate::runtime::supervise::PartResult;
use crate::store::mongodb::{Mongo, Purpose, Reason, StoreError, within};

pub use census::{Census, Never, Undated, census};

/// As often as the server itself looks for what has expired.
const EVERY: Duration = Duration::from_secs(60);

/// One look of so many counts documents, too.
const LOOKS_A_CENSUS: u32 = 10;

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// What could not be read so often in a row is known no longer, and withdrawn.
const MISSES_BEFORE_UNKNOWN: u32 = 3;

/// The server's code for a collection that is not there.
const NAMESPACE_NOT_FOUND: i32 = 26;

type OfField = [(&'static str, String); 2];
type OfReason = [(&'static str, String); 3];

/// Watches declared TTL indexes.
#[derive(Debug)]
pub struct TtlObserver {
    mongo: Mongo,
    declared: BTreeMap<String, Vec<Ttl>>,
    present: Family<OfField, Gauge>,
    expire_after: Family<OfField, Gauge<f64, AtomicU64>>,
    never: Family<OfReason, Gauge>,
    past_due: Family<OfField, Gauge>,
    looks: u32,
    misses: u32,
    /// Why it fails, which has been said.
    trouble: Option<Reason>,
}

// === impl TtlObserver ===

impl TtlObserver {
    /// Registers what is declared; nothing is connected yet.
    #[must_use]
    pub fn new(ttl: &[Ttl], store: &MongoStore, registry: &mut Registry) -> Self {
        let declared_seconds: Family<OfField, Gauge<f64, AtomicU64>> = Family::default();
        let (present, expire_after) = (Family::default(), Family::default());
        let mut declared: BTreeMap<String, Vec<Ttl>> = BTreeMap::new();
        for ttl in ttl {
            declared_seconds.get_or_create_owned(&of(ttl)).set(ttl.expire_after.as_secs_f64());
            declared.entry(ttl.collection.clone()).or_default().push(ttl.clone());
        }
        registry.register("bellwether_ttl_declared_seconds", "The time to live that is declared for a field", declared_seconds);
        registry.register("bellwether_ttl_index_present", "Whether a field has an index with a time to live", Family::clone(&present));
        registry.register(
            "bellwether_ttl_expire_after_seconds",
            "The time to live of a field by its index; of several indexes the shortest, and NaN where one says NaN",
            Family::clone(&expire_after),
        );
        let (never, past_due) = (Family::default(), Family::default());
        registry.register(
            "bellwether_ttl_never_expiring_documents",
            "Documents that a TTL never deletes as their field is no date, by what it is; of more than 10000 documents an estimate",
            Family::clone(&never),
        );
        registry.register(
            "bellwether_ttl_past_due_documents",
            "Documents that the index of a TTL should have deleted by now, counted up to 100000",
            Family::clone(&past_due),
        );
        let mongo = Mongo::new(store, Purpose::Retention);
        Self { mongo, declared, present, expire_after, never, past_due, looks: 0, misses: 0, trouble: None }
    }

    /// Looks once a minute until `stop`.
    ///
    /// # Errors
    /// None: a database that is away is waited for.
    pub async fn run(mut self, stop: CancellationToken) -> PartResult {
        if self.declared.is_empty() {
            stop.cancelled().await;
            return Ok(());
        }
        loop {
            let next = Instant::now() + EVERY.mul_f64(0.9 + 0.2 * fastrand::f64());
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.observe() => {}
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
    }

    /// Looks at every collection once. After one that cannot be read the others are not asked: it is the same server.
    pub async fn observe(&mut self) {
        let mut failure = None;
        for (collection, declared) in &self.declared {
            match indexes(&self.mongo, collection).await {
                Ok(indexes) => declared.iter().for_each(|ttl| self.expose(ttl, indexes.as_deref())),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        self.misses = if failure.is_some() { self.misses.saturating_add(1) } else { 0 };
        if self.misses >= MISSES_BEFORE_UNKNOWN {
            self.present.clear();
            self.expire_after.clear();
            self.never.clear();
            self.past_due.clear();
        }
        self.note(failure.as_ref());
        if failure.is_none() {
            if self.looks.is_multiple_of(LOOKS_A_CENSUS) {
                self.count().await;
            }
            self.looks = self.looks.wrapping_add(1);
        }
    }

    /// Counts what never expires and what is past due. What cannot be counted is not known.
    async fn count(&self) {
        for ttl in self.declared.values().flatten() {
            let counted = census(&self.mongo, ttl).await.unwrap_or_else(|error| {
                tracing::debug!(%error, collection = ttl.collection, field = ttl.field, "the documents of a TTL cannot be counted");
                None
            });
            for reason in Undated::ALL {
                let labels = [("collection", ttl.collection.clone()), ("field", ttl.field.clone()), ("type", reason.word().to_owned())];
                match &counted {
                    Some(counted) => {
                        let documents = counted.never.iter().find(|never| never.reason == reason).map_or(0, |never| never.documents);
                        self.never.get_or_create_owned(&labels).set(i64::try_from(documents).unwrap_or(i64::MAX));
                    }
                    None => drop(self.never.remove(&labels)),
                }
            }
            match counted.and_then(|counted| counted.past_due) {
                Some(due) => drop(self.past_due.get_or_create_owned(&of(ttl)).set(i64::try_from(due).unwrap_or(i64::MAX))),
                None => drop(self.past_due.remove(&of(ttl))),
            }
        }
    }

    fn expose(&self, ttl: &Ttl, indexes: Option<&[Document]>) {
        let labels = of(ttl);
        let seconds = indexes.and_then(|indexes| seconds(indexes, &ttl.field));
        if indexes.is_some() {
            self.present.get_or_create_owned(&labels).set(i64::from(seconds.is_some()));
        } else {
            self.present.remove(&labels);
        }
        if let Some(seconds) = seconds {
            self.expire_after.get_or_create_owned(&labels).set(seconds);
        } else {
            self.expire_after.remove(&labels);
        }
    }

    fn note(&mut self, failure: Option<&StoreError>) {
        let reason = failure.map(StoreError::reason);
        if let Some(error) = failure.filter(|_| reason != self.trouble) {
            let remedy = match reason {
                Some(Reason::Auth) => "grant the user the role `read` on the application's database, which holds listIndexes",
                _ => "check that the server runs, and `stores.mongodb.uri`",
            };
            tracing::warn!(%error, "cannot look at the TTL indexes; {remedy}");
        } else if reason.is_none() && self.trouble.is_some() {
            tracing::info!("the TTL indexes can be looked at again");
        }
        self.trouble = reason;
    }
}

/// The indexes of a collection; `None` where there is no such collection.
pub(super) async fn indexes(mongo: &Mongo, collection: &str) -> Result<Option<Vec<Document>>, StoreError> {
    let database = mongo.database().await?;
    // Raw, since the driver's own type refuses seconds that are NaN or a fraction.
    let command = doc! { "listIndexes": collection, "cursor": {}, "maxTimeMS": 5000 };
    let listed = within(LIMIT, async move {
        let mut cursor = database.run_cursor_command(command).await?;
        let mut indexes = Vec::new();
        while cursor.advance().await? {
            indexes.push(cursor.deserialize_current()?);
        }
        Ok(indexes)
    });
    match listed.await {
        Ok(indexes) => Ok(Some(indexes)),
        Err(StoreError::Driver { code: Some(NAMESPACE_NOT_FOUND), .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn of(ttl: &Ttl) -> OfField {
    [("collection", ttl.collection.clone()), ("field", ttl.field.clone())]
}

/// The time to live of a field, in seconds: the shortest of its indexes, as the server deletes by each of them. A
/// partial index is left out: it lets only some documents expire.
pub(super) fn seconds(indexes: &[Document], field: &str) -> Option<f64> {
    let is_on_field = |index: &&Document| {
        index.get_document("key").is_ok_and(|key| key.len() == 1 && key.contains_key(field))
            && !index.contains_key("partialFilterExpression")
    };
    let seconds = indexes.iter().filter(is_on_field).filter_map(|index| index.get("expireAfterSeconds")).map(number);
    // NaN is passed on, not passed over: some servers take it for "at once", and others for "never".
    seconds.reduce(|left, right| if left.is_nan() || right.is_nan() { f64::NAN } else { left.min(right) })
}

/// Servers take for 0 what is no number.
#[expect(clippy::cast_precision_loss, reason = "seconds are at most 2^31")]
pub(super) fn number(value: &Bson) -> f64 {
    match value {
        Bson::Int32(seconds) => f64::from(*seconds),
        Bson::Int64(seconds) => *seconds as f64,
        Bson::Double(seconds) => *seconds,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(field: &str, seconds: impl Into<Bson>) -> Document {
        doc! { "key": { field: 1 }, "expireAfterSeconds": seconds.into() }
    }

    #[test]
    fn the_shortest_of_several_indexes_counts() {
        let indexes = [index("a", 90), index("a", 30_i64), index("b", 5), doc! { "key": { "a": -1 } }];
        assert_eq!(seconds(&indexes, "a"), Some(30.0));
        assert_eq!(seconds(&indexes, "b"), Some(5.0));
        assert_eq!(seconds(&indexes, "c"), None);
        assert_eq!(seconds(&indexes[3..], "a"), None);
    }

    #[test]
    fn odd_seconds_are_told_as_the_server_takes_them() {
        assert_eq!(seconds(&[index("a", 0)], "a"), Some(0.0));
        assert_eq!(seconds(&[index("a", 1.5)], "a"), Some(1.5));
        assert_eq!(seconds(&[index("a", "30")], "a"), Some(0.0));
        assert!(seconds(&[index("a", 30), index("a", f64::NAN)], "a").is_some_and(f64::is_nan));
    }

    #[test]
    fn an_index_on_more_or_less_than_the_field_is_another_one() {
        let compound = doc! { "key": { "a": 1, "b": 1 }, "expireAfterSeconds": 30 };
        let mut partial = index("a", 30);
        partial.insert("partialFilterExpression", doc! { "b": 1 });
        assert_eq!(seconds(&[compound, partial], "a"), None);
    }
}
