//! TTL indexes that the sidecar owns: made where they are missing, their seconds put right.
//!
//! Only where the configuration says that nobody else declares them, and only after a count of what would vanish at
//! once: what a TTL index deletes is archived nowhere. An index of the application is never touched.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mongodb::bson::{Bson, DateTime, Document, doc};
use mongodb::options::Hint;

use crate::config::retention::{Mode, Owner, Retention, Ttl};
use crate::retention::ttl::{indexes, number};
use crate::store::mongodb::{Mongo, Reason, StoreError, within};

/// How often they are looked at.
const EVERY: Duration = Duration::from_secs(600);

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(20);

/// An index may take longer to build.
const BUILD_LIMIT: Duration = Duration::from_secs(600);

/// The TTL indexes that the sidecar owns.
#[derive(Debug)]
pub struct TtlOwner {
    mongo: Arc<Mongo>,
    next: Option<Instant>,
    /// What was refused, which has been said.
    said: Vec<String>,
}

/// What an index needs. Pure.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Need {
    Nothing,
    Create,
    /// The seconds are others; these.
    Change(f64),
    /// There is an index that cannot be made one with a time to live without harm.
    Conflict(&'static str),
}

/// Why an index stays as it is.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Conflict(&'static str),
    #[error(
        "{going} of {total} documents would vanish at once, unarchived; at most {most} may. Delete them by a policy first, which archives them"
    )]
    Guard { going: u64, total: u64, most: u64 },
    #[error("{step} failed{remedy}")]
    Store {
        step: &'static str,
        remedy: &'static str,
        #[source]
        source: StoreError,
    },
}

// === impl TtlOwner ===

impl TtlOwner {
    /// Nothing is connected yet.
    #[must_use]
    pub fn new(mongo: Arc<Mongo>) -> Self {
        Self { mongo, next: None, said: Vec::new() }
    }

    /// Looks at all of them, not more often than every ten minutes.
    pub async fn enforce_when_due(&mut self, settings: &Retention) {
        if self.next.is_some_and(|next| Instant::now() < next) {
            return;
        }
        self.next = Some(Instant::now() + EVERY);
        self.enforce(settings).await;
    }

    /// Looks at all of them now. What was changed, as sentences.
    pub async fn enforce(&mut self, settings: &Retention) -> Vec<String> {
        let mut changes = Vec::new();
        if settings.mode != Mode::Enforce {
            return changes;
        }
        for ttl in settings.ttl.iter().filter(|ttl| ttl.owner == Owner::Sidecar) {
            match self.enforce_one(ttl, settings).await {
                Ok(None) => {}
                Ok(Some(change)) => {
                    tracing::info!(collection = ttl.collection, field = ttl.field, change, "a TTL index was put right");
                    changes.push(change);
                }
                Err(refusal) => {
                    let text = format!("{}.{}: {refusal}", ttl.collection, ttl.field);
                    if !self.said.contains(&text) {
                        tracing::error!(collection = ttl.collection, field = ttl.field, "a TTL index stays as it is: {refusal}");
                        self.said.push(text);
                    }
                }
            }
        }
        changes
    }

    async fn enforce_one(&self, ttl: &Ttl, settings: &Retention) -> Result<Option<String>, Refusal> {
        let found = indexes(&self.mongo, &ttl.collection).await.map_err(|source| store("looking at the indexes", source))?;
        // A collection that is not there is the application's to make.
        let Some(found) = found else { return Ok(None) };
        let seconds = i32::try_from(ttl.expire_after.as_secs()).unwrap_or(i32::MAX);
        match need(&found, &ttl.field, f64::from(seconds)) {
            Need::Nothing => Ok(None),
            Need::Conflict(why) => Err(Refusal::Conflict(why)),
            Need::Create => {
                self.guard(ttl, settings, None).await?;
                let index =
                    doc! { "key": { &ttl.field: 1 }, "name": format!("bellwether_ttl_{}", ttl.field), "expireAfterSeconds": seconds };
                let create = doc! { "createIndexes": &ttl.collection, "indexes": [index], "writeConcern": { "w": "majority" } };
                self.command(create, BUILD_LIMIT, "making the index").await?;
                Ok(Some(format!("made an index on {}.{} that expires after {seconds} s", ttl.collection, ttl.field)))
            }
            Need::Change(before) => {
                // Longer deletes nothing that the index would not have deleted anyway.
                if f64::from(seconds) < before || before.is_nan() {
                    self.guard(ttl, settings, Some(before)).await?;
                }
                let index = doc! { "keyPattern": { &ttl.field: 1 }, "expireAfterSeconds": seconds };
                let change = doc! { "collMod": &ttl.collection, "index": index, "writeConcern": { "w": "majority" } };
                self.command(change, LIMIT, "changing the index").await?;
                Ok(Some(format!("{}.{} expires after {seconds} s, and did after {before} s", ttl.collection, ttl.field)))
            }
        }
    }

