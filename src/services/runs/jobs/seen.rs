//! What a Job and its pod say of an agent. Pure.

use crate::services::runs::jobs::manifest::CONTAINER;
use crate::services::runs::run::{Ending, Exit, Stopped};
use crate::store::cluster::{Condition, ContainerStatus, Job, Pod, Terminated};

/// The label by which a Job's pods are found; the older one is still set beside it.
const JOB_OF_POD: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];
/// The cluster's word for a process that needed more memory than it may have.
const OUT_OF_MEMORY: &str = "OOMKilled";

/// Where an agent is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Seen {
    /// Its Job was made, and must not begin yet.
    Suspended,
    /// It has not begun, for this reason where the cluster tells one.
    Waiting(Option<String>),
    /// It runs.
    Live,
    /// It has ended, with what it wrote at last, or the cluster says of its end.
    Ended(Ending, Option<String>),
}

/// Reads a Job with the pods of its installation.
pub(super) fn seen(job: &Job, pods: &[Pod]) -> Seen {
    let is_its = |pod: &&Pod| JOB_OF_POD.iter().find_map(|label| pod.metadata.labels.get(*label)) == Some(&job.metadata.name);
    // A Job without retries has one pod; were there more, the newest is the one that counts.
    let pod = pods.iter().filter(is_its).max_by_key(|pod| &pod.metadata.creation_timestamp);
    if job.status.holds("Complete").is_some() {
        return Seen::Ended(Ending { exit: Exit::Code(0), stopped: None }, None);
    }
    if let Some(failed) = job.status.holds("Failed") {
        return ended(failed, pod);
    }
    if job.spec.suspend {
        return Seen::Suspended;
    }
    let Some(pod) = pod else { return Seen::Waiting(None) };
    match status_of(pod).map(|status| &status.state) {
        // One that has ended: the Job says so in a moment.
        Some(state) if state.running.is_some() || state.terminated.is_some() => Seen::Live,
        Some(state) => Seen::Waiting(state.waiting.as_ref().and_then(|waiting| words(&waiting.reason, &waiting.message))),
        None => Seen::Waiting(not_scheduled(pod)),
    }
}

fn status_of(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.container_statuses.iter().find(|status| status.name == CONTAINER)
}

fn not_scheduled(pod: &Pod) -> Option<String> {
    let found = pod.status.conditions.iter().find(|condition| condition.kind == "PodScheduled" && condition.status == "False")?;
    words(&found.reason, &found.message)
}

fn ended(failed: &Condition, pod: Option<&Pod>) -> Seen {
    let terminated = pod.and_then(status_of).and_then(|status| status.state.terminated.as_ref());
    let stopped = if failed.reason == "DeadlineExceeded" {
        Some(Stopped::Time)
    } else if terminated.is_some_and(|terminated| terminated.reason == OUT_OF_MEMORY) {
        Some(Stopped::Memory)
    } else {
        None
    };
    // The agent's own words; else why its pod is gone, such as `Evicted`; else the Job's.
    let own = terminated.map(|terminated| terminated.message.clone()).filter(|message| !message.trim().is_empty());
    let of_pod = || pod.filter(|pod| !pod.status.reason.is_empty()).and_then(|pod| words(&pod.status.reason, &pod.status.message));
    let of_job = || if terminated.is_some() { None } else { words(&failed.reason, &failed.message) };
    Seen::Ended(Ending { exit: terminated.map_or(Exit::Unknown, exit), stopped }, own.or_else(of_pod).or_else(of_job))
}

/// Of a container it is rarely told by which signal it ended: a code above 128 says so, by the shell's convention.
fn exit(terminated: &Terminated) -> Exit {
    match (terminated.signal, terminated.exit_code) {
        (signal, _) if signal > 0 => Exit::Signal(signal),
        (_, code @ 129..=159) => Exit::Signal(code - 128),
        (_, code) => Exit::Code(code),
    }
}

