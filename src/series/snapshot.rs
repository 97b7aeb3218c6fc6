//! State that survives kill -9: two slots, each with a checksum, written in turn.
//!
//! A write that is cut off spoils one slot; the other holds the state before it. Owns the files and nothing of what
//! is in them.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Says what the file is and which version of the layout it has.
const MAGIC: [u8; 8] = *b"BWSTATE\x01";
/// Magic, generation, length and checksum.
const HEADER: usize = 8 + 8 + 8 + 4;
/// No state is larger: 10,000 series and 10,000 files take about 3 MiB.
const MAX_PAYLOAD: u64 = 1 << 30;

/// Two files that hold the last two states.
#[derive(Debug)]
pub struct Snapshots {
    slots: [PathBuf; 2],
    generation: u64,
}

/// What was found at the start.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest state that is whole.
    pub payload: Option<Vec<u8>>,
    /// Slots that could not be trusted, and why.
    pub damaged: Vec<(PathBuf, Damage)>,
}

/// Why a slot cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It cannot be read.
    #[error("cannot be read")]
    Unreadable(#[source] std::io::Error),
    /// It is not a state, or one of another version.
    #[error("is no state of this version")]
    Foreign,
    /// It was cut off or changed.
    #[error("is cut off or changed: its checksum is wrong")]
    Torn,
}

/// The state could not be written. The state before it is still there.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the state to {path}; free some space, or make the folder writable")]
pub struct WriteError {
    path: PathBuf,
    #[source]
    cause: std::io::Error,
}

// === impl Snapshots ===

impl Snapshots {
    /// Looks for the state `name` in a folder, which must exist.
    #[must_use]
    pub fn open(folder: &Path, name: &str) -> (Self, Found) {
        let slots = [folder.join(format!("{name}.0.state")), folder.join(format!("{name}.1.state"))];
        let mut found = Found::default();
        let mut generation = 0;
        for slot in &slots {
            match read_slot(slot) {
                Ok(Some((number, payload))) if number > generation => {
                    generation = number;
                    found.payload = Some(payload);
                }
                Ok(_) => {}
                Err(damage) => found.damaged.push((slot.clone(), damage)),
            }
        }
        (Self { slots, generation }, found)
    }

    /// Writes a state and waits until it is on the disk.
    ///
    /// # Errors
    /// When it is not; then the state before it is.
    pub fn write(&mut self, payload: &[u8]) -> Result<(), WriteError> {
        let generation = self.generation + 1;
        let slot = &self.slots[usize::from(generation % 2 == 1)];
        write_slot(slot, generation, payload).map_err(|cause| WriteError { path: slot.clone(), cause })?;
        self.generation = generation;
        Ok(())
    }
}

fn checksum(generation: u64, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher.update(&(payload.len() as u64).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

fn write_slot(slot: &Path, generation: u64, payload: &[u8]) -> std::io::Result<()> {
    let is_new = !slot.exists();
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&generation.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&checksum(generation, payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(slot)?;
    file.write_all(&bytes)?;
    file.sync_data()?;
    if is_new && let Some(folder) = slot.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// The generation and the payload of a slot; `None` where there is no file.
fn read_slot(slot: &Path) -> Result<Option<(u64, Vec<u8>)>, Damage> {
    let mut file = match File::open(slot) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Damage::Unreadable(error)),
    };
    let mut header = [0; HEADER];
    file.read_exact(&mut header).map_err(|_| Damage::Torn)?;
    if header[..8] != MAGIC {
        return Err(Damage::Foreign);
    }
    let number = |from: usize| u64::from_le_bytes(header[from..from + 8].try_into().unwrap_or_default());
    let (generation, length) = (number(8), number(16));
    if length > MAX_PAYLOAD {
        return Err(Damage::Torn);
    }
    let mut payload = Vec::new();
    file.take(length + 1).read_to_end(&mut payload).map_err(Damage::Unreadable)?;
    let expected = u32::from_le_bytes(header[24..28].try_into().unwrap_or_default());
    if payload.len() as u64 != length || checksum(generation, &payload) != expected {
        return Err(Damage::Torn);
    }
    Ok(Some((generation, payload)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_state_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (mut snapshots, found) = Snapshots::open(folder.path(), "logs");
        assert!(found.payload.is_none() && found.damaged.is_empty());
        for payload in ["one", "two", "three"] {
            snapshots.write(payload.as_bytes()).unwrap();
            let (_, found) = Snapshots::open(folder.path(), "logs");
            assert_eq!(found.payload.as_deref(), Some(payload.as_bytes()));
        }
    }

    #[test]
    fn any_damage_falls_back_to_the_other_slot() {
        let folder = tempfile::tempdir().unwrap();
        let newest = folder.path().join("logs.0.state");
        let (mut snapshots, _) = Snapshots::open(folder.path(), "logs");
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
            let (_, found) = Snapshots::open(folder.path(), "logs");
            assert_eq!(found.payload.as_deref(), Some(b"before".as_slice()), "{damaged:?}");
            assert_eq!(found.damaged.len(), 1);
        }
        // The next write goes on from what was found.
        let (mut snapshots, _) = Snapshots::open(folder.path(), "logs");
        snapshots.write(b"after").unwrap();
        let (_, found) = Snapshots::open(folder.path(), "logs");
        assert_eq!((found.payload.as_deref(), found.damaged.len()), (Some(b"after".as_slice()), 0));
    }
}
