//! An HTTP listener that hostile clients cannot exhaust: a cap on connections, limits for heads and for silence, a graceful
//! end; with TLS where there is a certificate.
//!
//! Owns sockets and connections. Knows nothing of routes.

mod connections;
mod pace;
mod preface;
mod seldom;

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body as RouterBody;
use axum::extract::ConnectInfo;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tower::util::Oneshot;

use crate::runtime::certificate::Certificate;
pub use crate::runtime::listen::connections::ListenerMetrics;
use crate::runtime::listen::connections::{Busy, Connection, Connections};
use crate::runtime::listen::pace::{Paced, Patience};
use crate::runtime::listen::preface::begins_http2;
use crate::runtime::listen::seldom::Seldom;

/// How long to wait before the next try when the process has run out of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// HTTP/2, as TLS calls it.
const H2: &[u8] = b"h2";

/// Streams that share one connection of HTTP/2: what browsers and other servers take for enough.
const STREAMS: u32 = 100;

/// What answers the requests of a listener.
pub trait Answers: Clone + Send + Sync + 'static {
    /// The body of an answer.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + Send + 'static;
    /// Waits for the answer.
    type Future: Future<Output = Result<Response<Self::Body>, Infallible>> + Send + 'static;

    /// Answers a request of whoever is connected from `peer`.
    fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Self::Future;
}

/// What a listener serves.
#[derive(Clone, Debug)]
pub struct Served<S> {
    /// What answers.
    pub service: S,
    /// What it shows to its clients; without one it speaks plain HTTP.
    pub certificate: Option<Arc<Certificate>>,
    /// Its connections, counted.
    pub metrics: ListenerMetrics,
    /// What it takes.
    pub bounds: Bounds,
}

/// What a listener takes from its clients.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many connections at once.
    pub connections: usize,
    /// How long a client may take to send its request's head, and before that for the handshake of TLS. Slower ones hold a
    /// connection for nothing.
    pub head: Duration,
    /// How long it may ask nothing, or not take its answer.
    pub idle: Duration,
    /// The longest head, in bytes; at least 8 KiB.
    pub head_bytes: usize,
    /// Whether HTTP/2 is spoken beside HTTP/1.1.
    pub http2: bool,
    /// How long requests that have begun may go on after the stop.
    pub drain: Duration,
}

/// Of an answer after which its connection ends, so that nothing of what was said stays in its buffers.
#[derive(Clone, Copy, Debug)]
pub struct LastAnswer;

/// What all connections of a listener share.
struct Common<S> {
    service: S,
    acceptor: Option<TlsAcceptor>,
    http1: http1::Builder,
    /// Where HTTP/2 is spoken, too.
    http2: Option<http2::Builder<TokioExecutor>>,
    bounds: Bounds,
}

/// The body of an answer: until its end, its connection is busy.
#[derive(Debug)]
struct Answer<B> {
    body: B,
    _busy: Busy,
}

// === impl Bounds ===

impl Default for Bounds {
    /// Of our own surface. A kubelet, two Prometheus servers and a few people need about ten connections.
    fn default() -> Self {
        let patience = Duration::from_secs(5);
        Self { connections: 256, head: patience, idle: patience, head_bytes: 16 * 1024, http2: false, drain: Duration::from_secs(2) }
    }
}

/// Serves on `listener` until `stop`, then lets the requests under way end.
pub async fn serve<S: Answers>(listener: TcpListener, served: Served<S>, stop: CancellationToken) {
    let Served { service, certificate, metrics, bounds } = served;
    let acceptor = certificate.as_ref().map(|certificate| acceptor(certificate, bounds.http2));
    let common = Arc::new(Common { service, acceptor, http1: http1(bounds), http2: bounds.http2.then(|| http2(bounds)), bounds });
    let connections = Arc::new(Connections::new(bounds.connections, metrics));
    let open = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &connections, bounds) => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer, connection)) => begin(&open, stream, peer, connection, Arc::clone(&common), stop.child_token()),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; check the limit of open files");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    drop(listener);
    open.close();
    if tokio::time::timeout(bounds.drain, open.wait()).await.is_err() {
        tracing::warn!(limit = ?bounds.drain, "closed connections whose requests did not end");
    }
}

fn acceptor(certificate: &Certificate, http2: bool) -> TlsAcceptor {
    let mut config = certificate.server_config();
    if http2 {
        Arc::make_mut(&mut config).alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    }
    TlsAcceptor::from(config)
}

fn http1(bounds: Bounds) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(bounds.head_bytes).writev(false);
    http
}

fn http2(bounds: Bounds) -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(bounds.head_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(bounds.idle)
        .keep_alive_timeout(bounds.head);
    http
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Connections>,
    bounds: Bounds,
) -> std::io::Result<(TcpStream, SocketAddr, Connection)> {
    let (stream, peer) = listener.accept().await?;
    // An answer that is written in parts would wait for the client's delayed acknowledgement, 40 ms on Linux. A socket that does
    // not take this is only slower.
    drop(stream.set_nodelay(true));
    Ok((stream, peer, connections.admit(Patience { head: bounds.head, idle: bounds.idle }).await))
}

