//! An alert, or a fatal line, as an event of Sentry, in an envelope. One event each: its number is made of what it tells,
//! so that one that is sent twice is one event.

use std::hash::Hasher as _;

use jiff::Timestamp;
use reqwest::Url;
use serde_json::{Value, json};
use xxhash_rust::xxh3::Xxh3Default;

use crate::event::FatalLine;
use crate::notify::alert::Alert;
use crate::notify::message::Message;
use crate::notify::payload::{description, headline};
use crate::notify::text::{characters, cut, one_line};

/// A longer value of a tag is refused.
const TAG: usize = 200;

/// So much of a message or a field is sent, and so many fields: an event may have 1 MB.
const EXTRA: usize = 4096;
const FIELDS: usize = 64;

/// Where a DSN sends to, and what it authorises with.
#[derive(Clone, Debug, PartialEq)]
pub struct Ingest {
    /// The address of envelopes.
    pub url: Url,
    /// The value of `X-Sentry-Auth`.
    pub authorisation: String,
}

// === impl Ingest ===

impl Ingest {
    /// Takes a DSN such as `https://KEY@host/PROJECT` apart.
    #[must_use]
    pub fn of(dsn: &Url) -> Option<Self> {
        let path = dsn.path().trim_end_matches('/');
        let (prefix, project) = path.rsplit_once('/').filter(|(_, project)| !project.is_empty())?;
        let mut url = dsn.clone();
        url.set_username("").ok()?;
        url.set_password(None).ok()?;
        url.set_query(None);
        url.set_path(&format!("{prefix}/api/{project}/envelope/"));
        let client = concat!("bellwether/", env!("CARGO_PKG_VERSION"));
        let authorisation = format!("Sentry sentry_version=7, sentry_client={client}, sentry_key={}", dsn.username());
        Some(Self { url, authorisation })
    }
}

/// The envelope of a message: the event of its first alert, as each alert is a message of its own here.
#[must_use]
pub fn envelope(message: &Message, now: Timestamp) -> Option<String> {
    let alert = message.subjects().first()?;
    let level = match message.severity() {
        "critical" => "fatal",
        "warning" => "warning",
        _ => "info",
    };
    let tags = alert.labels.iter().map(|(name, value)| (name.clone(), cut(&one_line(value), TAG, characters).into_owned()));
    let id = event_id(alert);
    let event = json!({
        "event_id": id,
        "timestamp": alert.starts_at.to_string(),
        "platform": "other",
        "level": level,
        "logger": "bellwether",
        "message": { "formatted": format!("{}\n{}", headline(message), description(alert)) },
        "fingerprint": ["bellwether", alert.name()],
        "tags": tags.collect::<std::collections::BTreeMap<_, _>>(),
        "extra": alert.annotations,
    });
    Some(wrapped(&id, &event, now))
}

/// The envelope of a fatal line. Its number is made of its place, so that one that is read again is one event.
#[must_use]
pub fn fatal(line: &FatalLine, now: Timestamp) -> String {
    let mut hasher = Xxh3Default::new();
    for part in [line.input.as_bytes(), line.source.as_bytes(), &line.offset.to_le_bytes(), line.message.as_bytes()] {
        hasher.write_usize(part.len());
        hasher.write(part);
    }
    hasher.write_i64(line.time.map_or(0, Timestamp::as_millisecond));
    let (upper, lower) = (hasher.digest128() >> 64, hasher.finish());
    let id = format!("{upper:016x}{lower:016x}");
    let fields = line.fields.iter().map(|(name, value)| match value {
        Value::String(text) => (name.clone(), Value::from(cut(text, EXTRA, characters))),
        Value::Array(_) | Value::Object(_) => (name.clone(), Value::from(cut(&value.to_string(), EXTRA, characters))),
        value => (name.clone(), value.clone()),
    });
    let event = json!({
        "event_id": id,
        "timestamp": line.time.unwrap_or(now).to_string(),
        "platform": "other",
        "level": "fatal",
        "logger": cut(&line.input, TAG, characters),
        "message": { "formatted": cut(&line.message, EXTRA, characters) },
        "fingerprint": ["bellwether", line.input, cut(&line.message, TAG, characters)],
        "tags": { "input": cut(&one_line(&line.input), TAG, characters), "source": cut(&one_line(&line.source), TAG, characters) },
        "extra": fields.take(FIELDS).collect::<serde_json::Map<_, _>>(),
    });
    wrapped(&id, &event, now)
}

fn wrapped(id: &str, event: &Value, now: Timestamp) -> String {
    let event = event.to_string();
    let head = json!({ "event_id": id, "sent_at": now.to_string() });
    let item = json!({ "type": "event", "content_type": "application/json", "length": event.len() });
    format!("{head}\n{item}\n{event}\n")
}

fn event_id(alert: &Alert) -> String {
    let mut hasher = Xxh3Default::new();
    hasher.write_u64(alert.fingerprint());
    hasher.write_i64(alert.starts_at.as_millisecond());
    format!("{:016x}{:016x}", alert.fingerprint(), hasher.finish())
}
