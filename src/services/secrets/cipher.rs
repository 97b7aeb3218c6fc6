//! The stored form of a secret: base64 of nonce (12 bytes), ciphertext and tag (16 bytes), AES-256-GCM without
//! associated data, as DecisionBox's MongoDB provider writes and reads it.
//!
//! Pure but for the nonce, which comes from the operating system. Knows nothing of databases.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::config::secrets::EncryptionKey;

/// The bytes of the tag that proves that nobody has changed the ciphertext.
const TAG_BYTES: usize = 16;

/// The key that is encrypted with, and those that are tried for reading.
#[derive(Debug, Default)]
pub struct Keyring {
    current: Option<LessSafeKey>,
    previous: Vec<LessSafeKey>,
}

/// What a stored value turned out to be.
#[derive(Debug)]
pub enum Opened {
    /// The current key opens it.
    Current(Zeroizing<Vec<u8>>),
    /// A previous key opens it.
    Previous(Zeroizing<Vec<u8>>),
    /// It has the stored form, and no key that is known opens it: it is another's, or it was changed.
    NoKeyFits,
    /// It does not have the stored form.
    Malformed,
}

/// A secret could not be encrypted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SealError {
    /// There is no current key.
    #[error("there is no key to encrypt with")]
    NoKey,
    /// The operating system gave no random bytes, or the cipher failed.
    #[error("the cipher or the operating system's source of randomness failed")]
    Cipher,
}

// === impl Keyring ===

impl Keyring {
    /// The keys of a configuration. A previous key that is the current one is left out.
    #[must_use]
    pub fn new(current: Option<&EncryptionKey>, previous: &[EncryptionKey]) -> Self {
        let previous = previous.iter().filter(|key| Some(*key) != current).filter_map(cipher).collect();
        Self { current: current.and_then(cipher), previous }
    }

    /// There is a key to encrypt with.
    #[must_use]
    pub fn can_seal(&self) -> bool {
        self.current.is_some()
    }

    /// There is a key to rotate away from.
    #[must_use]
    pub fn has_previous(&self) -> bool {
        !self.previous.is_empty()
    }

    /// There is any key at all.
    #[must_use]
    pub fn can_open(&self) -> bool {
        self.can_seal() || self.has_previous()
    }

    /// Encrypts under the current key, with a nonce of its own.
    ///
    /// # Errors
    /// Without a current key, and when the system has no random bytes.
    pub fn seal(&self, plaintext: &[u8]) -> Result<String, SealError> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| SealError::Cipher)?;
        self.seal_with(nonce, plaintext)
    }

    fn seal_with(&self, nonce: [u8; NONCE_LEN], plaintext: &[u8]) -> Result<String, SealError> {
        let key = self.current.as_ref().ok_or(SealError::NoKey)?;
        let mut sealed = Zeroizing::new(Vec::with_capacity(NONCE_LEN + plaintext.len() + TAG_BYTES));
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plaintext);
        let tag = key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed[NONCE_LEN..])
            .map_err(|_| SealError::Cipher)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(STANDARD.encode(sealed.as_slice()))
    }

    /// Tries every key on a stored value.
    #[must_use]
    pub fn open(&self, stored: &str) -> Opened {
        let Ok(bytes) = STANDARD.decode(stored) else { return Opened::Malformed };
        if bytes.len() < NONCE_LEN + TAG_BYTES {
            return Opened::Malformed;
        }
        if let Some(plaintext) = self.current.as_ref().and_then(|key| open_with(key, &bytes)) {
            return Opened::Current(plaintext);
        }
        self.previous.iter().find_map(|key| open_with(key, &bytes)).map_or(Opened::NoKeyFits, Opened::Previous)
    }
}

fn cipher(key: &EncryptionKey) -> Option<LessSafeKey> {
    // The length is in the type, so this cannot fail.
    UnboundKey::new(&AES_256_GCM, key.expose()).map(LessSafeKey::new).ok()
}

fn open_with(key: &LessSafeKey, stored: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, sealed) = stored.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut plaintext = Zeroizing::new(sealed.to_vec());
    let length = key.open_in_place(nonce, Aad::empty(), &mut plaintext).ok()?.len();
    plaintext.truncate(length);
    Some(plaintext)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const OTHER: &str = "/////////////////////////////////////////w8=";

    fn key(text: &str) -> EncryptionKey {
        EncryptionKey::parse(text).expect("a key")
    }

    fn ring(current: &str, previous: &[&str]) -> Keyring {
        let previous: Vec<EncryptionKey> = previous.iter().map(|text| key(text)).collect();
        Keyring::new(Some(&key(current)), &previous)
    }

    /// What DecisionBox's own provider makes of this key, nonce and text.
    #[test]
    fn the_stored_form_is_decisionboxes() {
        let stored = "YWJjZGVmZ2hpamtsjFxaPm+X29VguCmHm1kOX428wrMurxIBx194hKClOUZ/1yPwy6EYOBKoJ+vTCD44pEs=";
        let secret = b"sk-ant-api03-TESTVECTOR-0000000000";
        let ring = ring(KEY, &[]);
        assert_eq!(ring.seal_with(*b"abcdefghijkl", secret).expect("sealed"), stored);
        assert!(matches!(ring.open(stored), Opened::Current(plaintext) if plaintext.as_slice() == secret));
    }

    #[test]
    fn which_key_opens_a_value_is_known() {
        let stored = ring(OTHER, &[]).seal(b"secret").expect("sealed");
        assert!(matches!(ring(OTHER, &[KEY]).open(&stored), Opened::Current(_)));
        assert!(matches!(ring(KEY, &[OTHER]).open(&stored), Opened::Previous(plaintext) if plaintext.as_slice() == b"secret"));
        assert!(matches!(ring(KEY, &[]).open(&stored), Opened::NoKeyFits));
        assert!(matches!(Keyring::default().open(&stored), Opened::NoKeyFits));
        for malformed in ["", "sk-ant-api03-plain", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBka"] {
            assert!(matches!(ring(KEY, &[]).open(malformed), Opened::Malformed), "{malformed}");
        }
        assert_eq!(Keyring::default().seal(b"secret"), Err(SealError::NoKey));
        assert!(!ring(KEY, &[KEY]).has_previous());
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened(secret in proptest::collection::vec(any::<u8>(), 0..300), flip in any::<prop::sample::Index>()) {
            let ring = ring(KEY, &[]);
            let stored = ring.seal(&secret).expect("sealed");
            prop_assert!(matches!(ring.open(&stored), Opened::Current(plaintext) if plaintext.as_slice() == secret.as_slice()));

            let mut bytes = STANDARD.decode(&stored).expect("base64");
            let at = flip.index(bytes.len());
            bytes[at] ^= 1;
            prop_assert!(matches!(ring.open(&STANDARD.encode(bytes)), Opened::NoKeyFits), "a changed bit is noticed");
        }
    }
}
