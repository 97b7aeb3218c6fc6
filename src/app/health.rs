//! Health, put together: the board, the task that looks and the task that writes the history down.

use std::path::Path;
use std::sync::Arc;

use prometheus_client::registry::Registry;

use crate::clock::Now;
use crate::config::health::Health;
use crate::health::board::Board;
use crate::health::history::{History, Keeper};
use crate::health::metrics::Metrics;
use crate::health::schedule::{self, Permits};
use crate::runtime::shutdown::Shutdown;
use crate::runtime::supervise::Supervisor;

/// What others read of health.
pub(super) struct Parts {
    /// What is.
    pub board: Arc<Board>,
    /// What was.
    pub history: Arc<History>,
}

/// Starts everything of health.
pub(super) fn start(
    config: &Health,
    state_dir: Option<&Path>,
    shutdown: &Shutdown,
    registry: &mut Registry,
    supervisor: &mut Supervisor,
) -> Parts {
    let board = Arc::new(Board::new(config, Now::read()));
    let permits = Permits::default();
    let metrics = Metrics::register(&board, &permits, registry);
    let keeper = Keeper::open(&board, state_dir, registry, Now::read());
    let history = keeper.history();
    supervisor.spawn("health", schedule::run(Arc::clone(&board), metrics, permits, shutdown.token()));
    supervisor.spawn("history", keeper.run(shutdown.token()));
    Parts { board, history }
}
