//! One look at a component: it ends at its deadline whatever the component does, and never runs twice at once.
//!
//! At most [`LOOKS_AT_ONCE`] looks are *asking*. One that has been silent for [`PATIENCE`] only waits: it gives its
//! permit back, so that components that hang never keep others from being looked at, however many they are. What lingers
//! is bounded by the number of checks, as none is looked at twice at once. The queue for permits is fair.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::health::outcome::{Outcome, Reason};
use crate::health::probe::Prober;

/// How many looks ask at the same time: a hundred checks must not be a burst of a hundred connections.
pub(super) const LOOKS_AT_ONCE: usize = 16;

/// A component that is well answers within milliseconds. With this, 64 looks a second can begin even if every single
/// component hangs: 320 checks on an interval of 5 s.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);

/// Something that can be asked again and again.
pub(super) trait Ask: Send + Sync + 'static {
    /// Asks once, on a task of its own, so that the deadline does not depend on what is asked.
    fn start(&self) -> JoinHandle<Outcome>;

    /// Whether an attempt may be dropped halfway. The MongoDB driver's may not (RUST-937): it is left to end by itself.
    fn may_be_dropped(&self) -> bool;
}

impl Ask for Prober {
    fn start(&self) -> JoinHandle<Outcome> {
        Self::start(self)
    }

    fn may_be_dropped(&self) -> bool {
        Self::may_be_dropped(self)
    }
}

/// How a look ended.
#[derive(Debug, PartialEq)]
pub(super) enum Look {
    /// It found something.
    Ended(Outcome),
    /// It broke, which says nothing of the component.
    Panicked,
}

/// The permits that all looks share.
#[derive(Clone, Debug)]
pub struct Permits {
    semaphore: Arc<Semaphore>,
    lingering: Arc<AtomicUsize>,
    waits: Arc<AtomicUsize>,
}

/// An attempt that was late, until it has ended.
#[derive(Debug, Default)]
pub(super) struct Hanging(Option<Attempt>);

/// An attempt that runs. Whoever drops it, such as a reload that ends its loop, takes along what may be dropped; the
/// rest is left to end by itself.
#[derive(Debug)]
struct Attempt {
    task: JoinHandle<Outcome>,
    may_be_dropped: bool,
}

/// Counts a look that lingers, for as long as it does, however it ends.
struct Lingering<'a>(&'a AtomicUsize);

// === impl Permits ===

impl Default for Permits {
    fn default() -> Self {
        Self { semaphore: Arc::new(Semaphore::new(LOOKS_AT_ONCE)), lingering: Arc::default(), waits: Arc::default() }
    }
}

impl Permits {
    /// How many looks ask at this moment.
    #[must_use]
    pub fn asking(&self) -> usize {
        LOOKS_AT_ONCE - self.semaphore.available_permits()
    }

    /// How many looks only wait for an answer.
    #[must_use]
    pub fn lingering(&self) -> usize {
        self.lingering.load(Ordering::Relaxed)
    }

    /// How many looks had to wait for a permit so far.
    #[must_use]
    pub fn waits(&self) -> usize {
        self.waits.load(Ordering::Relaxed)
    }

    /// One look.
    pub(super) async fn look(&self, asked: &impl Ask, timeout: Duration, hanging: &mut Hanging) -> Look {
        if hanging.0.as_ref().is_some_and(|attempt| !attempt.task.is_finished()) {
            return Look::Ended(Outcome::fail(Reason::Timeout, timeout));
        }
        hanging.0 = None;
        if self.semaphore.available_permits() == 0 {
            self.waits.fetch_add(1, Ordering::Relaxed);
        }
        // The semaphore is never closed; without a permit the look goes on, as the lesser evil.
        let permit = self.semaphore.acquire().await.ok();
        let begin = tokio::time::Instant::now();
        let mut attempt = Attempt { task: asked.start(), may_be_dropped: asked.may_be_dropped() };
        let mut ended = tokio::time::timeout(PATIENCE.min(timeout), &mut attempt.task).await;
        drop(permit);
        if ended.is_err() && timeout > PATIENCE {
            let _lingering = Lingering::begin(&self.lingering);
            ended = tokio::time::timeout_at(begin + timeout, &mut attempt.task).await;
        }
        match ended {
            Ok(Ok(outcome)) => Look::Ended(outcome),
            Ok(Err(_)) => Look::Panicked,
            Err(_) => {
                // Even one that may be dropped is kept until it has ended: what is aborted ends a moment later.
                attempt.give_up();
                hanging.0 = Some(attempt);
                Look::Ended(Outcome::fail(Reason::Timeout, timeout))
            }
        }
    }
}

// === impl Attempt ===

impl Attempt {
    fn give_up(&self) {
        if self.may_be_dropped {
            self.task.abort();
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.give_up();
    }
}

// === impl Lingering ===

impl<'a> Lingering<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Lingering<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
