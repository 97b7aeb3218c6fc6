//! How fast a client goes: one that sends its head byte by byte, asks nothing, or does not take its answer is given up.
//!
//! Reads and writes only note when they happened; one timer a connection looks at the notes. A timer a request would cost
//! more than the request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the head of a request, once it has begun.
    pub head: Duration,
    /// For beginning one, and for taking more of an answer.
    pub idle: Duration,
}

/// What a connection does, noted as it happens. Times are milliseconds since the connection began, plus one; zero is never.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    patience: Patience,
    /// Requests that are being answered.
    busy: AtomicU32,
    /// Since when it has been idle.
    idle_since: AtomicU64,
    /// Since when a head has been coming.
    head_since: AtomicU64,
    /// Since when the client has taken nothing of what there is for it.
    blocked_since: AtomicU64,
    /// Streams share the connection: what comes between two requests is no head.
    is_shared: AtomicBool,
}

/// A stream whose reads and writes are noted.
#[derive(Debug)]
pub(super) struct Paced<S> {
    stream: S,
    pace: Arc<Pace>,
}

// === impl Pace ===

impl Pace {
    pub fn new(patience: Patience) -> Self {
        let never = AtomicU64::default;
        Self {
            began: Instant::now(),
            patience,
            busy: AtomicU32::new(0),
            idle_since: AtomicU64::new(1),
            head_since: never(),
            blocked_since: never(),
            is_shared: AtomicBool::new(false),
        }
    }

    /// A request's head has come. `is_shared` where others may come at the same time.
    pub fn begins(&self, is_shared: bool) {
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        if is_shared {
            self.is_shared.store(true, Ordering::Relaxed);
        }
    }

    /// A request has been answered.
    pub fn ends(&self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
        self.idle_since.store(self.now(), Ordering::Relaxed);
    }

    /// Resolves when the client has been too slow.
    pub async fn lost(&self) {
        while let Some(rest) = self.rest(self.now()) {
            tokio::time::sleep(rest.min(self.patience.head).max(Duration::from_millis(10))).await;
        }
    }

    /// How much longer the client may take for what it is at; `None` when it has taken too long.
    fn rest(&self, now: u64) -> Option<Duration> {
        let left = |since: u64, limit: Duration| {
            let rest = limit.saturating_sub(Duration::from_millis(now.saturating_sub(since)));
            (!rest.is_zero()).then_some(rest)
        };
        let (blocked, head) = (self.blocked_since.load(Ordering::Relaxed), self.head_since.load(Ordering::Relaxed));
        if blocked > 0 {
            left(blocked, self.patience.idle)
        } else if self.busy.load(Ordering::Relaxed) > 0 {
            Some(self.patience.idle)
        } else if head > 0 && !self.is_shared.load(Ordering::Relaxed) {
            left(head, self.patience.head)
        } else {
            left(self.idle_since.load(Ordering::Relaxed), self.patience.idle)
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn has_read(&self) {
        if self.busy.load(Ordering::Relaxed) == 0 && self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    fn has_written(&self, is_blocked: bool) {
        let since = self.blocked_since.load(Ordering::Relaxed);
        if is_blocked && since == 0 {
            self.blocked_since.store(self.now(), Ordering::Relaxed);
        } else if !is_blocked && since > 0 {
            self.blocked_since.store(0, Ordering::Relaxed);
        }
    }
}

// === impl Paced ===

impl<S> Paced<S> {
    pub fn new(stream: S, pace: Arc<Pace>) -> Self {
        Self { stream, pace }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.pace.has_read();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.pace.has_written(written.is_pending());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.pace.has_written(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { head: Duration::from_secs(10), idle: Duration::from_secs(75) };

    fn seconds(pace: &Pace, at: u64) -> Option<u64> {
        pace.rest(at * 1000 + 1).map(|rest| rest.as_secs())
    }

    #[test]
    fn each_thing_that_a_client_does_has_its_own_limit() {
        let pace = Pace::new(PATIENCE);
        assert_eq!((seconds(&pace, 0), seconds(&pace, 74), seconds(&pace, 75)), (Some(75), Some(1), None), "asks nothing");
        pace.has_read();
        assert_eq!((seconds(&pace, 9), seconds(&pace, 10)), (Some(1), None), "sends its head byte by byte");
        pace.begins(false);
        assert_eq!(seconds(&pace, 1000), Some(75), "is being answered");
        pace.has_written(true);
        assert_eq!(seconds(&pace, 75), None, "does not take its answer");
        pace.has_written(false);
        pace.ends();
        assert_eq!((seconds(&pace, 74), seconds(&pace, 76)), (Some(1), None));
    }

    #[test]
    fn on_a_shared_connection_what_comes_between_two_requests_is_no_head() {
        let pace = Pace::new(PATIENCE);
        pace.begins(true);
        pace.ends();
        pace.has_read();
        assert_eq!(seconds(&pace, 11), Some(64));
    }
}
