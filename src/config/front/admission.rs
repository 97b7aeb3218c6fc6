//! How many runs a project has: one, by a claim in MongoDB; and what is done about runs whose agent is gone.

use std::ops::RangeInclusive;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::cluster::{ClusterAccess, RawCluster};
use crate::config::problems::{Complaints, Problems};
use crate::config::spanned::Spanned;
use crate::config::stores::MongoStore;
use crate::config::values::HumanDuration;

/// A start in Kubernetes takes seconds; an API that hangs is given up at two thirds of this.
const LEASE: Duration = Duration::from_secs(60);
/// A project is free so soon after its run has ended.
const EVERY: Duration = Duration::from_secs(2);
/// A single step of DecisionBox's agent may wait for a model three times 300 s, and then for the warehouse.
const STALE_AFTER: Duration = Duration::from_secs(45 * 60);

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FrontAdmission")]
pub(super) struct RawAdmission {
    /// Whether a project has one run at a time: true.
    enabled: Option<bool>,
    /// How long a start may take before another may be tried, where nobody can say what became of it: 60s.
    lease: Option<Spanned<HumanDuration>>,
    /// How often runs are looked at: 2s.
    every: Option<Spanned<HumanDuration>>,
    /// Without an update for so long, a run's agent is held to be gone: 45m.
    stale_after: Option<Spanned<HumanDuration>>,
    /// Marks such runs as failed. Without it they are only counted.
    #[serde(default)]
    mark_failed: bool,
    /// Agents are Jobs of this cluster: one that has a Job that is not over is not gone. `{}` is the cluster of the pod.
    jobs: Option<RawCluster>,
}

/// How many runs a project has.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Where claims and runs are.
    pub store: MongoStore,
    /// How long a claim lasts whose start nobody can tell the end of.
    pub lease: Duration,
    /// How often runs are looked at.
    pub every: Duration,
    /// Without an update for so long, a run is stale.
    pub stale_after: Duration,
    /// Whether stale runs are marked as failed.
    pub mark_failed: bool,
    /// Where the Jobs of agents are.
    pub jobs: Option<ClusterAccess>,
}

// === impl RawAdmission ===

impl RawAdmission {
    /// Where there is a database, and it is not switched off.
    pub(super) fn validate(self, store: Option<&MongoStore>, problems: &mut Problems) -> Option<Admission> {
        let mut read = |written: Option<Spanned<HumanDuration>>, key: &str, default: Duration, within: RangeInclusive<u64>| {
            let Some(Spanned { place, value: HumanDuration(value) }) = written else { return default };
            if !(Duration::from_secs(*within.start())..=Duration::from_secs(*within.end())).contains(&value) {
                let message = format!("this is from {}s to {}s", within.start(), within.end());
                Complaints::new(place, format!("front.admission.{key}"), problems).say(message);
            }
            value
        };
        let lease = read(self.lease, "lease", LEASE, 3..=600);
        let every = read(self.every, "every", EVERY, 1..=60);
        let stale_after = read(self.stale_after, "stale_after", STALE_AFTER, 60..=7 * 86_400);
        let jobs = self.jobs.map(|jobs| jobs.validate("front.admission.jobs", problems));
        let store = store.filter(|_| self.enabled != Some(false))?.clone();
        Some(Admission { store, lease, every, stale_after, mark_failed: self.mark_failed, jobs })
    }
}
