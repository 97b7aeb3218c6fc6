//! How many tasks each runtime holds: what would grow if something were begun again and again and never ended.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::runtime::RuntimeMetrics;

/// Counts the tasks of runtimes at each scrape.
#[derive(Debug)]
pub struct Tasks([(&'static str, RuntimeMetrics); 2]);

// === impl Tasks ===

impl Tasks {
    /// Registers the tasks of these runtimes, each with its name.
    pub fn register(runtimes: [(&'static str, RuntimeMetrics); 2], registry: &mut Registry) {
        registry.register_collector(Box::new(Self(runtimes)));
    }
}

impl Collector for Tasks {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Tasks that have begun and not ended: those of the domains, and those of checks.";
        let mut metric = encoder.encode_descriptor("bellwether_runtime_tasks", help, None, MetricType::Gauge)?;
        for (runtime, metrics) in &self.0 {
            let tasks = i64::try_from(metrics.num_alive_tasks()).unwrap_or(i64::MAX);
            ConstGauge::new(tasks).encode(metric.encode_family(&[("runtime", *runtime)])?)?;
        }
        Ok(())
    }
}
