//! What is asked of the cluster for one run: a Job as the application's own runner makes it, and the Secret with its
//! variables. Pure.
//!
//! Differences to the application's Jobs, on purpose: variables are in a Secret that belongs to the Job, not in the Job,
//! which more people may read; the name holds the whole id of the run, as its first 20 digits are the same for runs that are
//! begun in one second; the time limit is kept by the cluster; and what the agent wrote at last is its termination message.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, PodSpec, PodTemplateSpec, ResourceRequirements, Secret as KubernetesSecret, SecretEnvSource,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use mongodb::bson::oid::ObjectId;
use serde_json::Value;

use crate::config::services::AgentLimits;
use crate::config::services::jobs::AgentJobs;
use crate::secret::Secret;

/// The container, as the application calls it.
pub(super) const CONTAINER: &str = "agent";
/// Its run, as a label of Job and pod.
pub(super) const RUN: &str = "run-id";
/// Its project, as a label where it can be one.
const PROJECT: &str = "project-id";
/// Its project, exactly.
pub(super) const PROJECT_ANNOTATION: &str = "bellwether/project";
/// Which installation looks after it.
pub(super) const HOLDER: &str = "bellwether/holder";
/// Its end is written down.
pub(super) const RECORDED: &str = "bellwether/recorded";
/// Somebody wanted it to end.
pub(super) const CANCELLED: &str = "bellwether/cancelled";
/// How long a Job that has ended can still be looked at, as the application has it.
const KEPT_SECONDS: i32 = 3600;
/// Of this machine, and nothing to a container.
const LOCAL: [&str; 3] = ["PATH", "HOME", "SSL_CERT_FILE"];
/// Without these an agent writes console text, which tells less than JSON.
const DEFAULTS: [(&str, &str); 2] = [("ENV", "prod"), ("LOG_LEVEL", "info")];
/// A value of a label is no longer.
const LONGEST_LABEL: usize = 63;

/// What a run's Job is called, and its Secret.
pub(super) fn name(run: ObjectId) -> String {
    format!("discovery-{}", run.to_hex())
}

/// The Job of a run. It is suspended: it begins when its Secret is there.
pub(super) fn job(settings: &AgentJobs, limits: &AgentLimits, run: ObjectId, project: &str, arguments: Vec<String>) -> Job {
    let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let pod = PodSpec {
        containers: vec![container(settings, limits, run, arguments)],
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(seconds(limits.grace)),
        service_account_name: settings.service_account.clone().or_else(|| settings.pod.service_account_name.clone()),
        ..settings.pod.clone()
    };
    let labels = labels(settings, run, project);
    Job {
        metadata: ObjectMeta {
            name: Some(name(run)),
            labels: Some(labels.clone()),
            annotations: Some([(PROJECT_ANNOTATION.to_owned(), project.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            suspend: Some(true),
            backoff_limit: Some(0),
            active_deadline_seconds: Some(seconds(limits.time).max(1)),
            ttl_seconds_after_finished: Some(KEPT_SECONDS),
            template: PodTemplateSpec { metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }), spec: Some(pod) },
            ..JobSpec::default()
        }),
        status: None,
    }
}

