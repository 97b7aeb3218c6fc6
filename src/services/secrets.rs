//! The secrets of the application: how they are stored, which of them are safe, and how they become safe.
//!
//! The stored form is DecisionBox's, so that its agent reads what is written here and the other way round. A value is
//! decrypted only to be encrypted again, to be masked, or to learn which key opens it; it is cleared from memory at once,
//! and never printed, logged or counted. Names of secrets are shown to whoever runs the command, escaped. `service` is the
//! application's own secrets service, where the sidecar stands in for it.

pub mod audit;
pub mod cipher;
mod cloud;
mod folder;
mod held;
mod mask;
mod metrics;
pub mod migration;
pub mod service;
mod trail;
pub mod vault;

pub use crate::services::secrets::audit::{Audit, Standing};
pub use crate::services::secrets::cipher::{Keyring, SealError};
pub use crate::services::secrets::migration::{Migration, Outcome};
pub use crate::services::secrets::vault::Vault;
use crate::store::mongodb::{Reason, StoreError};

/// Why something could not be done with the secrets.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// There is no key to encrypt with.
    #[error(
        "there is no key to encrypt with: set SECRET_ENCRYPTION_KEY, or SECRET_ENCRYPTION_KEY_FILE to the path of a file with it; make one with `openssl rand -base64 32`"
    )]
    NoKey,
    /// There is no previous key to rotate away from.
    #[error(
        "there is no previous key: set SECRET_PREVIOUS_ENCRYPTION_KEY to the key that secrets are encrypted with now, and SECRET_ENCRYPTION_KEY to the new one"
    )]
    NoPreviousKey,
    /// The database did not do it.
    #[error("{doing}{}", privilege(source, collection))]
    Store {
        /// What was being done.
        doing: &'static str,
        /// In which collection.
        collection: String,
        /// Why it was not.
        #[source]
        source: StoreError,
    },
    /// The cipher or the source of randomness failed.
    #[error("encrypting a secret")]
    Seal(#[from] SealError),
}

/// What to grant, where that is what is missing.
fn privilege(source: &StoreError, collection: &str) -> String {
    match source.reason() {
        Reason::Auth => format!(" (it needs find, and update to change something, on the collection `{collection}`)"),
        _ => String::new(),
    }
}
