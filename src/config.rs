//! The configuration: a profile, a file over it, variables in both; every problem reported at once, with its place.
//!
//! Raw types say how it is written, validated types what it means; the rest of the program sees only the latter.
//! Each section has a file of its own.

pub mod alerts;
pub mod backups;
pub mod cluster;
pub mod collect;
mod decode;
pub mod environment;
pub mod fingerprint;
pub mod front;
pub mod health;
pub mod logs;
mod merge;
pub mod notify;
pub mod origin;
pub mod problems;
pub mod retention;
pub mod rules;
pub mod secrets;
pub mod services;
mod sources;
mod spanned;
pub mod storage;
pub mod stores;
pub(crate) mod tree;
pub mod trust;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::alerts::{Alerts, RawAlerts};
use crate::config::backups::{Backup, Protected, RawBackup, RawProtected};
use crate::config::collect::{Collect, RawCollector};
use crate::config::decode::decode;
use crate::config::environment::{Environment, expand_tree};
use crate::config::fingerprint::Fingerprints;
use crate::config::front::{Front, RawFront};
use crate::config::health::{Health, RawHealth};
use crate::config::logs::{Logs, RawLogs};
use crate::config::merge::{drop_disabled, merge};
use crate::config::notify::{Channel, RawReceiver, Receiver};
use crate::config::problems::{ConfigError, Problem, Problems};
use crate::config::retention::{RawRetention, Retention};
use crate::config::rules::check_agreement;
use crate::config::secrets::{RawSecrets, Secrets};
use crate::config::services::{RawServices, Services};
use crate::config::sources::{Source, Sources};
use crate::config::spanned::Spanned;
use crate::config::storage::StorageAccess;
use crate::config::stores::{RawStores, Stores};
use crate::config::tree::{Content, Node};
use crate::profiles::Profile;
use crate::runtime::certificate::CertificateFiles;
use crate::runtime::token::TokenFile;