fn container(settings: &AgentJobs, limits: &AgentLimits, run: ObjectId, arguments: Vec<String>) -> Container {
    let quantity = |value: &str| Quantity(value.to_owned());
    let memory = limits.memory.to_string();
    let mut requests = BTreeMap::from([("cpu".to_owned(), quantity(&settings.cpu_request))]);
    requests.insert("memory".to_owned(), Quantity(settings.memory_request.min(limits.memory).to_string()));
    let mut most = BTreeMap::from([("memory".to_owned(), quantity(&memory))]);
    most.extend(settings.cpu_limit.as_deref().map(|limit| ("cpu".to_owned(), quantity(limit))));
    Container {
        name: CONTAINER.to_owned(),
        image: Some(settings.image.clone()),
        command: Some(settings.command.clone()).filter(|command| !command.is_empty()),
        args: Some(arguments),
        env_from: Some(vec![EnvFromSource {
            secret_ref: Some(SecretEnvSource { name: name(run), optional: Some(false) }),
            ..EnvFromSource::default()
        }]),
        resources: Some(ResourceRequirements { requests: Some(requests), limits: Some(most), ..ResourceRequirements::default() }),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

/// The Secret with an agent's variables. It goes when its Job goes.
pub(super) fn secret(settings: &AgentJobs, job: &Job, run: ObjectId, project: &str, environment: &[(String, Secret)]) -> KubernetesSecret {
    let given = environment.iter().filter(|(name, _)| !LOCAL.contains(&name.as_str()));
    let mut variables: BTreeMap<String, String> = given.map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
    for (name, value) in DEFAULTS {
        variables.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    let owner = OwnerReference {
        api_version: "batch/v1".to_owned(),
        kind: "Job".to_owned(),
        name: name(run),
        uid: job.metadata.uid.clone().unwrap_or_default(),
        block_owner_deletion: None,
        controller: None,
    };
    KubernetesSecret {
        metadata: ObjectMeta {
            name: Some(name(run)),
            labels: Some(labels(settings, run, project)),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        string_data: Some(variables),
        immutable: Some(true),
        ..KubernetesSecret::default()
    }
}

fn labels(settings: &AgentJobs, run: ObjectId, project: &str) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = settings.labels.iter().cloned().collect();
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "bellwether".to_owned());
    labels.insert(HOLDER.to_owned(), settings.name.clone());
    labels.insert(RUN.to_owned(), run.to_hex());
    labels.extend(is_label(project).then(|| (PROJECT.to_owned(), project.to_owned())));
    labels
}

/// Whether a text can be the value of a label.
fn is_label(text: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends = [text.bytes().next(), text.bytes().next_back()];
    text.len() <= LONGEST_LABEL && text.bytes().all(is_fit) && ends.iter().flatten().all(u8::is_ascii_alphanumeric)
}

/// Lets a suspended Job begin.
pub(super) fn begin() -> Value {
    serde_json::json!({ "spec": { "suspend": false } })
}

/// Notes on a Job that its end is written down.
pub(super) fn recorded() -> Value {
    serde_json::json!({ "metadata": { "labels": { RECORDED: "true" } } })
}

/// Notes on a Job that somebody wanted it to end.
pub(super) fn cancelled() -> Value {
    serde_json::json!({ "metadata": { "annotations": { CANCELLED: "true" } } })
}

/// The labels of the Jobs of an installation that are not written down.
pub(super) fn ours(settings: &AgentJobs) -> String {
    format!("{HOLDER}={},!{RECORDED}", settings.name)
}

/// The labels of the pods of an installation.
pub(super) fn our_pods(settings: &AgentJobs) -> String {
    format!("{HOLDER}={}", settings.name)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings() -> AgentJobs {
        AgentJobs {
            access: crate::config::cluster::ClusterAccess::default(),
            name: "bellwether".to_owned(),
            image: "registry.example/agent:1".to_owned(),
            command: Vec::new(),
            service_account: Some("agents".to_owned()),
            labels: vec![("app".to_owned(), "decisionbox-agent".to_owned())],
            cpu_request: "250m".to_owned(),
            cpu_limit: Some("2".to_owned()),
            memory_request: 256 << 20,
            start_limit: Duration::from_secs(600),
            pod: serde_json::from_value(serde_json::json!({ "containers": [], "nodeSelector": { "pool": "batch" } })).expect("a pod"),
        }
    }

    fn limits() -> AgentLimits {
        AgentLimits { time: Duration::from_secs(21_600), grace: Duration::from_secs(30), memory: 1 << 30, output: 1 << 30 }
    }

    fn run() -> ObjectId {
        ObjectId::parse_str("69d0f41bc2b4e5f60718293b").expect("an id")
    }

    #[test]
    fn a_job_is_as_the_application_makes_it() {
        let made = job(&settings(), &limits(), run(), "69d0f3a1c2b4e5f60718293a", vec!["--run-id".to_owned(), run().to_hex()]);
        let found = serde_json::to_value(&made).expect("JSON");
        let labels = serde_json::json!({
            "app": "decisionbox-agent", "app.kubernetes.io/managed-by": "bellwether", "bellwether/holder": "bellwether",
            "run-id": "69d0f41bc2b4e5f60718293b", "project-id": "69d0f3a1c2b4e5f60718293a",
        });
        let expected = serde_json::json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": "discovery-69d0f41bc2b4e5f60718293b",
                "labels": labels,
                "annotations": { "bellwether/project": "69d0f3a1c2b4e5f60718293a" },
            },
            "spec": {
                "suspend": true, "backoffLimit": 0, "activeDeadlineSeconds": 21600, "ttlSecondsAfterFinished": 3600,
                "template": { "metadata": { "labels": labels }, "spec": {
                    "restartPolicy": "Never", "terminationGracePeriodSeconds": 30, "serviceAccountName": "agents",
                    "nodeSelector": { "pool": "batch" },
                    "containers": [{
                        "name": "agent", "image": "registry.example/agent:1", "args": ["--run-id", "69d0f41bc2b4e5f60718293b"],
                        "envFrom": [{ "secretRef": { "name": "discovery-69d0f41bc2b4e5f60718293b", "optional": false } }],
                        "resources": {
                            "requests": { "cpu": "250m", "memory": "268435456" },
                            "limits": { "cpu": "2", "memory": "1073741824" },
                        },
                        "terminationMessagePolicy": "FallbackToLogsOnError",
                    }],
                } },
            },
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn variables_are_in_the_secret_alone() {
        let given = [("PATH", "/usr/bin"), ("MONGODB_URI", "mongodb://user:pass@host"), ("LOG_LEVEL", "debug")];
        let given = given.map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned())));
        let mut made = job(&settings(), &limits(), run(), "p", Vec::new());
        made.metadata.uid = Some("1-2-3".to_owned());
        let found = secret(&settings(), &made, run(), "p", &given);
        let variables = found.string_data.expect("variables");
        let expected = [("ENV", "prod"), ("LOG_LEVEL", "debug"), ("MONGODB_URI", "mongodb://user:pass@host")];
        assert_eq!(variables, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!(found.metadata.owner_references.expect("an owner")[0].uid, "1-2-3");
        assert!(!serde_json::to_string(&made).expect("JSON").contains("user:pass"));
    }

    #[test]
    fn a_project_is_a_label_only_where_it_can_be_one() {
        for (project, expected) in [("69d0f3a1", true), ("a.b_c-d", true), ("-a", false), ("a b", false), ("ä", false)] {
            assert_eq!(is_label(project), expected, "{project}");
        }
        assert!(!is_label(&"a".repeat(64)));
        let made = job(&settings(), &limits(), run(), "my project", Vec::new());
        assert!(!made.metadata.labels.expect("labels").contains_key(PROJECT));
        assert_eq!(made.metadata.annotations.expect("annotations")[PROJECT_ANNOTATION], "my project");
    }
}
