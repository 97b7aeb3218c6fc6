//! The process between us and an agent: it starts the agent, keeps its limits, and writes down how it ended.
//!
//! It has a session of its own and talks to nobody: we may be killed and started again meanwhile, and the agent's end is
//! known all the same. SIGTERM asks it to end the agent.

use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process_group, setrlimit, setsid, waitid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::runtime::undumpable::forbid_dumps;
use crate::services::runs::folder::{Processes, RunFolder, Start};
use crate::services::runs::process::Identity;
use crate::services::runs::run::{Ending, Exit, Stopped};

/// How often the agent's limits are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The shim cannot do its work; there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// The folder is not that of a run that is to be started.
    #[error("{path} is not the folder of a run that is to be started")]
    Folder {
        /// The folder.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// The operating system refused something.
    #[error("cannot look after an agent")]
    System(#[from] io::Error),
}

/// Runs the agent of a run's folder to its end. Our own environment is all that the agent gets.
///
/// # Errors
/// When there is nothing to run, or it cannot be looked after; then no agent was started.
pub fn run(path: &Path) -> Result<(), ShimError> {
    let failed = |cause| ShimError::Folder { path: path.to_owned(), cause };
    let folder = RunFolder::at(path).ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    // Ctrl-C at our terminal is not meant for agents. One that leads a session already is as good.
    let _ = setsid();
    let _lock = folder.lock().map_err(failed)?;
    if folder.is_abandoned() || folder.processes().is_some() || folder.ending().is_some() {
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    let start = folder.start().map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before there is an agent, so that no signal is missed.
        let mut terminate = signal(SignalKind::terminate())?;
        let ending = match spawn(&folder, &start) {
            Ok((child, group)) => {
                let agent = Agent { group, exited: wait(child, group)?, output: folder.output()?, start: &start };
                agent.attend(&mut terminate).await
            }
            Err(why) => Ending { exit: Exit::NotStarted(why), stopped: None },
        };
        // A full disk must not make an ending unknown.
        while folder.write_ending(&ending).is_err() {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    })
}

/// Starts the agent in a group of its own; why not, in the words of the application's own runner.
fn spawn(folder: &RunFolder, start: &Start) -> Result<(Child, Pid), String> {
    let refused = |error: io::Error| format!("the agent's limits or its output cannot be set up: {error}");
    limit(start).map_err(refused)?;
    let output = folder.output().map_err(refused)?;
    let (program, arguments) = start.command.split_first().ok_or_else(|| "no program is configured".to_owned())?;
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(refused)?)
        .stderr(output)
        .process_group(0)
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("exec: {program:?}: executable file not found in $PATH"),
            io::ErrorKind::PermissionDenied => format!("exec: {program:?}: permission denied"),
            _ => format!("exec: {program:?}: {error}"),
        })?;
    let group = Pid::from_child(&child);
    let known = Identity::of(i32::try_from(std::process::id()).unwrap_or_default())
        .and_then(|shim| Ok(Processes { shim, agent: Identity::of(group.as_raw_nonzero().get())? }))
        .and_then(|processes| folder.write_processes(&processes));
    if let Err(error) = known {
        // An agent that nobody could find again must not run.
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait();
        return Err(format!("the agent cannot be written down: {error}"));
    }
    Ok((child, group))
}

/// The limits that the kernel keeps, for us and all that we start. No core is dumped: it would hold secrets.
fn limit(start: &Start) -> io::Result<()> {
    let most = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    // Not the address space: runtimes of garbage-collected languages reserve much more than they use.
    setrlimit(Resource::Data, most(start.memory))?;
    setrlimit(Resource::Fsize, most(start.output))?;
    forbid_dumps()
}

/// Waits for the agent on a thread, and ends what it leaves behind in its group.
fn wait(mut child: Child, group: Pid) -> io::Result<oneshot::Receiver<ExitStatus>> {
    let (sender, exited) = oneshot::channel();
    thread::Builder::new().name("wait".to_owned()).stack_size(128 * 1024).spawn(move || {
        // Its number is given to no other process before it has been waited for.
        while matches!(waitid(WaitId::Pid(group), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT), Err(rustix::io::Errno::INTR)) {}
        let _ = kill_process_group(group, Signal::KILL);
        if let Ok(status) = child.wait() {
            // The receiver waits for nothing else.
            let _ = sender.send(status);
        }
    })?;
    Ok(exited)
}

/// An agent that runs.
struct Agent<'a> {
    group: Pid,
    exited: oneshot::Receiver<ExitStatus>,
    output: File,
    start: &'a Start,
}

// === impl Agent ===

impl Agent<'_> {
    async fn attend(mut self, terminate: &mut tokio::signal::unix::Signal) -> Ending {
        let began = Instant::now();
        let mut stopped: Option<(Stopped, Instant)> = None;
        loop {
            let next_look = self.next_look(began, stopped);
            let asked = tokio::select! {
                status = &mut self.exited => {
                    let exit = status.map_or(Exit::Unknown, exit_of);
                    return Ending { exit, stopped: stopped.map(|(why, _)| why) };
                }
                _ = terminate.recv() => Some(Stopped::Asked),
                () = tokio::time::sleep(next_look) => None,
            };
            let now = Instant::now();
            match stopped {
                None => {
                    if let Some(why) = asked.or_else(|| self.exceeded(now - began)) {
                        let _ = kill_process_group(self.group, Signal::TERM);
                        stopped = Some((why, now));
                    }
                }
                Some((_, since)) if now - since >= Duration::from_millis(self.start.grace_millis) => {
                    let _ = kill_process_group(self.group, Signal::KILL);
                }
                Some(_) => {}
            }
        }
    }

    /// At the next limit, and not much later than the output may have become too much.
    fn next_look(&self, began: Instant, stopped: Option<(Stopped, Instant)>) -> Duration {
        let (from, limit) = stopped.map_or((began, self.start.time_millis), |(_, since)| (since, self.start.grace_millis));
        Duration::from_millis(limit).saturating_sub(from.elapsed()).clamp(Duration::from_millis(10), LOOK)
    }

    /// The limits that the kernel does not keep, or that a program can ignore.
    fn exceeded(&self, age: Duration) -> Option<Stopped> {
        if age >= Duration::from_millis(self.start.time_millis) {
            return Some(Stopped::Time);
        }
        let written = self.output.metadata().map_or(0, |metadata| metadata.len());
        (written >= self.start.output).then_some(Stopped::Output)
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    status.code().map(Exit::Code).or_else(|| status.signal().map(Exit::Signal)).unwrap_or(Exit::Unknown)
}
