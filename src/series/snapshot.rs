//! State that survives kill -9: two slots, each with a checksum, written in turn.
//!
//! A write that is cut off spoils one slot; the other holds the state before it. Only the blocks of a slot that differ
//! from what it holds are written, so that a large state of which little has changed costs little. Owns the files and
//! nothing of what is in them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Says what the file is and which version of the layout it has.
const MAGIC: [u8; 8] = *b"BWSTATE\x01";
/// Magic, generation, length and checksum.
const HEADER: usize = 8 + 8 + 8 + 4;
/// No state is larger: 10,000 series and 10,000 files take about 3 MiB.
const MAX_PAYLOAD: u64 = 1 << 30;
/// What is compared and written at once: a page of the kernel.
const BLOCK: usize = 4096;

/// Two files that hold the last two states.
#[derive(Debug)]
pub struct Snapshots {
    slots: [Slot; 2],
    generation: u64,
    /// The slot that is written next: never the one that holds the state that counts.
    next: usize,
}

#[derive(Debug)]
struct Slot {
    path: PathBuf,
    /// What we have written to it last; empty where we have not, or where that failed.
    bytes: Vec<u8>,
    /// Which file we have written to, and when: another one is written anew as a whole.
    stamp: Option<Stamp>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

/// What was found at the start.
#[derive(Debug)]
pub struct Found<T> {
    /// The newest state that is whole and understood.
    pub state: Option<T>,
    /// Slots that could not be trusted, and why.
    pub damaged: Vec<(PathBuf, Damage)>,
}

/// Why a slot cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It cannot be read.
    #[error("cannot be read")]
    Unreadable(#[source] io::Error),
    /// It is not a state, or one of another layout.
    #[error("is no state of this version")]
    Foreign,
    /// It was cut off or changed.
    #[error("is cut off or changed: its checksum is wrong")]
    Torn,
    /// It is whole, but what is in it is not understood.
    #[error("is whole, but another version has written it; it is kept beside as `.refused`")]
    Refused,
}

/// The state could not be written. The state before it is still there.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the state to {path}; free some space, or make the folder writable")]
pub struct WriteError {
    path: PathBuf,
    #[source]
    cause: io::Error,
}

// === impl Snapshots ===

impl Snapshots {
    /// Looks for the state `name` in a folder, which must exist. `understand` is asked for the newest state first, and
    /// for the one before it only where it does not take that.
    #[must_use]
    pub fn open<T>(folder: &Path, name: &str, understand: impl Fn(&[u8]) -> Option<T>) -> (Self, Found<T>) {
        let slots = [0, 1].map(|number| Slot::new(folder.join(format!("{name}.{number}.state"))));
        let mut found = Found { state: None, damaged: Vec::new() };
        let mut whole = Vec::new();
        for (number, slot) in slots.iter().enumerate() {
            match read_slot(&slot.path) {
                Ok(Some((generation, payload))) => whole.push((generation, number, payload)),
                Ok(None) => {}
                Err(damage) => found.damaged.push((slot.path.clone(), damage)),
            }
        }
        whole.sort_unstable_by_key(|(generation, ..)| std::cmp::Reverse(*generation));
        let generation = whole.first().map_or(0, |(generation, ..)| *generation);
        let mut next = 1;
        for (_, number, payload) in whole {
            found.state = understand(&payload);
            if found.state.is_some() {
                next = 1 - number;
                break;
            }
            found.damaged.push((slots[number].path.clone(), Damage::Refused));
        }
        found.damaged.iter().for_each(|(path, damage)| set_aside(path, damage));
        (Self { slots, generation, next }, found)
    }

    /// Writes a state and waits until it is on the disk. Returns how many bytes had to be written.
    ///
    /// # Errors
    /// When it is not; then the state before it is.
    pub fn write(&mut self, payload: &[u8]) -> Result<usize, WriteError> {
        let generation = self.generation + 1;
        let mut bytes = Vec::with_capacity(HEADER + payload.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&generation.to_le_bytes());
        bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&checksum(generation, payload).to_le_bytes());
        bytes.extend_from_slice(payload);
        let slot = &mut self.slots[self.next];
        let written = slot.write(bytes).map_err(|cause| WriteError { path: slot.path.clone(), cause })?;
        self.generation = generation;
        self.next = 1 - self.next;
        Ok(written)
    }
}

// === impl Slot ===

impl Slot {
    fn new(path: PathBuf) -> Self {
        Self { path, bytes: Vec::new(), stamp: None }
    }

