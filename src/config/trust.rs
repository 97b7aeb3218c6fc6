//! Whom to trust when a server shows its certificate.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Whose signature makes a server's certificate good.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// The authorities that the system trusts.
    #[default]
    System,
    /// These and no others.
    Only(Authorities),
    /// Anybody's: where the configuration would accept a connection without TLS too, so that nothing is lost by it.
    Anybody,
}

/// The certificates of authorities.
#[derive(Clone)]
pub struct Authorities(Arc<[CertificateDer<'static>]>);

// === impl Authorities ===

impl Authorities {
    /// Reads a PEM file.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let unreadable = |error: &dyn fmt::Display| format!("cannot read certificates from {}: {error}", path.display());
        let found: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
            .map_err(|error| unreadable(&error))?
            .collect::<Result<_, _>>()
            .map_err(|error| unreadable(&error))?;
        if found.is_empty() {
            return Err(format!("there is no certificate in {}; a PEM file has BEGIN CERTIFICATE in it", path.display()));
        }
        Ok(Self(found.into()))
    }

    /// The certificates.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Authorities({})", self.0.len())
    }
}
