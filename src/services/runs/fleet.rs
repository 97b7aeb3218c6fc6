//! The agents of this process: found again after a restart, started, told to end, looked at. Blocks; knows no database.

use std::collections::BTreeMap;
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
use crate::services::runs::run::{Ending, Event, Exit, Phase};

/// How long a shim may take to start its agent. It takes milliseconds.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How often a shim is asked whether it has.
const START_LOOK: Duration = Duration::from_millis(5);
/// An agent without its shim is told to end when it is late, and killed when it is so much later.
const LATE: Duration = Duration::from_secs(30);
/// An output is not removed sooner: whoever looks into it, or counts its lines, has an hour.
const KEPT_AT_LEAST: Duration = Duration::from_secs(3600);

/// The agents of this process.
#[derive(Debug)]
pub(super) struct Fleet {
    /// Where the folders of runs are.
    runs: PathBuf,
    /// The program that becomes a shim.
    shim: PathBuf,
    most: usize,
    agents: Mutex<BTreeMap<ObjectId, Agent>>,
}

/// One agent.
#[derive(Debug)]
struct Agent {
    project: String,
    folder: RunFolder,
    phase: Phase,
    /// Somebody wants it to end.
    cancelled: bool,
    watch: Watch,
    /// How it ended, where that stands in no file.
    ending: Option<Ending>,
    /// Our own child, which the system wants to be waited for.
    child: Option<Child>,
    /// When its run is tried again to be written down.
    not_before: Option<Instant>,
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

/// Why there is no room for an agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NoRoom {
    /// As many as may run here do.
    Full,
    /// The project has one.
    Busy(ObjectId),
    /// The project may have one in a moment.
    Starting,
    /// The project's last one has ended, and is being written down.
    Ending,
}

/// An agent that has ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub run: ObjectId,
    pub project: String,
    pub cancelled: bool,
    pub ending: Ending,
    pub last_error: Option<String>,
}

// === impl Fleet ===

impl Fleet {
    /// Takes over what an earlier process has left. How many agents still live.
    pub(super) fn open(runs: PathBuf, shim: PathBuf, most: usize) -> io::Result<(Self, usize)> {
        let mut agents = BTreeMap::new();
        for folder in RunFolder::all(&runs)?.into_iter().filter(|folder| !folder.is_recorded()) {
            match folder.start() {
                Ok(start) => drop(agents.insert(folder.run, Agent::found(folder, start)?)),
                // It was being made when the process was killed, before anything was started or claimed.
                Err(error) => tracing::warn!(run = %folder.run, %error, "the folder of a run says nothing of it; it is left alone"),
            }
        }
        let live = agents.values().filter(|agent| agent.phase != Phase::Ended).count();
        Ok((Self { runs, shim, most, agents: Mutex::new(agents) }, live))
    }

    fn agents(&self) -> MutexGuard<'_, BTreeMap<ObjectId, Agent>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for an agent.
    pub(super) fn reserve(&self, run: ObjectId, project: &str) -> Result<(), NoRoom> {
        let mut agents = self.agents();
        if let Some((other, agent)) = agents.iter().find(|(_, agent)| agent.project == project) {
            return Err(match agent.phase {
                Phase::Starting => NoRoom::Starting,
                Phase::Ended => NoRoom::Ending,
                Phase::Live | Phase::Stopping => NoRoom::Busy(*other),
            });
        }
        if agents.len() >= self.most {
            return Err(NoRoom::Full);
        }
        let folder = RunFolder::new(&self.runs, run);
        agents.insert(run, Agent::new(project, folder, Phase::Starting));
        Ok(())
    }

    /// Forgets a run: it was never begun, or it is written down.
    pub(super) fn forget(&self, run: ObjectId) {
        let agent = self.agents().remove(&run);
        // One of ours has ended, or is about to: this takes no longer than that.
        if let Some(mut child) = agent.and_then(|agent| agent.child) {
            let _ = child.wait();
        }
    }

