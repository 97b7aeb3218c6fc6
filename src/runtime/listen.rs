//! An HTTP listener that hostile clients cannot exhaust: a cap on connections, a limit for headers, a graceful end; with
//! TLS where there is a certificate.
//!
//! Owns sockets and connections. Knows nothing of routes.

mod connections;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::runtime::certificate::Certificate;
pub use crate::runtime::listen::connections::ListenerMetrics;
use crate::runtime::listen::connections::{Connection, Connections};

/// How long a client may take to send its request's head, and before that for the handshake of TLS. Slower ones hold a
/// connection for nothing.
const HEADER_LIMIT: Duration = Duration::from_secs(5);

/// How long requests that have begun may go on after the stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// How long to wait before the next try when the process has run out of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What a listener serves.
#[derive(Clone, Debug)]
pub struct Service {
    /// The routes.
    pub router: Router,
    /// What it shows to its clients; without one it speaks plain HTTP.
    pub certificate: Option<Arc<Certificate>>,
    /// Its connections, counted.
    pub metrics: ListenerMetrics,
}

/// What all connections of a listener share.
#[derive(Clone)]
struct Common {
    router: Router,
    acceptor: Option<TlsAcceptor>,
}

/// Serves on `listener` until `stop`, then lets the requests under way end.
pub async fn serve(listener: TcpListener, service: Service, stop: CancellationToken) {
    let acceptor = service.certificate.as_ref().map(|certificate| TlsAcceptor::from(certificate.server_config()));
    let common = Common { router: service.router, acceptor };
    let connections = Arc::new(Connections::new(service.metrics));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer, connection)) => begin(stream, peer, connection, common.clone(), graceful.watcher()),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; check the limit of open files");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_LIMIT, graceful.shutdown()).await.is_err() {
        tracing::warn!(limit = ?DRAIN_LIMIT, "closed connections whose requests did not end");
    }
}

async fn accept(listener: &TcpListener, connections: &Arc<Connections>) -> std::io::Result<(TcpStream, SocketAddr, Connection)> {
    let (stream, peer) = listener.accept().await?;
    // An answer that is written in parts would wait for the client's delayed acknowledgement, 40 ms on Linux: a scrape of 100,000
    // series in gzip took 96 ms instead of 57. A socket that does not take this is only slower.
    drop(stream.set_nodelay(true));
    Ok((stream, peer, connections.admit().await))
}

fn begin(stream: TcpStream, peer: SocketAddr, connection: Connection, common: Common, watcher: Watcher) {
    #[expect(clippy::disallowed_methods, reason = "a connection is short-lived, and `graceful` waits for it at the end")]
    tokio::spawn(async move {
        let evicted = connection.evicted();
        tokio::select! {
            () = converse(stream, peer, &connection, common, watcher) => {}
            () = evicted.cancelled() => {}
        }
    });
}

async fn converse(stream: TcpStream, peer: SocketAddr, connection: &Connection, common: Common, watcher: Watcher) {
    let Some(acceptor) = &common.acceptor else {
        return answer(stream, peer, connection, common.router, watcher).await;
    };
    // One who does not shake hands is like one who never asks; both are their own business.
    if let Ok(Ok(stream)) = tokio::time::timeout(HEADER_LIMIT, acceptor.accept(stream)).await {
        answer(stream, peer, connection, common.router, watcher).await;
    }
}

async fn answer<S>(stream: S, peer: SocketAddr, connection: &Connection, router: Router, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let state = connection.state();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let (busy, answer) = (state.busy(), router.clone().oneshot(request));
        async move {
            let _busy = busy;
            answer.await
        }
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away is its own business.
    let _ = watcher.watch(conversation).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_in_parts_is_sent_in_parts() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let [metrics] = ListenerMetrics::register(["test"], &mut crate::metrics::registry());
        let connections = Arc::new(Connections::new(metrics));
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer, _connection) = accept(&listener, &connections).await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(stream.nodelay().unwrap());
    }
}
