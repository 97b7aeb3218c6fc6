//! Tasks and threads with names. An end that nobody asked for ends the process.
//!
//! Owns spawning and joining: nothing below `app` spawns long-lived work by itself.

use std::error::Error;
use std::future::Future;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// What a part ends with. The cause is printed once, by the process's boundary.
pub type PartResult = Result<(), Box<dyn Error + Send + Sync>>;

/// All long-lived parts of the process.
#[derive(Debug, Default)]
pub struct Supervisor {
    parts: JoinSet<Ended>,
    running: Vec<&'static str>,
}

/// A part that has ended.
#[derive(Debug)]
pub struct Ended {
    /// The part's name.
    pub part: &'static str,
    /// How it ended.
    pub result: PartResult,
}

/// The process must end because a part did.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// The part ended although nobody asked it to.
    #[error("the part `{0}` ended although nobody asked it to")]
    Unexpected(&'static str),
    /// The part failed.
    #[error("the part `{part}` failed")]
    Failed {
        /// The part's name.
        part: &'static str,
        /// Why.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
    /// Parts were asked to stop and did not.
    #[error("these parts did not stop within {limit:?}: {}", parts.join(", "))]
    Stuck {
        /// The names of the parts.
        parts: Vec<&'static str>,
        /// How long they were waited for.
        limit: Duration,
    },
}

/// A part panicked; the panic itself has been logged by the hook.
#[derive(Debug, thiserror::Error)]
#[error("it panicked; the panic is in the log above")]
struct Panicked;

// === impl Supervisor ===

impl Supervisor {
    /// Runs a future under a name, on the current runtime.
    pub fn spawn<F>(&mut self, part: &'static str, future: F)
    where
        F: Future<Output = PartResult> + Send + 'static,
    {
        #[expect(clippy::disallowed_methods, reason = "this is the place that all long-lived work is spawned at")]
        let task = tokio::spawn(future);
        self.running.push(part);
        self.parts.spawn(async move {
            let result = match task.await {
                Ok(result) => result,
                Err(_) => Err(Panicked.into()),
            };
            Ended { part, result }
        });
    }

    /// Runs a closure under a name, on a thread of its own.
    ///
    /// # Errors
    /// When the operating system has no thread left.
    pub fn spawn_thread<F>(&mut self, part: &'static str, body: F) -> std::io::Result<()>
    where
        F: FnOnce() -> PartResult + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        thread::Builder::new().name(part.to_owned()).spawn(move || {
            // The receiver is gone only when the process is already ending.
            let _ = sender.send(body());
        })?;
        self.running.push(part);
        self.parts.spawn(async move {
            let result = receiver.await.unwrap_or_else(|_| Err(Panicked.into()));
            Ended { part, result }
        });
        Ok(())
    }

    /// Waits until a part ends; before the shutdown that is always an error.
    pub async fn first_end(&mut self) -> SuperviseError {
        match self.next_end().await {
            Some(Ended { part, result: Ok(()) }) => SuperviseError::Unexpected(part),
            Some(Ended { part, result: Err(cause) }) => SuperviseError::Failed { part, cause },
            None => std::future::pending().await,
        }
    }

    /// Waits until all parts have ended, after they were asked to.
    ///
    /// # Errors
    /// The first failure among them, or the names of those that are still running at the end of `limit`.
    pub async fn join(mut self, limit: Duration) -> Result<(), SuperviseError> {
        let deadline = tokio::time::Instant::now() + limit;
        let mut failure = None;
        loop {
            match tokio::time::timeout_at(deadline, self.next_end()).await {
                Ok(Some(Ended { part, result: Err(cause) })) => {
                    failure.get_or_insert(SuperviseError::Failed { part, cause });
                }
                Ok(Some(_)) => {}
                Ok(None) => return failure.map_or(Ok(()), Err),
                Err(_) => return Err(SuperviseError::Stuck { parts: self.running, limit }),
            }
        }
    }

    async fn next_end(&mut self) -> Option<Ended> {
        let ended = self.parts.join_next().await?;
        let ended = ended.unwrap_or_else(|_| Ended { part: "supervisor", result: Err(Panicked.into()) });
        if let Some(position) = self.running.iter().position(|part| *part == ended.part) {
            self.running.swap_remove(position);
        }
        Some(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_end_that_nobody_asked_for_is_named() {
        let mut supervisor = Supervisor::default();
        supervisor.spawn("steady", std::future::pending());
        supervisor.spawn("brief", async { Ok(()) });
        assert_eq!(supervisor.first_end().await.to_string(), "the part `brief` ended although nobody asked it to");
    }

    #[tokio::test]
    async fn a_panic_in_a_thread_is_the_failure_of_that_part() {
        let mut supervisor = Supervisor::default();
        supervisor.spawn_thread("fragile", || panic!("by the test")).expect("a thread");
        assert_eq!(supervisor.first_end().await.to_string(), "the part `fragile` failed");
    }

    #[tokio::test(start_paused = true)]
    async fn parts_that_do_not_stop_are_named() {
        let mut supervisor = Supervisor::default();
        supervisor.spawn("stuck", std::future::pending());
        supervisor.spawn("good", async { Ok(()) });
        let error = supervisor.join(Duration::from_secs(4)).await.expect_err("one part never stops");
        assert_eq!(error.to_string(), "these parts did not stop within 4s: stuck");
    }
}
