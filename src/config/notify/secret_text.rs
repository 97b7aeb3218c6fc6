//! A secret that stands in the configuration, or in a file that is read whenever it is needed: whoever replaces it there
//! need not restart us for it.

use std::io;
use std::path::PathBuf;

use crate::secret::Secret;

/// Where a secret is.
#[derive(Clone, Debug)]
pub enum SecretText {
    /// In the configuration.
    Given(Secret),
    /// In this file.
    File(PathBuf),
}

// === impl SecretText ===

impl SecretText {
    /// The secret as it is now, without the space around it. Reads a small file: not for a runtime's worker.
    ///
    /// # Errors
    /// When the file cannot be read or is empty.
    pub fn read(&self) -> io::Result<Secret> {
        match self {
            Self::Given(secret) => Ok(secret.clone()),
            Self::File(path) => {
                let text = std::fs::read_to_string(path)?;
                let text = text.trim();
                if text.is_empty() { Err(io::Error::other("the file is empty")) } else { Ok(Secret::new(text.to_owned())) }
            }
        }
    }
}
