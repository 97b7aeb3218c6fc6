//! `health`: what is checked, how often, and what depends on what.

mod assertion;
pub mod maintenance;
mod probe;
mod reach;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::fingerprint::with_authorities;
pub use crate::config::health::assertion::{Assertion, Statuses, bounded};
use crate::config::health::maintenance::{RawWindow, Window};
pub use crate::config::health::probe::{
    Disk, DnsProbe, FileProbe, HostProbe, HttpProbe, Limits, MongodbProbe, PostgresProbe, Probe, Query, RedisProbe, Require, TlsProbe,
    WatchedKey,
};
use crate::config::health::reach::check_liveness;
use crate::config::health::target::{Hidden, RawDisk, RawKind, RawLimits, RawRequire};
use crate::config::problems::{Place, Problem, Problems};
use crate::config::spanned::Spanned;
use crate::config::stores::Stores;
use crate::config::values::{HumanDuration, OrderedMap, Texts};

/// Looks every five seconds: an outage is known within about 15 s (three failures), and one look costs under a
/// millisecond.
const INTERVAL: Duration = Duration::from_secs(5);
/// Shorter than the interval, so that looks never overlap.
const TIMEOUT: Duration = Duration::from_secs(2);
/// One lost packet must not take a pod out of rotation.
const FAIL_AFTER: u32 = 3;
/// One lucky answer must not put it back.
const PASS_AFTER: u32 = 2;
/// What a name may be: it is a label value and a part of addresses, where `.` and `..` mean something else.
const NAME_RULE: &str = "made of letters, digits, _ - and . with a letter or digit among them, 100 at most: it is part of addresses";
/// Names stand in every line of the exposition.
const LONGEST_NAME: usize = 100;
/// The name of the group that `/readyz` answers for.
pub const READINESS_GROUP: &str = "readiness";
/// The name of the group that `/livez` answers for. Nothing remote may be in it.
pub const LIVENESS_GROUP: &str = "liveness";
/// What is named as the cause when everything beyond this machine is out of reach at once.
pub const LOCAL_NETWORK: &str = "local_network";

/// The section as it is written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Health")]
pub(super) struct RawHealth {
    #[serde(default)]
    defaults: RawTiming,
    #[serde(default)]
    checks: OrderedMap<Spanned<RawCheck>>,
    /// Named subsets, each with a `/groups/{name}/readyz`.
    #[serde(default)]
    groups: OrderedMap<Spanned<Vec<String>>>,
    /// When failures are expected: they are shown and not alerted on.
    #[serde(default)]
    maintenance: Vec<Spanned<RawWindow>>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Timing")]
struct RawTiming {
    interval: Option<HumanDuration>,
    timeout: Option<HumanDuration>,
    fail_after: Option<u32>,
    pass_after: Option<u32>,
    /// Failures for so long make it down, instead of `fail_after`.
    fail_for: Option<HumanDuration>,
    /// Passes for so long make it up, instead of `pass_after`.
    pass_for: Option<HumanDuration>,
    /// A verdict holds for at least so long.
    min_dwell: Option<HumanDuration>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Check")]
struct RawCheck {
    #[serde(rename = "type")]
    kind: RawKind,
    /// `http`: the address that is asked.
    url: Option<String>,
    /// `http`: addresses that are tried in turn while the one before answers 404 or 410.
    fallback: Option<Vec<String>>,
    /// `http`: the statuses that pass, such as `[200, 204]` or `200..299`; 200..399 where nothing is said.
    status: Option<Texts>,
    /// `http`: statuses that show a living component although it did not answer what was asked, such as `[401, 429]`.
    alive_status: Option<Texts>,
    /// `http`: what the JSON body must say: a path such as `services.mongodb.status`, and the value or values that pass.
    json: Option<OrderedMap<Texts>>,
    /// `http`: headers of the request. Their values are never printed.
    headers: Option<OrderedMap<Hidden>>,
    /// `http`, `tls`: a PEM file of the authorities to trust, instead of the system's.
    ca_file: Option<PathBuf>,
    /// `tcp`, `tls`: host and port.
    address: Option<String>,
    /// `tls`: the name that the certificate must be for, where it is not the host's.
    server_name: Option<String>,
    /// `tls`: degraded when the certificate ends within this time; 14d where nothing is said.
    warn_before: Option<HumanDuration>,
    /// `tls`: failed when the certificate ends within this time.
    fail_before: Option<HumanDuration>,
    /// `mongodb`: `primary`, or `any` usable member (where nothing is said).
    require: Option<RawRequire>,
    /// `postgres`: a query that must return a row. It runs read-only and is ended with the check's timeout.
    query: Option<String>,
    /// `postgres`: the values that pass in the first column of the first row of `query`.
    expect: Option<Texts>,
    /// `redis`: a key that must be there, such as a worker's heartbeat.
    key: Option<String>,
    /// `redis`: how old the time in `key` may be. `file`: how long ago the file may have been written.
    max_age: Option<HumanDuration>,
    /// `file`: the file that is written as a heartbeat.
    path: Option<PathBuf>,
    /// `dns`: the name that must resolve.
    name: Option<String>,
    /// `dns`: to at least so many addresses; 1 where nothing is said.
    min_addresses: Option<u32>,
    /// `host`: the limits of CPU use, of the control group's quota where it has one.
    cpu: Option<RawLimits>,
    /// `host`: the limits of memory use, of the control group's limit where it has one.
    memory: Option<RawLimits>,
    /// `host`: the limits of the use of a file system, space or inodes, whichever is closer to its end.
    disk: Option<RawDisk>,
    /// `host`: the folder of the control group that is looked at, instead of this process's own.
    cgroup: Option<PathBuf>,
    /// Whether readiness depends on it.
    #[serde(default)]
    critical: bool,
    /// The checks whose failure explains a failure of this one.
    #[serde(default)]
    depends_on: Vec<String>,
    /// Slower answers than this are `degraded`: a warning, and still ready.
    degraded_after: Option<HumanDuration>,
    interval: Option<HumanDuration>,
    timeout: Option<HumanDuration>,
    fail_after: Option<u32>,
    pass_after: Option<u32>,
    /// Failures for so long make it down, instead of `fail_after`.
    fail_for: Option<HumanDuration>,
    /// Passes for so long make it up, instead of `pass_after`.
    pass_for: Option<HumanDuration>,
    /// A verdict holds for at least so long.
    min_dwell: Option<HumanDuration>,
}

/// What is checked.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// The checks, in the order of the file.
    pub checks: Vec<Check>,
    /// The groups, `readiness` first.
    pub groups: Vec<Group>,
    /// When failures are expected.
    pub maintenance: Vec<Window>,
    /// What each check is made of, so that a reload knows the unchanged ones.
    pub fingerprints: BTreeMap<String, u64>,
}

/// A subset of the checks that is ready when all of them pass.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// The names of its checks.
    pub checks: Vec<String>,
}

