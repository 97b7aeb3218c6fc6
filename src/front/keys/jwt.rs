//! Tokens that an issuer has signed: which key, which signature, which claims. Pure.
//!
//! An algorithm counts only where the configuration names it, and only with a key of its own kind: the token never chooses how
//! it is checked, and a symmetric key is no key here, so that a public key cannot be taken for one.

use jiff::Timestamp;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

use crate::config::front::jwt::{Jwt, Signature};
use crate::config::front::routes::Scopes;

/// Whoever is longer than this is no token: they are a kilobyte or two.
const LONGEST: usize = 16 << 10;
/// An issuer has two or three keys at a time.
const MOST_KEYS: usize = 64;
/// A subject is an id or an address.
const LONGEST_SUBJECT: usize = 255;

/// The keys of an issuer.
#[derive(Clone)]
pub(super) struct KeySet(Vec<SigningKey>);

#[derive(Clone)]
struct SigningKey {
    id: Option<String>,
    kind: Kind,
    /// What it is for, where its issuer says so.
    algorithm: Option<KeyAlgorithm>,
    key: DecodingKey,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// A token that holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bearer {
    pub subject: String,
    pub scopes: Scopes,
}

/// Why a token does not hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TokenFault {
    /// It is none.
    Malformed,
    /// It is signed in a way that is not taken, or asks for what is not understood.
    Algorithm,
    /// Nobody knows its key.
    UnknownKey,
    /// The signature is not that of its key.
    Signature,
    /// It says not until when it holds, or that is over.
    Expired,
    /// It holds later.
    Early,
    /// Another has issued it.
    Issuer,
    /// It is for somebody else.
    Audience,
    /// It does not say whose it is.
    Subject,
}

/// Why keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeySetFault {
    #[error("it is no JWK set (RFC 7517): {0}")]
    Form(serde_json::Error),
    #[error("there is no key in it that signatures could be checked with: RSA, P-256, P-384 or Ed25519")]
    Empty,
    #[error("there are more than {MOST_KEYS} keys in it")]
    Many,
}

// === impl KeySet ===

