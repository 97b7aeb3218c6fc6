//! Whom the front door lets in: keys from files, each with its scopes, who bears a token, and what anybody may do.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::front::jwt::{Jwt, RawJwt};
use crate::config::front::routes::{Scope, Scopes};
use crate::config::problems::{Complaints, Place, Problem, Problems};
use crate::config::spanned::Spanned;
use crate::runtime::keys::KeyFile;

/// A key's name is in the log of each of its requests.
const LONGEST_NAME: usize = 48;
/// All of them are compared with for each request.
const MOST_KEYS: usize = 64;

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FrontAuth")]
pub(super) struct RawAuth {
    /// Keys that are sent as `Authorization: Bearer …` or `X-API-Key: …`.
    #[serde(default)]
    keys: Vec<Spanned<RawKey>>,
    /// Tokens that an identity provider signs, sent as `Authorization: Bearer …`.
    jwt: Option<Spanned<RawJwt>>,
    /// What anybody may do who sends no key. Nothing unless it is written.
    #[serde(default)]
    anonymous: Vec<Scope>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FrontKey")]
struct RawKey {
    /// Who holds it; for the log.
    name: String,
    /// A file with a key on each line, as it is or as `sha256:` and 64 hexadecimal digits. All of them hold, so that one
    /// can be replaced while the other is still in use. It is read again every few seconds.
    file: PathBuf,
    /// What its holder may do.
    scopes: Vec<Scope>,
}

/// Whom the front door lets in.
#[derive(Clone, Debug)]
pub struct Auth {
    /// Those who hold a key.
    pub keys: Vec<Key>,
    /// Whose tokens hold.
    pub jwt: Option<Jwt>,
    /// What everybody else may do.
    pub anonymous: Scopes,
}

/// Somebody who holds a key.
#[derive(Clone, Debug)]
pub struct Key {
    /// The holder's name.
    pub name: String,
    /// Where the keys are.
    pub file: KeyFile,
    /// What the holder may do.
    pub scopes: Scopes,
}

// === impl RawAuth ===

impl RawAuth {
    pub(super) fn is_written(&self) -> bool {
        !self.keys.is_empty() || self.jwt.is_some() || !self.anonymous.is_empty()
    }

    /// `is_plain` says that keys would cross the network as plain text.
    pub(super) fn validate(self, listen: Option<&Place>, is_plain: bool, problems: &mut Problems) -> Auth {
        let tell = |message: &str| Problem { place: listen.cloned(), path: "front.auth".to_owned(), message: message.to_owned() };
        if !self.is_written() {
            problems.error(tell(
                "nobody could use the front door: give `keys` or `jwt`, or say with `anonymous: [read, …]` what anybody may do without one",
            ));
        }
        if is_plain && !(self.keys.is_empty() && self.jwt.is_none()) {
            problems.warn(tell("the front door is not on loopback and has no `tls`: keys cross the network as plain text"));
        }
        let mut keys: Vec<Key> = Vec::new();
        for Spanned { place, value } in self.keys {
            let mut complaints = Complaints::new(place, "front.auth.keys".to_owned(), problems);
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            if value.name.is_empty() || value.name.len() > LONGEST_NAME || !value.name.bytes().all(is_plain) {
                complaints.say(format!("`name` has 1 to {LONGEST_NAME} of letters, digits, -, _ and ."));
            }
            if self.jwt.is_some() && value.name == "jwt" {
                complaints.say("`jwt` is the name under which the issuer of tokens is told of; choose another");
            }
            if keys.iter().any(|key| key.name == value.name) {
                complaints.say(format!("there are two keys of the name `{}`; several keys of one holder stand in one file", value.name));
            }
            if value.scopes.is_empty() || value.scopes.contains(&Scope::Open) {
                complaints.say("`scopes` names what its holder may do: read, runs, secrets, admin");
            }
            let file = KeyFile(value.file);
            if let Err(error) = file.read() {
                complaints.say(error.to_string());
            }
            keys.push(Key { name: value.name, file, scopes: value.scopes.into_iter().collect() });
        }
        if keys.len() > MOST_KEYS {
            problems.error(tell(&format!("there are more than {MOST_KEYS} keys")));
        }
        let jwt = self.jwt.and_then(|jwt| RawJwt::validate(jwt, problems));
        Auth { keys, jwt, anonymous: self.anonymous.into_iter().collect() }
    }
}
