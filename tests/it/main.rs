//! The integration tests: one binary, real sockets, real servers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(missing_docs, reason = "nobody imports tests")]

mod command_line;
mod observability;
mod sidecar;
mod tidy;
