//! The integration tests: one binary, real sockets, real servers.

mod command_line;
mod health;
mod sidecar;
mod tidy;
