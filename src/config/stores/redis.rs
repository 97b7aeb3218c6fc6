//! `stores.redis`: the address of a Redis (or Valkey).

use std::path::PathBuf;

use redis::{ConnectionAddr, IntoConnectionInfo as _};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::{Complaints, Problems};
use crate::config::spanned::Spanned;
use crate::config::trust::{Authorities, Trust};
use crate::secret::Secret;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Redis")]
pub(super) struct RawRedis {
    /// The address, such as `redis://:password@host:6379/0`, or `rediss://` for TLS.
    url: Spanned<String>,
    /// A PEM file of the authorities to trust, instead of the system's.
    ca_file: Option<Spanned<PathBuf>>,
}

/// A Redis that can be reached in principle: the address has been parsed.
#[derive(Clone, Debug)]
pub struct RedisStore {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The number of the database.
    pub database: i64,
    /// The user, where there are several.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// Whom to trust; `None` without TLS.
    pub tls: Option<Trust>,
}

// === impl RawRedis ===

impl RawRedis {
    pub(super) fn validate(self, problems: &mut Problems) -> Option<RedisStore> {
        let mut complaints = Complaints::new(self.url.place.clone(), "stores.redis.url".to_owned(), problems);
        let (is_tls, plain) = without_tls(&self.url.value);
        // The error's own text may quote the password.
        let parsed = plain.into_connection_info().ok().and_then(|info| match info.addr() {
            ConnectionAddr::Tcp(host, port) => Some((host.clone(), *port, info.redis_settings().clone())),
            _ => None,
        });
        let Some((host, port, settings)) = parsed else {
            complaints.say(
                "this is not the address of a Redis; write redis://:password@host:6379/0 or rediss:// for TLS, with special characters \
                 of the password percent-encoded",
            );
            return None;
        };
        let trust = match self.ca_file.as_ref().map(|file| Authorities::read(&file.value)) {
            None => Trust::System,
            Some(Ok(authorities)) => Trust::Only(authorities),
            Some(Err(message)) => {
                complaints.say(message);
                return None;
            }
        };
        if self.ca_file.is_some() && !is_tls {
            complaints.say("`ca_file` is for TLS, and this address begins with redis://; write rediss://");
            return None;
        }
        Some(RedisStore {
            host,
            port,
            database: settings.db(),
            user: settings.username().map(str::to_owned),
            password: settings.password().map(|password| Secret::new(password.to_owned())),
            tls: is_tls.then_some(trust),
        })
    }
}

/// Whether the address asks for TLS, and the address without: TLS is ours, so that every store is verified alike.
fn without_tls(url: &str) -> (bool, String) {
    for (secured, plain) in [("rediss://", "redis://"), ("valkeys://", "valkey://")] {
        if let Some(rest) = url.strip_prefix(secured) {
            return (true, format!("{plain}{rest}"));
        }
    }
    (false, url.to_owned())
}
