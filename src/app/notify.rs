//! Alerts that we evaluate ourselves, and who is told: only where the configuration names somebody.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::app::AppError;
use crate::config::Config;
use crate::event::FatalLine;
use crate::metrics::Registry;
use crate::notify::courier::Courier;
use crate::notify::watch::{AlertWatch, WatchMetrics};
use crate::runtime::latch::Latch;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::supervise::Supervisor;

/// Parts that are made, and start when everything else is registered; nothing where nobody is to be told.
pub(super) struct Notify(Option<(AlertWatch, Courier)>);

// === impl Notify ===

impl Notify {
    /// Makes both, where somebody is to be told.
    pub fn new(config: &Config, state_dir: Option<&Path>, registry: &mut Registry) -> Result<Self, AppError> {
        if config.notify.is_empty() {
            return Ok(Self(None));
        }
        let metrics = WatchMetrics::default();
        metrics.register(registry);
        let courier = Courier::new(&config.notify, state_dir, registry)?;
        let instance = format!("{}:{}", host_name(), config.listen.port());
        let alerts = AlertWatch::new(&config.alerts.rules, state_dir, instance, config.alerts.every, metrics)?;
        Ok(Self(Some((alerts, courier))))
    }

    /// Begins to ask and to tell. `registry` is all that is exposed.
    pub fn start(
        self,
        registry: &Arc<Registry>,
        caught_up: &Latch,
        fatal_lines: Option<mpsc::Receiver<FatalLine>>,
        shutdown: &Shutdown,
        supervisor: &mut Supervisor,
    ) {
        let Some((rules, courier)) = self.0 else { return };
        let (sender, alerts) = watch::channel(Arc::new(rules.alerts()));
        supervisor.spawn("alerts", rules.run(Arc::clone(registry), caught_up.clone(), sender, shutdown.token()));
        supervisor.spawn("notify", courier.run(alerts, fatal_lines, shutdown.token()));
    }
}

/// As the kernel knows this machine; in a pod, the name of the pod.
pub(super) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".to_owned() } else { name.trim().to_owned() }
}
