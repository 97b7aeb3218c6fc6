//! `bellwether run`: the sidecar itself, by itself or in front of a command.

use std::process::ExitCode;

use crate::app::{self, AppError, Ended, Front};
use crate::cli::{CONFIG, Failure, Global, RunArgs, SOFTWARE, UNAVAILABLE};
use crate::config::Request;
use crate::config::environment::Environment;
use crate::config::logs::{ChildStream, InputKind, LogInput, Start};
use crate::config::origin::Origin;
use crate::logs::LogsError;
use crate::runtime::stderr::SharedStderr;

pub(super) fn run(global: &Global, arguments: &RunArgs, environment: &Environment, stderr: SharedStderr) -> Result<ExitCode, Failure> {
    let request = Request { listen: arguments.listen, ..Request::default() };
    let mut config = global.load_with(&request, environment)?;
    let inputs = &mut config.logs.inputs;
    let has_stdin = inputs.iter().any(|input| matches!(input.kind, InputKind::Stdin));
    if arguments.stdin && !has_stdin {
        inputs.push(LogInput { name: "stdin".to_owned(), kind: InputKind::Stdin, start: Start::Beginning });
    }
    let front = (!arguments.command.is_empty()).then(|| Front { command: arguments.command.clone(), linger: arguments.linger, stderr });
    if front.is_some() {
        if has_stdin {
            let message = "the standard input belongs to the command; take the input with `stdin: true` out of the configuration";
            return Err(Failure::new(CONFIG, message));
        }
        for stream in [ChildStream::Stdout, ChildStream::Stderr] {
            inputs.push(LogInput { name: stream.name().to_owned(), kind: InputKind::Child(stream), start: Start::Beginning });
        }
    }
    let origin =
        Origin { profile: global.profile.clone(), file: global.config.clone(), listen: arguments.listen, environment: environment.clone() };
    match app::run(config, origin, front) {
        Ok(Ended::Gracefully) => Ok(ExitCode::SUCCESS),
        Ok(Ended::Aborted(ending)) => Ok(ExitCode::from(ending.exit_code())),
        Ok(Ended::Command(code)) => Ok(ExitCode::from(code)),
        Err(AppError::Command(error)) => Err(Failure::new(error.exit_code(), error)),
        Err(error @ (AppError::Listen { .. } | AppError::State(_) | AppError::Logs(LogsError::Listen { .. }))) => {
            Err(Failure::new(UNAVAILABLE, error))
        }
        Err(AppError::Services(error)) => Err(Failure::new(CONFIG, error)),
        Err(error) => Err(Failure::new(SOFTWARE, error)),
    }
}
