//! What a check asks, as it is written: every key of every type, and which type has which.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::ServerName;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, de};

use crate::config::health::assertion::{Assertion, Statuses};
use crate::config::health::probe::{
    Disk, DnsProbe, FileProbe, HostProbe, HttpProbe, Limits, MongodbProbe, PostgresProbe, Probe, Query, RedisProbe, Require, TlsProbe,
    WatchedKey,
};
use crate::config::health::{RawCheck, Timing};
use crate::config::stores::Stores;
use crate::config::trust::{Authorities, Trust};
use crate::config::values::Texts;
use crate::secret::Secret;

/// Certificates that renew themselves do so weeks before; one that has not at this time will not.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 86_400);

#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "CheckType")]
pub(super) enum RawKind {
    Mongodb,
    Postgres,
    Redis,
    Http,
    Tcp,
    Tls,
    Dns,
    File,
    Host,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "RequiredMember")]
pub(super) enum RawRequire {
    Any,
    Primary,
}

/// Two limits of use.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Limits")]
pub(super) struct RawLimits {
    /// Degraded from here on.
    warn: Option<Percent>,
    /// Failed from here on.
    fail: Option<Percent>,
}

/// Two limits of the use of a file system.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DiskLimits")]
pub(super) struct RawDisk {
    /// Any path on it; `/` where nothing is said.
    path: Option<PathBuf>,
    /// Degraded from here on.
    warn: Option<Percent>,
    /// Failed from here on.
    fail: Option<Percent>,
}

/// A ratio that is written as `85%`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Percent(f64);

/// A text that is never printed.
#[derive(Clone, Debug)]
pub(super) struct Hidden(Secret);

// === impl RawKind ===

impl RawKind {
    fn name(self) -> &'static str {
        match self {
            Self::Mongodb => "mongodb",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Dns => "dns",
            Self::File => "file",
            Self::Host => "host",
        }
    }
}

// === impl RawCheck ===

impl RawCheck {
    /// Every key that belongs to some types only: whether it is given, and to which.
    fn own_keys(&self) -> [(&'static str, bool, &'static [RawKind]); 21] {
        use RawKind::{Dns, File, Host, Http, Mongodb, Postgres, Redis, Tcp, Tls};
        [
            ("url", self.url.is_some(), &[Http]),
            ("fallback", self.fallback.is_some(), &[Http]),
            ("status", self.status.is_some(), &[Http]),
            ("alive_status", self.alive_status.is_some(), &[Http]),
            ("json", self.json.is_some(), &[Http]),
            ("headers", self.headers.is_some(), &[Http]),
            ("ca_file", self.ca_file.is_some(), &[Http, Tls]),
            ("address", self.address.is_some(), &[Tcp, Tls]),
            ("server_name", self.server_name.is_some(), &[Tls]),
            ("warn_before", self.warn_before.is_some(), &[Tls]),
            ("fail_before", self.fail_before.is_some(), &[Tls]),
            ("require", self.require.is_some(), &[Mongodb]),
            ("query", self.query.is_some(), &[Postgres]),
            ("expect", self.expect.is_some(), &[Postgres]),
            ("key", self.key.is_some(), &[Redis]),
            ("max_age", self.max_age.is_some(), &[Redis, File]),
            ("path", self.path.is_some(), &[File]),
            ("name", self.name.is_some(), &[Dns]),
            ("min_addresses", self.min_addresses.is_some(), &[Dns]),
            ("cpu, memory or disk", self.cpu.is_some() || self.memory.is_some() || self.disk.is_some(), &[Host]),
            ("cgroup", self.cgroup.is_some(), &[Host]),
        ]
    }

