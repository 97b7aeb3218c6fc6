//! `services.runs.kubernetes`: agents as Jobs of a cluster.
//!
//! Owns how they are written. Validated only where `runner: kubernetes` says that it counts: a profile fills some of it from
//! the application's own variables, which may hold anything elsewhere.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::cluster::{ClusterAccess, RawCluster, is_dns_label};
use crate::config::problems::{Complaints, Place, Problems};
use crate::config::spanned::Spanned;
use crate::config::values::{HumanDuration, HumanSize, OrderedMap, Texts};

/// An image is pulled within minutes, and a node is added within ten.
const START_LIMIT: Duration = Duration::from_secs(15 * 60);
const LEAST_START_LIMIT: Duration = Duration::from_secs(10);
/// As the application's own Jobs.
const CPU: &str = "250m";
/// As the application's own Jobs.
const MEMORY: u64 = 256 << 20;
const LEAST_MEMORY: u64 = 16 << 20;
/// The value of a label is no longer.
const LONGEST_LABEL: usize = 63;
/// What a pod's settings must not say, as it is ours to say.
const OURS: [&str; 4] = ["containers", "restartPolicy", "terminationGracePeriodSeconds", "activeDeadlineSeconds"];

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AgentJobs")]
pub(super) struct RawAgentJobs {
    /// Where the cluster is: that of the pod unless set.
    #[serde(default)]
    cluster: RawCluster,
    /// This installation: sidecars of one name look after the same Jobs. `bellwether` unless set.
    name: Option<Spanned<String>>,
    /// The image of the agent.
    image: Option<Spanned<String>>,
    /// Its program and first arguments: the image's own unless set.
    #[serde(default)]
    command: Texts,
    /// The service account of its pods.
    service_account: Option<Spanned<String>>,
    /// Labels of Jobs and pods, beside our own.
    #[serde(default)]
    labels: OrderedMap<String>,
    /// How much of a CPU it is given for sure: `250m` unless set.
    cpu_request: Option<Spanned<String>>,
    /// How much of a CPU it may take: no limit unless set.
    cpu_limit: Option<Spanned<String>>,
    /// How much memory it is given for sure: `256MiB` unless set; `memory` is what it may take.
    memory_request: Option<Spanned<HumanSize>>,
    /// A run whose agent has not begun after so long has failed: `15m` unless set.
    start_limit: Option<Spanned<HumanDuration>>,
    /// Further settings of the pod, as Kubernetes names them: `nodeSelector`, `tolerations`, `imagePullSecrets` and the like.
    pod: Option<Spanned<Value>>,
}

/// Agents as Jobs.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentJobs {
    /// Where.
    pub access: ClusterAccess,
    /// The installation: sidecars of one name look after the same Jobs.
    pub name: String,
    /// The image.
    pub image: String,
    /// Its program; empty is the image's own.
    pub command: Vec<String>,
    /// The service account of its pods.
    pub service_account: Option<String>,
    /// Labels beside our own.
    pub labels: Vec<(String, String)>,
    /// How much of a CPU it is given, as Kubernetes writes it.
    pub cpu_request: String,
    /// How much of a CPU it may take, as Kubernetes writes it.
    pub cpu_limit: Option<String>,
    /// How many bytes of memory it is given.
    pub memory_request: u64,
    /// When an agent that has not begun is given up.
    pub start_limit: Duration,
    /// Everything else of a pod.
    pub pod: Map<String, Value>,
}

// === impl RawAgentJobs ===

impl RawAgentJobs {
    pub(super) fn validate(self, problems: &mut Problems) -> AgentJobs {
        let access = self.cluster.validate("services.runs.kubernetes.cluster", problems);
        let mut complain = |place: Option<Place>, key: &str, message: &str| {
            Complaints::new(place, format!("services.runs.kubernetes.{key}"), problems).say(message);
        };
        let mut text = |given: Option<Spanned<String>>, key: &str, is_right: fn(&str) -> bool, message: &str| {
            let Spanned { place, value } = given.filter(|text| !text.value.is_empty())?;
            if !is_right(&value) {
                complain(place, key, message);
            }
            Some(value)
        };
        let name = text(self.name, "name", is_dns_label, "a name has 1 to 63 lower case letters, digits or `-`");
        let image = text(self.image, "image", is_word, "an image is a single word");
        let account = "a service account is named by lower case letters, digits and `-`";
        let service_account = text(self.service_account, "service_account", is_dns_label, account);
        let cpu = "an amount of CPUs such as 250m, 2 or 0.5";
        let cpu_request = text(self.cpu_request, "cpu_request", is_cpu, cpu);
        let cpu_limit = text(self.cpu_limit, "cpu_limit", is_cpu, cpu);
        if image.is_none() {
            complain(None, "image", "name the image of the agent");
        }
        let memory_request = self.memory_request.map_or(MEMORY, |Spanned { place, value }| {
            if value.0 < LEAST_MEMORY {
                complain(place, "memory_request", "at least 16MiB");
            }
            value.0
        });
        let start_limit = self.start_limit.map_or(START_LIMIT, |Spanned { place, value }| {
            if value.0 < LEAST_START_LIMIT {
                complain(place, "start_limit", "at least 10s");
            }
            value.0
        });
        let labels = self.labels.0;
        if !labels.iter().all(|(key, value)| is_label_key(key) && is_label_value(value)) {
            complain(None, "labels", "a label has up to 63 letters, digits, `-`, `_` or `.`; its key may have a prefix before a `/`");
        }
        let pod = self.pod.map_or_else(Map::new, |Spanned { place, value }| {
            read_pod(value).unwrap_or_else(|problem| {
                complain(place, "pod", &problem);
                Map::new()
            })
        });
        AgentJobs {
            access,
            name: name.unwrap_or_else(|| "bellwether".to_owned()),
            image: image.unwrap_or_default(),
            command: self.command.0,
            service_account,
            labels,
            cpu_request: cpu_request.unwrap_or_else(|| CPU.to_owned()),
            cpu_limit,
            memory_request,
            start_limit,
            pod,
        }
    }
}