/// One check.
#[derive(Clone, Debug)]
pub struct Check {
    /// Its name: a label value and a path segment.
    pub name: String,
    /// What is asked.
    pub probe: Probe,
    /// Whether readiness depends on it.
    pub critical: bool,
    /// The checks whose failure explains a failure of this one.
    pub depends_on: Vec<String>,
    /// How often, how long, how many.
    pub timing: Timing,
}

/// How often, how long, how many.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timing {
    /// From the begin of one look to the begin of the next, ± 10 %.
    pub interval: Duration,
    /// How long one look may take.
    pub timeout: Duration,
    /// So many failures in a row make it down.
    pub fail_after: u32,
    /// So many passes in a row make it up.
    pub pass_after: u32,
    /// Slower answers are degraded.
    pub degraded_after: Option<Duration>,
    /// Times instead of counts.
    pub hold: Hold,
}

/// Times that a verdict is held to, where counts do not say it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Hold {
    /// Failures for so long make it down, instead of a count of them.
    pub fail_for: Option<Duration>,
    /// Passes for so long make it up, instead of a count of them.
    pub pass_for: Option<Duration>,
    /// A verdict holds for at least so long.
    pub min_dwell: Option<Duration>,
}

// === impl Health ===

impl Health {
    /// Takes over what each check is made of, as far as it is written, and adds what its files hold.
    pub(super) fn take_fingerprints(&mut self, written: BTreeMap<String, u64>) {
        self.fingerprints = written;
        for check in &self.checks {
            if let (Some(number), Some(authorities)) = (self.fingerprints.get_mut(&check.name), check.probe.authorities()) {
                *number = with_authorities(*number, authorities);
            }
        }
    }
}

// === impl RawHealth ===

