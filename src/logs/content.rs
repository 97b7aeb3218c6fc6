//! The content of a file that was put aside, from its first byte on, whether it is plain or compressed.
//!
//! A rotation may compress a file while nobody looks. It is recognised by what it holds: the first bytes, and those
//! before the offset. It is unpacked as a stream, in memory that does not grow with it.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::logs::file::{HEAD, Known, Mark, last_of, read_at};
use crate::logs::tail::open;

/// What gzip and Zstandard files begin with.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The endings of files that are read as compressed; others are never read as text either.
const READABLE: [&str; 2] = ["gz", "zst"];
const COMPRESSED: [&str; 5] = ["gz", "zst", "bz2", "xz", "zip"];
/// Zstandard up to level 19 needs 8 MiB (2^23) of the past. What needs more is not unpacked.
const WINDOW_LOG: u32 = 23;
/// No more is unpacked of one file: some bytes can be made to unpack to any number.
const MAX_CONTENT: u64 = 16 << 30;
const BUFFER: usize = 64 * 1024;

/// A content that is read once, from its begin to its end.
pub struct Content {
    reader: Box<dyn Read + Send>,
    /// Bytes that were read to recognise it and are yet to be given.
    pending: Vec<u8>,
}

/// Whether a name says that its file is compressed.
#[must_use]
pub fn is_compressed(path: &Path) -> bool {
    ends_as(path, &COMPRESSED)
}

/// Whether a name says that its file is compressed in a way that can be read.
#[must_use]
pub fn is_readable(path: &Path) -> bool {
    !is_compressed(path) || ends_as(path, &READABLE)
}

fn ends_as(path: &Path, endings: &[&str]) -> bool {
    path.extension().is_some_and(|end| endings.iter().any(|other| end == *other))
}

// === impl Content ===

impl Content {
    /// Opens a file, whose first bytes say how it is packed.
    ///
    /// # Errors
    /// When it cannot be opened or read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (file, _) = open(path)?;
        let mut magic = [0; 4];
        let read = read_at(&file, &mut magic, 0)?;
        let reader: Box<dyn Read + Send> = match &magic[..read] {
            [a, b, ..] if [*a, *b] == GZIP => Box::new(MultiGzDecoder::new(buffered(file)).take(MAX_CONTENT)),
            all if *all == ZSTD => {
                let mut decoder = zstd::Decoder::with_buffer(buffered(file))?;
                decoder.window_log_max(WINDOW_LOG)?;
                Box::new(decoder.take(MAX_CONTENT))
            }
            _ => Box::new(file),
        };
        Ok(Self { reader, pending: Vec::new() })
    }

    /// Its first bytes, up to [`HEAD`].
    ///
    /// # Errors
    /// When it cannot be read, or unpacked.
    pub fn head(mut self) -> io::Result<Vec<u8>> {
        let mut head = vec![0; HEAD];
        let filled = self.fill(&mut head)?;
        head.truncate(filled);
        Ok(head)
    }

    /// What comes after that which is known, if this is its content. `None` where it is another one, or ends before.
    ///
    /// # Errors
    /// When it cannot be read, or unpacked.
    pub fn after(mut self, known: &Known) -> io::Result<Option<Self>> {
        let (head, before) = (usize::from(known.head.length), usize::from(known.before.length));
        let Some(offset) = usize::try_from(known.offset).ok().filter(|offset| before <= *offset) else { return Ok(None) };
        let mut first = vec![0; head.max(offset.min(HEAD))];
        let filled = self.fill(&mut first)?;
        if filled < first.len() || Mark::of(&first[..head]) != known.head {
            return Ok(None);
        }
        if offset <= first.len() {
            self.pending = first.split_off(offset);
            return Ok((Mark::of(&first[offset - before..]) == known.before).then_some(self));
        }
        let mut buffer = vec![0; BUFFER];
        let (mut position, mut last) = (first.len(), last_of(&first, &[]));
        while position < offset {
            let wanted = buffer.len().min(offset - position);
            let read = self.read(&mut buffer[..wanted])?;
            if read == 0 {
                return Ok(None);
            }
            position += read;
            last = last_of(&last, &buffer[..read]);
        }
        Ok((Mark::of(&last[last.len().saturating_sub(before)..]) == known.before).then_some(self))
    }

    /// Reads until the buffer is full or the content ends.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(filled)
    }

    /// Reads some bytes; none at the end.
    ///
    /// # Errors
    /// When it cannot be read, or unpacked.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.pending.is_empty() {
            let length = self.pending.len().min(buffer.len());
            buffer[..length].copy_from_slice(&self.pending[..length]);
            self.pending.drain(..length);
            return Ok(length);
        }
        loop {
            match self.reader.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Content")
    }
}

