//! Without transactions, a parent may change in the moment between the deletion of its children and its own: it stays,
//! and its children come back as they were.

use std::collections::HashSet;

use mongodb::bson::RawDocumentBuf;

use crate::retention::batch::{Archived, Candidate};
use crate::retention::edge::{key, reference};
use crate::retention::outcome::RunError;
use crate::retention::run::{LIMIT, Run};
use crate::store::mongodb::within;

// === impl Run ===

impl Run<'_> {
    /// Inserts the children of those of these parents that are still there. They are in the archive in any case.
    pub(super) async fn put_back(&mut self, parents: &Archived, children: &[Archived]) -> Result<(), RunError> {
        let gone: HashSet<Vec<u8>> = self.gone(&parents.ids()).await?.iter().map(key).collect();
        let there: Vec<_> = parents.ids().into_iter().filter(|id| !gone.contains(&key(id))).collect();
        let policy = self.warrant.policy();
        for (edge, of_edge) in policy.children.iter().zip(children) {
            let references: HashSet<Vec<u8>> = there.iter().map(|id| key(&reference(id, edge.id))).collect();
            let is_theirs = |child: &&Candidate| child.value(&edge.field).is_some_and(|named| references.contains(&key(&named)));
            for child in of_edge.candidates().iter().filter(is_theirs) {
                self.means.lease.live()?;
                let (collection, document) =
                    (self.means.database.collection::<RawDocumentBuf>(of_edge.collection()), child.bytes().to_owned());
                let inserted = within(LIMIT, async move { collection.insert_one(document).await });
                match inserted.await {
                    Ok(_) => self.tally.children = self.tally.children.saturating_sub(1),
                    // It had not been deleted, since it had changed, too.
                    Err(error) if error.is_duplicate() => {}
                    Err(source) => return Err(RunError::Store { step: "putting back what refers to a document that has changed", source }),
                }
            }
        }
        Ok(())
    }
}