/// What Bellwether does, as it is written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Bellwether configuration")]
struct RawConfig {
    /// The profile that this file overrides.
    #[expect(dead_code, reason = "read from the tree before decoding, and named here for the schema")]
    profile: Option<String>,
    /// Where probes, metrics and health are served.
    listen: Option<Spanned<String>>,
    /// The certificate that is shown there; without one it is plain HTTP.
    tls: Option<Spanned<RawTls>>,
    /// The one folder that is written to.
    state_dir: Option<PathBuf>,
    #[serde(default)]
    admin: RawAdmin,
    #[serde(default)]
    stores: RawStores,
    /// Which source counts where two tell the same fact.
    #[serde(default)]
    sources: BTreeMap<String, Source>,
    #[serde(default)]
    health: RawHealth,
    #[serde(default)]
    logs: RawLogs,
    #[serde(default)]
    collect: Vec<Spanned<RawCollector>>,
    #[serde(default)]
    retention: RawRetention,
    #[serde(default)]
    backups: Vec<Spanned<RawBackup>>,
    /// What should be in a backup, and how bad it would be to lose it.
    #[serde(default)]
    protect: Vec<RawProtected>,
    #[serde(default)]
    secrets: RawSecrets,
    #[serde(default)]
    services: RawServices,
    #[serde(default)]
    front: RawFront,
    #[serde(default)]
    alerts: RawAlerts,
    /// Who is told of alerts where there is no Prometheus.
    #[serde(default)]
    notify: Vec<Spanned<RawReceiver>>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Admin")]
struct RawAdmin {
    /// Where things can be changed: maintenance, reload. Nothing listens without it. Everything needs the token.
    listen: Option<Spanned<String>>,
    /// A file with the token that opens the details, and the control listener.
    token_file: Option<Spanned<PathBuf>>,
    /// The certificate that is shown there; without one it is plain HTTP.
    tls: Option<Spanned<RawTls>>,
}

/// The certificate of a listener. Its files are read again every few seconds.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Tls")]
struct RawTls {
    /// PEM: the certificate, and those between it and the authority.
    cert_file: PathBuf,
    /// PEM: its private key.
    key_file: PathBuf,
}

/// What Bellwether does.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of the profile.
    pub profile: &'static str,
    /// Where probes, metrics and health are served.
    pub listen: SocketAddr,
    /// The one folder that is written to.
    pub state_dir: PathBuf,
    /// The token that opens the details, where there is one.
    pub token: Option<TokenFile>,
    /// Where things can be changed; there is a token wherever there is this.
    pub control: Option<SocketAddr>,
    /// The certificate of `listen`.
    pub tls: Option<CertificateFiles>,
    /// The certificate of `control`.
    pub control_tls: Option<CertificateFiles>,
    /// The databases of the application.
    pub stores: Stores,
    /// What is checked.
    pub health: Health,
    /// Which logs are read.
    pub logs: Logs,
    /// What is read from the database.
    pub collect: Collect,
    /// What is kept for how long.
    pub retention: Retention,
    /// Which backups there should be.
    pub backups: Vec<Backup>,
    /// What should be in one.
    pub protected: Vec<Protected>,
    /// What opens the object storage that archives go to.
    pub storage: StorageAccess,
    /// Where the application keeps its secrets.
    pub secrets: Secrets,
    /// The services that the sidecar can be itself.
    pub services: Services,
    /// The front door before the application's API, where there is one.
    pub front: Option<Front>,
    /// Which alert rules we evaluate ourselves.
    pub alerts: Alerts,
    /// Who is told of alerts.
    pub notify: Vec<Receiver>,
    /// What the operator should know and what stops nothing.
    pub warnings: Vec<Problem>,
    /// What it is made of, for a reload.
    pub fingerprints: Fingerprints,
}

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Request<'a> {
    /// The profile that was asked for; else the file's, else none.
    pub profile: Option<&'a str>,
    /// The configuration file.
    pub file: Option<&'a Path>,
    /// The text of a configuration instead of a file.
    pub text: Option<&'a str>,
    /// Overrides `listen`.
    pub listen: Option<SocketAddr>,
    /// Reads `logs` alone and lets them tell every fact, for a replay that has nothing beside it.
    pub logs_only: bool,
}

/// Reads, merges, fills in and checks a configuration.
///
/// # Errors
/// Every problem that was found, with its place.
pub fn load(request: &Request<'_>, environment: &Environment) -> Result<Config, ConfigError> {
    let mut problems = Problems::default();
    let read = request.file.and_then(|path| Some((path.display().to_string(), problems.read(path)?)));
    let read = request.text.map(|text| ("proposal".to_owned(), text.to_owned())).or(read);
    let loaded = build(request, read.as_ref().map(|(name, text)| (name.as_str(), text.as_str())), environment, problems);
    loaded.map_err(|error| match read {
        Some((name, text)) => error.showing(&name, text),
        None => error,
    })
}

/// What [`load`] does once the file has been read: its name and text, where there is one.
fn build(
    request: &Request<'_>,
    file: Option<(&str, &str)>,
    environment: &Environment,
    mut problems: Problems,
) -> Result<Config, ConfigError> {
    let text = file.map(|(_, text)| fingerprint::of_text(text.as_bytes()));
    let file = file.and_then(|(name, text)| tree::parse(name, text, &mut problems));
    let profile = choose_profile(request, file.as_ref(), &mut problems);
    let base = tree::parse(&format!("profile {}", profile.name()), profile.text(), &mut problems).unwrap_or_else(empty);
    let mut node = if let Some(file) = file { merge(base, file) } else { base };
    if request.logs_only {
        node.keep_keys(&["logs", "sources"]);
    }
    drop_disabled(&mut node);
    expand_tree(&mut node, environment, &mut problems);
    let raw: Option<RawConfig> = decode(&node, &mut problems);
    let config = raw.and_then(|raw| raw.validate(profile.name(), request, &mut problems));
    let warnings = problems.finish()?;
    match config {
        Some(mut config) => {
            config.health.take_fingerprints(fingerprint::of_checks(&node));
            config.storage = StorageAccess::of(environment);
            if let services::Provider::Cloud(cloud) = &mut config.services.secrets.provider {
                cloud.take_access(&config.storage);
            }
            Ok(Config { warnings, fingerprints: Fingerprints { file: text, sections: fingerprint::of_sections(&node) }, ..config })
        }
        None => Err(ConfigError::default()),
    }
}

