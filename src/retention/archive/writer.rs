//! Writes one run's archive. Only a segment that was read back and compared gets a receipt.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use jiff::Timestamp;

use crate::retention::archive::form::{Entry, Form, Manifest, RunFile, SegmentReceipt, SegmentSum, UnitSum, VERSION};
use crate::retention::archive::reader::{Run, RunName, Segment, read_receipt};
use crate::retention::archive::segment::{self, Encoded, Encoder};
use crate::retention::archive::target::StorageError;
use crate::retention::archive::{ArchiveError, Damage, Record, RunIdentity, Target, layout};

/// After so many bytes the other tasks of the thread get their turn: about half a millisecond of work.
const TURN: usize = 128 << 10;

/// One run's archive, open for more.
#[derive(Debug)]
pub struct ArchiveWriter {
    target: Target,
    folder: String,
    identity: RunFile,
    units: BTreeMap<String, Unit>,
}

#[derive(Debug, Default)]
struct Unit {
    form: Form,
    segments: Vec<SegmentSum>,
    /// The greatest number that there is, also of what a crash left behind.
    last: u32,
}

/// A segment on its way to the storage.
struct Outgoing {
    /// Below the folder of the run.
    segment: String,
    stored: Vec<u8>,
    receipt_file: String,
    receipt: Vec<u8>,
    sum: SegmentSum,
}

/// The proof that records are in an archive: the segment is durable, was read back and compared. Only this file can
/// make one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Receipt {
    /// The segment, below the folder of its run.
    pub segment: String,
    /// The sha256 of the segment as it is stored.
    pub sha256: [u8; 32],
    /// How many records it holds.
    pub records: u64,
    /// How many bytes they have.
    pub bytes: u64,
    _verified: Verified,
}

/// Made in this file alone, and so is what holds it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Verified;

// === impl ArchiveWriter ===

impl ArchiveWriter {
    /// Begins an archive, or goes on with the one of the same identity. Segments that a crash left half done stay where
    /// they are and count for nothing.
    ///
    /// # Errors
    /// When another run has this name, when the storage fails, or when what is there cannot be understood.
    pub async fn create(target: &Target, identity: RunIdentity) -> Result<Self, ArchiveError> {
        let folder = layout::run(&identity.policy, &identity.run);
        let ours = RunFile::of(&identity);
        let mut writer = Self { target: target.clone(), folder, identity: ours, units: BTreeMap::new() };
        let key = format!("{}/{}", writer.folder, layout::RUN);
        let Some(found) = target.read(&key).await? else {
            let text = json(&writer.identity, target, &key)?;
            target.create(&writer.folder, vec![(layout::RUN.to_owned(), text)]).await?;
            return Ok(writer);
        };
        let theirs: RunFile = parse(&found, target, &key, "run file")?;
        if let Some((what, theirs, ours)) = theirs.difference(&writer.identity) {
            return Err(ArchiveError::AnotherRun { place: target.place(&key), what, theirs, ours });
        }
        writer.resume(&identity).await?;
        Ok(writer)
    }

    async fn resume(&mut self, identity: &RunIdentity) -> Result<(), ArchiveError> {
        let run = Run::open(&self.target, &RunName::of(&identity.policy, &identity.run)).await?;
        for segment in run.segments().await? {
            // Without a receipt, what it is of is not known; its number is taken all the same.
            let receipt = if segment.has_receipt { Some(run.receipt(&segment).await?) } else { None };
            let unit = receipt.as_ref().map_or_else(|| segment.unit_folder().to_owned(), |(receipt, _)| receipt.unit.clone());
            let unit = self.units.entry(unit).or_default();
            unit.last = unit.last.max(segment.number);
            if let Some((receipt, sum)) = receipt {
                unit.form = receipt.form;
                unit.segments.push(sum);
            }
        }
        Ok(())
    }

    /// Says that a unit is a table, whose records are rows of COPY. Units are collections otherwise.
    pub fn declare_table(&mut self, unit: &str, table: String, columns: Vec<String>) {
        self.units.entry(unit.to_owned()).or_default().form = Form::Copy { table, columns };
    }

