//! What Prometheus learns about the secrets service.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

type Labels = [(&'static str, &'static str); 2];

/// What was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Operation {
    /// All of a project, masked.
    List,
    /// One is stored.
    Set,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Answered {
    /// It was done.
    Done,
    /// It was the client's mistake.
    Refused,
    /// It was ours, or the database's.
    Failed,
}

/// Requests by what came of them.
#[derive(Clone, Debug, Default)]
pub(super) struct SecretsMetrics {
    requests: Family<Labels, Counter>,
}

// === impl SecretsMetrics ===

impl SecretsMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Requests to the secrets service, by what was asked for and what came of it";
        registry.register("bellwether_secrets_requests", help, Family::clone(&self.requests));
        for operation in [Operation::List, Operation::Set] {
            for answered in [Answered::Done, Answered::Refused, Answered::Failed] {
                // Exposed as 0 from the start.
                drop(self.requests.get_or_create(&labels(operation, answered)));
            }
        }
    }

    pub(super) fn count(&self, operation: Operation, answered: Answered) {
        self.requests.get_or_create(&labels(operation, answered)).inc();
    }
}

fn labels(operation: Operation, answered: Answered) -> Labels {
    let operation = match operation {
        Operation::List => "list",
        Operation::Set => "set",
    };
    let outcome = match answered {
        Answered::Done => "done",
        Answered::Refused => "refused",
        Answered::Failed => "failed",
    };
    [("operation", operation), ("outcome", outcome)]
}
