//! Documents on their way: read by the index in its order, as the bytes that they are.
//!
//! What has been archived is a type of its own: only the archive makes one, and only such documents can be deleted.

use std::time::Duration;

use mongodb::bson::{Bson, Document, RawDocument, RawDocumentBuf, doc};
use mongodb::options::{Hint, ReadConcern};
use mongodb::{Cursor, Database};

use crate::retention::archive::{ArchiveError, ArchiveWriter, Receipt, Record};
use crate::retention::edge::{raw_at, written};
use crate::retention::outcome::RunError;
use crate::store::mongodb::within;

/// A batch has no more bytes: what is compared goes to the server within one command of at most 16 MiB, and memory stays
/// small. A single larger document makes a batch of its own.
pub(super) const BATCH_BYTES: usize = 1 << 20;

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(20);

/// One document.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub id: Bson,
    pub raw: RawDocumentBuf,
}

/// Documents of one collection that are in an archive: durable, read back and compared.
#[derive(Debug)]
pub(super) struct Archived {
    collection: String,
    candidates: Vec<Candidate>,
    receipt: Option<Receipt>,
}

/// Reads candidates in the order of an index.
pub(super) struct Reader {
    cursor: Option<Cursor<RawDocumentBuf>>,
    /// Was read and did not fit.
    left: Option<Candidate>,
}

/// Reads the next batch while the last one is archived and deleted. What was read is looked at again before it goes, so
/// that it does no harm when it has changed by then.
pub(super) struct ReadAhead {
    reader: Reader,
    read: Option<Result<Vec<Candidate>, RunError>>,
    batch: usize,
}

// === impl ReadAhead ===

impl ReadAhead {
    /// Reads so many documents at once.
    pub fn new(reader: Reader, batch: usize) -> Self {
        Self { reader, read: None, batch }
    }

    /// The next documents, at most so many; none at the end.
    pub async fn take(&mut self, most: usize) -> Result<Vec<Candidate>, RunError> {
        let mut found = match self.read.take() {
            Some(read) => read?,
            None => self.reader.next(self.batch).await?,
        };
        if found.len() > most {
            self.read = Some(Ok(found.split_off(most)));
        }
        Ok(found)
    }

    /// Reads one batch, where none has been read that was not taken.
    pub async fn read_on(&mut self) {
        if self.read.is_none() {
            self.read = Some(self.reader.next(self.batch).await);
        }
    }
}

// === impl Reader ===

impl Reader {
    /// Opens a cursor over what a filter finds. What a majority has not confirmed is not seen: it could be rolled back.
    pub async fn open(
        database: &Database,
        collection: &str,
        filter: Document,
        order: Option<(&str, &str)>,
        batch: u32,
    ) -> Result<Self, RunError> {
        let collection = database.collection::<RawDocumentBuf>(collection);
        let order = order.map(|(field, index)| (doc! { field: 1 }, Hint::Name(index.to_owned())));
        let cursor = within(LIMIT, async move {
            let mut found = collection.find(filter).batch_size(batch).read_concern(ReadConcern::majority());
            if let Some((sort, index)) = order {
                // By the index alone: a second key would make the server sort whole documents. An index that has gone is
                // an error, and not a scan of the collection.
                found = found.sort(sort).hint(index);
            }
            found.max_time(LIMIT).await
        });
        Ok(Self { cursor: Some(cursor.await.map_err(RunError::store("reading documents"))?), left: None })
    }

    /// The next documents, at most so many; none at the end.
    pub async fn next(&mut self, most: usize) -> Result<Vec<Candidate>, RunError> {
        let first = self.left.take();
        let Some(mut cursor) = self.cursor.take() else { return Ok(first.into_iter().collect()) };
        let reading = within(LIMIT, async move {
            let mut bytes = first.as_ref().map_or(0, |candidate| candidate.raw.as_bytes().len());
            let (mut candidates, mut left): (Vec<Candidate>, _) = (first.into_iter().collect(), None);
            let mut is_open = true;
            while candidates.len() < most {
                if !cursor.advance().await? {
                    is_open = false;
                    break;
                }
                let raw = cursor.current().to_owned();
                let Some(id) = raw_at(&raw, "_id") else { continue };
                let candidate = Candidate { id, raw };
                bytes += candidate.raw.as_bytes().len();
                if bytes > BATCH_BYTES && !candidates.is_empty() {
                    left = Some(candidate);
                    break;
                }
                candidates.push(candidate);
            }
            Ok((candidates, left, is_open.then_some(cursor)))
        });
        let (candidates, left, cursor) = reading.await.map_err(RunError::store("reading documents"))?;
        (self.left, self.cursor) = (left, cursor);
        Ok(candidates)
    }
}

// === impl Candidate ===

impl Candidate {
    pub fn value(&self, path: &str) -> Option<Bson> {
        raw_at(&self.raw, path)
    }

    pub fn bytes(&self) -> &RawDocument {
        &self.raw
    }

    fn record(&self) -> Record<'_> {
        Record { id: written(&self.id), bytes: self.raw.as_bytes() }
    }
}

// === impl Archived ===

impl Archived {
    /// Archives documents of several collections. When this returns, they are durable, were read back, and are what they
    /// were.
    pub async fn write(writer: &mut ArchiveWriter, collections: Vec<(String, Vec<Candidate>)>) -> Result<Vec<Self>, ArchiveError> {
        let records: Vec<(&str, Vec<Record<'_>>)> = collections
            .iter()
            .filter(|(_, candidates)| !candidates.is_empty())
            .map(|(collection, candidates)| (collection.as_str(), candidates.iter().map(Candidate::record).collect()))
            .collect();
        let batches: Vec<(&str, &[Record<'_>])> = records.iter().map(|(collection, records)| (*collection, &records[..])).collect();
        let receipts = writer.append_all(&batches).await?;
        let is_whole = |(receipt, (_, records)): (&Receipt, &(&str, &[Record<'_>]))| receipt.records == records.len() as u64;
        if receipts.len() != batches.len() || !receipts.iter().zip(&batches).all(is_whole) {
            // The archive promises otherwise; nothing is deleted on a promise that did not hold.
            return Err(ArchiveError::Empty(collections.into_iter().map(|(collection, _)| collection).collect::<Vec<_>>().join(", ")));
        }
        let mut receipts = receipts.into_iter();
        let archived = collections.into_iter().map(|(collection, candidates)| {
            let receipt = if candidates.is_empty() { None } else { receipts.next() };
            Self { collection, candidates, receipt }
        });
        Ok(archived.collect())
    }

    /// No documents of a collection.
    pub fn nothing(collection: &str) -> Self {
        Self { collection: collection.to_owned(), candidates: Vec::new(), receipt: None }
    }

    pub fn collection(&self) -> &str {
        &self.collection
    }

    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    pub fn ids(&self) -> Vec<Bson> {
        self.candidates.iter().map(|candidate| candidate.id.clone()).collect()
    }

    pub fn len(&self) -> usize {
        self.candidates.len()
    }

    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// How many bytes were archived.
    pub fn bytes(&self) -> u64 {
        self.receipt.as_ref().map_or(0, |receipt| receipt.bytes)
    }

    /// The segment, where there is one.
    pub fn segment(&self) -> Option<&str> {
        self.receipt.as_ref().map(|receipt| receipt.segment.as_str())
    }

    /// Leaves out what must stay. It stays in the archive, too, and that harms nobody.
    pub fn retain(&mut self, keep: impl FnMut(&Candidate) -> bool) {
        self.candidates.retain(keep);
    }
}
