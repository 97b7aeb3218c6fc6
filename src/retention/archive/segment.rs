//! One segment: records into compressed bytes, and compressed bytes into records that are compared with the receipt.
//! Pure.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};

use sha2::{Digest as _, Sha256};

use crate::retention::archive::form::{Digest, Entry, Form, SegmentReceipt, VERSION};
use crate::retention::archive::{ArchiveError, MAX_RECORD, Record};

/// Zstandard's own default. Level 1 is a third faster and its files a tenth larger; reading and deleting take longer.
const LEVEL: i32 = 3;

/// What is wrong with a segment.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}{problem}", where_it_is(self.record.as_ref()))]
pub struct Damage {
    /// The first record that is not as it was: its position from one, and its id where the receipt tells it.
    pub record: Option<(u64, Option<String>)>,
    /// What is wrong.
    pub problem: String,
}

/// Takes the records of one segment in.
pub(super) struct Encoder<'a> {
    unit: &'a str,
    form: &'a Form,
    compressor: zstd::stream::write::Encoder<'static, Vec<u8>>,
    content: Sha256,
    bytes: u64,
    entries: Vec<Entry>,
}

/// A segment and what is known of it.
pub(super) struct Encoded {
    pub stored: Vec<u8>,
    pub receipt: SegmentReceipt,
}

// === impl Encoder ===

impl<'a> Encoder<'a> {
    pub(super) fn new(unit: &'a str, form: &'a Form, records: usize) -> Result<Self, ArchiveError> {
        let failed = |source| ArchiveError::Compress { unit: unit.to_owned(), source };
        let mut compressor = zstd::stream::write::Encoder::new(Vec::new(), LEVEL).map_err(failed)?;
        compressor.include_checksum(true).map_err(failed)?;
        Ok(Self { unit, form, compressor, content: Sha256::new(), bytes: 0, entries: Vec::with_capacity(records) })
    }

    pub(super) fn push(&mut self, record: &Record<'_>) -> Result<(), ArchiveError> {
        check_record(self.form, record.bytes).map_err(|problem| ArchiveError::Record {
            unit: self.unit.to_owned(),
            id: record.id.clone(),
            problem,
        })?;
        self.compressor.write_all(record.bytes).map_err(|source| ArchiveError::Compress { unit: self.unit.to_owned(), source })?;
        self.content.update(record.bytes);
        self.bytes += record.bytes.len() as u64;
        self.entries.push(Entry {
            id: record.id.clone(),
            bytes: u32::try_from(record.bytes.len()).unwrap_or(u32::MAX),
            sha256: Digest::of(record.bytes),
        });
        Ok(())
    }

    pub(super) fn finish(self, run: &str, plan: &str, number: u32) -> Result<Encoded, ArchiveError> {
        let stored = self.compressor.finish().map_err(|source| ArchiveError::Compress { unit: self.unit.to_owned(), source })?;
        let receipt = SegmentReceipt {
            format: VERSION,
            run: run.to_owned(),
            plan: plan.to_owned(),
            unit: self.unit.to_owned(),
            number,
            form: self.form.clone(),
            stored_bytes: stored.len() as u64,
            stored_sha256: Digest::of(&stored),
            bytes: self.bytes,
            sha256: Digest(self.content.finalize().into()),
            records: self.entries,
        };
        Ok(Encoded { stored, receipt })
    }
}

/// Whether a record can be told from the next one when it is read again.
fn check_record(form: &Form, bytes: &[u8]) -> Result<(), &'static str> {
    if bytes.len() > MAX_RECORD {
        return Err("it is larger than 32 MiB");
    }
    let fits = match form {
        Form::Bson => {
            let length = bytes.first_chunk().map(|length| u32::from_le_bytes(*length) as usize);
            length == Some(bytes.len()) && bytes.len() >= 5 && bytes.last() == Some(&0)
        }
        Form::Copy { .. } => bytes.ends_with(b"\n") && memchr::memchr(b'\n', bytes) == Some(bytes.len() - 1) && bytes != b"\\.\n",
    };
    if fits { Ok(()) } else { Err("it is not one whole document or row") }
}