fn is_word(text: &str) -> bool {
    !text.contains(char::is_whitespace)
}

/// As Kubernetes reads it: thousandths, or a decimal number.
fn is_cpu(text: &str) -> bool {
    let (number, is_thousandths) = text.strip_suffix('m').map_or((text, false), |number| (number, true));
    let has_right_form = number.bytes().all(|byte| byte.is_ascii_digit() || (byte == b'.' && !is_thousandths));
    has_right_form && number.parse::<f64>().is_ok_and(|number| number > 0.0)
}

/// Whether Kubernetes takes a text as the value of a label.
#[must_use]
pub fn is_label_value(text: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends = [text.bytes().next(), text.bytes().next_back()];
    text.len() <= LONGEST_LABEL && text.bytes().all(is_fit) && ends.iter().flatten().all(u8::is_ascii_alphanumeric)
}

fn is_label_key(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    !name.is_empty() && is_label_value(name) && prefix.is_none_or(|prefix| prefix.split('.').all(is_dns_label))
}

/// Reads a pod's settings. What Kubernetes does not know of them, the API server says at a start.
fn read_pod(value: Value) -> Result<Map<String, Value>, String> {
    let Value::Object(given) = value else { return Err("keys of a pod's `spec`, as Kubernetes names them".to_owned()) };
    match OURS.iter().find(|key| given.contains_key(**key)) {
        Some(ours) => Err(format!("`{ours}` is not for here: it is made of the other settings")),
        None => Ok(given),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts_and_labels_are_those_of_kubernetes() {
        for (cpu, expected) in
            [("250m", true), ("2", true), ("0.5", true), ("0", false), ("m", false), ("1.5m", false), ("1e3", false), ("-1", false)]
        {
            assert_eq!(is_cpu(cpu), expected, "{cpu}");
        }
        for (key, expected) in [("app", true), ("app.kubernetes.io/name", true), ("", false), ("/a", false), ("a/", false), ("a b", false)]
        {
            assert_eq!(is_label_key(key), expected, "{key}");
        }
    }

    #[test]
    fn the_value_of_a_label_is_short_and_plain() {
        for (text, expected) in [("69d0f3a1", true), ("a.b_c-d", true), ("-a", false), ("a b", false), ("ä", false)] {
            assert_eq!(is_label_value(text), expected, "{text}");
        }
        assert!(!is_label_value(&"a".repeat(64)));
    }

    #[test]
    fn a_pod_is_read_or_refused() {
        let read = read_pod(json!({ "nodeSelector": { "pool": "batch" }, "tolerations": [{ "key": "batch", "operator": "Exists" }] }));
        assert_eq!(read.expect("a pod")["nodeSelector"]["pool"], "batch");
        for (pod, expected) in [(json!([]), "keys of a pod's `spec`"), (json!({ "containers": [] }), "`containers` is not for here")] {
            let problem = read_pod(pod).expect_err("it is wrong");
            assert!(problem.starts_with(expected), "{problem}");
        }
    }

    fn load(text: &str) -> Result<crate::config::Config, String> {
        let request = crate::config::Request { text: Some(text), ..crate::config::Request::default() };
        let environment = crate::config::environment::Environment::of([
            ("MONGODB_URI", "mongodb://db"),
            ("AGENT_CPU_REQUEST", "much"),
            ("AGENT_NAMESPACE", "agents"),
        ]);
        crate::config::load(&request, &environment).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_of_it_counts_before_the_runner_says_so() {
        let config = load("profile: decisionbox").expect("what the environment holds is the application's");
        assert!(config.services.runs.jobs.is_none());
        let problem = load("profile: decisionbox\nservices: { runs: { runner: kubernetes } }").expect_err("now it counts");
        assert!(problem.contains("services.runs.kubernetes.cpu_request: an amount of CPUs"), "{problem}");
        let text = "profile: decisionbox\nservices: { runs: { runner: kubernetes, kubernetes: { cpu_request: 1 } } }";
        let jobs = load(text).expect("it is right").services.runs.jobs.expect("Jobs");
        assert_eq!((jobs.name.as_str(), jobs.cpu_request.as_str(), jobs.cpu_limit.as_deref()), ("bellwether", "1", Some("2")));
        assert_eq!((jobs.access.namespace.as_deref(), jobs.service_account), (Some("agents"), None));
        assert!(jobs.image.contains("decisionbox-agent"));
    }

    #[test]
    fn every_problem_is_told() {
        let text = "services:
  runs:
    runner: kubernetes
    kubernetes:
      name: My Sidecar
      service_account: A
      cpu_limit: -1
      memory_request: 1KiB
      start_limit: 1s
      labels: { \"a b\": c }
      cluster: { namespace: \"A B\" }
      pod: { restartPolicy: Always }
";
        let problems = load(text).expect_err("problems");
        for expected in [
            "name: a name has 1 to 63",
            "service_account: a service account",
            "cpu_limit: an amount of CPUs",
            "memory_request: at least 16MiB",
            "start_limit: at least 10s",
            "labels: a label has",
            "cluster.namespace: a namespace has",
            "pod: `restartPolicy` is not for here",
            "image: name the image",
        ] {
            assert!(problems.contains(&format!("services.runs.kubernetes.{expected}")), "{expected}\n{problems}");
        }
    }
}
