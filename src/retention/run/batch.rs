//! What happens to one batch, with everything that refers to it.

use std::collections::{HashMap, HashSet};

use mongodb::bson::{Bson, Document, doc};

use crate::config::retention::Child;
use crate::retention::batch::{Archived, Candidate, Reader};
use crate::retention::edge::{key, reference};
use crate::retention::erase::{erase, exact, filter};
use crate::retention::holds::held_elsewhere;
use crate::retention::outcome::{RunError, Skip};
use crate::retention::run::{LIMIT, Run};
use crate::store::mongodb::within;

/// So many children of one collection go with a batch; more than that go before it.
const CHILDREN: usize = 1000;

/// A transaction is tried again so often when a document has changed in between.
const ATTEMPTS: u32 = 3;

/// What refers to some parents.
#[derive(Debug, Default)]
pub(super) struct Children {
    /// For each edge of the policy, the documents.
    of_edge: Vec<Vec<Candidate>>,
    /// There are more than are here.
    more: bool,
    /// The keys of parents that are named by documents that name others, too: they stay.
    shared: HashSet<Vec<u8>>,
}

// === impl Run ===

impl Run<'_> {
    /// Leaves out what stays, and lets the rest go in parts that are small enough together with their children.
    pub(super) async fn batch(&mut self, candidates: Vec<Candidate>) -> Result<(), RunError> {
        let candidates = self.without_kept(candidates).await?;
        let candidates = self.without_held(candidates).await?;
        let mut parts = vec![candidates];
        while let Some(mut parents) = parts.pop() {
            if parents.is_empty() {
                continue;
            }
            let children = self.children(&ids(&parents)).await?;
            let before = parents.len();
            parents.retain(|parent| !children.shared.contains(&key(&parent.id)));
            self.tally.skip(Skip::Referenced, before - parents.len());
            if parents.len() < before {
                // Their children are among those that were read: read again without them.
                parts.push(parents);
            } else if children.more && parents.len() > 1 {
                let rest = parents.split_off(parents.len() / 2);
                parts.extend([rest, parents]);
            } else {
                self.part(parents, children).await?;
            }
        }
        Ok(())
    }

    async fn without_kept(&mut self, candidates: Vec<Candidate>) -> Result<Vec<Candidate>, RunError> {
        let (policy, window) = (self.warrant.policy(), self.warrant.plan().window());
        let kept = self.ranks.kept(policy, &self.means.database, window, &candidates).await?;
        Ok(self.leave_out(candidates, &kept, Skip::AmongNewest))
    }

    async fn without_held(&mut self, candidates: Vec<Candidate>) -> Result<Vec<Candidate>, RunError> {
        let held = held_elsewhere(self.warrant.policy(), &self.means.database, &ids(&candidates)).await?;
        Ok(self.leave_out(candidates, &held, Skip::Held))
    }

    fn leave_out(&mut self, mut candidates: Vec<Candidate>, out: &HashSet<Vec<u8>>, why: Skip) -> Vec<Candidate> {
        let before = candidates.len();
        candidates.retain(|candidate| !out.contains(&key(&candidate.id)));
        self.tally.skip(why, before - candidates.len());
        candidates
    }

    /// Archives parents and children, looks again, and deletes.
    async fn part(&mut self, parents: Vec<Candidate>, children: Children) -> Result<(), RunError> {
        if !children.more {
            let (parents, children) = self.archive(parents, children).await?;
            self.note(&parents, &children).await?;
            return self.finish_part(parents, children).await;
        }
        // Only of a single parent there may be more than go at once: some go before it.
        let (parents, _) = self.archive(parents, Children::default()).await?;
        let Some(children) = self.without_surplus(&parents, children).await? else { return Ok(()) };
        let children = self.archive_children(children).await?;
        self.note(&parents, &children).await?;
        self.finish_part(parents, children).await
    }

    /// Lets children go until so few are left that they go with their parent: those. `None` where they stay.
    async fn without_surplus(&mut self, parents: &Archived, mut children: Children) -> Result<Option<Children>, RunError> {
        while children.more {
            let some = self.archive_children(children).await?;
            self.note(parents, &some).await?;
            if self.unchanged(parents).await?.len() < parents.len() {
                self.tally.skip(Skip::Changed, parents.len());
                return Ok(None);
            }
            let nobody = Archived::nothing(parents.collection());
            let gone = self.erase(&nobody, &some).await?;
            children = self.children(&parents.ids()).await?;
            if gone == 0 || !children.shared.is_empty() {
                self.tally.skip(Skip::Referenced, parents.len());
                return Ok(None);
            }
        }
        Ok(Some(children))
    }

    /// Deletes what was archived, after everything that could have changed was looked at again.
    async fn finish_part(&mut self, mut parents: Archived, mut children: Vec<Archived>) -> Result<(), RunError> {
        self.look_again(&mut parents, &mut children).await?;
        for _ in 0..ATTEMPTS {
            // In a transaction, a parent that has changed keeps its children: there is no need to look before.
            if !self.checkpoint.transactions() && !children.iter().all(Archived::is_empty) {
                self.keep_unchanged(&mut parents, &mut children).await?;
            }
            if parents.is_empty() {
                return Ok(());
            }
            let erased = erase(&self.means.database, self.warrant, self.means.lease, &self.checkpoint, &parents, &children).await?;
            if let Some(erased) = erased {
                self.tally.deleted += erased.parents;
                self.tally.children += erased.children;
                let missing = parents.len() - usize::try_from(erased.parents).unwrap_or_default().min(parents.len());
                self.tally.skip(Skip::Changed, missing);
                if missing > 0 && !self.checkpoint.transactions() {
                    self.put_back(&parents, &children).await?;
                }
                if !self.warrant.policy().children.is_empty() {
                    self.recent.push_back(parents.ids());
                }
                return Ok(());
            }
            // In a transaction, one that has changed has kept all of them: on without it.
            self.keep_unchanged(&mut parents, &mut children).await?;
        }
        self.tally.skip(Skip::Changed, parents.len());
        Ok(())
    }

    /// Rank, holds and references, as they are now.
    async fn look_again(&mut self, parents: &mut Archived, children: &mut [Archived]) -> Result<(), RunError> {
        let (policy, window) = (self.warrant.policy(), self.warrant.plan().window());
        if !self.ranks.still_hold(policy, &self.means.database, window, parents.candidates()).await? {
            let kept = self.ranks.kept(policy, &self.means.database, window, parents.candidates()).await?;
            self.keep(parents, children, |parent| !kept.contains(&key(&parent.id)), Skip::AmongNewest);
        }
        let held = held_elsewhere(policy, &self.means.database, &parents.ids()).await?;
        self.keep(parents, children, |parent| !held.contains(&key(&parent.id)), Skip::Held);
        let new = self.with_new_children(parents, children).await?;
        self.keep(parents, children, |parent| !new.contains(&key(&parent.id)), Skip::Referenced);
        Ok(())
    }

    /// Leaves parents that are not what was archived out, and their children with them.
    async fn keep_unchanged(&mut self, parents: &mut Archived, children: &mut [Archived]) -> Result<(), RunError> {
        let unchanged = self.unchanged(parents).await?;
        self.keep(parents, children, |parent| unchanged.contains(&key(&parent.id)), Skip::Changed);
        Ok(())
    }

    fn keep(&mut self, parents: &mut Archived, children: &mut [Archived], keep: impl Fn(&Candidate) -> bool, why: Skip) {
        let before = parents.len();
        let left: Vec<Bson> = parents.candidates().iter().filter(|parent| !keep(parent)).map(|parent| parent.id.clone()).collect();
        if left.is_empty() {
            return;
        }
        parents.retain(keep);
        self.tally.skip(why, before - parents.len());
        for (of_edge, edge) in children.iter_mut().zip(&self.warrant.policy().children) {
            let staying: HashSet<Vec<u8>> = left.iter().map(|id| key(&reference(id, edge.id))).collect();
            of_edge.retain(|child| child.value(&edge.field).is_some_and(|named| !staying.contains(&key(&named))));
        }
    }

    /// The keys of those that the server finds as they were archived.
    async fn unchanged(&self, archived: &Archived) -> Result<HashSet<Vec<u8>>, RunError> {
        if archived.is_empty() {
            return Ok(HashSet::new());
        }
        let query = exact(archived, filter(self.warrant), None)?;
        let mut command = mongodb::bson::RawDocumentBuf::new();
        command.append(mongodb::bson::raw::cstr!("find"), archived.collection());
        command.append(mongodb::bson::raw::cstr!("filter"), query);
        command.append(mongodb::bson::raw::cstr!("projection"), mongodb::bson::rawdoc! { "_id": 1 });
        command.append(mongodb::bson::raw::cstr!("collation"), mongodb::bson::rawdoc! { "locale": "simple" });
        command.append(mongodb::bson::raw::cstr!("maxTimeMS"), 20_000_i32);
        let database = self.means.database.clone();
        let reading = within(LIMIT, async move {
            let mut cursor = database.run_raw_cursor_command(command).await?;
            let mut found = HashSet::new();
            while cursor.advance().await? {
                let document: Document = cursor.deserialize_current()?;
                found.extend(document.get("_id").map(key));
            }
            Ok(found)
        });
        reading.await.map_err(RunError::store("looking at archived documents again"))
    }

    /// The keys of parents that something refers to that was not archived.
    async fn with_new_children(&self, parents: &Archived, children: &[Archived]) -> Result<HashSet<Vec<u8>>, RunError> {
        let mut new = HashSet::new();
        for (edge, of_edge) in self.warrant.policy().children.iter().zip(children) {
            let known: HashSet<Vec<u8>> = of_edge.candidates().iter().map(|child| key(&child.id)).collect();
            let named = self.names(edge, &parents.ids(), known).await?;
            let of_reference: HashMap<Vec<u8>, Vec<u8>> =
                parents.candidates().iter().map(|parent| (key(&reference(&parent.id, edge.id)), key(&parent.id))).collect();
            new.extend(named.iter().filter_map(|named| of_reference.get(named).cloned()));
        }
        Ok(new)
    }

    /// The keys of references to these parents by documents that are not known.
    async fn names(&self, edge: &Child, parents: &[Bson], known: HashSet<Vec<u8>>) -> Result<HashSet<Vec<u8>>, RunError> {
        let references: Vec<Bson> = parents.iter().map(|id| reference(id, edge.id)).collect();
        let collection = self.means.database.collection::<Document>(&edge.collection);
        let field = edge.field.clone();
        let reading = within(LIMIT, async move {
            let found = collection.find(doc! { &field: { "$in": references } }).projection(doc! { "_id": 1, &field: 1 });
            let mut cursor = found.max_time(LIMIT).await?;
            let mut named = HashSet::new();
            while cursor.advance().await? {
                let document = cursor.deserialize_current()?;
                if document.get("_id").is_none_or(|id| !known.contains(&key(id))) {
                    match crate::retention::edge::at(&document, &field) {
                        Some(Bson::Array(items)) => named.extend(items.iter().map(key)),
                        Some(value) => drop(named.insert(key(value))),
                        None => {}
                    }
                }
            }
            Ok(named)
        });
        reading.await.map_err(RunError::store("looking for new references"))
    }

    /// What refers to these parents now.
    pub(super) async fn children(&self, parents: &[Bson]) -> Result<Children, RunError> {
        let mut children = Children::default();
        for edge in &self.warrant.policy().children {
            let named: HashMap<Vec<u8>, Vec<u8>> = parents.iter().map(|id| (key(&reference(id, edge.id)), key(id))).collect();
            let references: Vec<Bson> = parents.iter().map(|id| reference(id, edge.id)).collect();
            let filter = doc! { &edge.field: { "$in": references } };
            let mut reader = Reader::open(&self.means.database, &edge.collection, filter, None, 500).await?;
            let mut found = reader.next(CHILDREN).await?;
            children.more |= found.len() == CHILDREN || !reader.next(1).await?.is_empty();
            found.retain(|child| match child.value(&edge.field) {
                // A plain value that is one of the references: this child is of one parent alone.
                Some(value) if named.contains_key(&key(&value)) => true,
                Some(Bson::Array(items)) => {
                    children.shared.extend(items.iter().filter_map(|item| named.get(&key(item)).cloned()));
                    false
                }
                // Named by a list of documents on the way: nobody can say of whom it is.
                _ => {
                    children.shared.extend(named.values().cloned());
                    false
                }
            });
            children.of_edge.push(found);
        }
        Ok(children)
    }

    /// Archives documents of the policy, and what refers to them.
    async fn archive(&mut self, parents: Vec<Candidate>, children: Children) -> Result<(Archived, Vec<Archived>), RunError> {
        let policy = self.warrant.policy();
        let mut collections = vec![(policy.collection.clone(), parents)];
        collections.extend(policy.children.iter().map(|edge| edge.collection.clone()).zip(children.of_edge));
        let mut archived = Archived::write(&mut self.writer, collections).await?;
        self.tally.bytes += archived.iter().map(Archived::bytes).sum::<u64>();
        let parents = archived.remove(0);
        self.tally.archived += parents.len() as u64;
        Ok((parents, archived))
    }

    pub(super) async fn archive_children(&mut self, children: Children) -> Result<Vec<Archived>, RunError> {
        Ok(self.archive(Vec::new(), children).await?.1)
    }

    pub(super) async fn note(&self, parents: &Archived, children: &[Archived]) -> Result<(), RunError> {
        let segments = children.iter().chain([parents]).filter_map(Archived::segment).map(str::to_owned).collect();
        self.checkpoint.note_archived(self.means.lease, parents.ids(), segments, &self.tally).await
    }

    /// Deletes children alone. How many there were.
    pub(super) async fn erase(&mut self, nobody: &Archived, children: &[Archived]) -> Result<u64, RunError> {
        let erased = erase(&self.means.database, self.warrant, self.means.lease, &self.checkpoint, nobody, children).await?;
        let gone = erased.map_or(0, |erased| erased.children);
        self.tally.children += gone;
        Ok(gone)
    }
}

impl Children {
    pub(super) fn is_empty(&self) -> bool {
        self.of_edge.iter().all(Vec::is_empty)
    }

    pub(super) fn more(&self) -> bool {
        self.more
    }
}

fn ids(candidates: &[Candidate]) -> Vec<Bson> {
    candidates.iter().map(|candidate| candidate.id.clone()).collect()
}
