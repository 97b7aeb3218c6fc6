//! Keeps one peer of an Alertmanager current. Each peer is sent everything: they tell each other what was notified, and
//! not what fires.

use std::collections::BTreeSet;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Url};
use tokio_util::sync::CancellationToken;

use crate::clock::{Moment, Now};
use crate::config::notify::address;
use crate::notify::desk::news;
use crate::notify::metrics::ReceiverMetrics;
use crate::notify::outcome::{Outcome, Reason};
use crate::notify::payload::alertmanager;
use crate::notify::resend::{Fate, Resend};
use crate::notify::{Alerts, http, until};
use crate::secret::Secret;

/// The path of its API.
const PATH: &str = "api/v2/alerts";

/// Keeps one peer current.
#[derive(Debug)]
pub(super) struct Peer {
    name: String,
    /// Its host and port, which are no secret.
    host: String,
    url: Url,
    client: Client,
    severities: Option<BTreeSet<String>>,
    metrics: ReceiverMetrics,
    resend: Resend,
}

// === impl Peer ===

impl Peer {
    /// `None` when it has no address, which validation has seen.
    pub(super) fn new(
        name: &str,
        url: &Secret,
        client: &Client,
        severities: Option<&BTreeSet<String>>,
        metrics: ReceiverMetrics,
    ) -> Option<Self> {
        let mut url = address(url.expose())?;
        url.set_path(&format!("{}/{PATH}", url.path().trim_end_matches('/')));
        let host = format!("{}:{}", url.host_str()?, url.port_or_known_default()?);
        let (name, client, severities) = (name.to_owned(), client.clone(), severities.cloned());
        Some(Self { name, host, url, client, severities, metrics, resend: Resend::default() })
    }

    /// Sends what is due until `stop`.
    pub(super) async fn run(mut self, mut alerts: Alerts, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                seen = news(&mut alerts) => self.resend.observe(&seen, self.severities.as_ref()),
                () = until(self.resend.due()) => {
                    // One that arrives twice is one: nothing is lost by going away in the middle.
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = self.send() => {}
                    }
                }
            }
            self.metrics.waiting(self.resend.waiting());
        }
    }

    async fn send(&mut self) {
        let batch = self.resend.batch(Moment::read());
        if batch.is_empty() {
            return;
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = alertmanager::body(&batch).to_string().into_bytes();
        let answer = http::send(&self.client, Method::POST, self.url.clone(), headers, body).await;
        let fate = self.judge(answer, batch.len());
        self.resend.settle(&batch, fate, Moment::read().uptime, fastrand::u32(..));
    }

    fn judge(&self, answer: http::Answer, count: usize) -> Fate {
        let (status, after) = match answer {
            Ok(answer) => answer,
            Err(reason) => return self.later(reason, None),
        };
        match Outcome::of_status(status, after) {
            Outcome::Delivered => {
                self.metrics.succeeded(Now::read().wall);
                if self.resend.failures() > 0 {
                    tracing::info!(receiver = self.name, peer = self.host, "the peer takes alerts again");
                }
                Fate::Taken
            }
            Outcome::Later(reason, after) => self.later(reason, after),
            Outcome::Refused(reason) => {
                self.metrics.failed(reason);
                let what = if status == 400 && count == 1 { "an alert; it is left out until it changes" } else { "alerts" };
                tracing::warn!(receiver = self.name, peer = self.host, status, "the peer refuses {what}: {}", reason.remedy());
                if status == 400 { Fate::Faulty } else { Fate::Unwanted }
            }
        }
    }

    fn later(&self, reason: Reason, after: Option<std::time::Duration>) -> Fate {
        self.metrics.failed(reason);
        if self.resend.failures() == 0 {
            tracing::warn!(
                receiver = self.name,
                peer = self.host,
                reason = reason.name(),
                "a peer cannot be reached; it is tried again: {}",
                reason.remedy()
            );
        }
        Fate::Later(after)
    }
}
