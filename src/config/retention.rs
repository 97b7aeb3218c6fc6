//! `retention`: the time to live that indexes enforce, and the policies that the sidecar plans and carries out.
//!
//! Strict: a mistake here deletes what should have stayed. Whatever is not said plainly is refused with its place.

mod files;
mod policy;
mod schedule;
mod tables;
mod ttl;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::{Complaints, Problems};
use crate::config::retention::files::RawFilePolicy;
pub use crate::config::retention::files::{FileGuards, FilePolicy, KeepNewest, Per};
use crate::config::retention::tables::RawTablePolicy;
pub use crate::config::retention::tables::{Reference, TableName, TablePolicy};
use crate::config::spanned::Spanned;
use crate::config::values::HumanDuration;

pub use policy::{Child, Guards, Hold, IdForm, KeepLast, Policy};
use policy::{RawGuards, RawPolicy};
use schedule::RawSchedule;
pub use schedule::Schedule;
use ttl::RawTtl;
pub use ttl::{Owner, Ttl};

/// A shorter lease could not be renewed three times over a slow network.
const SHORTEST_LEASE: Duration = Duration::from_secs(3);

/// A name is a label of metrics and a folder of archives.
const LONGEST_NAME: usize = 64;

/// After each batch, as a multiple of the time that it took. Measured (`just bench-retention reader`): with 1 an application
/// that reads the same collection waits 5 to 13 % longer at its p95; with 4 no difference is seen.
const PAUSE: f64 = 4.0;

/// Documents a batch. Measured: 500 take 9 ms to delete, 5000 take 72.
const BATCH: u32 = 500;

/// The section as it is written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Retention")]
pub(super) struct RawRetention {
    /// `plan` deletes nothing; `enforce` lets policies delete what they have archived.
    #[serde(default)]
    mode: Mode,
    /// When policies run, as a cron expression of five fields; never by themselves without it.
    schedule: Option<Spanned<String>>,
    /// The time zone of `schedule`, such as Europe/Berlin: UTC.
    timezone: Option<Spanned<String>>,
    /// A run starts up to so much later, so that many sidecars do not start at once: 5m.
    jitter: Option<HumanDuration>,
    /// A start that was missed while nothing ran is made up within this time: 24h.
    catch_up: Option<HumanDuration>,
    /// How long a policy that is new or has changed is only planned by the schedule: 24h.
    soak: Option<Spanned<HumanDuration>>,
    /// How long the lease lasts that lets one process delete: 30s.
    lease: Option<Spanned<HumanDuration>>,
    /// Where archives go, for every policy that does not say otherwise: file://, s3://, gs:// or az://.
    archive: Option<Spanned<String>>,
    /// What must hold before anything is deleted, for every policy that does not say otherwise.
    #[serde(default)]
    guards: RawGuards,
    throttle: Option<Spanned<RawThrottle>>,
    budget: Option<Spanned<RawBudget>>,
    #[serde(default)]
    ttl: Vec<Spanned<RawTtl>>,
    #[serde(default)]
    policies: Vec<Spanned<RawPolicy>>,
    /// Rows of Postgres.
    #[serde(default)]
    tables: Vec<Spanned<RawTablePolicy>>,
    /// Files of a folder.
    #[serde(default)]
    files: Vec<Spanned<RawFilePolicy>>,
}

/// Whether policies delete.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They say what they would do.
    #[default]
    Plan,
    /// They archive, and delete.
    Enforce,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Throttle")]
struct RawThrottle {
    /// After each batch, a pause of so many times the time that it took: 4.
    pause: Option<f64>,
    /// Waits while a secondary is further behind: 10s.
    max_lag: Option<HumanDuration>,
    /// Documents a batch, from 1 to 5000: 500.
    batch: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Budget")]
struct RawBudget {
    /// A run ends after so long, and the next one goes on: 1h.
    time: Option<HumanDuration>,
    /// A run ends after so many documents, and the next one goes on: 1000000.
    documents: Option<u64>,
}

/// What is kept for how long.
#[derive(Clone, Debug, Default)]
pub struct Retention {
    /// Whether policies delete.
    pub mode: Mode,
    /// When policies run by themselves; never without.
    pub schedule: Option<Schedule>,
    /// How long a new policy is only planned by the schedule.
    pub soak: Duration,
    /// How long the lease lasts.
    pub lease: Duration,
    /// How gently a run goes.
    pub throttle: Throttle,
    /// How much a run does.
    pub budget: Budget,
    /// What must hold before an index may make documents vanish at once.
    pub guards: Guards,
    /// The TTL indexes that should be there.
    pub ttl: Vec<Ttl>,
    /// The policies.
    pub policies: Vec<Policy>,
    /// The policies of tables.
    pub tables: Vec<TablePolicy>,
    /// The policies of files.
    pub files: Vec<FilePolicy>,
}

/// How gently a run goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttle {
    /// A pause after each batch, as a multiple of the time that it took.
    pub pause: f64,
    /// Waits while a secondary is further behind.
    pub max_lag: Duration,
    /// Documents a batch.
    pub batch: u32,
}

/// How much a run does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// It ends after so long.
    pub time: Duration,
    /// It ends after so many documents.
    pub documents: u64,
}

// === impl RawRetention ===

