//! The probes: a status code for machines, and for people the list of checks in the form of the Kubernetes API server.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::admin::access::Viewer;
use crate::admin::{Surface, form, text};
use crate::clock::Now;
use crate::config::health::LIVENESS_GROUP;
use crate::health::aggregate::CheckView;

/// `?verbose` and `?exclude=` (repeatable), as the Kubernetes API server has them.
#[derive(Debug, Default, Eq, PartialEq)]
struct Options {
    verbose: bool,
    exclude: Vec<String>,
}

/// One line of a probe's answer.
struct Line {
    name: String,
    passes: bool,
    /// It passes because nobody waits for its first look.
    is_joining: bool,
    /// What is said to those who may know it.
    reason: String,
}

pub(super) async fn livez(State(surface): State<Arc<Surface>>, RawQuery(query): RawQuery, viewer: Viewer) -> Response {
    let now = Instant::now();
    let progress = surface.heartbeats.iter().map(|(name, heartbeat)| {
        let age = heartbeat.age(now);
        Line::own(name, age < surface.stuck_after, format!("no progress for {} s", age.as_secs()))
    });
    let mut lines: Vec<Line> = progress.collect();
    // The configuration refuses anything remote in this group.
    let snapshot = surface.board.snapshot(Now::read());
    let group = snapshot.group(LIVENESS_GROUP);
    lines.extend(group.into_iter().flat_map(|group| &group.checks).map(|number| Line::in_group(&snapshot.checks[*number])));
    answer("livez", lines, &Options::parse(query.as_deref()), viewer)
}

pub(super) async fn startupz(State(surface): State<Arc<Surface>>, RawQuery(query): RawQuery, viewer: Viewer) -> Response {
    answer("startupz", vec![start_line(&surface)], &Options::parse(query.as_deref()), viewer)
}

pub(super) async fn self_readyz(State(surface): State<Arc<Surface>>, RawQuery(query): RawQuery, viewer: Viewer) -> Response {
    answer("readyz", vec![start_line(&surface), shutdown_line(&surface)], &Options::parse(query.as_deref()), viewer)
}

pub(super) async fn readyz(State(surface): State<Arc<Surface>>, RawQuery(query): RawQuery, viewer: Viewer) -> Response {
    group_answer(&surface, None, query.as_deref(), viewer)
}

pub(super) async fn group_readyz(
    State(surface): State<Arc<Surface>>,
    Path(group): Path<String>,
    RawQuery(query): RawQuery,
    viewer: Viewer,
) -> Response {
    group_answer(&surface, Some(&group), query.as_deref(), viewer)
}

pub(super) async fn check_readyz(
    State(surface): State<Arc<Surface>>,
    Path(check): Path<String>,
    RawQuery(query): RawQuery,
    viewer: Viewer,
) -> Response {
    let snapshot = surface.board.snapshot(Now::read());
    match snapshot.check(&check) {
        Some(check) => answer("readyz", vec![Line::of(check)], &Options::parse(query.as_deref()), viewer),
        None => (StatusCode::NOT_FOUND, text("404 there is no such check; /readyz?verbose lists them\n".to_owned())).into_response(),
    }
}

fn group_answer(surface: &Surface, group: Option<&str>, query: Option<&str>, viewer: Viewer) -> Response {
    let snapshot = surface.board.snapshot(Now::read());
    let found = match group {
        Some(name) => snapshot.group(name),
        None => snapshot.groups.first(),
    };
    let Some(group) = found else {
        return (StatusCode::NOT_FOUND, text("404 there is no such group\n".to_owned())).into_response();
    };
    let mut lines: Vec<Line> = group.checks.iter().map(|number| Line::in_group(&snapshot.checks[*number])).collect();
    lines.push(shutdown_line(surface));
    answer("readyz", lines, &Options::parse(query), viewer)
}

fn start_line(surface: &Surface) -> Line {
    let has_started = surface.board.first_round().is_set() || surface.started.elapsed() > surface.startup_grace;
    Line::own("first-round", has_started, "not all checks have been looked at yet".to_owned())
}

fn shutdown_line(surface: &Surface) -> Line {
    Line::own("shutdown", !surface.shutdown.is_unready(), "the sidecar is shutting down".to_owned())
}

