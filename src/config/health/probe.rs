//! What a check asks, as it is meant: one type for each protocol.
//!
//! Secrets are in redacting types, and addresses print without user, password and query.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderMap;

use crate::config::health::assertion::{Assertion, Statuses};
use crate::config::stores::{MongoStore, PostgresStore, RedisStore};
use crate::config::trust::{Authorities, Trust};

/// What a check asks.
#[derive(Clone, Debug)]
pub enum Probe {
    /// `ping` and `hello`.
    Mongodb(MongodbProbe),
    /// `SELECT 1`, and a query.
    Postgres(PostgresProbe),
    /// `PING`, and a key.
    Redis(RedisProbe),
    /// A GET whose status and body count.
    Http(HttpProbe),
    /// A connection that is accepted.
    Tcp {
        /// Host and port.
        address: String,
    },
    /// A certificate that is good, and for how long.
    Tls(TlsProbe),
    /// A name that resolves.
    Dns(DnsProbe),
    /// A file that is written again and again.
    File(FileProbe),
    /// CPU, memory and disk.
    Host(HostProbe),
}

/// A MongoDB, and what its member must be.
#[derive(Clone, Debug)]
pub struct MongodbProbe {
    /// Where it is.
    pub store: MongoStore,
    /// What must answer.
    pub require: Require,
    /// How long one look may take: what the driver waits for must end before.
    pub limit: Duration,
}

/// Which member of a replica set must answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Require {
    /// Any that serves: a standalone, a router, a primary or a secondary.
    #[default]
    Any,
    /// One that takes writes.
    Primary,
}

/// A Postgres, and what it must say.
#[derive(Clone, Debug)]
pub struct PostgresProbe {
    /// Where it is.
    pub store: PostgresStore,
    /// A query that must return a row.
    pub query: Option<Query>,
    /// How long one look may take: the server ends the query then.
    pub limit: Duration,
}

/// A query and what passes.
#[derive(Clone, Debug)]
pub struct Query {
    /// The statement.
    pub sql: String,
    /// The values that pass in the first column of the first row; empty for any row.
    pub expect: Vec<String>,
}

/// A Redis, and a key that must be there.
#[derive(Clone, Debug)]
pub struct RedisProbe {
    /// Where it is.
    pub store: RedisStore,
    /// The key that must be there.
    pub key: Option<WatchedKey>,
}

/// A key that somebody writes again and again.
#[derive(Clone, Debug)]
pub struct WatchedKey {
    /// Its name.
    pub name: String,
    /// How old the time in its value may be.
    pub max_age: Option<Duration>,
}

/// A GET and what its answer must be.
#[derive(Clone)]
pub struct HttpProbe {
    /// The address, and those that are tried while the one before is not there.
    pub urls: Vec<Url>,
    /// The statuses that pass.
    pub status: Statuses,
    /// Statuses that show a living component although it did not answer what was asked.
    pub alive: Statuses,
    /// What the body must say.
    pub json: Vec<Assertion>,
    /// Headers of the request; their values are marked as sensitive.
    pub headers: HeaderMap,
    /// Whom to trust.
    pub trust: Trust,
}

/// A server whose certificate is looked at.
#[derive(Clone, Debug)]
pub struct TlsProbe {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The name that the certificate must be for.
    pub server_name: rustls::pki_types::ServerName<'static>,
    /// Degraded when the certificate ends within this time.
    pub warn_before: Duration,
    /// Failed when the certificate ends within this time.
    pub fail_before: Duration,
    /// Whom to trust.
    pub trust: Trust,
}

/// A name that resolves.
#[derive(Clone, Debug)]
pub struct DnsProbe {
    /// The name.
    pub name: String,
    /// To at least so many addresses.
    pub min_addresses: usize,
}

/// A file that is written again and again.
#[derive(Clone, Debug)]
pub struct FileProbe {
    /// The file.
    pub path: PathBuf,
    /// How long ago it may have been written; `None` when being there is enough.
    pub max_age: Option<Duration>,
}

/// The limits of a machine or a control group.
#[derive(Clone, Debug, Default)]
pub struct HostProbe {
    /// CPU use.
    pub cpu: Option<Limits>,
    /// Memory use.
    pub memory: Option<Limits>,
    /// The use of a file system.
    pub disk: Option<Disk>,
    /// The folder of a control group, where it is not this process's own.
    pub cgroup: Option<PathBuf>,
}

/// Two limits of a ratio: 0 is unused, 1 is all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Degraded from here on.
    pub warn: Option<f64>,
    /// Failed from here on.
    pub fail: Option<f64>,
}

/// A file system and its limits.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Any path on it.
    pub path: PathBuf,
    /// Its limits.
    pub limits: Limits,
}

// === impl Probe ===

impl Probe {
    /// What draft-inadarei-api-health-check calls it.
    #[must_use]
    pub fn component_type(&self) -> &'static str {
        match self {
            Self::Mongodb(_) | Self::Postgres(_) | Self::Redis(_) => "datastore",
            Self::Http(_) | Self::Tcp { .. } | Self::Tls(_) | Self::Dns(_) => "component",
            Self::File(_) | Self::Host(_) => "system",
        }
    }

    /// The authorities of its own that its server is judged by.
    #[must_use]
    pub fn authorities(&self) -> Option<&Authorities> {
        let trust = match self {
            Self::Http(probe) => &probe.trust,
            Self::Tls(probe) => &probe.trust,
            Self::Postgres(probe) => &probe.store.trust,
            Self::Redis(probe) => probe.store.tls.as_ref()?,
            Self::Mongodb(_) | Self::Tcp { .. } | Self::Dns(_) | Self::File(_) | Self::Host(_) => return None,
        };
        match trust {
            Trust::Only(authorities) => Some(authorities),
            Trust::System | Trust::Anybody => None,
        }
    }

    /// The hosts that it asks, without ports; none for what is looked at on this machine. MongoDB is not among them:
    /// its hosts stand in a secret.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        match self {
            Self::Mongodb(_) | Self::File(_) | Self::Host(_) => Vec::new(),
            Self::Postgres(probe) => probe.store.hosts(),
            Self::Redis(probe) => vec![probe.store.host.clone()],
            Self::Http(probe) => probe.urls.iter().filter_map(|url| url.host_str().map(str::to_owned)).collect(),
            Self::Tcp { address } => address.rsplit_once(':').map(|(host, _)| host.to_owned()).into_iter().collect(),
            Self::Tls(probe) => vec![probe.host.clone()],
            Self::Dns(probe) => vec![probe.name.clone()],
        }
    }
}

// === impl HttpProbe ===

impl fmt::Debug for HttpProbe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<String> =
            self.urls.iter().map(|url| format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())).collect();
        formatter
            .debug_struct("HttpProbe")
            .field("urls", &urls)
            .field("status", &self.status)
            .field("alive", &self.alive)
            .field("json", &self.json)
            .field("headers", &self.headers)
            .field("trust", &self.trust)
            .finish()
    }
}
