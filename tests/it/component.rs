//! A component of an application, for checks to look at: answers as it is told to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};

/// A server with one path for each kind of behaviour, on a thread of its own.
pub struct Component {
    address: SocketAddr,
    status: Arc<AtomicU16>,
}

impl Component {
    /// A server that answers 200 at `/`.
    pub fn start() -> Self {
        let status = Arc::new(AtomicU16::new(200));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", any(own_status)).route("/{behaviour}", get(behave)).with_state(Arc::clone(&status));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap() });
        });
        Self { address, status }
    }

    /// Its address, such as `http://127.0.0.1:1234`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What `/` answers from now on.
    pub fn answer_with(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }
}

async fn own_status(State(status): State<Arc<AtomicU16>>) -> StatusCode {
    StatusCode::from_u16(status.load(Ordering::Relaxed)).unwrap()
}

async fn behave(Path(behaviour): Path<String>) -> Response {
    match behaviour.as_str() {
        "hang" => std::future::pending().await,
        "redirect" => (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, "/hang")]).into_response(),
        "unauthorized" => StatusCode::UNAUTHORIZED.into_response(),
        "missing" => StatusCode::NOT_FOUND.into_response(),
        "broken" => (StatusCode::SERVICE_UNAVAILABLE, "{\"status\":\"degraded\"}").into_response(),
        "huge" => Body::from(vec![b'x'; 10 * 1024 * 1024]).into_response(),
        "drip" => {
            let drops = futures_util::stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(200)).await;
                Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
            });
            Body::from_stream(drops).into_response()
        }
        _ => StatusCode::OK.into_response(),
    }
}
