//! Children that were added while their parent went: they go after it, and only where it is gone.

use mongodb::bson::{Bson, Document, doc};

use crate::retention::batch::Archived;
use crate::retention::edge::key;
use crate::retention::outcome::RunError;
use crate::retention::run::{LIMIT, Run};
use crate::store::mongodb::within;

/// Parents are looked up so many at once.
const CHUNK: usize = 500;

/// Rounds of a sweep; somebody who adds without end does not hold the run up.
const ROUNDS: u32 = 1000;

// === impl Run ===

impl Run<'_> {
    /// Sweeps after everything that went lately.
    pub(super) async fn sweep_all(&mut self) -> Result<(), RunError> {
        while let Some(parents) = self.recent.front().cloned() {
            self.sweep(&parents).await?;
            self.recent.pop_front();
        }
        Ok(())
    }

    /// Archives and deletes what refers to those of these parents that are gone.
    pub(super) async fn sweep(&mut self, parents: &[Bson]) -> Result<(), RunError> {
        if self.warrant.policy().children.is_empty() {
            return Ok(());
        }
        for chunk in parents.chunks(CHUNK) {
            let gone = self.gone(chunk).await?;
            if gone.is_empty() {
                continue;
            }
            for _ in 0..ROUNDS {
                let children = self.children(&gone).await?;
                if children.is_empty() {
                    break;
                }
                let more = children.more();
                let children = self.archive_children(children).await?;
                let nobody = Archived::nothing(&self.warrant.policy().collection);
                let erased = self.erase(&nobody, &children).await?;
                if erased == 0 || !more {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Of these parents, those that are not there any more.
    pub(super) async fn gone(&self, parents: &[Bson]) -> Result<Vec<Bson>, RunError> {
        let collection = self.means.database.collection::<Document>(&self.warrant.policy().collection);
        let filter = doc! { "_id": { "$in": parents } };
        let reading = within(LIMIT, async move {
            let mut cursor = collection.find(filter).projection(doc! { "_id": 1 }).max_time(LIMIT).await?;
            let mut there = std::collections::HashSet::new();
            while cursor.advance().await? {
                there.extend(cursor.deserialize_current()?.get("_id").map(key));
            }
            Ok(there)
        });
        let there = reading.await.map_err(RunError::store("looking for parents that are gone"))?;
        Ok(parents.iter().filter(|id| !there.contains(&key(id))).cloned().collect())
    }
}
