//! Tells one receiver of people: keeps what it was told, sends what is due, and writes down what became of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method};
use tokio_util::sync::CancellationToken;

use crate::clock::{Moment, Now};
use crate::config::notify::{Email, SecretText};
use crate::config::trust::Trust;
use crate::notify::alert::Alert;
use crate::notify::dispatch::Dispatch;
use crate::notify::http;
use crate::notify::inhibit::Inhibition;
use crate::notify::message::Message;
use crate::notify::metrics::ReceiverMetrics;
use crate::notify::outcome::{Outcome, Reason};
use crate::notify::payload::{discord, sentry, slack, webhook};
use crate::notify::store::Store;
use crate::notify::{Alerts, mail, until};

/// How long a message that is on its way is waited for when the process stops: one that arrives and is not written down
/// would be sent twice.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Tells one receiver.
#[derive(Debug)]
pub(super) struct Desk {
    pub name: String,
    pub way: Way,
    pub dispatch: Dispatch,
    pub store: Store,
    pub metrics: ReceiverMetrics,
    pub inhibition: Arc<Inhibition>,
}

/// How a message gets to the receiver.
#[derive(Debug)]
pub(super) enum Way {
    Slack(Client, SecretText),
    Discord(Client, SecretText),
    Webhook { client: Client, url: SecretText, hmac: Option<SecretText> },
    Sentry(Client, SecretText),
    Email(Email, Trust),
}

// === impl Desk ===

impl Desk {
    /// Tells until `stop`.
    pub(super) async fn run(mut self, mut alerts: Alerts, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                seen = news(&mut alerts) => self.observe(&seen),
                () = until(self.dispatch.due()) => self.speak(&stop).await,
            }
            self.keep().await;
            self.metrics.waiting(self.dispatch.waiting());
            self.metrics.dropped(self.dispatch.take_dropped());
        }
        self.keep().await;
    }

    fn observe(&mut self, alerts: &[Alert]) {
        let silenced: BTreeSet<u64> = self.inhibition.silenced(alerts);
        self.dispatch.observe(alerts, &silenced, Moment::read());
    }

    async fn keep(&mut self) {
        if self.dispatch.take_changed() {
            self.store.write(self.dispatch.kept(Moment::read())).await;
        }
    }

    async fn speak(&mut self, stop: &CancellationToken) {
        let Some(message) = self.dispatch.next(Moment::read().uptime) else { return };
        // What was tried is told, even when it ends meanwhile: also by a process that comes after this one.
        self.keep().await;
        let last_words = async {
            stop.cancelled().await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        let outcome = tokio::select! {
            outcome = self.way.send(&self.name, &message) => outcome,
            () = last_words => Outcome::Later(Reason::Timeout, None),
        };
        self.report(outcome);
        self.dispatch.settle(&message, outcome, Moment::read().uptime, fastrand::u32(..));
    }

    fn report(&self, outcome: Outcome) {
        match outcome {
            Outcome::Delivered => {
                self.metrics.succeeded(Now::read().wall);
                if self.dispatch.failures() > 0 {
                    tracing::info!(receiver = self.name, "the receiver takes messages again");
                }
            }
            Outcome::Later(reason, _) => {
                self.metrics.failed(reason);
                if self.dispatch.failures() == 0 {
                    tracing::warn!(
                        receiver = self.name,
                        reason = reason.name(),
                        "a receiver cannot be told; it is tried again: {}",
                        reason.remedy()
                    );
                }
            }
            Outcome::Refused(reason) => {
                self.metrics.failed(reason);
                tracing::warn!(
                    receiver = self.name,
                    reason = reason.name(),
                    "a receiver refuses a message; it is sent again with the next news of its group: {}",
                    reason.remedy()
                );
            }
        }
    }
}

// === impl Way ===

impl Way {
    async fn send(&self, receiver: &str, message: &Message) -> Outcome {
        match self {
            Self::Slack(client, url) => post(client, url, slack::body(message).to_string(), HeaderMap::new()).await,
            Self::Discord(client, url) => post(client, url, discord::body(message).to_string(), HeaderMap::new()).await,
            Self::Webhook { client, url, hmac } => {
                let body = webhook::body(receiver, message).to_string();
                let mut headers = HeaderMap::new();
                if let Some(key) = hmac {
                    let signature = match http::read(key).await {
                        Ok(key) => HeaderValue::from_str(&webhook::signature(key.expose(), body.as_bytes())),
                        Err(reason) => return Outcome::Later(reason, None),
                    };
                    headers.extend(signature.map(|signature| (HeaderName::from_static(webhook::SIGNATURE), signature)));
                }
                post(client, url, body, headers).await
            }
            Self::Sentry(client, dsn) => report(client, dsn, sentry::envelope(message, Now::read().wall)).await,
            Self::Email(settings, trust) => mail::send(settings, trust, message).await,
        }
    }
}

async fn post(client: &Client, url: &SecretText, body: String, mut headers: HeaderMap) -> Outcome {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    match http::read_address(url).await {
        Ok(url) => outcome(http::send(client, Method::POST, url, headers, body.into_bytes()).await),
        Err(reason) => Outcome::Later(reason, None),
    }
}

/// Hands an envelope in, where there is one.
pub(super) async fn report(client: &Client, dsn: &SecretText, envelope: Option<String>) -> Outcome {
    let ingest = match http::read_address(dsn).await {
        Ok(dsn) => sentry::Ingest::of(&dsn),
        Err(reason) => return Outcome::Later(reason, None),
    };
    let Some((ingest, envelope)) = ingest.zip(envelope) else { return Outcome::Later(Reason::Secret, None) };
    let Ok(mut authorisation) = HeaderValue::from_str(&ingest.authorisation) else { return Outcome::Later(Reason::Secret, None) };
    authorisation.set_sensitive(true);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-sentry-envelope"));
    headers.insert(HeaderName::from_static("x-sentry-auth"), authorisation);
    outcome(http::send(client, Method::POST, ingest.url, headers, envelope.into_bytes()).await)
}

fn outcome(answer: http::Answer) -> Outcome {
    match answer {
        Ok((status, after)) => Outcome::of_status(status, after),
        Err(reason) => Outcome::Later(reason, None),
    }
}

/// The next list of alerts. Waits for ever once there can be none.
pub(super) async fn news(alerts: &mut Alerts) -> Arc<Vec<Alert>> {
    if alerts.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    Arc::clone(&alerts.borrow_and_update())
}
