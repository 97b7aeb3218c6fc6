//! Which file is which, and what happened to it while nobody looked. Pure but for the two functions that read marks.
//!
//! A path says nothing: files are renamed, truncated, replaced, and inodes are used again. A file is the same when its
//! device, inode and time of birth are, and it goes on when its first bytes and those before the offset are unchanged.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::logs::interlude;

/// As much of a file's head is hashed as there is, up to this.
pub const HEAD: usize = 256;
/// As much of what stands before an offset is compared, up to this.
pub const BEFORE: usize = 64;

/// Device and inode.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Inode {
    device: u64,
    number: u64,
}

/// Who a file is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Identity {
    /// Unique among the files that exist.
    pub inode: Inode,
    /// In nanoseconds since the epoch, where the file system knows it: an inode may be used again.
    pub born: Option<u64>,
}

/// A look at a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seen {
    /// Who it is.
    pub identity: Identity,
    /// How long it is.
    pub size: u64,
    /// When it was last written to, in seconds and nanoseconds: as exact as a tick of the kernel, some milliseconds.
    pub modified: (i64, i64),
}

/// What an open file was and held at one moment. Whatever is found out about it afterwards, such as what lies beside it,
/// is true only while it still holds that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Look {
    /// Who it was, and how long.
    pub seen: Seen,
    /// Its first bytes.
    pub head: Mark,
}

/// The hash of some bytes of a file.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Mark {
    /// Of how many bytes.
    pub length: u16,
    hash: u64,
}

/// What is remembered of a file that was read up to an offset.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Known {
    /// Who it is.
    pub identity: Identity,
    /// Up to here it has been counted.
    pub offset: u64,
    /// Its first bytes.
    pub head: Mark,
    /// The bytes before the offset.
    pub before: Mark,
}

// === impl Seen ===

impl Seen {
    /// Takes what metadata tell.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let inode = Inode { device: metadata.dev(), number: metadata.ino() };
        let born = born.and_then(|since| u64::try_from(since.as_nanos()).ok());
        Self { identity: Identity { inode, born }, size: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

// === impl Look ===

impl Look {
    /// Looks at a file. The first bytes come first: when it is cut off in between, they are those that were there before,
    /// and the next reading finds others.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn at(file: &File) -> io::Result<Self> {
        let head = head_of(file, HEAD)?;
        Ok(Self { seen: Seen::of(&file.metadata()?), head })
    }

    /// All that it held, as if it had been read.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn known(&self, file: &File) -> io::Result<Known> {
        let before = Mark::of(&before_of(file, self.seen.size, BEFORE)?);
        Ok(Known { identity: self.seen.identity, offset: self.seen.size, head: self.head, before })
    }

    /// Whether the file still holds what it held: it may have grown.
    #[must_use]
    pub fn is_still_of(&self, file: &File) -> bool {
        let begins_alike = || Ok::<_, io::Error>(head_of(file, usize::from(self.head.length))? == self.head);
        begins_alike().unwrap_or(true) && file.metadata().is_ok_and(|now| now.len() >= self.seen.size)
    }
}

// === impl Inode ===

impl Inode {
    /// The number by which `ls -i` shows it.
    #[must_use]
    pub fn number(self) -> u64 {
        self.number
    }
}

// === impl Identity ===

impl Identity {
    /// Whether it is the same file. A time of birth that is not known speaks neither for nor against.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.inode == other.inode && (self.born.is_none() || other.born.is_none() || self.born == other.born)
    }
}

// === impl Mark ===

impl Mark {
    /// Hashes bytes, which are at most [`HEAD`].
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { length: u16::try_from(bytes.len()).unwrap_or(u16::MAX), hash: xxh3_64(bytes) }
    }
}

// === impl Known ===

impl Known {
    /// Whether it can have been written by us: marks have their bounds, and no more is before an offset than it says.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let (head, before) = (usize::from(self.head.length), usize::from(self.before.length));
        head <= HEAD && before <= BEFORE && before as u64 <= self.offset
    }

    /// Whether the file goes on where it was left, from a look at it and the same marks as they are now. Another
    /// content may be in the same file, and another file may have the inode.
    #[must_use]
    pub fn goes_on(&self, seen: &Seen, head: Mark, before: Mark) -> bool {
        self.identity.is(&seen.identity) && seen.size >= self.offset && head == self.head && before == self.before
    }

    /// The same of an open file, and the bytes before the offset.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn goes_on_in(&self, file: &File, seen: &Seen) -> io::Result<(bool, Vec<u8>)> {
        let before = before_of(file, self.offset, usize::from(self.before.length))?;
        let head = head_of(file, usize::from(self.head.length))?;
        Ok((self.goes_on(seen, head, Mark::of(&before)), before))
    }
}

/// The first bytes of a file, up to `length` of them.
///
/// # Errors
/// When the file cannot be read.
pub fn head_of(file: &File, length: usize) -> io::Result<Mark> {
    let mut bytes = [0; HEAD];
    let read = read_at(file, &mut bytes[..length.min(HEAD)], 0)?;
    Ok(Mark::of(&bytes[..read]))
}

/// The bytes before an offset, up to `length` of them.
///
/// # Errors
/// When the file cannot be read.
pub fn before_of(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let length = length.min(BEFORE).min(usize::try_from(offset).unwrap_or(BEFORE));
    let mut bytes = vec![0; length];
    let read = read_at(file, &mut bytes, offset - length as u64)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// The last bytes of two slices in a row, up to [`BEFORE`].
#[must_use]
pub fn last_of(first: &[u8], second: &[u8]) -> Vec<u8> {
    let second = &second[second.len().saturating_sub(BEFORE)..];
    let first = &first[first.len().saturating_sub(BEFORE - second.len())..];
    [first, second].concat()
}

/// Reads until the buffer is full or the file ends.
///
/// # Errors
/// When the file cannot be read.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    interlude::pass();
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(number: u64, born: Option<u64>) -> Identity {
        Identity { inode: Inode { device: 1, number }, born }
    }

    #[test]
    fn a_file_goes_on_where_identity_size_and_marks_say_so() {
        let (head, before) = (Mark::of(b"head"), Mark::of(b"before"));
        let known = Known { identity: identity(1, Some(7)), offset: 100, head, before };
        let other = Mark::of(b"other");
        for (number, born, size, head, before, expected) in [
            (1, Some(7), 100, head, before, true),
            (1, Some(7), 500, head, before, true),
            (1, None, 500, head, before, true),
            (1, Some(7), 99, head, before, false),
            (1, Some(7), 500, other, before, false),
            (1, Some(7), 500, head, other, false),
            (1, Some(8), 500, head, before, false),
            (2, Some(7), 500, head, before, false),
        ] {
            let seen = Seen { identity: identity(number, born), size, modified: (0, 0) };
            assert_eq!(known.goes_on(&seen, head, before), expected, "{seen:?}");
        }
    }
}
