//! The only place where documents are deleted.
//!
//! Deleting takes a [`Warrant`] (a plan that passes its guards), a live [`Lease`] and [`Archived`] documents: code that
//! lacks one does not compile. What the server deletes is named exactly: by `_id`, by the policy's own filter, and by
//! the whole content as it was archived. The filter also says until when: a command that a frozen process sends after
//! its lease has expired finds nothing, by the clock of the server itself.

use std::time::Duration;

use mongodb::bson::raw::{RawArrayBuf, cstr};
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc, rawdoc};
use mongodb::options::ReadConcern;
use mongodb::{ClientSession, Database};

use crate::retention::batch::Archived;
use crate::retention::checkpoint::{Checkpoint, Fence};
use crate::retention::holds::eligible;
use crate::retention::outcome::RunError;
use crate::retention::warrant::Warrant;
use crate::store::lease::Lease;
use crate::store::mongodb::{StoreError, majority, within};

/// A deletion waits for the majority for so long.
const MAJORITY_TIME: Duration = Duration::from_secs(10);

/// What a deletion did.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Erased {
    /// Documents of the policy.
    pub parents: u64,
    /// Documents that referred to them.
    pub children: u64,
}

/// One `delete` command, ready to be sent.
#[derive(Clone, Debug)]
struct Deletion {
    command: RawDocumentBuf,
    /// In a transaction, nothing is deleted where fewer than so many would be.
    at_least: u64,
}

/// Deletes children, then parents. In a transaction with the checkpoint where the server has them: all or nothing, and
/// nothing where a later leader has written. `Ok(None)` where a parent was not what was archived: nothing was deleted
/// then, in a transaction.
pub(super) async fn erase(
    database: &Database,
    warrant: &Warrant,
    lease: &Lease,
    checkpoint: &Checkpoint,
    parents: &Archived,
    children: &[Archived],
) -> Result<Option<Erased>, RunError> {
    let live = lease.live()?;
    let fence = Fence::of(&live, lease.ttl());
    // Whatever is awaited here ends before others may take the lease.
    let limit = live.remaining.min(MAJORITY_TIME);
    let in_transaction = checkpoint.transactions();
    let mut deletions: Vec<Deletion> = Vec::new();
    for of_one in children.iter().filter(|of_one| !of_one.is_empty()) {
        deletions.push(Deletion::new(of_one, doc! {}, fence, in_transaction, 0)?);
    }
    let parents_expected = parents.len() as u64;
    if !parents.is_empty() {
        deletions.push(Deletion::new(parents, filter(warrant), fence, in_transaction, parents_expected)?);
    }
    if deletions.is_empty() {
        return Ok(Some(Erased::default()));
    }
    // Looked at again at the last moment: building the commands takes time, too.
    lease.live()?;
    let counts = if in_transaction {
        let Some(counts) = transact(database, checkpoint, fence, deletions, limit).await? else { return Ok(None) };
        counts
    } else {
        let mut counts = Vec::new();
        for deletion in deletions {
            lease.live()?;
            counts.push(one(database, deletion, limit).await?);
        }
        counts
    };
    let parents_gone = if parents_expected == 0 { 0 } else { counts.last().copied().unwrap_or_default() };
    Ok(Some(Erased { parents: parents_gone, children: counts.iter().sum::<u64>() - parents_gone }))
}

/// The policy's own filter, at the cutoff of the plan.
pub(super) fn filter(warrant: &Warrant) -> Document {
    let plan = warrant.plan();
    eligible(warrant.policy(), plan.window())
}

/// Sends one deletion by itself.
async fn one(database: &Database, deletion: Deletion, limit: Duration) -> Result<u64, RunError> {
    let database = database.clone();
    let reply = within(limit, async move { database.run_raw_command(deletion.command).await });
    deleted(&reply.await.map_err(RunError::store("deleting"))?)
}

/// Sends all deletions in one transaction, with the checkpoint before them. `None` where the parents, which come last,
/// are not all what was archived.
async fn transact(
    database: &Database,
    checkpoint: &Checkpoint,
    fence: Fence,
    deletions: Vec<Deletion>,
    limit: Duration,
) -> Result<Option<Vec<u64>>, RunError> {
    let (database, claim) = (database.clone(), checkpoint.claim(fence));
    let done = within(limit, async move {
        let mut session = database.client().start_session().await?;
        session.start_transaction().read_concern(ReadConcern::snapshot()).write_concern(majority(MAJORITY_TIME)).await?;
        let outcome = attempt(&database, claim, deletions, &mut session).await;
        let outcome = match outcome {
            Ok(Ok(Some(counts))) => session.commit_transaction().await.map(|()| Ok(Some(counts))),
            other => {
                // A transaction that is not ended here is ended by the server.
                let _ = session.abort_transaction().await;
                other
            }
        };
        // The session goes back only when nothing of it is pending.
        drop(session);
        outcome
    });
    done.await.map_err(RunError::store("deleting"))?
}

type Attempted = Result<Option<Vec<u64>>, RunError>;

