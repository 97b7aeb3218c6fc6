//! Alerts without a Prometheus: the shipped rules are evaluated over our own series, and who is to know is told.
//!
//! Owns what fires and who has been told. Knows nothing of how a series came about.

pub mod alert;
mod backoff;
mod beat;
pub mod courier;
mod desk;
pub mod dispatch;
pub mod evaluate;
pub mod evaluator;
pub mod exposition;
mod fatal;
mod http;
pub mod inhibit;
mod mail;
pub mod message;
mod metrics;
pub mod outcome;
pub mod payload;
mod peer;
pub mod resend;
pub mod samples;
mod store;
pub mod text;
pub mod watch;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::notify::alert::Alert;

/// What fires and what has ended within 15 minutes; each one that is published is an evaluation that went well.
pub type Alerts = tokio::sync::watch::Receiver<Arc<Vec<Alert>>>;

/// Waits until a moment of the clock that never jumps; for ever where there is none.
async fn until(due: Option<i64>) {
    let Some(due) = due else { return std::future::pending().await };
    let left = due.saturating_sub(Moment::read().uptime);
    // A moment more, so that the clock is there when the timer is.
    tokio::time::sleep(u64::try_from(left).map_or(Duration::ZERO, |left| Duration::from_millis(left.saturating_add(1)))).await;
}
