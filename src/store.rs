//! The databases of the application, with the limits that a sidecar needs.

pub mod cluster;
pub mod fault;
pub mod http;
pub mod lease;
pub mod mongodb;
pub mod names;
pub mod postgres;
pub mod redis;
pub mod run_claims;
pub mod tls;