    pub(super) fn probe(&self, timing: &Timing, stores: &Stores, complain: &mut impl FnMut(String)) -> Option<Probe> {
        for (key, _, kinds) in self.own_keys().iter().filter(|(_, given, kinds)| *given && !kinds.contains(&self.kind)) {
            let kinds: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
            complain(format!("a check of type {} has no `{key}`; that is for {}", self.kind.name(), kinds.join(" and ")));
        }
        let mut needs_store = |there: bool| {
            if !there && !stores.suspect {
                complain(format!("this check needs `stores.{}`", self.kind.name()));
            }
        };
        match self.kind {
            RawKind::Mongodb => {
                needs_store(stores.mongodb.is_some());
                let require = if let Some(RawRequire::Primary) = self.require { Require::Primary } else { Require::Any };
                Some(Probe::Mongodb(MongodbProbe { store: stores.mongodb.clone()?, require, limit: timing.timeout }))
            }
            RawKind::Postgres => {
                needs_store(stores.postgres.is_some());
                let query = self.query(complain);
                Some(Probe::Postgres(PostgresProbe { store: stores.postgres.clone()?, query, limit: timing.timeout }))
            }
            RawKind::Redis => {
                needs_store(stores.redis.is_some());
                let key = self.watched_key(complain);
                Some(Probe::Redis(RedisProbe { store: stores.redis.clone()?, key }))
            }
            RawKind::Http => self.http(complain).map(Probe::Http),
            RawKind::Tcp => self.address("localhost:27017", complain).map(|(host, port)| Probe::Tcp { address: format!("{host}:{port}") }),
            RawKind::Tls => self.tls(complain).map(Probe::Tls),
            RawKind::Dns => self.dns(complain).map(Probe::Dns),
            RawKind::File => {
                if self.path.is_none() {
                    complain("a check of type file needs a `path`".to_owned());
                }
                Some(Probe::File(FileProbe { path: self.path.clone()?, max_age: self.max_age.map(|age| age.0) }))
            }
            RawKind::Host => Some(Probe::Host(self.host(stores.suspect, complain))),
        }
    }

    fn query(&self, complain: &mut impl FnMut(String)) -> Option<Query> {
        let expect = self.expect.clone().unwrap_or_default().0;
        match &self.query {
            Some(sql) if sql.trim().is_empty() => complain("`query` is empty".to_owned()),
            // A second one could end the read-only transaction of the first.
            Some(sql) if sql.trim().trim_end_matches(';').contains(';') => {
                complain("`query` is one statement, without a `;` in it".to_owned())
            }
            Some(sql) => return Some(Query { sql: sql.trim().trim_end_matches(';').to_owned(), expect }),
            None if self.expect.is_some() => complain("`expect` is what a `query` must return; there is none".to_owned()),
            None => {}
        }
        None
    }

    fn watched_key(&self, complain: &mut impl FnMut(String)) -> Option<WatchedKey> {
        let max_age = self.max_age.map(|age| age.0);
        if self.key.is_none() && max_age.is_some() {
            complain("`max_age` is for the time in a `key`; there is none".to_owned());
        }
        Some(WatchedKey { name: self.key.clone()?, max_age })
    }

    fn http(&self, complain: &mut impl FnMut(String)) -> Option<HttpProbe> {
        let first = self.url.as_ref();
        if first.is_none() {
            complain("a check of type http needs a `url`".to_owned());
        }
        let written = first.map(|url| ("url", url)).into_iter().chain(self.fallback.iter().flatten().map(|url| ("fallback", url)));
        let mut urls = Vec::new();
        for (key, text) in written {
            match Url::parse(text) {
                Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => urls.push(url),
                // The text may hold a password, so it is not shown.
                _ => complain(format!("`{key}` is not an address such as http://localhost:8080/health")),
            }
        }
        let mut statuses = |key: &str, texts: &Option<Texts>, default: Statuses| match texts.as_ref().map(Statuses::parse) {
            None => default,
            Some(Some(statuses)) => statuses,
            Some(None) => {
                complain(format!("`{key}` is a status or a list of them, such as [200, 204], 200..299 or 2xx"));
                default
            }
        };
        let status = statuses("status", &self.status, Statuses::successes());
        let alive = statuses("alive_status", &self.alive_status, Statuses::default());
        let mut json = Vec::new();
        for (path, values) in self.json.iter().flat_map(|json| &json.0) {
            if path.is_empty() || values.0.is_empty() {
                complain("`json` names paths such as services.mongodb.status, and for each the values that pass".to_owned());
            }
            json.push(Assertion::new(path.clone(), values.0.clone()));
        }
        let headers = self.headers(complain);
        let trust = self.trust(complain);
        (!urls.is_empty()).then_some(HttpProbe { urls, status, alive, json, headers, trust })
    }