/// Reads a segment, compares each record with the receipt, and gives those that are as they were to `each`, in order.
///
/// # Errors
/// The first thing that is wrong. Records before it were as they were.
pub(super) fn decode(stored: &[u8], receipt: &SegmentReceipt, mut each: impl FnMut(&Entry, &[u8])) -> Result<(), Damage> {
    let mut records = Records::new(stored, &receipt.form)?;
    let mut content = Sha256::new();
    for (position, entry) in (1..).zip(&receipt.records) {
        let at = |problem: String| Damage { record: Some((position, Some(entry.id.clone()))), problem };
        let bytes = match records.next() {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(at(format!("the segment ends before it, and has {} records by its receipt", receipt.records.len()))),
            Err(error) => return Err(at(format!("it cannot be read: {error}"))),
        };
        if bytes.len() != entry.bytes as usize || Digest::of(bytes) != entry.sha256 {
            return Err(at("it is not what was written: its sha256 differs".to_owned()));
        }
        content.update(bytes);
        each(entry, bytes);
    }
    let whole = |problem: String| Damage { record: None, problem };
    match records.next() {
        Ok(None) => {}
        Ok(Some(_)) => return Err(whole("it holds more records than its receipt".to_owned())),
        Err(error) => return Err(whole(format!("its end cannot be read: {error}"))),
    }
    if content.finalize()[..] != receipt.sha256.0 {
        return Err(whole("its receipt contradicts itself".to_owned()));
    }
    if stored.len() as u64 != receipt.stored_bytes || Digest::of(stored) != receipt.stored_sha256 {
        return Err(whole("its sha256 is not that of its receipt, although every record is as it was".to_owned()));
    }
    Ok(())
}

/// The records of a segment without a receipt, as far as they can be read.
pub(super) fn count(stored: &[u8], form: &Form) -> u64 {
    let Ok(mut records) = Records::new(stored, form) else { return 0 };
    let mut count = 0;
    while let Ok(Some(_)) = records.next() {
        count += 1;
    }
    count
}

/// Divides the content of a segment into records. One record is in memory at a time.
struct Records<'a> {
    content: BufReader<zstd::stream::read::Decoder<'static, &'a [u8]>>,
    form: &'a Form,
    record: Vec<u8>,
}

// === impl Records ===

impl<'a> Records<'a> {
    fn new(stored: &'a [u8], form: &'a Form) -> Result<Self, Damage> {
        let failed = |error: io::Error| Damage { record: None, problem: format!("it cannot be read: {error}") };
        let content = BufReader::new(zstd::stream::read::Decoder::with_buffer(stored).map_err(failed)?);
        Ok(Self { content, form, record: Vec::new() })
    }

    /// The next record; `None` at the end.
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.record.clear();
        if self.content.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let invalid = |message: &str| io::Error::new(io::ErrorKind::InvalidData, message.to_owned());
        match self.form {
            Form::Bson => {
                let mut length = [0; 4];
                self.content.read_exact(&mut length)?;
                let bytes = u32::from_le_bytes(length) as usize;
                if !(5..=MAX_RECORD).contains(&bytes) {
                    return Err(invalid("its length is that of no document"));
                }
                self.record.extend_from_slice(&length);
                // Grows with what is really there, not with what the length claims.
                let read = (&mut self.content).take(bytes as u64 - 4).read_to_end(&mut self.record)?;
                if read != bytes - 4 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Form::Copy { .. } => {
                (&mut self.content).take(MAX_RECORD as u64).read_until(b'\n', &mut self.record)?;
                if self.record.last() != Some(&b'\n') {
                    return Err(invalid("the row has no end"));
                }
            }
        }
        Ok(Some(&self.record))
    }
}

fn where_it_is(record: Option<&(u64, Option<String>)>) -> String {
    match record {
        Some((position, Some(id))) => format!("record {position} ({id}): "),
        Some((position, None)) => format!("record {position}: "),
        None => String::new(),
    }
}