    /// Makes the file hold these bytes. The file is not cut off first: on a full disk it keeps the room that it has.
    fn write(&mut self, bytes: Vec<u8>) -> io::Result<usize> {
        let is_new = !self.path.exists();
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&self.path)?;
        let before = std::mem::take(&mut self.bytes);
        let is_ours = self.stamp.take().is_some_and(|stamp| Stamp::of(&file).is_ok_and(|now| now == stamp));
        let before: &[u8] = if is_ours { &before } else { &[] };
        let mut written = 0;
        let mut position = 0;
        while position < bytes.len() {
            let is_changed = |from: usize| {
                let end = bytes.len().min(from + BLOCK);
                before.get(from..end) != Some(&bytes[from..end])
            };
            let begin = position;
            while position < bytes.len() && is_changed(position) {
                position += BLOCK;
            }
            let end = position.min(bytes.len());
            if end > begin {
                file.write_all_at(&bytes[begin..end], begin as u64)?;
                written += end - begin;
            }
            // What ended the run is unchanged, or behind the end.
            position += BLOCK;
        }
        if file.metadata()?.len() != bytes.len() as u64 {
            file.set_len(bytes.len() as u64)?;
        }
        file.sync_data()?;
        if is_new && let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        self.stamp = Some(Stamp::of(&file)?);
        self.bytes = bytes;
        Ok(written)
    }
}

// === impl Stamp ===

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { inode: metadata.ino(), length: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) })
    }
}

