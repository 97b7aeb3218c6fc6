//! `secrets`: where the application keeps the keys of its providers, and the keys that they are encrypted with.
//!
//! Owns the form of an encryption key. What is done with one is `services::secrets`'s.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::config::problems::{Problem, Problems};
use crate::config::spanned::Spanned;

/// The bytes of an AES-256 key.
pub const KEY_BYTES: usize = 32;

/// The section as it is written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Secrets")]
pub(super) struct RawSecrets {
    /// The collection that the application keeps its secrets in.
    collection: Option<String>,
    /// The key that secrets are encrypted with: 32 bytes in base64. Empty is none.
    key: Option<Spanned<String>>,
    /// Keys that secrets may still be encrypted with. They are tried for reading alone.
    #[serde(default)]
    previous_keys: Vec<Spanned<String>>,
    /// Other fields where a key may stand in plaintext. They are counted and never read.
    #[serde(default)]
    plaintext_in: Vec<PlaintextField>,
}

/// A field that may hold a key in plaintext.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct PlaintextField {
    /// The collection.
    pub collection: String,
    /// The field's path, with dots.
    pub field: String,
}

/// Where secrets are, and what opens them.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// The collection.
    pub collection: String,
    /// The key that is encrypted with.
    pub key: Option<EncryptionKey>,
    /// Keys that are tried for reading.
    pub previous_keys: Vec<EncryptionKey>,
    /// Other fields that may hold a key in plaintext.
    pub plaintext_in: Vec<PlaintextField>,
}

/// A key of 32 bytes: never printed, cleared when it is dropped.
#[derive(Clone, Eq, PartialEq)]
pub struct EncryptionKey(Zeroizing<[u8; KEY_BYTES]>);

/// Why a text is no key. Says nothing of the text.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyError {
    /// It is not base64 of the standard alphabet with its padding.
    #[error(
        "an encryption key is 32 bytes in standard base64 with its padding, and this is no base64; make one with `openssl rand -base64 32`"
    )]
    Base64,
    /// It is base64 of another length.
    #[error("an encryption key is 32 bytes in base64, and this is {0}; make one with `openssl rand -base64 32`")]
    Length(usize),
}

// === impl RawSecrets ===

impl RawSecrets {
    pub(super) fn validate(self, problems: &mut Problems) -> Secrets {
        let key = self.key.and_then(|key| read_key(&key, "secrets.key", problems));
        let previous_keys: Vec<EncryptionKey> =
            self.previous_keys.iter().filter_map(|key| read_key(key, "secrets.previous_keys", problems)).collect();
        Secrets { collection: self.collection.unwrap_or_else(|| "secrets".to_owned()), key, previous_keys, plaintext_in: self.plaintext_in }
    }
}

fn read_key(text: &Spanned<String>, path: &str, problems: &mut Problems) -> Option<EncryptionKey> {
    if text.value.trim().is_empty() {
        return None;
    }
    EncryptionKey::parse(&text.value)
        .map_err(|error| problems.error(Problem { place: text.place.clone(), path: path.to_owned(), message: error.to_string() }))
        .ok()
}

// === impl EncryptionKey ===

impl EncryptionKey {
    /// Reads a key: standard base64 of exactly 32 bytes, as DecisionBox takes it.
    ///
    /// # Errors
    /// When the text is no base64, or of another length.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| KeyError::Base64)?);
        let key = bytes.as_slice().try_into().map_err(|_| KeyError::Length(bytes.len()))?;
        Ok(Self(Zeroizing::new(key)))
    }

    /// The bytes, for the cipher.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_bytes_of_standard_base64() {
        let key = EncryptionKey::parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").expect("a key");
        assert_eq!(key.expose()[31], 31);
        assert_eq!(format!("{key:?}"), "[redacted]");
        assert_eq!(EncryptionKey::parse("AAEC"), Err(KeyError::Length(3)));
        for text in ["AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", "not base64!", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd-_8="] {
            assert_eq!(EncryptionKey::parse(text), Err(KeyError::Base64), "{text}");
        }
    }
}
