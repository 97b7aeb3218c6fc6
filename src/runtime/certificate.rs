//! A certificate of our own, shown to those who connect, and read again while it is in use: cert-manager and the like
//! replace the files long before the old certificate ends, and nobody restarts for it.
//!
//! Owns the files and what became of them. Knows nothing of listeners.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;
use x509_cert::Certificate as X509;
use x509_cert::der::Decode as _;

use crate::runtime::supervise::PartResult;

/// How often the files are read. A Secret takes a minute to reach a pod.
const POLL: Duration = Duration::from_secs(5);

type ListenerLabel = [(&'static str, &'static str); 1];

/// Where a certificate and its key are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateFiles {
    /// PEM: the certificate, and those between it and the authority.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read, or is no PEM.
    #[error("cannot read {what} from {}", path.display())]
    File {
        /// What was looked for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: pem::Error,
    },
    /// The file holds none.
    #[error("there is no certificate in {}; a PEM file has BEGIN CERTIFICATE in it", .0.display())]
    Empty(PathBuf),
    /// The certificate and the key do not belong together, or are of no known kind.
    #[error("the certificate of {} and the key of {} cannot be used together", files.certificate.display(), files.key.display())]
    Unusable {
        /// The files.
        files: CertificateFiles,
        /// Why.
        #[source]
        cause: rustls::Error,
    },
}

/// A certificate that is kept current.
pub struct Certificate {
    files: CertificateFiles,
    current: Arc<Current>,
    server_config: Arc<ServerConfig>,
    metrics: CertificateMetrics,
}

/// What is shown at this moment.
struct Current(ArcSwap<CertifiedKey>);

/// What is exposed of a certificate.
#[derive(Clone, Debug, Default)]
struct CertificateMetrics {
    /// Seconds since the epoch.
    end: Gauge,
    reload_success: Gauge,
}

/// Until when a certificate is valid.
#[must_use]
pub fn end_of(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let parsed = X509::from_der(certificate.as_ref()).ok()?;
    let seconds = parsed.tbs_certificate.validity.not_after.to_unix_duration().as_secs();
    Timestamp::from_second(i64::try_from(seconds).ok()?).ok()
}

// === impl CertificateFiles ===

impl CertificateFiles {
    /// Reads both and holds them together.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(&self) -> Result<CertifiedKey, CertificateError> {
        let unreadable = |what, path: &PathBuf| {
            let path = path.clone();
            move |cause| CertificateError::File { what, path, cause }
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect)
            .map_err(unreadable("a certificate", &self.certificate))?;
        if chain.is_empty() {
            return Err(CertificateError::Empty(self.certificate.clone()));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(unreadable("a private key", &self.key))?;
        CertifiedKey::from_der(chain, key, &default_provider()).map_err(|cause| CertificateError::Unusable { files: self.clone(), cause })
    }
}

// === impl Certificate ===

impl Certificate {
    /// Reads the certificate of each listener that has one. What is exposed is so only where there is one.
    ///
    /// # Errors
    /// What is wrong with the first one that cannot be used.
    pub fn open<const N: usize>(
        listeners: [(&'static str, Option<&CertificateFiles>); N],
        registry: &mut Registry,
    ) -> Result<[Option<Arc<Self>>; N], CertificateError> {
        let (ends, successes): (Family<ListenerLabel, Gauge>, Family<ListenerLabel, Gauge>) = Default::default();
        let mut opened = listeners.map(|_| None);
        for (place, (listener, files)) in opened.iter_mut().zip(listeners) {
            let Some(files) = files else { continue };
            let label = [("listener", listener)];
            let metrics =
                CertificateMetrics { end: ends.get_or_create_owned(&label), reload_success: successes.get_or_create_owned(&label) };
            let key = files.read()?;
            metrics.show(&key, true);
            let current = Arc::new(Current(ArcSwap::from_pointee(key)));
            let server_config = server_config(&current).map_err(|cause| CertificateError::Unusable { files: files.clone(), cause })?;
            *place = Some(Arc::new(Self { files: files.clone(), current, server_config, metrics }));
        }
        if opened.iter().any(Option::is_some) {
            let help = "Until when the certificate of a listener is valid";
            registry.register("bellwether_listener_tls_cert_expiry_timestamp_seconds", help, ends);
            let help = "Whether the files of a listener's certificate could be used when they were last read";
            registry.register("bellwether_listener_tls_reload_success", help, successes);
        }
        Ok(opened)
    }

    /// The server's side of TLS, which shows the certificate as it is then.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server_config)
    }

    /// Reads the files again and again until `stop`. What cannot be used changes nothing.
    ///
    /// # Errors
    /// Never.
    pub async fn keep_current(self: Arc<Self>, stop: CancellationToken) -> PartResult {
        let mut failures = 0_u32;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(POLL) => {}
            }
            let files = self.files.clone();
            let Ok(read) = tokio::task::spawn_blocking(move || files.read()).await else { continue };
            failures = self.take_over(read, failures);
        }
    }

    /// Shows what was read, if it can be used. How often in a row it could not: the second time is told, as the first one
    /// may have met one new file and one old.
    fn take_over(&self, read: Result<CertifiedKey, CertificateError>, failures: u32) -> u32 {
        let failures = match read {
            Ok(key) => {
                if key.cert != self.current.0.load().cert {
                    tracing::info!(file = %self.files.certificate.display(), "a listener shows its new certificate from now on");
                    self.current.0.store(Arc::new(key));
                }
                0
            }
            Err(error) => {
                if failures == 1 {
                    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(%error, cause, "a changed certificate cannot be used; the one before is still shown");
                }
                failures.saturating_add(1)
            }
        };
        self.metrics.show(&self.current.0.load(), failures == 0);
        failures
    }
}

fn server_config(current: &Arc<Current>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let resolver: Arc<dyn ResolvesServerCert> = Arc::<Current>::clone(current);
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl fmt::Debug for Certificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Certificate({})", self.files.certificate.display())
    }
}

// === impl Current ===

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Current(..)")
    }
}

// === impl CertificateMetrics ===

impl CertificateMetrics {
    fn show(&self, key: &CertifiedKey, is_usable: bool) {
        self.reload_success.set(i64::from(is_usable));
        if let Some(end) = key.cert.first().and_then(end_of) {
            self.end.set(end.as_second());
        }
    }
}
