//! Agents that are Jobs of a cluster: found again after a restart, started, told to end, looked at. Knows no database.
//!
//! All that is known of an agent stands in the cluster: in its Job, the labels and annotations of that, and its pod. So any
//! number of sidecars of one name look after the same Jobs, and none of them needs a disk. `manifest` (pure) says what is
//! asked of the cluster, `seen` (pure) what its answers mean.

mod manifest;
mod seen;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mongodb::bson::oid::ObjectId;

use crate::config::services::AgentLimits;
use crate::config::services::jobs::AgentJobs;
use crate::secret::Secret;
use crate::services::runs::jobs::manifest::{CANCELLED, PROJECT_ANNOTATION, RUN};
use crate::services::runs::jobs::seen::{Seen, seen};
use crate::services::runs::last_error::last_error;
use crate::services::runs::roster::{Agent, Ended, NoRoom, Roster};
use crate::services::runs::run::{Ending, Event, Exit, Phase};
use crate::store::cluster::{Cluster, ClusterError, Job, Pod};

/// A Job that nobody lets begin for so long was left behind by a process that was killed: a start takes three requests.
const ABANDONED: Duration = Duration::from_secs(90);

/// The agents of a cluster.
#[derive(Debug)]
pub(super) struct JobFleet {
    cluster: Cluster,
    settings: AgentJobs,
    limits: AgentLimits,
    environment: Vec<(String, Secret)>,
    view: Mutex<View>,
}

/// What has been seen of the cluster.
#[derive(Debug)]
struct View {
    roster: Roster<Remote>,
    /// Whether anything has been seen yet.
    has_looked: bool,
}

/// What an agent is made of here.
#[derive(Debug)]
struct Remote {
    /// This process is asking for its Job.
    is_launching: bool,
    /// An answer to what was asked before says nothing of it.
    since: Instant,
    /// Since when its container is waited for.
    waits: Option<Instant>,
    /// What it wrote at last, or the cluster says of its end.
    words: Option<String>,
}

/// What a look has found.
#[derive(Debug, Default, Eq, PartialEq)]
struct Found {
    /// How many agents an earlier process has left alive.
    reattached: usize,
    /// The runs whose Jobs are to be deleted.
    unwanted: Vec<ObjectId>,
}

// === impl JobFleet ===

