//! Alerts as the API of Alertmanager takes them (v2): an array, each with both times.

use serde_json::{Value, json};

use crate::notify::alert::Alert;

/// The body.
#[must_use]
pub fn body(alerts: &[Alert]) -> Value {
    let one = |alert: &Alert| {
        json!({
            "labels": alert.labels,
            "annotations": alert.annotations,
            "startsAt": alert.starts_at.to_string(),
            "endsAt": alert.ends_at.map(|end| end.to_string()),
        })
    };
    alerts.iter().map(one).collect()
}
