//! Who sends a key or a token, and what its holder may do. Files of keys are read again while they are in use.

mod jwks;
mod jwt;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::CancellationToken;

use crate::config::front::auth::Auth;
use crate::config::front::routes::Scopes;
use crate::front::clients::ClientId;
use crate::front::headers::API_KEY;
use crate::front::keys::jwks::Jwks;
use crate::front::metrics::FrontMetrics;
use crate::front::refusal::Refusal;
use crate::runtime::keys::{KeyError, KeyFile, KeyHash};
use crate::runtime::supervise::PartResult;

/// How often the files are read. A Secret takes a minute to reach a pod.
const POLL: Duration = Duration::from_secs(5);

/// All who hold a key.
#[derive(Debug)]
pub struct Keys {
    holders: Vec<Holder>,
    issuer: Option<Jwks>,
    anonymous: Scopes,
}

#[derive(Debug)]
struct Holder {
    name: Arc<str>,
    scopes: Scopes,
    file: KeyFile,
    hashes: ArcSwap<Vec<KeyHash>>,
    success: Gauge,
}

/// Whom to let in cannot be known.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file of keys cannot be used.
    #[error(transparent)]
    File(#[from] KeyError),
    /// There is no way to ask for the keys of an issuer of tokens.
    #[error("the keys of the issuer of tokens cannot be asked for")]
    Issuer(#[source] reqwest::Error),
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The holder of the key or bearer of the token, as limits tell them and by name; `None` for whoever sends none.
    pub holder: Option<(ClientId, Arc<str>)>,
    /// What they may do.
    pub scopes: Scopes,
}

// === impl Keys ===

impl Keys {
    /// Reads all files for the first time.
    ///
    /// # Errors
    /// The first that cannot be used. The keys of an issuer of tokens may come later.
    pub fn open(auth: &Auth, metrics: &FrontMetrics) -> Result<Self, KeysError> {
        let open = |key: &crate::config::front::auth::Key| {
            let success = metrics.keys_of(&key.name);
            let hashes = ArcSwap::from_pointee(key.file.read()?);
            success.set(1);
            Ok::<_, KeyError>(Holder { name: key.name.as_str().into(), scopes: key.scopes, file: key.file.clone(), hashes, success })
        };
        let issuer = auth.jwt.as_ref().map(|jwt| Jwks::new(jwt, metrics.keys_of(jwks::NAME))).transpose();
        let issuer = issuer.map_err(KeysError::Issuer)?;
        Ok(Self { holders: auth.keys.iter().map(open).collect::<Result<_, _>>()?, issuer, anonymous: auth.anonymous })
    }

    /// Who sends these headers.
    ///
    /// # Errors
    /// When there are two keys, or one that nobody holds, or a token that does not hold.
    pub async fn identify(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        let (bearer, key) = (single(headers, &AUTHORIZATION)?, single(headers, &API_KEY)?);
        let sent = match (bearer, key) {
            (None, None) => return Ok(Identity { holder: None, scopes: self.anonymous }),
            (Some(_), Some(_)) => return Err(Refusal::Header),
            (Some(value), None) => bearer_token(value).ok_or(Refusal::Unauthorized)?,
            (None, Some(value)) => value.as_bytes(),
        };
        match (self.holder_of(sent), &self.issuer) {
            (Some(identity), _) => Ok(identity),
            (None, Some(issuer)) if bearer.is_some() => Box::pin(issuer.identify(sent)).await,
            (None, _) => Err(Refusal::Unauthorized),
        }
    }

    /// All are compared with, whether one has been found or not.
    fn holder_of(&self, sent: &[u8]) -> Option<Identity> {
        let hash = KeyHash::of(sent);
        let mut found = None;
        for (number, holder) in self.holders.iter().enumerate() {
            for known in holder.hashes.load().iter() {
                if known.matches(&hash) {
                    found = found.or(Some((number, holder)));
                }
            }
        }
        let (number, holder) = found?;
        Some(Identity { holder: Some((ClientId::Key(u16::try_from(number).ok()?), Arc::clone(&holder.name))), scopes: holder.scopes })
    }

    /// Reads the files again and again until `stop`. What cannot be used changes nothing.
    ///
    /// # Errors
    /// Never.
    pub async fn keep_current(self: Arc<Self>, stop: CancellationToken) -> PartResult {
        let of_issuer = async {
            if let Some(issuer) = &self.issuer {
                issuer.keep_current(&stop).await;
            }
        };
        tokio::join!(self.read_files(&stop), of_issuer);
        Ok(())
    }

    async fn read_files(self: &Arc<Self>, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
            }
            let keys = Arc::clone(self);
            // Small files, and nobody waits for them.
            let _ = tokio::task::spawn_blocking(move || keys.holders.iter().for_each(Holder::read_again)).await;
        }
    }
}

