//! A command that we run in front of: started once, signalled, and waited for, together with orphans where we are the
//! first process of a container.

use std::ffi::OsString;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::task::Poll;
use std::thread;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The exit code for a command that is not there, as shells have it.
const NOT_FOUND: u8 = 127;
/// The exit code for a command that cannot be run.
const NOT_EXECUTABLE: u8 = 126;

/// The command cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot run {}", program.display())]
pub struct SpawnError {
    program: OsString,
    #[source]
    cause: io::Error,
}

/// A command that runs.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    code: watch::Receiver<Option<u8>>,
}

/// What the command writes.
#[derive(Debug)]
pub struct Outputs {
    /// Its standard output.
    pub stdout: File,
    /// Its standard error.
    pub stderr: File,
}

/// The signals that are handed on to the command.
#[derive(Debug)]
pub struct Relay(Vec<(Signal, tokio::signal::unix::Signal)>);

/// Starts a command with our standard input, our environment and our working folder.
///
/// # Errors
/// When there is no such command, or it cannot be run.
pub fn spawn(command: &[OsString]) -> Result<(Child, Outputs), SpawnError> {
    let (program, arguments) = command.split_first().map_or((OsString::new(), &[][..]), |(first, rest)| (first.clone(), rest));
    start(&program, arguments).map_err(|cause| SpawnError { program, cause })
}

fn start(program: &OsString, arguments: &[OsString]) -> io::Result<(Child, Outputs)> {
    let (stdout, its_stdout) = io::pipe()?;
    let (stderr, its_stderr) = io::pipe()?;
    let mut command = Command::new(program);
    let child = command.args(arguments).stdin(Stdio::inherit()).stdout(its_stdout).stderr(its_stderr).spawn()?;
    // Its ends of the pipes must be closed here, or they would never end.
    drop(command);
    let pid = Pid::from_child(&child);
    let (sender, code) = watch::channel(None);
    // Ends with the command, and the process ends after it.
    thread::Builder::new().name("child".to_owned()).spawn(move || reap(pid, &sender))?;
    let outputs = Outputs { stdout: File::from(OwnedFd::from(stdout)), stderr: File::from(OwnedFd::from(stderr)) };
    Ok((Child { pid, code }, outputs))
}

/// Waits for all children: where we are the first process of a container, orphans become ours.
fn reap(pid: Pid, sender: &watch::Sender<Option<u8>>) {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((ended, status))) if ended == pid => {
                sender.send_replace(Some(exit_code(ExitStatus::from_raw(status.as_raw()))));
                return;
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "the command cannot be waited for");
                sender.send_replace(Some(NOT_EXECUTABLE));
                return;
            }
        }
    }
}

/// The code that it ended with, or 128 plus the number of the signal that ended it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

// === impl SpawnError ===

impl SpawnError {
    /// The exit code of a shell that cannot start a command.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.cause.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }
    }
}

// === impl Child ===

impl Child {
    /// Hands a signal on. One that comes after the end does nothing.
    pub fn signal(&self, signal: Signal) {
        // Its number is given to no other process before it has been waited for, which is when the code is set.
        if self.code.borrow().is_none()
            && let Err(error) = kill_process(self.pid, signal)
        {
            tracing::warn!(?signal, %error, "a signal cannot be handed on to the command");
        }
    }

    /// Waits until it has ended: its exit code, or 128 plus the number of the signal that ended it.
    pub async fn ended(&mut self) -> u8 {
        match self.code.wait_for(Option::is_some).await {
            Ok(code) => code.unwrap_or(NOT_EXECUTABLE),
            Err(_) => NOT_EXECUTABLE,
        }
    }
}

// === impl Relay ===

impl Relay {
    /// Takes the signals over that a command may be sent. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the operating system refuses a handler.
    pub fn listen() -> io::Result<Self> {
        let kinds = [
            (Signal::TERM, SignalKind::terminate()),
            (Signal::INT, SignalKind::interrupt()),
            (Signal::HUP, SignalKind::hangup()),
            (Signal::QUIT, SignalKind::quit()),
            (Signal::USR1, SignalKind::user_defined1()),
            (Signal::USR2, SignalKind::user_defined2()),
        ];
        kinds.into_iter().map(|(number, kind)| Ok((number, signal(kind)?))).collect::<io::Result<_>>().map(Self)
    }

    /// Waits for the next of them.
    pub async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            for (number, signal) in &mut self.0 {
                if signal.poll_recv(context).is_ready() {
                    return Poll::Ready(*number);
                }
            }
            Poll::Pending
        })
        .await
    }
}
