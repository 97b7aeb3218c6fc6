//! A message as a webhook of Discord takes it. Nobody is mentioned, whatever the text says, and no markup is read in it.

use serde_json::{Value, json};

use crate::notify::alert::Alert;
use crate::notify::message::{Kind, Message};
use crate::notify::payload::{DESCRIBED, description, fitted, footer, headline, period};
use crate::notify::text::{characters, cut};

/// A longer content is refused.
const CONTENT: usize = 2000;
/// So is a longer description of an embed.
const DESCRIPTION: usize = 4096;
/// A headline of a message is a line.
const TITLE: usize = 300;

const RED: u32 = 0xd0_3b_3b;
const AMBER: u32 = 0xe0_a0_30;
const GREEN: u32 = 0x2e_9e_5b;

/// The body.
#[must_use]
pub fn body(message: &Message) -> Value {
    let color = match (message.kind(), message.severity()) {
        (Kind::Resolved, _) => GREEN,
        (_, "critical") => RED,
        _ => AMBER,
    };
    let line = |alert: &Alert| {
        let sign = if alert.is_firing() { "🚨" } else { "✅" };
        format!("{sign} {} ({})", escape(&description(alert)), period(alert))
    };
    let subjects = message.subjects();
    let lines: Vec<String> = subjects.iter().take(DESCRIBED).map(line).collect();
    json!({
        "content": cut(&escape(&cut(&headline(message), TITLE, characters)), CONTENT, characters),
        "allowed_mentions": { "parse": [] },
        "embeds": [{
            "color": color,
            "description": fitted(&lines, subjects.len(), &footer(message, escape), DESCRIPTION, characters),
        }],
    })
}

/// A backslash before everything that Discord reads as markup.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | '*' | '_' | '~' | '`' | '|' | '>' | '<' | '#' | '[' | ']' | '(' | ')' | '@' | ':') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