// === impl Holder ===

impl Holder {
    fn read_again(&self) {
        match self.file.read() {
            Ok(hashes) => {
                if **self.hashes.load() != hashes {
                    tracing::info!(key = &*self.name, count = hashes.len(), "the keys of a holder have changed");
                    self.hashes.store(Arc::new(hashes));
                }
                self.success.set(1);
            }
            Err(error) => {
                if self.success.set(0) == 1 {
                    tracing::warn!(key = &*self.name, %error, "changed keys cannot be used; those before still hold");
                }
            }
        }
    }
}

/// Two of one kind could be read in two ways.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { Err(Refusal::Header) } else { Ok(first) }
}

/// The scheme is written in any case (RFC 9110, 11.1).
fn bearer_token(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::front::auth::Key;
    use crate::config::front::routes::Scope;

    fn keys(folder: &std::path::Path) -> Keys {
        let key = |name: &str, text: &str, scope| {
            let file = KeyFile(folder.join(name));
            std::fs::write(&file.0, text).unwrap();
            Key { name: name.to_owned(), file, scopes: [scope].into_iter().collect() }
        };
        let keys = vec![
            key("dashboard", "key-of-the-dashboard-1\nkey-of-the-dashboard-2\n", Scope::Read),
            key("operator", "key-of-the-operator-1\n", Scope::Admin),
        ];
        Keys::open(&Auth { keys, jwt: None, anonymous: Scopes::default() }, &FrontMetrics::default()).unwrap()
    }

    fn identify(keys: &Keys, pairs: &[(&'static str, &'static str)]) -> Result<String, Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        // Nobody is asked where there is no issuer.
        let identity = futures_util::FutureExt::now_or_never(keys.identify(&headers)).expect("an answer at once")?;
        Ok(identity.holder.map_or("nobody".to_owned(), |(client, name)| format!("{client:?} {name}")))
    }

    #[test]
    fn a_key_is_found_in_either_header_and_two_are_one_too_many() {
        let folder = tempfile::tempdir().unwrap();
        let keys = keys(folder.path());
        for (headers, who) in [
            (&[][..], Ok("nobody")),
            (&[("authorization", "Bearer key-of-the-dashboard-1")][..], Ok("Key(0) dashboard")),
            (&[("authorization", "bearer  key-of-the-dashboard-2 ")][..], Ok("Key(0) dashboard")),
            (&[("x-api-key", "key-of-the-operator-1")][..], Ok("Key(1) operator")),
            (&[("x-api-key", "key-of-the-operator-2")][..], Err(Refusal::Unauthorized)),
            (&[("x-api-key", "")][..], Err(Refusal::Unauthorized)),
            (&[("authorization", "key-of-the-operator-1")][..], Err(Refusal::Unauthorized)),
            (&[("authorization", "Basic key-of-the-operator-1")][..], Err(Refusal::Unauthorized)),
            (&[("authorization", "Bearer")][..], Err(Refusal::Unauthorized)),
            (&[("x-api-key", "key-of-the-operator-1"), ("x-api-key", "key-of-the-operator-1")][..], Err(Refusal::Header)),
            (&[("authorization", "Bearer key-of-the-operator-1"), ("x-api-key", "key-of-the-operator-1")][..], Err(Refusal::Header)),
        ] {
            assert_eq!(identify(&keys, headers), who.map(str::to_owned), "{headers:?}");
        }
    }

    #[test]
    fn replaced_keys_hold_and_what_cannot_be_used_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let keys = keys(folder.path());
        let first = [("x-api-key", "key-of-the-dashboard-1")];
        std::fs::write(folder.path().join("dashboard"), "short").unwrap();
        keys.holders[0].read_again();
        assert!(identify(&keys, &first).is_ok());
        assert_eq!(keys.holders[0].success.get(), 0);
        std::fs::write(folder.path().join("dashboard"), "key-of-the-dashboard-3").unwrap();
        keys.holders[0].read_again();
        assert_eq!(keys.holders[0].success.get(), 1);
        assert!(identify(&keys, &first).is_err() && identify(&keys, &[("x-api-key", "key-of-the-dashboard-3")]).is_ok());
    }
}