fn words(reason: &str, message: &str) -> Option<String> {
    match (reason, message) {
        ("", "") => None,
        (one, "") | ("", one) => Some(one.to_owned()),
        (reason, message) => Some(format!("{reason}: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(suspend: bool, conditions: &Value) -> Job {
        let job = json!({
            "metadata": { "name": "discovery-1" },
            "spec": { "suspend": suspend, "template": {} },
            "status": { "conditions": conditions },
        });
        serde_json::from_value(job).expect("a job")
    }

    fn pod(job: &str, status: &Value) -> Pod {
        let pod = json!({ "metadata": { "labels": { "batch.kubernetes.io/job-name": job, "job-name": job } }, "status": status });
        serde_json::from_value(pod).expect("a pod")
    }

    fn container(state: &Value) -> Pod {
        let others = json!({ "name": "mesh", "ready": true, "restartCount": 0, "image": "", "imageID": "", "state": { "running": {} } });
        let agent = json!({ "name": "agent", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": state });
        pod("discovery-1", &json!({ "containerStatuses": [others, agent] }))
    }

    fn failed(reason: &str) -> Job {
        let message = "Job has reached the specified backoff limit";
        job(false, &json!([{ "type": "Failed", "status": "True", "reason": reason, "message": message }]))
    }

    #[track_caller]
    fn check(job: &Job, pods: &[Pod], expected: &Seen) {
        assert_eq!(&seen(job, pods), expected);
    }

    #[test]
    fn a_job_that_is_under_way() {
        let under_way = job(false, &json!([]));
        check(&job(true, &json!([{ "type": "Suspended", "status": "True" }])), &[], &Seen::Suspended);
        check(&under_way, &[], &Seen::Waiting(None));
        check(&under_way, &[pod("discovery-2", &json!({}))], &Seen::Waiting(None));
        let unschedulable =
            json!({ "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes" }] });
        check(&under_way, &[pod("discovery-1", &unschedulable)], &Seen::Waiting(Some("Unschedulable: 0/3 nodes".to_owned())));
        let pulling = container(&json!({ "waiting": { "reason": "ImagePullBackOff", "message": "not found" } }));
        check(&under_way, &[pulling], &Seen::Waiting(Some("ImagePullBackOff: not found".to_owned())));
        check(&under_way, &[container(&json!({ "running": {} }))], &Seen::Live);
        check(&under_way, &[container(&json!({ "terminated": { "exitCode": 1 } }))], &Seen::Live);
        check(&job(false, &json!([{ "type": "Failed", "status": "False" }])), &[], &Seen::Waiting(None));
    }

    #[test]
    fn a_job_that_has_ended() {
        let ended = |exit, stopped, words: Option<&str>| Seen::Ended(Ending { exit, stopped }, words.map(str::to_owned));
        check(&job(false, &json!([{ "type": "Complete", "status": "True" }])), &[], &ended(Exit::Code(0), None, None));
        let spoke = container(&json!({ "terminated": { "exitCode": 1, "reason": "Error", "message": "last words" } }));
        check(&failed("BackoffLimitExceeded"), &[spoke], &ended(Exit::Code(1), None, Some("last words")));
        let silent = container(&json!({ "terminated": { "exitCode": 2, "reason": "Error" } }));
        check(&failed("BackoffLimitExceeded"), &[silent], &ended(Exit::Code(2), None, None));
        let too_big = container(&json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } }));
        check(&failed("BackoffLimitExceeded"), &[too_big], &ended(Exit::Signal(9), Some(Stopped::Memory), None));
        let late = container(&json!({ "terminated": { "exitCode": 143, "signal": 15, "reason": "Error" } }));
        check(&failed("DeadlineExceeded"), &[late], &ended(Exit::Signal(15), Some(Stopped::Time), None));
        let evicted = pod("discovery-1", &json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on memory" }));
        let words = Some("Evicted: The node was low on memory");
        check(&failed("BackoffLimitExceeded"), &[evicted], &ended(Exit::Unknown, None, words));
        let words = Some("BackoffLimitExceeded: Job has reached the specified backoff limit");
        check(&failed("BackoffLimitExceeded"), &[], &ended(Exit::Unknown, None, words));
    }
}
