//! What a request meets on its way: its path, its key, the limits, its scope, and then whoever answers it.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode, Version};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::config::front::Front;
use crate::config::front::routes::Scope;
use crate::front::body::{AnswerBody, RequestBody, UpstreamBody};
use crate::front::clients::{ClientId, Clients};
use crate::front::cors::is_preflight;
use crate::front::headers::{CLIENT, Origin, REQUEST_ID, detach, prepare_answer, prepare_request, request_id, wants_websocket};
use crate::front::keys::{Identity, Keys};
use crate::front::metrics::{FrontMetrics, RouteMetrics};
use crate::front::path;
use crate::front::refusal::{Refusal, json_answer};
use crate::front::routes::{Found, Routes};
use crate::front::starts::Starts;
use crate::front::tunnel;
use crate::front::upstream::{Upstream, UpstreamFault};
use crate::front::visit::Visit;
use crate::runtime::caller::Caller;
use crate::runtime::listen::{Answers, LastAnswer};

/// The template that runs are started by, and the segment in which it names the project.
pub const START: &str = "/api/v1/projects/{id}/discover";
const PROJECT_SEGMENT: usize = 4;

/// The front door, as the listener asks it.
#[derive(Clone, Debug)]
pub struct Door(pub Arc<House>);

/// What all requests share.
#[derive(Debug)]
pub struct House {
    /// What the configuration says.
    pub config: Front,
    /// The routes of the API.
    pub routes: Routes,
    /// What is exposed of each, by the number of its template.
    pub routes_metrics: Vec<RouteMetrics>,
    /// Who may come in.
    pub keys: Arc<Keys>,
    /// Who has asked how much.
    pub clients: Mutex<Clients>,
    /// The way to the API.
    pub upstream: Arc<Upstream>,
    /// Sees to it that a project has one run at a time.
    pub starts: Option<Arc<Starts>>,
    /// Services within this process, by the number of the template that they answer.
    pub embedded: Vec<Option<Router>>,
    /// The number of the template that runs are started by.
    pub start_template: Option<usize>,
    /// What is exposed.
    pub metrics: FrontMetrics,
    /// When the front door was opened; the limits count from here.
    pub opened: Instant,
    /// Ends what would go on for ever.
    pub stop: CancellationToken,
}

/// A request that was let in.
struct Guest {
    peer: SocketAddr,
    origin: Origin,
    identity: Identity,
    scope: Scope,
}

// === impl Door ===

impl Answers for Door {
    type Body = AnswerBody;
    type Future = Pin<Box<dyn Future<Output = Result<Response<AnswerBody>, Infallible>> + Send>>;

    fn answer(&self, mut request: Request<Incoming>, peer: SocketAddr) -> Self::Future {
        // Here and not in the future: before anything more is read.
        if request.version() != Version::HTTP_2 {
            detach(&mut request);
        }
        let house = Arc::clone(&self.0);
        Box::pin(async move { Ok(house.receive(request, peer).await) })
    }
}

// === impl House ===

impl House {
    /// Answers a request, whatever becomes of it.
    async fn receive(self: Arc<Self>, request: Request<Incoming>, peer: SocketAddr) -> Response<AnswerBody> {
        let origin = Origin::of(peer, request.headers(), &self.config.trusted_proxies);
        let id = request_id(request.headers(), fastrand::u128(..));
        let found = self.routes.find(request.method(), request.uri().path());
        // The connection's own buffers hold what came over it, until they are used again.
        let is_last = found.scope == Scope::Secrets && self.embedded[found.template].is_some();
        let page = request.headers().get(ORIGIN).cloned();
        let (method, path) = (request.method().clone(), request.uri().path());
        let mut visit = Some(Box::new(Visit::new(Arc::clone(&self), id.clone(), method, path, found.template, origin.client)));
        let answer = self.admit(request, peer, origin, found, &mut visit).await;
        let mut response = answer.unwrap_or_else(|refusal| {
            if let Some(label) = refusal.label() {
                self.metrics.refused(label);
            }
            if let Some(visit) = &mut visit {
                visit.refused = refusal.label();
            }
            refusal.answer()
        });
        self.config.cors.tell(response.headers_mut(), page.as_ref());
        response.headers_mut().insert(REQUEST_ID, id);
        if is_last {
            response.extensions_mut().insert(LastAnswer);
        }
        match visit {
            None => response,
            Some(mut visit) => {
                visit.answered(response.status());
                visit.is_stream = is_stream(response.headers());
                response.map(|body| body.noting(visit))
            }
        }
    }

    /// Lets a request in or not, and has it answered.
    async fn admit(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        origin: Origin,
        found: Found,
        visit: &mut Option<Box<Visit>>,
    ) -> Result<Response<AnswerBody>, Refusal> {
        self.check_form(&request)?;
        let identity = self.keys.identify(request.headers()).await;
        let holder = identity.as_ref().ok().and_then(|identity| identity.holder.as_ref());
        // Who has no valid key is counted by address, so that keys cannot be guessed at any speed.
        let client = holder.map_or_else(|| ClientId::at(origin.client), |(client, _)| *client);
        let place = self.clients().enter(client, self.opened.elapsed()).map_err(Refusal::Excess)?;
        if let Some(visit) = visit {
            visit.takes(place);
            visit.holder = holder.map(|(_, name)| Arc::clone(name));
        }
        if is_preflight(request.method(), request.headers()) {
            return self.config.cors.preflight(request.headers());
        }
        let identity = identity?;
        if !identity.scopes.permit(found.scope) {
            return Err(if identity.holder.is_some() { Refusal::Forbidden } else { Refusal::Unauthorized });
        }
        self.check_body(&request)?;
        let guest = Guest { peer, origin, identity, scope: found.scope };
        if let Some(service) = &self.embedded[found.template] {
            return Box::pin(self.serve_here(service, request, &guest)).await;
        }
        match &self.starts {
            Some(starts) if *request.method() == Method::POST && self.start_template == Some(found.template) => {
                Box::pin(self.start_run(starts, request, &guest)).await
            }
            _ => self.forward(request, guest, visit).await,
        }
    }

