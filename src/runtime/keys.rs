//! Files of keys that programs send, kept as hashes: whoever reads the memory or the hashed file learns no key.
//!
//! Owns the file's form and the comparison. Knows nothing of what a key opens.

use std::io;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// What is shorter can be guessed over a network.
const SHORTEST: usize = 20;
/// Two hold while one is replaced; a few more do no harm.
const MOST: usize = 16;
/// Before a hash that stands in a file instead of its key.
const HASHED: &str = "sha256:";

/// Where the keys of one holder are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyFile(pub PathBuf);

/// The SHA-256 of a key. Keys are random and long, so that no salt and no slow hash is needed.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct KeyHash([u8; 32]);

/// Why the keys of a file cannot be used. Says nothing of them.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// There is none in it.
    #[error("there is no key in {}; write one on a line, as `openssl rand -base64 32` makes it", .0.display())]
    Empty(PathBuf),
    /// There are too many in it.
    #[error("there are more than {MOST} keys in {}", .0.display())]
    Many(PathBuf),
    /// A line is no key.
    #[error(
        "line {line} of {} is no key: a key has at least {SHORTEST} characters and no space; a hash is `sha256:` and 64 hexadecimal digits",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

// === impl KeyFile ===

impl KeyFile {
    /// Reads the keys: one a line, as it is or as its hash. Empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// When the file cannot be read, or holds no key or something else.
    pub fn read(&self) -> Result<Vec<KeyHash>, KeyError> {
        let text = std::fs::read_to_string(&self.0).map_err(|cause| KeyError::File { path: self.0.clone(), cause })?;
        let text = Zeroizing::new(text);
        let mut hashes = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            hashes.push(KeyHash::read(line).ok_or_else(|| KeyError::Malformed { path: self.0.clone(), line: number + 1 })?);
        }
        match hashes.len() {
            0 => Err(KeyError::Empty(self.0.clone())),
            1..=MOST => Ok(hashes),
            _ => Err(KeyError::Many(self.0.clone())),
        }
    }
}

// === impl KeyHash ===

impl KeyHash {
    /// The hash of a key.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Whether both are the same, in a time that does not depend on where they differ.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    fn read(line: &str) -> Option<Self> {
        let Some(digits) = line.strip_prefix(HASHED) else {
            let is_key = line.len() >= SHORTEST && line.bytes().all(|byte| byte.is_ascii_graphic());
            return is_key.then(|| Self::of(line.as_bytes()));
        };
        let mut hash = [0; 32];
        if digits.len() != 64 || !digits.is_ascii() {
            return None;
        }
        for (place, pair) in hash.iter_mut().zip(digits.as_bytes().chunks(2)) {
            *place = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(hash))
    }
}

impl std::fmt::Debug for KeyHash {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read(text: &str) -> Result<Vec<KeyHash>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        KeyFile(file.path().to_owned()).read().map_err(|error| error.to_string().replace(file.path().to_str().unwrap(), "keys"))
    }

    #[test]
    fn keys_and_hashes_stand_side_by_side() {
        // printf 'correct-horse-battery-staple' | sha256sum
        let hashed = "sha256:87cbebfeebc05f7c54ac9336c4b4bbec831227a641951a4bde7edd56020f8590";
        let hashes = read(&format!("# of the dashboard\n\ncorrect-horse-battery-staple\r\n{hashed}\n")).unwrap();
        assert!(hashes[0].matches(&hashes[1]) && hashes[0].matches(&KeyHash::of(b"correct-horse-battery-staple")));
        assert!(!hashes[0].matches(&KeyHash::of(b"correct-horse-battery-stapler")));
        assert_eq!(format!("{hashes:?}"), "[[redacted], [redacted]]");
    }

    #[test]
    fn what_is_no_key_is_told_by_its_line_and_never_shown() {
        for (text, words) in [
            ("", "there is no key in keys"),
            ("# nothing\n", "there is no key in keys"),
            ("\nshort\n", "line 2 of keys is no key"),
            ("correct horse battery staple", "line 1 of keys is no key"),
            ("sha256:abc", "line 1 of keys is no key"),
            ("sha256:+e3d347982977b422948b64011ac14ac76c9ab15898fb562a66a136733aa645g", "line 1 of keys is no key"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(words) && !error.contains("horse") && !error.contains("short"), "{text:?}: {error}");
        }
        assert!(read(&"correct-horse-battery-staple\n".repeat(17)).unwrap_err().contains("more than 16"));
    }
}
