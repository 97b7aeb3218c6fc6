//! Tokens signed with real keys of each kind, and everything that a token may lie about.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::json;

use super::*;
use crate::config::front::jwt::JwksSource;
use crate::config::front::routes::Scope;

const NOW: i64 = 1_800_000_000;

pub enum Signer {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

// === impl Signer ===

impl Signer {
    fn all() -> [(&'static str, Self); 4] {
        [
            ("RS256", Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())),
            ("ES256", Self::p256()),
            ("ES384", Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())),
            ("EdDSA", Self::Ed25519(Ed25519KeyPair::generate().unwrap())),
        ]
    }

    pub fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub fn jwk(&self, id: &str) -> Value {
        let point = |bytes: &[u8], half: usize| (BASE64.encode(&bytes[1..=half]), BASE64.encode(&bytes[1 + half..]));
        match self {
            Self::Rsa(key) => {
                let (n, e) = (key.public_key().modulus(), key.public_key().exponent());
                json!({ "kty": "RSA", "kid": id, "use": "sig",
                    "n": BASE64.encode(n.big_endian_without_leading_zero()), "e": BASE64.encode(e.big_endian_without_leading_zero()) })
            }
            Self::P256(key) => {
                let (x, y) = point(key.public_key().as_ref(), 32);
                json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": x, "y": y })
            }
            Self::P384(key) => {
                let (x, y) = point(key.public_key().as_ref(), 48);
                json!({ "kty": "EC", "crv": "P-384", "kid": id, "x": x, "y": y })
            }
            Self::Ed25519(key) => json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": BASE64.encode(key.public_key().as_ref()) }),
        }
    }

    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let text = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let random = SystemRandom::new();
        let signature = match self {
            Self::Rsa(key) => {
                let way =
                    if header["alg"] == "PS256" { &RSA_PSS_SHA256 as &dyn aws_lc_rs::signature::RsaEncoding } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(way, &random, text.as_bytes(), &mut signature).unwrap();
                signature
            }
            Self::P256(key) | Self::P384(key) => key.sign(&random, text.as_bytes()).unwrap().as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(text.as_bytes()).as_ref().to_vec(),
        };
        format!("{text}.{}", BASE64.encode(signature))
    }
}

