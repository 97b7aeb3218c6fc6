//! The run service: the application's runs, each with an agent that is a process of this machine or a Job of a cluster.
//!
//! `run` (pure) says what may follow what and what a run has come to; `agents` holds the agents, which are `fleet`'s processes
//! or those of `jobs`, and knows no database; `folder` is what the disk knows of a run; `shim` is the process between us and an
//! agent, so that agents outlive us and their ends are known all the same; `start` begins runs, `keeper` brings them to their
//! end, `service` is the API.
//!
//! One run a project, among any number of processes: `store::run_claims`.

mod agents;
mod documents;
mod fleet;
mod folder;
mod jobs;
mod keeper;
mod last_error;
mod metrics;
mod process;
mod roster;
pub mod run;
mod service;
mod shape;
pub mod shim;
mod start;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::config::services::RunsService;
use crate::config::stores::MongoStore;
use crate::metrics::Registry;
use crate::services::projects::Projects;
use crate::services::runs::agents::Agents;
use crate::services::runs::documents::RunDocuments;
use crate::services::runs::folder::write_whole;
use crate::services::runs::keeper::CLAIM;
use crate::services::runs::metrics::RunsMetrics;
use crate::store::mongodb::{Mongo, Purpose};
use crate::store::run_claims::RunClaims;

/// The run service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RunsError {
    /// There is nowhere to write runs down.
    #[error("the run service needs `stores.mongodb`, which is not there")]
    NoStore,
    /// Agents could not be found again after a restart.
    #[error("the run service needs a state folder that can be written to: set `state_dir`, or BELLWETHER_STATE_DIR")]
    NoStateDir,
    /// The folder of runs cannot be used.
    #[error("cannot use {path} for the runs of agents; make it writable, or set another state_dir")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
}

/// All that runs are begun, kept and shown with.
#[derive(Debug)]
pub struct Runs {
    settings: Arc<RunsService>,
    projects: Projects,
    documents: RunDocuments,
    claims: RunClaims,
    agents: Agents,
    metrics: RunsMetrics,
    /// Rings when there is something to look at.
    bell: Notify,
    /// Where runs are begun: whoever asks may have a runtime that is made for answers alone.
    workers: Handle,
}

// === impl Runs ===

impl Runs {
    /// Finds the agents of an earlier process again. `shim` is the program that has the subcommand `agent-shim`: ourselves.
    /// Blocks for a moment. Must be called within the tokio runtime that is to begin runs.
    ///
    /// # Errors
    /// Without a database or a state folder.
    pub fn open(
        settings: &RunsService,
        store: Option<&MongoStore>,
        state_dir: Option<&Path>,
        shim: &Path,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, RunsError> {
        let mongo = Arc::new(Mongo::new(store.ok_or(RunsError::NoStore)?, Purpose::Runs));
        let (holder, runs) = match &settings.jobs {
            // The same after a restart on any node, and that of all replicas.
            Some(jobs) => (format!("kubernetes/{}", jobs.name), None),
            None => {
                let path = runs_folder(state_dir.ok_or(RunsError::NoStateDir)?);
                let failed = |cause| RunsError::Folder { path: path.clone(), cause };
                std::fs::create_dir_all(&path).map_err(failed)?;
                (holder(&path).map_err(failed)?, Some(path))
            }
        };
        let (agents, live) = Agents::open(settings, runs.as_deref(), shim)
            .map_err(|cause| RunsError::Folder { path: runs.clone().unwrap_or_default(), cause })?;
        let metrics = RunsMetrics::default();
        metrics.register(registry);
        metrics.reattached(live);
        Ok(Arc::new(Self {
            settings: Arc::new(settings.clone()),
            projects: Projects::new(Arc::clone(&mongo)),
            documents: RunDocuments::new(Arc::clone(&mongo)),
            claims: RunClaims::new(mongo, holder, CLAIM),
            agents,
            metrics,
            bell: Notify::new(),
            workers: Handle::current(),
        }))
    }
}

/// Where the folders of runs are.
#[must_use]
pub fn runs_folder(state_dir: &Path) -> PathBuf {
    state_dir.join("runs")
}

/// The files that agents write to, as a glob for the log engine.
#[must_use]
pub fn outputs(state_dir: &Path) -> String {
    format!("{}/*/output.log", globset::escape(&runs_folder(state_dir).to_string_lossy()))
}

/// The name of this installation of the service: the same after a restart, and no other's.
fn holder(folder: &Path) -> io::Result<String> {
    let path = folder.join("holder");
    if let Ok(holder) = std::fs::read_to_string(&path)
        && !holder.is_empty()
    {
        return Ok(holder);
    }
    let holder = mongodb::bson::Uuid::new().to_string();
    write_whole(&path, holder.as_bytes())?;
    Ok(holder)
}
