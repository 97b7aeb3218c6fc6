//! What the front door exposes: requests by route, method and code, never by path; what it refused and why; what went wrong
//! on the way to the API.

pub mod starts;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use hyper::{Method, StatusCode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::front::refusal::Refusal;
use crate::front::routes::Routes;
use crate::front::upstream::UpstreamFault;

/// From a small answer out of memory to a test of a connection, which takes DecisionBox up to 90 s.
const BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 90.0];

/// From here on, in seconds, each request is worth its id.
const SLOW: f64 = 0.1;
/// One in so many of the quicker ones gives its id.
const EXEMPLAR_EVERY: u64 = 16;

type RouteLabel = [(&'static str, String); 1];
type RequestLabels = [(&'static str, String); 3];
type ReasonLabel = [(&'static str, &'static str); 1];
/// The id of one request.
type Exemplar = [(&'static str, String); 1];
type Duration = HistogramWithExemplars<Exemplar>;

/// What the front door exposes.
#[derive(Clone, Debug)]
pub struct FrontMetrics {
    requests: Family<RequestLabels, Counter>,
    duration: Family<RouteLabel, Duration, fn() -> Duration>,
    /// Requests that are being answered.
    pub in_flight: Gauge,
    /// WebSockets that are open.
    pub tunnels: Gauge,
    upstream_errors: Family<ReasonLabel, Counter>,
    /// Connections to the API.
    pub upstream_connections: Gauge,
    /// Requests for which a second connection was tried.
    pub retries: Counter,
    rejections: Family<ReasonLabel, Counter>,
    keys_reload_success: Family<[(&'static str, String); 1], Gauge>,
}

/// What is exposed of one route, found by number.
#[derive(Debug)]
pub struct RouteMetrics {
    template: Arc<str>,
    /// By method and code: a handful, so that looking through them is quicker than hashing.
    requests: RwLock<Vec<((&'static str, u16), Counter)>>,
    family: Family<RequestLabels, Counter>,
    durations: Family<RouteLabel, Duration, fn() -> Duration>,
    /// Requests that were answered quickly.
    answered: AtomicU64,
    /// Made with the first request: most routes of an API are never asked for.
    duration: OnceLock<Duration>,
}

// === impl FrontMetrics ===

impl Default for FrontMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(|| Duration::new(BUCKETS.into_iter())),
            in_flight: Gauge::default(),
            tunnels: Gauge::default(),
            upstream_errors: Family::default(),
            upstream_connections: Gauge::default(),
            retries: Counter::default(),
            rejections: Family::default(),
            keys_reload_success: Family::default(),
        }
    }
}

impl FrontMetrics {
    /// Registers all of them; what alerts ask for is there from the start.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Requests that were answered, by the template of their route";
        registry.register("bellwether_front_requests", help, self.requests.clone());
        let help = "Time from the head of a request to the end of its answer, without streams";
        registry.register("bellwether_front_request_duration_seconds", help, self.duration.clone());
        registry.register("bellwether_front_requests_in_flight", "Requests that are being answered", self.in_flight.clone());
        registry.register("bellwether_front_tunnels", "WebSockets that are open", self.tunnels.clone());
        let help = "Requests that the API could not be asked, or that it did not answer, by reason";
        registry.register("bellwether_front_upstream_errors", help, self.upstream_errors.clone());
        let help = "Connections to the API that are open";
        registry.register("bellwether_front_upstream_connections", help, self.upstream_connections.clone());
        let help = "Requests for which the API was connected to a second time, as it refused the first";
        registry.register("bellwether_front_upstream_retries", help, self.retries.clone());
        let help = "Requests that the front door refused, by reason";
        registry.register("bellwether_front_rejections", help, self.rejections.clone());
        let help = "Whether a file of keys could be used when it was last read";
        registry.register("bellwether_front_keys_reload_success", help, self.keys_reload_success.clone());
        for fault in UpstreamFault::ALL {
            drop(self.upstream_errors.get_or_create(&[("reason", fault.label())]));
        }
        for reason in Refusal::LABELS {
            drop(self.rejections.get_or_create(&[("reason", reason)]));
        }
    }

    /// What is exposed of each route, by the numbers of their templates.
    #[must_use]
    pub fn of_routes(&self, routes: &Routes) -> Vec<RouteMetrics> {
        let of_route = |template: &Arc<str>| RouteMetrics {
            template: Arc::clone(template),
            requests: RwLock::default(),
            family: self.requests.clone(),
            durations: self.duration.clone(),
            answered: AtomicU64::new(0),
            duration: OnceLock::new(),
        };
        routes.templates().iter().map(of_route).collect()
    }

    /// The API could not be asked, or did not answer.
    pub fn upstream_failed(&self, fault: UpstreamFault) {
        if UpstreamFault::ALL.contains(&fault) {
            self.upstream_errors.get_or_create(&[("reason", fault.label())]).inc();
        }
    }

    /// A request was refused.
    pub fn refused(&self, label: &'static str) {
        self.rejections.get_or_create(&[("reason", label)]).inc();
    }

    /// Whether the keys of a holder could be read.
    #[must_use]
    pub fn keys_of(&self, name: &str) -> Gauge {
        self.keys_reload_success.get_or_create(&[("key", name.to_owned())]).clone()
    }
}

// === impl RouteMetrics ===

impl RouteMetrics {
    /// A request has been answered.
    pub fn answered(&self, method: &Method, status: StatusCode) {
        let key = (method_label(method), status.as_u16());
        if let Some((_, counter)) = self.requests.read().unwrap_or_else(PoisonError::into_inner).iter().find(|(known, _)| *known == key) {
            counter.inc();
            return;
        }
        let labels = [("route", self.template.to_string()), ("method", key.0.to_owned()), ("code", key.1.to_string())];
        let counter = self.family.get_or_create(&labels).clone();
        counter.inc();
        let mut requests = self.requests.write().unwrap_or_else(PoisonError::into_inner);
        if requests.iter().all(|(known, _)| *known != key) {
            requests.push((key, counter));
        }
    }

    /// How long it took, and the id of the request.
    pub fn took(&self, seconds: f64, id: &str) {
        let make = || self.durations.get_or_create(&[("route", self.template.to_string())]).clone();
        let exemplar = self.wants_exemplar(seconds).then(|| [("request_id", id.to_owned())]);
        self.duration.get_or_init(make).observe(seconds, exemplar, None);
    }

    /// A slow request is what is looked for; of the others some are enough.
    fn wants_exemplar(&self, seconds: f64) -> bool {
        seconds >= SLOW || self.answered.fetch_add(1, Ordering::Relaxed).is_multiple_of(EXEMPLAR_EVERY)
    }

    /// The template of the route.
    #[must_use]
    pub fn template(&self) -> &str {
        &self.template
    }
}

/// A closed set: a client may send any word as a method.
#[must_use]
pub fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