pub fn set_of(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn set(keys: &[Value]) -> KeySet {
    KeySet::read(set_of(keys).as_bytes()).unwrap()
}

fn rules() -> Jwt {
    Jwt {
        source: JwksSource::File("/nowhere".into()),
        issuer: "https://id.example.com/".to_owned(),
        audience: vec!["bellwether".to_owned()],
        algorithms: vec![Signature::RS256, Signature::ES256, Signature::ES384, Signature::EdDSA],
        leeway: std::time::Duration::from_secs(30),
        claim: "scope".to_owned(),
        scopes: vec![
            ("read".to_owned(), Scopes::default().with(Scope::Read)),
            ("ops".to_owned(), [Scope::Runs, Scope::Secrets].into_iter().collect()),
        ],
    }
}

pub fn claims_until(second: i64) -> Value {
    json!({ "iss": "https://id.example.com/", "aud": "bellwether", "sub": "ada", "exp": second, "scope": "read email" })
}

fn claims() -> Value {
    with(claims_until(NOW + 300), "nbf", json!(NOW - 5))
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn a_token_of_each_kind_of_key_holds_and_no_other_signature_does() {
    let signers = Signer::all();
    let keys = set(&signers.iter().map(|(name, signer)| signer.jwk(name)).collect::<Vec<_>>());
    for (name, signer) in &signers {
        let token = signer.sign(&json!({ "alg": name, "kid": name, "typ": "JWT" }), &claims());
        let bearer = verify(token.as_bytes(), &keys, &rules(), at(NOW)).unwrap();
        assert_eq!((bearer.subject.as_str(), bearer.scopes), ("ada", Scopes::default().with(Scope::Read)), "{name}");
        // Without a name of the key, the only one of its kind is taken.
        let unnamed = signer.sign(&json!({ "alg": name }), &claims());
        assert!(verify(unnamed.as_bytes(), &keys, &rules(), at(NOW)).is_ok(), "{name}");
        // Another key of the same kind signs under the same name.
        let (_, other) = Signer::all().into_iter().find(|(other, _)| other == name).unwrap();
        let forged = other.sign(&json!({ "alg": name, "kid": name }), &claims());
        assert_eq!(verify(forged.as_bytes(), &keys, &rules(), at(NOW)), Err(TokenFault::Signature), "{name}");
        let mut parts: Vec<&str> = token.split('.').collect();
        let changed = BASE64.encode(with(claims(), "scope", json!("ops")).to_string());
        parts[1] = &changed;
        assert_eq!(verify(parts.join(".").as_bytes(), &keys, &rules(), at(NOW)), Err(TokenFault::Signature), "{name}");
    }
    // The same RSA key signs in a way that the configuration does not name, and in one that it does.
    let probabilistic = signers[0].1.sign(&json!({ "alg": "PS256", "kid": "RS256" }), &claims());
    assert_eq!(verify(probabilistic.as_bytes(), &keys, &rules(), at(NOW)), Err(TokenFault::Algorithm));
    let wider = Jwt { algorithms: vec![Signature::PS256], ..rules() };
    assert!(verify(probabilistic.as_bytes(), &keys, &wider, at(NOW)).is_ok());
}

#[test]
fn a_token_does_not_choose_how_it_is_checked() {
    let signers = Signer::all();
    let (rsa, curve) = (&signers[0].1, &signers[1].1);
    let mut declared = rsa.jwk("declared");
    declared["alg"] = json!("PS256");
    let mut for_secrets = curve.jwk("encrypts");
    for_secrets["use"] = json!("enc");
    let symmetric = json!({ "kty": "oct", "kid": "shared", "k": BASE64.encode("hunter2hunter2hunter2hunter2hunt") });
    let public = rsa.jwk("rsa");
    let keys = set(&[public.clone(), curve.jwk("curve"), declared, for_secrets, symmetric, json!({ "kty": "new", "kid": "x" })]);
    assert_eq!(keys.len(), 3);
    let payload = BASE64.encode(claims().to_string());
    // Signed with the text of the public key as a shared secret.
    for secret in [public["n"].as_str().unwrap(), "hunter2hunter2hunter2hunter2hunt", ""] {
        for id in ["rsa", "shared"] {
            let text = format!("{}.{payload}", BASE64.encode(json!({ "alg": "HS256", "kid": id }).to_string()));
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
            let token = format!("{text}.{}", BASE64.encode(aws_lc_rs::hmac::sign(&key, text.as_bytes())));
            assert_eq!(verify(token.as_bytes(), &keys, &rules(), at(NOW)), Err(TokenFault::Algorithm));
        }
    }
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let token = format!("{}.{payload}.", BASE64.encode(json!({ "alg": none, "kid": "rsa" }).to_string()));
        assert_eq!(verify(token.as_bytes(), &keys, &rules(), at(NOW)), Err(TokenFault::Malformed), "{none}");
    }
    let refused = |header: Value, signer: &Signer| verify(signer.sign(&header, &claims()).as_bytes(), &keys, &rules(), at(NOW));
    assert_eq!(refused(json!({ "alg": "ES256", "kid": "rsa" }), curve), Err(TokenFault::Algorithm), "a key of another kind");
    assert_eq!(refused(json!({ "alg": "RS256", "kid": "declared" }), rsa), Err(TokenFault::Algorithm), "a key for something else");
    assert_eq!(refused(json!({ "alg": "ES256", "kid": "encrypts" }), curve), Err(TokenFault::UnknownKey));
    assert_eq!(refused(json!({ "alg": "ES256", "kid": "gone" }), curve), Err(TokenFault::UnknownKey));
    assert_eq!(refused(json!({ "alg": "RS256", "kid": "rsa", "crit": ["b64"], "b64": false }), rsa), Err(TokenFault::Algorithm));
    // A key within the token, or an address of one, is nobody's.
    assert_eq!(refused(json!({ "alg": "ES256", "jwk": curve.jwk("own"), "kid": "own" }), curve), Err(TokenFault::UnknownKey));
    for odd in ["", ".", "..", "a.b.c", "a.b.c.d", &"x".repeat(20_000)] {
        assert_eq!(verify(odd.as_bytes(), &keys, &rules(), at(NOW)), Err(TokenFault::Malformed), "{odd:.10}");
    }
    let two = set(&[curve.jwk("one"), Signer::all()[1].1.jwk("two")]);
    let unnamed = curve.sign(&json!({ "alg": "ES256" }), &claims());
    assert_eq!(verify(unnamed.as_bytes(), &two, &rules(), at(NOW)), Err(TokenFault::Malformed), "which of the two is not said");
}

#[test]
fn what_a_token_claims_is_held_to_the_second() {
    let signer = &Signer::all()[3].1;
    let keys = set(&[signer.jwk("k")]);
    let verified = |claims: Value, second: i64| {
        verify(signer.sign(&json!({ "alg": "EdDSA", "kid": "k" }), &claims).as_bytes(), &keys, &rules(), at(second))
    };
    // With half a minute for clocks that differ.
    assert!(verified(claims(), NOW + 329).is_ok());
    assert_eq!(verified(claims(), NOW + 330), Err(TokenFault::Expired));
    assert!(verified(claims(), NOW - 35).is_ok());
    assert_eq!(verified(claims(), NOW - 36), Err(TokenFault::Early));
    for (name, value, fault) in [
        ("exp", Value::Null, TokenFault::Expired),
        ("exp", json!("2030-01-01"), TokenFault::Expired),
        ("exp", json!((NOW + 300).to_string()), TokenFault::Expired),
        ("nbf", json!("tomorrow"), TokenFault::Early),
        ("iss", Value::Null, TokenFault::Issuer),
        ("iss", json!("https://id.example.com"), TokenFault::Issuer),
        ("iss", json!(["https://id.example.com/"]), TokenFault::Issuer),
        ("aud", Value::Null, TokenFault::Audience),
        ("aud", json!("Bellwether"), TokenFault::Audience),
        ("aud", json!(["other", ["bellwether"]]), TokenFault::Audience),
        ("sub", Value::Null, TokenFault::Subject),
        ("sub", json!(""), TokenFault::Subject),
        ("sub", json!("x".repeat(256)), TokenFault::Subject),
    ] {
        assert_eq!(verified(with(claims(), name, value.clone()), NOW), Err(fault), "{name}: {value}");
    }
    assert!(verified(with(claims(), "nbf", Value::Null), NOW).is_ok());
    assert!(verified(with(claims(), "aud", json!(["other", "bellwether"])), NOW).is_ok());
    assert!(verified(json!([1]), NOW).is_err());
}

#[test]
fn scopes_come_from_the_words_that_are_known() {
    let scopes_of = |claim: &str, claims: Value| scopes(&claims, &Jwt { claim: claim.to_owned(), ..rules() });
    let (read, ops) = (Scopes::default().with(Scope::Read), [Scope::Runs, Scope::Secrets].into_iter().collect());
    assert_eq!(scopes_of("scope", json!({ "scope": "  read  other" })), read);
    assert_eq!(scopes_of("scope", json!({ "scope": "admin readx" })), Scopes::default());
    assert_eq!(scopes_of("realm_access.roles", json!({ "realm_access": { "roles": ["ops", 1] } })), ops);
    assert_eq!(scopes_of("https://example.com/roles", json!({ "https://example.com/roles": ["ops"] })), ops);
    assert_eq!(scopes_of("scope", json!({ "scope": { "read": true } })), Scopes::default());
    assert_eq!(scopes_of("scope", json!({})), Scopes::default());
}

#[test]
fn a_set_without_a_key_that_could_be_used_is_no_set() {
    for (text, says) in [
        ("", "no JWK set"),
        ("{}", "no JWK set"),
        ("[]", "no JWK set"),
        (r#"{"keys":[]}"#, "no key"),
        (r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#, "no key"),
    ] {
        let fault = KeySet::read(text.as_bytes()).map(|_| ()).unwrap_err().to_string();
        assert!(fault.contains(says), "{text}: {fault}");
    }
    let many = json!({ "keys": vec![Signer::all()[3].1.jwk("k"); 65] }).to_string();
    assert!(matches!(KeySet::read(many.as_bytes()), Err(KeySetFault::Many)));
}
