//! The command that we run in front of: its output is read and passed on, its signals are handed on, its end is ours.
//!
//! Whatever goes wrong with us must not harm it: when a part of ours fails, the command goes on.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use rustix::process::Signal;

use crate::app::{AppError, Front, STOP_LIMIT};
use crate::config::logs::ChildStream;
use crate::logs::{Engine, Output};
use crate::runtime::child::{self, Child, Relay};
use crate::runtime::shutdown::Shutdown;
use crate::runtime::supervise::Supervisor;

/// Starts the command, and lets the engine read what it writes.
pub(super) fn start(front: &Front, engine: &mut Engine) -> Result<Child, AppError> {
    let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(AppError::Runtime)?;
    let (child, outputs) = child::spawn(&front.command)?;
    engine.read_child(ChildStream::Stdout, outputs.stdout, Output::Alone(File::from(stdout)));
    engine.read_child(ChildStream::Stderr, outputs.stderr, Output::Shared(front.stderr.clone()));
    Ok(child)
}

/// Hands signals on until the command has ended, keeps answering for a while, then drains. Gives its exit code.
pub(super) async fn run(mut child: Child, mut relay: Relay, linger: Duration, shutdown: &Shutdown, mut supervisor: Supervisor) -> u8 {
    let mut is_whole = true;
    // Ctrl-C reaches all processes of the terminal, so the command has it already.
    let has_terminal = io::IsTerminal::is_terminal(&io::stdin());
    let code = loop {
        tokio::select! {
            code = child.ended() => break code,
            signal = relay.next() => {
                tracing::info!(?signal, "handed on to the command");
                if matches!(signal, Signal::TERM | Signal::INT) {
                    shutdown.retreat();
                }
                if !(has_terminal && matches!(signal, Signal::INT | Signal::QUIT)) {
                    child.signal(signal);
                }
            }
            error = supervisor.first_end(), if is_whole => {
                is_whole = false;
                shutdown.retreat();
                tracing::error!(%error, "a part of the sidecar has ended; the command goes on");
            }
        }
    };
    tracing::info!(code, "the command has ended");
    if is_whole && !linger.is_zero() {
        tokio::select! {
            () = tokio::time::sleep(linger) => {}
            _ = relay.next() => {}
            _ = supervisor.first_end() => {}
        }
    }
    shutdown.begin_now();
    if let Err(error) = supervisor.join(STOP_LIMIT).await
        && is_whole
    {
        tracing::error!(%error, "the sidecar did not end in order");
    }
    code
}
