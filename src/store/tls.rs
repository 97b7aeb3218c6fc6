//! TLS towards servers: whose certificates are good, and until when the last one seen is valid.
//!
//! The end of a certificate is read before it is judged, so that it is known also when it has expired or is for another
//! name. Sessions are never resumed: a resumed one shows no certificate.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use crate::config::trust::{Authorities, Trust};

/// The system's authorities, read once: there are some 150 of them.
static SYSTEM: OnceLock<Arc<dyn ServerCertVerifier>> = OnceLock::new();

/// Until when a certificate is valid, as far as one was seen. Clones share it.
#[derive(Clone)]
pub struct Expiry(Arc<AtomicI64>);

/// Lets another verifier judge, and writes down until when the certificate is valid.
#[derive(Debug)]
struct Recorder {
    /// `None` trusts anybody.
    judge: Option<Arc<dyn ServerCertVerifier>>,
    provider: Arc<CryptoProvider>,
    expiry: Expiry,
}

/// A client's side of TLS that writes the end of each certificate down.
///
/// # Errors
/// When the system has no authorities, or a certificate of theirs is malformed.
pub fn client(trust: &Trust, expiry: &Expiry) -> Result<ClientConfig, Error> {
    let provider = Arc::new(default_provider());
    let judge = match trust {
        Trust::System => Some(system(&provider)?),
        Trust::Only(authorities) => Some(judge_of(authorities, &provider)?),
        Trust::Anybody => None,
    };
    let recorder = Recorder { judge, provider: Arc::clone(&provider), expiry: expiry.clone() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(recorder))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn system(provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    if let Some(judge) = SYSTEM.get() {
        return Ok(Arc::clone(judge));
    }
    let judge: Arc<dyn ServerCertVerifier> = Arc::new(Verifier::new(Arc::clone(provider))?);
    Ok(Arc::clone(SYSTEM.get_or_init(|| judge)))
}

fn judge_of(authorities: &Authorities, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities.certificates() {
        roots.add(certificate.clone())?;
    }
    let judge = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    Ok(judge.build().map_err(|error| Error::Other(OtherError(Arc::new(error))))?)
}

/// Until when a certificate is valid.
fn end_of(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let parsed = Certificate::from_der(certificate.as_ref()).ok()?;
    let seconds = parsed.tbs_certificate.validity.not_after.to_unix_duration().as_secs();
    Timestamp::from_second(i64::try_from(seconds).ok()?).ok()
}

// === impl Expiry ===

impl Expiry {
    /// Stands for "none was seen".
    const NONE: i64 = i64::MIN;

    /// Until when the last certificate is valid.
    #[must_use]
    pub fn get(&self) -> Option<Timestamp> {
        match self.0.load(Ordering::Relaxed) {
            Self::NONE => None,
            seconds => Timestamp::from_second(seconds).ok(),
        }
    }

    fn set(&self, end: Timestamp) {
        self.0.store(end.as_second(), Ordering::Relaxed);
    }
}

impl Default for Expiry {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(Self::NONE)))
    }
}

impl fmt::Debug for Expiry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Expiry({:?})", self.get())
    }
}

// === impl Recorder ===

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(end) = end_of(end_entity) {
            self.expiry.set(end);
        }
        match &self.judge {
            Some(judge) => judge.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
