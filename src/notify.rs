//! Alerts without a Prometheus: the shipped rules are evaluated over our own series, and who is to know is told.
//!
//! Owns what fires and who has been told. Knows nothing of how a series came about.

pub mod alert;
pub mod evaluate;
pub mod evaluator;
pub mod exposition;
pub mod samples;
pub mod watch;
