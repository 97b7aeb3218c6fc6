//! Which documents would go, and what refers to them.
//!
//! Only here something of the documents is read: their `_id`, date and group. The choice of those that go is pure.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use mongodb::{Cursor, Database};

use crate::config::retention::{Child, KeepLast, Policy};
use crate::retention::edge::{at, key, reference};
use crate::retention::holds::{eligible, held_elsewhere, is_in_document};
use crate::retention::shape::{Field, Window};
use crate::retention::{LIMIT, RetentionError};
use crate::store::mongodb::within;

/// What is being done when documents are read.
const READING: &str = "reading the ids of expired documents";

/// What refers to the documents is counted for so long; then the plan says that it is not known.
const PATIENCE: Duration = Duration::from_secs(60);

/// So many groups of `keep_last` are told apart.
const MOST_GROUPS: usize = 100_000;

/// How many `_id`s are looked up at once: as many as a batch deletes.
const CHUNK: usize = 500;

/// Documents of one date are ranked together, but not more than so many.
const MOST_OF_A_DATE: usize = 50_000;

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

/// Expired documents, newest first, in pieces of about [`CHUNK`].
struct Pieces {
    cursor: Option<Cursor<Document>>,
    field: String,
    group: Option<String>,
    /// Those that may be of the same date as the next ones.
    waiting: Vec<Expired>,
}

/// How many of each group have been kept so far.
struct Ranking {
    kept: HashMap<Vec<u8>, u64>,
    keep: u64,
}

/// Counts what refers to the documents that would go, in memory that does not grow with them.
pub(super) async fn count(policy: &Policy, database: &Database, window: Window) -> Result<Children, RetentionError> {
    if policy.children.is_empty() && policy.keep_last.is_none() && policy.holds.is_empty() {
        return Ok(Children { counts: Some(Vec::new()), among_newest: None, held: Some(0) });
    }
    // A policy without children has none, however many documents there are.
    let unknown = Children { counts: policy.children.is_empty().then(Vec::new), among_newest: None, held: None };
    let began = Instant::now();
    let mut ranking = match &policy.keep_last {
        Some(last) => {
            let Some(groups) = groups(policy, database, window, last).await? else { return Ok(unknown) };
            Ranking { kept: young(policy, database, window, groups, last).await?, keep: u64::from(last.count) }
        }
        None => Ranking { kept: HashMap::new(), keep: 0 },
    };
    let mut pieces = Pieces::open(policy, database, window).await?;
    let (mut among_newest, mut held) = (0, 0);
    let mut counts = vec![0; policy.children.len()];
    while let Some(piece) = pieces.next(policy).await? {
        if began.elapsed() > PATIENCE {
            return Ok(unknown);
        }
        let all = piece.len();
        let old = ranking.choose(piece);
        among_newest += all - old.len();
        for chunk in old.chunks(CHUNK) {
            let going = not_held(policy, database, window, chunk).await?;
            held += chunk.len() - going.len();
            for (child, count) in policy.children.iter().zip(&mut counts) {
                *count += referring(policy, child, database, &going).await?;
            }
        }
    }
    Ok(Children { counts: Some(counts), among_newest: u64::try_from(among_newest).ok(), held: u64::try_from(held).ok() })
}

