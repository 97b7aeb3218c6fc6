//! An API behind the front door: says what it was asked, or behaves as the path tells it to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// An API on a thread of its own.
pub struct Api {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Api {
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    pub fn start_at(address: &str) -> Self {
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
        let router = Router::new().fallback(behave).with_state(Arc::clone(&seen));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap() });
        });
        Self { address, seen }
    }

    /// All that was asked so far.
    pub fn seen(&self) -> Vec<Value> {
        self.seen.lock().unwrap().clone()
    }

    /// What was asked last.
    #[track_caller]
    pub fn last(&self) -> Value {
        self.seen().pop().expect("a request")
    }
}

fn note(request: &Request) -> Value {
    let headers: Vec<Value> =
        request.headers().iter().map(|(name, value)| json!(format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))).collect();
    json!({ "method": request.method().as_str(), "uri": request.uri().to_string(), "headers": headers })
}

async fn behave(State(seen): State<Arc<Mutex<Vec<Value>>>>, mut request: Request) -> Response {
    let mut noted = note(&request);
    let behaviour = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    // Put down before the body is there: what hangs has been seen, too.
    seen.lock().unwrap().push(noted.clone());
    match behaviour.as_str() {
        "hang" => std::future::pending().await,
        "slow" => tokio::time::sleep(Duration::from_millis(1500)).await,
        "early" => return (StatusCode::CONFLICT, "early").into_response(),
        _ => {}
    }
    if let Some(upgrade) = upgrade {
        #[expect(clippy::disallowed_methods, reason = "ends with its socket")]
        tokio::spawn(async move {
            let mut socket = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = socket.read(&mut buffer).await {
                buffer[..count].make_ascii_uppercase();
                socket.write_all(&buffer[..count]).await.unwrap();
            }
        });
        let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "websocket")];
        return (StatusCode::SWITCHING_PROTOCOLS, headers).into_response();
    }
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.map(|body| body.len());
    noted["body"] = json!(body.ok());
    *seen.lock().unwrap().last_mut().unwrap() = noted.clone();
    answer(&behaviour, &noted)
}

fn answer(behaviour: &str, noted: &Value) -> Response {
    match behaviour {
        "events" => {
            let events = futures_util::stream::unfold(0, |number| async move {
                tokio::time::sleep(Duration::from_millis(if number == 0 { 0 } else { 300 })).await;
                (number < 4).then(|| (Ok::<_, std::io::Error>(Bytes::from(format!("data: {number}\n\n"))), number + 1))
            });
            ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
        }
        "ready" => {
            let text = "{\"status\":\"degraded\",\"services\":{\"mongodb\":{\"error\":\"dial tcp 172.18.0.2:27017\"}}}";
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
        "large" => Body::from(vec![b'x'; 3 << 20]).into_response(),
        _ => {
            let mut response = format!("{noted}").into_response();
            let headers = response.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            headers.insert("keep-alive", HeaderValue::from_static("timeout=5"));
            response
        }
    }
}
