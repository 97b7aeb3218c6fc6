//! Retention as a part of the process: the look at TTL indexes, and the services that plan, lead and run.

use std::path::Path;
use std::sync::Arc;

use prometheus_client::registry::Registry;

use crate::config::Config;
use crate::retention::local::{Local, LocalService};
use crate::retention::{Engine, Kind, Questions, RetentionMetrics, Service, TtlObserver, TtlOwner};
use crate::runtime::shutdown::Shutdown;
use crate::runtime::supervise::Supervisor;
use crate::store::lease::LeaseMetrics;
use crate::store::mongodb::{Mongo, Purpose};

/// Starts what the configuration asks for. Where questions about retention go, if there is anything to ask.
pub(super) fn start(
    config: &Config,
    state_dir: Option<&Path>,
    shutdown: &Shutdown,
    registry: &mut Registry,
    supervisor: &mut Supervisor,
) -> Option<Questions> {
    let retention = &config.retention;
    let has_documents = config.stores.mongodb.is_some() && !(retention.policies.is_empty() && retention.ttl.is_empty());
    let has_others = !(retention.tables.is_empty() && retention.files.is_empty());
    let metrics = RetentionMetrics::default();
    if has_documents || has_others {
        metrics.register(registry);
    }
    let mut questions = None;
    if let Some(store) = &config.stores.mongodb {
        let observer = TtlObserver::new(&retention.ttl, store, registry);
        supervisor.spawn("ttl", observer.run(shutdown.token()));
        if has_documents {
            retention.policies.iter().for_each(|policy| metrics.expect(&policy.name, policy.mode, Kind::Documents));
            let lease_metrics = LeaseMetrics::default();
            lease_metrics.register(registry);
            let mongo = Arc::new(Mongo::new(store, Purpose::Retention));
            let engine = Engine::new(Arc::clone(&mongo), retention, &config.storage, config.profile, metrics.clone());
            let (sender, service) = Service::new(engine, lease_metrics, TtlOwner::new(mongo));
            supervisor.spawn("retention", service.run(shutdown.token()));
            questions = Some(sender);
        }
    }
    if has_others {
        let local = Local::new(retention, config.stores.postgres.as_ref(), &config.storage, config.profile, state_dir, metrics);
        let (sender, service) = LocalService::new(local, questions);
        supervisor.spawn("retention of tables and files", service.run(shutdown.token()));
        questions = Some(sender);
    }
    questions
}
