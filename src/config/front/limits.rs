//! How much the front door takes at once, how large, and how long anything may take.

use std::ops::RangeInclusive;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::{Complaints, Problems};
use crate::config::spanned::Spanned;
use crate::config::values::{HumanDuration, HumanSize, Texts};

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FrontLimits")]
pub(super) struct RawLimits {
    /// The longest body of a request: 1MiB.
    body: Option<Spanned<HumanSize>>,
    /// The types of a request's body: application/json.
    content_types: Option<Texts>,
    /// The longest path with its query: 8KiB.
    uri: Option<Spanned<HumanSize>>,
    /// The longest head of a request, path and headers together: 16KiB.
    head: Option<Spanned<HumanSize>>,
    /// Requests a second of one client: 50. Twice as many may come at once.
    rate_per_client: Option<Spanned<u64>>,
    /// Requests a second of all: 500. Twice as many may come at once.
    rate: Option<Spanned<u64>>,
    /// Requests of one client that are being answered at the same time, streams among them: 64.
    requests_per_client: Option<Spanned<u64>>,
    /// Requests that are being answered at the same time: 512.
    requests: Option<Spanned<u64>>,
    /// Connections of clients: 2048. The one that has been idle for the longest time makes room for a new one.
    connections: Option<Spanned<u64>>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FrontTimeouts")]
pub(super) struct RawTimeouts {
    /// A connection to the API, with its handshake: 2s.
    connect: Option<Spanned<HumanDuration>>,
    /// From the request to the head of the API's answer: 2m. A test of a connection takes DecisionBox 90 s.
    response: Option<Spanned<HumanDuration>>,
    /// Between two pieces of an answer, and of a WebSocket: 10m.
    stream: Option<Spanned<HumanDuration>>,
    /// The head of a client's request: 10s.
    head: Option<Spanned<HumanDuration>>,
    /// The whole body of a client's request: 30s.
    body: Option<Spanned<HumanDuration>>,
    /// How long a client may keep a connection and ask nothing, or not take what it is sent: 75s.
    idle: Option<Spanned<HumanDuration>>,
}

/// How much at once, and how large.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The longest body of a request, in bytes.
    pub body: u64,
    /// The types that a request's body may have.
    pub content_types: Vec<String>,
    /// The longest path with its query, in bytes.
    pub uri: usize,
    /// The longest head of a request, in bytes.
    pub head: usize,
    /// Requests a second of one client.
    pub rate_per_client: u32,
    /// Requests a second of all.
    pub rate: u32,
    /// Requests of one client at the same time.
    pub requests_per_client: u32,
    /// Requests at the same time.
    pub requests: u32,
    /// Connections at the same time.
    pub connections: usize,
}

/// How long anything may take.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// A connection to the API.
    pub connect: Duration,
    /// The head of the API's answer.
    pub response: Duration,
    /// Between two pieces of an answer.
    pub stream: Duration,
    /// The head of a request.
    pub head: Duration,
    /// The body of a request.
    pub body: Duration,
    /// A connection on which nothing happens.
    pub idle: Duration,
}

// === impl RawLimits ===

impl RawLimits {
    pub(super) fn validate(self, problems: &mut Problems) -> Limits {
        let mut count = |written: Option<Spanned<u64>>, key, default: u32, most: u32| {
            let number = number(written, key, u64::from(default), 1..=u64::from(most), problems);
            u32::try_from(number).unwrap_or(most)
        };
        let rate_per_client = count(self.rate_per_client, "rate_per_client", 50, 1_000_000);
        let rate = count(self.rate, "rate", 500, 1_000_000);
        let requests_per_client = count(self.requests_per_client, "requests_per_client", 64, 65_536);
        let requests = count(self.requests, "requests", 512, 65_536);
        let connections = count(self.connections, "connections", 2048, 65_536);
        let mut size = |written: Option<Spanned<HumanSize>>, key, default: u64, within: RangeInclusive<u64>| {
            let written = written.map(|size| Spanned { place: size.place, value: size.value.0 });
            number(written, key, default, within, problems)
        };
        // An HTTP library reads heads in pieces of 8 KiB.
        let head = size(self.head, "head", 16 << 10, 8 << 10..=1 << 20);
        Limits {
            body: size(self.body, "body", 1 << 20, 0..=1 << 40),
            content_types: self.content_types.map_or_else(|| vec!["application/json".to_owned()], |types| types.0),
            uri: usize::try_from(size(self.uri, "uri", 8 << 10, 64..=60 << 10)).unwrap_or(usize::MAX),
            head: usize::try_from(head).unwrap_or(usize::MAX),
            rate_per_client,
            rate,
            requests_per_client,
            requests,
            connections: usize::try_from(connections).unwrap_or(usize::MAX),
        }
    }
}

fn number(written: Option<Spanned<u64>>, key: &str, default: u64, within: RangeInclusive<u64>, problems: &mut Problems) -> u64 {
    let Some(Spanned { place, value }) = written else { return default };
    if !within.contains(&value) {
        let message = format!("this is {value}; it is from {} to {}", within.start(), within.end());
        Complaints::new(place, format!("front.limits.{key}"), problems).say(message);
        return default;
    }
    value
}

// === impl RawTimeouts ===

impl RawTimeouts {
    pub(super) fn validate(self, problems: &mut Problems) -> Timeouts {
        let mut read = |written: Option<Spanned<HumanDuration>>, key: &str, seconds: u64| {
            let Some(Spanned { place, value: HumanDuration(value) }) = written else { return Duration::from_secs(seconds) };
            if !(Duration::from_millis(50)..=Duration::from_secs(86_400)).contains(&value) {
                Complaints::new(place, format!("front.timeouts.{key}"), problems).say("this is from 50ms to 1d");
            }
            value
        };
        Timeouts {
            connect: read(self.connect, "connect", 2),
            response: read(self.response, "response", 120),
            stream: read(self.stream, "stream", 600),
            head: read(self.head, "head", 10),
            body: read(self.body, "body", 30),
            idle: read(self.idle, "idle", 75),
        }
    }
}
