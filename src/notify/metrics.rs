//! What is told of receivers as metrics.

use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::notify::outcome::Reason;

type OfReceiver = [(&'static str, String); 1];
type OfReason = [(&'static str, String); 2];

/// What is told of receivers.
#[derive(Clone, Debug, Default)]
pub(super) struct DeliveryMetrics {
    sent: Family<OfReceiver, Counter>,
    failures: Family<OfReason, Counter>,
    dropped: Family<OfReceiver, Counter>,
    queue: Family<OfReceiver, Gauge>,
    last_success: Family<OfReceiver, Gauge<f64, AtomicU64>>,
}

/// The metrics of one receiver.
#[derive(Clone, Debug)]
pub(super) struct ReceiverMetrics {
    sent: Counter,
    failures: Vec<(Reason, Counter)>,
    dropped: Counter,
    queue: Gauge,
    /// What this one has added to the gauge, which the peers of a receiver share.
    waiting: i64,
    last_success: Gauge<f64, AtomicU64>,
}

// === impl DeliveryMetrics ===

impl DeliveryMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let name = |name: &str| format!("bellwether_notify_{name}");
        registry.register(name("sent"), "Messages that the receiver has taken", Family::clone(&self.sent));
        registry.register(name("failures"), "Attempts that failed, by reason", Family::clone(&self.failures));
        registry.register(name("dropped"), "Alerts for which there was no room beside those that wait", Family::clone(&self.dropped));
        registry.register(
            name("queue_length"),
            "Alerts and ends of alerts that the receiver is still to hear of",
            Family::clone(&self.queue),
        );
        registry.register(
            name("last_success_timestamp_seconds"),
            "When the receiver last took a message; 0 before the first since the start",
            Family::clone(&self.last_success),
        );
    }

    /// Those of a receiver, all of them exposed from now on.
    pub(super) fn of(&self, receiver: &str) -> ReceiverMetrics {
        let labels = [("receiver", receiver.to_owned())];
        let of_reason = |reason: Reason| [("receiver", receiver.to_owned()), ("reason", reason.name().to_owned())];
        ReceiverMetrics {
            sent: self.sent.get_or_create_owned(&labels),
            failures: Reason::ALL.map(|reason| (reason, self.failures.get_or_create_owned(&of_reason(reason)))).into(),
            dropped: self.dropped.get_or_create_owned(&labels),
            queue: self.queue.get_or_create_owned(&labels),
            waiting: 0,
            last_success: self.last_success.get_or_create_owned(&labels),
        }
    }
}

// === impl ReceiverMetrics ===

impl ReceiverMetrics {
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^53")]
    pub(super) fn succeeded(&self, now: Timestamp) {
        self.sent.inc();
        self.last_success.set(now.as_second() as f64);
    }

    pub(super) fn failed(&self, reason: Reason) {
        self.failures.iter().filter(|(known, _)| *known == reason).for_each(|(_, counter)| {
            counter.inc();
        });
    }

    pub(super) fn dropped(&self, count: u64) {
        self.dropped.inc_by(count);
    }

    pub(super) fn waiting(&mut self, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.queue.inc_by(count - self.waiting);
        self.waiting = count;
    }
}
