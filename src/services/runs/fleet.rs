//! Agents that are processes of this machine: found again after a restart, started, told to end, looked at. Blocks; knows no
//! database.

use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use mongodb::bson::oid::ObjectId;
use rustix::process::Signal;

use crate::secret::Secret;
use crate::services::runs::folder::{RunFolder, Start};
use crate::services::runs::last_error::last_error;
use crate::services::runs::process::Held;
use crate::services::runs::roster::{Agent, Ended, NoRoom, Roster};
use crate::services::runs::run::{Ending, Event, Exit, Phase};

/// How long a shim may take to start its agent. It takes milliseconds.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How often a shim is asked whether it has.
const START_LOOK: Duration = Duration::from_millis(5);
/// An agent without its shim is told to end when it is late, and killed when it is so much later.
const LATE: Duration = Duration::from_secs(30);
/// An output is not removed sooner: whoever looks into it, or counts its lines, has an hour.
const KEPT_AT_LEAST: Duration = Duration::from_secs(3600);

/// The agents of this machine.
#[derive(Debug)]
pub(super) struct Fleet {
    /// Where the folders of runs are.
    runs: PathBuf,
    /// The program that becomes a shim.
    shim: PathBuf,
    roster: Mutex<Roster<Local>>,
}

/// What an agent is made of here.
#[derive(Debug)]
struct Local {
    folder: RunFolder,
    watch: Watch,
    /// Our own child, which the system wants to be waited for.
    child: Option<Child>,
}

/// Which process is looked at.
#[derive(Debug)]
enum Watch {
    /// None yet.
    Nobody,
    /// Its shim, which will write down how it ended.
    Shim(Held),
    /// The agent itself: its shim was killed. With what is left of its time.
    Orphan { agent: Held, late_at: Instant },
}

// === impl Fleet ===

impl Fleet {
    /// Takes over what an earlier process has left. How many agents still live.
    pub(super) fn open(runs: PathBuf, shim: PathBuf, most: usize) -> io::Result<(Self, usize)> {
        let mut roster = Roster::new(most);
        for folder in RunFolder::all(&runs)?.into_iter().filter(|folder| !folder.is_recorded()) {
            match folder.start() {
                Ok(start) => roster.insert(folder.run, Agent::found(folder, start)?),
                // It was being made when the process was killed, before anything was started or claimed.
                Err(error) => tracing::warn!(run = %folder.run, %error, "the folder of a run says nothing of it; it is left alone"),
            }
        }
        let live = roster.live();
        Ok((Self { runs, shim, roster: Mutex::new(roster) }, live))
    }

    fn roster(&self) -> MutexGuard<'_, Roster<Local>> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for an agent.
    pub(super) fn reserve(&self, run: ObjectId, project: &str) -> Result<(), NoRoom> {
        self.roster().reserve(run, project, Local::new(RunFolder::new(&self.runs, run)))
    }

    /// Forgets a run: it was never begun, or it is written down.
    pub(super) fn forget(&self, run: ObjectId) {
        let agent = self.roster().remove(run);
        // One of ours has ended, or is about to: this takes no longer than that.
        if let Some(mut child) = agent.and_then(|agent| agent.work.child) {
            let _ = child.wait();
        }
    }

    /// Starts the agent of a run for which there is room. Why it was not started; then its run has ended.
    pub(super) fn launch(&self, run: ObjectId, start: &Start, environment: &[(String, Secret)]) -> Result<(), String> {
        let folder = RunFolder::new(&self.runs, run);
        let launched = self.try_launch(&folder, start, environment);
        let mut roster = self.roster();
        let Some(agent) = roster.get_mut(run) else { return launched.map(|_| ()) };
        match launched {
            Ok(child) => {
                agent.work.child = Some(child);
                agent.watch_again(start);
                agent.happened(Event::Started);
                if agent.cancelled {
                    agent.tell_to_end();
                }
                Ok(())
            }
            Err(why) => {
                agent.end(Ending { exit: Exit::NotStarted(why.clone()), stopped: None });
                Err(why)
            }
        }
    }

