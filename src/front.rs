//! The front door: a reverse proxy before the application's API that lets nobody in without a key, keeps everybody within
//! limits, and passes the rest on.
//!
//! Owns what happens to a request between a client and the API. It has a thread and a runtime of its own, so that neither
//! the domains nor the probes wait for it.

mod body;
mod clients;
mod cors;
mod door;
mod headers;
mod keys;
mod metrics;
mod path;
mod refusal;
mod routes;
mod tunnel;
mod upstream;
mod visit;

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::front::Front;
use crate::front::clients::Clients;
use crate::front::door::{Door, House};
use crate::front::keys::Keys;
use crate::front::metrics::FrontMetrics;
use crate::front::routes::Routes;
use crate::front::upstream::Upstream;
use crate::runtime::certificate::Certificate;
use crate::runtime::keys::KeyError;
use crate::runtime::listen::{Bounds, ListenerMetrics, Served, serve};
use crate::runtime::supervise::PartResult;

/// How long requests that have begun may go on after the stop: within the time that the process has for its end.
const DRAIN: Duration = Duration::from_secs(3);
/// Names are looked up and files are read on these.
const BLOCKING_THREADS: usize = 2;

/// The front door could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// A file of keys cannot be used.
    #[error("cannot use front.auth.keys")]
    Keys(#[from] KeyError),
    /// TLS towards the API cannot be made.
    #[error("cannot use front.upstream")]
    Upstream(#[source] Box<dyn Error + Send + Sync>),
}

/// The front door, ready to be opened.
#[derive(Debug)]
pub struct FrontDoor {
    served: Served<Door>,
    keys: Arc<Keys>,
    stop: CancellationToken,
}

// === impl FrontDoor ===

impl FrontDoor {
    /// Makes everything that a request will meet. Nothing is connected yet.
    ///
    /// # Errors
    /// When keys or authorities cannot be used.
    pub fn new(
        config: Front,
        certificate: Option<Arc<Certificate>>,
        listener: ListenerMetrics,
        registry: &mut Registry,
        stop: CancellationToken,
    ) -> Result<Self, FrontError> {
        let metrics = FrontMetrics::default();
        metrics.register(registry);
        let keys = Arc::new(Keys::open(&config.auth, &metrics)?);
        let upstream = Upstream::new(&config.upstream, &config.timeouts, metrics.clone()).map_err(FrontError::Upstream)?;
        let routes = Routes::new(&config.routes);
        let bounds = Bounds {
            connections: config.limits.connections,
            head: config.timeouts.head,
            idle: config.timeouts.idle,
            head_bytes: config.limits.head,
            http2: true,
            drain: DRAIN,
        };
        let house = House {
            routes_metrics: metrics.of_routes(&routes),
            routes,
            keys: Arc::clone(&keys),
            clients: Mutex::new(Clients::new(&config.limits)),
            upstream,
            metrics,
            opened: Instant::now(),
            stop: stop.clone(),
            config,
        };
        Ok(Self { served: Served { service: Door(Arc::new(house)), certificate, metrics: listener, bounds }, keys, stop })
    }

    /// Answers on `listener` until the stop. Blocks its thread.
    ///
    /// # Errors
    /// When the operating system refuses a runtime.
    pub fn run(self, listener: std::net::TcpListener) -> PartResult {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(BLOCKING_THREADS).enable_all().build()?;
        runtime.block_on(async {
            let served = serve(TcpListener::from_std(listener)?, self.served, self.stop.clone());
            tokio::join!(served, self.keys.keep_current(self.stop)).1
        })
    }
}
