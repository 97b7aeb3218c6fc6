//! A handshake: whether the certificate is good, and for how long still.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

use crate::clock::Now;
use crate::config::health::TlsProbe;
use crate::health::outcome::{Reason, Warning};
use crate::health::probe::{Answer, Failed, Found};
use crate::store::fault::Fault;
use crate::store::names::Names;
use crate::store::tls::{self, Expiry};
use crate::units::format_duration;

/// Asks one server.
#[derive(Debug)]
pub struct Prober {
    probe: TlsProbe,
    names: Names,
    expiry: Expiry,
    config: OnceCell<Arc<rustls::ClientConfig>>,
}

// === impl Prober ===

impl Prober {
    pub fn new(probe: &TlsProbe) -> Self {
        Self { probe: probe.clone(), names: Names::default(), expiry: Expiry::default(), config: OnceCell::new() }
    }

    pub fn expiry(&self) -> &Expiry {
        &self.expiry
    }

    pub async fn ask(&self) -> Answer {
        let config = self.config.get_or_try_init(async || tls::client(&self.probe.trust, &self.expiry).map(Arc::new));
        let config = config.await.map_err(|_| Failed::saying(Reason::Tls, "there are no authorities to trust; install ca-certificates"))?;
        let stream = self.names.connect(&self.probe.host, self.probe.port).await?;
        let connector = TlsConnector::from(Arc::clone(config));
        let handshake = connector.connect(self.probe.server_name.clone(), stream).await;
        if let Err(error) = handshake {
            // What was no fault of the connection is one of what speaks at the other end, such as plain HTTP.
            return Err(Failed::from(match Fault::of_io(&error) {
                Fault::Other => Fault::Tls,
                fault => fault,
            }));
        }
        match self.expiry.get() {
            Some(end) => judge(end, Now::read().wall, &self.probe),
            None => Err(Failed::saying(Reason::Tls, "the certificate cannot be read")),
        }
    }
}

fn judge(end: Timestamp, now: Timestamp, probe: &TlsProbe) -> Answer {
    let left = Duration::try_from(end.duration_since(now)).unwrap_or_default();
    let detail = format!("the certificate ends in {}", format_duration(Duration::from_secs(left.as_secs())));
    if left <= probe.fail_before {
        return Err(Failed::saying(Reason::TlsExpired, detail));
    }
    Ok(Found { warning: (left <= probe.warn_before).then_some(Warning::ExpiresSoon), detail: Some(detail) })
}
