//! `bellwether logs`: what a log would count for.

use std::fs::File;
use std::io::{IsTerminal as _, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use prometheus_client::registry::Registry;

use crate::cli::{Failure, Global, IO, SOFTWARE};
use crate::config::Request;
use crate::config::environment::Environment;
use crate::logs::replay;
use crate::metrics::exposition::Format;
use crate::series::families::SharedFamilies;

#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Reads whole files and writes what they count for to the standard output, as Prometheus text. The rules of the
    /// profile and the configuration apply, and the logs tell every fact: there is no database beside them.
    Replay {
        /// The files; `-` is the standard input. The label `input` is the file's name.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

pub(super) fn logs(global: &Global, arguments: &LogsArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let What::Replay { files } = &arguments.what;
    let config = global.load_with(&Request { logs_only: true, ..Request::default() }, environment)?;
    let families = SharedFamilies::default();
    for path in files {
        let name = path.file_name().map_or_else(|| "-".to_owned(), |name| name.to_string_lossy().into_owned());
        let (reader, bar) = open(path)?;
        replay(&config.logs, bar.wrap_read(reader), &name, &families).map_err(|error| Failure::new(IO, error))?;
        bar.finish_and_clear();
    }
    let mut registry = Registry::default();
    registry.register_collector(Box::new(families));
    print!("{}", Format::Text.write(&registry).map_err(|error| Failure::new(SOFTWARE, error))?);
    Ok(ExitCode::SUCCESS)
}

/// The bytes of a file, and a progress bar where somebody watches.
fn open(path: &Path) -> Result<(Box<dyn Read>, ProgressBar), Failure> {
    if path == Path::new("-") {
        return Ok((Box::new(std::io::stdin()), ProgressBar::hidden()));
    }
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (length, file) = opened.map_err(|error| Failure::new(IO, format!("cannot read {}: {error}", path.display())))?;
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(length) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}");
    Ok((Box::new(file), bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))))
}
