//! The services that the sidecar is itself, where the front door says so.

use std::path::Path;
use std::sync::Arc;

use crate::config::Config;
use crate::config::front::Provider;
use crate::config::logs::{FileGlob, InputKind, LogInput, Start};
use crate::front::Embedded;
use crate::metrics::Registry;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::supervise::Supervisor;
use crate::runtime::undumpable::forbid_dumps;
use crate::services::runs::{self, Runs, RunsError};
use crate::services::secrets::service::{self as secrets, SecretsServiceError};

/// The name of the log input of agents.
const INPUT: &str = "runs";
/// Ourselves, as the kernel knows us: also when the file has been replaced by another version meanwhile.
const OURSELVES: &str = "/proc/self/exe";

/// A service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// The one of secrets.
    #[error(transparent)]
    Secrets(#[from] SecretsServiceError),
    /// The one of runs.
    #[error(transparent)]
    Runs(#[from] RunsError),
}

/// Starts the services that the front door wants, and lets the log engine read what agents write.
pub(super) fn start(
    config: &mut Config,
    state_dir: Option<&Path>,
    registry: &mut Registry,
    shutdown: &Shutdown,
    supervisor: &mut Supervisor,
) -> Result<Embedded, ServicesError> {
    let Some(front) = &config.front else { return Ok(Embedded::default()) };
    let (has_runs, has_secrets) = (front.runs == Provider::Embedded, front.secrets == Provider::Embedded);
    if (has_runs || has_secrets)
        && let Err(error) = forbid_dumps()
    {
        tracing::warn!(%error, "a crash may leave a core file with secrets in it: the system does not let us forbid it");
    }
    let (settings, store) = (&config.services, config.stores.mongodb.as_ref());
    let mut embedded = Embedded::default();
    if has_secrets {
        embedded.secrets = Some(secrets::router(&settings.secrets, &config.secrets, store, state_dir, registry)?);
    }
    if has_runs {
        let runs = Runs::open(&settings.runs, store, state_dir, Path::new(OURSELVES), registry)?;
        supervisor.spawn("runs", Arc::clone(&runs).keep(shutdown.token()));
        embedded.runs = Some(runs.router());
        // Those of Jobs are where those of all pods are.
        if config.services.runs.jobs.is_none() {
            read_outputs(config, state_dir);
        }
    }
    Ok(embedded)
}

/// Adds the outputs of agents to the inputs of the log engine. An input of this name in the configuration is the
/// operator's own idea of it.
fn read_outputs(config: &mut Config, state_dir: Option<&Path>) {
    let inputs = &mut config.logs.inputs;
    let Some(state_dir) = state_dir.filter(|_| inputs.iter().all(|input| input.name != INPUT)) else { return };
    match FileGlob::parse(&runs::outputs(state_dir)) {
        Ok(glob) => inputs.push(LogInput { name: INPUT.to_owned(), kind: InputKind::Files(vec![glob]), start: Start::Beginning }),
        Err(error) => tracing::warn!(error, "what agents write cannot be read as logs"),
    }
}
