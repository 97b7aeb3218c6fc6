//! Which documents are among the newest of their group, and stay for that.

use std::collections::{HashMap, HashSet};

use mongodb::Database;
use mongodb::bson::{Bson, Document, doc};

use crate::config::retention::{KeepLast, Policy};
use crate::retention::batch::Candidate;
use crate::retention::edge::key;
use crate::retention::outcome::RunError;
use crate::retention::shape::Field;
use crate::retention::{LIMIT, Window};
use crate::store::mongodb::within;

/// So many groups are remembered; then all are forgotten and asked for again.
const MOST_GROUPS: usize = 4096;

/// The newest of each group, as they were when they were last read.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    newest: HashMap<Vec<u8>, Vec<Bson>>,
}

// === impl Ranks ===

impl Ranks {
    /// Of these documents, the keys of those that stay for their rank. A document whose group cannot be told stays.
    pub async fn kept(
        &mut self,
        policy: &Policy,
        database: &Database,
        window: Window,
        candidates: &[Candidate],
    ) -> Result<HashSet<Vec<u8>>, RunError> {
        let mut kept = HashSet::new();
        let Some(last) = &policy.keep_last else { return Ok(kept) };
        if self.newest.len() > MOST_GROUPS {
            self.newest.clear();
        }
        for candidate in candidates {
            let group = candidate.value(&last.per).unwrap_or(Bson::Null);
            let id = key(&candidate.id);
            if matches!(group, Bson::Array(_) | Bson::RegularExpression(_)) {
                kept.insert(id);
                continue;
            }
            let group_key = key(&group);
            if !self.newest.contains_key(&group_key) {
                let newest = newest(policy, database, window, last, group).await?;
                self.newest.insert(group_key.clone(), newest);
            }
            if self.newest.get(&group_key).is_none_or(|newest| newest.contains(&candidate.id)) {
                kept.insert(id);
            }
        }
        Ok(kept)
    }

    /// Looks whether the newest of the groups of these documents are still there and still of their group; forgets the
    /// groups where they are not. Whether all are.
    pub async fn still_hold(
        &mut self,
        policy: &Policy,
        database: &Database,
        window: Window,
        candidates: &[Candidate],
    ) -> Result<bool, RunError> {
        let Some(last) = &policy.keep_last else { return Ok(true) };
        let groups: HashMap<Vec<u8>, Bson> =
            candidates.iter().map(|candidate| candidate.value(&last.per).unwrap_or(Bson::Null)).map(|group| (key(&group), group)).collect();
        let mut hold = true;
        for (group_key, group) in groups {
            let Some(newest) = self.newest.get(&group_key) else {
                hold = false;
                continue;
            };
            let mut filter = of_group(policy, window, last, &group);
            filter.insert("_id", doc! { "$in": newest });
            let collection = database.collection::<Document>(&policy.collection);
            let counting = within(LIMIT, async move { collection.count_documents(filter).max_time(LIMIT).await });
            let there = counting.await.map_err(RunError::store("reading the newest of a group"))?;
            if there != newest.len() as u64 {
                self.newest.remove(&group_key);
                hold = false;
            }
        }
        Ok(hold)
    }
}

/// Documents of a group with a date that was set and is not in the future.
fn of_group(policy: &Policy, window: Window, last: &KeepLast, group: &Bson) -> Document {
    let dated = Field::new(&policy.field).dated(window.plausible());
    let in_group = Field::new(&last.per).outside_lists_and(doc! { &last.per: { "$eq": group } });
    doc! { "$and": [dated, in_group] }
}

async fn newest(policy: &Policy, database: &Database, window: Window, last: &KeepLast, group: Bson) -> Result<Vec<Bson>, RunError> {
    let filter = of_group(policy, window, last, &group);
    let (collection, field, count) = (database.collection::<Document>(&policy.collection), policy.field.clone(), i64::from(last.count));
    let reading = within(LIMIT, async move {
        let found = collection.find(filter).sort(doc! { field: -1 }).limit(count).projection(doc! { "_id": 1 });
        let mut cursor = found.max_time(LIMIT).await?;
        let mut newest = Vec::new();
        while cursor.advance().await? {
            newest.extend(cursor.deserialize_current()?.remove("_id"));
        }
        Ok(newest)
    });
    reading.await.map_err(RunError::store("reading the newest of a group"))
}
