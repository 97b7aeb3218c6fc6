//! `bellwether agent-shim`: the process between the run service and an agent. Started by the service, never by people.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::{Failure, SOFTWARE};
use crate::services::runs::shim;

#[derive(Debug, Args)]
pub(super) struct ShimArgs {
    /// The folder of the run.
    folder: PathBuf,
}

pub(super) fn agent_shim(arguments: &ShimArgs) -> Result<ExitCode, Failure> {
    shim::run(&arguments.folder).map(|()| ExitCode::SUCCESS).map_err(|error| Failure::new(SOFTWARE, error))
}
