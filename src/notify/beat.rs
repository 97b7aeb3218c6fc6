//! The heartbeat: tells a receiver that alerts are evaluated, so that it raises the alarm when nothing comes.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use tokio_util::sync::CancellationToken;

use crate::clock::{Moment, Now};
use crate::config::notify::SecretText;
use crate::notify::backoff::Backoff;
use crate::notify::desk::news;
use crate::notify::metrics::ReceiverMetrics;
use crate::notify::outcome::{Outcome, Reason};
use crate::notify::{Alerts, http};

/// Sends the heartbeat.
#[derive(Debug)]
pub(super) struct Beat {
    pub name: String,
    pub client: Client,
    pub url: SecretText,
    pub every: Duration,
    pub method: Method,
    pub metrics: ReceiverMetrics,
}

// === impl Beat ===

impl Beat {
    /// Sends one after an evaluation that went well, until `stop`. A failed one is not made up for: the next evaluation
    /// sends the next.
    pub(super) async fn run(self, mut alerts: Alerts, stop: CancellationToken) {
        let every = i64::try_from(self.every.as_millis()).unwrap_or(i64::MAX / 2);
        let (mut not_before, mut backoff) = (i64::MIN, Backoff::default());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = news(&mut alerts) => {}
            }
            let now = Moment::read().uptime;
            if now < not_before || backoff.until().is_some_and(|until| now < until) {
                continue;
            }
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.send() => outcome,
            };
            match outcome {
                Outcome::Delivered => {
                    self.metrics.succeeded(Now::read().wall);
                    if backoff.failures() > 0 {
                        tracing::info!(receiver = self.name, "the heartbeat is taken again");
                    }
                    backoff.reset();
                    not_before = now + every;
                }
                Outcome::Later(reason, after) => self.fail(&mut backoff, reason, after),
                Outcome::Refused(reason) => self.fail(&mut backoff, reason, None),
            }
        }
    }

    async fn send(&self) -> Outcome {
        let answer = match http::read_address(&self.url).await {
            Ok(url) => http::send(&self.client, self.method.clone(), url, HeaderMap::new(), Vec::new()).await,
            Err(reason) => Err(reason),
        };
        answer.map_or_else(|reason| Outcome::Later(reason, None), |(status, after)| Outcome::of_status(status, after))
    }

    fn fail(&self, backoff: &mut Backoff, reason: Reason, after: Option<Duration>) {
        self.metrics.failed(reason);
        if backoff.failures() == 0 {
            tracing::warn!(receiver = self.name, reason = reason.name(), "the heartbeat cannot be sent: {}", reason.remedy());
        }
        backoff.fail(Moment::read().uptime, fastrand::u32(..), after);
    }
}
