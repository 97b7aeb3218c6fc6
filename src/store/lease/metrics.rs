//! What Prometheus learns about the leadership of this process.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::store::lease::Lease;

/// Whether this process leads, in which epoch, and how fresh that is.
#[derive(Clone, Debug, Default)]
pub struct LeaseMetrics {
    leader: Gauge,
    epoch: Gauge,
    renewal_age: Gauge<f64, AtomicU64>,
}

// === impl LeaseMetrics ===

impl LeaseMetrics {
    /// Registers them, as those of a process that does not lead.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("bellwether_leader", "Whether this process is the one that schedules retention", self.leader.clone());
        registry.register("bellwether_leader_epoch", "The number of take-overs of the lease up to this process", self.epoch.clone());
        registry.register(
            "bellwether_leader_renewal_age_seconds",
            "How long ago the lease was last renewed; 0 where this process does not lead",
            self.renewal_age.clone(),
        );
    }

    /// Tells what is held now.
    pub fn note(&self, lease: Option<&Lease>) {
        let live = lease.filter(|lease| lease.live().is_ok());
        self.leader.set(i64::from(live.is_some()));
        self.epoch.set(live.map_or(0, Lease::epoch));
        self.renewal_age.set(live.map_or(0.0, |lease| lease.renewal_age().as_secs_f64()));
    }
}
