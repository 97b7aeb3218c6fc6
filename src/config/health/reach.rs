//! How far a check reaches: what leaves this process, and what leaves this machine.
//!
//! Owns the rule that liveness depends on nothing remote.

use std::net::IpAddr;

use crate::config::health::{Check, LIVENESS_GROUP, Probe};
use crate::config::problems::{Problem, Problems};
use crate::config::spanned::Spanned;

/// Refuses remote checks in the liveness group: a database that is away for a minute would have every pod killed, and
/// the restarts would meet it as a storm when it comes back (hindsight#3329, mozmeao/infra#660).
pub(super) fn check_liveness(members: &Spanned<Vec<String>>, checks: &[Check], problems: &mut Problems) {
    for member in &members.value {
        if checks.iter().any(|check| check.name == *member && check.probe.is_remote()) {
            let message = format!(
                "`{member}` asks something outside of this process: liveness would restart pods for a failure that a restart does not \
                 mend; name it in a readiness group instead"
            );
            problems.error(Problem { place: members.place.clone(), path: format!("health.groups.{LIVENESS_GROUP}"), message });
        }
    }
}

// === impl Probe ===

impl Probe {
    /// Whether another process answers this check, on this machine or elsewhere.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        match self {
            Self::Mongodb(_) | Self::Postgres(_) | Self::Redis(_) | Self::Http(_) | Self::Tcp { .. } | Self::Tls(_) | Self::Dns(_) => true,
            Self::File(_) | Self::Host(_) => false,
        }
    }

    /// Whether this check needs the network beyond this machine.
    #[must_use]
    pub fn leaves_the_machine(&self) -> bool {
        match self {
            Self::Mongodb(probe) => hosts_of(probe.store.uri.expose()).any(|host| !is_loopback(host)),
            // The path of a socket is no host.
            other => other.hosts().iter().any(|host| !host.starts_with('/') && !is_loopback(host)),
        }
    }
}

/// The hosts of a connection string, without ports.
fn hosts_of(uri: &str) -> impl Iterator<Item = &str> {
    let authority = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let authority = authority.split(['/', '?']).next().unwrap_or_default();
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    hosts.split(',').map(|host| match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    })
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::health::{MongodbProbe, Require};
    use crate::config::stores::MongoStore;
    use crate::secret::Secret;

    #[test]
    fn only_what_is_not_on_this_machine_needs_the_network() {
        let mongodb = |uri: &str| {
            let store = MongoStore { uri: Secret::new(uri.to_owned()), database: "x".to_owned() };
            Probe::Mongodb(MongodbProbe { store, require: Require::Any, limit: std::time::Duration::ZERO }).leaves_the_machine()
        };
        assert!(!mongodb("mongodb://localhost:27017/?a=b"));
        assert!(!mongodb("mongodb://user:p%40w@127.0.0.1"));
        assert!(!mongodb("mongodb://[::1]:27017/x"));
        assert!(mongodb("mongodb://localhost,db-1:27017/"));
        assert!(mongodb("mongodb+srv://cluster.example.com/"));
        assert!(!Probe::Tcp { address: "localhost:1".to_owned() }.leaves_the_machine());
        assert!(Probe::Tcp { address: "db:1".to_owned() }.leaves_the_machine());
    }
}
