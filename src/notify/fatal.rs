//! Tells a project of Sentry of each fatal line. In memory alone: what waits when the process is killed is not told, and
//! counted all the same by the metrics of the log.

use std::collections::VecDeque;
use std::sync::Arc;

use reqwest::Client;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::{Moment, Now};
use crate::config::notify::SecretText;
use crate::event::FatalLine;
use crate::notify::backoff::Backoff;
use crate::notify::desk::report;
use crate::notify::metrics::ReceiverMetrics;
use crate::notify::outcome::Outcome;
use crate::notify::payload::sentry;
use crate::notify::until;

/// So many wait for a receiver that is away; the oldest goes.
const WAITING: usize = 64;
/// So many more are on their way here.
const ARRIVING: usize = 16;

/// Where lines are handed in.
pub(super) type Intake = mpsc::Sender<Arc<FatalLine>>;

/// Tells one receiver.
#[derive(Debug)]
pub(super) struct Reporter {
    name: String,
    client: Client,
    dsn: SecretText,
    metrics: ReceiverMetrics,
    arriving: mpsc::Receiver<Arc<FatalLine>>,
    waiting: VecDeque<Arc<FatalLine>>,
    backoff: Backoff,
}

// === impl Reporter ===

impl Reporter {
    pub(super) fn new(name: &str, client: &Client, dsn: &SecretText, metrics: ReceiverMetrics) -> (Intake, Self) {
        let (intake, arriving) = mpsc::channel(ARRIVING);
        let (name, client, dsn) = (name.to_owned(), client.clone(), dsn.clone());
        (intake, Self { name, client, dsn, metrics, arriving, waiting: VecDeque::new(), backoff: Backoff::default() })
    }

    /// Tells until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let due = (!self.waiting.is_empty()).then(|| self.backoff.until().unwrap_or_default());
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(line) = self.arriving.recv() => self.keep(line),
                () = until(due) => tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.tell() => {}
                },
            }
            self.metrics.waiting(self.waiting.len());
        }
    }

    fn keep(&mut self, line: Arc<FatalLine>) {
        if self.waiting.len() == WAITING {
            self.waiting.pop_front();
            self.metrics.dropped(1);
        }
        self.waiting.push_back(line);
    }

    async fn tell(&mut self) {
        let Some(line) = self.waiting.front().cloned() else { return };
        let now = Now::read().wall;
        match report(&self.client, &self.dsn, Some(sentry::fatal(&line, now))).await {
            Outcome::Delivered => {
                self.metrics.succeeded(now);
                self.waiting.pop_front();
                self.backoff.reset();
            }
            Outcome::Later(reason, after) => {
                self.metrics.failed(reason);
                if self.backoff.failures() == 0 {
                    tracing::warn!(receiver = self.name, reason = reason.name(), "a fatal line is told later: {}", reason.remedy());
                }
                self.backoff.fail(Moment::read().uptime, fastrand::u32(..), after);
            }
            Outcome::Refused(reason) => {
                self.metrics.failed(reason);
                self.metrics.dropped(1);
                self.waiting.pop_front();
                tracing::warn!(receiver = self.name, "a fatal line is refused: {}", reason.remedy());
            }
        }
    }
}
