//! Metrics whose names and labels come from configuration: their values, their caps, their rules and their survival.
//!
//! Serves every domain that turns records (log lines, documents) into metrics. Knows nothing of where records come from.

pub mod families;
pub mod record;
pub mod rules;
pub mod snapshot;
pub mod texts;
