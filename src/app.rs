//! The composition root: a configuration becomes parts, the parts are supervised, and at the end they are drained.
//!
//! The only place that knows every domain.

mod command;
mod front;
mod health;
mod notify;
mod reload;
mod retention;
mod services;
mod state_dir;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admin::control::Control;
use crate::admin::document::Documents;
use crate::admin::{self, Surface};
use crate::app::front::Threshold;
use crate::app::notify::Notify;
use crate::app::reload::{Reloader, Requests};
pub use crate::app::services::ServicesError;
use crate::app::state_dir::{StateDir, StateDirError};
use crate::backup::BackupWatch;
use crate::collect::{CollectError, Collectors};
use crate::config::Config;
use crate::config::origin::Origin;
use crate::front::FrontError;
use crate::health::board::Board;
use crate::logs::{Engine, LogsError};
use crate::metrics::registry;
use crate::notify::courier::CourierError;
use crate::runtime::certificate::{Certificate, CertificateError};
use crate::runtime::child::{Child, Relay, SpawnError};
use crate::runtime::heartbeat::Heartbeat;
use crate::runtime::listen::{Bounds, ListenerMetrics, Served, serve};
use crate::runtime::pages;
use crate::runtime::shutdown::{Ending, Shutdown, Signals};
use crate::runtime::stderr::SharedStderr;
use crate::runtime::supervise::{PartResult, SuperviseError, Supervisor};
use crate::runtime::token::{Token, TokenError};
use crate::series::families::Limits;
use crate::shipped::compiled::RuleError;

