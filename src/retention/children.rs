//! Which documents would go, and what refers to them.
//!
//! Only here something of the documents is read: their `_id`, date and group. The choice of those that go is pure.

use std::collections::{HashMap, HashSet};

use mongodb::Database;
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};

use crate::config::retention::{KeepLast, Policy};
use crate::retention::edge::{at, key, reference};
use crate::retention::holds::{eligible, held_elsewhere, is_in_document};
use crate::retention::shape::{Field, Window};
use crate::retention::{LIMIT, RetentionError};
use crate::store::mongodb::within;

/// For more documents than this the children are not counted, and the plan says so.
const MOST: usize = 100_000;

/// How many `_id`s are looked up at once: as many as a batch deletes.
const CHUNK: usize = 500;

/// A document that is older than the cutoff.
#[derive(Clone, Debug, PartialEq)]
struct Expired {
    id: Bson,
    date: i64,
    group: Bson,
}

/// What refers to the documents that would go.
#[derive(Clone, Debug, Default)]
pub(super) struct Children {
    /// How many documents of each child collection; `None` where that would be too much to count.
    pub counts: Option<Vec<u64>>,
    /// How many expired documents are among the newest of their group, where that came out on the way.
    pub among_newest: Option<u64>,
    /// How many others are held, where that came out on the way.
    pub held: Option<u64>,
}

/// Counts what refers to the documents that would go.
pub(super) async fn count(policy: &Policy, database: &Database, window: Window) -> Result<Children, RetentionError> {
    if policy.children.is_empty() && policy.keep_last.is_none() && policy.holds.is_empty() {
        return Ok(Children { counts: Some(Vec::new()), among_newest: None, held: Some(0) });
    }
    let expired = expired(policy, database, window).await?;
    if expired.len() > MOST {
        // A policy without children has none, however many documents there are.
        let counts = policy.children.is_empty().then(Vec::new);
        return Ok(Children { counts, among_newest: None, held: None });
    }
    let all = expired.len();
    let young = match &policy.keep_last {
        Some(last) => {
            let groups = expired.iter().map(|document| key(&document.group)).collect();
            young(policy, database, window, groups, last).await?
        }
        None => HashMap::new(),
    };
    let keep = policy.keep_last.as_ref().map_or(0, |last| u64::from(last.count));
    let old = choose(expired, &young, keep);
    let mut going = Vec::with_capacity(old.len());
    for chunk in old.chunks(CHUNK) {
        going.extend(not_held(policy, database, window, chunk).await?);
    }
    let mut counts = Vec::with_capacity(policy.children.len());
    for child in &policy.children {
        let mut count = 0;
        for chunk in going.chunks(CHUNK) {
            let ids: Vec<Bson> = chunk.iter().map(|id| reference(id, child.id)).collect();
            let collection = database.collection::<RawDocumentBuf>(&child.collection);
            let filter = doc! { &child.field: { "$in": ids } };
            let counting = within(LIMIT, async move { collection.count_documents(filter).max_time(LIMIT).await });
            count += counting.await.map_err(|source| RetentionError::store(policy, "counting what refers to the documents", source))?;
        }
        counts.push(count);
    }
    let part = |from: usize, to: usize| u64::try_from(from.saturating_sub(to)).ok();
    Ok(Children { counts: Some(counts), among_newest: part(all, old.len()), held: part(old.len(), going.len()) })
}

/// Of these documents, those that nothing holds.
async fn not_held(policy: &Policy, database: &Database, window: Window, ids: &[Bson]) -> Result<Vec<Bson>, RetentionError> {
    let mut free = ids.to_vec();
    if policy.holds.iter().any(is_in_document) {
        let collection = database.collection::<Document>(&policy.collection);
        let mut filter = eligible(policy, window);
        filter.insert("_id", doc! { "$in": ids });
        let reading = within(LIMIT, async move {
            let mut cursor = collection.find(filter).projection(doc! { "_id": 1 }).max_time(LIMIT).await?;
            let mut found = HashSet::new();
            while cursor.advance().await? {
                found.extend(cursor.deserialize_current()?.get("_id").map(key));
            }
            Ok(found)
        });
        let found = reading.await.map_err(|source| RetentionError::store(policy, "looking for what is held", source))?;
        free.retain(|id| found.contains(&key(id)));
    }
    let held = held_elsewhere(policy, database, &free).await?;
    free.retain(|id| !held.contains(&key(id)));
    Ok(free)
}

