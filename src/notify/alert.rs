//! An alert that fires, or has ended: what the evaluation hands to the delivery.

use std::collections::BTreeMap;
use std::hash::Hasher as _;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

/// An alert. Its identity is its whole set of labels.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Alert {
    /// With `alertname` and `severity`. No value is empty.
    pub labels: BTreeMap<String, String>,
    /// What people read: `summary`, `description`, `runbook_url`, `dashboard_url`. May change while it fires.
    pub annotations: BTreeMap<String, String>,
    /// Since when it fires.
    pub starts_at: Timestamp,
    /// When it ended; `None` while it fires.
    pub ends_at: Option<Timestamp>,
}

// === impl Alert ===

impl Alert {
    /// The identity as a number, the same in every process.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = Xxh3Default::new();
        for text in self.labels.iter().flat_map(|(name, value)| [name, value]) {
            hasher.write_u64(text.len() as u64);
            hasher.write(text.as_bytes());
        }
        hasher.finish()
    }

    /// The name of its rule.
    #[must_use]
    pub fn name(&self) -> &str {
        self.labels.get("alertname").map_or("", String::as_str)
    }

    /// Whether it goes on.
    #[must_use]
    pub fn is_firing(&self) -> bool {
        self.ends_at.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_is_the_set_of_labels_and_nothing_else() {
        let alert = |labels: &[(&str, &str)], text: &str| Alert {
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            annotations: BTreeMap::from([("description".to_owned(), text.to_owned())]),
            starts_at: Timestamp::UNIX_EPOCH,
            ends_at: None,
        };
        let one = alert(&[("alertname", "A"), ("check", "b")], "x");
        assert_eq!(one.fingerprint(), alert(&[("check", "b"), ("alertname", "A")], "y").fingerprint());
        assert_ne!(one.fingerprint(), alert(&[("alertname", "Ac"), ("heck", "b")], "x").fingerprint());
    }
}
