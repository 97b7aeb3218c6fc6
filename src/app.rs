//! The composition root: a configuration becomes parts, the parts are supervised, and at the end they are drained.
//!
//! The only place that knows every domain.

mod state_dir;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use tokio::net::TcpListener;

use crate::admin::{self, Surface};
use crate::app::state_dir::{StateDir, StateDirError};
use crate::clock::Now;
use crate::collect::{CollectError, Collectors};
use crate::config::Config;
use crate::health;
use crate::health::board::Board;
use crate::health::metrics::Metrics as HealthMetrics;
use crate::logs::{Engine, LogsError};
use crate::metrics::registry;
use crate::retention::TtlObserver;
use crate::runtime::heartbeat::Heartbeat;
use crate::runtime::listen::serve;
use crate::runtime::shutdown::{Ending, Shutdown, Signals};
use crate::runtime::supervise::{PartResult, SuperviseError, Supervisor};
use crate::series::families::Overflow;

/// How long `/startupz` waits for the first round of checks.
const STARTUP_GRACE: Duration = Duration::from_secs(3);
/// How long the parts may take to stop: with the second before it, the process is gone within 5 s.
const STOP_LIMIT: Duration = Duration::from_millis(3500);
/// The workers do little but wait; two let one check's decoding not hold up another's timer.
const WORKERS: usize = 2;

/// The process could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The operating system refused threads, signals or the like.
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    /// Somebody else listens there, or the address is not ours.
    #[error("cannot listen on {address}; stop what listens there, or choose another address with `listen` or --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// Another process writes to the same folder.
    #[error(transparent)]
    State(#[from] StateDirError),
    /// The collectors of the database cannot be made.
    #[error("cannot make the collectors")]
    Collect(#[from] CollectError),
    /// The log engine cannot be made.
    #[error("cannot make the log engine")]
    Logs(#[from] LogsError),
    /// A part ended although nobody asked it to, failed, or did not stop.
    #[error(transparent)]
    Part(#[from] SuperviseError),
}

/// How the process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// In order.
    Gracefully,
    /// By a second signal, at once.
    Aborted(Ending),
}

/// Runs the sidecar until a signal ends it.
///
/// # Errors
/// What kept it from starting, or the part that failed.
pub fn run(config: Config) -> Result<Ended, AppError> {
    let workers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("worker")
        .enable_all()
        .build()
        .map_err(AppError::Runtime)?;
    let ended = workers.block_on(supervise(config));
    // What is left, such as an attempt at a frozen server, must not hold up the exit.
    workers.shutdown_background();
    ended
}

async fn supervise(config: Config) -> Result<Ended, AppError> {
    let mut signals = Signals::listen().map_err(AppError::Runtime)?;
    let shutdown = Shutdown::default();
    let state_dir = StateDir::open(&config.state_dir)?;
    let listener = bind(config.listen).await?;
    let mut supervisor = Supervisor::default();
    start(config, state_dir.as_ref(), listener, &shutdown, &mut supervisor)?;
    tokio::select! {
        ending = signals.next() => tracing::info!(?ending, "shutting down"),
        error = supervisor.first_end() => {
            shutdown.begin_now();
            // The first failure is the one that matters; those of the parts that it took along are not.
            let _ = supervisor.join(STOP_LIMIT).await;
            return Err(error.into());
        }
    }
    let drain = async {
        shutdown.begin().await;
        supervisor.join(STOP_LIMIT).await
    };
    tokio::select! {
        joined = drain => joined?,
        ending = signals.next() => {
            tracing::warn!("a second signal: ending at once");
            return Ok(Ended::Aborted(ending));
        }
    }
    tracing::info!("stopped");
    Ok(Ended::Gracefully)
}

/// Makes all parts and starts them.
fn start(
    config: Config,
    state_dir: Option<&StateDir>,
    listener: std::net::TcpListener,
    shutdown: &Shutdown,
    supervisor: &mut Supervisor,
) -> Result<(), AppError> {
    let mut registry = registry();
    let persistent: Gauge = Gauge::default();
    persistent.set(i64::from(state_dir.is_some()));
    registry.register("bellwether_state_persistent", "Whether counters and positions survive a restart", persistent);

    let board = Arc::new(Board::new(&config.health, Now::read()));
    let health_metrics = HealthMetrics::register(&board, &mut registry);
    supervisor.spawn("health", health::schedule::run(Arc::clone(&board), health_metrics, shutdown.token()));

    let mut overflow = Overflow::default();
    if let Some(store) = &config.stores.mongodb {
        let collectors = Collectors::new(&config.collect, store, state_dir.map(StateDir::path), &mut registry)?;
        overflow.0.extend(collectors.families());
        supervisor.spawn("collect", collectors.run(shutdown.token()));
        let ttl = TtlObserver::new(&config.retention.ttl, store, &mut registry);
        supervisor.spawn("retention", ttl.run(shutdown.token()));
    }
    let engine = Engine::new(&config.logs, state_dir.map(StateDir::path))?;
    engine.register(&mut registry);
    registry.register_collector(Box::new(engine.families()));
    overflow.0.push(engine.families());
    registry.register_collector(Box::new(overflow));
    let caught_up = engine.caught_up();
    let stop = shutdown.token();
    supervisor.spawn_thread("logs", move || engine.run(stop)).map_err(AppError::Runtime)?;

    let heartbeat = Heartbeat::new(Instant::now());
    supervisor.spawn("heartbeat", heartbeat.clone().run(shutdown.token()));

    let surface = Surface {
        board,
        registry,
        caught_up,
        shutdown: shutdown.clone(),
        heartbeat,
        token: config.token,
        profile: config.profile,
        started: Instant::now(),
        startup_grace: STARTUP_GRACE,
    };
    let stop = shutdown.token();
    // Probes answer from a thread of their own, whatever the workers do.
    supervisor.spawn_thread("admin", move || serve_admin(listener, surface, stop)).map_err(AppError::Runtime)?;
    tracing::info!(listen = %config.listen, profile = config.profile, "ready to answer");
    Ok(())
}

fn serve_admin(listener: std::net::TcpListener, surface: Surface, stop: tokio_util::sync::CancellationToken) -> PartResult {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        serve(listener, admin::router(Arc::new(surface)), stop).await;
        Ok(())
    })
}

/// Binds first, so that an address in use is known before anything runs.
async fn bind(address: SocketAddr) -> Result<std::net::TcpListener, AppError> {
    let refused = |cause| AppError::Listen { address, cause };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    listener.into_std().map_err(refused)
}
