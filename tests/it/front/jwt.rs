//! Tokens of an identity provider at the front door, whose keys are fetched from a real server or read from a file.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

use crate::front::{ADMIN, Front, READ};
use crate::sidecar::eventually;

struct Issuer(EcdsaKeyPair);

// === impl Issuer ===

impl Issuer {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn keys(&self) -> String {
        let point = self.0.public_key().as_ref();
        let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "2026", "alg": "ES256", "use": "sig", "x": x, "y": y }] }).to_string()
    }

    /// Serves its keys, as a thread that ends with the tests.
    fn serve(&self) -> String {
        let (listener, body) = (TcpListener::bind("127.0.0.1:0").unwrap(), self.keys());
        let url = format!("http://{}/.well-known/jwks.json", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let _ = stream.read(&mut [0; 4096]);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        url
    }

    fn token(&self, change: &[(&str, Value)]) -> String {
        let mut claims = json!({
            "iss": "https://id.example.com/", "aud": ["bellwether"], "sub": "ada@example.com",
            "exp": jiff::Timestamp::now().as_second() + 600, "roles": { "door": ["viewer", "other"] },
        });
        for (name, value) in change {
            claims[*name] = value.clone();
        }
        let header = json!({ "alg": "ES256", "kid": "2026", "typ": "JWT" });
        let text = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = self.0.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", BASE64.encode(signature))
    }
}

fn section(place: &str) -> String {
    format!(
        "    jwt:
      {place}
      issuer: https://id.example.com/
      audience: [bellwether]
      claim: roles.door
      scopes: {{ viewer: [read], operator: [admin] }}
"
    )
}

fn lets_in_whom_the_issuer_names(front: &Front, issuer: &Issuer) {
    const PROJECTS: &str = "/api/v1/projects";
    let token = issuer.token(&[]);
    eventually("the keys are known", || front.status("GET", PROJECTS, &token), |status| *status == 200);
    let value = front.sidecar.value("bellwether_front_keys_reload_success{key=\"jwt\"}");
    assert_eq!(value, Some(1.0));
    assert_eq!(front.status("POST", "/api/v1/projects/65f0c0ffee65f0c0ffee65f0/discover", &token), 403, "a viewer starts nothing");
    assert_eq!(front.status("GET", PROJECTS, &issuer.token(&[("roles", json!({ "door": "operator" }))])), 200);
    assert_eq!(front.status("GET", PROJECTS, &issuer.token(&[("roles", json!({ "door": ["nobody"] }))])), 403);
    for (wrong, what) in [
        (issuer.token(&[("exp", json!(1_700_000_000))]), "over"),
        (issuer.token(&[("aud", json!("another"))]), "for another"),
        (issuer.token(&[("iss", json!("https://evil.example.com/"))]), "of another"),
        (Issuer::new().token(&[]), "signed by another"),
        (token.replace('.', "%2E"), "no token"),
        (format!("{token}x"), "changed"),
    ] {
        let (status, head, body) = front.ask("GET", PROJECTS, &wrong, "", "");
        assert_eq!(status, 401, "{what}");
        assert!(!head.contains("ey") && !body.contains("ey"), "nothing of the token is repeated: {head} {body}");
    }
    // Keys hold beside tokens; a token is no API key, and not both at once.
    assert_eq!((front.status("GET", PROJECTS, READ), front.status("GET", PROJECTS, ADMIN)), (200, 200));
    assert_eq!(front.ask("GET", PROJECTS, "", &format!("X-API-Key: {token}\r\n"), "").0, 401);
    assert_eq!(front.ask("GET", PROJECTS, &token, &format!("X-API-Key: {READ}\r\n"), "").0, 400);
    assert!(!front.sidecar.log().contains(&token[..40]), "no token stands in the log");
}

#[test]
fn whoever_bears_a_token_of_the_issuer_is_let_in_by_its_words() {
    let issuer = Issuer::new();
    let front = Front::open(&section(&format!("jwks_url: {}", issuer.serve())));
    lets_in_whom_the_issuer_names(&front, &issuer);
    let seen = Value::from(front.api.seen()).to_string();
    assert!(seen.contains("x-bellwether-client: jwt:ada@example.com"), "{seen}");
    assert!(!seen.contains("authorization:") && !seen.contains(&issuer.token(&[])[..40]), "the API sees no token: {seen}");
}

#[test]
fn keys_of_a_file_hold_and_are_replaced_while_it_runs() {
    let (issuer, next, file) = (Issuer::new(), Issuer::new(), tempfile::NamedTempFile::new().unwrap());
    std::fs::write(file.path(), issuer.keys()).unwrap();
    let front = Front::open(&section(&format!("jwks_file: {}", file.path().display())));
    lets_in_whom_the_issuer_names(&front, &issuer);
    std::fs::write(file.path(), next.keys()).unwrap();
    eventually("the next key holds", || front.status("GET", "/api/v1/projects", &next.token(&[])), |status| *status == 200);
    assert_eq!(front.status("GET", "/api/v1/projects", &issuer.token(&[])), 401, "and the one before does not");
}
