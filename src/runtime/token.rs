//! The token that opens what is not for everybody, read from a file and read again while it is in use: whoever replaces it
//! there need not restart us for it.
//!
//! Owns the file and what became of it. Knows nothing of what the token opens.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::runtime::supervise::PartResult;
use crate::secret::Secret;

/// How often the file is read. A Secret takes a minute to reach a pod.
const POLL: Duration = Duration::from_secs(5);

/// What is shorter can be guessed over a network.
const SHORTEST: usize = 16;

/// Where a token is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TokenFile(pub PathBuf);

/// Why a token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It holds too little.
    #[error("a token has at least {SHORTEST} characters; make one with `openssl rand -base64 32`")]
    Short,
}

/// A token that is kept current.
#[derive(Debug)]
pub struct Token {
    file: TokenFile,
    current: ArcSwap<Secret>,
    reload_success: Gauge,
}

// === impl TokenFile ===

impl TokenFile {
    /// Reads the token, without the space around it.
    ///
    /// # Errors
    /// When the file cannot be read, or holds too little.
    pub fn read(&self) -> Result<Secret, TokenError> {
        let text = std::fs::read_to_string(&self.0).map_err(|cause| TokenError::File { path: self.0.clone(), cause })?;
        let token = text.trim();
        if token.len() < SHORTEST { Err(TokenError::Short) } else { Ok(Secret::new(token.to_owned())) }
    }
}

// === impl Token ===

impl Token {
    /// Reads the token for the first time.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn open(file: TokenFile, registry: &mut Registry) -> Result<Arc<Self>, TokenError> {
        let reload_success = Gauge::default();
        reload_success.set(1);
        let help = "Whether admin.token_file held a usable token when it was last read";
        registry.register("bellwether_admin_token_reload_success", help, reload_success.clone());
        let current = ArcSwap::from_pointee(file.read()?);
        Ok(Arc::new(Self { file, current, reload_success }))
    }

    /// Whether `candidate` is the token that holds now, in a time that does not depend on where they differ.
    #[must_use]
    pub fn matches(&self, candidate: &str) -> bool {
        self.current.load().matches(candidate)
    }

    /// Reads the file again and again until `stop`. What cannot be used changes nothing.
    ///
    /// # Errors
    /// Never.
    pub async fn keep_current(self: Arc<Self>, stop: CancellationToken) -> PartResult {
        let mut is_usable = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(POLL) => {}
            }
            let file = self.file.clone();
            let Ok(read) = tokio::task::spawn_blocking(move || file.read()).await else { continue };
            is_usable = self.take_over(read, is_usable);
        }
    }

    fn take_over(&self, read: Result<Secret, TokenError>, was_usable: bool) -> bool {
        let is_usable = match read {
            Ok(token) => {
                if !self.matches(token.expose()) {
                    tracing::info!(file = %self.file.0.display(), "a new token holds from now on");
                    self.current.store(Arc::new(token));
                }
                true
            }
            Err(error) => {
                if was_usable {
                    tracing::warn!(%error, "the changed token cannot be used; the one before still holds");
                }
                false
            }
        };
        self.reload_success.set(i64::from(is_usable));
        is_usable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_holds_and_what_cannot_be_used_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = TokenFile(folder.path().join("token"));
        let write = |text: &str| std::fs::write(&file.0, text).unwrap();
        write("correct horse battery staple\n");
        let token = Token::open(file.clone(), &mut Registry::default()).unwrap();
        assert!(token.matches("correct horse battery staple") && !token.matches("correct horse battery staple\n"));

        write("short\n");
        assert!(!token.take_over(file.read(), true));
        assert!(token.matches("correct horse battery staple") && !token.matches("short"));
        assert_eq!(token.reload_success.get(), 0);
        std::fs::remove_file(&file.0).unwrap();
        assert!(!token.take_over(file.read(), false));

        write("another horse, another battery");
        assert!(token.take_over(file.read(), false));
        assert!(token.matches("another horse, another battery") && !token.matches("correct horse battery staple"));
        assert_eq!(token.reload_success.get(), 1);
    }
}
