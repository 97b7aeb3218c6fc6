//! What became of an attempt to tell somebody: a closed set, so that it can be a label.

use std::time::Duration;

/// What became of an attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The receiver has it.
    Delivered,
    /// It has not, and may take it later; not before the time that it asks for.
    Later(Reason, Option<Duration>),
    /// It does not want it, and would not if it were sent again.
    Refused(Reason),
}

/// Why a receiver was not told.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Reason {
    /// No answer in time.
    Timeout,
    /// No connection, or one that was cut.
    Connection,
    /// Its certificate is not good, or TLS failed otherwise.
    Tls,
    /// It asks for fewer messages.
    RateLimited,
    /// It failed.
    ServerError,
    /// It does not take this message, or not from us.
    Rejected,
    /// It sends us elsewhere, which is not followed: the address would be told to somebody else.
    Redirect,
    /// The file with its address, key or password cannot be used.
    Secret,
    /// What came back is no answer.
    Protocol,
}

// === impl Reason ===

impl Reason {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Timeout,
        Self::Connection,
        Self::Tls,
        Self::RateLimited,
        Self::ServerError,
        Self::Rejected,
        Self::Redirect,
        Self::Secret,
        Self::Protocol,
    ];

    /// Its name as a label's value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::Tls => "tls",
            Self::RateLimited => "rate_limited",
            Self::ServerError => "server_error",
            Self::Rejected => "rejected",
            Self::Redirect => "redirect",
            Self::Secret => "secret",
            Self::Protocol => "protocol",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Timeout => "no answer in time; is the receiver overloaded, or is a firewall on the way?",
            Self::Connection => "no connection; is the address right, and is the receiver running?",
            Self::Tls => "TLS failed; where the authority is your own, name it with `ca_file`",
            Self::RateLimited => "the receiver asks for fewer messages; a longer `group_interval` sends fewer",
            Self::ServerError => "the receiver failed",
            Self::Rejected => "the receiver does not take it; is the address complete, and does it still exist?",
            Self::Redirect => "the receiver redirects, which is not followed; write the address that it redirects to",
            Self::Secret => "the file that holds its address, key or password cannot be used",
            Self::Protocol => "what answers there does not speak the receiver's protocol",
        }
    }
}

impl Outcome {
    /// What an HTTP status means. `after` is what `Retry-After` asks for.
    #[must_use]
    pub fn of_status(status: u16, after: Option<Duration>) -> Self {
        match status {
            200..=299 => Self::Delivered,
            300..=399 => Self::Refused(Reason::Redirect),
            408 => Self::Later(Reason::Timeout, after),
            429 => Self::Later(Reason::RateLimited, after),
            400..=499 => Self::Refused(Reason::Rejected),
            500..=599 => Self::Later(Reason::ServerError, after),
            _ => Self::Later(Reason::Protocol, None),
        }
    }
}
