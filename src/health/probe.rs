//! Asking a component once. One file a protocol; the deadline is the runner's.

mod dns;
mod file;
mod host;
mod http;
mod mongodb;
mod postgres;
mod redis;
mod tcp;
mod tls;

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinHandle;

use crate::config::health::Probe;
use crate::health::outcome::{Outcome, Reason, Warning};
use crate::store::fault::Fault;
use crate::store::names::Names;
use crate::store::tls::Expiry;

/// Something that can be asked again and again.
#[derive(Clone, Debug)]
pub(super) enum Prober {
    Mongodb(Arc<mongodb::Prober>),
    Postgres(Arc<postgres::Prober>),
    Redis(Arc<redis::Prober>),
    Http(Arc<http::Prober>),
    Tcp { names: Names, address: Arc<str> },
    Tls(Arc<tls::Prober>),
    Dns(Arc<dns::Prober>),
    File(Arc<file::Prober>),
    Host(Arc<host::Prober>),
}

/// What a protocol found: a pass, or why it failed.
pub type Answer = Result<Found, Failed>;

/// A pass, and what may be said about it.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    warning: Option<Warning>,
    detail: Option<String>,
}

/// Why it failed, and what may be said about it.
#[derive(Debug, PartialEq)]
pub struct Failed {
    reason: Reason,
    detail: Option<String>,
}

// === impl Prober ===

impl Prober {
    /// Prepares what a check asks. Connects to nothing.
    pub fn new(probe: &Probe, client: &reqwest::Client) -> Self {
        match probe {
            Probe::Mongodb(probe) => Self::Mongodb(Arc::new(mongodb::Prober::new(probe))),
            Probe::Postgres(probe) => Self::Postgres(Arc::new(postgres::Prober::new(probe))),
            Probe::Redis(probe) => Self::Redis(Arc::new(redis::Prober::new(probe))),
            Probe::Http(probe) => Self::Http(Arc::new(http::Prober::new(probe, client))),
            Probe::Tcp { address } => Self::Tcp { names: Names::default(), address: Arc::from(address.as_str()) },
            Probe::Tls(probe) => Self::Tls(Arc::new(tls::Prober::new(probe))),
            Probe::Dns(probe) => Self::Dns(Arc::new(dns::Prober::new(probe))),
            Probe::File(probe) => Self::File(Arc::new(file::Prober::new(probe))),
            Probe::Host(probe) => Self::Host(Arc::new(host::Prober::new(probe))),
        }
    }

    /// Asks once, on a task of its own, so that the runner's deadline does not depend on what is asked.
    pub fn start(&self) -> JoinHandle<Outcome> {
        let prober = self.clone();
        #[expect(clippy::disallowed_methods, reason = "short-lived; the runner joins it, or aborts it at the deadline")]
        tokio::spawn(async move {
            let begin = Instant::now();
            let answer = prober.ask().await;
            let (duration, certificate_end) = (begin.elapsed(), prober.expiry().and_then(Expiry::get));
            match answer {
                Ok(Found { warning, detail }) => Outcome { failure: None, warning, duration, detail, certificate_end },
                Err(Failed { reason, detail }) => Outcome { failure: Some(reason), warning: None, duration, detail, certificate_end },
            }
        })
    }

    async fn ask(&self) -> Answer {
        match self {
            Self::Mongodb(prober) => prober.ask().await,
            Self::Postgres(prober) => prober.ask().await,
            Self::Redis(prober) => prober.ask().await,
            Self::Http(prober) => prober.ask().await,
            Self::Tcp { names, address } => tcp::ask(names, address).await,
            Self::Tls(prober) => prober.ask().await,
            Self::Dns(prober) => prober.ask().await,
            Self::File(prober) => prober.ask().await,
            Self::Host(prober) => prober.ask().await,
        }
    }

    /// Until when the certificate is valid that was seen last, for the protocols that see one.
    fn expiry(&self) -> Option<&Expiry> {
        match self {
            Self::Postgres(prober) => Some(prober.expiry()),
            Self::Redis(prober) => Some(prober.expiry()),
            Self::Http(prober) => Some(prober.expiry()),
            Self::Tls(prober) => Some(prober.expiry()),
            Self::Mongodb(_) | Self::Tcp { .. } | Self::Dns(_) | Self::File(_) | Self::Host(_) => None,
        }
    }

    /// Whether an attempt may be dropped halfway. The MongoDB driver's may not (RUST-937). A file system that hangs
    /// keeps its thread whoever waits: dropping the attempt would only start another. Both are left to end by themselves.
    pub fn may_be_dropped(&self) -> bool {
        !matches!(self, Self::Mongodb(_) | Self::File(_) | Self::Host(_))
    }
}

// === impl Found ===

impl Found {
    /// A pass with something to say.
    fn saying(detail: impl Into<String>) -> Self {
        Self { warning: None, detail: Some(detail.into()) }
    }
}

// === impl Failed ===

impl Failed {
    /// A failure with something to say.
    fn saying(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: Some(detail.into()) }
    }
}

impl From<Reason> for Failed {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: None }
    }
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::saying(Reason::from(fault), fault.text())
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self::from(Fault::of_io(&error))
    }
}

/// The client that HTTP checks without TLS share: no redirects, no proxy, few idle connections.
pub(super) fn http_client() -> Result<reqwest::Client, reqwest::Error> {
    http::client()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::config::health::TlsProbe;
    use crate::config::trust::Trust;

    /// Shows a certificate that ended in 2025 to whoever connects; its port.
    async fn expired_server() -> u16 {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (parameters.not_before, parameters.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2025, 1, 1));
        let certificate = parameters.self_signed(&key).unwrap().der().clone();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(TlsAcceptor::from(Arc::new(config.clone())).accept(stream).await);
            }
        });
        port
    }

    #[tokio::test]
    async fn the_end_of_a_certificate_is_told_also_when_it_fails() {
        let probe = TlsProbe {
            host: "127.0.0.1".to_owned(),
            port: expired_server().await,
            server_name: ServerName::try_from("localhost").unwrap(),
            warn_before: Duration::ZERO,
            fail_before: Duration::ZERO,
            trust: Trust::Anybody,
        };
        let outcome = Prober::new(&Probe::Tls(probe), &http_client().unwrap()).start().await.unwrap();
        assert_eq!(outcome.failure, Some(Reason::TlsExpired));
        assert_eq!(outcome.certificate_end.unwrap().to_string(), "2025-01-01T00:00:00Z");
    }
}
