//! Retention by admin calls: plans, status, runs, pause and resume. Behind the token.
//!
//! The handlers only ask; the part that owns retention does the work and answers.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::admin::{form, json_text, text};
use crate::retention::{Ask, Question, Questions};

/// A reason is a sentence.
const REASON_LIMIT: usize = 200;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedRun {
    policy: String,
    /// The plan that was looked at.
    plan: String,
    #[serde(default)]
    now: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedPause {
    reason: String,
}

/// The routes.
pub fn router(questions: Questions) -> Router {
    Router::new()
        .route("/retention/plan", get(plan))
        .route("/retention/status", get(status))
        .route("/retention/runs", get(status).post(run))
        .route("/retention/pause", post(pause))
        .route("/retention/resume", post(resume))
        .with_state(questions)
}

async fn plan(State(questions): State<Questions>, RawQuery(query): RawQuery) -> Response {
    let policy = form(query.as_deref().unwrap_or_default()).into_iter().find(|(key, _)| key == "policy").map(|(_, value)| value);
    answer(ask(&questions, Ask::Plan(policy)).await, StatusCode::OK)
}

async fn status(State(questions): State<Questions>) -> Response {
    answer(ask(&questions, Ask::Status).await, StatusCode::OK)
}

async fn run(State(questions): State<Questions>, body: Bytes) -> Response {
    let example = r#"{"policy":"discoveries","plan":"…"}, with the plan_id of /retention/plan"#;
    let wanted: WantedRun = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &format!("send JSON such as {example}: {error}")),
    };
    match wanted.plan.parse() {
        Ok(plan) => answer(ask(&questions, Ask::Run { policy: wanted.policy, plan, now: wanted.now }).await, StatusCode::ACCEPTED),
        Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

async fn pause(State(questions): State<Questions>, body: Bytes) -> Response {
    let wanted: WantedPause = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &format!(r#"send JSON such as {{"reason":"migration"}}: {error}"#)),
    };
    if wanted.reason.is_empty() || wanted.reason.chars().count() > REASON_LIMIT || wanted.reason.chars().any(char::is_control) {
        return refuse(StatusCode::BAD_REQUEST, &format!("a reason is one line of 1 to {REASON_LIMIT} characters"));
    }
    answer(ask(&questions, Ask::Pause(wanted.reason)).await, StatusCode::OK)
}

async fn resume(State(questions): State<Questions>) -> Response {
    answer(ask(&questions, Ask::Resume).await, StatusCode::OK)
}

async fn ask(questions: &Questions, ask: Ask) -> Result<Value, String> {
    let (reply, answer) = oneshot::channel();
    let is_full = questions.try_send(Question { ask, reply }).is_err();
    if is_full {
        return Err("too many questions wait already, or the sidecar is shutting down".to_owned());
    }
    answer.await.unwrap_or_else(|_| Err("the sidecar is shutting down".to_owned()))
}

fn answer(answer: Result<Value, String>, code: StatusCode) -> Response {
    match answer {
        Ok(value) => (code, json_text(&value)).into_response(),
        Err(message) => refuse(StatusCode::CONFLICT, &message),
    }
}

fn refuse(code: StatusCode, message: &str) -> Response {
    (code, text(format!("{} {message}\n", code.as_u16()))).into_response()
}