/// The JSON Schema of configuration files, made from the types that read them.
#[must_use]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(RawConfig)
}

fn choose_profile(request: &Request<'_>, file: Option<&Node>, problems: &mut Problems) -> Profile {
    let in_file = file.and_then(|node| node.get("profile"));
    let name = request.profile.or_else(|| in_file.and_then(Node::as_text)).unwrap_or("none");
    Profile::named(name).unwrap_or_else(|| {
        let place = in_file.filter(|_| request.profile.is_none()).map(|node| node.place.clone());
        let names: Vec<&str> = Profile::all().map(Profile::name).collect();
        let message = format!("there is no profile `{name}`; there are {}", names.join(", "));
        problems.error(Problem { place, path: "profile".to_owned(), message });
        Profile::NONE
    })
}

fn empty() -> Node {
    let place = problems::Place { source: "profile none".into(), line: 1, column: 1 };
    Node { place, content: Content::Map(Vec::new()) }
}

// === impl RawConfig ===

impl RawConfig {
    fn validate(self, profile: &'static str, request: &Request<'_>, problems: &mut Problems) -> Option<Config> {
        let mut sources = Sources::new(self.sources);
        if request.logs_only {
            sources.only(Source::Logs);
        }
        let stores = self.stores.validate(problems);
        let health = self.health.validate(&stores, problems);
        let logs = self.logs.validate(&sources, problems);
        let collect = collect::validate(self.collect, &sources, problems);
        let state_dir = self.state_dir.unwrap_or_else(|| PathBuf::from("/var/lib/bellwether"));
        let retention = self.retention.validate(&state_dir, profile, problems);
        let secrets = self.secrets.validate(problems);
        let front = self.front.validate(&stores, problems);
        check_agreement(logs.rules.iter().chain(collect.tails.iter().flat_map(|tail| &tail.rules)), problems);
        check_owners(&logs, &collect, problems);
        if stores.mongodb.is_none() && !stores.suspect {
            let needs = [
                ("collect", !collect.gauges.is_empty() || !collect.tails.is_empty()),
                ("retention", !retention.ttl.is_empty() || !retention.policies.is_empty()),
            ];
            for (section, _) in needs.iter().filter(|(_, needed)| *needed) {
                let message = "this section reads from `stores.mongodb`, which is not there".to_owned();
                problems.error(Problem { place: None, path: (*section).to_owned(), message });
            }
        }
        if stores.postgres.is_none() && !stores.suspect && !retention.tables.is_empty() {
            let message = "this reads from `stores.postgres`, which is not there".to_owned();
            problems.error(Problem { place: None, path: "retention.tables".to_owned(), message });
        }
        let token = self.admin.token_file.as_ref().and_then(|file| check_token(file, problems));
        let control = self.admin.listen.and_then(|listen| parse_address(&listen, "admin.listen", problems).zip(Some(listen)));
        if let Some((_, listen)) = control.as_ref().filter(|_| self.admin.token_file.is_none()) {
            let message = "the control listener needs `token_file`: nothing can be changed without a token".to_owned();
            problems.error(Problem { place: listen.place.clone(), path: "admin.listen".to_owned(), message });
        }
        if let Some((address, listen)) = control.as_ref().filter(|(address, _)| !address.ip().is_loopback() && self.admin.tls.is_none()) {
            let message = format!("{address} is not on loopback and has no `tls`: the token crosses the network as plain text");
            problems.warn(Problem { place: listen.place.clone(), path: "admin.listen".to_owned(), message });
        }
        let control_tls = self.admin.tls.and_then(|tls| tls.value.validate("admin.tls", tls.place, problems));
        let tls = self.tls.and_then(|tls| tls.value.validate("tls", tls.place, problems));
        let listen = validate_listen(self.listen, request, problems)?;
        let notify = RawReceiver::validate_all(self.notify, problems);
        let tells_fatal = notify.iter().any(|receiver| matches!(receiver.channel, Channel::Sentry { fatal_lines: true, .. }));
        Some(Config {
            profile,
            listen,
            state_dir,
            token,
            control: control.map(|(address, _)| address),
            tls,
            control_tls,
            stores,
            health,
            logs: Logs { tells_fatal, ..logs },
            collect,
            retention,
            backups: RawBackup::validate_all(self.backups, problems),
            protected: self.protect.into_iter().map(Protected::from).collect(),
            storage: StorageAccess::default(),
            secrets,
            services: self.services.validate(problems),
            front,
            alerts: self.alerts.validate(profile, problems),
            notify,
            warnings: Vec::new(),
            fingerprints: Fingerprints::default(),
        })
    }
}

