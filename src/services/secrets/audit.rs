//! How the secrets stand: which are encrypted with the key that counts, which with an old one, which not at all.
//!
//! Reads and changes nothing.

use serde::Serialize;
use zeroize::Zeroizing;

use crate::config::secrets::PlaintextField;
use crate::services::secrets::cipher::{Keyring, Opened};
use crate::services::secrets::vault::{Name, Stored};
use crate::services::secrets::{SecretsError, Vault};

/// How many secrets are read at once. They are small; a page of the largest that MongoDB takes would be 8 GB, of real
/// ones it is half a megabyte.
pub(super) const PAGE: usize = 500;

/// How many secrets of each standing are named.
const NAMED: usize = 20;

/// How a secret stands.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Encrypted, and the current key opens it.
    Current,
    /// Encrypted, and a previous key opens it: rotate.
    Previous,
    /// Not encrypted: encrypt.
    Plaintext,
    /// Encrypted, and marked as plaintext: the application takes the ciphertext for the secret. Encrypting marks it.
    Unmarked,
    /// Marked as encrypted, and no key that is known opens it.
    NoKeyFits,
    /// Marked as encrypted and not in the stored form, or without any text.
    Malformed,
    /// Encrypted, and there is no key to try.
    Unknown,
}

/// How many secrets stand how.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Audit {
    /// All secrets.
    pub total: u64,
    /// By their standing; those that there are none of are left out.
    pub standings: Vec<Counted>,
    /// Fields elsewhere that hold a text where no key should be.
    pub elsewhere: Vec<Elsewhere>,
}

/// The secrets of one standing.
#[derive(Clone, Debug, Serialize)]
pub struct Counted {
    /// How they stand.
    pub standing: Standing,
    /// How many there are.
    pub count: u64,
    /// The first of them by name, escaped; none of those that are as they should be.
    pub names: Vec<String>,
}

/// Keys in plaintext outside the collection of secrets.
#[derive(Clone, Debug, Serialize)]
pub struct Elsewhere {
    /// The collection.
    pub collection: String,
    /// The field.
    pub field: String,
    /// How many documents have a text there.
    pub count: u64,
}

/// Looks at every secret. `progress` is told how many have been looked at, of how many.
///
/// # Errors
/// When the database does not answer, or not in time.
pub async fn audit(
    vault: &Vault,
    keyring: &Keyring,
    elsewhere: &[PlaintextField],
    mut progress: impl FnMut(u64, u64),
) -> Result<Audit, SecretsError> {
    let ids = vault.ids().await?;
    let mut audit = Audit::default();
    for page in ids.chunks(PAGE) {
        for secret in vault.read(page).await? {
            audit.add(secret.opened(keyring).0, &secret.name);
        }
        progress(audit.total, ids.len() as u64);
    }
    for field in elsewhere {
        let count = vault.count_plaintext(field).await?;
        audit.elsewhere.push(Elsewhere { collection: field.collection.clone(), field: field.field.clone(), count });
    }
    audit.standings.sort_by_key(|counted| counted.standing);
    Ok(audit)
}

// === impl Audit ===

impl Audit {
    /// How many secrets stand so.
    #[must_use]
    pub fn count(&self, standing: Standing) -> u64 {
        self.standings.iter().find(|counted| counted.standing == standing).map_or(0, |counted| counted.count)
    }

    /// Every secret is encrypted with the current key, and none lies elsewhere.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.standings.iter().all(|counted| counted.standing == Standing::Current) && self.elsewhere.iter().all(|field| field.count == 0)
    }

    pub(super) fn add(&mut self, standing: Standing, name: &Name) {
        self.total += 1;
        let position = self.standings.iter().position(|counted| counted.standing == standing).unwrap_or_else(|| {
            self.standings.push(Counted { standing, count: 0, names: Vec::new() });
            self.standings.len() - 1
        });
        let counted = &mut self.standings[position];
        counted.count += 1;
        if standing != Standing::Current && counted.names.len() < NAMED {
            counted.names.push(name.to_string());
        }
    }
}

// === impl Standing ===

impl Standing {
    /// Its word, as in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Previous => "previous",
            Self::Plaintext => "plaintext",
            Self::Unmarked => "unmarked",
            Self::NoKeyFits => "no_key_fits",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
        }
    }

    /// What it means and what to do about it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Current => "encrypted with the current key",
            Self::Previous => "encrypted with a previous key: `bellwether secrets rotate`",
            Self::Plaintext => "not encrypted: `bellwether secrets encrypt`",
            Self::Unmarked => {
                "encrypted and marked as plaintext, so that the application takes the ciphertext for the secret: `bellwether secrets encrypt` marks it"
            }
            Self::NoKeyFits => {
                "encrypted with a key that is not known here, or changed: give that key as SECRET_PREVIOUS_ENCRYPTION_KEY, or set the secret again"
            }
            Self::Malformed => "marked as encrypted and not a ciphertext: set the secret again",
            Self::Unknown => "encrypted; with which key is not known, as none was given",
        }
    }
}

// === impl Stored ===

impl Stored {
    /// How it stands, and its plaintext where a key opens it or where it has never been encrypted.
    pub(super) fn opened(&self, keyring: &Keyring) -> (Standing, Option<Zeroizing<Vec<u8>>>) {
        let Some(value) = &self.value else { return (Standing::Malformed, None) };
        match (self.encrypted, keyring.open(value)) {
            (true, Opened::Current(plaintext)) => (Standing::Current, Some(plaintext)),
            (true, Opened::Previous(plaintext)) => (Standing::Previous, Some(plaintext)),
            (true, Opened::NoKeyFits) if !keyring.can_open() => (Standing::Unknown, None),
            (true, Opened::NoKeyFits) => (Standing::NoKeyFits, None),
            (true, Opened::Malformed) => (Standing::Malformed, None),
            (false, Opened::Current(plaintext) | Opened::Previous(plaintext)) => (Standing::Unmarked, Some(plaintext)),
            (false, Opened::NoKeyFits | Opened::Malformed) => (Standing::Plaintext, Some(Zeroizing::new(value.as_bytes().to_vec()))),
        }
    }
}
