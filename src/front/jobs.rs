//! Agents that are Jobs of a cluster, whoever has made them: DecisionBox's own runner and ours give a Job its run as a label.

use std::collections::BTreeSet;

use crate::store::cluster::{Cluster, ClusterError, Job};

/// The label.
const RUN: &str = "run-id";
/// The runs that one request asks for: its address stays below 4 KiB.
const AT_ONCE: usize = 100;

/// Those of the runs that have a Job which is not over.
///
/// # Errors
/// When the cluster does not answer, or does not let us.
pub async fn that_run(cluster: &Cluster, runs: &BTreeSet<String>) -> Result<BTreeSet<String>, ClusterError> {
    let is_label = |run: &&String| run.len() <= 63 && run.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let runs: Vec<&str> = runs.iter().filter(is_label).map(String::as_str).collect();
    let mut living = BTreeSet::new();
    for some in runs.chunks(AT_ONCE) {
        let jobs = cluster.jobs(&format!("{RUN} in ({})", some.join(","))).await?;
        living.extend(jobs.iter().filter(|job| !is_over(job)).filter_map(|job| job.metadata.labels.get(RUN).cloned()));
    }
    Ok(living)
}

fn is_over(job: &Job) -> bool {
    ["Complete", "Failed"].iter().any(|kind| job.status.holds(kind).is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_is_over_when_a_condition_says_so() {
        let job = |conditions| serde_json::from_value::<Job>(json!({ "status": { "conditions": conditions } })).expect("a job");
        assert!(!is_over(&job(json!([]))) && !is_over(&Job::default()));
        assert!(!is_over(&job(json!([{ "type": "Suspended", "status": "True" }, { "type": "Failed", "status": "False" }]))));
        for kind in ["Complete", "Failed"] {
            assert!(is_over(&job(json!([{ "type": kind, "status": "True" }]))));
        }
    }
}
