//! The truth about every component: checks that are asked on a beat, verdicts with hysteresis, and the root cause.
//!
//! Readers see a [`Board`] and never wait for a component. Knows nothing of HTTP handlers.

pub mod aggregate;
pub mod board;
pub mod history;
pub mod maintenance;
pub mod metrics;
pub mod outcome;
mod probe;
pub mod schedule;
pub mod state;
