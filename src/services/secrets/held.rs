//! The secrets of one project, wherever they are kept: what a provider gives, and what of it is shown.

use jiff::Timestamp;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::services::secrets::Standing;
use crate::services::secrets::mask::mask;

/// A secret as its provider holds it.
#[derive(Debug)]
pub(super) struct Held {
    /// Its name within the project.
    pub key: String,
    /// The value, where it can be read.
    pub value: Option<Zeroizing<Vec<u8>>>,
    /// How it is stored.
    pub standing: Standing,
    /// When it was last written, in milliseconds since 1970.
    pub updated: Option<i64>,
}

// === impl Held ===

impl Held {
    /// What a list shows of it.
    pub(super) fn shown(&self) -> Value {
        let masked = self.value.as_ref().map_or_else(|| "***".to_owned(), |value| mask(value));
        let updated = self.updated.and_then(|millis| Timestamp::from_millisecond(millis).ok());
        let mut shown = json!({ "key": self.key, "masked": masked, "updated_at": updated.unwrap_or_default().to_string() });
        if let (Some(warning), Some(shown)) = (warning(self.standing), shown.as_object_mut()) {
            shown.insert("warning".to_owned(), warning.into());
        }
        shown
    }
}

/// What whoever looks at the list should know.
fn warning(standing: Standing) -> Option<&'static str> {
    match standing {
        Standing::Current | Standing::Previous => None,
        Standing::Plaintext => Some("stored without encryption"),
        Standing::Unmarked => Some("encrypted and marked as plaintext: the application takes the ciphertext for the secret"),
        Standing::NoKeyFits => Some("cannot be decrypted: it was encrypted with another key, or changed afterwards; set it again"),
        Standing::Malformed => Some("not in the stored form; set it again"),
        Standing::Unknown => Some("encrypted, and no key is known here"),
    }
}