/// How many documents of a child collection refer to these.
async fn referring(policy: &Policy, child: &Child, database: &Database, ids: &[Bson]) -> Result<u64, RetentionError> {
    let ids: Vec<Bson> = ids.iter().map(|id| reference(id, child.id)).collect();
    let collection = database.collection::<RawDocumentBuf>(&child.collection);
    let filter = doc! { &child.field: { "$in": ids } };
    let counting = within(LIMIT, async move { collection.count_documents(filter).max_time(LIMIT).await });
    counting.await.map_err(|source| RetentionError::store(policy, "counting what refers to the documents", source))
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

/// The groups that expired documents are of, as their bytes; `None` where there are too many.
async fn groups(policy: &Policy, database: &Database, window: Window, last: &KeepLast) -> Result<Option<HashSet<Vec<u8>>>, RetentionError> {
    let collection = database.collection::<Document>(&policy.collection);
    let group = doc! { "$group": { "_id": { "$ifNull": [format!("${}", last.per), Bson::Null] } } };
    let stages = [doc! { "$match": Field::new(&policy.field).dated(window.expired()) }, group];
    within(LIMIT, async move {
        let mut cursor = collection.aggregate(stages).max_time(LIMIT).await?;
        let mut groups = HashSet::new();
        while cursor.advance().await? {
            if groups.len() >= MOST_GROUPS {
                return Ok(None);
            }
            groups.extend(cursor.deserialize_current()?.get("_id").map(key));
        }
        Ok(Some(groups))
    })
    .await
    .map_err(|source| RetentionError::store(policy, "reading the groups of expired documents", source))
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

// === impl Pieces ===

impl Pieces {
    async fn open(policy: &Policy, database: &Database, window: Window) -> Result<Self, RetentionError> {
        let collection = database.collection::<Document>(&policy.collection);
        let group = policy.keep_last.as_ref().map(|last| last.per.clone());
        let mut projection = doc! { "_id": 1, &policy.field: 1 };
        projection.extend(group.iter().map(|group| (group.clone(), Bson::Int32(1))));
        let filter = Field::new(&policy.field).dated(window.expired());
        // By the index alone: a second key would make the server sort whole documents.
        let sort = doc! { &policy.field: -1 };
        let opening = within(LIMIT, async move {
            let found = collection.find(filter).sort(sort).projection(projection).max_time(PATIENCE);
            // A reply holds as many documents as go into 16 MiB, unless it is told.
            found.batch_size(u32::try_from(CHUNK).unwrap_or_default()).await
        });
        let cursor = opening.await.map_err(|source| RetentionError::store(policy, READING, source))?;
        Ok(Self { cursor: Some(cursor), field: policy.field.clone(), group, waiting: Vec::new() })
    }

    /// The next piece; `None` after the last one.
    async fn next(&mut self, policy: &Policy) -> Result<Option<Vec<Expired>>, RetentionError> {
        while let Some(mut cursor) = self.cursor.take() {
            // A future of the driver is never dropped: the cursor goes with it, and comes back.
            let reading = within(LIMIT, async move {
                let mut documents = Vec::new();
                while documents.len() < CHUNK && cursor.advance().await? {
                    documents.push(cursor.deserialize_current()?);
                }
                let is_over = documents.len() < CHUNK;
                Ok(((!is_over).then_some(cursor), documents))
            });
            let (cursor, documents) = reading.await.map_err(|source| RetentionError::store(policy, READING, source))?;
            self.cursor = cursor;
            let expired: Vec<Expired> = documents.iter().filter_map(|document| self.expired(document)).collect();
            self.waiting.extend(expired);
            if let Some(piece) = self.take_ranked() {
                return Ok(Some(piece));
            }
        }
        let rest = std::mem::take(&mut self.waiting);
        Ok((!rest.is_empty()).then_some(rest))
    }

    fn expired(&self, document: &Document) -> Option<Expired> {
        let date = at(document, &self.field).and_then(Bson::as_datetime)?.timestamp_millis();
        let group = self.group.as_deref().and_then(|group| at(document, group)).cloned().unwrap_or(Bson::Null);
        Some(Expired { id: document.get("_id")?.clone(), date, group })
    }

    /// What can be ranked by now: all but those of the last date, of which there may be more.
    fn take_ranked(&mut self) -> Option<Vec<Expired>> {
        let last = self.waiting.last()?.date;
        let ranked = match self.group {
            Some(_) if self.waiting.len() < MOST_OF_A_DATE => self.waiting.partition_point(|document| document.date > last),
            _ => self.waiting.len(),
        };
        let rest = self.waiting.split_off(ranked);
        Some(std::mem::replace(&mut self.waiting, rest)).filter(|piece| !piece.is_empty())
    }
}

// === impl Ranking ===

impl Ranking {
    /// The `_id`s of the documents of a piece that would go: of each group, the newest stay, those that are young included.
    /// Of equally dated ones the lowest `_id` goes first.
    fn choose(&mut self, mut piece: Vec<Expired>) -> Vec<Bson> {
        piece.sort_by(|left, right| right.date.cmp(&left.date).then_with(|| key(&right.id).cmp(&key(&left.id))));
        if self.keep > 0 {
            piece.retain(|document| {
                let kept = self.kept.entry(key(&document.group)).or_default();
                *kept += 1;
                *kept > self.keep
            });
        }
        piece.into_iter().map(|document| document.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(id: i32, date: i64, group: &str) -> Expired {
        Expired { id: id.into(), date, group: group.into() }
    }

    fn choose(expired: Vec<Expired>, young: &HashMap<Vec<u8>, u64>, keep: u64) -> Vec<Bson> {
        Ranking { kept: young.clone(), keep }.choose(expired)
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

    #[test]
    fn what_is_ranked_in_pieces_is_what_would_be_ranked_at_once() {
        let documents: Vec<Expired> = (0..40).map(|id| document(id, 100 - i64::from(id) / 7, ["a", "b"][id as usize % 2])).collect();
        let at_once = choose(documents.clone(), &HashMap::new(), 5);
        let mut pieces = Pieces { cursor: None, field: "at".to_owned(), group: Some("group".to_owned()), waiting: Vec::new() };
        let (mut ranking, mut in_pieces) = (Ranking { kept: HashMap::new(), keep: 5 }, Vec::new());
        for read in documents.chunks(3) {
            pieces.waiting.extend_from_slice(read);
            in_pieces.extend(pieces.take_ranked().map(|piece| ranking.choose(piece)).unwrap_or_default());
        }
        in_pieces.extend(ranking.choose(pieces.waiting));
        assert_eq!(in_pieces, at_once);
        assert_eq!(at_once.len(), 30);
    }
}
