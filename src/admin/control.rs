//! What changes something: maintenance and reload, on a listener of its own that needs the token for everything.
//!
//! Domains that have something to change hand their routes in; the token is asked for here, once, for all of them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::WWW_AUTHENTICATE;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::admin::access::bearer;
use crate::admin::{json_text, not_found, text};
use crate::clock::Now;
use crate::health::board::Board;
use crate::health::maintenance::{Call, LONGEST_CALL};
use crate::runtime::token::Token;
use crate::units::parse_duration;

/// No request has a longer body.
const BODY_LIMIT: usize = 64 * 1024;
/// A reason is a sentence.
const REASON_LIMIT: usize = 200;

/// What the handlers change.
#[derive(Debug)]
pub struct Control {
    /// The checks.
    pub board: Arc<Board>,
    /// Opens everything here.
    pub token: Arc<Token>,
    /// Asks for a reload.
    pub reload: mpsc::Sender<Reload>,
}

/// Somebody asks for a reload, and waits for what came of it: what has changed, or why nothing has.
#[derive(Debug)]
pub struct Reload(pub oneshot::Sender<Result<String, String>>);

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default)]
    checks: Vec<String>,
    #[serde(rename = "for")]
    length: String,
    #[serde(default)]
    reason: String,
}

/// All routes, and those of others (`more`), behind the token.
pub fn router(control: Arc<Control>, more: Router) -> Router {
    Router::new()
        .route("/maintenance", get(list).post(begin).delete(end_all))
        .route("/maintenance/{id}", delete(end))
        .route("/-/reload", post(reload).put(reload))
        .with_state(Arc::clone(&control))
        .merge(more)
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn_with_state(control, demand_token))
}

async fn demand_token(State(control): State<Arc<Control>>, request: Request, next: Next) -> Response {
    if bearer(request.headers()).is_some_and(|candidate| control.token.matches(candidate)) {
        return next.run(request).await;
    }
    let body = text("401 send the token of `admin.token_file`: Authorization: Bearer …\n".to_owned());
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], body).into_response()
}

async fn list(State(control): State<Arc<Control>>) -> Response {
    let calls: Vec<Value> = control.board.maintenances(Now::read()).iter().map(call).collect();
    json_text(&json!({ "maintenance": calls })).into_response()
}

async fn begin(State(control): State<Arc<Control>>, body: Bytes) -> Response {
    match wanted(&control, &body) {
        Err(message) => refuse(StatusCode::BAD_REQUEST, &message),
        Ok((checks, length, reason)) => match control.board.begin_maintenance(checks, length, reason, Now::read()) {
            Ok(begun) => {
                tracing::info!(id = begun.id, checks = ?begun.checks, length = ?length, "a maintenance begins");
                (StatusCode::CREATED, json_text(&call(&begun))).into_response()
            }
            Err(error) => refuse(StatusCode::TOO_MANY_REQUESTS, &error.to_string()),
        },
    }
}

/// What is asked for, if it can be done: known checks, an end, a reason of a sentence.
fn wanted(control: &Control, body: &[u8]) -> Result<(Vec<String>, Duration, String), String> {
    let example = r#"{"checks":["api"],"for":"30m","reason":"update"}"#;
    let wanted: Wanted = serde_json::from_slice(body).map_err(|error| format!("send JSON such as {example}: {error}"))?;
    let length = parse_duration(&wanted.length).map_err(|error| error.to_string())?;
    if length.is_zero() || length > LONGEST_CALL {
        return Err("a maintenance lasts from 1s to 30d: it ends by itself".to_owned());
    }
    if wanted.reason.chars().count() > REASON_LIMIT || wanted.reason.chars().any(char::is_control) {
        return Err(format!("a reason is one line of at most {REASON_LIMIT} characters"));
    }
    let known = control.board.watched();
    match wanted.checks.iter().find(|name| !known.iter().any(|watched| watched.check.name == **name)) {
        Some(unknown) => Err(format!("there is no check {unknown:?}; /health lists them")),
        None => Ok((wanted.checks, length, wanted.reason)),
    }
}

async fn end_all(State(control): State<Arc<Control>>) -> Response {
    ended(control.board.end_maintenance(None, Now::read()))
}

async fn end(State(control): State<Arc<Control>>, Path(id): Path<String>) -> Response {
    match id.parse().map(|id| control.board.end_maintenance(Some(id), Now::read())) {
        Ok(count) if count > 0 => ended(count),
        _ => refuse(StatusCode::NOT_FOUND, "there is no such maintenance; GET /maintenance lists them"),
    }
}

fn ended(count: usize) -> Response {
    tracing::info!(count, "maintenance was ended");
    json_text(&json!({ "ended": count })).into_response()
}

async fn reload(State(control): State<Arc<Control>>) -> Response {
    let (sender, receiver) = oneshot::channel();
    if control.reload.send(Reload(sender)).await.is_err() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the sidecar is shutting down");
    }
    match receiver.await {
        Ok(Ok(message)) => text(format!("{message}\n")).into_response(),
        Ok(Err(message)) => refuse(StatusCode::BAD_REQUEST, &message),
        Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, "the sidecar is shutting down"),
    }
}

fn call(call: &Call) -> Value {
    let until = Timestamp::from_millisecond(call.until).unwrap_or(Timestamp::MAX).to_string();
    json!({ "id": call.id, "checks": call.checks, "until": until, "reason": call.reason })
}

fn refuse(code: StatusCode, message: &str) -> Response {
    (code, text(format!("{} {message}\n", code.as_u16()))).into_response()
}
