//! The end of the process, in its order: unready, then no new connections, then the drain, then the exit.
//!
//! Owns the signals and the phases. Knows nothing of what is drained.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::runtime::latch::Latch;

/// How long the process says "not ready" before it closes its listeners: a load balancer that asks every second has
/// seen it by then, and the kubelet has stopped routing when it sends SIGTERM.
const UNREADY_BEFORE_CLOSE: Duration = Duration::from_secs(1);

/// The phases of the end, shared by all parts of the process.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    unready: Latch,
    stop: CancellationToken,
}

/// The signals that end the process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// Which signal came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// SIGTERM, as sent by an orchestrator.
    Terminate,
    /// SIGINT, as sent by Ctrl-C.
    Interrupt,
}

// === impl Shutdown ===

impl Shutdown {
    /// Whether the end has begun: readiness is refused from here on.
    #[must_use]
    pub fn is_unready(&self) -> bool {
        self.unready.is_set()
    }

    /// Whether parts must stop their work now.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Resolves when parts must stop their work.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// The token behind [`Shutdown::stopping`], for parts that hand it on.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Says "not ready" from now on, and stops nothing yet.
    pub fn retreat(&self) {
        self.unready.set();
    }

    /// Begins the end: unready at once, the stop a second later.
    pub async fn begin(&self) {
        self.unready.set();
        tokio::time::sleep(UNREADY_BEFORE_CLOSE).await;
        self.stop.cancel();
    }

    /// Begins the end without the wait, for a failure that leaves nothing to wait for.
    pub fn begin_now(&self) {
        self.unready.set();
        self.stop.cancel();
    }
}

// === impl Signals ===

impl Signals {
    /// Takes SIGTERM and SIGINT over. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the operating system refuses the handler.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next of them.
    pub async fn next(&mut self) -> Ending {
        tokio::select! {
            _ = self.terminate.recv() => Ending::Terminate,
            _ = self.interrupt.recv() => Ending::Interrupt,
        }
    }
}

// === impl Ending ===

impl Ending {
    /// The exit code of a process that this signal killed: 128 plus its number.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Terminate => 143,
            Self::Interrupt => 130,
        }
    }
}
