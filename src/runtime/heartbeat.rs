//! The proof that the workers make progress, for a liveness that depends on nothing remote.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::runtime::supervise::PartResult;

/// How often the workers prove it.
const BEAT: Duration = Duration::from_millis(500);

/// When the workers last made progress. Read from any thread, written by a task of theirs.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    start: Instant,
    last_millis: Arc<AtomicU64>,
}

// === impl Heartbeat ===

impl Heartbeat {
    /// A heart that has just beaten.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { start: now, last_millis: Arc::default() }
    }

    /// How long ago the last beat is.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        let last = Duration::from_millis(self.last_millis.load(Ordering::Relaxed));
        now.saturating_duration_since(self.start).saturating_sub(last)
    }

    /// Beats until `stop`. Runs on the workers whose progress it proves.
    ///
    /// # Errors
    /// Never.
    pub async fn run(self, stop: CancellationToken) -> PartResult {
        let mut ticks = tokio::time::interval(BEAT);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
                    self.last_millis.store(millis, Ordering::Relaxed);
                }
                () = stop.cancelled() => return Ok(()),
            }
        }
    }
}