    /// Counts what would vanish at once, against the same guards as a policy: dates as the server reads them, those of
    /// lists and from before 2000 included.
    async fn guard(&self, ttl: &Ttl, settings: &Retention, before: Option<f64>) -> Result<(), Refusal> {
        let _ = before;
        let now = self.mongo.server_time(LIMIT).await.map_err(|source| store("asking for the clock", source))?;
        let keep = i64::try_from(ttl.expire_after.as_millis()).unwrap_or(i64::MAX);
        let cutoff = DateTime::from_millis(now.saturating_sub(keep));
        let total = self.count(ttl, doc! {}, Some(Hint::Keys(doc! { "_id": 1 }))).await?;
        let going = self.count(ttl, doc! { &ttl.field: { "$lte": cutoff } }, None).await?;
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a bound, from 0 on")]
        let part = (total as f64 * settings.guards.max_fraction).floor() as u64;
        let most = part.min(settings.guards.max_documents).min(total.saturating_sub(settings.guards.min_remaining));
        if going > most { Err(Refusal::Guard { going, total, most }) } else { Ok(()) }
    }

    async fn count(&self, ttl: &Ttl, filter: Document, hint: Option<Hint>) -> Result<u64, Refusal> {
        let step = "counting what would vanish";
        let database = self.mongo.database().await.map_err(|source| store(step, source))?;
        let collection = database.collection::<Document>(&ttl.collection);
        let counting = within(LIMIT, async move {
            let mut counting = collection.count_documents(filter).max_time(LIMIT);
            if let Some(hint) = hint {
                counting = counting.hint(hint);
            }
            counting.await
        });
        counting.await.map_err(|source| store(step, source))
    }

    async fn command(&self, command: Document, limit: Duration, step: &'static str) -> Result<(), Refusal> {
        let database = self.mongo.database().await.map_err(|source| store(step, source))?;
        within(limit, async move { database.run_command(command).await }).await.map(drop).map_err(|source| store(step, source))
    }
}

fn store(step: &'static str, source: StoreError) -> Refusal {
    let remedy = match (source.reason(), step) {
        (Reason::Auth, "making the index") => "; grant the user `createIndex` on the collection",
        (Reason::Auth, "changing the index") => "; grant the user `collMod` on the collection",
        (Reason::Auth, _) => "; grant the user the role `read` on the application's database",
        _ => "",
    };
    Refusal::Store { step, remedy, source }
}

/// What the index of a field needs, so that it expires after so many seconds.
fn need(indexes: &[Document], field: &str, seconds: f64) -> Need {
    let on_field = |index: &&Document| index.get_document("key").is_ok_and(|key| key.len() == 1 && key.contains_key(field));
    let on_field: Vec<&Document> = indexes.iter().filter(on_field).collect();
    let expiring: Vec<&&Document> = on_field.iter().filter(|index| index.contains_key("expireAfterSeconds")).collect();
    let is_partial = |index: &Document| index.contains_key("partialFilterExpression");
    match expiring.as_slice() {
        [] if on_field.iter().any(|index| key_is(index, field, 1)) => {
            Need::Conflict("there is an index on the field without a time to live, which somebody else has made; it is not changed")
        }
        [] => Need::Create,
        [one] if is_partial(one) || !key_is(one, field, 1) => {
            Need::Conflict("the index with a time to live is a partial or descending one, which somebody else has made; it is not changed")
        }
        [one] => match one.get("expireAfterSeconds").map(number) {
            Some(found) if (found - seconds).abs() < 0.5 => Need::Nothing,
            Some(found) => Need::Change(found),
            None => Need::Nothing,
        },
        _ => Need::Conflict("there are several indexes with a time to live on the field; drop all but one"),
    }
}

/// Whether an index is on this field in this direction.
fn key_is(index: &Document, field: &str, direction: i64) -> bool {
    match index.get_document("key").ok().and_then(|key| key.get(field)) {
        Some(Bson::Int32(found)) => i64::from(*found) == direction,
        Some(Bson::Int64(found)) => *found == direction,
        #[expect(clippy::cast_precision_loss, reason = "1 or -1")]
        Some(Bson::Double(found)) => (*found - direction as f64).abs() < f64::EPSILON,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_index_needs_is_told_by_what_is_there() {
        let plain = doc! { "key": { "f": 1 } };
        let expiring = |seconds: f64| doc! { "key": { "f": 1 }, "expireAfterSeconds": seconds };
        assert_eq!(need(&[], "f", 60.0), Need::Create);
        assert_eq!(need(&[doc! { "key": { "f": 1, "g": 1 } }, doc! { "key": { "f": -1 } }], "f", 60.0), Need::Create);
        assert_eq!(need(&[expiring(60.0)], "f", 60.0), Need::Nothing);
        assert_eq!(need(&[expiring(61.0)], "f", 60.0), Need::Change(61.0));
        assert!(matches!(need(&[expiring(f64::NAN)], "f", 60.0), Need::Change(found) if found.is_nan()));
        assert!(matches!(need(&[plain], "f", 60.0), Need::Conflict(_)));
        assert!(matches!(need(&[expiring(60.0), doc! { "key": { "f": -1 }, "expireAfterSeconds": 5 }], "f", 60.0), Need::Conflict(_)));
        let mut partial = expiring(60.0);
        partial.insert("partialFilterExpression", doc! { "g": 1 });
        assert!(matches!(need(&[partial], "f", 60.0), Need::Conflict(_)));
    }
}
