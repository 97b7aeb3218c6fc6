//! What one look at a component found.

use std::time::Duration;

use crate::store::mongodb::Reason as StoreReason;

/// What one look found.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Why it failed; `None` for a pass.
    pub failure: Option<Reason>,
    /// How long it took.
    pub duration: Duration,
    /// More, for those who may see it: never a host, a credential or what a server said.
    pub detail: Option<String>,
}

/// Why a look failed: a closed set, fit for a label.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Reason {
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
    /// TLS failed.
    Tls,
    /// A status of 400 to 499.
    Http4xx,
    /// A status of 500 or above.
    Http5xx,
    /// User, password or privileges are wrong.
    Auth,
    /// The server answers and is neither primary nor secondary.
    NotPrimary,
    /// No server of the set is the primary.
    NoPrimary,
    /// The check itself broke.
    Panic,
    /// Anything else.
    Other,
}

// === impl Outcome ===

impl Outcome {
    /// A pass.
    #[must_use]
    pub fn pass(duration: Duration) -> Self {
        Self { failure: None, duration, detail: None }
    }

    /// A failure.
    #[must_use]
    pub fn fail(reason: Reason, duration: Duration) -> Self {
        Self { failure: Some(reason), duration, detail: None }
    }
}

// === impl Reason ===

impl Reason {
    /// All reasons, for what is exposed as zero from the start.
    pub const ALL: [Self; 13] = [
        Self::Timeout,
        Self::Refused,
        Self::Reset,
        Self::Dns,
        Self::Unreachable,
        Self::Tls,
        Self::Http4xx,
        Self::Http5xx,
        Self::Auth,
        Self::NotPrimary,
        Self::NoPrimary,
        Self::Panic,
        Self::Other,
    ];

    /// The label value and code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Dns => "dns",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Http4xx => "http_4xx",
            Self::Http5xx => "http_5xx",
            Self::Auth => "auth",
            Self::NotPrimary => "not_primary",
            Self::NoPrimary => "no_primary",
            Self::Panic => "panic",
            Self::Other => "other",
        }
    }

    /// The kind of an operating system's error.
    #[must_use]
    pub fn of_io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        match error.kind() {
            Kind::TimedOut => Self::Timeout,
            Kind::ConnectionRefused => Self::Refused,
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe | Kind::UnexpectedEof => Self::Reset,
            Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => Self::Unreachable,
            _ => {
                let text = error.to_string();
                let is_dns =
                    ["failed to lookup", "Name or service", "name resolution", "nodename"].iter().any(|words| text.contains(words));
                if is_dns { Self::Dns } else { Self::Other }
            }
        }
    }
}

impl From<StoreReason> for Reason {
    fn from(reason: StoreReason) -> Self {
        match reason {
            StoreReason::Timeout => Self::Timeout,
            StoreReason::Refused => Self::Refused,
            StoreReason::Reset => Self::Reset,
            StoreReason::Dns => Self::Dns,
            StoreReason::Tls => Self::Tls,
            StoreReason::Auth => Self::Auth,
            StoreReason::NotPrimary => Self::NotPrimary,
            StoreReason::NoPrimary => Self::NoPrimary,
            StoreReason::Other => Self::Other,
        }
    }
}
