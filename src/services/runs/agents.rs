//! The agents of runs, whatever they are: processes of this machine, or Jobs of a cluster. Knows no database.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mongodb::bson::oid::ObjectId;

use crate::config::services::RunsService;
use crate::services::runs::fleet::Fleet;
use crate::services::runs::folder::Start;
use crate::services::runs::jobs::JobFleet;
use crate::services::runs::roster::{Ended, NoRoom};
use crate::services::runs::run::{Ending, Exit, Phase};
use crate::store::cluster::ClusterError;

/// How often processes are looked at; one whose end nobody waits for may be seen so late.
const PROCESSES_LOOK: Duration = Duration::from_millis(250);
/// How often Jobs are looked at, by two requests for all of them.
const JOBS_LOOK: Duration = Duration::from_secs(2);

/// The agents of runs.
#[derive(Debug)]
pub(super) enum Agents {
    Processes(Arc<Fleet>),
    Jobs(Box<JobFleet>),
}

/// What is wrong with the place where agents are.
#[derive(Debug, thiserror::Error)]
pub(super) enum AgentsError {
    #[error("the folder of runs cannot be used")]
    Folder(#[from] io::Error),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("a look at agents broke off; the log says why")]
    Broken,
}

// === impl Agents ===

impl Agents {
    /// The processes that an earlier process has left, or the Jobs of a cluster. How many agents still live here.
    pub(super) fn open(settings: &RunsService, runs: Option<&Path>, shim: &Path) -> io::Result<(Self, usize)> {
        match (&settings.jobs, runs) {
            (Some(jobs), _) => {
                let fleet = JobFleet::new(jobs, settings.limits, &settings.environment, settings.max_running);
                Ok((Self::Jobs(Box::new(fleet)), 0))
            }
            (None, Some(runs)) => {
                let (fleet, live) = Fleet::open(runs.to_owned(), shim.to_owned(), settings.max_running)?;
                Ok((Self::Processes(Arc::new(fleet)), live))
            }
            (None, None) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// How often they are to be looked at.
    pub(super) fn every(&self) -> Duration {
        match self {
            Self::Processes(_) => PROCESSES_LOOK,
            Self::Jobs(_) => JOBS_LOOK,
        }
    }

    /// Whether an agent that was started works at once; a Job's waits for a node.
    pub(super) fn begin_at_once(&self) -> bool {
        matches!(self, Self::Processes(_))
    }

    /// Whether another process may have seen the end of an agent, and written it down, before this one.
    pub(super) fn may_be_behind(&self) -> bool {
        matches!(self, Self::Jobs(_))
    }

    /// Makes room for an agent.
    pub(super) fn reserve(&self, run: ObjectId, project: &str) -> Result<(), NoRoom> {
        match self {
            Self::Processes(fleet) => fleet.reserve(run, project),
            Self::Jobs(fleet) => fleet.reserve(run, project),
        }
    }

    /// Forgets a run that was never begun.
    pub(super) fn forget(&self, run: ObjectId) {
        match self {
            Self::Processes(fleet) => fleet.forget(run),
            Self::Jobs(fleet) => fleet.forget(run),
        }
    }

    /// Starts the agent of a run for which there is room. Why it was not started; then its run has ended.
    pub(super) async fn launch(
        &self,
        settings: &Arc<RunsService>,
        run: ObjectId,
        project: &str,
        arguments: Vec<String>,
    ) -> Result<(), String> {
        match self {
            Self::Jobs(fleet) => fleet.launch(run, project, arguments).await,
            Self::Processes(fleet) => {
                let limits = settings.limits;
                let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
                let start = Start {
                    command: [settings.agent.clone(), arguments].concat(),
                    project: project.to_owned(),
                    time_millis: millis(limits.time),
                    grace_millis: millis(limits.grace),
                    memory: limits.memory,
                    output: limits.output,
                };
                let (fleet, settings) = (Arc::clone(fleet), Arc::clone(settings));
                let launched = tokio::task::spawn_blocking(move || fleet.launch(run, &start, &settings.environment)).await;
                launched.unwrap_or_else(|_| Err("see the log of the run service".to_owned()))
            }
        }
    }

    /// Has the agent of a run end. `false` when it is not here, has ended, or could not be told.
    pub(super) async fn cancel(&self, run: ObjectId) -> bool {
        match self {
            Self::Jobs(fleet) => fleet.cancel(run).await,
            Self::Processes(fleet) => {
                let fleet = Arc::clone(fleet);
                tokio::task::spawn_blocking(move || fleet.cancel(run)).await.unwrap_or(false)
            }
        }
    }

    /// Looks at all of them. How many were found alive that an earlier process has left.
    pub(super) async fn look(&self) -> Result<usize, AgentsError> {
        match self {
            Self::Jobs(fleet) => Ok(fleet.look().await?),
            Self::Processes(fleet) => {
                let fleet = Arc::clone(fleet);
                tokio::task::spawn_blocking(move || fleet.look()).await.map_err(|_| AgentsError::Broken)?;
                Ok(0)
            }
        }
    }

    /// The runs whose agents have ended, and whose time to be written down has come.
    pub(super) async fn ended(&self) -> Vec<Ended> {
        match self {
            Self::Jobs(fleet) => fleet.ended(),
            Self::Processes(fleet) => {
                let fleet = Arc::clone(fleet);
                tokio::task::spawn_blocking(move || fleet.ended()).await.unwrap_or_default()
            }
        }
    }

    /// Sees to it that an agent of which it is said that it has ended, or never began, does nothing any more.
    pub(super) async fn rule_out(&self, ended: &Ended) -> Result<(), AgentsError> {
        match self {
            Self::Processes(_) => Ok(()),
            Self::Jobs(fleet) => Ok(fleet.rule_out(ended).await?),
        }
    }

    /// Notes where the agent is that the database knows its end, and forgets it. A process is forgotten even where that fails:
    /// after a restart, its end is written down once more. A Job is not, as the next look would find it again.
    pub(super) async fn recorded(&self, run: ObjectId) -> Result<(), AgentsError> {
        match self {
            Self::Jobs(fleet) => {
                fleet.mark_recorded(run).await?;
                fleet.forget(run);
                Ok(())
            }
            Self::Processes(fleet) => {
                let fleet = Arc::clone(fleet);
                let marked = tokio::task::spawn_blocking(move || {
                    let marked = fleet.mark_recorded(run);
                    fleet.forget(run);
                    marked
                });
                Ok(marked.await.map_err(|_| AgentsError::Broken)??)
            }
        }
    }

    /// Whether other replicas look after the same agents.
    pub(super) fn are_shared(&self) -> bool {
        matches!(self, Self::Jobs(_))
    }

    /// Tries a run again later.
    pub(super) fn postpone(&self, run: ObjectId, pause: Duration) {
        let until = Instant::now() + pause;
        match self {
            Self::Processes(fleet) => fleet.postpone(run, until),
            Self::Jobs(fleet) => fleet.postpone(run, until),
        }
    }

    /// Whether a run is here, in whatever phase.
    pub(super) fn has(&self, run: ObjectId) -> bool {
        match self {
            Self::Processes(fleet) => fleet.has(run),
            Self::Jobs(fleet) => fleet.has(run),
        }
    }

    /// The runs whose agents are here, with their projects and phases.
    pub(super) fn all(&self) -> Vec<(ObjectId, String, Phase)> {
        match self {
            Self::Processes(fleet) => fleet.all(),
            Self::Jobs(fleet) => fleet.all(),
        }
    }

    /// Removes the outputs of the oldest runs that are over. The cluster does that by itself.
    pub(super) async fn prune(&self, keep: usize, now: SystemTime) -> Result<(), AgentsError> {
        let Self::Processes(fleet) = self else { return Ok(()) };
        let fleet = Arc::clone(fleet);
        Ok(tokio::task::spawn_blocking(move || fleet.prune(keep, now)).await.map_err(|_| AgentsError::Broken)??)
    }

    /// How the agent of a run has ended whose claim is ours, and of which nothing is here. `None` where that is not known, or
    /// where another process of ours may be about to start it: then only a claim that nobody has renewed says so.
    pub(super) fn ending_of_missing(&self, has_lapsed: bool) -> Option<Ending> {
        match self {
            Self::Processes(_) => {
                let why = "the run service ended before the agent was started".to_owned();
                Some(Ending { exit: Exit::NotStarted(why), stopped: None })
            }
            Self::Jobs(fleet) => (has_lapsed && fleet.has_looked()).then(Ending::unknown),
        }
    }
}
