//! The command line: one file a subcommand. Errors are printed here, once, with their causes.
//!
//! Exit codes follow sysexits.h: 64 usage, 69 something that is needed is not there, 70 a failure within, 74 a file
//! cannot be read, 78 configuration.

mod agent_shim;
mod backup;
mod check;
mod export;
mod lint;
mod logging;
mod logs;
mod probe;
mod retention;
mod run;
mod secrets;

use std::error::Error;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::config::environment::Environment;
use crate::config::problems::ConfigError;
use crate::config::{self, Config, Request};
use crate::profiles::Profile;
use crate::runtime::stderr::SharedStderr;
use crate::units::parse_duration;

/// Usage (EX_USAGE).
const USAGE: u8 = 64;
/// What was given cannot be read as what it should be (EX_DATAERR).
const DATA: u8 = 65;
/// A file cannot be read (EX_NOINPUT).
const NO_INPUT: u8 = 66;
/// Something that is needed is not there (EX_UNAVAILABLE).
const UNAVAILABLE: u8 = 69;
/// A failure within (EX_SOFTWARE).
const SOFTWARE: u8 = 70;
/// A file cannot be read (EX_IOERR).
const IO: u8 = 74;
/// Configuration (EX_CONFIG).
const CONFIG: u8 = 78;

/// An observability sidecar: health with its root cause, logs and stores as metrics, retention that can be trusted.
#[derive(Debug, Parser)]
#[command(name = "bellwether", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

#[derive(Debug, Args)]
struct Global {
    /// What is known about the application: `bellwether export profile NAME` shows it.
    #[arg(long, global = true, value_parser = profile_names(), env = "BELLWETHER_PROFILE")]
    profile: Option<String>,
    /// A YAML file that overrides the profile key by key.
    #[arg(long, global = true, value_name = "FILE", env = "BELLWETHER_CONFIG")]
    config: Option<PathBuf>,
    /// How the sidecar's own log is written; `auto` is text on a terminal and JSON elsewhere.
    #[arg(long, global = true, default_value = "auto", env = "BELLWETHER_LOG_FORMAT")]
    log_format: logging::Format,
    /// What is logged: a level, or directives such as `info,bellwether::health=debug`.
    /// `info` unless set; `warn` with a command, whose standard error is passed on beside it.
    #[arg(long, global = true, value_name = "LEVEL", env = "BELLWETHER_LOG")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the sidecar until SIGTERM or Ctrl-C.
    Run(RunArgs),
    /// Checks the configuration, or the probes of Kubernetes manifests, and shows every problem with its place.
    Check(check::CheckArgs),
    /// Looks at every component once and shows what was found.
    Probe(probe::ProbeArgs),
    /// Works with logs.
    Logs(logs::LogsArgs),
    /// Shows what retention policies would do, and does it.
    Retention(retention::RetentionArgs),
    /// Looks after the keys that the application keeps in its database.
    Secrets(secrets::SecretsArgs),
    /// Looks at backups.
    Backup(backup::BackupArgs),
    /// Writes what belongs to this version: the schema of configuration files, a profile.
    Export(export::ExportArgs),
    /// Looks after an agent of the run service, which starts it.
    #[command(hide = true)]
    AgentShim(agent_shim::ShimArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Where probes, metrics and health are served; overrides `listen`.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Reads logs from the standard input too, as the input `stdin`.
    #[arg(long, conflicts_with = "command")]
    stdin: bool,
    /// How long the metrics can still be read after the command has ended, such as 30s: two scrapes.
    #[arg(long, requires = "command", default_value = "0s", value_name = "DURATION", value_parser = duration)]
    linger: Duration,
    /// Runs in front of a command, whose standard output and standard error are read as the inputs `stdout` and `stderr`
    /// and passed on; ends with it, and with its exit code.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// A failure of a subcommand, with the code that the process ends with.
#[derive(Debug)]
struct Failure {
    code: u8,
    error: Box<dyn Error + Send + Sync>,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done about an output that is closed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let environment = Environment::of_process();
    let global = &cli.global;
    let stderr = SharedStderr::default();
    let is_front = matches!(&cli.command, Command::Run(arguments) if !arguments.command.is_empty());
    let directives = global.log.as_deref().unwrap_or(if is_front { "warn" } else { "info" });
    let done = logging::start(global.log_format, directives, &stderr).and_then(|()| match &cli.command {
        Command::Run(arguments) => run::run(global, arguments, &environment, stderr.clone()),
        Command::Check(arguments) => check::check(global, arguments, &environment),
        Command::Probe(arguments) => probe::probe(global, arguments, &environment),
        Command::Logs(arguments) => logs::logs(global, arguments, &environment),
        Command::Retention(arguments) => retention::retention(global, arguments, &environment),
        Command::Secrets(arguments) => secrets::secrets(global, arguments, &environment),
        Command::Backup(arguments) => backup::backup(global, arguments, &environment),
        Command::Export(arguments) => export::export(global, arguments),
        Command::AgentShim(arguments) => agent_shim::agent_shim(arguments),
    });
    match done {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("bellwether: {}", chain(failure.error.as_ref()));
            ExitCode::from(failure.code)
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

fn profile_names() -> clap::builder::PossibleValuesParser {
    Profile::all().map(Profile::name).collect::<Vec<_>>().into()
}

/// An error with its causes, each once.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

// === impl Global ===

impl Global {
    fn load(&self, environment: &Environment) -> Result<Config, Failure> {
        self.load_with(&Request::default(), environment)
    }

    /// Loads the configuration and prints its warnings.
    fn load_with(&self, request: &Request<'_>, environment: &Environment) -> Result<Config, Failure> {
        let request = Request { profile: self.profile.as_deref(), file: self.config.as_deref(), ..request.clone() };
        let config = config::load(&request, environment)?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        Ok(config)
    }
}

// === impl Failure ===

impl Failure {
    fn new(code: u8, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { code, error: error.into() }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(CONFIG, error)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
