//! `front`: the front door before the application's API: where it listens, whom it lets in, and what it passes on.
//!
//! Owns what is written, its defaults and its bounds. What a request meets on its way is `front`'s. Nothing listens unless
//! `listen` is written.

pub mod admission;
pub mod auth;
pub mod jwt;
pub mod limits;
pub mod routes;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::front::admission::{Admission, RawAdmission};
use crate::config::front::auth::{Auth, RawAuth};
pub use crate::config::front::limits::{Limits, Timeouts};
use crate::config::front::limits::{RawLimits, RawTimeouts};
use crate::config::front::routes::{Route, Scope, read_routes};
use crate::config::problems::{Complaints, Problem, Problems};
use crate::config::spanned::Spanned;
use crate::config::stores::Stores;
use crate::config::trust::{Authorities, Trust};
use crate::config::values::{HumanDuration, OrderedMap};
use crate::config::{RawTls, parse_address};
use crate::runtime::certificate::CertificateFiles;

/// A browser asks again after so long: what Chromium caps it at.
const CORS_MAX_AGE: Duration = Duration::from_secs(7200);
/// One request in a hundred tells how it goes; those that fail are always told.
const ACCESS_LOG_SAMPLE: f64 = 0.01;

/// The section as it is written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Front")]
pub(super) struct RawFront {
    /// Where it listens. There is no front door without it.
    listen: Option<Spanned<String>>,
    /// The certificate that is shown there; without one it is plain HTTP.
    tls: Option<Spanned<RawTls>>,
    /// The API behind it, such as `http://api:8080`.
    upstream: Option<Spanned<String>>,
    /// PEM: the authorities that the API's certificate may come from, instead of those of the system.
    ca_file: Option<Spanned<PathBuf>>,
    /// Who serves runs: the API behind the front door, or Bellwether itself.
    #[serde(default)]
    runs: Provider,
    /// Who serves secrets: the API behind the front door, or Bellwether itself.
    #[serde(default)]
    secrets: Provider,
    #[serde(default)]
    admission: RawAdmission,
    #[serde(default)]
    auth: RawAuth,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    timeouts: RawTimeouts,
    #[serde(default)]
    cors: RawCors,
    /// Whose `X-Forwarded-For` is believed: addresses or networks, such as `10.0.0.0/8`.
    #[serde(default)]
    trusted_proxies: Vec<Spanned<String>>,
    #[serde(default)]
    access_log: RawAccessLog,
    /// Which scope each route needs, by `METHOD /template`. What is not here needs `admin`.
    #[serde(default)]
    routes: OrderedMap<Spanned<Scope>>,
}

/// Who serves a part of the API.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// The API behind the front door.
    #[default]
    Upstream,
    /// Bellwether itself.
    Embedded,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Cors")]
