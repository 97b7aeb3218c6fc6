//! The front door: a reverse proxy before the application's API that lets nobody in without a key, keeps everybody within
//! limits, and passes the rest on.
//!
//! Owns what happens to a request between a client and the API. It has a thread and a runtime of its own, so that neither
//! the domains nor the probes wait for it.

mod admission;
mod body;
mod claims;
mod clients;
mod cors;
mod door;
mod headers;
mod jobs;
mod keys;
mod metrics;
mod path;
mod processes;
mod refusal;
mod routes;
mod starts;
mod tunnel;
mod upstream;
mod visit;
mod watch;

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::front::Front;
use crate::config::front::admission::Admission;
use crate::front::claims::Claims;
use crate::front::clients::Clients;
use crate::front::door::{Door, House, START};
use crate::front::keys::{Keys, KeysError};
use crate::front::metrics::FrontMetrics;
use crate::front::metrics::starts::StartMetrics;
use crate::front::routes::Routes;
use crate::front::starts::Starts;
use crate::front::upstream::Upstream;
use crate::front::watch::Watch;
use crate::runtime::certificate::Certificate;
use crate::runtime::listen::{Bounds, ListenerMetrics, Served, serve};
use crate::runtime::supervise::PartResult;

/// How long requests that have begun may go on after the stop: within the time that the process has for its end.
const DRAIN: Duration = Duration::from_secs(3);
/// How long what goes on behind answers may take after that.
const FINISH: Duration = Duration::from_millis(300);
/// Names are looked up and files are read on these.
const BLOCKING_THREADS: usize = 2;

/// The front door could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// Whom to let in cannot be known.
    #[error("cannot use front.auth")]
    Keys(#[from] KeysError),
    /// TLS towards the API cannot be made.
    #[error("cannot use front.upstream")]
    Upstream(#[source] Box<dyn Error + Send + Sync>),
}

/// Services within this process that stand behind the front door, instead of the API.
#[derive(Clone, Debug, Default)]
pub struct Embedded {
    /// Answers what is asked of runs.
    pub runs: Option<Router>,
    /// Answers what is asked of secrets.
    pub secrets: Option<Router>,
}

/// The front door, ready to be opened.
#[derive(Debug)]
pub struct FrontDoor {
    served: Served<Door>,
    keys: Arc<Keys>,
    upstream: Arc<Upstream>,
    starts: Option<(Arc<Starts>, Watch)>,
    stop: CancellationToken,
}

// === impl Embedded ===

impl Embedded {
    /// The service that answers a route, where there is one.
    fn for_template(&self, template: &str) -> Option<Router> {
        const RUNS: [&str; 3] = [START, "/api/v1/projects/{id}/status", "/api/v1/projects/{id}/runs"];
        if template.starts_with("/api/v1/projects/{id}/secrets") {
            return self.secrets.clone();
        }
        let is_of_runs = RUNS.contains(&template) || template == "/api/v1/runs" || template.starts_with("/api/v1/runs/");
        self.runs.clone().filter(|_| is_of_runs)
    }
}

// === impl FrontDoor ===

impl FrontDoor {
    /// Makes everything that a request will meet. Nothing is connected yet. `who` is told to people who look at a claim.
    ///
    /// # Errors
    /// When keys or authorities cannot be used.
    pub fn new(
        config: Front,
        who: String,
        embedded: &Embedded,
        certificate: Option<Arc<Certificate>>,
        listener: ListenerMetrics,
        registry: &mut Registry,
        stop: CancellationToken,
    ) -> Result<Self, FrontError> {
        let metrics = FrontMetrics::default();
        metrics.register(registry);
        let keys = Arc::new(Keys::open(&config.auth, &metrics)?);
        let upstream = Arc::new(Upstream::new(&config.upstream, &config.timeouts, metrics.clone()).map_err(FrontError::Upstream)?);
        let routes = Routes::new(&config.routes);
        let starts = config.admission.clone().map(|admission| starts(admission, who, registry));
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
            starts: starts.as_ref().map(|(starts, _)| Arc::clone(starts)),
            embedded: routes.templates().iter().map(|template| embedded.for_template(template)).collect(),
            start_template: routes.templates().iter().position(|template| **template == *START),
            routes,
            keys: Arc::clone(&keys),
            clients: Mutex::new(Clients::new(&config.limits)),
            upstream: Arc::clone(&upstream),
            metrics,
            opened: Instant::now(),
            stop: stop.clone(),
            config,
        };
        Ok(Self { served: Served { service: Door(Arc::new(house)), certificate, metrics: listener, bounds }, keys, upstream, starts, stop })
    }

    /// Answers on `listener` until the stop. Blocks its thread.
    ///
    /// # Errors
    /// When the operating system refuses a runtime.
    pub fn run(self, listener: std::net::TcpListener) -> PartResult {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(BLOCKING_THREADS).enable_all().build()?;
        runtime.block_on(async {
            let served = serve(TcpListener::from_std(listener)?, self.served, self.stop.clone());
            let (starts, watch) = self.starts.unzip();
            let watched = async {
                if let Some(watch) = watch {
                    watch.run(self.stop.clone()).await;
                }
            };
            let tidied = self.upstream.tidy(&self.stop);
            let ((), (), (), kept) = tokio::join!(served, watched, tidied, self.keys.keep_current(self.stop.clone()));
            if let Some(starts) = starts {
                starts.finish(FINISH).await;
            }
            kept
        })
    }
}

/// What starts runs, and the watch over them.
fn starts(admission: Admission, who: String, registry: &mut Registry) -> (Arc<Starts>, Watch) {
    let metrics = StartMetrics::default();
    metrics.register(registry);
    let claims = Arc::new(Claims::new(&admission, who));
    let (looked, has_looked) = tokio::sync::watch::channel(false);
    let starts = Arc::new(Starts::new(Arc::clone(&claims), has_looked, metrics.clone()));
    (starts, Watch::new(claims, admission, metrics, looked))
}
