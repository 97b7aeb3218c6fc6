//! The core services that the sidecar stands in for or looks after: secrets, and the runs of agents.
//!
//! Each service is an `axum::Router` of the application's own paths. Who may ask, how often and how much is the front
//! door's; it hands on what it lets in, with the name of the caller in the request's extensions.

mod answer;
mod projects;
pub mod runs;
pub mod secrets;