/// How long `/startupz` waits for the first round of checks.
const STARTUP_GRACE: Duration = Duration::from_secs(3);
/// Without a beat for this long, the workers are held to be stuck: sixty beats. A machine that is merely busy was seen
/// to miss none.
const STUCK_AFTER: Duration = Duration::from_secs(30);
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
    /// A listener's certificate cannot be used.
    #[error("cannot serve TLS")]
    Certificate(#[from] CertificateError),
    /// The token of the details cannot be used.
    #[error("cannot use admin.token_file")]
    Token(#[from] TokenError),
    /// The alert rules cannot be evaluated.
    #[error("cannot evaluate the alert rules")]
    Alerts(#[from] RuleError),
    /// Nobody can be told of alerts.
    #[error("cannot tell anybody of alerts")]
    Notify(#[from] CourierError),
    /// The front door cannot be made.
    #[error("cannot open the front door")]
    Front(#[from] FrontError),
    /// A service that the sidecar is to be itself cannot be made.
    #[error(transparent)]
    Services(#[from] ServicesError),
    /// The log engine cannot be made.
    #[error("cannot make the log engine")]
    Logs(#[from] LogsError),
    /// The command cannot be started.
    #[error(transparent)]
    Command(#[from] SpawnError),
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
    /// With the command that it ran in front of, and with this exit code.
    Command(u8),
}

/// A command to run in front of.
#[derive(Debug)]
pub struct Front {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// How long the last metrics are to be had after its end.
    pub linger: Duration,
    /// Where what it writes to standard error goes, between the lines of our own log.
    pub stderr: SharedStderr,
}

/// What is listened on.
struct Listeners {
    read_only: std::net::TcpListener,
    control: Option<std::net::TcpListener>,
    front: Option<std::net::TcpListener>,
}

/// Runs the sidecar until a signal, or the command that it runs in front of, ends it. `origin` is where `config` came
/// from, for a reload.
///
/// # Errors
/// What kept it from starting, or the part that failed.
pub fn run(config: Config, origin: Origin, front: Option<Front>) -> Result<Ended, AppError> {
    let workers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("worker")
        .enable_all()
        .build()
        .map_err(AppError::Runtime)?;
    let ended = workers.block_on(supervise(config, origin, front));
    // What is left, such as an attempt at a frozen server, must not hold up the exit.
    workers.shutdown_background();
    ended
}

async fn supervise(config: Config, origin: Origin, front: Option<Front>) -> Result<Ended, AppError> {
    let shutdown = Shutdown::default();
    let state_dir = StateDir::open(&config.state_dir)?;
    let listeners = Listeners {
        read_only: bind(config.listen).await?,
        control: bind_where(config.control).await?,
        front: bind_where(config.front.as_ref().map(|front| front.listen)).await?,
    };
    let mut supervisor = Supervisor::default();
    supervisor.spawn("pages", pages::run(shutdown.token()));
    if let Some(front) = front {
        let relay = Relay::listen().map_err(AppError::Runtime)?;
        let linger = front.linger;
        let parts = start(config, origin, state_dir.as_ref().map(StateDir::path), listeners, Some(front), &shutdown, &mut supervisor)?;
        return match parts {
            Some(child) => Ok(Ended::Command(command::run(child, relay, linger, &shutdown, supervisor).await)),
            None => Ok(Ended::Gracefully),
        };
    }
    let mut signals = Signals::listen().map_err(AppError::Runtime)?;
    start(config, origin, state_dir.as_ref().map(StateDir::path), listeners, None, &shutdown, &mut supervisor)?;
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
    mut config: Config,
    origin: Origin,
    state_dir: Option<&Path>,
    listeners: Listeners,
    front: Option<Front>,
    shutdown: &Shutdown,
    supervisor: &mut Supervisor,
) -> Result<Option<Child>, AppError> {
    let mut registry = registry();
    let persistent: Gauge = Gauge::default();
    persistent.set(i64::from(state_dir.is_some()));
    registry.register("bellwether_state_persistent", "Whether counters and positions survive a restart", persistent);

    let health = health::start(&config.health, state_dir, shutdown, &mut registry, supervisor).map_err(AppError::Runtime)?;
    let mut limits = Limits::default();
    if let Some(store) = &config.stores.mongodb {
        let collectors = Collectors::new(&config.collect, store, state_dir, &mut registry)?;
        limits.0.extend(collectors.families());
        supervisor.spawn("collect", collectors.run(shutdown.token()));
    }
    let embedded = services::start(&mut config, state_dir, &mut registry, shutdown, supervisor)?;
    let questions = retention::start(&config, state_dir, shutdown, &mut registry, supervisor);
    let mut engine = Engine::new(&config.logs, state_dir)?;
    let fatal_lines = engine.take_fatal_lines();
    engine.register(&mut registry);
    registry.expose(engine.families());
    limits.0.push(engine.families());
    registry.expose(limits);
    let (requests, reloader) = Reloader::new(origin, &config, Arc::clone(&health.board), engine.revision(), &mut registry);
    supervisor.spawn("reload", reloader.run(shutdown.token()));
    let (caught_up, samples) = (engine.caught_up(), engine.samples());
    // The command is started last: whatever can go wrong has not.
    let child = front.map(|front| command::start(&front, &mut engine)).transpose()?;
    let stop = shutdown.token();
    supervisor.spawn_thread("logs", move || engine.run(stop)).map_err(AppError::Runtime)?;

    let backups = BackupWatch::new(&config.backups, &config.protected, &mut registry);
    supervisor.spawn("backups", backups.run(shutdown.token()));

    let heartbeat = Heartbeat::new(Instant::now());
    supervisor.spawn("heartbeat", heartbeat.clone().run(shutdown.token()));

    let retention_routes = questions.map(admin::retention::router).unwrap_or_default();
    let [read_only_metrics, control_metrics, front_metrics] = ListenerMetrics::register(["read_only", "control", "front"], &mut registry);
    let [certificate, control_certificate, front_certificate] = certificates(&config, &mut registry, shutdown, supervisor)?;
    let token = config.token.clone().map(|file| Token::open(file, &mut registry)).transpose()?;
    if let Some(token) = &token {
        supervisor.spawn("token", Arc::clone(token).keep_current(shutdown.token()));
    }
    if let Some((door, listener)) = config.front.clone().zip(listeners.front) {
        let threshold = Threshold { socket: listener, certificate: front_certificate, metrics: front_metrics };
        front::start(door, &embedded, threshold, &mut registry, shutdown, supervisor)?;
    }
    let notify = Notify::new(&config, state_dir, &mut registry)?;
    // All that is exposed is registered.
    let registry = Arc::new(registry);
    notify.start(&registry, &caught_up, fatal_lines, shutdown, supervisor);
    let control = control(listeners.control, token.clone(), &health.board, requests, admin::logs::router(samples).merge(retention_routes));
    let surface = Surface {
        board: health.board,
        history: health.history,
        documents: Documents::default(),
        registry,
        caught_up,
        shutdown: shutdown.clone(),
        heartbeats: [("workers", heartbeat), ("checks", health.heartbeat)],
        stuck_after: STUCK_AFTER,
        token,
        profile: config.profile,
        started: Instant::now(),
        startup_grace: STARTUP_GRACE,
    };
    let stop = shutdown.token();
    // Probes answer from a thread of their own, whatever the workers do.
    let bounds = Bounds::default();
    let read_only = Served { service: admin::router(Arc::new(surface)), certificate, metrics: read_only_metrics, bounds };
    let read_only = (listeners.read_only, read_only);
    let control = control
        .map(|(listener, service)| (listener, Served { service, certificate: control_certificate, metrics: control_metrics, bounds }));
    supervisor.spawn_thread("admin", move || serve_admin(read_only, control, stop)).map_err(AppError::Runtime)?;
    if let Some(address) = config.control {
        tracing::info!(listen = %address, "ready to be changed");
    }
    tracing::info!(listen = %config.listen, profile = config.profile, "ready to answer");
    Ok(child)
}

/// The certificates of the listeners, which are kept current: of the surface, of control, of the front door.
fn certificates(
    config: &Config,
    registry: &mut Registry,
    shutdown: &Shutdown,
    supervisor: &mut Supervisor,
) -> Result<[Option<Arc<Certificate>>; 3], AppError> {
    let front = config.front.as_ref().and_then(|front| front.tls.as_ref());
    let files = [("read_only", config.tls.as_ref()), ("control", config.control_tls.as_ref()), ("front", front)];
    let certificates = Certificate::open(files, registry)?;
    for certificate in certificates.iter().flatten() {
        supervisor.spawn("certificates", Arc::clone(certificate).keep_current(shutdown.token()));
    }
    Ok(certificates)
}

/// The control listener with its routes, where there is one. Domains add theirs here.
fn control(
    listener: Option<std::net::TcpListener>,
    token: Option<Arc<Token>>,
    board: &Arc<Board>,
    reload: Requests,
    more: Router,
) -> Option<(std::net::TcpListener, Router)> {
    let (listener, token) = listener.zip(token)?;
    let control = Control { board: Arc::clone(board), token, reload };
    Some((listener, admin::control::router(Arc::new(control), more)))
}

fn serve_admin(
    read_only: (std::net::TcpListener, Served<Router>),
    control: Option<(std::net::TcpListener, Served<Router>)>,
    stop: CancellationToken,
) -> PartResult {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(admin::WRITERS).enable_all().build()?;
    runtime.block_on(async {
        let (listener, service) = read_only;
        let read_only = serve(TcpListener::from_std(listener)?, service, stop.clone());
        match control {
            Some((listener, service)) => {
                tokio::join!(read_only, serve(TcpListener::from_std(listener)?, service, stop));
            }
            None => read_only.await,
        }
        Ok(())
    })
}

async fn bind_where(address: Option<SocketAddr>) -> Result<Option<std::net::TcpListener>, AppError> {
    match address {
        Some(address) => bind(address).await.map(Some),
        None => Ok(None),
    }
}

/// Binds first, so that an address in use is known before anything runs.
async fn bind(address: SocketAddr) -> Result<std::net::TcpListener, AppError> {
    let refused = |cause| AppError::Listen { address, cause };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    listener.into_std().map_err(refused)
}