async fn expired(policy: &Policy, database: &Database, window: Window) -> Result<Vec<Expired>, RetentionError> {
    let collection = database.collection::<Document>(&policy.collection);
    let field = policy.field.clone();
    let group = policy.keep_last.as_ref().map(|last| last.per.clone());
    let mut projection = doc! { "_id": 1, &field: 1 };
    projection.extend(group.iter().map(|group| (group.clone(), Bson::Int32(1))));
    let filter = Field::new(&field).dated(window.expired());
    within(LIMIT, async move {
        // By the index alone: a second key would make the server sort whole documents.
        let found = collection.find(filter).sort(doc! { &field: -1 }).projection(projection);
        let mut cursor = found.limit(i64::try_from(MOST + 1).unwrap_or(i64::MAX)).max_time(LIMIT).await?;
        let mut expired = Vec::new();
        while cursor.advance().await? {
            let document = cursor.deserialize_current()?;
            let date = at(&document, &field).and_then(Bson::as_datetime).map(|date| date.timestamp_millis());
            if let (Some(id), Some(date)) = (document.get("_id"), date) {
                let group = group.as_deref().and_then(|group| at(&document, group)).cloned().unwrap_or(Bson::Null);
                expired.push(Expired { id: id.clone(), date, group });
            }
        }
        Ok(expired)
    })
    .await
    .map_err(|source| RetentionError::store(policy, "reading the ids of expired documents", source))
}

/// How many documents of each of these groups are kept for their age, by the group's bytes. Newest first, and only until
/// every group has `keep` of them: that mostly comes soon.
async fn young(
    policy: &Policy,
    database: &Database,
    window: Window,
    groups: HashSet<Vec<u8>>,
    keep: &KeepLast,
) -> Result<HashMap<Vec<u8>, u64>, RetentionError> {
    let (collection, per, keep) = (database.collection::<Document>(&policy.collection), keep.per.clone(), u64::from(keep.count));
    let (filter, sort) = (Field::new(&policy.field).dated(window.young()), doc! { &policy.field: -1 });
    let projection = doc! { "_id": 0, &per: 1 };
    within(LIMIT, async move {
        let found = collection.find(filter).sort(sort).projection(projection).batch_size(1000);
        let mut cursor = found.max_time(LIMIT).await?;
        let (mut counts, mut open) = (HashMap::new(), if keep == 0 { 0 } else { groups.len() });
        while open > 0 && cursor.advance().await? {
            let document = cursor.deserialize_current()?;
            let group = key(at(&document, &per).unwrap_or(&Bson::Null));
            if groups.contains(&group) {
                let count = counts.entry(group).or_insert(0);
                *count += 1;
                open -= usize::from(*count == keep);
            }
        }
        Ok(counts)
    })
    .await
    .map_err(|source| RetentionError::store(policy, "reading the groups of keep_last", source))
}

/// The `_id`s of the documents that would go: of each group, the newest `keep` stay, those that are young included.
/// Of equally dated ones the lowest `_id` goes first.
fn choose(mut expired: Vec<Expired>, young: &HashMap<Vec<u8>, u64>, keep: u64) -> Vec<Bson> {
    expired.sort_by(|left, right| right.date.cmp(&left.date).then_with(|| key(&right.id).cmp(&key(&left.id))));
    let mut kept = young.clone();
    let stays = |document: &Expired, kept: &mut HashMap<Vec<u8>, u64>| {
        let kept = kept.entry(key(&document.group)).or_default();
        *kept += 1;
        *kept <= keep
    };
    expired.into_iter().filter(|document| !stays(document, &mut kept)).map(|document| document.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(id: i32, date: i64, group: &str) -> Expired {
        Expired { id: id.into(), date, group: group.into() }
    }

    #[test]
    fn the_newest_of_each_group_stay_and_young_ones_count_among_them() {
        let expired = vec![document(1, 10, "a"), document(2, 20, "a"), document(3, 30, "a"), document(4, 10, "b"), document(5, 5, "c")];
        let young = HashMap::from([(key(&"b".into()), 2)]);
        assert_eq!(choose(expired.clone(), &young, 2), [Bson::from(4), Bson::from(1)], "newest first");
        assert_eq!(choose(expired.clone(), &HashMap::new(), 0).len(), 5);
        assert_eq!(choose(expired, &young, 99), Vec::<Bson>::new());
    }

    #[test]
    fn equal_dates_are_told_apart_by_id_in_whatever_order_they_are_read() {
        let mut expired = vec![document(1, 10, "a"), document(2, 10, "a"), document(3, 10, "a")];
        let first = choose(expired.clone(), &HashMap::new(), 1);
        expired.reverse();
        assert_eq!(choose(expired, &HashMap::new(), 1), first);
        assert_eq!(first.len(), 2);
    }
}
