//! A message as an incoming webhook of Slack takes it.
//!
//! Text of alerts stands where no markup is read (`mrkdwn_in` is empty); the three characters that Slack reads anywhere,
//! and of which mentions and links are made, are escaped.

use serde_json::{Value, json};

use crate::notify::message::{Kind, Message};
use crate::notify::payload::{DESCRIBED, description, fitted, footer, headline, period};
use crate::notify::text::{characters, cut};

/// Slack shows the first part of a longer one.
const TEXT: usize = 7000;
/// A headline of a message is a line.
const TITLE: usize = 300;

/// The body.
#[must_use]
pub fn body(message: &Message) -> Value {
    let color = match (message.kind(), message.severity()) {
        (Kind::Resolved, _) => "good",
        (_, "critical") => "danger",
        _ => "warning",
    };
    let line = |alert: &crate::notify::alert::Alert| {
        let sign = if alert.is_firing() { ":rotating_light:" } else { ":white_check_mark:" };
        format!("{sign} {} ({})", escape(&description(alert)), period(alert))
    };
    let subjects = message.subjects();
    let lines: Vec<String> = subjects.iter().take(DESCRIBED).map(line).collect();
    let title = escape(&cut(&headline(message), TITLE, characters));
    json!({
        "text": title,
        "unfurl_links": false,
        "unfurl_media": false,
        "attachments": [{
            "color": color,
            "fallback": title,
            "text": fitted(&lines, subjects.len(), &footer(message, escape), TEXT, characters),
            "mrkdwn_in": [],
        }],
    })
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
