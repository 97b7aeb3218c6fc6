//! What Prometheus learns about the run service.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::services::runs::run::Status;

type Of = [(&'static str, &'static str); 1];

/// Agents and what becomes of them.
#[derive(Clone, Debug, Default)]
pub(super) struct RunsMetrics {
    agents: Gauge,
    unrecorded: Gauge,
    started: Counter,
    reattached: Counter,
    ended: Family<Of, Counter>,
    refused: Family<Of, Counter>,
    heartbeat_failures: Counter,
    look_failures: Counter,
}

/// Why a run was not started.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NotStarted {
    /// One of the project runs already.
    AlreadyRunning,
    /// The project's schema index is not ready.
    NotReady,
    /// As many agents run here as may.
    Full,
    /// What was asked for is wrong.
    Refused,
    /// The database or the agent's program failed.
    Failed,
}

// === impl RunsMetrics ===

impl RunsMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let name = |name: &str| format!("bellwether_runs_{name}");
        registry.register(name("agents"), "Agents that this process looks after", self.agents.clone());
        registry.register(name("unrecorded"), "Agents that have ended and whose run is not yet written down", self.unrecorded.clone());
        registry.register(name("started"), "Agents that were started", self.started.clone());
        registry.register(name("reattached"), "Agents that were found alive after a restart", self.reattached.clone());
        registry.register(name("ended"), "Runs that ended, by what they came to", Family::clone(&self.ended));
        registry.register(name("refused"), "Runs that were not started, by reason", Family::clone(&self.refused));
        let help = "Heartbeats of runs that could not be written to the database";
        registry.register(name("heartbeat_failures"), help, self.heartbeat_failures.clone());
        let help = "Looks at agents that failed, such as those at Jobs of a cluster that did not answer";
        registry.register(name("look_failures"), help, self.look_failures.clone());
        for status in Status::ALL.into_iter().filter(|status| !status.is_active()) {
            drop(self.ended.get_or_create(&[("status", status.word())]));
        }
        for reason in NotStarted::ALL {
            drop(self.refused.get_or_create(&[("reason", reason.word())]));
        }
    }

    pub(super) fn note(&self, agents: usize, unrecorded: usize) {
        self.agents.set(i64::try_from(agents).unwrap_or(i64::MAX));
        self.unrecorded.set(i64::try_from(unrecorded).unwrap_or(i64::MAX));
    }

    pub(super) fn started(&self) {
        self.started.inc();
    }

    pub(super) fn reattached(&self, agents: usize) {
        if agents > 0 {
            tracing::info!(agents, "agents of an earlier process were found alive, and are looked after again");
        }
        self.reattached.inc_by(u64::try_from(agents).unwrap_or(u64::MAX));
    }

    pub(super) fn look_failed(&self) {
        self.look_failures.inc();
    }

    pub(super) fn ended(&self, status: Status) {
        self.ended.get_or_create(&[("status", status.word())]).inc();
    }

    pub(super) fn refused(&self, reason: NotStarted) {
        self.refused.get_or_create(&[("reason", reason.word())]).inc();
    }

    pub(super) fn heartbeat_failed(&self) {
        self.heartbeat_failures.inc();
    }
}

// === impl NotStarted ===

impl NotStarted {
    const ALL: [Self; 5] = [Self::AlreadyRunning, Self::NotReady, Self::Full, Self::Refused, Self::Failed];

    fn word(self) -> &'static str {
        match self {
            Self::AlreadyRunning => "already_running",
            Self::NotReady => "not_ready",
            Self::Full => "full",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}
