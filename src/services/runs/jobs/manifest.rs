//! What is asked of the cluster for one run: a Job as the application's own runner makes it, and the Secret with its
//! variables. Pure.
//!
//! Differences to the application's Jobs, on purpose: variables are in a Secret that belongs to the Job, not in the Job,
//! which more people may read; the name holds the whole id of the run, as its first 20 digits are the same for runs that are
//! begun in one second; the time limit is kept by the cluster; and what the agent wrote at last is its termination message.

use std::collections::BTreeMap;
use std::time::Duration;

use mongodb::bson::oid::ObjectId;
use serde_json::{Map, Value, json};

use crate::config::services::AgentLimits;
use crate::config::services::jobs::{AgentJobs, is_label_value};
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

/// What a run's Job is called, and its Secret.
pub(super) fn name(run: ObjectId) -> String {
    format!("discovery-{}", run.to_hex())
}

/// The Job of a run. It is suspended: it begins when its Secret is there.
pub(super) fn job(settings: &AgentJobs, limits: &AgentLimits, run: ObjectId, project: &str, arguments: &[String]) -> Value {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let mut pod = settings.pod.clone();
    pod.extend(settings.service_account.as_ref().map(|account| ("serviceAccountName".to_owned(), account.as_str().into())));
    let ours = [
        ("containers", json!([container(settings, limits, run, arguments)])),
        ("restartPolicy", "Never".into()),
        ("terminationGracePeriodSeconds", seconds(limits.grace).into()),
    ];
    pod.extend(ours.map(|(key, value)| (key.to_owned(), value)));
    let labels = labels(settings, run, project);
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": { "name": name(run), "labels": labels, "annotations": { PROJECT_ANNOTATION: project } },
        "spec": {
            "suspend": true,
            "backoffLimit": 0,
            "activeDeadlineSeconds": seconds(limits.time).max(1),
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": { "metadata": { "labels": labels }, "spec": pod },
        },
    })
}

fn container(settings: &AgentJobs, limits: &AgentLimits, run: ObjectId, arguments: &[String]) -> Value {
    let requests = json!({ "cpu": settings.cpu_request, "memory": settings.memory_request.min(limits.memory).to_string() });
    let mut most = Map::from_iter([("memory".to_owned(), limits.memory.to_string().into())]);
    most.extend(settings.cpu_limit.as_deref().map(|limit| ("cpu".to_owned(), limit.into())));
    let mut container = json!({
        "name": CONTAINER,
        "image": settings.image,
        "args": arguments,
        "envFrom": [{ "secretRef": { "name": name(run), "optional": false } }],
        "resources": { "requests": requests, "limits": most },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    if !settings.command.is_empty() {
        container["command"] = json!(settings.command);
    }
    container
}

/// The Secret with an agent's variables. It goes when its Job, which is known by `uid`, goes.
pub(super) fn secret(settings: &AgentJobs, uid: &str, run: ObjectId, project: &str, environment: &[(String, Secret)]) -> Value {
    let given = environment.iter().filter(|(name, _)| !LOCAL.contains(&name.as_str()));
    let mut variables: BTreeMap<&str, &str> = given.map(|(name, value)| (name.as_str(), value.expose())).collect();
    for (name, value) in DEFAULTS {
        variables.entry(name).or_insert(value);
    }
    let owner = json!({ "apiVersion": "batch/v1", "kind": "Job", "name": name(run), "uid": uid });
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": name(run), "labels": labels(settings, run, project), "ownerReferences": [owner] },
        "stringData": variables,
        "immutable": true,
    })
}

fn labels(settings: &AgentJobs, run: ObjectId, project: &str) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = settings.labels.iter().cloned().collect();
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "bellwether".to_owned());
    labels.insert(HOLDER.to_owned(), settings.name.clone());
    labels.insert(RUN.to_owned(), run.to_hex());
    labels.extend(is_label_value(project).then(|| (PROJECT.to_owned(), project.to_owned())));
    labels
}

/// Lets a suspended Job begin.
pub(super) fn begin() -> Value {
    json!({ "spec": { "suspend": false } })
}

/// Notes on a Job that its end is written down.
pub(super) fn recorded() -> Value {
    json!({ "metadata": { "labels": { RECORDED: "true" } } })
}

/// Notes on a Job that somebody wanted it to end.
pub(super) fn cancelled() -> Value {
    json!({ "metadata": { "annotations": { CANCELLED: "true" } } })
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
            pod: Map::from_iter([("nodeSelector".to_owned(), json!({ "pool": "batch" }))]),
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
        let found = job(&settings(), &limits(), run(), "69d0f3a1c2b4e5f60718293a", &["--run-id".to_owned(), run().to_hex()]);
        let labels = json!({
            "app": "decisionbox-agent", "app.kubernetes.io/managed-by": "bellwether", "bellwether/holder": "bellwether",
            "run-id": "69d0f41bc2b4e5f60718293b", "project-id": "69d0f3a1c2b4e5f60718293a",
        });
        let expected = json!({
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
        let found = secret(&settings(), "1-2-3", run(), "p", &given);
        let expected = json!({ "ENV": "prod", "LOG_LEVEL": "debug", "MONGODB_URI": "mongodb://user:pass@host" });
        assert_eq!(found["stringData"], expected);
        assert_eq!(found["metadata"]["ownerReferences"][0]["uid"], "1-2-3");
        assert!(!job(&settings(), &limits(), run(), "p", &[]).to_string().contains("user:pass"));
    }

    #[test]
    fn a_project_is_a_label_only_where_it_can_be_one() {
        let made = job(&settings(), &limits(), run(), "my project", &[]);
        assert!(made["metadata"]["labels"].get(PROJECT).is_none());
        assert_eq!(made["metadata"]["annotations"][PROJECT_ANNOTATION], "my project");
    }
}
