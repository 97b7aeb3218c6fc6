//! What was: uptime and transitions of every check over the last 30 days, kept over restarts.
//!
//! Owns the log, its file and the task that writes it down. Reads the board; knows nothing of looks.

pub mod log;
mod slots;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::clock::Now;
use crate::health::aggregate::Snapshot;
use crate::health::board::Board;
use crate::health::history::log::{CheckReport, Log, Seconds, Summary, Window};
use crate::health::maintenance::Call;
use crate::runtime::supervise::PartResult;
use crate::series::snapshot::Snapshots;

/// The name of the state files.
const NAME: &str = "health";
/// The states are written down at least this often, so that a transition is known to a second.
const SAMPLE: Duration = Duration::from_secs(1);
/// What a kill -9 may cost: this much of the history is unknown afterwards.
const SAVE: Duration = Duration::from_secs(60);

/// How many changes the summary has.
const CHANGES: usize = 20;

/// The history of all checks.
#[derive(Debug)]
pub struct History {
    content: Mutex<Content>,
}

#[derive(Debug)]
struct Content {
    log: Log,
    /// Put together at the first question after a sample, and handed out until the next.
    summary: Option<Arc<Summary>>,
}

/// What is kept over a restart.
#[derive(Debug, Deserialize, Serialize)]
struct Kept {
    log: Log,
    calls: Vec<Call>,
}

/// The task that writes the history down.
#[derive(Debug)]
pub struct Keeper {
    history: Arc<History>,
    board: Arc<Board>,
    file: Option<Snapshots>,
    /// The maintenances as they were last saved: a new one is saved at once.
    saved_calls: Vec<Call>,
}

#[derive(Debug)]
struct UptimeCollector(Arc<History>);

// === impl History ===

impl History {
    /// What is known of one check, or of all, within a window. `None` when there is no such check.
    #[must_use]
    pub fn report(&self, check: Option<&str>, window: Window, now: Now) -> Option<Vec<CheckReport>> {
        self.lock().log.report(check, window, now.wall)
    }

    /// What is shown of all checks at once, as of the last sample, which is a second old at most.
    #[must_use]
    pub fn summary(&self, now: Now) -> Arc<Summary> {
        let Content { log, summary } = &mut *self.lock();
        Arc::clone(summary.get_or_insert_with(|| Arc::new(log.summary(CHANGES, now.wall))))
    }

    fn sample(&self, snapshot: &Snapshot, now: Now) {
        let mut content = self.lock();
        content.summary = None;
        content.log.sample(snapshot, now);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Keeper ===

impl Keeper {
    /// Reads what is known from before, and registers the uptime.
    #[must_use]
    pub fn open(board: &Arc<Board>, folder: Option<&Path>, registry: &mut Registry, now: Now) -> Self {
        let (file, kept) = folder.map_or((None, None), |folder| {
            let (file, found) = Snapshots::open(folder, NAME, |payload| postcard::from_bytes::<Kept>(payload).ok());
            for (path, damage) in &found.damaged {
                tracing::warn!(path = %path.display(), %damage, "a file with the history of health is damaged and passed over");
            }
            (Some(file), found.state)
        });
        let Kept { mut log, calls } = kept.unwrap_or_else(|| Kept { log: Log::default(), calls: Vec::new() });
        log.resume(now.wall);
        for call in &calls {
            board.restore_maintenance(call.clone(), now);
        }
        let history = Arc::new(History { content: Mutex::new(Content { log, summary: None }) });
        registry.register_collector(Box::new(UptimeCollector(Arc::clone(&history))));
        Self { history, board: Arc::clone(board), file, saved_calls: calls }
    }

    /// The history, to be read.
    #[must_use]
    pub fn history(&self) -> Arc<History> {
        Arc::clone(&self.history)
    }

    /// Writes the history down until `stop`.
    ///
    /// # Errors
    /// Never: a file that cannot be written is reported and tried again.
    pub async fn run(mut self, stop: CancellationToken) -> PartResult {
        let mut ticks = tokio::time::interval(SAMPLE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut saved = tokio::time::Instant::now();
        let mut is_writable = true;
        loop {
            let stopping = tokio::select! {
                _ = ticks.tick() => false,
                () = self.board.moved() => false,
                () = stop.cancelled() => true,
            };
            self.sample(Now::read());
            let calls = self.board.maintenances(Now::read());
            if stopping || calls != self.saved_calls || saved.elapsed() >= SAVE {
                saved = tokio::time::Instant::now();
                self.saved_calls.clone_from(&calls);
                is_writable = self.save(calls, is_writable).await;
            }
            if stopping {
                return Ok(());
            }
        }
    }

    fn sample(&self, now: Now) {
        let snapshot = self.board.snapshot(now);
        self.history.sample(&snapshot, now);
    }

    /// Writes the file on a thread that may wait for the disk. Reports once that it cannot be written.
    async fn save(&mut self, calls: Vec<Call>, was_writable: bool) -> bool {
        let Some(mut file) = self.file.take() else { return true };
        let log = self.history.lock().log.clone();
        let written = tokio::task::spawn_blocking(move || {
            let payload = postcard::to_stdvec(&Kept { log, calls }).map_err(|error| error.to_string());
            let written = payload.and_then(|payload| file.write(&payload).map(|_| ()).map_err(|error| error.to_string()));
            (file, written)
        });
        let Ok((file, written)) = written.await else { return was_writable };
        self.file = Some(file);
        if let Err(error) = &written
            && was_writable
        {
            tracing::warn!(error, "the history of health could not be saved; it is tried again every minute");
        }
        written.is_ok()
    }
}

// === impl UptimeCollector ===

impl Collector for UptimeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let summary = self.0.summary(Now::read());
        let mut write = |name: &str, help: &str, ratio: fn(Seconds) -> Option<f64>| -> std::fmt::Result {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (number, window) in Window::ALL.into_iter().enumerate() {
                for uptime in &summary.uptimes {
                    if let Some(ratio) = ratio(uptime.windows[number]) {
                        let labels = [("check", uptime.check.as_str()), ("window", window.name())];
                        ConstGauge::new(ratio).encode(metric.encode_family(&labels)?)?;
                    }
                }
            }
            Ok(())
        };
        let help = "Part of the known time within the window in which a check passed.";
        write("bellwether_check_uptime_ratio", help, Seconds::ratio)?;
        let help = "The same without the time in maintenance.";
        write("bellwether_check_uptime_without_maintenance_ratio", help, Seconds::ratio_without_maintenance)
    }
}