// === impl RawTls ===

impl RawTls {
    /// Reads the files, so that a certificate that cannot be used is known before anything runs.
    fn validate(self, path: &str, place: Option<problems::Place>, problems: &mut Problems) -> Option<CertificateFiles> {
        let files = CertificateFiles { certificate: self.cert_file, key: self.key_file };
        let error = files.read().err();
        if let Some(error) = &error {
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            problems.error(Problem { place, path: path.to_owned(), message: format!("{error}{cause}") });
        }
        error.is_none().then_some(files)
    }
}

/// A metric that two owners expose would stand in the exposition twice, and Prometheus would refuse all of it.
fn check_owners(logs: &Logs, collect: &Collect, problems: &mut Problems) {
    let in_logs: BTreeSet<&str> = logs.rules.iter().map(|rule| rule.metric.name.as_str()).collect();
    let tails: BTreeSet<&str> = collect.tails.iter().flat_map(|tail| &tail.rules).map(|rule| rule.metric.name.as_str()).collect();
    let gauges: BTreeSet<&str> = collect.gauges.iter().map(|gauge| gauge.metric.name.as_str()).collect();
    for name in in_logs.iter().filter(|name| tails.contains(*name) || gauges.contains(*name)).chain(tails.intersection(&gauges)) {
        let message =
            "this metric is fed from two sides, by logs, tails or gauges; give its rules a `fact` and choose in `sources`, or rename one";
        problems.error(Problem { place: None, path: format!("metric {name}"), message: message.to_owned() });
    }
}

fn validate_listen(listen: Option<Spanned<String>>, request: &Request<'_>, problems: &mut Problems) -> Option<SocketAddr> {
    if request.listen.is_some() {
        return request.listen;
    }
    let Some(listen) = listen else { return Some(SocketAddr::from(([0, 0, 0, 0], 9600))) };
    parse_address(&listen, "listen", problems)
}

fn parse_address(listen: &Spanned<String>, path: &str, problems: &mut Problems) -> Option<SocketAddr> {
    let parsed = listen.value.parse().ok();
    if parsed.is_none() {
        let message = "this is not an address to listen on; write an IP address and a port, such as 0.0.0.0:9600 or [::]:9600".to_owned();
        problems.error(Problem { place: listen.place.clone(), path: path.to_owned(), message });
    }
    parsed
}

fn check_token(file: &Spanned<PathBuf>, problems: &mut Problems) -> Option<TokenFile> {
    let token = TokenFile(file.value.clone());
    if let Err(error) = token.read() {
        problems.error(Problem { place: file.place.clone(), path: "admin.token_file".to_owned(), message: error.to_string() });
        return None;
    }
    Some(token)
}

#[cfg(test)]
mod tests;
