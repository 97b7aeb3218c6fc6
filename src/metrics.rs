//! What is exposed at `/metrics`: the registry, its two text formats, and the metrics of the process itself.
//!
//! Each domain defines its own metrics and registers them here. Knows nothing of what they mean.

pub mod exposition;
pub mod open_metrics;
pub mod process;
pub mod registry;
pub mod sample;
pub mod tasks;
pub mod text;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::gauge::Gauge;

pub use registry::Registry;

/// A registry with what every process exposes: `bellwether_build_info` and the `process_*` metrics.
#[must_use]
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    let build: Family<[(&'static str, &'static str); 1], Gauge> = Family::default();
    build.get_or_create_owned(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
    registry.register("bellwether_build_info", "The version of this sidecar", build);
    registry.register_collector(Box::new(process::Process));
    registry
}

/// Writes one value of a metric that has no labels; a shorthand for collectors.
///
/// # Errors
/// When the encoder refuses to write.
pub(crate) fn write_gauge(
    encoder: &mut prometheus_client::encoding::DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: f64,
) -> std::fmt::Result {
    use prometheus_client::encoding::EncodeMetric as _;
    let gauge = ConstGauge::new(value);
    let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
    gauge.encode(metric)
}