    /// The segments that count, for each unit in order: also those of the run before a crash.
    pub fn segments(&self) -> impl Iterator<Item = (&str, String)> {
        self.units
            .iter()
            .flat_map(|(name, unit)| unit.segments.iter().map(move |sum| (name.as_str(), layout::segment(name, sum.number, &unit.form))))
    }

    /// Writes one batch as one segment. When this returns, the segment is durable, was read back, decompressed, and each
    /// of its records compared. Cancelled in between, it leaves a segment that may count or not, and no receipt.
    ///
    /// # Errors
    /// When a record cannot be archived, when the storage fails, or when what is read back is not what was written.
    pub async fn append(&mut self, unit: &str, records: &[Record<'_>]) -> Result<Receipt, ArchiveError> {
        let mut receipts = self.append_all(&[(unit, records)]).await?;
        receipts.pop().ok_or_else(|| ArchiveError::Empty(unit.to_owned()))
    }

    /// The same for batches of several units, whose segments are written and read back side by side: most of the time
    /// is spent waiting for the disk.
    ///
    /// # Errors
    /// As `append`, when any of them fails. The others may count then, which harms nobody.
    pub async fn append_all(&mut self, batches: &[(&str, &[Record<'_>])]) -> Result<Vec<Receipt>, ArchiveError> {
        let mut outgoing = Vec::with_capacity(batches.len());
        for (unit, records) in batches {
            outgoing.push(self.encode(unit, records).await?);
        }
        let stored = join_all(outgoing.into_iter().map(|segment| self.store(segment))).await;
        let (mut receipts, mut failure) = (Vec::with_capacity(batches.len()), None);
        for ((unit, _), stored) in batches.iter().zip(stored) {
            match stored {
                Ok((proof, sum)) => {
                    receipts.push(proof);
                    self.units.entry((*unit).to_owned()).or_default().segments.push(sum);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(receipts), Err)
    }

    async fn encode(&mut self, unit: &str, records: &[Record<'_>]) -> Result<Outgoing, ArchiveError> {
        if records.is_empty() {
            return Err(ArchiveError::Empty(unit.to_owned()));
        }
        let state = self.units.entry(unit.to_owned()).or_default();
        // A number is never used twice, whatever becomes of the segment.
        state.last += 1;
        let (number, form) = (state.last, state.form.clone());
        let Encoded { stored, receipt } = encode(unit, &form, records, &self.identity, number).await?;
        let receipt_key = layout::receipt(unit, number);
        let written = seal(&receipt, &self.target, &receipt_key)?;
        let sum = receipt.sum(&written);
        let receipt_file = receipt_key.rsplit_once('/').map_or(receipt_key.as_str(), |(_, file)| file).to_owned();
        Ok(Outgoing { segment: layout::segment(unit, number, &form), stored, receipt_file, receipt: written, sum })
    }

    async fn store(&self, outgoing: Outgoing) -> Result<(Receipt, SegmentSum), ArchiveError> {
        let Outgoing { segment, stored, receipt_file, receipt, sum } = outgoing;
        let (folder, file) = segment.rsplit_once('/').unwrap_or_default();
        let files = vec![(file.to_owned(), stored), (receipt_file, receipt)];
        self.target.create(&format!("{}/{folder}", self.folder), files).await?;
        let (proof, _) = self.recheck_as(&segment, Some(&sum)).await?;
        Ok((proof, sum))
    }

    /// Reads a segment again, as `segments` or a receipt names it, and compares each of its records.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or is not what was written.
    pub async fn recheck(&self, segment: &str) -> Result<(Receipt, Vec<Entry>), ArchiveError> {
        self.recheck_as(segment, None).await
    }

    async fn recheck_as(&self, segment: &str, written: Option<&SegmentSum>) -> Result<(Receipt, Vec<Entry>), ArchiveError> {
        let place = || self.target.place(&format!("{}/{segment}", self.folder));
        let damaged =
            |problem: &str| ArchiveError::Damaged { place: place(), damage: Damage { record: None, problem: problem.to_owned() } };
        let found = Segment::named(segment).ok_or_else(|| damaged("this is no name of a segment"))?;
        let (receipt, sum) = read_receipt(&self.target, &self.folder, &found).await?;
        if written.is_some_and(|written| *written != sum) {
            return Err(damaged("its receipt is not the one that was written"));
        }
        if (&receipt.run, &receipt.plan) != (&self.identity.run, &self.identity.plan) {
            return Err(damaged("its receipt is of another run"));
        }
        let stored = self.target.read(&format!("{}/{segment}", self.folder)).await?.ok_or_else(|| damaged("it is not there"))?;
        let (receipt, checked) = on_another_thread(move || {
            let checked = segment::decode(&stored, &receipt, |_, _| {});
            (receipt, checked)
        })
        .await?;
        checked.map_err(|damage| ArchiveError::Damaged { place: place(), damage })?;
        let proof = Receipt {
            segment: segment.to_owned(),
            sha256: receipt.stored_sha256.0,
            records: receipt.records.len() as u64,
            bytes: receipt.bytes,
            _verified: Verified,
        };
        Ok((proof, receipt.records))
    }

    /// Sums the run up. It may still be gone on with: the sum is then written anew.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn finish(self, finished: Timestamp) -> Result<Manifest, ArchiveError> {
        let identity = self.identity;
        let units: Vec<UnitSum> = self
            .units
            .into_iter()
            .filter(|(_, unit)| !unit.segments.is_empty())
            .map(|(name, unit)| UnitSum {
                unit: name,
                form: unit.form,
                records: unit.segments.iter().map(|segment| segment.records).sum(),
                bytes: unit.segments.iter().map(|segment| segment.bytes).sum(),
                segments: unit.segments,
            })
            .collect();
        let manifest = Manifest {
            format: VERSION,
            written_by: format!("bellwether {}", env!("CARGO_PKG_VERSION")),
            system: identity.system,
            policy: identity.policy,
            run: identity.run,
            plan: identity.plan,
            cutoff: identity.cutoff,
            database: identity.database,
            finished: finished.to_string(),
            records: units.iter().map(|unit| unit.records).sum(),
            bytes: units.iter().map(|unit| unit.bytes).sum(),
            stored_bytes: units.iter().flat_map(|unit| &unit.segments).map(|segment| segment.stored_bytes).sum(),
            units,
        };
        let key = format!("{}/{}", self.folder, layout::MANIFEST);
        let text = json(&manifest, &self.target, &key)?;
        self.target.replace(&key, text.clone()).await?;
        if self.target.read(&key).await? != Some(text) {
            let damage = Damage { record: None, problem: "it is not what was written".to_owned() };
            return Err(ArchiveError::Damaged { place: self.target.place(&key), damage });
        }
        Ok(manifest)
    }
}

async fn encode(unit: &str, form: &Form, records: &[Record<'_>], run: &RunFile, number: u32) -> Result<Encoded, ArchiveError> {
    let mut encoder = Encoder::new(unit, form, records.len())?;
    let mut since = 0;
    for record in records {
        encoder.push(record)?;
        since += record.bytes.len();
        if since >= TURN {
            since = 0;
            tokio::task::yield_now().await;
        }
    }
    encoder.finish(&run.run, &run.plan, number)
}

/// A receipt as it is stored.
fn seal(receipt: &SegmentReceipt, target: &Target, key: &str) -> Result<Vec<u8>, ArchiveError> {
    let text = json(receipt, target, key)?;
    zstd::bulk::compress(&text, 0).map_err(|source| ArchiveError::Compress { unit: receipt.unit.clone(), source })
}

fn json<T: serde::Serialize>(value: &T, target: &Target, key: &str) -> Result<Vec<u8>, ArchiveError> {
    let unreadable = |problem: String| ArchiveError::Unreadable { place: target.place(key), what: "file", problem };
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| unreadable(error.to_string()))?;
    text.push(b'\n');
    Ok(text)
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(
    text: &[u8],
    target: &Target,
    key: &str,
    what: &'static str,
) -> Result<T, ArchiveError> {
    serde_json::from_slice(text).map_err(|error| ArchiveError::Unreadable { place: target.place(key), what, problem: error.to_string() })
}

/// Decompressing and hashing would hold the thread up.
pub(super) async fn on_another_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ArchiveError> {
    tokio::task::spawn_blocking(work).await.map_err(|ended| {
        StorageError::File { action: "check", place: super::Place("a segment".to_owned()), source: std::io::Error::other(ended) }.into()
    })
}
