//! `bellwether logs replay`: whole files into an exposition.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::logs::source::{name, open};
use crate::cli::{Failure, IO, SOFTWARE};
use crate::config::Config;
use crate::logs::Replay;
use crate::metrics::Registry;
use crate::metrics::exposition::Format;
use crate::series::families::SharedFamilies;

pub(super) fn replay_files(config: &Config, files: &[PathBuf]) -> Result<ExitCode, Failure> {
    let families = SharedFamilies::default();
    let mut replay = Replay::new(&config.logs, &families).map_err(|error| Failure::new(SOFTWARE, error))?;
    for path in files {
        let (reader, bar) = open(path)?;
        replay.stream(reader, &name(path)).map_err(|error| Failure::new(IO, error))?;
        bar.finish_and_clear();
    }
    let mut registry = Registry::default();
    registry.expose(families);
    print!("{}", Format::Text.write(&registry).map_err(|error| Failure::new(SOFTWARE, error))?);
    Ok(ExitCode::SUCCESS)
}
