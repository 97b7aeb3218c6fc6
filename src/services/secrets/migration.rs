//! Secrets become safe: plaintext is encrypted in place, and what an old key encrypts is encrypted with the new one.
//!
//! Each secret is replaced by itself and only when nobody has written it since it was read. A run that ends in the
//! middle leaves every secret readable with the keys that the run was given, and the next run does the rest.

use mongodb::bson::Bson;
use serde::Serialize;

use crate::services::secrets::audit::PAGE;
use crate::services::secrets::cipher::Keyring;
use crate::services::secrets::vault::Replacement;
use crate::services::secrets::{SecretsError, Standing, Vault};

/// How often a secret that was written in between is tried again.
const ROUNDS: usize = 3;

/// What is to be done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Migration {
    /// Encrypts what is not encrypted.
    Encrypt,
    /// Encrypts with the current key what a previous one opens.
    Rotate,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Outcome {
    /// Encrypted now.
    pub changed: u64,
    /// Left as they are: they need nothing of this, or no key opens them.
    pub left: u64,
    /// Written by the application again and again while this ran; the next run takes them.
    pub busy: u64,
}

// === impl Migration ===

impl Migration {
    /// What stands so is changed by it.
    #[must_use]
    pub fn takes(self, standing: Standing) -> bool {
        match self {
            Self::Encrypt => matches!(standing, Standing::Plaintext | Standing::Unmarked),
            Self::Rotate => standing == Standing::Previous,
        }
    }

    /// Does it to every secret. `progress` is told how many have been looked at, of how many.
    ///
    /// # Errors
    /// Without the keys that it needs, and when the database does not answer; what was changed before stays changed.
    pub async fn run(self, vault: &Vault, keyring: &Keyring, mut progress: impl FnMut(u64, u64)) -> Result<Outcome, SecretsError> {
        if !keyring.can_seal() {
            return Err(SecretsError::NoKey);
        }
        if self == Self::Rotate && !keyring.has_previous() {
            return Err(SecretsError::NoPreviousKey);
        }
        let ids = vault.ids().await?;
        let mut outcome = Outcome::default();
        let mut looked_at = 0;
        for page in ids.chunks(PAGE) {
            self.page(vault, keyring, page, &mut outcome).await?;
            looked_at += page.len() as u64;
            progress(looked_at, ids.len() as u64);
        }
        Ok(outcome)
    }

    async fn page(self, vault: &Vault, keyring: &Keyring, ids: &[Bson], outcome: &mut Outcome) -> Result<(), SecretsError> {
        let mut changed = 0;
        for round in 1..=ROUNDS {
            let secrets = vault.read(ids).await?;
            let mut replacements = Vec::new();
            for secret in &secrets {
                if let (standing, Some(plaintext)) = secret.opened(keyring)
                    && self.takes(standing)
                {
                    replacements.push(Replacement { secret, sealed: keyring.seal(&plaintext)? });
                }
            }
            let stored = vault.replace(&replacements).await?;
            changed += stored;
            outcome.changed += stored;
            let missed = (replacements.len() as u64).saturating_sub(stored);
            if missed == 0 || round == ROUNDS {
                outcome.left += (secrets.len() as u64).saturating_sub(changed + missed);
                outcome.busy += missed;
                break;
            }
        }
        Ok(())
    }
}
