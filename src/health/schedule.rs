//! The beat: each check is looked at on its interval, with a deadline, and never twice at once.
//!
//! A loop that breaks is begun again, and its verdict is stale until then. A new configuration ends the loops of checks
//! that are gone or changed, and leaves the others alone.

mod beat;
mod look;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Now;
use crate::config::health::Check;
use crate::health::board::{Board, CheckId, Watched};
use crate::health::metrics::{CheckMetrics, Metrics};
use crate::health::probe::{Prober, http_client};
use crate::health::schedule::beat::Beat;
pub use crate::health::schedule::look::Permits;
use crate::health::schedule::look::{Ask, Hanging, Look};
use crate::health::state::{Transition, Verdict};
use crate::runtime::supervise::PartResult;

/// A loop that breaks is begun again after this time, so that one that always breaks does nothing else.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// Looks at all checks until `stop`.
///
/// # Errors
/// When the HTTP client cannot be made.
pub async fn run(board: Arc<Board>, metrics: Metrics, permits: Permits, stop: CancellationToken) -> PartResult {
    let client = http_client()?;
    let prepare = move |check: &Check| Prober::new(&check.probe, &client);
    Schedule::new(board, metrics, permits, prepare).run(stop).await;
    Ok(())
}

/// Looks at every check once.
///
/// # Errors
/// When the HTTP client cannot be made.
pub async fn once(board: &Arc<Board>) -> PartResult {
    let client = http_client()?;
    let permits = Permits::default();
    let looks = board.watched().into_iter().map(|Watched { id, check }| {
        let (prober, permits) = (Prober::new(&check.probe, &client), &permits);
        async move {
            match permits.look(&prober, check.timing.timeout, &mut Hanging::default()).await {
                Look::Ended(outcome) => drop(board.observe(id, outcome, Now::read())),
                Look::Panicked => board.break_down(id, Now::read()),
            }
        }
    });
    futures_util::future::join_all(looks).await;
    Ok(())
}

/// The loops of all checks.
struct Schedule<P> {
    common: Arc<Common>,
    /// Makes what a check asks.
    prepare: P,
    loops: JoinSet<()>,
    running: HashMap<CheckId, Running>,
}

struct Running {
    task: AbortHandle,
    watched: Watched,
}

/// What all loops share.
struct Common {
    board: Arc<Board>,
    metrics: Metrics,
    permits: Permits,
    /// Asks for a look before its time, by the name of the check.
    wakers: Mutex<HashMap<String, Arc<Notify>>>,
}

// === impl Schedule ===

impl<A: Ask, P: Fn(&Check) -> A> Schedule<P> {
    fn new(board: Arc<Board>, metrics: Metrics, permits: Permits, prepare: P) -> Self {
        let common = Arc::new(Common { board, metrics, permits, wakers: Mutex::default() });
        Self { common, prepare, loops: JoinSet::new(), running: HashMap::new() }
    }

    async fn run(mut self, stop: CancellationToken) {
        let mut replacements = self.common.board.replacements();
        self.take_over();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = replacements.changed() => self.take_over(),
                Some(ended) = self.loops.join_next_with_id() => {
                    if let Err(error) = ended {
                        self.restart(&error);
                    }
                }
            }
        }
        self.loops.shutdown().await;
    }

    /// Ends the loops of checks that are not watched any more, and begins those of new ones.
    fn take_over(&mut self) {
        let watched = self.common.board.watched();
        self.running.retain(|id, running| {
            let stays = watched.iter().any(|watched| watched.id == *id);
            if !stays {
                running.task.abort();
                if !watched.iter().any(|other| other.check.name == running.watched.check.name) {
                    self.common.metrics.forget(&running.watched.check.name);
                    self.common.wakers().remove(&running.watched.check.name);
                }
            }
            stays
        });
        for watched in watched {
            if !self.running.contains_key(&watched.id) {
                self.begin(watched, Duration::ZERO);
            }
        }
    }

    fn begin(&mut self, watched: Watched, delay: Duration) {
        let watcher = Watcher {
            metrics: self.common.metrics.expose(&watched.check.name),
            asked: (self.prepare)(&watched.check),
            common: Arc::clone(&self.common),
            id: watched.id,
            wake: Arc::clone(self.common.wakers().entry(watched.check.name.clone()).or_default()),
            check: Arc::clone(&watched.check),
            hanging: Hanging::default(),
        };
        let task = self.loops.spawn(async move {
            tokio::time::sleep(delay).await;
            watcher.run().await;
        });
        self.running.insert(watched.id, Running { task, watched });
    }

    /// A loop has broken: the panic itself has been logged by the hook.
    fn restart(&mut self, error: &JoinError) {
        let broken = self.running.iter().find(|(_, running)| running.task.id() == error.id()).map(|(id, _)| *id);
        let Some(Running { watched, .. }) = broken.and_then(|id| self.running.remove(&id)) else { return };
        tracing::error!(check = %watched.check.name, "the loop of a check broke; it is begun again");
        self.common.metrics.expose(&watched.check.name).broke();
        self.common.board.break_down(watched.id, Now::read());
        self.begin(watched, RESTART_AFTER);
    }
}

// === impl Common ===

impl Common {
    fn wakers(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Notify>>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What failed because of a check that is up again need not wait for its next beat.
    fn wake_children(&self, parent: &str) {
        let children = self.board.watched().into_iter().filter(|child| child.check.depends_on.iter().any(|name| name == parent));
        for child in children {
            if let Some(waker) = self.wakers().get(&child.check.name) {
                waker.notify_one();
            }
        }
    }
}

/// Looks at one check on its beat.
struct Watcher<A> {
    common: Arc<Common>,
    id: CheckId,
    check: Arc<Check>,
    metrics: CheckMetrics,
    asked: A,
    /// Asks for a look before its time.
    wake: Arc<Notify>,
    hanging: Hanging,
}

// === impl Watcher ===

impl<A: Ask> Watcher<A> {
    async fn run(mut self) {
        let mut beat = Beat::new(self.check.timing.interval);
        tokio::time::sleep(beat.next(fastrand::f64())).await;
        loop {
            let begin = Instant::now();
            let look = self.common.permits.look(&self.asked, self.check.timing.timeout, &mut self.hanging).await;
            self.record(look);
            // One that took longer than its beat is given some time to be over.
            let next = (begin + beat.next(fastrand::f64())).max(Instant::now() + self.check.timing.interval / 10);
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    fn record(&self, look: Look) {
        let name = &self.check.name;
        let Look::Ended(outcome) = look else {
            tracing::error!(check = %name, "a look at a check broke; its verdict is stale until one ends by itself");
            self.metrics.broke();
            self.common.board.break_down(self.id, Now::read());
            return;
        };
        self.metrics.looked(&outcome);
        let failure = outcome.failure;
        let Some(Transition { from, to }) = self.common.board.observe(self.id, outcome, Now::read()) else { return };
        if from.is_some() {
            self.metrics.changed();
        }
        match (to, failure) {
            (Verdict::Down, Some(reason)) => tracing::warn!(check = %name, reason = reason.code(), "a check is down"),
            (Verdict::Degraded, _) => tracing::warn!(check = %name, "a check is slower than it should be"),
            _ => tracing::info!(check = %name, "a check is up"),
        }
        if from == Some(Verdict::Down) {
            self.common.wake_children(name);
        }
    }
}

#[cfg(test)]
mod tests;
