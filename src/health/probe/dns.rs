//! A name that resolves, by the same resolver that the applications ask.

use crate::config::health::DnsProbe;
use crate::health::outcome::Reason;
use crate::health::probe::{Answer, Failed, Found};
use crate::store::names::Names;

/// Asks for one name.
#[derive(Debug)]
pub struct Prober {
    probe: DnsProbe,
    names: Names,
}

// === impl Prober ===

impl Prober {
    pub fn new(probe: &DnsProbe) -> Self {
        Self { probe: probe.clone(), names: Names::default() }
    }

    pub async fn ask(&self) -> Answer {
        let found = self.names.resolve(&self.probe.name).await?.len();
        let detail = format!("{found} addresses, at least {} wanted", self.probe.min_addresses);
        if found < self.probe.min_addresses {
            return Err(Failed::saying(Reason::Dns, detail));
        }
        Ok(Found::saying(detail))
    }
}