async fn attempt(
    database: &Database,
    claim: Document,
    deletions: Vec<Deletion>,
    session: &mut ClientSession,
) -> mongodb::error::Result<Attempted> {
    let claimed = database.run_command(claim).session(&mut *session).await?;
    if count(&claimed, "n") != 1 {
        return Ok(Err(RunError::Fenced));
    }
    let mut counts = Vec::new();
    for deletion in deletions {
        let at_least = deletion.at_least;
        let reply = database.run_raw_command(deletion.command).session(&mut *session).await?;
        let gone = match deleted(&reply) {
            Ok(gone) => gone,
            Err(error) => return Ok(Err(error)),
        };
        // A child that has changed stays behind alone and is swept later; a parent that has changed keeps its children.
        if gone < at_least {
            return Ok(Ok(None));
        }
        counts.push(gone);
    }
    Ok(Ok(Some(counts)))
}

/// How many documents a reply says were deleted; what it says went wrong is an error.
fn deleted(reply: &Document) -> Result<u64, RunError> {
    let failure = reply
        .get_array("writeErrors")
        .ok()
        .and_then(|errors| errors.first()?.as_document())
        .or_else(|| reply.get_document("writeConcernError").ok());
    match failure {
        Some(error) => {
            let code = error.get_i32("code").unwrap_or_default();
            if code == 13 {
                let source = StoreError::Driver { reason: crate::store::mongodb::Reason::Auth, code: Some(code) };
                return Err(RunError::Store { step: "deleting", source });
            }
            Err(RunError::Refused { step: "deleting", code })
        }
        None => Ok(count(reply, "n")),
    }
}

pub(super) fn count(reply: &Document, name: &str) -> u64 {
    match reply.get(name) {
        Some(Bson::Int32(count)) => u64::try_from(*count).unwrap_or_default(),
        Some(Bson::Int64(count)) => u64::try_from(*count).unwrap_or_default(),
        _ => 0,
    }
}

// === impl Deletion ===

impl Deletion {
    /// Deletes exactly these documents, as they were archived, where `conditions` still hold and the fence is not past.
    fn new(archived: &Archived, conditions: Document, fence: Fence, in_transaction: bool, at_least: u64) -> Result<Self, RunError> {
        let query = exact(archived, conditions, Some(fence))?;
        let mut statements = RawArrayBuf::new();
        statements.push(rawdoc! { "q": query, "limit": 0, "hint": { "_id": 1 }, "collation": { "locale": "simple" } });
        let mut command = RawDocumentBuf::new();
        command.append(cstr!("delete"), archived.collection());
        command.append(cstr!("deletes"), statements);
        command.append(cstr!("ordered"), true);
        command.append(cstr!("maxTimeMS"), fence.spare_ms());
        if !in_transaction {
            let wait = i64::try_from(MAJORITY_TIME.as_millis()).unwrap_or_default();
            command.append(cstr!("writeConcern"), rawdoc! { "w": "majority", "wtimeout": wait });
        }
        Ok(Self { command, at_least })
    }
}

/// Documents by their ids, further conditions, and their whole content: compared by the server, field by field in their
/// order, and by their size, since a comparison takes 1, 1 as a long and 1.0 for the same.
pub(super) fn exact(archived: &Archived, conditions: Document, fence: Option<Fence>) -> Result<RawDocumentBuf, RunError> {
    let (mut ids, mut contents) = (RawArrayBuf::new(), RawArrayBuf::new());
    let invalid = |_| RunError::Refused { step: "writing a filter", code: 2 };
    for candidate in archived.candidates() {
        ids.push(mongodb::bson::RawBson::try_from(candidate.id.clone()).map_err(invalid)?);
        let mut content = RawDocumentBuf::new();
        let size = candidate.bytes().as_bytes().len();
        content.append(cstr!("s"), i32::try_from(size).unwrap_or(i32::MAX));
        content.append(cstr!("d"), candidate.bytes());
        contents.push(content);
    }
    let position = rawdoc! { "$indexOfArray": [{ "$literal": ids.clone() }, "$_id"] };
    let archived_content = rawdoc! { "$arrayElemAt": [{ "$literal": contents }, position] };
    let found_content = rawdoc! { "s": { "$bsonSize": "$$ROOT" }, "d": "$$ROOT" };
    let mut expressions = RawArrayBuf::new();
    if let Some(fence) = fence {
        expressions.push(rawdoc! { "$lt": ["$$NOW", fence.until()] });
    }
    expressions.push(rawdoc! { "$eq": [found_content, archived_content] });
    let mut query = RawDocumentBuf::new();
    query.append(cstr!("_id"), rawdoc! { "$in": ids });
    if !conditions.is_empty() {
        let conditions = RawDocumentBuf::try_from(&conditions).map_err(invalid)?;
        let mut all = RawArrayBuf::new();
        all.push(conditions);
        query.append(cstr!("$and"), all);
    }
    query.append(cstr!("$expr"), rawdoc! { "$and": expressions });
    Ok(query)
}