fn buffered(file: File) -> BufReader<File> {
    BufReader::with_capacity(BUFFER, file)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::logs::file::{BEFORE, Identity, Seen};

    fn packed(folder: &Path, content: &[u8]) -> Vec<std::path::PathBuf> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&content[..content.len() / 2]).unwrap();
        // Two members in a row, as `cat a.gz b.gz` makes them.
        let mut both = gzip.finish().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&content[content.len() / 2..]).unwrap();
        both.extend(gzip.finish().unwrap());
        let zstd = zstd::encode_all(content, 19).unwrap();
        [("plain.1", content.to_vec()), ("log.gz", both), ("log.zst", zstd)]
            .map(|(name, bytes)| {
                let path = folder.join(name);
                std::fs::write(&path, bytes).unwrap();
                path
            })
            .to_vec()
    }

    fn known(identity: Identity, content: &[u8], offset: usize, read_to: usize) -> Known {
        let head = Mark::of(&content[..read_to.min(HEAD)]);
        let before = Mark::of(&content[offset.saturating_sub(BEFORE)..offset]);
        Known { identity, offset: offset as u64, head, before }
    }

    #[test]
    fn the_rest_after_any_offset_is_found_in_any_packing() {
        let folder = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..200_000_u32).flat_map(|number| (number * 7).to_le_bytes()).collect();
        for path in packed(folder.path(), &content) {
            let identity = Seen::of(&std::fs::metadata(&path).unwrap()).identity;
            for (offset, read_to) in
                [(0, 0), (0, 90), (1, 1), (63, 70), (64, 64), (255, 300), (257, 257), (70_000, 70_001), (800_000, 800_000)]
            {
                let mut rest = Content::open(&path).unwrap().after(&known(identity, &content, offset, read_to)).unwrap().unwrap();
                let mut bytes = vec![0; content.len() + 1];
                let filled = rest.fill(&mut bytes).unwrap();
                assert!(bytes[..filled] == content[offset..], "{} {offset}", path.display());
            }
            let mut other = content.clone();
            other[0] ^= 1;
            assert!(Content::open(&path).unwrap().after(&known(identity, &other, 10, 10)).unwrap().is_none());
            other[0] ^= 1;
            other[69_999] ^= 1;
            assert!(Content::open(&path).unwrap().after(&known(identity, &other, 70_000, 70_000)).unwrap().is_none());
            other.extend_from_slice(&content);
            assert!(Content::open(&path).unwrap().after(&known(identity, &other, content.len() + 1, 0)).unwrap().is_none());
        }
    }

    #[test]
    fn what_is_cut_off_or_needs_too_much_memory_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let content = vec![b'x'; 1 << 20];
        for path in &packed(folder.path(), &content)[1..] {
            let bytes = std::fs::read(path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() - 5]).unwrap();
            let mut buffer = vec![0; 2 << 20];
            assert!(Content::open(path).unwrap().fill(&mut buffer).is_err(), "{}", path.display());
        }
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&content).unwrap();
        let path = folder.path().join("long.zst");
        std::fs::write(&path, encoder.finish().unwrap()).unwrap();
        assert!(Content::open(&path).unwrap().fill(&mut [0; 9]).is_err());
    }
}
