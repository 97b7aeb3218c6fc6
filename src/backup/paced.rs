//! Reads no faster than a bound, and stops when it is told to: the disk is the application's.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The longest sleep, so that a stop is seen.
const NAP: Duration = Duration::from_millis(100);

/// How fast is read.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// Bytes a second; without it, as fast as it goes.
    pub bytes_per_second: Option<u64>,
    /// Set when reading must stop.
    pub stop: Arc<AtomicBool>,
}

/// A reader with a pace.
pub(super) struct Paced<R> {
    inner: R,
    pace: Pace,
    began: Instant,
    read: u64,
}

// === impl Paced ===

impl<R: Read> Paced<R> {
    pub(super) fn new(inner: R, pace: &Pace) -> Self {
        Self { inner, pace: pace.clone(), began: Instant::now(), read: 0 }
    }

    #[expect(clippy::cast_precision_loss, reason = "a duration of sleep need not be exact")]
    fn wait(&self) -> io::Result<()> {
        loop {
            if self.pace.stop.load(Ordering::Relaxed) {
                return Err(io::Error::other(Stopped));
            }
            let Some(rate) = self.pace.bytes_per_second.filter(|rate| *rate > 0) else { return Ok(()) };
            let due = Duration::from_secs_f64(self.read as f64 / rate as f64);
            let Some(ahead) = due.checked_sub(self.began.elapsed()).filter(|ahead| !ahead.is_zero()) else { return Ok(()) };
            std::thread::sleep(ahead.min(NAP));
        }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait()?;
        let read = self.inner.read(buffer)?;
        self.read += read as u64;
        Ok(read)
    }
}

/// Reading was stopped: nothing is known.
#[derive(Debug, thiserror::Error)]
#[error("reading was stopped")]
pub(super) struct Stopped;
