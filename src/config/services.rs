//! `services`: the services of the application that the sidecar can be itself, where the front door says so.
//!
//! Owns how they are written. Whether one runs is decided by `front`: these settings alone start nothing.

pub mod jobs;

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::{Complaints, Place, Problems};
use crate::config::services::jobs::{AgentJobs, RawAgentJobs};
use crate::config::spanned::Spanned;
use crate::config::storage::StorageAccess;
use crate::config::values::{HumanDuration, HumanSize, OrderedMap};
use crate::secret::Secret;

/// As the application's own limit of an agent's Job.
const TIME_LIMIT: Duration = Duration::from_secs(6 * 3600);
/// A step of an agent ends within seconds, and it has a result to save.
const GRACE: Duration = Duration::from_secs(30);
/// A single call of an agent to its LLM may take three times 300 s, and tells nothing meanwhile.
const STALE_AFTER: Duration = Duration::from_secs(30 * 60);
/// As the application's own limit of an agent's Job.
const MEMORY: u64 = 1 << 30;
/// Below this no agent comes to its first line.
const LEAST_MEMORY: u64 = 64 << 20;
/// A run writes less than a megabyte; a thousand times that is a flood.
const OUTPUT: u64 = 1 << 30;
const LEAST_OUTPUT: u64 = 64 << 10;
/// Each is a process with its own memory on this machine.
const MAX_RUNNING: u16 = 16;
const MOST_RUNNING: u16 = 512;
const KEEP: u16 = 100;

/// The section as it is written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Services")]
pub(super) struct RawServices {
    #[serde(default)]
    secrets: RawSecretsService,
    #[serde(default)]
    runs: RawRunsService,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SecretsService")]
struct RawSecretsService {
    /// Where the values are: `mongodb` unless set.
    #[serde(default)]
    provider: RawProvider,
    /// The folder of `provider: file`, with one file a secret: `/run/secrets` unless set.
    folder: Option<Spanned<PathBuf>>,
    /// The region of `provider: aws`: AWS_REGION or us-east-1 unless set.
    region: Option<Spanned<String>>,
    /// The project of `provider: gcp`.
    project: Option<Spanned<String>>,
    /// Where the cloud's service is, if not at its own address.
    endpoint: Option<Spanned<String>>,
    /// The installation: `decisionbox` unless set.
    namespace: Option<Spanned<String>>,
    /// Starts without `secrets.key`, and then stores values as they are.
    #[serde(default)]
    allow_plaintext: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "SecretsProvider")]