    /// Starts the agent of a run for which there is room. Why it was not started; then its run has ended.
    pub(super) fn launch(&self, run: ObjectId, start: &Start, environment: &[(String, Secret)]) -> Result<(), String> {
        let folder = RunFolder::new(&self.runs, run);
        let launched = self.try_launch(&folder, start, environment);
        let mut agents = self.agents();
        let Some(agent) = agents.get_mut(&run) else { return launched.map(|_| ()) };
        match launched {
            Ok(child) => {
                agent.child = Some(child);
                agent.watch_again(start);
                agent.happened(Event::Started);
                if agent.cancelled {
                    agent.tell_to_end();
                }
                Ok(())
            }
            Err(why) => {
                agent.ending = Some(Ending { exit: Exit::NotStarted(why.clone()), stopped: None });
                agent.happened(Event::Exited);
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
        let mut agents = self.agents();
        let Some(agent) = agents.get_mut(&run).filter(|agent| agent.phase != Phase::Ended) else { return false };
        if !agent.cancelled {
            // Written down first: after a restart its run is cancelled, and has not failed.
            if let Err(error) = agent.folder.mark_cancelled() {
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
        self.agents().values_mut().for_each(|agent| agent.look(now));
    }

    /// The runs whose agents have ended, and whose time to be written down has come.
    pub(super) fn ended(&self) -> Vec<Ended> {
        let now = Instant::now();
        let agents = self.agents();
        let is_due = |agent: &&Agent| agent.phase == Phase::Ended && agent.not_before.is_none_or(|time| time <= now);
        let ended = agents.values().filter(is_due).map(|agent| Ended {
            run: agent.folder.run,
            project: agent.project.clone(),
            cancelled: agent.cancelled,
            ending: agent.ending.clone().unwrap_or_else(Ending::unknown),
            last_error: agent.folder.tail().ok().and_then(|tail| last_error(&tail)),
        });
        ended.collect()
    }

    /// Tries a run again later.
    pub(super) fn postpone(&self, run: ObjectId, pause: Duration) {
        if let Some(agent) = self.agents().get_mut(&run) {
            agent.not_before = Some(Instant::now() + pause);
        }
    }

    /// Writes down that the database knows the end of a run.
    pub(super) fn mark_recorded(&self, run: ObjectId) -> io::Result<()> {
        let folder = RunFolder::new(&self.runs, run);
        // One that could not even get a folder has none.
        if folder.path().is_dir() { folder.mark_recorded() } else { Ok(()) }
    }

    /// Whether a run is here, in whatever phase.
    pub(super) fn has(&self, run: ObjectId) -> bool {
        self.agents().contains_key(&run)
    }

    /// The runs whose agents are here, with their projects and phases.
    pub(super) fn all(&self) -> Vec<(ObjectId, String, Phase)> {
        self.agents().iter().map(|(run, agent)| (*run, agent.project.clone(), agent.phase)).collect()
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

// === impl Agent ===

impl Agent {
    fn new(project: &str, folder: RunFolder, phase: Phase) -> Self {
        let project = project.to_owned();
        Self { project, folder, phase, cancelled: false, watch: Watch::Nobody, ending: None, child: None, not_before: None }
    }

    /// The agent of a run that an earlier process has left.
    fn found(folder: RunFolder, start: Start) -> io::Result<Self> {
        let mut agent = Self::new(&start.project, folder, Phase::Starting);
        agent.cancelled = agent.folder.is_cancelled();
        let was_abandoned = agent.folder.is_abandoned() || (agent.folder.processes().is_none() && agent.folder.abandon()?);
        if was_abandoned {
            let why = "the run service ended before the agent was started".to_owned();
            agent.ending = Some(Ending { exit: Exit::NotStarted(why), stopped: None });
            agent.happened(Event::Exited);
            return Ok(agent);
        }
        // A shim that has just been started is about to say which process its agent is.
        let deadline = Instant::now() + START_LIMIT;
        while agent.folder.processes().is_none() && agent.folder.ending().is_none() && Instant::now() < deadline {
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
        let Some(processes) = self.folder.processes() else { return };
        if let Some(shim) = processes.shim.hold() {
            self.watch = Watch::Shim(shim);
        } else if self.folder.ending().is_none()
            && let Some(agent) = processes.agent.hold()
        {
            tracing::error!(run = %self.folder.run, "the process that looked after an agent was killed; the agent goes on, and its exit status will not be known");
            // At most: how long it has run already is known to nobody.
            self.watch = Watch::Orphan { agent, late_at: Instant::now() + Duration::from_millis(start.time_millis) };
        } else {
            self.watch = Watch::Nobody;
        }
    }

    fn happened(&mut self, event: Event) {
        if let Some(phase) = self.phase.after(event) {
            self.phase = phase;
        }
    }

    fn tell_to_end(&mut self) {
        self.happened(Event::StopAsked);
        let told = match &self.watch {
            Watch::Shim(shim) => shim.signal(Signal::TERM),
            Watch::Orphan { agent, .. } => agent.signal_group(Signal::TERM),
            Watch::Nobody => Ok(()),
        };
        if let Err(error) = told {
            tracing::warn!(run = %self.folder.run, %error, "an agent could not be told to end");
        }
    }

    fn look(&mut self, now: Instant) {
        // What has ended must be waited for; how it ended stands in a file.
        if let Some(child) = &mut self.child
            && !matches!(child.try_wait(), Ok(None))
        {
            self.child = None;
        }
        if matches!(self.phase, Phase::Starting | Phase::Ended) {
            return;
        }
        match &self.watch {
            // One that has written the end down is only about to go.
            Watch::Shim(shim) if self.folder.ending().is_none() && shim.is_alive() => return,
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
        if self.folder.ending().is_none()
            && let Ok(start) = self.folder.start()
            && !matches!(self.watch, Watch::Orphan { .. })
        {
            self.watch_again(&start);
            if !matches!(self.watch, Watch::Nobody) {
                return;
            }
        }
        self.ending = Some(self.folder.ending().unwrap_or_else(Ending::unknown));
        self.happened(Event::Exited);
    }
}
