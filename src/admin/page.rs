//! `/`: the status page. One small document, written here, without scripts; it asks for itself again every five seconds.
//!
//! Shows verdicts and codes, as `/health` does to anybody. Everything that comes from outside is escaped.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use axum::response::{Html, IntoResponse, Response};
use jiff::Timestamp;

use crate::admin::{Surface, later};
use crate::clock::Now;
use crate::health::aggregate::{CheckView, Snapshot, Status};
use crate::health::history::log::{Change, Seconds, Summary, Window};

const HEAD: &str = include_str!("page/head.html");
const FOOT: &str = include_str!("page/foot.html");

pub(super) async fn page(State(surface): State<Arc<Surface>>) -> Response {
    later(move || respond(&surface, Now::read())).await
}

fn respond(surface: &Surface, now: Now) -> Response {
    let html = write_page(surface.profile, &surface.board.snapshot(now), &surface.history.summary(now), now.wall);
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    ([(CACHE_CONTROL, "no-store"), (CONTENT_SECURITY_POLICY, policy), (REFERRER_POLICY, "no-referrer")], Html(html)).into_response()
}

/// The whole page.
fn write_page(profile: &str, snapshot: &Snapshot, summary: &Summary, wall: Timestamp) -> String {
    let status = snapshot.status();
    let mut html = String::with_capacity(16 * 1024);
    html.push_str(HEAD);
    let headline = match status {
        Status::Pass => "All is well",
        Status::Warn => "Ready, and something is not as it should be",
        Status::Fail => "Not ready",
    };
    // Writing to a String never fails.
    let _ = write!(html, "<h1 class={}>{headline}</h1>\n<p>Profile {}, {} UTC", status.word(), escape(profile), time(wall));
    let causes: Vec<String> = snapshot.root_causes().map(escape).collect();
    if !causes.is_empty() {
        let _ = write!(html, ". Root cause: <strong>{}</strong>", causes.join(", "));
    }
    html.push_str("</p>\n<table><thead><tr><th>Check<th>State<th>Since<th>Reason<th>Took");
    Window::ALL.iter().for_each(|window| {
        let _ = write!(html, "<th>{}", window.name());
    });
    html.push_str("</thead><tbody>\n");
    for check in &snapshot.checks {
        write_row(&mut html, check, summary);
    }
    html.push_str("</tbody></table>\n");
    write_groups(&mut html, snapshot);
    write_changes(&mut html, &summary.changes);
    html.push_str(FOOT);
    html
}

fn write_row(html: &mut String, check: &CheckView, summary: &Summary) {
    let name = escape(&check.name);
    let mark = if check.critical { " *" } else { "" };
    let mut reason = escape(check.reason.unwrap_or_default());
    if let Some(cause) = &check.suppressed_by {
        let _ = write!(reason, " because of {}", escape(cause));
    }
    if let Some(maintenance) = &check.maintenance {
        let _ = write!(reason, " ({} until {} UTC)", check.verdict.code(), time(maintenance.until));
    }
    let took = check.last.as_ref().map(|last| format!("{:.1} ms", last.duration.as_secs_f64() * 1e3)).unwrap_or_default();
    let state = check.state.code();
    let _ = write!(html, "<tr><td><a href=\"health/{name}\">{name}</a>{mark}<td class={state}>{state}<td>{}", time(check.since));
    let _ = write!(html, "<td>{reason}<td class=number>{took}");
    let known = summary.uptimes.binary_search_by(|uptime| uptime.check.cmp(&check.name));
    for seconds in known.map_or([Seconds::default(); 4], |number| summary.uptimes[number].windows) {
        // Cut, not rounded: 100 % is said only of what never failed.
        let uptime = seconds.ratio().map(|ratio| format!("{:.2} %", (ratio * 1e4).floor() / 1e2)).unwrap_or_default();
        let _ = write!(html, "<td class=number>{uptime}");
    }
    html.push('\n');
}

fn write_groups(html: &mut String, snapshot: &Snapshot) {
    html.push_str("<h2>Groups</h2>\n<ul>\n");
    for group in &snapshot.groups {
        let (class, word) = if group.ready { ("up", "ready") } else { ("down", "not ready") };
        let members: Vec<String> = group.checks.iter().map(|number| escape(&snapshot.checks[*number].name)).collect();
        let _ = writeln!(html, "<li>{}: <span class={class}>{word}</span> ({})", escape(&group.name), members.join(", "));
    }
    html.push_str("</ul>\n");
}

fn write_changes(html: &mut String, changes: &[Change]) {
    html.push_str("<h2>Last changes</h2>\n<ul>\n");
    for Change { check, transition } in changes {
        let at = time(Timestamp::from_millisecond(transition.at).unwrap_or_default());
        let (from, to) = (transition.from.word(), transition.to.word());
        let maintenance = if transition.is_maintained { " (in maintenance)" } else { "" };
        let _ = writeln!(html, "<li>{at} {}: {from} → <span class={to}>{to}</span>{maintenance}", escape(check));
    }
    html.push_str("</ul>\n");
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Text within an element or a quoted attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_is_markup() {
        assert_eq!(escape("<script>alert('a & \"b\"')</script>"), "&lt;script&gt;alert(&#39;a &amp; &quot;b&quot;&#39;)&lt;/script&gt;");
    }

    #[test]
    fn an_empty_board_is_a_page() {
        let now = Now::read();
        let snapshot = Snapshot { at: now, checks: Vec::new(), groups: Vec::new(), local_network: true };
        let html = write_page("<none>", &snapshot, &Summary::default(), now.wall);
        assert!(html.contains("Profile &lt;none&gt;") && html.contains("Root cause: <strong>local_network</strong>"), "{html}");
        assert!(html.contains("<h1 class=pass>All is well</h1>") && html.ends_with("</html>\n"), "{html}");
    }
}
