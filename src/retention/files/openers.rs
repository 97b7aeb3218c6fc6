//! Which files some process has open or has locked, as far as the system shows it.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// A look is used for so long.
const FRESH: Duration = Duration::from_secs(1);

/// What was open and locked at the last look, of one device.
#[derive(Debug)]
pub(super) struct Openers {
    device: u64,
    looked: Option<Instant>,
    files: HashSet<u64>,
    /// Processes of which it could not be seen.
    pub unseen: u64,
}

// === impl Openers ===

impl Openers {
    pub fn of(device: u64) -> Self {
        Self { device, looked: None, files: HashSet::new(), unseen: 0 }
    }

    /// Whether a process has the file of this inode open, or has locked it.
    pub fn hold(&mut self, device: u64, inode: u64) -> bool {
        if self.looked.is_none_or(|looked| looked.elapsed() > FRESH) {
            self.look();
        }
        device == self.device && self.files.contains(&inode)
    }

    fn look(&mut self) {
        self.looked = Some(Instant::now());
        self.files.clear();
        self.unseen = 0;
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        for process in processes.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit)) {
            self.look_at(&process.path());
        }
        // Locks of processes whose descriptors may not be seen are seen here: `1: POSIX ADVISORY WRITE 42 08:01:1234 0 EOF`.
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        self.files.extend(locks.lines().filter_map(|line| locked(line, self.device)));
    }

    fn look_at(&mut self, process: &Path) {
        let Ok(descriptors) = fs::read_dir(process.join("fd")) else {
            // One that has ended meanwhile has nothing open.
            self.unseen += u64::from(process.exists());
            return;
        };
        for descriptor in descriptors.flatten() {
            // The link is followed by the system itself, to the very file, whatever its name is by now.
            if let Ok(file) = fs::metadata(descriptor.path())
                && file.is_file()
                && file.dev() == self.device
            {
                self.files.insert(file.ino());
            }
        }
    }
}

/// The inode that a line of /proc/locks names, where it is on this device.
fn locked(line: &str, device: u64) -> Option<u64> {
    let file = line.split_ascii_whitespace().find(|word| word.matches(':').count() == 2)?;
    let mut parts = file.split(':');
    let major = u32::from_str_radix(parts.next()?, 16).ok()?;
    let minor = u32::from_str_radix(parts.next()?, 16).ok()?;
    let inode = parts.next()?.parse().ok()?;
    (rustix::fs::makedev(major, minor) == device).then_some(inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_is_seen_by_its_inode_even_under_another_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let file = fs::File::create(&path).unwrap();
        let seen = file.metadata().unwrap();
        fs::rename(&path, folder.path().join("b")).unwrap();
        assert!(Openers::of(seen.dev()).hold(seen.dev(), seen.ino()));
        drop(file);
        assert!(!Openers::of(seen.dev()).hold(seen.dev(), seen.ino()));
    }

    #[test]
    fn a_line_of_locks_names_device_and_inode() {
        let device = rustix::fs::makedev(0x8, 0x1);
        assert_eq!(locked("1: POSIX  ADVISORY  WRITE 42 08:01:1234 0 EOF", device), Some(1234));
        assert_eq!(locked("1: -> FLOCK  ADVISORY  WRITE 42 08:02:1234 0 EOF", device), None);
        assert_eq!(locked("nonsense", device), None);
    }
}
