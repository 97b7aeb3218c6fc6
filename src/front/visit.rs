//! One request from its head to the end of its answer: what it takes up is given back then, and what became of it is
//! counted and, for some, logged.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};
use prometheus_client::metrics::gauge::Gauge;

use crate::front::clients::ClientId;
use crate::front::door::House;

/// The status of a request whose client went away before there was an answer, as nginx has it.
const CLIENT_CLOSED: u16 = 499;

/// One request.
#[derive(Debug)]
pub struct Visit {
    house: Arc<House>,
    arrived: Instant,
    id: HeaderValue,
    method: Method,
    /// A copy: the address itself would keep the buffer that the head came in, for as long as the answer takes.
    path: Box<str>,
    template: usize,
    status: StatusCode,
    sent: usize,
    /// Whose place among the clients it takes up.
    place: Option<ClientId>,
    /// Where it comes from.
    pub address: IpAddr,
    /// The holder of the key that it came with.
    pub holder: Option<Arc<str>>,
    /// Why it was refused.
    pub refused: Option<&'static str>,
    /// It goes on for as long as somebody listens: its length says nothing.
    pub is_stream: bool,
}

// === impl Visit ===

impl Visit {
    /// A request that has just come.
    #[must_use]
    pub fn new(house: Arc<House>, id: HeaderValue, method: Method, path: &str, template: usize, address: IpAddr) -> Self {
        house.metrics.in_flight.inc();
        let status = StatusCode::from_u16(CLIENT_CLOSED).unwrap_or_default();
        let (arrived, sent, place, holder, refused) = (Instant::now(), 0, None, None, None);
        let path = path.into();
        Self { house, arrived, id, method, path, template, status, sent, place, address, holder, refused, is_stream: false }
    }

    /// It takes up a place among the clients until its end.
    pub fn takes(&mut self, place: ClientId) {
        self.place = Some(place);
    }

    /// The head of the answer is on its way.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = status;
    }

    /// So many bytes of the answer's body are on their way.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
    }

    /// The answer broke off.
    pub fn broke(&mut self) {
        self.refused = Some("answer_broke_off");
    }

    /// Counts open WebSockets.
    #[must_use]
    pub fn tunnels(&self) -> Gauge {
        self.house.metrics.tunnels.clone()
    }

    /// One in so many is logged, and each that failed; what the front door refused counts as no failure, so that a flood of
    /// such requests does not become one of lines.
    fn is_logged(&self) -> bool {
        let has_failed = (self.status.is_server_error() && self.refused.is_none()) || self.refused == Some("answer_broke_off");
        has_failed || fastrand::f64() < self.house.config.access_log_sample
    }

    fn log(&self, seconds: f64, id: &str) {
        tracing::info!(
            target: "bellwether::access",
            request_id = id,
            method = self.method.as_str(),
            route = self.house.routes_metrics[self.template].template(),
            path = &*self.path,
            status = self.status.as_u16(),
            duration_ms = seconds * 1000.0,
            bytes = self.sent,
            client = self.holder.as_deref().unwrap_or("anonymous"),
            address = %self.address,
            refused = self.refused,
            "request"
        );
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let house = &self.house;
        house.metrics.in_flight.dec();
        if let Some(place) = self.place {
            house.clients().leave(place);
        }
        let (seconds, id) = (self.arrived.elapsed().as_secs_f64(), self.id.to_str().unwrap_or_default());
        let metrics = &house.routes_metrics[self.template];
        metrics.answered(&self.method, self.status);
        if !self.is_stream {
            metrics.took(seconds, id);
        }
        if self.is_logged() {
            self.log(seconds, id);
        }
    }
}