enum RawProvider {
    #[default]
    MongoDb,
    File,
    Aws,
    Gcp,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Runner")]
enum RawRunner {
    /// As processes of this machine.
    #[default]
    Subprocess,
    /// As Jobs of a cluster.
    Kubernetes,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RunsService")]
struct RawRunsService {
    /// How agents run: `subprocess` unless set.
    #[serde(default)]
    runner: RawRunner,
    /// Agents as Jobs, with `runner: kubernetes`.
    #[serde(default)]
    kubernetes: RawAgentJobs,
    /// The program of an agent and its first arguments: `[decisionbox-agent]` unless set.
    agent: Option<Spanned<Vec<String>>>,
    /// All variables that an agent gets; one without a value is left out.
    #[serde(default)]
    environment: OrderedMap<String>,
    /// How many agents of this process run at once: 16 unless set.
    max_running: Option<Spanned<u16>>,
    /// An agent that runs longer is stopped: `6h` unless set.
    time_limit: Option<Spanned<HumanDuration>>,
    /// How long an agent has from SIGTERM to SIGKILL: `30s` unless set.
    grace: Option<Spanned<HumanDuration>>,
    /// How much memory each process of an agent may write to: `1GiB` unless set.
    memory: Option<Spanned<HumanSize>>,
    /// An agent that writes more than this is stopped; no file of its can be larger: `1GiB` unless set.
    output: Option<Spanned<HumanSize>>,
    /// A run of another process that tells nothing for so long is given up: `30m` unless set.
    stale_after: Option<Spanned<HumanDuration>>,
    /// Of how many ended runs the output is kept: 100 unless set.
    keep: Option<u16>,
}

/// The services that the sidecar can be itself.
#[derive(Clone, Debug)]
pub struct Services {
    /// The secrets of the application.
    pub secrets: SecretsService,
    /// The runs of its agents.
    pub runs: RunsService,
}

/// How the secrets are kept.
#[derive(Clone, Debug)]
pub struct SecretsService {
    /// Where.
    pub provider: Provider,
    /// The installation.
    pub namespace: String,
    /// Without a key, values are stored as they are.
    pub allow_plaintext: bool,
}

/// Where values are.
#[derive(Clone, Debug)]
pub enum Provider {
    /// In the application's collection.
    MongoDb,
    /// In files of a folder, which are only read.
    File(PathBuf),
    /// In a cloud's own service.
    Cloud(CloudSecrets),
}

/// A cloud's service for secrets, and what opens it.
#[derive(Clone, Debug)]
pub enum CloudSecrets {
    /// Amazon's Secrets Manager.
    Aws {
        /// The region; that of the environment where there is none.
        region: Option<String>,
        /// Where the service is, if not at its own address.
        endpoint: Option<Url>,
        /// The variables of Amazon's clients.
        access: StorageAccess,
    },
    /// Google's Secret Manager.
    Gcp {
        /// The project.
        project: String,
        /// Where the service is, if not at its own address.
        endpoint: Option<Url>,
        /// The variables of Google's clients.
        access: StorageAccess,
    },
}

/// How agents are run.
#[derive(Clone, Debug)]
pub struct RunsService {
    /// Agents are Jobs; processes of this machine where there is none.
    pub jobs: Option<AgentJobs>,
    /// The program and its first arguments.
    pub agent: Vec<String>,
    /// All of an agent's variables.
    pub environment: Vec<(String, Secret)>,
    /// How many run at once.
    pub max_running: usize,
    /// When they are stopped, and how.
    pub limits: AgentLimits,
    /// A run of another process that tells nothing for so long is given up.
    pub stale_after: Duration,
    /// Of how many ended runs the output is kept.
    pub keep: usize,
}

/// What one agent may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AgentLimits {
    /// How long it may run.
    pub time: Duration,
    /// How long it has from SIGTERM to SIGKILL.
    pub grace: Duration,
    /// Bytes of memory that each of its processes may write to.
    pub memory: u64,
    /// Bytes that it may write out.
    pub output: u64,
}

// === impl RawServices ===

impl RawServices {
    pub(super) fn validate(self, problems: &mut Problems) -> Services {
        Services { secrets: self.secrets.validate(problems), runs: self.runs.validate(problems) }
    }
}

// === impl RawSecretsService ===

impl RawSecretsService {
    fn validate(self, problems: &mut Problems) -> SecretsService {
        let mut only = |key: &str, place: Option<Place>, given: bool, fits: bool, whose: &str| {
            if given && !fits {
                Complaints::new(place, format!("services.secrets.{key}"), problems).say(format!("`{key}` is for {whose}"));
            }
        };
        let place = |text: &Option<Spanned<String>>| text.as_ref().and_then(|text| text.place.clone());
        let folder_place = self.folder.as_ref().and_then(|folder| folder.place.clone());
        let (is_aws, is_gcp) = (self.provider == RawProvider::Aws, self.provider == RawProvider::Gcp);
        only("folder", folder_place, self.folder.is_some(), self.provider == RawProvider::File, "`provider: file`");
        only("region", place(&self.region), self.region.is_some(), is_aws, "`provider: aws`");
        only("project", place(&self.project), self.project.is_some(), is_gcp, "`provider: gcp`");
        only("endpoint", place(&self.endpoint), self.endpoint.is_some(), is_aws || is_gcp, "`provider: aws` and `provider: gcp`");
        let endpoint = self.endpoint.and_then(|endpoint| read_endpoint(endpoint, problems));
        let access = StorageAccess::default();
        let provider = match self.provider {
            RawProvider::MongoDb => Provider::MongoDb,
            RawProvider::File => Provider::File(self.folder.map_or_else(|| PathBuf::from("/run/secrets"), |folder| folder.value)),
            RawProvider::Aws => Provider::Cloud(CloudSecrets::Aws { region: self.region.map(|region| region.value), endpoint, access }),
            RawProvider::Gcp => {
                let project = self.project.map(|project| project.value).unwrap_or_default();
                let is_id = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b':' | b'.');
                if project.is_empty() || !project.bytes().all(is_id) {
                    Complaints::new(None, "services.secrets.project".to_owned(), problems)
                        .say("`provider: gcp` needs the id of its `project`");
                }
                Provider::Cloud(CloudSecrets::Gcp { project, endpoint, access })
            }
        };
        let (place, namespace) = self.namespace.map_or((None, "decisionbox".to_owned()), |namespace| (namespace.place, namespace.value));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if namespace.is_empty() || namespace.len() > 64 || !namespace.bytes().all(is_name) {
            Complaints::new(place, "services.secrets.namespace".to_owned(), problems)
                .say("a namespace has 1 to 64 letters, digits, `-`, `_` or `.`");
        }
        SecretsService { provider, namespace, allow_plaintext: self.allow_plaintext }
    }
}

