//! The beat: each check is looked at on its interval, with a deadline, and never twice at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Now;
use crate::health::board::Board;
use crate::health::metrics::Metrics;
use crate::health::outcome::{Outcome, Reason};
use crate::health::probe::{Prober, http_client};
use crate::health::state::{Transition, Verdict};
use crate::runtime::supervise::PartResult;

/// The first looks are spread over at most this time: two replicas that start together do not ask together, and the
/// first round is still done within a second.
const FIRST_PHASE: Duration = Duration::from_millis(250);

/// Looks at all checks until `stop`.
///
/// # Errors
/// When the HTTP client cannot be made.
pub async fn run(board: Arc<Board>, metrics: Metrics, stop: CancellationToken) -> PartResult {
    let client = http_client()?;
    let wakers: Vec<Arc<Notify>> = board.checks().iter().map(|_| Arc::default()).collect();
    let mut loops = JoinSet::new();
    for number in 0..board.checks().len() {
        let watcher = Watcher::new(&board, number, &client, &wakers, &metrics);
        let stop = stop.clone();
        loops.spawn(async move {
            tokio::select! {
                () = watcher.run() => {}
                () = stop.cancelled() => {}
            }
        });
    }
    stop.cancelled().await;
    loops.shutdown().await;
    Ok(())
}

/// Looks at every check once.
///
/// # Errors
/// When the HTTP client cannot be made.
pub async fn once(board: &Arc<Board>) -> PartResult {
    let client = http_client()?;
    let looks = (0..board.checks().len()).map(|number| {
        let prober = Prober::new(&board.checks()[number].probe, &client);
        async move {
            let outcome = look(&prober, board.checks()[number].timing.timeout, &mut None).await;
            board.observe(number, outcome, Now::read());
        }
    });
    futures_util::future::join_all(looks).await;
    Ok(())
}

/// One look. It ends at the deadline, whatever the component does. `hanging` takes an attempt that was late and may
/// not be dropped; while it runs, no other is started.
async fn look(prober: &Prober, timeout: Duration, hanging: &mut Option<JoinHandle<Outcome>>) -> Outcome {
    if hanging.as_ref().is_some_and(|attempt| !attempt.is_finished()) {
        return Outcome::fail(Reason::Timeout, timeout);
    }
    *hanging = None;
    let mut attempt = prober.start();
    match tokio::time::timeout(timeout, &mut attempt).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Outcome::fail(Reason::Panic, Duration::ZERO),
        Err(_) => {
            if prober.may_be_dropped() {
                attempt.abort();
            } else {
                *hanging = Some(attempt);
            }
            Outcome::fail(Reason::Timeout, timeout)
        }
    }
}

/// Looks at one check on its beat.
struct Watcher {
    board: Arc<Board>,
    number: usize,
    prober: Prober,
    metrics: Metrics,
    /// Asks for a look before its time.
    wake: Arc<Notify>,
    /// The checks that depend on this one.
    children: Vec<Arc<Notify>>,
    /// An attempt that was late and may not be dropped.
    hanging: Option<JoinHandle<Outcome>>,
}

// === impl Watcher ===

impl Watcher {
    fn new(board: &Arc<Board>, number: usize, client: &reqwest::Client, wakers: &[Arc<Notify>], metrics: &Metrics) -> Self {
        let check = &board.checks()[number];
        let children = board.checks().iter().zip(wakers).filter(|(child, _)| child.depends_on.contains(&check.name));
        Self {
            board: Arc::clone(board),
            number,
            prober: Prober::new(&check.probe, client),
            metrics: metrics.clone(),
            wake: Arc::clone(&wakers[number]),
            children: children.map(|(_, waker)| Arc::clone(waker)).collect(),
            hanging: None,
        }
    }

    async fn run(mut self) {
        let timing = self.board.checks()[self.number].timing;
        tokio::time::sleep(FIRST_PHASE.min(timing.interval).mul_f64(fastrand::f64())).await;
        // The second look comes early by chance, so that the beats of several replicas part.
        let mut stretch = 0.5 + 0.5 * fastrand::f64();
        loop {
            let begin = Instant::now();
            let outcome = look(&self.prober, timing.timeout, &mut self.hanging).await;
            self.record(outcome);
            tokio::select! {
                () = tokio::time::sleep_until(begin + timing.interval.mul_f64(stretch)) => {}
                () = self.wake.notified() => {}
            }
            stretch = 0.9 + 0.2 * fastrand::f64();
        }
    }

    fn record(&self, outcome: Outcome) {
        let check = &self.board.checks()[self.number];
        self.metrics.looked(&check.name, &outcome);
        let failure = outcome.failure;
        let Some(Transition { from, to }) = self.board.observe(self.number, outcome, Now::read()) else { return };
        if from.is_some() {
            self.metrics.changed(&check.name);
        }
        let name = &check.name;
        match (to, failure) {
            (Verdict::Down, Some(reason)) => tracing::warn!(check = %name, reason = reason.code(), "a check is down"),
            (Verdict::Degraded, _) => tracing::warn!(check = %name, "a check is slower than it should be"),
            _ => tracing::info!(check = %name, "a check is up"),
        }
        if from == Some(Verdict::Down) {
            // What failed because of this one need not wait for its next beat.
            self.children.iter().for_each(|child| child.notify_one());
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // The process is ending: what hangs may be dropped now.
        if let Some(attempt) = &self.hanging {
            attempt.abort();
        }
    }
}
