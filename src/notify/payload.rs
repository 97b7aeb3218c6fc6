//! What a message looks like for each kind of receiver. Pure: labels and annotations may be text of anybody.

pub mod alertmanager;
pub mod discord;
pub mod email;
pub mod sentry;
pub mod slack;
pub mod webhook;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::notify::alert::Alert;
use crate::notify::message::{Kind, Message};
use crate::notify::text::{cut, one_line};

/// How many alerts are described in a message that people read. More nobody reads.
const DESCRIBED: usize = 20;
/// How long one description may be, in bytes.
const DESCRIPTION: usize = 1000;

/// The first line: as the templates of the sample for Alertmanager have it.
fn headline(message: &Message) -> String {
    let count = message.news.iter().filter(|alert| alert.is_firing()).count();
    let status = match message.kind() {
        Kind::Firing => format!("FIRING {count}"),
        Kind::Reminder => format!("STILL FIRING {}", message.still.len()),
        Kind::Resolved => "RESOLVED".to_owned(),
    };
    let summary = message.annotation("summary").map(|text| format!(": {text}")).unwrap_or_default();
    one_line(&format!("[{status}] {}{summary}", message.alert_name()))
}

/// What is known of an alert, in one line without its time.
fn description(alert: &Alert) -> String {
    let text = alert.annotations.get("description").or_else(|| alert.annotations.get("summary"));
    let text = text.filter(|text| !text.trim().is_empty()).cloned().unwrap_or_else(|| labels(alert));
    cut(&one_line(&text), DESCRIPTION, str::len).into_owned()
}

/// Its labels without its name, as Prometheus writes them.
fn labels(alert: &Alert) -> String {
    let labels = alert.labels.iter().filter(|(name, _)| *name != "alertname");
    let labels: Vec<String> = labels.map(|(name, value)| format!("{}={:?}", one_line(name), one_line(value))).collect();
    labels.join(" ")
}

/// When it began, and when it ended.
fn period(alert: &Alert) -> String {
    match alert.ends_at {
        None => format!("since {}", utc(alert.starts_at)),
        Some(end) => format!("{} to {}", utc(alert.starts_at), utc(end)),
    }
}

fn utc(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// What stands below the descriptions: what goes on, and where to look.
fn footer(message: &Message, escape: impl Fn(&str) -> String) -> Vec<String> {
    let still = (!message.news.is_empty() && !message.still.is_empty()).then(|| format!("Still firing: {} more.", message.still.len()));
    let link = |title: &str, name: &str| {
        message.annotation(name).map(|text| format!("{title}: {}", escape(&cut(&one_line(text), DESCRIPTION, str::len))))
    };
    [still, link("Runbook", "runbook_url"), link("Dashboard", "dashboard_url")].into_iter().flatten().collect()
}

/// Lines that take at most `most`, as `measure` counts; those that do not fit are counted, the footer always fits.
fn fitted(lines: &[String], total: usize, footer: &[String], most: usize, measure: impl Fn(&str) -> usize) -> String {
    let more = |left: usize| format!("… and {left} more");
    let size = |line: &str| measure(line) + 1;
    let mut room = most.saturating_sub(footer.iter().map(|line| size(line)).sum::<usize>() + size(&more(total)));
    let mut fitting: Vec<&str> = Vec::new();
    for line in lines {
        if size(line) > room {
            break;
        }
        room -= size(line);
        fitting.push(line);
    }
    let rest = (fitting.len() < total).then(|| more(total - fitting.len()));
    let all: Vec<&str> = fitting.into_iter().chain(rest.as_deref()).chain(footer.iter().map(String::as_str)).collect();
    cut(&all.join("\n"), most, measure).into_owned()
}

#[cfg(test)]
mod tests;
