//! The keys of an issuer: read from a file again and again, or fetched; what was good last is kept.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use prometheus_client::metrics::gauge::Gauge;
use reqwest::{Client, Url};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Now;
use crate::config::front::jwt::{JwksSource, Jwt};
use crate::config::trust::Trust;
use crate::front::clients::ClientId;
use crate::front::keys::jwt::{Bearer, KeySet, TokenFault, verify};
use crate::front::keys::{Identity, POLL};
use crate::front::refusal::Refusal;
use crate::store::fault::Fault;
use crate::store::http;

/// The name under which the keys of the issuer are told of.
pub(super) const NAME: &str = "jwt";
/// How often an address is asked for its keys although nothing asks for new ones.
const EVERY: Duration = Duration::from_secs(900);
/// How soon it is asked again: whoever sends tokens with keys that nobody knows asks nobody more often.
const SOONEST: Duration = Duration::from_secs(60);
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Keys are a kilobyte each.
const LARGEST: usize = 256 << 10;
/// A subject of this many plain characters is shown as it is.
const LONGEST_NAME: usize = 64;

/// Lets in who bears a token of an issuer.
pub(super) struct Jwks {
    rules: Jwt,
    keys: ArcSwapOption<KeySet>,
    client: Client,
    /// When the address was asked last. Whoever waits for the lock waits for new keys.
    asked: Mutex<Option<Instant>>,
    soonest: Duration,
    success: Gauge,
}

