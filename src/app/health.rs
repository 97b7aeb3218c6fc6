//! Health, put together: the board, the thread that looks and the task that writes the history down.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use prometheus_client::registry::Registry;

use crate::clock::Now;
use crate::config::health::Health;
use crate::health::board::Board;
use crate::health::history::{History, Keeper};
use crate::health::metrics::Metrics;
use crate::health::schedule::{self, Permits};
use crate::metrics::tasks::Tasks;
use crate::runtime::heartbeat::Heartbeat;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::supervise::Supervisor;

/// What others read of health.
pub(super) struct Parts {
    /// What is.
    pub board: Arc<Board>,
    /// What was.
    pub history: Arc<History>,
    /// The progress of the thread that looks.
    pub heartbeat: Heartbeat,
}

/// Starts everything of health. Looks have a thread and a runtime of their own: what collectors decode holds up none of
/// their timers, and a look that is passed from thread to thread wakes each of them (measured: half of what looks cost).
///
/// # Errors
/// When the operating system refuses the runtime or the thread.
pub(super) fn start(
    config: &Health,
    state_dir: Option<&Path>,
    shutdown: &Shutdown,
    registry: &mut Registry,
    supervisor: &mut Supervisor,
) -> std::io::Result<Parts> {
    let board = Arc::new(Board::new(config, Now::read()));
    let permits = Permits::default();
    let metrics = Metrics::register(&board, &permits, registry);
    let keeper = Keeper::open(&board, state_dir, registry, Now::read());
    let history = keeper.history();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Tasks::register([("workers", tokio::runtime::Handle::current().metrics()), ("checks", runtime.metrics())], registry);
    let heartbeat = Heartbeat::new(Instant::now());
    let looks = schedule::run(Arc::clone(&board), metrics, permits, shutdown.token());
    let beats = heartbeat.clone().run(shutdown.token());
    supervisor.spawn_thread("health", move || {
        let ended = runtime.block_on(async { tokio::try_join!(looks, beats) });
        // What is left, such as an attempt at a frozen server, must not hold up the end.
        runtime.shutdown_background();
        ended.map(drop)
    })?;
    supervisor.spawn("history", keeper.run(shutdown.token()));
    Ok(Parts { board, history, heartbeat })
}
