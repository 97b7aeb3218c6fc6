//! What only the database knows, as metrics: values as they are now, and documents that are new.
//!
//! Owns the questions, the place up to which each collection has been read, and the task that asks. Never writes to
//! the database, and never asks for a field that no rule names. Knows nothing of health, logs or retention.

mod collector;
mod filter;
mod gauge;
mod metrics;
mod record;
mod schedule;
mod state;
mod tail;
mod watermark;

pub use collector::{CollectError, Collectors};
