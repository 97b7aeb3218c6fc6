//! The form of a health document: its keys, their order, and what stands in them for whom. Written straight from the
//! snapshot, without a tree of values in between: a hundred checks change twenty times a second.

use std::fmt::Display;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use crate::admin::Surface;
use crate::admin::access::Viewer;
use crate::health::aggregate::{CheckView, Snapshot, State, Status};

/// The document of everything.
#[derive(Serialize)]
pub(super) struct Document<'a> {
    status: &'static str,
    version: &'static str,
    #[serde(rename = "releaseId")]
    release: &'static str,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    #[serde(rename = "x-root_causes")]
    root_causes: Vec<&'a str>,
    #[serde(rename = "x-groups")]
    groups: Groups<'a>,
    checks: Checks<'a>,
    links: Links,
}

/// The document of a single check.
#[derive(Serialize)]
pub(super) struct OfOne<'a> {
    pub(super) status: &'static str,
    pub(super) checks: OneCheck<'a>,
}

/// A check under its key.
pub(super) struct OneCheck<'a>(pub(super) &'a CheckView, pub(super) Viewer);

/// The sidecar's own progress: a verdict is worth what the one who gives it is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Scheduler {
    component_type: &'static str,
    observed_value: f64,
    observed_unit: &'static str,
    status: &'static str,
}

struct Checks<'a> {
    snapshot: &'a Snapshot,
    viewer: Viewer,
    scheduler: Scheduler,
}

struct Groups<'a>(&'a Snapshot);

#[derive(Serialize)]
struct Links {
    metrics: &'static str,
    ready: &'static str,
    history: &'static str,
}

#[derive(Serialize)]
struct Component<'a> {
    #[serde(rename = "componentId")]
    name: &'a str,
    #[serde(rename = "componentType")]
    component_type: &'static str,
    status: &'static str,
    #[serde(flatten)]
    last: Option<Last<'a>>,
    #[serde(rename = "x-state")]
    state: &'static str,
    #[serde(rename = "x-verdict")]
    verdict: &'static str,
    #[serde(rename = "x-since", serialize_with = "shown")]
    since: jiff::Timestamp,
    #[serde(rename = "x-reason", skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(rename = "x-suppressed_by", skip_serializing_if = "Option::is_none")]
    suppressed_by: Option<&'a str>,
    #[serde(rename = "x-root_cause")]
    is_root_cause: bool,
    #[serde(rename = "x-stale")]
    is_stale: bool,
    #[serde(rename = "x-criticality")]
    criticality: &'static str,
    #[serde(rename = "x-interval_ms", serialize_with = "millis")]
    interval: Duration,
    #[serde(rename = "x-maintenance", skip_serializing_if = "Option::is_none")]
    maintenance: Option<Maintenance<'a>>,
}

/// The last look.
#[derive(Serialize)]
struct Last<'a> {
    #[serde(rename = "observedValue", serialize_with = "millis")]
    duration: Duration,
    #[serde(rename = "observedUnit")]
    unit: &'static str,
    #[serde(serialize_with = "shown")]
    time: jiff::Timestamp,
    #[serde(rename = "x-raw")]
    raw: &'static str,
    #[serde(rename = "x-consecutive")]
    consecutive: u32,
    #[serde(rename = "x-age_ms", serialize_with = "millis")]
    age: Duration,
    #[serde(rename = "x-warning", skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
    #[serde(rename = "x-certificate_end", skip_serializing_if = "Option::is_none")]
    certificate_end: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a str>,
}

#[derive(Serialize)]
struct Maintenance<'a> {
    #[serde(serialize_with = "shown")]
    until: jiff::Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

// === impl Document ===

impl<'a> Document<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, viewer: Viewer, profile: &str, scheduler: Scheduler) -> Self {
        let status = snapshot.status();
        let wrong = || {
            let failing = snapshot.checks.iter().filter(|check| check.status() != Status::Pass);
            failing.map(|check| format!("{} is {}", check.name, check.state.code())).collect::<Vec<_>>().join(", ")
        };
        Self {
            status: status.word(),
            version: "1",
            release: env!("CARGO_PKG_VERSION"),
            description: format!("Health of the profile {profile}"),
            // The draft asks for an output only where something is wrong.
            output: (status != Status::Pass).then(wrong),
            root_causes: snapshot.root_causes().collect(),
            groups: Groups(snapshot),
            checks: Checks { snapshot, viewer, scheduler },
            links: Links { metrics: "/metrics", ready: "/readyz", history: "/api/v1/history" },
        }
    }
}

// === impl OneCheck ===

impl Serialize for OneCheck<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(Key(self.0), [Component::new(self.0, self.1)])])
    }
}

// === impl Scheduler ===

impl Scheduler {
    pub(super) fn of(surface: &Surface) -> Self {
        let now = Instant::now();
        let age = surface.heartbeats.iter().map(|(_, heartbeat)| heartbeat.age(now)).max().unwrap_or_default();
        let status = if age < surface.stuck_after { Status::Pass } else { Status::Fail };
        Self { component_type: "system", observed_value: age.as_secs_f64(), observed_unit: "s", status: status.word() }
    }
}

// === impl Checks ===

impl Serialize for Checks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for check in &self.snapshot.checks {
            map.serialize_entry(&Key(check), &[Component::new(check, self.viewer)])?;
        }
        map.serialize_entry("sidecar:scheduler", &[&self.scheduler])?;
        map.end()
    }
}

// === impl Groups ===

impl Serialize for Groups<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let status = |ready| if ready { Status::Pass } else { Status::Fail };
        serializer.collect_map(self.0.groups.iter().map(|group| (&group.name, status(group.ready).word())))
    }
}

// === impl Component ===

impl<'a> Component<'a> {
    fn new(check: &'a CheckView, viewer: Viewer) -> Self {
        let is_trusted = viewer == Viewer::Trusted;
        let last = check.last.as_ref().map(|last| Last {
            duration: last.duration,
            unit: "ms",
            time: last.at,
            raw: if last.failure.is_some() { "fail" } else { "pass" },
            consecutive: check.consecutive,
            age: last.age,
            warning: last.warning.map(|warning| warning.code()),
            certificate_end: last.certificate_end.map(|end| end.to_string()),
            output: last.detail.as_deref().filter(|_| is_trusted),
        });
        let maintenance = check
            .maintenance
            .as_ref()
            .map(|maintenance| Maintenance { until: maintenance.until, reason: maintenance.reason.as_deref().filter(|_| is_trusted) });
        Self {
            name: &check.name,
            component_type: check.component_type,
            status: check.status().word(),
            last,
            state: check.state.code(),
            verdict: check.verdict.code(),
            since: check.since,
            reason: check.reason,
            suppressed_by: check.suppressed_by.as_deref(),
            is_root_cause: check.is_root_cause,
            is_stale: check.verdict == State::Stale,
            criticality: if check.critical { "critical" } else { "informative" },
            interval: check.interval,
            maintenance,
        }
    }
}

/// The draft names a check by component and measurement.
struct Key<'a>(&'a CheckView);

impl Serialize for Key<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}:responseTime", self.0.name))
    }
}

fn shown<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