struct RawCors {
    /// The origins whose pages may ask, each exactly as a browser sends it: `https://app.example.com`.
    #[serde(default)]
    origins: Vec<Spanned<String>>,
    /// How long a browser keeps the permission: 2h.
    max_age: Option<HumanDuration>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AccessLog")]
struct RawAccessLog {
    /// Which share of the requests is logged, from 0 to 1: 0.01. Those that fail are always logged.
    sample: Option<Spanned<f64>>,
}

/// The front door.
#[derive(Clone, Debug)]
pub struct Front {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its certificate.
    pub tls: Option<CertificateFiles>,
    /// What it stands before.
    pub upstream: UpstreamTarget,
    /// Who serves runs.
    pub runs: Provider,
    /// Who serves secrets.
    pub secrets: Provider,
    /// That a project has one run at a time; `None` where nobody sees to it.
    pub admission: Option<Admission>,
    /// Whom it lets in.
    pub auth: Auth,
    /// How much at once, and how large.
    pub limits: Limits,
    /// How long anything may take.
    pub timeouts: Timeouts,
    /// Which pages of others may ask.
    pub cors: Cors,
    /// Whose word on the client's address is taken.
    pub trusted_proxies: Vec<IpNet>,
    /// The share of requests that are logged although nothing is wrong with them, from 0 to 1.
    pub access_log_sample: f64,
    /// What is known of the API.
    pub routes: Vec<Route>,
}

/// The API behind the front door.
#[derive(Clone, Debug)]
pub struct UpstreamTarget {
    /// Its host: a name or an address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What stands in `Host`: host and port, the latter where it is not the scheme's own.
    pub authority: String,
    /// Whose certificates are good; `None` for plain HTTP.
    pub tls: Option<Trust>,
}

/// Which pages of others may ask.
#[derive(Clone, Debug)]
pub struct Cors {
    /// Their origins.
    pub origins: Vec<String>,
    /// How long a browser keeps the permission.
    pub max_age: Duration,
}

// === impl RawFront ===

impl RawFront {
    /// The front door, where one is wanted and everything that it needs is right.
    pub(super) fn validate(self, stores: &Stores, problems: &mut Problems) -> Option<Front> {
        let Some(listen) = self.listen else {
            if self.tls.is_some() || self.auth.is_written() {
                let message = "the front door has no `listen`: write where it listens, such as 0.0.0.0:8088".to_owned();
                problems.error(Problem { place: None, path: "front".to_owned(), message });
            }
            return None;
        };
        let address = parse_address(&listen, "front.listen", problems);
        let upstream = match &self.upstream {
            Some(upstream) => read_upstream(upstream, self.ca_file.as_ref(), problems),
            None => {
                let message = "the front door needs `upstream`, the API that it stands before, such as http://api:8080".to_owned();
                problems.error(Problem { place: listen.place.clone(), path: "front".to_owned(), message });
                None
            }
        };
        let tls = self.tls.and_then(|tls| tls.value.validate("front.tls", tls.place, problems));
        let is_public = address.is_some_and(|address| !address.ip().is_loopback());
        let auth = self.auth.validate(listen.place.as_ref(), is_public && tls.is_none(), problems);
        let store = stores.mongodb.as_ref().filter(|_| self.runs == Provider::Upstream);
        let admission = self.admission.validate(store, problems);
        let limits = self.limits.validate(problems);
        let timeouts = self.timeouts.validate(problems);
        let routes = read_routes(self.routes.0, problems);
        let cors = self.cors.validate(problems);
        let trusted_proxies = self.trusted_proxies.iter().filter_map(|text| read_network(text, problems)).collect();
        let access_log_sample = self.access_log.validate(problems);
        Some(Front {
            listen: address?,
            tls,
            upstream: upstream?,
            runs: self.runs,
            secrets: self.secrets,
            admission,
            auth,
            limits,
            timeouts,
            cors,
            trusted_proxies,
            access_log_sample,
            routes,
        })
    }
}

/// An API is reached by scheme, host and port alone: a path before every path would let scopes be asked for the wrong one.
fn read_upstream(text: &Spanned<String>, ca_file: Option<&Spanned<PathBuf>>, problems: &mut Problems) -> Option<UpstreamTarget> {
    let mut complaints = Complaints::new(text.place.clone(), "front.upstream".to_owned(), problems);
    let message = "write the scheme, the host and the port of the API and nothing else, such as http://api:8080";
    let Some(url) = Url::parse(&text.value).ok().filter(|url| matches!(url.scheme(), "http" | "https")) else {
        complaints.say(message);
        return None;
    };
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    let Some((host, port)) = url.host_str().zip(url.port_or_known_default()).filter(|_| is_bare && url.password().is_none()) else {
        complaints.say(message);
        return None;
    };
    let trust = match ca_file {
        None => Trust::System,
        Some(file) => match Authorities::read(&file.value) {
            Ok(authorities) => Trust::Only(authorities),
            Err(message) => {
                problems.error(Problem { place: file.place.clone(), path: "front.ca_file".to_owned(), message });
                return None;
            }
        },
    };
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    Some(UpstreamTarget {
        host: host.trim_matches(['[', ']']).to_owned(),
        port,
        authority,
        tls: (url.scheme() == "https").then_some(trust),
    })
}

fn read_network(text: &Spanned<String>, problems: &mut Problems) -> Option<IpNet> {
    let network = text.value.parse().or_else(|_| text.value.parse().map(|address: std::net::IpAddr| IpNet::from(address)));
    if network.is_err() {
        let message = format!("`{}` is no network; write 10.0.0.0/8, fd00::/8 or an address", text.value);
        problems.error(Problem { place: text.place.clone(), path: "front.trusted_proxies".to_owned(), message });
    }
    network.ok()
}

// === impl RawCors ===

impl RawCors {
    fn validate(self, problems: &mut Problems) -> Cors {
        for origin in &self.origins {
            let mut complaints = Complaints::new(origin.place.clone(), "front.cors.origins".to_owned(), problems);
            let is_exact = Url::parse(&origin.value).is_ok_and(|url| url.origin().ascii_serialization() == origin.value);
            if !is_exact {
                complaints
                    .say("an origin is scheme, host and port as a browser sends them, such as https://app.example.com; `*` is not taken");
            }
        }
        let origins = self.origins.into_iter().map(|origin| origin.value).collect();
        Cors { origins, max_age: self.max_age.map_or(CORS_MAX_AGE, |age| age.0) }
    }
}

// === impl RawAccessLog ===

impl RawAccessLog {
    fn validate(self, problems: &mut Problems) -> f64 {
        let Some(sample) = self.sample else { return ACCESS_LOG_SAMPLE };
        if !(0.0..=1.0).contains(&sample.value) {
            Complaints::new(sample.place, "front.access_log.sample".to_owned(), problems).say("a share is a number from 0 to 1");
        }
        sample.value
    }
}

#[cfg(test)]
mod tests;