/// 200 or 503. The list is shown when it was asked for, and whenever something fails.
fn answer(probe: &str, lines: Vec<Line>, options: &Options, viewer: Viewer) -> Response {
    let ready = lines.iter().all(|line| line.passes || options.exclude.contains(&line.name));
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if ready && !options.verbose {
        return (status, text("ok".to_owned())).into_response();
    }
    let mut body = String::new();
    for line in &lines {
        // Writing to a String never fails.
        let _ = if options.exclude.contains(&line.name) {
            writeln!(body, "[+]{} excluded: ok", line.name)
        } else if line.is_joining {
            writeln!(body, "[+]{} not looked at yet: ok", line.name)
        } else if line.passes {
            writeln!(body, "[+]{} ok", line.name)
        } else {
            let reason = if viewer == Viewer::Trusted { &line.reason } else { "reason withheld" };
            writeln!(body, "[-]{} failed: {reason}", line.name)
        };
    }
    let unknown: Vec<&str> =
        options.exclude.iter().filter(|name| !lines.iter().any(|line| line.name == **name)).map(String::as_str).collect();
    if !unknown.is_empty() {
        let _ = writeln!(body, "warn: some checks cannot be excluded: no matches for {unknown:?}");
    }
    let _ = writeln!(body, "{probe} check {}", if ready { "passed" } else { "failed" });
    (status, text(body)).into_response()
}

// === impl Line ===

impl Line {
    /// A line about the sidecar itself.
    fn own(name: &str, passes: bool, reason: String) -> Self {
        Self { name: name.to_owned(), passes, is_joining: false, reason }
    }

    /// A check among those that something depends on.
    fn in_group(check: &CheckView) -> Self {
        Self { passes: check.holds_nobody_up(), is_joining: check.is_joining, ..Self::of(check) }
    }

    /// A check by itself.
    fn of(check: &CheckView) -> Self {
        let mut reason = check.verdict.code().to_owned();
        if let Some(failure) = check.reason.filter(|failure| *failure != reason) {
            let _ = write!(reason, ": {failure}");
        }
        if let Some(cause) = &check.suppressed_by {
            let _ = write!(reason, ", because of {cause}");
        }
        if check.maintenance.is_some() {
            reason.push_str(", in maintenance");
        }
        Self { name: check.name.clone(), passes: check.passes(), is_joining: false, reason }
    }
}

// === impl Options ===

impl Options {
    fn parse(query: Option<&str>) -> Self {
        let mut options = Self::default();
        for (key, value) in query.map(form).into_iter().flatten() {
            match key.as_str() {
                "verbose" => options.verbose = value != "false" && value != "0",
                "exclude" => options.exclude.push(value),
                _ => {}
            }
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, passes: bool) -> Line {
        Line::own(name, passes, "down: timeout".to_owned())
    }

    #[track_caller]
    fn check(lines: Vec<Line>, query: &str, viewer: Viewer, status: u16, body: &str) {
        let response = answer("readyz", lines, &Options::parse(Some(query)), viewer);
        assert_eq!(response.status().as_u16(), status);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = runtime.block_on(axum::body::to_bytes(response.into_body(), 4096)).unwrap();
        assert_eq!(std::str::from_utf8(&bytes).unwrap(), body);
    }

    #[test]
    fn answers_have_the_form_of_the_kubernetes_api_server() {
        let lines = || vec![line("mongodb", true), line("api", false)];
        check(vec![line("mongodb", true)], "", Viewer::Anonymous, 200, "ok");
        check(vec![line("mongodb", true)], "verbose", Viewer::Anonymous, 200, "[+]mongodb ok\nreadyz check passed\n");
        check(lines(), "", Viewer::Anonymous, 503, "[+]mongodb ok\n[-]api failed: reason withheld\nreadyz check failed\n");
        check(lines(), "", Viewer::Trusted, 503, "[+]mongodb ok\n[-]api failed: down: timeout\nreadyz check failed\n");
        let joining = Line { is_joining: true, ..line("fresh", true) };
        check(vec![joining], "verbose", Viewer::Anonymous, 200, "[+]fresh not looked at yet: ok\nreadyz check passed\n");
        check(lines(), "exclude=api", Viewer::Anonymous, 200, "ok");
        check(
            lines(),
            "exclude=api&exclude=nope&verbose=1",
            Viewer::Anonymous,
            200,
            "[+]mongodb ok\n[+]api excluded: ok\nwarn: some checks cannot be excluded: no matches for [\"nope\"]\nreadyz check passed\n",
        );
    }
}