fn checksum(generation: u64, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher.update(&(payload.len() as u64).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// What another version can read must not be overwritten: after a step back there may be one forward.
fn set_aside(slot: &Path, damage: &Damage) {
    if !matches!(damage, Damage::Refused | Damage::Foreign) {
        return;
    }
    let mut aside = slot.as_os_str().to_owned();
    aside.push(".refused");
    if let Err(error) = std::fs::rename(slot, &aside) {
        tracing::warn!(path = %slot.display(), %error, "a state that is not understood cannot be kept beside");
    }
}

/// The generation and the payload of a slot; `None` where there is no file.
fn read_slot(slot: &Path) -> Result<Option<(u64, Vec<u8>)>, Damage> {
    match File::open(slot) {
        Ok(file) => decode(file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Damage::Unreadable(error)),
    }
}

fn decode(mut slot: impl io::Read) -> Result<(u64, Vec<u8>), Damage> {
    let mut header = [0; HEADER];
    slot.read_exact(&mut header).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Damage::Torn,
        _ => Damage::Unreadable(error),
    })?;
    if header == [0; HEADER] {
        return Err(Damage::Torn);
    }
    if header[..8] != MAGIC {
        return Err(Damage::Foreign);
    }
    let number = |from: usize| u64::from_le_bytes(header[from..from + 8].try_into().unwrap_or_default());
    let (generation, length) = (number(8), number(16));
    if length > MAX_PAYLOAD {
        return Err(Damage::Torn);
    }
    let mut payload = Vec::new();
    slot.take(length + 1).read_to_end(&mut payload).map_err(Damage::Unreadable)?;
    let expected = u32::from_le_bytes(header[24..28].try_into().unwrap_or_default());
    if payload.len() as u64 != length || checksum(generation, &payload) != expected {
        return Err(Damage::Torn);
    }
    Ok((generation, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path) -> (Snapshots, Found<Vec<u8>>) {
        Snapshots::open(folder, "logs", |payload| Some(payload.to_vec()))
    }

    #[test]
    fn the_newest_whole_state_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (mut snapshots, found) = open(folder.path());
        assert!(found.state.is_none() && found.damaged.is_empty());
        for payload in ["one", "two", "three"] {
            snapshots.write(payload.as_bytes()).unwrap();
            assert_eq!(open(folder.path()).1.state.as_deref(), Some(payload.as_bytes()));
        }
    }

    #[test]
    fn any_damage_falls_back_to_the_other_slot() {
        let folder = tempfile::tempdir().unwrap();
        let newest = folder.path().join("logs.0.state");
        let (mut snapshots, _) = open(folder.path());
        snapshots.write(b"before").unwrap();
        snapshots.write(b"newest state").unwrap();
        let whole = std::fs::read(&newest).unwrap();
        let mut damages: Vec<Vec<u8>> = (0..whole.len()).map(|length| whole[..length].to_vec()).collect();
        damages.extend((0..whole.len()).map(|position| {
            let mut flipped = whole.clone();
            flipped[position] ^= 0x10;
            flipped
        }));
        damages.push(vec![0; whole.len()]);
        damages.push([whole.as_slice(), b"more"].concat());
        for damaged in damages {
            std::fs::write(&newest, &damaged).unwrap();
            let (_, found) = open(folder.path());
            assert_eq!(found.state.as_deref(), Some(b"before".as_slice()), "{damaged:?}");
            assert_eq!(found.damaged.len(), 1);
        }
        // The next write goes on from what was found.
        let (mut snapshots, _) = open(folder.path());
        snapshots.write(b"after").unwrap();
        let (_, found) = open(folder.path());
        assert_eq!((found.state.as_deref(), found.damaged.len()), (Some(b"after".as_slice()), 0));
    }

    #[test]
    fn a_newest_state_that_is_not_understood_falls_back_and_is_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let (mut snapshots, _) = open(folder.path());
        for payload in [b"ours", b"next"] {
            snapshots.write(payload).unwrap();
        }
        let understand = |payload: &[u8]| (payload != b"next").then(|| payload.to_vec());
        let (mut snapshots, found) = Snapshots::open(folder.path(), "logs", understand);
        assert_eq!(found.state.as_deref(), Some(b"ours".as_slice()));
        assert!(matches!(found.damaged.as_slice(), [(_, Damage::Refused)]), "{found:?}");
        assert!(folder.path().join("logs.0.state.refused").exists());
        // What counts stays until its successor is whole.
        let good = std::fs::read(folder.path().join("logs.1.state")).unwrap();
        snapshots.write(b"after").unwrap();
        assert_eq!(std::fs::read(folder.path().join("logs.1.state")).unwrap(), good);
        assert_eq!(open(folder.path()).1.state.as_deref(), Some(b"after".as_slice()));
        // Nothing is understood: nothing is found, and both are kept.
        snapshots.write(b"last").unwrap();
        let (_, found) = Snapshots::open(folder.path(), "logs", |_| None::<()>);
        assert_eq!((found.state, found.damaged.len()), (None, 2));
        assert!(folder.path().join("logs.1.state.refused").exists());
    }

    #[test]
    fn only_what_has_changed_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (mut snapshots, _) = open(folder.path());
        let mut payload: Vec<u8> = (0..100 * BLOCK).map(|position| (position / 7) as u8).collect();
        for _ in 0..2 {
            assert_eq!(snapshots.write(&payload).unwrap(), HEADER + payload.len());
        }
        // The first block has the generation.
        assert_eq!(snapshots.write(&payload).unwrap(), BLOCK);
        payload[50 * BLOCK] ^= 1;
        assert_eq!(snapshots.write(&payload).unwrap(), 2 * BLOCK);
        // Longer, shorter, and with a file that somebody has replaced or removed.
        payload.extend_from_slice(&[7; 100]);
        snapshots.write(&payload).unwrap();
        assert_eq!(open(folder.path()).1.state.unwrap(), payload);
        payload.truncate(10 * BLOCK);
        snapshots.write(&payload).unwrap();
        assert_eq!(open(folder.path()).1.state.unwrap(), payload);
        for slot in ["logs.0.state", "logs.1.state"] {
            std::fs::write(folder.path().join(slot), "other").unwrap();
        }
        assert_eq!(snapshots.write(&payload).unwrap(), HEADER + payload.len());
        assert_eq!(open(folder.path()).1.state.unwrap(), payload);
        for slot in ["logs.0.state", "logs.1.state"] {
            std::fs::remove_file(folder.path().join(slot)).unwrap();
        }
        assert_eq!(snapshots.write(&payload).unwrap(), HEADER + payload.len());
        assert_eq!(open(folder.path()).1.state.unwrap(), payload);
    }

    #[test]
    fn a_full_disk_spoils_no_state_and_is_over_when_it_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let (mut snapshots, _) = open(folder.path());
        snapshots.write(b"before").unwrap();
        // The device says what a full disk says.
        std::os::unix::fs::symlink("/dev/full", folder.path().join("logs.0.state")).unwrap();
        for _ in 0..3 {
            let error = snapshots.write(b"later").unwrap_err();
            assert!(error.to_string().contains("logs.0.state; free some space"), "{error}");
        }
        std::fs::remove_file(folder.path().join("logs.0.state")).unwrap();
        assert_eq!(open(folder.path()).1.state.as_deref(), Some(b"before".as_slice()));
        snapshots.write(b"after").unwrap();
        assert_eq!(open(folder.path()).1.state.as_deref(), Some(b"after".as_slice()));
    }

    proptest::proptest! {
        #[test]
        fn a_write_that_is_cut_off_anywhere_leaves_the_state_before_it(
            sizes in proptest::collection::vec(1_usize..40_000, 3..8), cut in 0.0_f64..1.0,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (mut snapshots, _) = open(folder.path());
            let payload = |number: usize| -> Vec<u8> { (0..sizes[number]).map(|byte| (byte / 100 + number / 3) as u8).collect() };
            (0..sizes.len() - 1).for_each(|number| { snapshots.write(&payload(number)).unwrap(); });
            let slot = snapshots.slots[snapshots.next].path.clone();
            let before = std::fs::read(&slot).unwrap_or_default();
            snapshots.write(&payload(sizes.len() - 1)).unwrap();
            // Some blocks are those of the last write, the others are what was there.
            let after = std::fs::read(&slot).unwrap();
            let mixed: Vec<u8> = (0..after.len()).map(|position| {
                let is_new = ((position / BLOCK * 37) % 101) as f64 / 101.0 < cut;
                if is_new { after[position] } else { before.get(position).copied().unwrap_or(0) }
            }).collect();
            std::fs::write(&slot, &mixed).unwrap();
            let expected = if mixed == after { payload(sizes.len() - 1) } else { payload(sizes.len() - 2) };
            proptest::prop_assert_eq!(open(folder.path()).1.state, Some(expected));
        }
    }
}
