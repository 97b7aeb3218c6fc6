//! `/api/v1/history?check=&window=`: uptime and transitions as JSON.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::admin::{Surface, form, json_text, later, text};
use crate::clock::Now;
use crate::health::history::log::{CheckReport, Transition, Window};

pub(super) async fn history(State(surface): State<Arc<Surface>>, RawQuery(query): RawQuery) -> Response {
    later(move || respond(&surface, query.as_deref())).await
}

fn respond(surface: &Surface, query: Option<&str>) -> Response {
    let query = query.map(form).unwrap_or_default();
    let given = |key: &str| query.iter().find(|(name, value)| name == key && !value.is_empty()).map(|(_, value)| value.as_str());
    let Some(window) = given("window").map_or(Some(Window::Day), Window::named) else {
        let names = Window::ALL.map(Window::name).join(", ");
        return (StatusCode::BAD_REQUEST, text(format!("400 there is no such window; there are {names}\n"))).into_response();
    };
    let now = Now::read();
    let Some(reports) = surface.history.report(given("check"), window, now) else {
        return (StatusCode::NOT_FOUND, text("404 there is no such check; /health lists them\n".to_owned())).into_response();
    };
    let checks: Vec<Value> = reports.iter().map(check).collect();
    json_text(&json!({ "window": window.name(), "to": now.wall.to_string(), "checks": checks })).into_response()
}

fn check(report: &CheckReport) -> Value {
    let uptime = &report.uptime;
    json!({
        "check": report.check,
        "uptime": {
            "ratio": uptime.ratio(),
            "ratio_without_maintenance": uptime.ratio_without_maintenance(),
            "up_seconds": uptime.up + uptime.maintained_up,
            "down_seconds": uptime.down + uptime.maintained_down,
            "maintenance_seconds": uptime.maintained_up + uptime.maintained_down,
            "unknown_seconds": report.unknown,
        },
        "transitions": report.transitions.iter().map(transition).collect::<Vec<_>>(),
        "transitions_dropped": report.dropped,
    })
}

fn transition(transition: &Transition) -> Value {
    json!({
        "at": Timestamp::from_millisecond(transition.at).unwrap_or_default().to_string(),
        "from": transition.from.word(),
        "to": transition.to.word(),
        "maintenance": transition.is_maintained,
    })
}
