//! A message in the form that Alertmanager sends to webhooks (version 4), and its signature.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use crate::notify::alert::Alert;
use crate::notify::message::Message;

/// The header with the signature.
pub const SIGNATURE: &str = "x-bellwether-signature";
/// How Go writes a time that is none.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// The body.
#[must_use]
pub fn body(receiver: &str, message: &Message) -> Value {
    let status = |is_firing: bool| if is_firing { "firing" } else { "resolved" };
    let alerts: Vec<Value> = message
        .all()
        .map(|alert| {
            json!({
                "status": status(alert.is_firing()),
                "labels": alert.labels,
                "annotations": alert.annotations,
                "startsAt": alert.starts_at.to_string(),
                "endsAt": alert.ends_at.map_or_else(|| NO_TIME.to_owned(), |end| end.to_string()),
                "generatorURL": "",
                "fingerprint": format!("{:016x}", alert.fingerprint()),
            })
        })
        .collect();
    let key: Vec<String> = message.group.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    json!({
        "version": "4",
        "groupKey": format!("{{}}:{{{}}}", key.join(", ")),
        "truncatedAlerts": 0,
        "status": status(message.firing() > 0),
        "receiver": receiver,
        "groupLabels": message.group,
        "commonLabels": common(message, |alert| &alert.labels),
        "commonAnnotations": common(message, |alert| &alert.annotations),
        "externalURL": "",
        "alerts": alerts,
    })
}

/// The value of the header, for the bytes that are sent: `sha256=` and HMAC-SHA256 in hexadecimal.
#[must_use]
pub fn signature(key: &str, body: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), body);
    tag.as_ref().iter().fold("sha256=".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn common(message: &Message, of: impl Fn(&Alert) -> &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut alerts = message.all();
    let mut common = alerts.next().map(|first| of(first).clone()).unwrap_or_default();
    for alert in alerts {
        common.retain(|name, value| of(alert).get(name) == Some(value));
    }
    common
}