impl RawHealth {
    pub(super) fn validate(self, stores: &Stores, problems: &mut Problems) -> Health {
        let mut checks = Vec::new();
        let mut places = BTreeMap::new();
        for (name, check) in self.checks.0 {
            places.insert(name.clone(), check.place.clone());
            checks.extend(check.value.validate(&name, check.place.as_ref(), &self.defaults, stores, problems));
        }
        check_dependencies(&checks, &places, problems);
        let critical: Vec<String> = checks.iter().filter(|check| check.critical).map(|check| check.name.clone()).collect();
        if critical.is_empty() && !checks.is_empty() {
            let message = "no check is `critical`: /readyz is 200 whatever fails".to_owned();
            problems.warn(Problem { place: None, path: "health.checks".to_owned(), message });
        }
        let mut groups = vec![Group { name: READINESS_GROUP.to_owned(), checks: critical }];
        for (name, members) in self.groups.0 {
            let unknown = members.value.iter().find(|member| !places.contains_key(*member));
            let message = match unknown {
                _ if name == READINESS_GROUP => {
                    "the group `readiness` is made of the critical checks; set `critical: true` there".to_owned()
                }
                _ if !is_name(&name) => format!("a group's name is {NAME_RULE}"),
                _ if members.value.is_empty() => "a group without checks is ready whatever happens; name some, or leave it out".to_owned(),
                Some(member) => format!("there is no check `{member}`"),
                None => {
                    if name == LIVENESS_GROUP {
                        check_liveness(&members, &checks, problems);
                    }
                    groups.push(Group { name, checks: members.value });
                    continue;
                }
            };
            problems.error(Problem { place: members.place, path: format!("health.groups.{name}"), message });
        }
        let maintenance =
            self.maintenance.into_iter().filter_map(|window| window.value.validate(window.place, &places, problems)).collect();
        Health { checks, groups, maintenance, fingerprints: BTreeMap::new() }
    }
}

/// Whether a text can be the name of a check or a group.
fn is_name(text: &str) -> bool {
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    text.len() <= LONGEST_NAME && text.bytes().all(is_known) && text.bytes().any(|byte| byte.is_ascii_alphanumeric())
}

/// Every named parent exists, and nothing depends on itself by any way round.
fn check_dependencies(checks: &[Check], places: &BTreeMap<String, Option<Place>>, problems: &mut Problems) {
    let parents: BTreeMap<&str, &[String]> = checks.iter().map(|check| (check.name.as_str(), check.depends_on.as_slice())).collect();
    for check in checks {
        let mut complain = |message: String| {
            let place = places.get(&check.name).cloned().flatten();
            problems.error(Problem { place, path: format!("health.checks.{}.depends_on", check.name), message });
        };
        for parent in check.depends_on.iter().filter(|parent| !places.contains_key(*parent)) {
            complain(format!("there is no check `{parent}`"));
        }
        let mut seen = BTreeSet::new();
        let mut queue: Vec<&str> = check.depends_on.iter().map(String::as_str).collect();
        while let Some(parent) = queue.pop() {
            if parent == check.name {
                complain(format!("`{parent}` depends on itself; a root cause needs a first cause"));
                break;
            }
            if seen.insert(parent) {
                queue.extend(parents.get(parent).into_iter().flat_map(|names| names.iter().map(String::as_str)));
            }
        }
    }
}

// === impl RawCheck ===

impl RawCheck {
    fn validate(self, name: &str, place: Option<&Place>, defaults: &RawTiming, stores: &Stores, problems: &mut Problems) -> Option<Check> {
        let mut failed = false;
        let mut complain = |message: String| {
            failed = true;
            problems.error(Problem { place: place.cloned(), path: format!("health.checks.{name}"), message });
        };
        if !is_name(name) {
            complain(format!("a check's name is {NAME_RULE}"));
        }
        if name == LOCAL_NETWORK {
            complain("this name is taken: it is the cause when everything beyond this machine is out of reach".to_owned());
        }
        let timing = self.timing(defaults);
        if timing.timeout >= timing.interval {
            complain(format!(
                "the timeout ({:?}) must be shorter than the interval ({:?}), so that looks never overlap",
                timing.timeout, timing.interval
            ));
        }
        if timing.fail_after == 0 || timing.pass_after == 0 {
            complain("fail_after and pass_after are at least 1".to_owned());
        }
        if timing.degraded_after.is_some_and(|limit| limit >= timing.timeout) {
            complain("degraded_after must be shorter than the timeout: what is slower than that has failed".to_owned());
        }
        let probe = self.probe(&timing, stores, &mut complain);
        let check = Check { name: name.to_owned(), probe: probe?, critical: self.critical, depends_on: self.depends_on, timing };
        (!failed).then_some(check)
    }

    fn timing(&self, defaults: &RawTiming) -> Timing {
        let duration =
            |own: Option<HumanDuration>, default: Option<HumanDuration>, fallback| own.or(default).map_or(fallback, |value| value.0);
        Timing {
            interval: duration(self.interval, defaults.interval, INTERVAL),
            timeout: duration(self.timeout, defaults.timeout, TIMEOUT),
            fail_after: self.fail_after.or(defaults.fail_after).unwrap_or(FAIL_AFTER),
            pass_after: self.pass_after.or(defaults.pass_after).unwrap_or(PASS_AFTER),
            degraded_after: self.degraded_after.map(|value| value.0),
            hold: Hold {
                fail_for: self.fail_for.or(defaults.fail_for).map(|value| value.0),
                pass_for: self.pass_for.or(defaults.pass_for).map(|value| value.0),
                min_dwell: self.min_dwell.or(defaults.min_dwell).map(|value| value.0),
            },
        }
    }
}
