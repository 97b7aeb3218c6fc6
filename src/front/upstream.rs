//! The way to the API: a connection that is kept, a request upon it, and what can go wrong.
//!
//! A request is sent once. It goes to another connection only when it has provably not left this process.

pub mod pool;
mod rush;
mod timer;

use std::error::Error;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, Uri, Version};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::config::front::{Timeouts, UpstreamTarget};
use crate::front::body::{BodyFault, RequestBody};
use crate::front::metrics::FrontMetrics;
use crate::front::upstream::pool::{Connection, Pool, Returned};

/// How long an API that refuses connections is given before it is asked again: about what a restart takes to listen.
const SECOND_ATTEMPT: Duration = Duration::from_millis(250);

/// What can go wrong on the way to the API and back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UpstreamFault {
    /// There is no connection: refused, no such name, no way to it.
    Connect,
    /// There is none in time.
    ConnectTimeout,
    /// TLS failed.
    Tls,
    /// The API did not answer in time.
    Timeout,
    /// The connection broke before the answer.
    Reset,
    /// What came is no HTTP.
    Protocol,
    /// The request's own body went wrong; the API has nothing to do with it.
    Request(BodyFault),
}

/// The API.
#[derive(Debug)]
pub struct Upstream {
    pool: Arc<Pool>,
    authority: HeaderValue,
    response: Duration,
    metrics: FrontMetrics,
}

// === impl UpstreamFault ===

impl UpstreamFault {
    /// All that are the API's, for what is exposed from the start.
    pub const ALL: [Self; 6] = [Self::Connect, Self::ConnectTimeout, Self::Tls, Self::Timeout, Self::Reset, Self::Protocol];

    /// Its label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::Request(_) => "request",
        }
    }

    /// Whether the API can have got the request.
    #[must_use]
    pub fn may_have_arrived(self) -> bool {
        !matches!(self, Self::Connect | Self::ConnectTimeout | Self::Tls)
    }

    fn of(error: &hyper::Error) -> Self {
        if let Some(fault) = error.source().and_then(|cause| cause.downcast_ref::<BodyFault>()) {
            return Self::Request(*fault);
        }
        if error.is_parse() { Self::Protocol } else { Self::Reset }
    }
}

impl From<&io::Error> for UpstreamFault {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::ConnectTimeout,
            // What TLS refuses comes as this.
            io::ErrorKind::InvalidData => Self::Tls,
            _ => Self::Connect,
        }
    }
}

// === impl Upstream ===

impl Upstream {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// When the authorities of TLS cannot be used, or the host's name is none.
    pub fn new(target: &UpstreamTarget, timeouts: &Timeouts, metrics: FrontMetrics) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let pool = Arc::new(Pool::new(target, timeouts.connect, metrics.clone())?);
        Ok(Self { pool, authority: HeaderValue::from_str(&target.authority)?, response: timeouts.response, metrics })
    }

    /// What stands in `Host`.
    #[must_use]
    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// Sends a request, and waits for the head of the answer at most as long as the configuration says, or `limit`.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn send(
        &self,
        mut request: Request<RequestBody>,
        limit: Option<Duration>,
    ) -> Result<(Response<Incoming>, Returned), UpstreamFault> {
        // HTTP/1.1 asks for the path alone, whatever the client wrote.
        *request.version_mut() = Version::HTTP_11;
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        let limit = limit.map_or(self.response, |limit| limit.min(self.response));
        let sent = self.exchange(request, limit).await;
        if let Err(fault) = sent {
            self.metrics.upstream_failed(fault);
        }
        sent
    }

    /// Lets go of connections that are of no more use, until `stop`.
    pub async fn tidy(&self, stop: &CancellationToken) {
        self.pool.tidy(stop).await;
    }

    async fn exchange(&self, mut request: Request<RequestBody>, limit: Duration) -> Result<(Response<Incoming>, Returned), UpstreamFault> {
        let now = Instant::now();
        let due = now + limit;
        loop {
            let kept = match self.pool.kept(now) {
                Some(kept) => Some(kept),
                None => Box::pin(self.pool.turn()).await,
            };
            let is_fresh = kept.is_none();
            let mut connection = match kept {
                Some(connection) => connection,
                None => {
                    // Seldom, and large: not a part of what each request takes up.
                    let connected = timeout_at(due, Box::pin(self.connect(request.method()))).await;
                    connected.unwrap_or(Err(UpstreamFault::Timeout))?
                }
            };
            match ask(&mut connection, request, due).await? {
                Ok(answer) => return Ok((answer, connection.returned(&self.pool))),
                // A connection that was kept has ended meanwhile, and the request is still ours.
                Err(again) if !is_fresh => request = again,
                Err(_) => return Err(UpstreamFault::Connect),
            }
        }
    }

    /// A new connection. Where the method may be repeated, an API that is just being restarted is asked twice.
    async fn connect(&self, method: &Method) -> Result<Connection, UpstreamFault> {
        match self.pool.connect().await {
            Err(fault) if fault == UpstreamFault::Connect && method.is_idempotent() => {
                tokio::time::sleep(SECOND_ATTEMPT).await;
                self.metrics.retries.inc();
                self.pool.connect().await
            }
            connected => connected,
        }
    }
}

/// Sends a request over a connection, and drives the connection until there is an answer. `Ok(Err)` gives back a request that
/// has not left.
async fn ask(
    connection: &mut Connection,
    request: Request<RequestBody>,
    due: Instant,
) -> Result<Result<Response<Incoming>, Request<RequestBody>>, UpstreamFault> {
    let Connection { sender, driver, timer } = connection;
    let mut sent = pin!(sender.try_send_request(request));
    let asked = poll_fn(|context| {
        driver.go_on(context);
        match sent.as_mut().poll(context) {
            Poll::Ready(asked) => Poll::Ready(Some(asked)),
            Poll::Pending => timer.poll_due(due, context).map(|()| None),
        }
    });
    match asked.await {
        None => Err(UpstreamFault::Timeout),
        Some(Ok(answer)) => Ok(Ok(answer)),
        Some(Err(mut refused)) => match refused.take_message() {
            Some(request) => Ok(Err(request)),
            None => Err(UpstreamFault::of(refused.error())),
        },
    }
}