impl KeySet {
    /// Reads a JWK set. Keys of other kinds or for other uses are passed over, as the standard wants it.
    pub fn read(json: &[u8]) -> Result<Self, KeySetFault> {
        /// Each on its own: one that is not understood does not take the others with it.
        #[derive(serde::Deserialize)]
        struct Loose {
            keys: Vec<Value>,
        }
        let loose: Loose = serde_json::from_slice(json).map_err(KeySetFault::Form)?;
        if loose.keys.len() > MOST_KEYS {
            return Err(KeySetFault::Many);
        }
        let set = JwkSet { keys: loose.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect() };
        let keys: Vec<SigningKey> = set.keys.iter().filter_map(SigningKey::of).collect();
        if keys.is_empty() { Err(KeySetFault::Empty) } else { Ok(Self(keys)) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The key that a token names; the only one that fits, where it names none.
    fn find(&self, id: Option<&str>, signature: Signature) -> Result<&SigningKey, TokenFault> {
        let Some(id) = id else {
            let mut fitting = self.0.iter().filter(|key| key.fits(signature));
            return match (fitting.next(), fitting.next()) {
                (Some(key), None) => Ok(key),
                _ => Err(TokenFault::Malformed),
            };
        };
        let mut named = self.0.iter().filter(|key| key.id.as_deref() == Some(id)).peekable();
        if named.peek().is_none() {
            return Err(TokenFault::UnknownKey);
        }
        named.find(|key| key.fits(signature)).ok_or(TokenFault::Algorithm)
    }
}

// === impl SigningKey ===

impl SigningKey {
    fn of(jwk: &Jwk) -> Option<Self> {
        let kind = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Kind::Rsa,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Kind::P256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => Kind::P384,
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Kind::Ed25519,
            _ => return None,
        };
        let is_for_signatures = jwk.common.public_key_use.as_ref().is_none_or(|for_what| *for_what == PublicKeyUse::Signature);
        let key = DecodingKey::from_jwk(jwk).ok().filter(|_| is_for_signatures)?;
        Some(Self { id: jwk.common.key_id.clone(), kind, algorithm: jwk.common.key_algorithm, key })
    }

    fn fits(&self, signature: Signature) -> bool {
        let (kind, algorithm) = match signature {
            Signature::RS256 => (Kind::Rsa, KeyAlgorithm::RS256),
            Signature::PS256 => (Kind::Rsa, KeyAlgorithm::PS256),
            Signature::ES256 => (Kind::P256, KeyAlgorithm::ES256),
            Signature::ES384 => (Kind::P384, KeyAlgorithm::ES384),
            Signature::EdDSA => (Kind::Ed25519, KeyAlgorithm::EdDSA),
        };
        self.kind == kind && self.algorithm.is_none_or(|declared| declared == algorithm)
    }
}

/// Whose a token is and what it permits, where it holds at `now`.
pub(super) fn verify(token: &[u8], keys: &KeySet, rules: &Jwt, now: Timestamp) -> Result<Bearer, TokenFault> {
    if token.len() > LONGEST {
        return Err(TokenFault::Malformed);
    }
    // `none` is no algorithm of the library's, and ends here.
    let header = jsonwebtoken::decode_header(token).map_err(|_| TokenFault::Malformed)?;
    let signature = match header.alg {
        Algorithm::RS256 => Signature::RS256,
        Algorithm::PS256 => Signature::PS256,
        Algorithm::ES256 => Signature::ES256,
        Algorithm::ES384 => Signature::ES384,
        Algorithm::EdDSA => Signature::EdDSA,
        _ => return Err(TokenFault::Algorithm),
    };
    // What stands in `crit` must be understood, and nothing is (RFC 7515, 4.1.11).
    if !rules.algorithms.contains(&signature) || header.crit.is_some() {
        return Err(TokenFault::Algorithm);
    }
    let key = keys.find(header.kid.as_deref(), signature)?;
    // The signature alone: what is claimed is looked at here, by the clock that is an argument.
    let mut signed = Validation::new(header.alg);
    signed.required_spec_claims.clear();
    (signed.validate_exp, signed.validate_nbf, signed.validate_aud) = (false, false, false);
    let claims: Value = jsonwebtoken::decode(token, &key.key, &signed).map_err(|_| TokenFault::Signature)?.claims;
    check(&claims, rules, now)
}

fn check(claims: &Value, rules: &Jwt, now: Timestamp) -> Result<Bearer, TokenFault> {
    let (now, leeway) = (now.as_duration().as_secs_f64(), rules.leeway.as_secs_f64());
    if claims["exp"].as_f64().is_none_or(|expires| expires + leeway <= now) {
        return Err(TokenFault::Expired);
    }
    match &claims["nbf"] {
        Value::Null => {}
        from if from.as_f64().is_some_and(|from| from <= now + leeway) => {}
        _ => return Err(TokenFault::Early),
    }
    if claims["iss"].as_str() != Some(&rules.issuer) {
        return Err(TokenFault::Issuer);
    }
    let is_ours = |audience: &Value| audience.as_str().is_some_and(|audience| rules.audience.iter().any(|ours| ours == audience));
    let is_for_us = match &claims["aud"] {
        Value::Array(several) => several.iter().any(is_ours),
        one => is_ours(one),
    };
    if !is_for_us {
        return Err(TokenFault::Audience);
    }
    let subject = claims["sub"].as_str().filter(|subject| !subject.is_empty() && subject.len() <= LONGEST_SUBJECT);
    let subject = subject.ok_or(TokenFault::Subject)?.to_owned();
    Ok(Bearer { subject, scopes: scopes(claims, rules) })
}

/// What the words of the claim permit; those that nobody knows permit nothing.
fn scopes(claims: &Value, rules: &Jwt) -> Scopes {
    // Names of claims may hold dots themselves, as addresses do.
    let claim = claims.get(&rules.claim).or_else(|| rules.claim.split('.').try_fold(claims, |within, name| within.get(name)));
    let words: Vec<&str> = match claim {
        Some(Value::String(text)) => text.split_ascii_whitespace().collect(),
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let known = rules.scopes.iter().filter(|(word, _)| words.contains(&word.as_str()));
    known.fold(Scopes::default(), |all, (_, scopes)| all.and(*scopes))
}

#[cfg(test)]
pub(super) mod tests;
