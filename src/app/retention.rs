//! Retention as a part of the process: the look at TTL indexes, and the service that plans, leads and runs.

use std::sync::Arc;

use prometheus_client::registry::Registry;

use crate::config::Config;
use crate::retention::{Engine, Questions, RetentionMetrics, Service, TtlObserver, TtlOwner};
use crate::runtime::shutdown::Shutdown;
use crate::runtime::supervise::Supervisor;
use crate::store::lease::LeaseMetrics;
use crate::store::mongodb::{Mongo, Purpose};

/// Starts what the configuration asks for. Where questions about retention go, if there is a database to ask.
pub(super) fn start(config: &Config, shutdown: &Shutdown, registry: &mut Registry, supervisor: &mut Supervisor) -> Option<Questions> {
    let store = config.stores.mongodb.as_ref()?;
    let observer = TtlObserver::new(&config.retention.ttl, store, registry);
    supervisor.spawn("ttl", observer.run(shutdown.token()));
    if config.retention.policies.is_empty() && config.retention.ttl.is_empty() {
        return None;
    }
    let (metrics, lease_metrics) = (RetentionMetrics::default(), LeaseMetrics::default());
    metrics.register(&config.retention.policies, registry);
    lease_metrics.register(registry);
    let mongo = Arc::new(Mongo::new(store, Purpose::Retention));
    let engine = Engine::new(Arc::clone(&mongo), &config.retention, &config.storage, config.profile, metrics);
    let (questions, service) = Service::new(engine, lease_metrics, TtlOwner::new(mongo));
    supervisor.spawn("retention", service.run(shutdown.token()));
    Some(questions)
}
