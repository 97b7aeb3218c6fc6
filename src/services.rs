//! The core services that the sidecar stands in for or looks after.

pub mod secrets;
