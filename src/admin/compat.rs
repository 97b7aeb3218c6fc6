//! Health in the shapes of other systems, for what already reads them: the same verdicts, other words.
//!
//! Both systems answer 503 with `degraded` where a service fails, and the code is what their readers judge by.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::admin::access::Viewer;
use crate::admin::{Surface, json_text};
use crate::clock::Now;
use crate::health::aggregate::{Snapshot, Status};

/// DecisionBox, libs/go-common/health/health.go: `{"status":"ok|degraded","services":{name:{"status","error"}}}`. The
/// error is a code here, and only for those who may see it: there it is the driver's text, hosts included.
pub(super) async fn decisionbox(State(surface): State<Arc<Surface>>, viewer: Viewer) -> Response {
    let snapshot = surface.board.snapshot(Now::read());
    let services: Map<String, Value> = snapshot
        .checks
        .iter()
        .map(|check| {
            let mut service = json!({ "status": if check.passes() { "ok" } else { "error" } });
            if let Some(reason) = check.reason.filter(|_| viewer == Viewer::Trusted && !check.passes()) {
                service["error"] = json!(reason);
            }
            (check.name.clone(), service)
        })
        .collect();
    respond(&snapshot, &json!({ "status": word(&snapshot), "services": services }))
}

/// RAGBase, `GET /ready`: `{"status":"ok|degraded","checks":{name:bool},"version","uptime"}`.
pub(super) async fn ragbase(State(surface): State<Arc<Surface>>) -> Response {
    let snapshot = surface.board.snapshot(Now::read());
    let checks: Map<String, Value> = snapshot.checks.iter().map(|check| (check.name.clone(), json!(check.passes()))).collect();
    let uptime = surface.started.elapsed().as_secs_f64();
    let version = env!("CARGO_PKG_VERSION");
    respond(&snapshot, &json!({ "status": word(&snapshot), "checks": checks, "version": version, "uptime": uptime }))
}

fn word(snapshot: &Snapshot) -> &'static str {
    if snapshot.status() == Status::Fail { "degraded" } else { "ok" }
}

fn respond(snapshot: &Snapshot, document: &Value) -> Response {
    let code = if snapshot.status() == Status::Fail { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (code, json_text(document)).into_response()
}
