//! `front.auth.jwt`: tokens that an identity provider signs, and what they permit.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::front::routes::{Scope, Scopes};
use crate::config::problems::{Complaints, Problems};
use crate::config::spanned::Spanned;
use crate::config::trust::{Authorities, Trust};
use crate::config::values::{HumanDuration, OrderedMap};

/// How far the clocks of the issuer and of this host may differ.
const LEEWAY: Duration = Duration::from_secs(30);
const LONGEST_LEEWAY: Duration = Duration::from_secs(300);

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FrontJwt")]
pub(super) struct RawJwt {
    /// Where the issuer's keys are (RFC 7517): its address, such as `https://id.example.com/.well-known/jwks.json`.
    jwks_url: Option<String>,
    /// Or a file with them, which is read again every few seconds.
    jwks_file: Option<PathBuf>,
    /// PEM: the authorities that the certificate of `jwks_url` may come from, instead of those of the system.
    ca_file: Option<PathBuf>,
    /// Whose tokens hold: exactly what they say in `iss`.
    issuer: String,
    /// For whom a token must be: one of these stands in `aud`.
    audience: Vec<String>,
    /// How tokens may be signed: RS256, ES256 and EdDSA.
    #[serde(default)]
    algorithms: Vec<Signature>,
    /// How much longer, or earlier, a token holds than it says: 30s.
    leeway: Option<HumanDuration>,
    /// The claim with words for what its bearer may do, by a space or a list: scope. With dots for one within another.
    claim: Option<String>,
    /// What each word of the claim permits. Without it, the words are `read`, `runs`, `secrets` and `admin`.
    #[serde(default)]
    scopes: OrderedMap<Vec<Scope>>,
}

/// How a token is signed (RFC 7518, 8037): with a key of which this process knows the public half alone.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
pub enum Signature {
    /// RSA with SHA-256.
    RS256,
    /// RSA-PSS with SHA-256.
    PS256,
    /// The curve P-256 with SHA-256.
    ES256,
    /// The curve P-384 with SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

/// Whose tokens hold, and what they permit.
#[derive(Clone, Debug)]
pub struct Jwt {
    /// Where the keys are.
    pub source: JwksSource,
    /// What stands in `iss`.
    pub issuer: String,
    /// One of these stands in `aud`.
    pub audience: Vec<String>,
    /// How tokens may be signed.
    pub algorithms: Vec<Signature>,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// The claim with words for scopes.
    pub claim: String,
    /// What each word permits.
    pub scopes: Vec<(String, Scopes)>,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug)]
pub enum JwksSource {
    /// At an address.
    Url(Url, Trust),
    /// In a file.
    File(PathBuf),
}

// === impl RawJwt ===

impl RawJwt {
    /// Nothing where the keys' place is wrong.
    pub(super) fn validate(written: Spanned<Self>, problems: &mut Problems) -> Option<Jwt> {
        let Spanned { place, value } = written;
        let mut complaints = Complaints::new(place, "front.auth.jwt".to_owned(), problems);
        let source = value.source(&mut complaints);
        if value.issuer.is_empty() {
            complaints.say("`issuer` is what tokens say in `iss`");
        }
        if value.audience.is_empty() || value.audience.iter().any(String::is_empty) {
            complaints.say(
                "`audience` names for whom tokens are: without it, one that the issuer has made for somebody else would open this door",
            );
        }
        let leeway = value.leeway.map_or(LEEWAY, |leeway| leeway.0);
        if leeway > LONGEST_LEEWAY {
            complaints.say("`leeway` is at most 5m");
        }
        if value.claim.as_deref() == Some("") {
            complaints.say("`claim` names the claim with the scopes");
        }
        if value.scopes.0.iter().any(|(_, scopes)| scopes.is_empty() || scopes.contains(&Scope::Open)) {
            complaints.say("`scopes` says what each word of the claim permits: read, runs, secrets, admin");
        }
        let algorithms = match value.algorithms.is_empty() {
            true => vec![Signature::RS256, Signature::ES256, Signature::EdDSA],
            false => value.algorithms,
        };
        let own = [("read", Scope::Read), ("runs", Scope::Runs), ("secrets", Scope::Secrets), ("admin", Scope::Admin)];
        let scopes = match value.scopes.0.is_empty() {
            true => own.into_iter().map(|(word, scope)| (word.to_owned(), Scopes::default().with(scope))).collect(),
            false => value.scopes.0.into_iter().map(|(word, scopes)| (word, scopes.into_iter().collect())).collect(),
        };
        let claim = value.claim.unwrap_or_else(|| "scope".to_owned());
        Some(Jwt { source: source?, issuer: value.issuer, audience: value.audience, algorithms, leeway, claim, scopes })
    }

    fn source(&self, complaints: &mut Complaints<'_>) -> Option<JwksSource> {
        match (&self.jwks_url, &self.jwks_file) {
            (None, Some(file)) => Some(JwksSource::File(file.clone())),
            (Some(text), None) => {
                let is_loopback = |url: &Url| matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
                let is_safe = |url: &Url| url.scheme() == "https" || url.scheme() == "http" && is_loopback(url);
                let Some(url) = Url::parse(text).ok().filter(|url| is_safe(url) && url.password().is_none()) else {
                    complaints
                        .say("`jwks_url` is an address with https (http on loopback alone: who answers in its place could let anybody in)");
                    return None;
                };
                match self.ca_file.as_deref().map(Authorities::read).transpose() {
                    Ok(authorities) => Some(JwksSource::Url(url, authorities.map_or(Trust::System, Trust::Only))),
                    Err(message) => {
                        complaints.say(message);
                        None
                    }
                }
            }
            _ => {
                complaints.say("the keys are at exactly one place: `jwks_url` or `jwks_file`");
                None
            }
        }
    }
}
