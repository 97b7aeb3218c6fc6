//! Passes on what a command writes, unchanged, as long as somebody reads it.

use std::fs::File;
use std::io::{self, Write as _};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::runtime::stderr::SharedStderr;

/// A pipe that can be written to has room for this much: no write of it waits.
const PIECE: usize = 4096;
/// How often a reader that is slow is asked whether the stop has come.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// So often it is asked again after the stop; then what it has not read is lost.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// Where a stream of the command goes on to.
#[derive(Debug)]
pub struct Tee {
    output: Output,
    is_broken: bool,
}

/// One of our own outputs.
#[derive(Debug)]
pub enum Output {
    /// It is the command's alone.
    Alone(File),
    /// Our own log goes there, too.
    Shared(SharedStderr),
}

// === impl Tee ===

impl Tee {
    /// Passes on to an output.
    #[must_use]
    pub fn new(output: Output) -> Self {
        Self { output, is_broken: false }
    }

    /// Passes bytes on. Waits for a slow reader, so that the command waits as it would without us; one that has gone
    /// away is forgotten, and the command does not notice.
    pub fn pass(&mut self, bytes: &[u8], is_stopping: &dyn Fn() -> bool) {
        if self.is_broken {
            return;
        }
        if let Err(error) = self.write(bytes, is_stopping) {
            self.is_broken = true;
            tracing::warn!(%error, "nobody reads on what the command writes; its lines are still counted");
        }
    }

    fn write(&mut self, bytes: &[u8], is_stopping: &dyn Fn() -> bool) -> io::Result<()> {
        let mut waited = Duration::ZERO;
        for piece in bytes.chunks(PIECE) {
            while !self.is_writable()? {
                waited += Duration::from_millis(200);
                if is_stopping() && waited >= LAST_PATIENCE {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            match &mut self.output {
                Output::Alone(file) => file.write_all(piece)?,
                Output::Shared(stderr) => stderr.pass(piece)?,
            }
        }
        Ok(())
    }

    fn is_writable(&self) -> io::Result<bool> {
        let stderr;
        let mut fds = [match &self.output {
            Output::Alone(file) => PollFd::new(file, PollFlags::OUT),
            Output::Shared(_) => {
                stderr = io::stderr();
                PollFd::new(&stderr, PollFlags::OUT)
            }
        }];
        match poll(&mut fds, Some(&PATIENCE)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
