//! An HTTP listener that hostile clients cannot exhaust: a cap on connections, a limit for headers, a graceful end.
//!
//! Owns sockets and connections. Knows nothing of routes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// How many connections are served at once; further ones wait in the kernel's queue. A kubelet, two Prometheus
/// servers and a few people need about ten.
const MAX_CONNECTIONS: usize = 256;

/// How long a client may take to send its request's head. Slower ones hold a connection for nothing.
const HEADER_LIMIT: Duration = Duration::from_secs(5);

/// How long requests that have begun may go on after the stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// How long to wait before the next try when the process has run out of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `stop`, then lets the requests under way end.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer, permit)) => serve_connection(stream, peer, permit, router.clone(), &graceful),
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

async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
}

fn serve_connection(stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit, router: Router, graceful: &GracefulShutdown) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    #[expect(clippy::disallowed_methods, reason = "a connection is short-lived, and `graceful` waits for it at the end")]
    tokio::spawn(async move {
        // A client that goes away is its own business.
        let _ = connection.await;
        drop(permit);
    });
}
