//! Delivers what the evaluation publishes to every receiver, each at its own pace: one that is slow or away holds up no
//! other.

use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use prometheus_client::registry::Registry;
use reqwest::{Client, Method};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::Moment;
use crate::config::notify::{Channel, HeartbeatMethod, Receiver};
use crate::event::FatalLine;
use crate::notify::Alerts;
use crate::notify::beat::Beat;
use crate::notify::desk::{Desk, Way};
use crate::notify::dispatch::Dispatch;
use crate::notify::fatal::{Intake, Reporter};
use crate::notify::http;
use crate::notify::inhibit::{Inhibition, InhibitionError};
use crate::notify::metrics::DeliveryMetrics;
use crate::notify::peer::Peer;
use crate::notify::store::Store;
use crate::runtime::supervise::PartResult;

/// Everybody who is told.
#[derive(Debug, Default)]
pub struct Courier {
    desks: Vec<Desk>,
    peers: Vec<Peer>,
    beats: Vec<Beat>,
    reporters: Vec<(Intake, Reporter)>,
}

/// Nobody can be told.
#[derive(Debug, thiserror::Error)]
pub enum CourierError {
    /// There is no client for requests.
    #[error("cannot make the client for notifications")]
    Client(#[source] reqwest::Error),
    /// What is shipped cannot be read.
    #[error(transparent)]
    Inhibition(#[from] InhibitionError),
}

// === impl Courier ===

impl Courier {
    /// Takes over what each receiver has been told so far from `folder`, where there is one. Nothing is sent yet.
    ///
    /// # Errors
    /// When there is no client for requests.
    pub fn new(receivers: &[Receiver], folder: Option<&Path>, registry: &mut Registry) -> Result<Self, CourierError> {
        let metrics = DeliveryMetrics::default();
        if !receivers.is_empty() {
            metrics.register(registry);
        }
        let inhibition = Arc::new(Inhibition::shipped()?);
        let mut courier = Self::default();
        for receiver in receivers {
            let client = http::client(&receiver.trust).map_err(CourierError::Client)?;
            let mut of_receiver = metrics.of(&receiver.name);
            let name = receiver.name.clone();
            let way = match &receiver.channel {
                Channel::Alertmanager(urls) => {
                    let severities = receiver.policy.severities.as_ref();
                    courier.peers.extend(urls.iter().filter_map(|url| Peer::new(&name, url, &client, severities, of_receiver.clone())));
                    continue;
                }
                Channel::Heartbeat { url, every, method } => {
                    let method = if *method == HeartbeatMethod::Post { Method::POST } else { Method::GET };
                    courier.beats.push(Beat { name, client, url: url.clone(), every: *every, method, metrics: of_receiver });
                    continue;
                }
                people => Way::of(people, client.clone(), receiver),
            };
            if let Channel::Sentry { dsn, fatal_lines: true } = &receiver.channel {
                courier.reporters.push(Reporter::new(&name, &client, dsn, of_receiver.clone()));
            }
            let Some(way) = way else { continue };
            let (store, kept) = Store::open(folder, &name);
            let dispatch = Dispatch::restore(receiver.policy.clone(), kept, Moment::read());
            of_receiver.waiting(dispatch.waiting());
            courier.desks.push(Desk { name, way, dispatch, store, metrics: of_receiver, inhibition: Arc::clone(&inhibition) });
        }
        Ok(courier)
    }

    /// Delivers until `stop`. A list that was there before is not taken for an evaluation.
    ///
    /// # Errors
    /// Never: whatever goes wrong with a receiver is told by its metrics.
    pub async fn run(self, alerts: Alerts, fatal: Option<mpsc::Receiver<FatalLine>>, stop: CancellationToken) -> PartResult {
        let desks = self.desks.into_iter().map(|desk| desk.run(alerts.clone(), stop.clone()));
        let peers = self.peers.into_iter().map(|peer| peer.run(alerts.clone(), stop.clone()));
        let beats = self.beats.into_iter().map(|beat| beat.run(alerts.clone(), stop.clone()));
        let (intakes, reporters): (Vec<Intake>, Vec<Reporter>) = self.reporters.into_iter().unzip();
        let reporters = reporters.into_iter().map(|reporter| reporter.run(stop.clone()));
        let lines = stop.run_until_cancelled(hand_out(fatal, intakes));
        tokio::join!(join_all(desks), join_all(peers), join_all(beats), join_all(reporters), lines, stop.cancelled());
        Ok(())
    }
}

/// Gives each line to everybody who wants to hear of them.
async fn hand_out(lines: Option<mpsc::Receiver<FatalLine>>, intakes: Vec<Intake>) {
    let Some(mut lines) = lines else { return };
    while let Some(line) = lines.recv().await {
        let line = Arc::new(line);
        for intake in &intakes {
            // It is taken at once: what waits long, waits behind it.
            let _ = intake.send(Arc::clone(&line)).await;
        }
    }
}

// === impl Way ===

impl Way {
    /// The way to people; `None` where there is none.
    fn of(channel: &Channel, client: Client, receiver: &Receiver) -> Option<Self> {
        Some(match channel {
            Channel::Slack(url) => Self::Slack(client, url.clone()),
            Channel::Discord(url) => Self::Discord(client, url.clone()),
            Channel::Webhook { url, hmac } => Self::Webhook { client, url: url.clone(), hmac: hmac.clone() },
            Channel::Sentry { dsn, .. } => Self::Sentry(client, dsn.clone()),
            Channel::Email(settings) => Self::Email(settings.clone(), receiver.trust.clone()),
            Channel::Alertmanager(_) | Channel::Heartbeat { .. } => return None,
        })
    }
}
