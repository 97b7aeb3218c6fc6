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

use crate::config::trust::{Authorities, Trust};
use crate::runtime::certificate::end_of;

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

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use rustls::CertificateError;

    use super::*;

    fn certificate(last_year: i32) -> CertificateDer<'static> {
        let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (parameters.not_before, parameters.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(last_year, 1, 1));
        parameters.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_of_its_formats() {
        let end = |year| end_of(&certificate(year)).unwrap().to_string();
        // Years before 2050 are written with two digits.
        assert_eq!(end(2026), "2026-01-01T00:00:00Z");
        assert_eq!(end(2060), "2060-01-01T00:00:00Z");
        assert_eq!(end_of(&CertificateDer::from(vec![0x30, 0x80, 0xff])), None);
    }

    #[test]
    fn the_end_of_an_expired_certificate_is_known() {
        let provider = Arc::new(default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate(2060)).unwrap();
        let judge = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
        let recorder = Recorder { judge: Some(judge), provider, expiry: Expiry::default() };
        assert_eq!(recorder.expiry.get(), None);
        let name = ServerName::try_from("localhost").unwrap();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_795_262_400));
        let judged = recorder.verify_server_cert(&certificate(2026), &[], &name, &[], now);
        assert!(
            matches!(judged, Err(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }))),
            "{judged:?}"
        );
        assert_eq!(recorder.expiry.get().unwrap().to_string(), "2026-01-01T00:00:00Z");
    }
}
