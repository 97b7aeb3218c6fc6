//! Asking a component once. One file a protocol; the deadline is the runner's.

mod http;
mod mongodb;
mod tcp;

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinHandle;

use crate::config::health::Probe;
use crate::health::outcome::{Outcome, Reason};
use crate::store::mongodb::{Mongo, Purpose};

/// Something that can be asked again and again.
#[derive(Clone, Debug)]
pub(super) enum Prober {
    Mongodb(Arc<Mongo>),
    Http { client: reqwest::Client, url: reqwest::Url },
    Tcp { address: Arc<str> },
}

/// What a protocol found: nothing, or why it failed and what may be said about it.
pub(super) type Answer = Result<(), (Reason, Option<String>)>;

// === impl Prober ===

impl Prober {
    /// Prepares what a check asks. Connects to nothing.
    pub fn new(probe: &Probe, client: &reqwest::Client) -> Self {
        match probe {
            Probe::Mongodb(store) => Self::Mongodb(Arc::new(Mongo::new(store, Purpose::Health))),
            Probe::Http { url } => Self::Http { client: client.clone(), url: url.clone() },
            Probe::Tcp { address } => Self::Tcp { address: Arc::from(address.as_str()) },
        }
    }

    /// Asks once, on a task of its own, so that the runner's deadline does not depend on what is asked.
    pub fn start(&self) -> JoinHandle<Outcome> {
        let prober = self.clone();
        #[expect(clippy::disallowed_methods, reason = "short-lived; the runner joins it, or aborts it at the deadline")]
        tokio::spawn(async move {
            let begin = Instant::now();
            let answer = match prober {
                Self::Mongodb(mongo) => mongodb::ask(&mongo).await,
                Self::Http { client, url } => http::ask(&client, url).await,
                Self::Tcp { address } => tcp::ask(&address).await,
            };
            let (failure, detail) = match answer {
                Ok(()) => (None, None),
                Err((reason, detail)) => (Some(reason), detail),
            };
            Outcome { failure, duration: begin.elapsed(), detail }
        })
    }

    /// Whether an attempt may be dropped halfway. The MongoDB driver's may not (RUST-937): it is left to end by itself.
    pub fn may_be_dropped(&self) -> bool {
        !matches!(self, Self::Mongodb(_))
    }
}

/// The client that all HTTP checks share: no redirects, no proxy, few idle connections.
pub(super) fn http_client() -> Result<reqwest::Client, reqwest::Error> {
    http::client()
}