/// Secrets go there: in plain text to nobody but this machine.
fn read_endpoint(endpoint: Spanned<String>, problems: &mut Problems) -> Option<Url> {
    let is_loopback = |url: &Url| matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    let url = Url::parse(&endpoint.value).ok().filter(|url| url.scheme() == "https" || url.scheme() == "http" && is_loopback(url));
    if url.is_none() {
        Complaints::new(endpoint.place, "services.secrets.endpoint".to_owned(), problems)
            .say("an address with https; http on loopback alone");
    }
    url
}

// === impl CloudSecrets ===

impl CloudSecrets {
    /// Gives it what opens it.
    pub(super) fn take_access(&mut self, with: &StorageAccess) {
        let (Self::Aws { access, .. } | Self::Gcp { access, .. }) = self;
        *access = with.clone();
    }
}

// === impl RawRunsService ===

impl RawRunsService {
    fn validate(self, problems: &mut Problems) -> RunsService {
        let (place, agent) = self.agent.map_or((None, vec!["decisionbox-agent".to_owned()]), |agent| (agent.place, agent.value));
        if agent.first().is_none_or(String::is_empty) {
            complain(place, "agent", "name the program of an agent, such as [decisionbox-agent]", problems);
        }
        let mut environment = Vec::new();
        for (name, value) in self.environment.0 {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                complain(None, "environment", "a variable has a name without `=`, and neither it nor its value holds a zero", problems);
            } else if !value.is_empty() {
                environment.push((name, Secret::new(value)));
            }
        }
        let mut duration = |given: Option<Spanned<HumanDuration>>, default: Duration, name: &str, least: Duration| {
            let Some(given) = given else { return default };
            if given.value.0 < least {
                complain(given.place, name, &format!("at least {}s", least.as_secs()), problems);
            }
            given.value.0
        };
        let time = duration(self.time_limit, TIME_LIMIT, "time_limit", Duration::from_secs(1));
        let grace = duration(self.grace, GRACE, "grace", Duration::ZERO);
        let stale_after = duration(self.stale_after, STALE_AFTER, "stale_after", Duration::from_secs(60));
        let mut size = |given: Option<Spanned<HumanSize>>, default: u64, name: &str, least: u64| {
            let Some(given) = given else { return default };
            if given.value.0 < least {
                complain(given.place, name, &format!("at least {}KiB", least >> 10), problems);
            }
            given.value.0
        };
        let memory = size(self.memory, MEMORY, "memory", LEAST_MEMORY);
        let output = size(self.output, OUTPUT, "output", LEAST_OUTPUT);
        let max_running = self.max_running.as_ref().map_or(MAX_RUNNING, |number| number.value);
        if !(1..=MOST_RUNNING).contains(&max_running) {
            let place = self.max_running.and_then(|number| number.place);
            complain(place, "max_running", &format!("from 1 to {MOST_RUNNING}"), problems);
        }
        let jobs = (self.runner == RawRunner::Kubernetes).then(|| self.kubernetes.validate(problems));
        RunsService {
            jobs,
            agent,
            environment,
            max_running: usize::from(max_running),
            limits: AgentLimits { time, grace, memory, output },
            stale_after,
            keep: usize::from(self.keep.unwrap_or(KEEP)),
        }
    }
}

fn complain(place: Option<crate::config::problems::Place>, key: &str, message: &str, problems: &mut Problems) {
    Complaints::new(place, format!("services.runs.{key}"), problems).say(message);
}
