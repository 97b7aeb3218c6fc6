//! `/health`: the checks as `application/health+json` (draft-inadarei-api-health-check-06). Pass and warn answer 200,
//! fail answers 503. Our own keys begin with `x-`.
//!
//! A document is written once for each snapshot of the board and handed out until the next: thousands of requests a second
//! cost what a few do.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::admin::access::Viewer;
use crate::admin::{Surface, text};
use crate::clock::Now;
use crate::health::aggregate::{self, CheckView, Snapshot, Status};

/// The last document that was written for each kind of viewer.
#[derive(Debug, Default)]
pub struct Documents {
    trusted: ArcSwapOption<Written>,
    anonymous: ArcSwapOption<Written>,
}

#[derive(Debug)]
struct Written {
    snapshot: Arc<Snapshot>,
    text: Bytes,
}

// === impl Documents ===

impl Documents {
    fn of(&self, viewer: Viewer, snapshot: &Arc<Snapshot>, write: impl FnOnce() -> Value) -> Bytes {
        let kept = if viewer == Viewer::Trusted { &self.trusted } else { &self.anonymous };
        if let Some(written) = kept.load().as_ref()
            && Arc::ptr_eq(&written.snapshot, snapshot)
        {
            return written.text.clone();
        }
        let text = Bytes::from(format!("{:#}\n", write()));
        kept.store(Some(Arc::new(Written { snapshot: Arc::clone(snapshot), text: text.clone() })));
        text
    }
}

pub(super) async fn health(State(surface): State<Arc<Surface>>, viewer: Viewer) -> Response {
    let snapshot = surface.board.snapshot(Now::read());
    let text = surface.documents.of(viewer, &snapshot, || document(&surface, &snapshot, viewer));
    respond(snapshot.status(), &snapshot, viewer, text)
}

pub(super) async fn check_health(State(surface): State<Arc<Surface>>, Path(check): Path<String>, viewer: Viewer) -> Response {
    let snapshot = surface.board.snapshot(Now::read());
    let Some(check) = snapshot.check(&check) else {
        return (StatusCode::NOT_FOUND, text("404 there is no such check; /health lists them\n".to_owned())).into_response();
    };
    let status = check.status();
    let checks = json!({ key(check): [component(check, viewer)] });
    let document = json!({ "status": status.word(), "checks": checks });
    respond(status, &snapshot, viewer, Bytes::from(format!("{document:#}\n")))
}

fn respond(status: Status, snapshot: &Snapshot, viewer: Viewer, text: Bytes) -> Response {
    let code = if status == Status::Fail { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    // The document cannot change before the next look.
    let max_age = snapshot.checks.iter().map(|check| check.interval.as_secs()).min().unwrap_or(0);
    // No cache may hand the details of one to others.
    let whose = if viewer == Viewer::Trusted { "private, " } else { "" };
    let headers = [
        (CONTENT_TYPE, "application/health+json".to_owned()),
        (CACHE_CONTROL, format!("{whose}max-age={max_age}")),
        (VARY, "Authorization".to_owned()),
    ];
    (code, headers, text).into_response()
}

fn document(surface: &Surface, snapshot: &Snapshot, viewer: Viewer) -> Value {
    let status = snapshot.status();
    let mut checks = Map::new();
    for check in &snapshot.checks {
        checks.insert(key(check), json!([component(check, viewer)]));
    }
    checks.insert("sidecar:scheduler".to_owned(), json!([scheduler(surface)]));
    let groups: Map<String, Value> = snapshot
        .groups
        .iter()
        .map(|group| (group.name.clone(), json!(if group.ready { Status::Pass.word() } else { Status::Fail.word() })))
        .collect();
    let root_causes: Vec<&str> = snapshot.root_causes().collect();
    let mut document = json!({
        "status": status.word(),
        "version": "1",
        "releaseId": env!("CARGO_PKG_VERSION"),
        "description": format!("Health of the profile {}", surface.profile),
        "checks": checks,
        "x-groups": groups,
        "x-root_causes": root_causes,
        "links": { "metrics": "/metrics", "ready": "/readyz", "history": "/api/v1/history" },
    });
    if status != Status::Pass {
        let wrong: Vec<String> = snapshot
            .checks
            .iter()
            .filter(|check| check.status() != Status::Pass)
            .map(|check| format!("{} is {}", check.name, check.state.code()))
            .collect();
        document["output"] = json!(wrong.join(", "));
    }
    document
}

/// The sidecar's own progress: a verdict is worth what the one who gives it is.
fn scheduler(surface: &Surface) -> Value {
    let now = Instant::now();
    let age = surface.heartbeats.iter().map(|(_, heartbeat)| heartbeat.age(now)).max().unwrap_or_default();
    let status = if age < surface.stuck_after { Status::Pass } else { Status::Fail };
    json!({ "componentType": "system", "observedValue": age.as_secs_f64(), "observedUnit": "s", "status": status.word() })
}

/// The draft names a check by component and measurement.
fn key(check: &CheckView) -> String {
    format!("{}:responseTime", check.name)
}

fn component(check: &CheckView, viewer: Viewer) -> Value {
    let mut component = json!({
        "componentId": check.name,
        "componentType": check.component_type,
        "status": check.status().word(),
        "x-state": check.state.code(),
        "x-verdict": check.verdict.code(),
        "x-since": check.since.to_string(),
        "x-criticality": if check.critical { "critical" } else { "informative" },
        "x-stale": check.verdict == aggregate::State::Stale,
        "x-interval_ms": millis(check.interval),
        "x-root_cause": check.is_root_cause,
    });
    if let Some(last) = &check.last {
        component["observedValue"] = json!(millis(last.duration));
        component["observedUnit"] = json!("ms");
        component["time"] = json!(last.at.to_string());
        component["x-raw"] = json!(if last.failure.is_some() { "fail" } else { "pass" });
        component["x-consecutive"] = json!(check.consecutive);
        component["x-age_ms"] = json!(millis(last.age));
        if let Some(warning) = last.warning {
            component["x-warning"] = json!(warning.code());
        }
        if let Some(end) = last.certificate_end {
            component["x-certificate_end"] = json!(end.to_string());
        }
        // The draft asks for an output only where something is wrong.
        if viewer == Viewer::Trusted
            && let Some(detail) = &last.detail
        {
            component["output"] = json!(detail);
        }
    }
    if let Some(reason) = check.reason {
        component["x-reason"] = json!(reason);
    }
    if let Some(cause) = &check.suppressed_by {
        component["x-suppressed_by"] = json!(cause);
    }
    if let Some(maintenance) = &check.maintenance {
        component["x-maintenance"] = json!({ "until": maintenance.until.to_string() });
        if let Some(reason) = maintenance.reason.as_deref().filter(|_| viewer == Viewer::Trusted) {
            component["x-maintenance"]["reason"] = json!(reason);
        }
    }
    component
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
