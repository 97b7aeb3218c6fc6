//! The read-only HTTP surface: probes, metrics and the health document. Everything is answered from memory.
//!
//! | path | answers |
//! |---|---|
//! | `/livez` | the sidecar's own progress |
//! | `/startupz` | the first round of checks is done, whatever it found |
//! | `/readyz`, `/readyz/{check}`, `/groups/{group}/readyz` | the critical checks, one check, the checks of a group |
//! | `/self/readyz` | the sidecar itself can answer |
//! | `/health`, `/health/{check}` | `application/health+json` |
//! | `/metrics` | Prometheus text 0.0.4 or OpenMetrics 1.0 |

mod access;
mod document;
mod metrics;
mod probes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tower_http::compression::CompressionLayer;

use crate::health::board::Board;
use crate::runtime::heartbeat::Heartbeat;
use crate::runtime::latch::Latch;
use crate::runtime::shutdown::Shutdown;
use crate::secret::Secret;

/// What the handlers read.
#[derive(Debug)]
pub struct Surface {
    /// The states of the checks.
    pub board: Arc<Board>,
    /// Everything that is exposed.
    pub registry: Registry,
    /// The logs have been read up to where they ended at the start; before that, counters would seem to go back.
    pub caught_up: Latch,
    /// The end of the process.
    pub shutdown: Shutdown,
    /// The progress of the workers.
    pub heartbeat: Heartbeat,
    /// The token that opens the details.
    pub token: Option<Secret>,
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
        .route("/", get(index))
        .route("/livez", get(probes::livez))
        .route("/startupz", get(probes::startupz))
        .route("/readyz", get(probes::readyz))
        .route("/readyz/{check}", get(probes::check_readyz))
        .route("/groups/{group}/readyz", get(probes::group_readyz))
        .route("/self/readyz", get(probes::self_readyz))
        .route("/health", get(document::health))
        .route("/health/{check}", get(document::check_health))
        .route("/metrics", get(metrics::metrics).layer(CompressionLayer::new()))
        .fallback(not_found)
        .with_state(surface)
}

/// What exporters show to somebody who looks around.
async fn index() -> impl IntoResponse {
    Html(include_str!("admin/index.html"))
}

async fn not_found() -> impl IntoResponse {
    let body = "404 page not found; see / for what there is\n";
    (axum::http::StatusCode::NOT_FOUND, body)
}

/// A plain text that must not be kept.
fn text(body: String) -> ([(axum::http::HeaderName, HeaderValue); 2], String) {
    let headers =
        [(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (headers, body)
}
