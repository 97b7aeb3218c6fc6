//! `bellwether run`: the sidecar itself.

use std::process::ExitCode;

use crate::app::{self, AppError, Ended};
use crate::cli::{Failure, Global, RunArgs, SOFTWARE, UNAVAILABLE};
use crate::config::Request;
use crate::config::environment::Environment;
use crate::config::logs::{InputKind, LogInput, Start};
use crate::config::origin::Origin;

pub(super) fn run(global: &Global, arguments: &RunArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let request = Request { listen: arguments.listen, ..Request::default() };
    let mut config = global.load_with(&request, environment)?;
    if arguments.stdin && !config.logs.inputs.iter().any(|input| matches!(input.kind, InputKind::Stdin)) {
        config.logs.inputs.push(LogInput { name: "stdin".to_owned(), kind: InputKind::Stdin, start: Start::Beginning });
    }
    let origin =
        Origin { profile: global.profile.clone(), file: global.config.clone(), listen: arguments.listen, environment: environment.clone() };
    match app::run(config, origin) {
        Ok(Ended::Gracefully) => Ok(ExitCode::SUCCESS),
        Ok(Ended::Aborted(ending)) => Ok(ExitCode::from(ending.exit_code())),
        Err(error @ (AppError::Listen { .. } | AppError::State(_))) => Err(Failure::new(UNAVAILABLE, error)),
        Err(error) => Err(Failure::new(SOFTWARE, error)),
    }
}