impl JobFleet {
    pub(super) fn new(settings: &AgentJobs, limits: AgentLimits, environment: &[(String, Secret)], most: usize) -> Self {
        Self {
            cluster: Cluster::new(settings.access.clone()),
            settings: settings.clone(),
            limits,
            environment: environment.to_vec(),
            view: Mutex::new(View { roster: Roster::new(most), has_looked: false }),
        }
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for an agent.
    pub(super) fn reserve(&self, run: ObjectId, project: &str) -> Result<(), NoRoom> {
        self.view().roster.reserve(run, project, Remote { is_launching: true, ..Remote::new() })
    }

    /// Forgets a run: it was never begun, or it is written down.
    pub(super) fn forget(&self, run: ObjectId) {
        drop(self.view().roster.remove(run));
    }

    /// Starts the agent of a run for which there is room. Why it was not started; then its run has ended.
    pub(super) async fn launch(&self, run: ObjectId, project: &str, arguments: Vec<String>) -> Result<(), String> {
        let launched = self.try_launch(run, project, arguments).await.map_err(|error| error.to_string());
        if let Some(agent) = self.view().roster.get_mut(run) {
            agent.work = Remote::new();
            match &launched {
                Ok(()) => agent.happened(Event::Started),
                Err(why) => agent.end(Ending { exit: Exit::NotStarted(why.clone()), stopped: None }),
            }
        }
        launched
    }

    /// The Job first, which must not begin; then its Secret, which goes with it; then it begins. Whatever is left behind by a
    /// kill in between runs nothing, and goes when it is found.
    async fn try_launch(&self, run: ObjectId, project: &str, arguments: Vec<String>) -> Result<(), ClusterError> {
        let job = manifest::job(&self.settings, &self.limits, run, project, &arguments);
        let made = self.cluster.create_job(&job).await?;
        let secret = manifest::secret(&self.settings, &made.metadata.uid, run, project, &self.environment);
        self.cluster.create_secret(&secret).await?;
        self.cluster.patch_job(&manifest::name(run), &manifest::begin()).await
    }

    /// Has the agent of a run end. `false` when it is not here, has ended, or the cluster did not take the wish.
    pub(super) async fn cancel(&self, run: ObjectId) -> bool {
        {
            let mut view = self.view();
            let Some(agent) = view.roster.get_mut(run).filter(|agent| agent.phase != Phase::Ended) else { return false };
            agent.cancelled = true;
            agent.happened(Event::StopAsked);
            if agent.work.is_launching {
                // The next look finds a Job that is not wanted.
                return true;
            }
        }
        let name = manifest::name(run);
        // Noted first: after a restart its run is cancelled, and has not failed.
        let told = match self.cluster.patch_job(&name, &manifest::cancelled()).await {
            Err(error) if !error.is_missing() => Err(error),
            _ => self.cluster.delete_job(&name).await,
        };
        if let Err(error) = &told {
            tracing::warn!(%run, %error, "the Job of an agent could not be deleted; trying again");
        }
        told.is_ok()
    }

    /// Looks at all Jobs. How many agents were found that an earlier process has left alive.
    pub(super) async fn look(&self) -> Result<usize, ClusterError> {
        let asked = Instant::now();
        let jobs = self.cluster.jobs(&manifest::ours(&self.settings)).await?;
        let pods = if jobs.is_empty() { Vec::new() } else { self.cluster.pods(&manifest::our_pods(&self.settings)).await? };
        let found = self.view().take_in(&jobs, &pods, asked, self.settings.start_limit);
        for run in found.unwanted {
            self.cluster.delete_job(&manifest::name(run)).await?;
        }
        Ok(found.reattached)
    }

    /// The runs whose agents have ended, and whose time to be written down has come.
    pub(super) fn ended(&self) -> Vec<Ended> {
        let error = |remote: &Remote| last_error(remote.words.as_deref()?.as_bytes());
        self.view().roster.ended(Instant::now(), error)
    }

    /// Sees to it that an agent that was said not to have started does not start after all.
    pub(super) async fn rule_out(&self, ended: &Ended) -> Result<(), ClusterError> {
        let Exit::NotStarted(_) = ended.ending.exit else { return Ok(()) };
        match self.cluster.delete_job(&manifest::name(ended.run)).await {
            // Who may make none has made none; and a project must not wait for somebody to give us more rights.
            Err(error) if error.is_forbidden() => {
                tracing::warn!(run = %ended.run, %error, "whether a Job was made that must not begin cannot be seen to");
                Ok(())
            }
            deleted => deleted,
        }
    }

    /// Notes on a Job that the database knows its end.
    pub(super) async fn mark_recorded(&self, run: ObjectId) -> Result<(), ClusterError> {
        match self.cluster.patch_job(&manifest::name(run), &manifest::recorded()).await {
            Err(error) if error.is_missing() => Ok(()),
            noted => noted,
        }
    }

    /// Tries a run again later.
    pub(super) fn postpone(&self, run: ObjectId, until: Instant) {
        self.view().roster.postpone(run, until);
    }

    /// Whether it is known which agents there are.
    pub(super) fn has_looked(&self) -> bool {
        self.view().has_looked
    }

    /// Whether a run is here, in whatever phase.
    pub(super) fn has(&self, run: ObjectId) -> bool {
        self.view().roster.has(run)
    }

    /// The runs whose agents are here, with their projects and phases.
    pub(super) fn all(&self) -> Vec<(ObjectId, String, Phase)> {
        self.view().roster.all()
    }
}

// === impl View ===

impl View {
    /// Takes in what the cluster has answered to a question that was asked at `asked`.
    fn take_in(&mut self, jobs: &[Job], pods: &[Pod], asked: Instant, start_limit: Duration) -> Found {
        let mut found = Found::default();
        let mut there = BTreeSet::new();
        for job in jobs {
            let Some((run, project)) = whose(job) else { continue };
            there.insert(run);
            if !self.roster.has(run) {
                self.roster.insert(run, Agent::new(&project, Remote { since: asked, ..Remote::new() }));
            }
            let Some(agent) = self.roster.get_mut(run) else { continue };
            if agent.work.is_launching {
                continue;
            }
            let was_new = agent.phase == Phase::Starting;
            agent.take_in(seen(job, pods), asked, start_limit);
            found.reattached += usize::from(was_new && !self.has_looked && agent.phase == Phase::Live);
            agent.cancelled |= job.metadata.annotations.contains_key(CANCELLED);
            let is_unwanted =
                agent.cancelled && agent.phase != Phase::Ended || matches!(agent.ending, Some(Ending { exit: Exit::NotStarted(_), .. }));
            if job.metadata.deletion_timestamp.is_some() {
                agent.happened(Event::StopAsked);
            } else if is_unwanted {
                found.unwanted.push(run);
            }
        }
        self.look_for_missing(&there, asked);
        self.has_looked = true;
        found
    }

