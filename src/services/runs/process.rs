//! A process that can be found again: its number, when it began, and in which life of the machine. Numbers are given
//! again; the three together are not.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// Which process.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Identity {
    pid: i32,
    /// Ticks from the machine's start to its own.
    began: u64,
    /// The life of the machine.
    boot: String,
}

/// A process that is held: its number cannot become another's while this is.
#[derive(Debug)]
pub(super) struct Held {
    pid: Pid,
    handle: OwnedFd,
}

// === impl Identity ===

impl Identity {
    /// Of a process that lives.
    ///
    /// # Errors
    /// When it does not, or the system does not show it.
    pub(super) fn of(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, began: began(pid)?, boot: boot()? })
    }

    /// The process, if it still lives.
    pub(super) fn hold(&self) -> Option<Held> {
        let pid = Pid::from_raw(self.pid)?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Looked at after it is held: what is seen now is what the handle means.
        let is_same = began(self.pid).is_ok_and(|began| began == self.began) && boot().is_ok_and(|boot| boot == self.boot);
        let held = Held { pid, handle };
        (is_same && held.is_alive()).then_some(held)
    }
}

// === impl Held ===

impl Held {
    /// Whether it has not ended. One that nobody has waited for has ended all the same.
    pub(super) fn is_alive(&self) -> bool {
        let mut descriptors = [PollFd::new(&self.handle, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        !matches!(poll(&mut descriptors, Some(&now)), Ok(1..))
    }

    /// Sends it a signal; one that has ended gets none.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.handle, signal) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            sent => sent.map_err(io::Error::from),
        }
    }

    /// Sends a signal to all of its group; only as long as it lives, for the group has its number.
    pub(super) fn signal_group(&self, signal: Signal) -> io::Result<()> {
        if self.is_alive() { kill_process_group(self.pid, signal).map_err(io::Error::from) } else { Ok(()) }
    }
}

/// The 22nd field of `/proc/PID/stat`; the second is the name, in brackets, and may hold anything.
fn began(pid: i32) -> io::Result<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat"))?;
    let name_end = stat.iter().rposition(|byte| *byte == b')').unwrap_or_default();
    let rest = String::from_utf8_lossy(&stat[name_end..]);
    // The third field is the first after the bracket.
    let began = rest.split_whitespace().nth(20).and_then(|field| field.parse().ok());
    began.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat has another form than it should"))
}

fn boot() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_again_and_another_is_not_taken_for_it() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep runs");
        let identity = Identity::of(i32::try_from(child.id()).expect("a number")).expect("it lives");
        let held = identity.hold().expect("it lives");
        assert!(held.is_alive());
        let earlier = Identity { began: identity.began - 1, ..identity.clone() };
        assert!(earlier.hold().is_none(), "the number was another's before");
        let elsewhere = Identity { boot: "another life".to_owned(), ..identity.clone() };
        assert!(elsewhere.hold().is_none());

        held.signal(Signal::KILL).expect("sent");
        while held.is_alive() {
            std::thread::yield_now();
        }
        assert!(identity.hold().is_none(), "it has ended, though nobody has waited for it");
        child.wait().expect("waited for");
        held.signal(Signal::KILL).expect("nobody is there to be hit");
    }
}
