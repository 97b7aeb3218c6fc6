//! The integration tests: one binary, real sockets, real servers.

mod command_line;
mod observability;
mod sidecar;
mod tidy;
