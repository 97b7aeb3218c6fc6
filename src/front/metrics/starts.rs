//! What is exposed of starts, claims and runs whose agent is gone.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::front::admission::{Outcome, Seen};

type Label = [(&'static str, &'static str); 1];

/// What is exposed of starts.
#[derive(Clone, Debug, Default)]
pub struct StartMetrics {
    starts: Family<Label, Counter>,
    claims: Family<Label, Gauge>,
    /// Whether claims and runs could be read.
    pub success: Gauge,
    /// Runs of which nobody has heard.
    pub stale: Gauge,
    /// Those that were marked as failed.
    pub marked_failed: Counter,
}

// === impl StartMetrics ===

impl StartMetrics {
    /// Registers all of them; what alerts ask for is there from the start.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Starts of runs, by what became of them: already_running and unavailable were not passed on";
        registry.register("bellwether_front_starts", help, self.starts.clone());
        let help = "Projects that are claimed, by whether their run is being started or runs";
        registry.register("bellwether_front_claims", help, self.claims.clone());
        let help = "Whether runs, claims and, where agents are Jobs, their Jobs could be read when they were last looked at";
        registry.register("bellwether_front_watch_success", help, self.success.clone());
        let help = "Runs that are under way, were not updated for longer than front.admission.stale_after, and have no process or Job that can be seen";
        registry.register("bellwether_front_stale_runs", help, self.stale.clone());
        let help = "Runs that were marked as failed, as their agent was gone";
        registry.register("bellwether_front_runs_marked_failed", help, self.marked_failed.clone());
        for outcome in Outcome::LABELS.into_iter().chain(["already_running", "unavailable"]) {
            drop(self.starts.get_or_create(&[("outcome", outcome)]));
        }
        self.show_claims(&[]);
    }

    /// A start has been decided on.
    pub fn count(&self, outcome: &'static str) {
        self.starts.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// The claims that are held.
    pub fn show_claims(&self, claims: &[Seen]) {
        let running = claims.iter().filter(|claim| claim.run.is_some()).count();
        let starting = claims.iter().filter(|claim| claim.run.is_none() && !claim.is_lapsed).count();
        for (state, count) in [("running", running), ("starting", starting)] {
            self.claims.get_or_create(&[("state", state)]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