    fn headers(&self, complain: &mut impl FnMut(String)) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers.iter().flat_map(|headers| &headers.0) {
            match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value.0.expose())) {
                (Ok(name), Ok(mut value)) => {
                    value.set_sensitive(true);
                    headers.append(name, value);
                }
                (Err(_), _) => complain(format!("`{name}` is not a header's name")),
                (_, Err(_)) => {
                    complain(format!("the value of the header `{name}` has a line break or another character that headers have not"))
                }
            }
        }
        headers
    }

    fn trust(&self, complain: &mut impl FnMut(String)) -> Trust {
        match self.ca_file.as_deref().map(Authorities::read) {
            None => Trust::System,
            Some(Ok(authorities)) => Trust::Only(authorities),
            Some(Err(message)) => {
                complain(message);
                Trust::System
            }
        }
    }

    fn address(&self, example: &str, complain: &mut impl FnMut(String)) -> Option<(&str, u16)> {
        let parsed = self.address.as_deref().and_then(|address| {
            let (host, port) = address.rsplit_once(':')?;
            Some((host, port.parse::<u16>().ok().filter(|port| *port != 0)?)).filter(|_| !host.is_empty())
        });
        if parsed.is_none() {
            complain(format!("a check of type {} needs an `address` such as {example}", self.kind.name()));
        }
        parsed
    }

    fn tls(&self, complain: &mut impl FnMut(String)) -> Option<TlsProbe> {
        let trust = self.trust(complain);
        let warn_before = self.warn_before.map_or(WARN_BEFORE, |time| time.0);
        let fail_before = self.fail_before.map_or(Duration::ZERO, |time| time.0);
        if self.warn_before.is_some() && fail_before >= warn_before {
            complain("`warn_before` must be longer than `fail_before`: the warning comes first".to_owned());
        }
        let (host, port) = self.address("api.example.com:443", complain)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = self.server_name.clone().unwrap_or_else(|| host.clone());
        let Ok(server_name) = ServerName::try_from(name) else {
            complain("`server_name` (or the host of `address`) is neither a name nor an IP address".to_owned());
            return None;
        };
        Some(TlsProbe { host, port, server_name, warn_before, fail_before, trust })
    }

    fn dns(&self, complain: &mut impl FnMut(String)) -> Option<DnsProbe> {
        let name = self.name.clone().filter(|name| !name.is_empty() && !name.contains([':', '/', ' ']));
        if name.is_none() {
            complain("a check of type dns needs a `name` such as api.example.com, without a port".to_owned());
        }
        let min_addresses = usize::try_from(self.min_addresses.unwrap_or(1)).unwrap_or(usize::MAX);
        if min_addresses == 0 {
            complain("`min_addresses` is at least 1".to_owned());
        }
        Some(DnsProbe { name: name?, min_addresses })
    }

    fn host(&self, is_suspect: bool, complain: &mut impl FnMut(String)) -> HostProbe {
        if self.cpu.is_none() && self.memory.is_none() && self.disk.is_none() && !is_suspect {
            complain("a check of type host needs limits: cpu, memory or disk, such as `memory: { warn: 80%, fail: 95% }`".to_owned());
        }
        let mut limits = |key: &str, written: RawLimits| {
            let limits = Limits { warn: written.warn.map(|percent| percent.0), fail: written.fail.map(|percent| percent.0) };
            match (limits.warn, limits.fail) {
                // A limit may be missing because it could not be read, which is not a second problem.
                (None, None) if is_suspect => {}
                (None, None) => complain(format!("`{key}` needs `warn`, `fail` or both")),
                (Some(warn), Some(fail)) if warn >= fail => complain(format!("`warn` of {key} must be below `fail`")),
                _ => {}
            }
            limits
        };
        HostProbe {
            cpu: self.cpu.map(|written| limits("cpu", written)),
            memory: self.memory.map(|written| limits("memory", written)),
            disk: self.disk.as_ref().map(|disk| Disk {
                path: disk.path.clone().unwrap_or_else(|| Path::new("/").to_owned()),
                limits: limits("disk", RawLimits { warn: disk.warn, fail: disk.fail }),
            }),
            cgroup: self.cgroup.clone(),
        }
    }
}

// === impl Percent ===

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = text.trim().strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        match number.filter(|number| *number > 0.0 && *number <= 100.0) {
            Some(number) => Ok(Self(number / 100.0)),
            None => Err(de::Error::custom(format!("`{text}` is not a share: write for example 85%"))),
        }
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "string", "description": "A share, such as 85%.", "examples": ["85%"] })
    }
}

// === impl Hidden ===

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}

impl JsonSchema for Hidden {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Hidden".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "string" })
    }
}
