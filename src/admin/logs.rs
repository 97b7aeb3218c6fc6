//! `/logs/malformed`: the last log lines that told nothing, each with its place. Behind the token: lines hold whatever the
//! application wrote.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::json;

use crate::admin::json_text;
use crate::logs::Samples;

/// The routes, to be put behind the token.
pub fn router(samples: Samples) -> Router {
    Router::new().route("/logs/malformed", get(malformed)).with_state(samples)
}

async fn malformed(State(samples): State<Samples>) -> Response {
    json_text(&json!({ "malformed": samples.all() })).into_response()
}
