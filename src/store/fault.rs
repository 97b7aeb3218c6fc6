//! Why a server could not be asked: a closed set, found in the errors of every client alike.

use std::error::Error;
use std::io::{self, ErrorKind};

use rustls::CertificateError;

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Fault {
    /// No answer in time.
    Timeout,
    /// Nobody listens there.
    Refused,
    /// The connection was cut.
    Reset,
    /// The name cannot be resolved.
    Dns,
    /// There is no way to the host.
    Unreachable,
    /// The server's certificate has expired.
    TlsExpired,
    /// The server's certificate is for another name.
    TlsName,
    /// TLS failed otherwise.
    Tls,
    /// User, password or privileges are wrong.
    Auth,
    /// The database, table or key is not there.
    Missing,
    /// The server takes no more connections.
    Limit,
    /// The server is starting or loading its data.
    Starting,
    /// Anything else.
    Other,
}

// === impl Fault ===

impl Fault {
    /// The first cause in a chain of errors that says more than "failed".
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let fault = Self::of_one(error);
            if fault != Self::Other {
                return fault;
            }
            cause = error.source();
        }
        Self::Other
    }

    /// What it is in words, and what to do about it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Timeout => "no answer in time",
            Self::Refused => "the connection was refused; is the server running, and is the address right?",
            Self::Reset => "the connection was cut",
            Self::Dns => "the host's name cannot be resolved",
            Self::Unreachable => "there is no way to the host",
            Self::TlsExpired => "the server's certificate has expired",
            Self::TlsName => "the server's certificate is for another name",
            Self::Tls => "TLS failed; where the authority is your own, name it with `ca_file`",
            Self::Auth => "user, password or privileges are wrong",
            Self::Missing => "what is asked for is not there",
            Self::Limit => "the server has no connection or space left",
            Self::Starting => "the server is starting, loading or stopping",
            Self::Other => "the operation failed",
        }
    }

    fn of_one(error: &(dyn Error + 'static)) -> Self {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Self::of_io(error);
        }
        error.downcast_ref::<rustls::Error>().map_or(Self::Other, Self::of_tls)
    }

    /// The kind of an operating system's error, or of what a library has wrapped into one.
    #[must_use]
    pub fn of_io(error: &io::Error) -> Self {
        // The source of a wrapped error is the source of what it wraps: the wrapped one itself is passed over.
        if let Some(wrapped) = error.get_ref() {
            let fault = Self::of(wrapped);
            if fault != Self::Other {
                return fault;
            }
        }
        match error.kind() {
            ErrorKind::TimedOut => Self::Timeout,
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => Self::Reset,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown | ErrorKind::AddrNotAvailable => {
                Self::Unreachable
            }
            _ => {
                let text = error.to_string();
                let is_dns =
                    ["failed to lookup", "Name or service", "name resolution", "nodename"].iter().any(|words| text.contains(words));
                if is_dns { Self::Dns } else { Self::Other }
            }
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        use CertificateError::{Expired, ExpiredContext, NotValidForName, NotValidForNameContext};
        match error {
            rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => Self::TlsExpired,
            rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => Self::TlsName,
            _ => Self::Tls,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_cause_is_found() {
        let expired = rustls::Error::InvalidCertificate(CertificateError::Expired);
        let wrapped = io::Error::other(io::Error::new(ErrorKind::InvalidData, expired));
        assert_eq!(Fault::of(&wrapped), Fault::TlsExpired);
        let name = io::Error::other(rustls::Error::InvalidCertificate(CertificateError::NotValidForName));
        assert_eq!(Fault::of(&name), Fault::TlsName);
        assert_eq!(Fault::of(&io::Error::from(ErrorKind::ConnectionRefused)), Fault::Refused);
        assert_eq!(Fault::of(&io::Error::other("failed to lookup address information: x")), Fault::Dns);
        assert_eq!(Fault::of(&io::Error::other("x")), Fault::Other);
    }
}
