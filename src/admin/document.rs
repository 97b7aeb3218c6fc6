//! `/health`: the checks as `application/health+json` (draft-inadarei-api-health-check-06). Pass and warn answer 200,
//! fail answers 503. Our own keys begin with `x-`.
//!
//! A document is written once for each snapshot of the board and handed out until the next: thousands of requests a second
//! cost what a few do.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::admin::access::Viewer;
use crate::admin::{Surface, text};
use crate::clock::Now;
use crate::health::aggregate::{Snapshot, Status};

mod form;

use form::{Document, OfOne, OneCheck, Scheduler};

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
    fn of(&self, viewer: Viewer, snapshot: &Arc<Snapshot>, write: impl FnOnce() -> Bytes) -> Bytes {
        let kept = if viewer == Viewer::Trusted { &self.trusted } else { &self.anonymous };
        if let Some(written) = kept.load().as_ref()
            && Arc::ptr_eq(&written.snapshot, snapshot)
        {
            return written.text.clone();
        }
        let text = write();
        kept.store(Some(Arc::new(Written { snapshot: Arc::clone(snapshot), text: text.clone() })));
        text
    }
}

pub(super) async fn health(State(surface): State<Arc<Surface>>, viewer: Viewer) -> Response {
    let snapshot = surface.board.snapshot(Now::read());
    let text =
        surface.documents.of(viewer, &snapshot, || pretty(&Document::new(&snapshot, viewer, surface.profile, Scheduler::of(&surface))));
    respond(snapshot.status(), &snapshot, viewer, text)
}

pub(super) async fn check_health(State(surface): State<Arc<Surface>>, Path(check): Path<String>, viewer: Viewer) -> Response {
    let snapshot = surface.board.snapshot(Now::read());
    let Some(check) = snapshot.check(&check) else {
        return (StatusCode::NOT_FOUND, text("404 there is no such check; /health lists them\n".to_owned())).into_response();
    };
    let document = OfOne { status: check.status().word(), checks: OneCheck(check, viewer) };
    respond(check.status(), &snapshot, viewer, pretty(&document))
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

fn pretty(document: &impl Serialize) -> Bytes {
    // Writing to memory fails only where a key is no text, and ours all are.
    let mut text = serde_json::to_vec_pretty(document).unwrap_or_default();
    text.push(b'\n');
    Bytes::from(text)
}
