//! `stores.postgres`: the connection string of a Postgres, as applications of every language write it.
//!
//! Owns what other clients take and ours does not: SQLAlchemy's drivers in the scheme, Prisma's options, libpq's TLS
//! modes.

use std::path::PathBuf;
use std::str::FromStr as _;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::config::problems::{Complaints, Problem, Problems};
use crate::config::spanned::Spanned;
use crate::config::trust::{Authorities, Trust};

/// The options of a connection string that our client takes. Others are left out with a warning.
const TAKEN: [&str; 18] = [
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "sslmode",
    "sslnegotiation",
    "host",
    "hostaddr",
    "port",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
];

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Postgres")]
pub(super) struct RawPostgres {
    /// The connection string, such as `postgresql://user:password@host:5432/database`.
    url: Spanned<String>,
    /// A PEM file of the authorities to trust, instead of the system's.
    ca_file: Option<Spanned<PathBuf>>,
}

/// A Postgres that can be reached in principle: the connection string has been parsed.
#[derive(Clone, Debug)]
pub struct PostgresStore {
    /// What the client needs to know; its password is not printed.
    pub config: Config,
    /// Whom to trust.
    pub trust: Trust,
}

/// A connection string in the words of our client, and what was left out.
#[derive(Debug, Default, PartialEq)]
struct Normalised {
    url: String,
    left_out: Vec<String>,
    root_certificate: Option<String>,
}

// === impl RawPostgres ===

impl RawPostgres {
    pub(super) fn validate(self, problems: &mut Problems) -> Option<PostgresStore> {
        let path = "stores.postgres.url";
        let normalised = normalise(&self.url.value);
        for option in &normalised.left_out {
            let message = format!("the option {option} is left out: it means nothing to the sidecar's one connection");
            problems.warn(Problem { place: self.url.place.clone(), path: path.to_owned(), message });
        }
        let mut complaints = Complaints::new(self.url.place.clone(), path.to_owned(), problems);
        let Ok(mut config) = Config::from_str(&normalised.url) else {
            // The error's own text may quote the password.
            complaints.say(
                "this is not a connection string of Postgres; write postgresql://user:password@host:5432/database, with special \
                 characters of the password percent-encoded",
            );
            return None;
        };
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            complaints.say("there is no host in this connection string");
        }
        if config.get_user().is_none() {
            complaints.say("there is no user in this connection string; the name of the sidecar's own user would be wrong");
        }
        let ca_file = self.ca_file.as_ref().map(|file| file.value.clone()).or(normalised.root_certificate.map(PathBuf::from));
        let trust = match (ca_file, config.get_ssl_mode()) {
            (Some(file), _) => match Authorities::read(&file) {
                Ok(authorities) => Trust::Only(authorities),
                Err(message) => {
                    complaints.say(message);
                    Trust::System
                }
            },
            // `prefer` would go on without TLS, so that a certificate of nobody's is no loss. Debian's Postgres has one.
            (None, SslMode::Prefer) => Trust::Anybody,
            (None, _) => Trust::System,
        };
        if config.get_application_name().is_none() {
            config.application_name("bellwether-health");
        }
        (!complaints.is_failed()).then_some(PostgresStore { config, trust })
    }
}

/// Puts a connection string into the words of our client.
fn normalise(url: &str) -> Normalised {
    let Some((scheme, rest)) = url.split_once("://") else { return Normalised { url: url.to_owned(), ..Normalised::default() } };
    let scheme = scheme.split('+').next().unwrap_or_default();
    let Some((head, query)) = rest.split_once('?') else {
        return Normalised { url: format!("{scheme}://{rest}"), ..Normalised::default() };
    };
    let mut normalised = Normalised::default();
    let mut kept = Vec::new();
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match (name, value) {
            ("sslmode", "verify-ca" | "verify-full") => kept.push("sslmode=require".to_owned()),
            ("sslmode", "allow") => kept.push("sslmode=prefer".to_owned()),
            ("ssl", "true" | "require" | "1") => kept.push("sslmode=require".to_owned()),
            ("ssl", "false" | "disable" | "0") => kept.push("sslmode=disable".to_owned()),
            ("sslrootcert", "system") => {}
            ("sslrootcert", path) => normalised.root_certificate = Some(path.replace("%2F", "/")),
            ("target_session_attrs", "primary") => kept.push("target_session_attrs=read-write".to_owned()),
            ("target_session_attrs", "standby") => kept.push("target_session_attrs=read-only".to_owned()),
            ("target_session_attrs", "prefer-standby") => normalised.left_out.push(name.to_owned()),
            _ if TAKEN.contains(&name) => kept.push(option.to_owned()),
            _ => normalised.left_out.push(name.to_owned()),
        }
    }
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    normalised.url = format!("{scheme}://{head}{query}");
    normalised
}

// === impl PostgresStore ===

impl PostgresStore {
    /// The hosts that are asked, without ports.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        let named = self.config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            // A socket in the file system is on this machine.
            #[cfg(unix)]
            Host::Unix(_) => "localhost".to_owned(),
        });
        named.chain(self.config.get_hostaddrs().iter().map(ToString::to_string)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, normal: &str, left_out: &[&str]) {
        let found = normalise(url);
        assert_eq!(found.url, normal);
        assert_eq!(found.left_out, left_out);
        assert!(Config::from_str(&found.url).is_ok(), "{url}");
    }

    #[test]
    fn connection_strings_of_other_clients_are_understood() {
        check("postgres://u:p@h/d", "postgres://u:p@h/d", &[]);
        check("postgresql+psycopg2://u:p%40@h:5432/d", "postgresql://u:p%40@h:5432/d", &[]);
        check("postgresql+asyncpg://u:p@h/d?ssl=require", "postgresql://u:p@h/d?sslmode=require", &[]);
        check(
            "postgresql://u:p@h/d?schema=public&connection_limit=10&sslmode=verify-full",
            "postgresql://u:p@h/d?sslmode=require",
            &["schema", "connection_limit"],
        );
        check("postgresql://u:p@h/d?pgbouncer=true", "postgresql://u:p@h/d", &["pgbouncer"]);
        check("host=h user=u dbname=d", "host=h user=u dbname=d", &[]);
    }

    #[test]
    fn a_root_certificate_is_taken_from_the_connection_string() {
        let found = normalise("postgresql://u@h/d?sslmode=verify-ca&sslrootcert=%2Fetc%2Fca.pem");
        assert_eq!(found.root_certificate.as_deref(), Some("/etc/ca.pem"));
    }

    #[test]
    fn a_password_is_not_printed() {
        let config = Config::from_str("postgresql://u:hunter2@h/d").unwrap();
        let store = PostgresStore { config, trust: Trust::System };
        assert!(!format!("{store:?}").contains("hunter2"));
        assert_eq!(store.hosts(), ["h"]);
    }
}
