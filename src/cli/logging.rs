//! The sidecar's own log: one line an event on standard error, JSON where nobody watches.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::{Failure, USAGE};
use crate::runtime::stderr::SharedStderr;

/// How the log is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Format {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Starts the log, and lets panics be part of it.
pub(super) fn start(format: Format, directives: &str, stderr: &SharedStderr) -> Result<(), Failure> {
    let filter = EnvFilter::builder()
        .parse(directives)
        .map_err(|error| Failure::new(USAGE, format!("`{directives}` is no level: {error}; write error, warn, info, debug or trace")))?;
    let terminal = std::io::stderr().is_terminal();
    let json = format == Format::Json || (format == Format::Auto && !terminal);
    let registry = tracing_subscriber::registry().with(filter);
    let stderr = stderr.clone();
    // A standard error that nobody reads must not end the process by the complaint about it.
    let layer = tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(move || stderr.clone());
    if json {
        registry.with(layer.json().flatten_event(true)).init();
    } else {
        registry.with(layer.with_ansi(terminal).with_target(false)).init();
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic: {}", panic.payload_as_str().unwrap_or("no message"));
    }));
    Ok(())
}