impl RawRetention {
    /// `state_dir` is where the sidecar itself writes to.
    pub(super) fn validate(self, state_dir: &Path, profile: &str, problems: &mut Problems) -> Retention {
        let schedule = RawSchedule { schedule: self.schedule, timezone: self.timezone, jitter: self.jitter, catch_up: self.catch_up };
        let schedule = schedule.validate(problems);
        let soak = duration(self.soak, Duration::from_secs(86_400), Duration::ZERO, "retention.soak", problems);
        let lease = duration(self.lease, Duration::from_secs(30), SHORTEST_LEASE, "retention.lease", problems);
        let throttle = self.throttle.map_or_else(Throttle::default, |throttle| RawThrottle::validate(throttle, problems));
        let budget = self.budget.map_or_else(Budget::default, |budget| RawBudget::validate(budget, problems));
        let guards = self.guards.over(Guards::default(), "retention.guards", problems);
        let ttl = RawTtl::validate_all(self.ttl, profile, problems);
        let mut names = Names::default();
        let mut policies = Vec::new();
        for Spanned { place, value: policy } in self.policies {
            let mut complaints = Complaints::new(place, format!("retention.policies.{}", policy.name), problems);
            names.check(&policy.name, &mut complaints);
            policies.push(policy.validate(self.mode, self.archive.as_ref(), guards, &mut complaints));
        }
        let tables = RawTablePolicy::validate_all(self.tables, self.mode, self.archive.as_ref(), &mut names, problems);
        let archives =
            self.archive.iter().map(|url| url.value.as_str()).chain(policies.iter().filter_map(|policy| policy.archive.as_deref()));
        let archives = archives.chain(tables.iter().filter_map(|policy| policy.archive.as_deref()));
        let archives = archives.filter_map(|url| url.strip_prefix("file://")).map(|folder| ("the archive", PathBuf::from(folder)));
        let ours: Vec<_> = archives.chain([("the `state_dir`", state_dir.to_owned())]).collect();
        let mut files = Vec::new();
        for Spanned { place, value: policy } in self.files {
            let mut complaints = Complaints::new(place, format!("retention.files.{}", policy.name), problems);
            names.check(&policy.name, &mut complaints);
            files.extend(policy.validate(self.mode, &ours, &mut complaints));
        }
        Retention { mode: self.mode, schedule, soak, lease, throttle, budget, guards, ttl, policies, tables, files }
    }
}

/// Names are labels of metrics, folders of archives and what commands ask for: each stands once, whatever it is of.
#[derive(Debug, Default)]
struct Names(BTreeSet<String>);

impl Names {
    fn check(&mut self, name: &str, complaints: &mut Complaints<'_>) {
        if !self.0.insert(name.to_owned()) {
            complaints.say("there are two policies of this name, of documents, tables or files; give one of them another");
        }
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_plain) {
            complaints
                .say(format!("a policy's name has 1 to {LONGEST_NAME} characters of a-z, 0-9, - and _: it names a folder of archives"));
        }
    }
}

/// A duration of at least `least`, or what holds without it.
fn duration(given: Option<Spanned<HumanDuration>>, without: Duration, least: Duration, path: &str, problems: &mut Problems) -> Duration {
    let Some(Spanned { place, value: HumanDuration(given) }) = given else { return without };
    if given < least {
        Complaints::new(place, path.to_owned(), problems).say(format!("this is at least {}s", least.as_secs()));
    }
    given.max(least)
}

// === impl RawThrottle ===

impl RawThrottle {
    fn validate(raw: Spanned<Self>, problems: &mut Problems) -> Throttle {
        let mut complaints = Complaints::new(raw.place, "retention.throttle".to_owned(), problems);
        let without = Throttle::default();
        let throttle = Throttle {
            pause: raw.value.pause.unwrap_or(without.pause),
            max_lag: raw.value.max_lag.map_or(without.max_lag, |lag| lag.0),
            batch: raw.value.batch.unwrap_or(without.batch),
        };
        if !(0.0..=1000.0).contains(&throttle.pause) {
            complaints.say("`pause` is a multiple of the time that a batch took, from 0 to 1000".to_owned());
        }
        if !(1..=5000).contains(&throttle.batch) {
            complaints.say("`batch` is from 1 to 5000 documents".to_owned());
        }
        if throttle.max_lag.is_zero() {
            complaints.say("`max_lag` is above 0s: no secondary is ever quite up to date".to_owned());
        }
        throttle
    }
}

// === impl RawBudget ===

impl RawBudget {
    fn validate(raw: Spanned<Self>, problems: &mut Problems) -> Budget {
        let mut complaints = Complaints::new(raw.place, "retention.budget".to_owned(), problems);
        let without = Budget::default();
        let budget = Budget {
            time: raw.value.time.map_or(without.time, |time| time.0),
            documents: raw.value.documents.unwrap_or(without.documents),
        };
        if budget.time.is_zero() || budget.documents == 0 {
            complaints.say("a run with no time or no documents would do nothing; take the policy away instead".to_owned());
        }
        budget
    }
}

// === impl Throttle ===

impl Default for Throttle {
    fn default() -> Self {
        Self { pause: PAUSE, max_lag: Duration::from_secs(10), batch: BATCH }
    }
}

// === impl Budget ===

impl Default for Budget {
    fn default() -> Self {
        Self { time: Duration::from_secs(3600), documents: 1_000_000 }
    }
}
