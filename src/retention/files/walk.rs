//! Looks through a folder by descriptors: no link is followed, no other disk is entered, nothing outside is reached.
//!
//! As deep as folders lie in each other, so many descriptors are held, and no list of files.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, statat};
use rustix::io::Errno;

use crate::retention::files::choice::Identity;

/// Deeper folders are not looked into: two descriptors each.
const DEEPEST: usize = 64;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const WITHIN: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);

/// The root of a policy, held open.
#[derive(Debug)]
pub(super) struct Root {
    folder: OwnedFd,
    pub device: u64,
}

/// What was come across.
pub(super) enum Found<'a> {
    /// A file; its place in the folder that is held open, and its path below the root.
    File { folder: BorrowedFd<'a>, name: &'a CStr, path: &'a Path, stat: &'a Stat },
    /// A link, a socket, a device.
    Other,
    /// A folder that cannot be looked into, by the system's word, for another disk, or for its depth.
    Unreadable,
    /// A folder after everything in it; `is_empty` as far as was seen.
    Left { folder: BorrowedFd<'a>, name: &'a CStr, path: &'a Path, stat: &'a Stat, is_empty: bool },
}

/// A folder that is being looked through.
struct Level {
    entries: Dir,
    name: CString,
    stat: Stat,
    is_empty: bool,
}

// === impl Root ===

impl Root {
    /// Opens a root name by name from `/`, so that no link is followed on the way. `None` where there is none.
    pub fn open(root: &Path) -> Result<Option<Self>, Errno> {
        let mut folder = openat(CWD, c"/", FOLDER, Mode::empty())?;
        for name in root.components().skip(1) {
            folder = match openat(&folder, name.as_os_str(), FOLDER, Mode::empty()) {
                Ok(folder) => folder,
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(error),
            };
        }
        let device = fstat(&folder)?.st_dev;
        Ok(Some(Self { folder, device }))
    }

    /// The descriptor.
    pub fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Whether a path below the root still leads to this very file, through folders alone. Where the system cannot
    /// say, what the folder itself says counts.
    pub fn still_leads_to(&self, path: &Path, identity: Identity, folder: BorrowedFd<'_>, name: &CStr) -> bool {
        let here = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| identity_of(&stat));
        if here != Ok(identity) {
            return false;
        }
        match openat2(&self.folder, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), WITHIN) {
            Ok(file) => fstat(&file).map(|stat| identity_of(&stat)) == Ok(identity),
            Err(Errno::NOSYS) => true,
            Err(_) => false,
        }
    }

    /// Tells of everything below the root. What vanishes meanwhile is left out.
    pub fn walk(&self, mut found: impl FnMut(Found<'_>) -> std::ops::ControlFlow<()>) -> Result<(), Errno> {
        let stat = fstat(&self.folder)?;
        let mut levels = vec![Level { entries: Dir::read_from(&self.folder)?, name: CString::default(), stat, is_empty: true }];
        let mut path = PathBuf::new();
        loop {
            let depth = levels.len();
            let Some(level) = levels.last_mut() else { return Ok(()) };
            let Some(entry) = level.entries.read() else {
                if self.leave(&mut levels, &mut path, &mut found)?.is_break() {
                    return Ok(());
                }
                continue;
            };
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            level.is_empty = false;
            let folder = level.entries.fd()?;
            let Ok(stat) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            path.push(OsStr::from_bytes(name.to_bytes()));
            let mut flow = std::ops::ControlFlow::Continue(());
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => flow = found(Found::File { folder, name, path: &path, stat: &stat }),
                FileType::Directory => {
                    let opened = if depth < DEEPEST { self.enter(folder, name) } else { Err(Errno::MFILE) };
                    match opened.and_then(|(folder, stat)| Ok((Dir::new(folder)?, stat))) {
                        Ok((entries, stat)) => {
                            levels.push(Level { entries, name: name.to_owned(), stat, is_empty: true });
                            continue;
                        }
                        Err(Errno::NOENT) => {}
                        Err(_) => flow = found(Found::Unreadable),
                    }
                }
                _ => flow = found(Found::Other),
            }
            path.pop();
            if flow.is_break() {
                return Ok(());
            }
        }
    }

    /// Goes on with the folder above.
    fn leave(
        &self,
        levels: &mut Vec<Level>,
        path: &mut PathBuf,
        found: &mut impl FnMut(Found<'_>) -> std::ops::ControlFlow<()>,
    ) -> Result<std::ops::ControlFlow<()>, Errno> {
        let mut flow = std::ops::ControlFlow::Continue(());
        if let Some(Level { name, stat, is_empty, .. }) = levels.pop()
            && let Some(above) = levels.last()
        {
            flow = found(Found::Left { folder: above.entries.fd()?, name: &name, path, stat: &stat, is_empty });
            path.pop();
        }
        Ok(flow)
    }

    /// Opens a folder of a folder, on the same disk, and never through a link that has taken its place.
    fn enter(&self, folder: BorrowedFd<'_>, name: &CStr) -> Result<(OwnedFd, Stat), Errno> {
        let opened = match openat2(folder, name, FOLDER, Mode::empty(), WITHIN) {
            // Kernels before 5.6, and sandboxes that do not know the call.
            Err(Errno::NOSYS | Errno::PERM) => openat(folder, name, FOLDER, Mode::empty())?,
            opened => opened?,
        };
        let stat = fstat(&opened)?;
        if stat.st_dev == self.device { Ok((opened, stat)) } else { Err(Errno::XDEV) }
    }
}

/// What makes the file the very file.
pub(super) fn identity_of(stat: &Stat) -> Identity {
    let time = |seconds: i64, nanoseconds: i128| i128::from(seconds) * 1_000_000_000 + nanoseconds;
    Identity {
        device: stat.st_dev,
        inode: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        modified: time(stat.st_mtime, i128::from(stat.st_mtime_nsec)),
        changed: time(stat.st_ctime, i128::from(stat.st_ctime_nsec)),
    }
}