fn begin<S: Answers>(
    open: &TaskTracker,
    stream: TcpStream,
    peer: SocketAddr,
    connection: Connection,
    common: Arc<Common<S>>,
    farewell: CancellationToken,
) {
    #[expect(clippy::disallowed_methods, reason = "a connection is short-lived, and `open` waits for it at the end")]
    tokio::spawn(open.track_future(attend(stream, peer, connection, common, farewell)));
}

/// A connection from its beginning to its end. Its size is what each takes up beside hyper's buffers.
async fn attend<S: Answers>(
    stream: TcpStream,
    peer: SocketAddr,
    connection: Connection,
    common: Arc<Common<S>>,
    farewell: CancellationToken,
) {
    let (pace, evicted) = (connection.pace(), connection.evicted());
    let must_end = pin!(async {
        tokio::select! {
            () = pace.lost() => {}
            () = evicted.cancelled() => {}
        }
    });
    tokio::select! {
        biased;
        () = Seldom::new(must_end) => {}
        () = converse(stream, peer, &connection, &common, farewell) => {}
    }
}

async fn converse<S: Answers>(
    stream: TcpStream,
    peer: SocketAddr,
    connection: &Connection,
    common: &Common<S>,
    farewell: CancellationToken,
) {
    match &common.acceptor {
        None => {
            let is_http2 = common.http2.is_some() && begins_http2(&stream).await.unwrap_or_default();
            answer(stream, is_http2, peer, connection, common, farewell).await;
        }
        // What TLS takes up is no part of connections without it.
        Some(acceptor) => Box::pin(converse_in_secret(stream, acceptor, peer, connection, common, farewell)).await,
    }
}

async fn converse_in_secret<S: Answers>(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    peer: SocketAddr,
    connection: &Connection,
    common: &Common<S>,
    farewell: CancellationToken,
) {
    // One who does not shake hands is like one who never asks; both are their own business.
    if let Ok(Ok(stream)) = tokio::time::timeout(common.bounds.head, acceptor.accept(stream)).await {
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(H2);
        answer(stream, is_http2, peer, connection, common, farewell).await;
    }
}

/// Answers until the client ends the connection, or until `farewell`: then what has begun is answered, and nothing more.
async fn answer<T, S>(stream: T, is_http2: bool, peer: SocketAddr, connection: &Connection, common: &Common<S>, farewell: CancellationToken)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Answers,
{
    let (state, service, last) = (connection.state(), common.service.clone(), farewell.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let is_shared = request.version() == Version::HTTP_2;
        let (busy, answer, last) = (state.busy(is_shared), service.answer(request, peer), last.clone());
        async move {
            let mut answer = answer.await?;
            match answer.extensions().get::<LastAnswer>() {
                Some(LastAnswer) if is_shared => last.cancel(),
                // Said before the connection ends, so that the client asks nothing more over it.
                Some(LastAnswer) => drop(answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"))),
                None => {}
            }
            Ok::<_, Infallible>(answer.map(|body| Answer { body, _busy: busy }))
        }
    });
    let stream = TokioIo::new(Paced::new(stream, Arc::clone(connection.pace())));
    match &common.http2 {
        Some(http) if is_http2 => {
            let conversation = Box::pin(http.serve_connection(stream, service));
            until_farewell(conversation, http2::Connection::graceful_shutdown, &farewell).await;
        }
        _ => {
            let conversation = Box::pin(common.http1.serve_connection(stream, service).with_upgrades());
            until_farewell(conversation, http1::UpgradeableConnection::graceful_shutdown, &farewell).await;
        }
    }
}

/// A client that goes away is its own business. The conversation is in a box, as a future has room for a value once more
/// with each call that it is handed on by.
async fn until_farewell<C: Future>(mut conversation: Pin<Box<C>>, say_farewell: impl FnOnce(Pin<&mut C>), farewell: &CancellationToken) {
    let farewell = pin!(farewell.cancelled());
    tokio::select! {
        biased;
        () = Seldom::new(farewell) => {
            say_farewell(conversation.as_mut());
            let _ = conversation.await;
        }
        _ = conversation.as_mut() => {}
    }
}

// === impl Router ===

impl Answers for Router {
    type Body = RouterBody;
    type Future = Oneshot<Self, Request<Incoming>>;

    fn answer(&self, mut request: Request<Incoming>, peer: SocketAddr) -> Self::Future {
        request.extensions_mut().insert(ConnectInfo(peer));
        self.clone().oneshot(request)
    }
}

// === impl Answer ===

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_takes_little_beside_its_buffers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let [metrics] = ListenerMetrics::register(["test"], &mut crate::metrics::registry());
        let connections = Arc::new(Connections::new(1, metrics));
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let bounds = Bounds { http2: true, ..Bounds::default() };
        let (stream, peer, connection) = accept(&listener, &connections, bounds).await.unwrap();
        let common = Common { service: Router::new(), acceptor: None, http1: http1(bounds), http2: Some(http2(bounds)), bounds };
        let size = size_of_val(&attend(stream, peer, connection, Arc::new(common), CancellationToken::new()));
        assert!(size <= 1536, "{size} bytes");
    }

    #[tokio::test]
    async fn what_is_written_in_parts_is_sent_in_parts() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let [metrics] = ListenerMetrics::register(["test"], &mut crate::metrics::registry());
        let connections = Arc::new(Connections::new(1, metrics));
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer, _connection) = accept(&listener, &connections, Bounds::default()).await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(stream.nodelay().unwrap());
    }
}
