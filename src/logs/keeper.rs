//! Writes the state to the disk, away from the thread that reads: a slow disk must not delay a line.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::clock::Now;
use crate::logs::metrics::SnapshotMetrics;
use crate::logs::state::{Saved, Shared};
use crate::series::snapshot::Snapshots;

/// How long a change may wait for its snapshot; with the write itself that is about a second.
const INTERVAL: Duration = Duration::from_millis(900);

/// Keeps the state of the engine.
#[derive(Debug)]
pub struct Keeper {
    snapshots: Snapshots,
    inputs: Vec<String>,
    metrics: SnapshotMetrics,
    is_failing: bool,
}

// === impl Keeper ===

impl Keeper {
    /// Looks for the state of an earlier run. What cannot be trusted is said, and counted.
    #[must_use]
    pub fn open(folder: &Path, inputs: Vec<String>, metrics: SnapshotMetrics) -> (Self, Option<Saved>) {
        let (snapshots, found) = Snapshots::open(folder, "logs", Saved::decode);
        for (path, damage) in &found.damaged {
            metrics.failures.inc();
            tracing::warn!(path = %path.display(), reason = %damage, "a snapshot of the log state cannot be trusted; the other one is used if it is whole");
        }
        let saved = found.state;
        if saved.is_none() && !found.damaged.is_empty() {
            metrics.failures.inc();
            tracing::error!(folder = %folder.display(), "the log state is lost: counters begin at zero, and files where `start` says");
        }
        (Self { snapshots, inputs, metrics, is_failing: false }, saved)
    }

    /// How many snapshots failed.
    #[cfg(test)]
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.metrics.failures.get()
    }

    /// Writes snapshots until the stop. The one that belongs to the stop is not written here.
    pub fn run(&mut self, shared: &Shared) {
        let mut last = Instant::now();
        while shared.wait(last, INTERVAL) {
            last = Instant::now();
            self.save(shared);
        }
    }

    /// Writes a snapshot. A failure is said once, counted, and made good by the next one that works.
    pub fn save(&mut self, shared: &Shared) {
        let written = match shared.encode(&self.inputs) {
            Ok(payload) => self.snapshots.write(&payload).map_err(|error| cause_of(&error)),
            Err(error) => Err(error.to_string()),
        };
        match written {
            Ok(bytes) => {
                self.is_failing = false;
                self.metrics.bytes.inc_by(bytes as u64);
                self.metrics.written.set(Now::read().wall.as_duration().as_secs_f64());
            }
            Err(error) => {
                self.metrics.failures.inc();
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(
                        error,
                        "the log state is not kept: after a crash, lines since the last snapshot count twice or not at all"
                    );
                }
                shared.changed();
            }
        }
    }
}

/// What the operating system said is the only thing that helps whoever reads it.
fn cause_of(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