/// Why keys could not be had.
#[derive(Debug, thiserror::Error)]
enum JwksFault {
    #[error("the file cannot be read: {0}")]
    File(std::io::Error),
    #[error("the address {0}")]
    Away(&'static str),
    #[error("the address answered with the status {0}")]
    Status(u16),
    #[error("the answer has more than {LARGEST} bytes")]
    Large,
    #[error(transparent)]
    Keys(#[from] crate::front::keys::jwt::KeySetFault),
}

// === impl Jwks ===

impl Jwks {
    /// Nothing is read or asked yet.
    ///
    /// # Errors
    /// When there is no client to be had at all.
    pub fn new(rules: &Jwt, success: Gauge) -> Result<Self, reqwest::Error> {
        let trust = match &rules.source {
            JwksSource::Url(_, trust) => trust.clone(),
            JwksSource::File(_) => Trust::System,
        };
        let client = http::client(&trust, LIMIT)?;
        Ok(Self { rules: rules.clone(), keys: ArcSwapOption::empty(), client, asked: Mutex::default(), soonest: SOONEST, success })
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// When it does not hold.
    pub async fn identify(&self, token: &[u8]) -> Result<Identity, Refusal> {
        let bearer = match self.verify(token) {
            Err(TokenFault::UnknownKey) => {
                self.renew_for_a_token().await;
                self.verify(token)
            }
            verified => verified,
        };
        match bearer {
            Ok(bearer) => Ok(identity(bearer)),
            Err(fault) => {
                tracing::debug!(?fault, "a token does not hold");
                Err(Refusal::Unauthorized)
            }
        }
    }

    fn verify(&self, token: &[u8]) -> Result<Bearer, TokenFault> {
        let keys = self.keys.load();
        verify(token, keys.as_deref().ok_or(TokenFault::UnknownKey)?, &self.rules, Now::read().wall)
    }

    /// An issuer has begun to sign with a new key, or somebody makes keys up: nobody can tell, so that this happens seldom.
    async fn renew_for_a_token(&self) {
        let mut asked = self.asked.lock().await;
        if matches!(self.rules.source, JwksSource::Url(..)) && asked.is_none_or(|asked| asked.elapsed() >= self.soonest) {
            *asked = Some(Instant::now());
            self.renew().await;
        }
    }

    /// Reads or asks again and again until `stop`.
    pub async fn keep_current(&self, stop: &CancellationToken) {
        let wait = async |length: Duration| {
            tokio::select! {
                () = stop.cancelled() => false,
                () = tokio::time::sleep(length) => true,
            }
        };
        loop {
            let is_file = matches!(self.rules.source, JwksSource::File(_));
            let is_good = match is_file {
                true => self.renew().await,
                false => {
                    let mut asked = self.asked.lock().await;
                    *asked = Some(Instant::now());
                    self.renew().await
                }
            };
            let next = match (is_file, is_good) {
                (true, _) => POLL,
                (false, true) => EVERY,
                (false, false) => self.soonest,
            };
            if !wait(next).await {
                return;
            }
        }
    }

    /// Takes the keys as they are now. What cannot be used changes nothing.
    async fn renew(&self) -> bool {
        let read = match &self.rules.source {
            JwksSource::File(path) => tokio::fs::read(path).await.map_err(JwksFault::File),
            JwksSource::Url(url, _) => self.fetch(url).await,
        };
        match read.and_then(|json| Ok(KeySet::read(&json)?)) {
            Ok(keys) => {
                if self.success.set(1) == 0 {
                    tracing::info!(count = keys.len(), "the keys of the issuer of tokens are known");
                }
                self.keys.store(Some(Arc::new(keys)));
                true
            }
            Err(error) => {
                let before = if self.keys.load().is_some() { "those before still hold" } else { "no token holds until they can" };
                tracing::warn!(%error, "the keys of the issuer of tokens cannot be used; {before}");
                self.success.set(0);
                false
            }
        }
    }

    async fn fetch(&self, url: &Url) -> Result<Vec<u8>, JwksFault> {
        let away = |error: reqwest::Error| JwksFault::Away(Fault::of(&error).text());
        let mut answer = self.client.get(url.clone()).send().await.map_err(away)?;
        if answer.status().as_u16() != 200 {
            return Err(JwksFault::Status(answer.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(away)? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST {
                return Err(JwksFault::Large);
            }
        }
        Ok(body)
    }
}

impl std::fmt::Debug for Jwks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Jwks").field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// Limits count by subject. The name says that it came by a token, so that nobody passes for the holder of a key.
fn identity(bearer: Bearer) -> Identity {
    let digest = Sha256::digest(bearer.subject.as_bytes());
    let number = digest.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@' | b'|' | b':');
    let name = match bearer.subject.len() <= LONGEST_NAME && bearer.subject.bytes().all(is_plain) {
        true => format!("{NAME}:{}", bearer.subject),
        false => format!("{NAME}:{number:016x}"),
    };
    Identity { holder: Some((ClientId::Subject(number), name.into())), scopes: bearer.scopes }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::Mutex as BlockingMutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::config::front::routes::{Scope, Scopes};
    use crate::front::keys::jwt::tests::{Signer, claims_until, set_of};

    /// Answers with what is put there, and counts how often it was asked.
    struct Issuer {
        answer: Arc<BlockingMutex<(u16, String)>>,
        asked: Arc<AtomicUsize>,
        url: Url,
    }

    fn issuer(status: u16, body: String) -> Issuer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap()).parse().unwrap();
        let (answer, asked) = (Arc::new(BlockingMutex::new((status, body))), Arc::new(AtomicUsize::new(0)));
        let (told, count) = (Arc::clone(&answer), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                count.fetch_add(1, Ordering::SeqCst);
                let (status, body) = told.lock().unwrap().clone();
                let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
            }
        });
        Issuer { answer, asked, url }
    }

    fn jwks(source: JwksSource, soonest: Duration) -> Jwks {
        let rules = Jwt {
            source,
            issuer: "https://id.example.com/".to_owned(),
            audience: vec!["bellwether".to_owned()],
            algorithms: vec![crate::config::front::jwt::Signature::ES256],
            leeway: Duration::ZERO,
            claim: "scope".to_owned(),
            scopes: vec![("read".to_owned(), Scopes::default().with(Scope::Read))],
        };
        Jwks { soonest, ..Jwks::new(&rules, Gauge::default()).unwrap() }
    }

    fn token(signer: &Signer, id: &str) -> String {
        let until = Now::read().wall.as_second() + 600;
        signer.sign(&serde_json::json!({ "alg": "ES256", "kid": id }), &claims_until(until))
    }

    #[tokio::test]
    async fn a_new_key_is_asked_for_once_a_while_and_what_was_good_is_kept() {
        let (first, second) = (Signer::p256(), Signer::p256());
        let issuer = issuer(200, set_of(&[first.jwk("first")]));
        let jwks = jwks(JwksSource::Url(issuer.url.clone(), Trust::System), Duration::from_secs(4));
        let who = async |signer: &Signer, id: &str| jwks.identify(token(signer, id).as_bytes()).await;
        let identity = who(&first, "first").await.unwrap();
        assert_eq!(identity.holder.as_ref().unwrap().1.as_ref(), "jwt:ada");
        assert!(identity.scopes.permit(Scope::Read) && !identity.scopes.permit(Scope::Runs));
        assert_eq!(issuer.asked.load(Ordering::SeqCst), 1, "the first token is reason enough");
        // The issuer signs with a second key; a crowd sends tokens of it, and of keys that nobody has.
        issuer.answer.lock().unwrap().1 = set_of(&[first.jwk("first"), second.jwk("second")]);
        for _ in 0..5 {
            assert!(who(&second, "second").await.is_err() && who(&second, "made up").await.is_err());
        }
        assert_eq!(issuer.asked.load(Ordering::SeqCst), 1, "not so soon after the last time");
        tokio::time::sleep(Duration::from_millis(4050)).await;
        let crowd = futures_util::future::join_all((0..20).map(|_| who(&second, "second"))).await;
        assert!(crowd.iter().all(Result::is_ok), "all who wait for the answer have it");
        assert_eq!(issuer.asked.load(Ordering::SeqCst), 2);
        // What cannot be used changes nothing.
        for (status, body) in [(500, String::new()), (200, "<html>".to_owned()), (200, "x".repeat(300 << 10)), (302, String::new())] {
            *issuer.answer.lock().unwrap() = (status, body);
            assert!(!jwks.renew().await && jwks.success.get() == 0, "{status}");
            assert!(who(&second, "second").await.is_ok());
        }
        // A key that is gone from the set holds no longer.
        *issuer.answer.lock().unwrap() = (200, set_of(&[second.jwk("second")]));
        assert!(jwks.renew().await && jwks.success.get() == 1);
        assert!(who(&first, "first").await.is_err() && who(&second, "second").await.is_ok());
    }

    #[tokio::test]
    async fn keys_of_a_file_are_read_again_and_a_name_says_where_it_comes_from() {
        let (signer, file) = (Signer::p256(), tempfile::NamedTempFile::new().unwrap());
        let jwks = jwks(JwksSource::File(file.path().to_owned()), SOONEST);
        assert!(!jwks.renew().await);
        assert_eq!(jwks.identify(token(&signer, "k").as_bytes()).await.err(), Some(Refusal::Unauthorized));
        std::fs::write(file.path(), set_of(&[signer.jwk("k")])).unwrap();
        assert!(jwks.renew().await && jwks.identify(token(&signer, "k").as_bytes()).await.is_ok());
        let named = |subject: &str| identity(Bearer { subject: subject.to_owned(), scopes: Scopes::default() }).holder.unwrap();
        assert_eq!(&*named("auth0|5f7c@x").1, "jwt:auth0|5f7c@x");
        for odd in ["a b", "a\r\nX-Evil: 1", "\u{fc}", &"x".repeat(65)] {
            assert!(named(odd).1.len() == 20 && named(odd).1.starts_with("jwt:"), "{odd}");
        }
        assert_ne!(named("ada").0, named("bob").0);
    }
}
