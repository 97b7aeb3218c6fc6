//! What the services answer, in the application's own form: `{"data":…}`, or `{"error":"…"}` with a status of its own.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// How long a whole body may take: a client that is slower holds the request for nothing.
const BODY_TIME: Duration = Duration::from_secs(15);
/// How long a client waits before it asks again for what the database did not give.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// Why there is no answer with data.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
}

/// `{"data":…}`.
pub(super) fn data(status: StatusCode, value: &Value) -> Response {
    send(status, &json!({ "data": value }))
}

/// A whole document.
pub(super) fn send(status: StatusCode, document: &Value) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    let mut response = (status, headers, format!("{document}\n")).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, RETRY_SECONDS);
    }
    response
}

/// There is no such path.
pub(super) async fn not_found() -> Response {
    Refusal::new(StatusCode::NOT_FOUND, "not found").into_response()
}

/// There is the path, and it is not for this.
pub(super) async fn wrong_method() -> Response {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed").into_response()
}

/// Reads a body of at most `limit` bytes into memory that is cleared afterwards.
pub(super) async fn read(body: Body, limit: usize) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let too_large = || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {limit} bytes"));
    // All of it at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit));
    let mut chunks = body.into_data_stream();
    let whole = async {
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "the body could not be read to its end"))?;
            if bytes.len() + chunk.len() > limit {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(())
    };
    match tokio::time::timeout(BODY_TIME, whole).await {
        Ok(read) => read.map(|()| bytes),
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    }
}

/// What a body says. The parser's own words are left out: they quote what was sent.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| {
        let what = if error.is_data() { "a value has another type than it should" } else { "this is no JSON" };
        let message = format!("invalid JSON: {what}, at line {} column {}", error.line(), error.column());
        Refusal::new(StatusCode::BAD_REQUEST, message)
    })
}

// === impl Refusal ===

impl Refusal {
    /// With this status, and this text as `error`.
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// The database did not do it.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// Whether it is ours, and not the client's.
    pub(super) fn is_failure(&self) -> bool {
        self.status.is_server_error()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        send(self.status, &json!({ "error": self.message }))
    }
}