    /// What can be said of a request without knowing who asks.
    fn check_form(&self, request: &Request<Incoming>) -> Result<(), Refusal> {
        let (uri, headers) = (request.uri(), request.headers());
        let length = uri.path_and_query().map_or(0, |path| path.as_str().len());
        if length > self.config.limits.uri {
            return Err(Refusal::UriTooLong);
        }
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(Refusal::Method);
        }
        path::check(uri.path()).map_err(Refusal::Path)?;
        let is_one = |name: &HeaderName| headers.get_all(name).iter().nth(1).is_none();
        let is_chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
        // HTTP/2 has the host within the address.
        let has_host = headers.contains_key(HOST) || request.version() != Version::HTTP_11;
        let is_clear = has_host
            && [HOST, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING].iter().all(is_one)
            && headers.get(TRANSFER_ENCODING).is_none_or(is_chunked);
        if is_clear { Ok(()) } else { Err(Refusal::Header) }
    }

    fn check_body(&self, request: &Request<Incoming>) -> Result<(), Refusal> {
        let body = request.body();
        if body.is_end_stream() {
            return Ok(());
        }
        if body.size_hint().lower() > self.config.limits.body {
            return Err(Refusal::TooLarge);
        }
        let media = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = media.and_then(|value| value.split(';').next()).map(str::trim);
        let is_taken = media.is_some_and(|media| self.config.limits.content_types.iter().any(|taken| taken.eq_ignore_ascii_case(media)));
        if is_taken { Ok(()) } else { Err(Refusal::MediaType) }
    }

    /// Hands a request to a service within this process.
    async fn serve_here(&self, service: &Router, request: Request<Incoming>, guest: &Guest) -> Result<Response<AnswerBody>, Refusal> {
        let mut request = self.prepare(request, guest).map(Body::new);
        if let Some((_, name)) = &guest.identity.holder {
            request.extensions_mut().insert(Caller(name.to_string()));
        }
        let mut response = service.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        prepare_answer(response.headers_mut());
        Ok(response.map(AnswerBody::embedded))
    }

    /// Has a run started, where there is none.
    async fn start_run(&self, starts: &Arc<Starts>, request: Request<Incoming>, guest: &Guest) -> Result<Response<AnswerBody>, Refusal> {
        let project = request.uri().path().split('/').nth(PROJECT_SEGMENT).unwrap_or_default().to_owned();
        let (parts, body) = self.prepare(request, guest).into_parts();
        // The body comes first: nobody holds a claim by sending slowly.
        let request = Request::from_parts(parts, body.whole().await?);
        starts.start(&self.upstream, &project, request, self.config.timeouts.stream).await
    }

    /// Hands a request on to the API.
    async fn forward(
        &self,
        mut request: Request<Incoming>,
        guest: Guest,
        visit: &mut Option<Box<Visit>>,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let wants_websocket = *request.method() == Method::GET && wants_websocket(request.headers());
        let upgrade = match wants_websocket {
            true => {
                self.config.cors.check_websocket(request.headers())?;
                Some(hyper::upgrade::on(&mut request))
            }
            false => None,
        };
        let request = self.prepare(request, &guest);
        let (mut response, connection) = self.upstream.send(request, None).await?;
        prepare_answer(response.headers_mut());
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let (Some(client), Some(mut visit)) = (upgrade, visit.take()) else {
                return Err(Refusal::Upstream(UpstreamFault::Protocol));
            };
            visit.answered(response.status());
            visit.is_stream = true;
            let server = hyper::upgrade::on(&mut response);
            tunnel::open(client, server, connection.into_driver(), visit, self.config.timeouts.stream, self.stop.clone());
            mark_upgrade(response.headers_mut());
            return Ok(response.map(|_| AnswerBody::empty()));
        }
        if guest.scope == Scope::Open && guest.identity.holder.is_none() && response.status().is_server_error() {
            return Ok(veiled(response.status()));
        }
        let patience = self.config.timeouts.stream;
        Ok(response.map(|body| AnswerBody::upstream(UpstreamBody::new(body, connection, patience))))
    }

    /// What the API gets to see of a request.
    fn prepare(&self, request: Request<Incoming>, guest: &Guest) -> Request<RequestBody> {
        let wants_websocket = wants_websocket(request.headers());
        let limits = (self.config.limits.body, self.config.timeouts.body);
        let (mut parts, body) = request.into_parts();
        parts.extensions.clear();
        let headers = &mut parts.headers;
        let host = parts.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        if let Some(host) = host.filter(|_| !headers.contains_key(HOST)) {
            headers.insert(HOST, host);
        }
        prepare_request(headers, &guest.origin, guest.peer, self.config.tls.is_some(), self.upstream.authority());
        if let Some(value) = guest.identity.holder.as_ref().and_then(|(_, name)| HeaderValue::from_str(name).ok()) {
            headers.insert(CLIENT, value);
        }
        if wants_websocket {
            mark_upgrade(headers);
        }
        Request::from_parts(parts, RequestBody::new(body, limits.0, limits.1))
    }

    /// Who has asked how much. Each update is a single step, so that a panic elsewhere leaves nothing half done.
    pub fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mark_upgrade(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

fn is_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

/// Anybody may ask a probe, and DecisionBox's names the hosts of its database when it fails: the status is enough.
fn veiled(status: StatusCode) -> Response<AnswerBody> {
    json_answer(status, &json!({ "status": "degraded" }))
}
