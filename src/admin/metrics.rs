//! `/metrics`: the registry in the format that the scraper prefers; compression is a layer.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::admin::{Surface, later};
use crate::metrics::exposition::Format;

pub(super) async fn metrics(State(surface): State<Arc<Surface>>, headers: HeaderMap) -> Response {
    if !surface.caught_up.is_set() {
        let body = "503 the logs are still being read up to where they ended at the start; counters would seem to go back\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], body).into_response();
    }
    // Prometheus sends one header; a client that sends several means their list.
    let accept: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::negotiate((!accept.is_empty()).then(|| accept.join(",")).as_deref());
    later(move || match format.write(&surface.registry) {
        Ok(body) => ([(CONTENT_TYPE, format.content_type())], body).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "500 the metrics could not be written\n").into_response(),
    })
    .await
}