    fn try_launch(&self, folder: &RunFolder, start: &Start, environment: &[(String, Secret)]) -> Result<Child, String> {
        folder.create(start).map_err(|error| format!("the folder of the run cannot be written: {error}"))?;
        let mut child = Command::new(&self.shim)
            .arg("agent-shim")
            .arg(folder.path())
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value.expose())))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("no process can be started: {error}"))?;
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if folder.processes().is_some() {
                return Ok(child);
            }
            let has_ended = child.try_wait().is_ok_and(|status| status.is_some());
            match folder.ending() {
                Some(Ending { exit: Exit::NotStarted(why), .. }) => {
                    let _ = child.wait();
                    return Err(why);
                }
                Some(_) => return Ok(child),
                None if has_ended => return Err("the process that should start the agent has ended".to_owned()),
                None => {}
            }
            if Instant::now() > deadline && folder.abandon().unwrap_or(true) {
                return Err(format!("the agent was not started within {START_LIMIT:?}"));
            }
            std::thread::sleep(START_LOOK);
        }
    }

    /// Tells the agent of a run to end. `false` when it is not here, or has ended.
    pub(super) fn cancel(&self, run: ObjectId) -> bool {
        let mut roster = self.roster();
        let Some(agent) = roster.get_mut(run).filter(|agent| agent.phase != Phase::Ended) else { return false };
        if !agent.cancelled {
            // Written down first: after a restart its run is cancelled, and has not failed.
            if let Err(error) = agent.work.folder.mark_cancelled() {
                tracing::warn!(%run, %error, "that a run is cancelled could not be written to the disk");
            }
            agent.cancelled = true;
        }
        agent.tell_to_end();
        true
    }

    /// Looks at all agents.
    pub(super) fn look(&self) {
        let now = Instant::now();
        self.roster().iter_mut().for_each(|(_, agent)| agent.look(now));
    }

    /// The runs whose agents have ended, and whose time to be written down has come.
    pub(super) fn ended(&self) -> Vec<Ended> {
        self.roster().ended(Instant::now(), |local| local.folder.tail().ok().and_then(|tail| last_error(&tail)))
    }

    /// Tries a run again later.
    pub(super) fn postpone(&self, run: ObjectId, until: Instant) {
        self.roster().postpone(run, until);
    }

    /// Writes down that the database knows the end of a run.
    pub(super) fn mark_recorded(&self, run: ObjectId) -> io::Result<()> {
        let folder = RunFolder::new(&self.runs, run);
        // One that could not even get a folder has none.
        if folder.path().is_dir() { folder.mark_recorded() } else { Ok(()) }
    }

    /// Whether a run is here, in whatever phase.
    pub(super) fn has(&self, run: ObjectId) -> bool {
        self.roster().has(run)
    }

    /// The runs whose agents are here, with their projects and phases.
    pub(super) fn all(&self) -> Vec<(ObjectId, String, Phase)> {
        self.roster().all()
    }

    /// Removes the outputs of the oldest runs that are over.
    pub(super) fn prune(&self, keep: usize, now: SystemTime) -> io::Result<()> {
        let over: Vec<RunFolder> = RunFolder::all(&self.runs)?.into_iter().filter(RunFolder::is_recorded).collect();
        let too_many = over.len().saturating_sub(keep);
        for folder in over.iter().take(too_many).filter(|folder| folder.recorded_for(now).is_some_and(|age| age >= KEPT_AT_LEAST)) {
            folder.remove()?;
        }
        Ok(())
    }
}

// === impl Local ===

impl Local {
    fn new(folder: RunFolder) -> Self {
        Self { folder, watch: Watch::Nobody, child: None }
    }
}

// === impl Agent ===

impl Agent<Local> {
    /// The agent of a run that an earlier process has left.
    fn found(folder: RunFolder, start: Start) -> io::Result<Self> {
        let mut agent = Self::new(&start.project, Local::new(folder));
        agent.cancelled = agent.work.folder.is_cancelled();
        let was_abandoned = agent.work.folder.is_abandoned() || (agent.work.folder.processes().is_none() && agent.work.folder.abandon()?);
        if was_abandoned {
            let why = "the run service ended before the agent was started".to_owned();
            agent.end(Ending { exit: Exit::NotStarted(why), stopped: None });
            return Ok(agent);
        }
        // A shim that has just been started is about to say which process its agent is.
        let deadline = Instant::now() + START_LIMIT;
        while agent.work.folder.processes().is_none() && agent.work.folder.ending().is_none() && Instant::now() < deadline {
            std::thread::sleep(START_LOOK);
        }
        agent.watch_again(&start);
        agent.happened(Event::Started);
        if agent.cancelled {
            agent.tell_to_end();
        }
        // One may have ended meanwhile.
        agent.look(Instant::now());
        Ok(agent)
    }

    /// Finds the process to look at: the shim, else the agent that it has left behind, else none.
    fn watch_again(&mut self, start: &Start) {
        let Some(processes) = self.work.folder.processes() else { return };
        if let Some(shim) = processes.shim.hold() {
            self.work.watch = Watch::Shim(shim);
        } else if self.work.folder.ending().is_none()
            && let Some(agent) = processes.agent.hold()
        {
            tracing::error!(run = %self.work.folder.run, "the process that looked after an agent was killed; the agent goes on, and its exit status will not be known");
            // At most: how long it has run already is known to nobody.
            self.work.watch = Watch::Orphan { agent, late_at: Instant::now() + Duration::from_millis(start.time_millis) };
        } else {
            self.work.watch = Watch::Nobody;
        }
    }

    fn tell_to_end(&mut self) {
        self.happened(Event::StopAsked);
        let told = match &self.work.watch {
            Watch::Shim(shim) => shim.signal(Signal::TERM),
            Watch::Orphan { agent, .. } => agent.signal_group(Signal::TERM),
            Watch::Nobody => Ok(()),
        };
        if let Err(error) = told {
            tracing::warn!(run = %self.work.folder.run, %error, "an agent could not be told to end");
        }
    }

    fn look(&mut self, now: Instant) {
        // What has ended must be waited for; how it ended stands in a file.
        if let Some(child) = &mut self.work.child
            && !matches!(child.try_wait(), Ok(None))
        {
            self.work.child = None;
        }
        if matches!(self.phase, Phase::Starting | Phase::Ended) {
            return;
        }
        match &self.work.watch {
            // One that has written the end down is only about to go.
            Watch::Shim(shim) if self.work.folder.ending().is_none() && shim.is_alive() => return,
            Watch::Orphan { agent, late_at } if agent.is_alive() => {
                if now > *late_at + LATE {
                    let _ = agent.signal_group(Signal::KILL);
                } else if now > *late_at {
                    let _ = agent.signal_group(Signal::TERM);
                }
                return;
            }
            _ => {}
        }
        if self.work.folder.ending().is_none()
            && let Ok(start) = self.work.folder.start()
            && !matches!(self.work.watch, Watch::Orphan { .. })
        {
            self.watch_again(&start);
            if !matches!(self.work.watch, Watch::Nobody) {
                return;
            }
        }
        self.end(self.work.folder.ending().unwrap_or_else(Ending::unknown));
    }
}
