//! Certificates of every kind, and a server that shows them: real TLS, on a free loopback port.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use crate::sidecar::free_port;

/// An authority of our own; its certificate is a file.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate and its key.
pub struct Identity {
    pub certificate: CertificateDer<'static>,
    pub key: Vec<u8>,
    pub certificate_pem: String,
    pub key_pem: String,
}

/// A server that answers each request with a small JSON document.
pub struct TlsServer {
    pub address: SocketAddr,
}

/// The first moment of the day that is so many days away.
pub fn day(days: i64) -> Timestamp {
    let date = Timestamp::now().to_zoned(TimeZone::UTC).date().checked_add(days.days()).unwrap();
    date.to_zoned(TimeZone::UTC).unwrap().timestamp()
}

fn parameters(name: &str, from: i64, to: i64) -> CertificateParams {
    let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let date = |days| {
        let date = day(days).to_zoned(TimeZone::UTC).date();
        rcgen::date_time_ymd(date.year().into(), date.month().try_into().unwrap(), date.day().try_into().unwrap())
    };
    (parameters.not_before, parameters.not_after) = (date(from), date(to));
    parameters
}

/// A section `admin` whose listener speaks TLS and wants a token; the files are in `folder`, where a test may break them.
pub fn admin(folder: &Path) -> String {
    Authority::new().issue("localhost", -1, 90).write(folder);
    std::fs::write(folder.join("token"), "correct horse battery staple").unwrap();
    let (folder, port) = (folder.display(), free_port());
    let tls = format!("{{ cert_file: {folder}/server.pem, key_file: {folder}/server.key }}");
    format!("admin: {{ listen: \"127.0.0.1:{port}\", token_file: {folder}/token, tls: {tls} }}\n")
}

// === impl Authority ===

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = parameters("authority", -1000, 1000);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), parameters.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(parameters, key), folder }
    }

    /// Its certificate.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for a name, valid from and to so many days from now.
    pub fn issue(&self, name: &str, from: i64, to: i64) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = parameters(name, from, to).signed_by(&key, &self.issuer).unwrap();
        Identity::of(&certificate, &key)
    }
}

// === impl Identity ===

impl Identity {
    /// One that vouches for itself.
    pub fn self_signed(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self::of(&parameters(name, -1, 100).self_signed(&key).unwrap(), &key)
    }

    fn of(certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        Self {
            certificate: certificate.der().clone(),
            key: key.serialize_der(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// What a server needs that shows it.
    pub fn server(self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate], PrivateKeyDer::try_from(self.key).unwrap())
            .unwrap();
        Arc::new(config)
    }

    /// Writes `server.pem` and `server.key`.
    pub fn write(&self, folder: &Path) {
        std::fs::write(folder.join("server.pem"), &self.certificate_pem).unwrap();
        std::fs::write(folder.join("server.key"), &self.key_pem).unwrap();
    }
}

// === impl TlsServer ===

impl TlsServer {
    /// A server that shows this certificate, on a thread of its own.
    pub fn start(identity: Identity) -> Self {
        let acceptor = TlsAcceptor::from(identity.server());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { serve(tokio::net::TcpListener::from_std(listener).unwrap(), acceptor).await });
        });
        Self { address }
    }
}

async fn serve(listener: tokio::net::TcpListener, acceptor: TlsAcceptor) {
    const ANSWER: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\nconnection: close\r\n\r\n{\"status\":\"ok\"}";
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        // A client that refuses the certificate ends the handshake, and that is what is tested.
        let Ok(mut stream) = acceptor.accept(stream).await else { continue };
        let mut request = [0; 4096];
        if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
            let _ = stream.write_all(ANSWER).await;
            let _ = stream.shutdown().await;
        }
    }
}
