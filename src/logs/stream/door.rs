//! A socket that others write lines to: opens it, lets connections in, and leaves nothing behind.
//!
//! Knows nothing of what the connections carry.

use std::fs::{self, File, Permissions};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};

use crate::config::logs::{Address, Listen};
use crate::logs::metrics::DoorSeries;

/// How long to wait before the next try when the process has run out of file descriptors.
const BACKOFF: Duration = Duration::from_secs(1);
/// A peer that has vanished without a word is noticed after this and nine more questions.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A socket that is listened on.
#[derive(Debug)]
pub struct Door {
    listener: Listener,
    /// Where it stands, and which file that is.
    path: Option<(PathBuf, u64)>,
    /// How many may be connected at once.
    pub max_connections: usize,
    /// A connection that is silent for so long makes room for a new one.
    pub idle_timeout: Duration,
    /// Where its connections are counted.
    pub series: DoorSeries,
    /// Nobody is let in before this.
    pub closed_until: Option<Instant>,
}

#[derive(Debug)]
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// What was at the door.
#[derive(Debug)]
pub enum Visit {
    /// A connection, and who is at its other end.
    Connection(File, String),
    /// Nobody any more.
    Nobody,
    /// Nobody can be let in for a while.
    Failed,
}

// === impl Door ===

impl Door {
    /// Opens a socket. A socket file that a killed process has left behind is replaced; any other file is not touched.
    ///
    /// # Errors
    /// When the address is in use, or not ours.
    pub fn open(listen: &Listen, series: DoorSeries) -> io::Result<Self> {
        let (listener, path) = match &listen.address {
            Address::Unix { path, mode } => {
                let (listener, inode) = open_unix(path, *mode)?;
                (Listener::Unix(listener), Some((path.clone(), inode)))
            }
            Address::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                (Listener::Tcp(listener), None)
            }
        };
        let Listen { max_connections, idle_timeout, .. } = *listen;
        Ok(Self { listener, path, max_connections, idle_timeout, series, closed_until: None })
    }

    /// Lets the next one in, and never waits.
    pub fn accept(&mut self, now: Instant) -> Visit {
        let accepted = match &self.listener {
            Listener::Unix(listener) => listener.accept().map(|(stream, _)| (OwnedFd::from(stream), "unix".to_owned())),
            Listener::Tcp(listener) => listener.accept().map(|(stream, peer)| (OwnedFd::from(stream), peer.to_string())),
        };
        match accepted.and_then(|(connection, peer)| Ok((prepared(connection)?, peer))) {
            Ok((connection, peer)) => Visit::Connection(connection, peer),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Visit::Nobody,
            // It went away before it was let in.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => Visit::Nobody,
            Err(error) => {
                self.closed_until = Some(now + BACKOFF);
                tracing::warn!(%error, "a log connection cannot be accepted; check the limit of open files");
                Visit::Failed
            }
        }
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.listener {
            Listener::Unix(listener) => listener.as_fd(),
            Listener::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some((path, inode)) = &self.path
            && fs::symlink_metadata(path).is_ok_and(|metadata| metadata.ino() == *inode)
        {
            // A folder that has become read-only keeps it; the next start replaces it.
            let _ = fs::remove_file(path);
        }
    }
}

/// A connection that is read without waiting.
fn prepared(connection: OwnedFd) -> io::Result<File> {
    rustix::io::ioctl_fionbio(&connection, true)?;
    // Unix sockets know of no vanished peers.
    let _ = sockopt::set_socket_keepalive(&connection, true);
    let _ = sockopt::set_tcp_keepidle(&connection, KEEPALIVE);
    Ok(File::from(connection))
}

/// Makes the socket beside its path, gives it its permissions, and moves it there: nobody finds it half made.
fn open_unix(path: &Path, mode: u32) -> io::Result<(UnixListener, u64)> {
    refuse_if_in_use(path)?;
    let beside = path.with_file_name(format!(".{}", std::process::id()));
    let _ = fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside)?;
    listener.set_nonblocking(true)?;
    let moved = fs::set_permissions(&beside, Permissions::from_mode(mode))
        .and_then(|()| Ok(fs::symlink_metadata(&beside)?.ino()))
        .and_then(|inode| fs::rename(&beside, path).map(|()| inode));
    let inode = moved.inspect_err(|_| drop(fs::remove_file(&beside)))?;
    Ok((listener, inode))
}

/// Only a socket that nobody listens on may be replaced.
fn refuse_if_in_use(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket has this name, and is left as it is"));
        }
        Ok(_) => {}
    }
    let knock = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    match connect(&knock, &SocketAddrUnix::new(path)?) {
        Err(rustix::io::Errno::CONNREFUSED | rustix::io::Errno::NOENT) => Ok(()),
        // Its queue is full, or we may not: somebody listens.
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_its_permissions_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs.sock");
        let (listener, inode) = open_unix(&path, 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(open_unix(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        // What kill -9 leaves.
        drop(listener);
        let (_listener, replaced) = open_unix(&path, 0o660).unwrap();
        assert_ne!(inode, replaced);
        fs::write(folder.path().join("data"), "x").unwrap();
        assert_eq!(open_unix(&folder.path().join("data"), 0o660).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(folder.path().join("data")).unwrap(), b"x");
    }
}
