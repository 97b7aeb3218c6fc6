//! The read-only HTTP surface: probes, metrics and the health document. Everything is answered from memory.
//!
//! | path | answers |
//! |---|---|
//! | `/livez` | the sidecar's own progress |
//! | `/startupz` | the first round of checks is done, whatever it found |
//! | `/readyz`, `/readyz/{check}`, `/groups/{group}/readyz` | the critical checks, one check, the checks of a group |
//! | `/self/readyz` | the sidecar itself can answer |
//! | `/health`, `/health/{check}` | `application/health+json` |
//! | `/compat/{system}/health` | the same in the shape of another system |
//! | `/`, `/api/v1/history` | the status page, and the history behind it |
//! | `/metrics` | Prometheus text 0.0.4 or OpenMetrics 1.0 |
//!
//! What changes something is served by [`control`], on a listener of its own.

mod access;
mod compat;
pub mod control;
pub mod document;
mod history;
pub mod logs;
mod metrics;
mod page;
mod probes;
pub mod retention;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;

use crate::admin::document::Documents;
use crate::health::board::Board;
use crate::health::history::History;
use crate::metrics::Registry;
use crate::runtime::heartbeat::Heartbeat;
use crate::runtime::latch::Latch;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::token::Token;

/// How many answers that take longer are written at once: the runtime of the surface has so many threads beside the one
/// that answers probes. More would only take the processor from it.
pub const WRITERS: usize = 2;

/// What the handlers read.
#[derive(Debug)]
pub struct Surface {
    /// The states of the checks.
    pub board: Arc<Board>,
    /// What they have been.
    pub history: Arc<History>,
    /// The documents as they were last written.
    pub documents: Documents,
    /// Everything that is exposed.
    pub registry: Arc<Registry>,
    /// The logs have been read up to where they ended at the start; before that, counters would seem to go back.
    pub caught_up: Latch,
    /// The end of the process.
    pub shutdown: Shutdown,
    /// The progress of those who work: of the domains, and of checks.
    pub heartbeats: [(&'static str, Heartbeat); 2],
    /// Without progress for this long, they are held to be stuck.
    pub stuck_after: Duration,
    /// The token that opens the details.
    pub token: Option<Arc<Token>>,
    /// The name of the profile.
    pub profile: &'static str,
    /// When the process started.
    pub started: Instant,
    /// How long a start may take before `/startupz` no longer waits for the first round: a component that hangs must
    /// not hold up the application's own start.
    pub startup_grace: Duration,
}

/// All routes.
pub fn router(surface: Arc<Surface>) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/livez", get(probes::livez))
        .route("/startupz", get(probes::startupz))
        .route("/readyz", get(probes::readyz))
        .route("/readyz/{check}", get(probes::check_readyz))
        .route("/groups/{group}/readyz", get(probes::group_readyz))
        .route("/self/readyz", get(probes::self_readyz))
        .route("/health", get(document::health))
        .route("/health/{check}", get(document::check_health))
        .route("/compat/decisionbox/health", get(compat::decisionbox))
        .route("/compat/ragbase/health", get(compat::ragbase))
        .route("/api/v1/history", get(history::history))
        .route("/metrics", get(metrics::metrics).layer(CompressionLayer::new().quality(CompressionLevel::Fastest)))
        .fallback(not_found)
        .with_state(surface)
}

async fn not_found() -> impl IntoResponse {
    let body = "404 page not found; see / for what there is\n";
    (StatusCode::NOT_FOUND, text(body.to_owned()))
}

/// An answer that takes longer than a probe may wait, or waits for a lock: written on another thread.
async fn later(write: impl FnOnce() -> Response + Send + 'static) -> Response {
    let broke = |_| (StatusCode::INTERNAL_SERVER_ERROR, text("500 the answer could not be written; see the log\n".to_owned()));
    tokio::task::spawn_blocking(write).await.unwrap_or_else(|error| broke(error).into_response())
}

/// JSON that must not be kept.
fn json_text(value: &serde_json::Value) -> ([(axum::http::HeaderName, HeaderValue); 2], String) {
    let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/json")), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (headers, format!("{value}\n"))
}

/// A plain text that must not be kept, nor taken for anything else: names that were asked for stand in it.
fn text(body: String) -> ([(axum::http::HeaderName, HeaderValue); 3], String) {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, body)
}

/// The pairs of a query.
fn form(query: &str) -> Vec<(String, String)> {
    reqwest::Url::parse(&format!("http://localhost/?{query}"))
        .map(|url| url.query_pairs().map(|(key, value)| (key.into_owned(), value.into_owned())).collect())
        .unwrap_or_default()
}
