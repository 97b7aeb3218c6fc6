//! How many tasks a runtime holds: what would grow if something were begun again and again and never ended.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tokio::runtime::RuntimeMetrics;

use crate::metrics::write_gauge;

/// Counts the tasks of one runtime at each scrape.
#[derive(Debug)]
pub struct Tasks(pub RuntimeMetrics);

// === impl Tasks ===

impl Collector for Tasks {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        #[expect(clippy::cast_precision_loss, reason = "tasks are few")]
        let tasks = self.0.num_alive_tasks() as f64;
        write_gauge(&mut encoder, "bellwether_runtime_tasks", "Tasks that the domains have begun and that have not ended.", tasks)
    }
}