    fn look_for_missing(&mut self, there: &BTreeSet<ObjectId>, asked: Instant) {
        let mut never_begun = Vec::new();
        let is_missing =
            |run: &ObjectId, agent: &Agent<Remote>| !there.contains(run) && !agent.work.is_launching && agent.work.since < asked;
        for (run, agent) in self.roster.iter_mut().filter(|(run, agent)| is_missing(run, agent)) {
            match agent.phase {
                Phase::Live | Phase::Stopping => {
                    agent.work.words.get_or_insert_with(|| "its Job was deleted".to_owned());
                    agent.end(Ending::unknown());
                }
                // Another process was starting it, and has given up.
                Phase::Starting => never_begun.push(run),
                Phase::Ended => {}
            }
        }
        for run in never_begun {
            drop(self.roster.remove(run));
        }
    }
}

// === impl Agent ===

impl Agent<Remote> {
    fn take_in(&mut self, seen: Seen, now: Instant, start_limit: Duration) {
        if self.phase == Phase::Ended {
            return;
        }
        let not_started = |why: String| Ending { exit: Exit::NotStarted(why), stopped: None };
        match seen {
            Seen::Suspended => {
                let waits = *self.work.waits.get_or_insert(now);
                if now.saturating_duration_since(waits) >= ABANDONED {
                    self.end(not_started("the run service ended before the agent was started".to_owned()));
                }
            }
            Seen::Waiting(why) => {
                if self.phase == Phase::Starting {
                    self.work.waits = None;
                    self.happened(Event::Started);
                }
                let waits = *self.work.waits.get_or_insert(now);
                if now.saturating_duration_since(waits) >= start_limit {
                    let why = why.unwrap_or_else(|| "its pod was not made".to_owned());
                    self.end(not_started(format!("nothing ran after {}: {why}", crate::units::format_duration(start_limit))));
                }
            }
            Seen::Live => {
                self.work.waits = None;
                if self.phase == Phase::Starting {
                    self.happened(Event::Started);
                }
            }
            Seen::Ended(ending, words) => {
                self.work.words = words;
                self.end(ending);
            }
        }
    }
}

// === impl Remote ===

impl Remote {
    fn new() -> Self {
        Self { is_launching: false, since: Instant::now(), waits: None, words: None }
    }
}

/// The run and project of a Job that we have made.
fn whose(job: &Job) -> Option<(ObjectId, String)> {
    let run = ObjectId::parse_str(job.metadata.labels.get(RUN)?).ok()?;
    Some((run, job.metadata.annotations.get(PROJECT_ANNOTATION)?.clone()))
}

#[cfg(test)]
mod tests;
