//! Families that threads share and Prometheus reads. Whoever looks at them sees what time it is.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Moment;
use crate::metrics::open_metrics::{Kind, Labels, OpenMetrics};
use crate::metrics::registry::Source;
use crate::series::families::Families;

/// Families that threads share and Prometheus reads.
#[derive(Clone, Default)]
pub struct SharedFamilies(Arc<Mutex<Families>>);

/// What went beyond the caps of several owners: one family each, as the exposition demands.
#[derive(Debug, Default)]
pub struct Limits(pub Vec<SharedFamilies>);

// === impl SharedFamilies ===

impl SharedFamilies {
    /// Shares families.
    #[must_use]
    pub fn new(families: Families) -> Self {
        Self(Arc::new(Mutex::new(families)))
    }

    /// Locks them. A panic of another holder leaves values that are whole: each update is one assignment.
    pub fn lock(&self) -> MutexGuard<'_, Families> {
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        families.set_now(Moment::read());
        families
    }
}

impl fmt::Debug for SharedFamilies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SharedFamilies")
    }
}

impl Source for SharedFamilies {
    fn write(&self, to: &mut OpenMetrics) {
        let mut families = self.lock();
        families.tick();
        families.write(to);
    }
}

// === impl Limits ===

impl Source for Limits {
    fn write(&self, to: &mut OpenMetrics) {
        let mut overflowed: BTreeMap<String, u64> = BTreeMap::new();
        let mut too_long: BTreeMap<String, u64> = BTreeMap::new();
        for owner in &self.0 {
            for family in owner.lock().families.iter().filter(|family| family.is_used()) {
                *overflowed.entry(family.metric.name.clone()).or_default() += family.overflowed;
                if let Some(count) = family.too_long {
                    *too_long.entry(family.metric.name.clone()).or_default() += count;
                }
            }
        }
        let help = "Updates that went to the series `overflow`, because their metric has too many others.";
        write("bellwether_series_overflow", help, &overflowed, to);
        if !too_long.is_empty() {
            let help = "Label values that were too long and count as any other, by metric.";
            write("bellwether_series_label_too_long", help, &too_long, to);
        }
    }
}

fn write(name: &str, help: &str, totals: &BTreeMap<String, u64>, to: &mut OpenMetrics) {
    to.family(name, help, Kind::Counter);
    for (metric, total) in totals {
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        to.counter(name, &Labels::new([("metric", metric.as_str())]), *total as f64, 0, None);
    }
}
