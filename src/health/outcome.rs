//! What one look at a component found.

use std::time::Duration;

use jiff::Timestamp;

use crate::config::health::Timing;
use crate::health::state::Verdict;
use crate::store::fault::Fault;
use crate::store::mongodb::Reason as StoreReason;

/// What one look found.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Why it failed; `None` for a pass.
    pub failure: Option<Reason>,
    /// What is not as it should be although it passed.
    pub warning: Option<Warning>,
    /// How long it took.
    pub duration: Duration,
    /// More, for those who may see it: never a host, a credential or what a server said beyond an asserted value.
    pub detail: Option<String>,
    /// Until when the certificate that was seen last is valid, also where the look failed.
    pub certificate_end: Option<Timestamp>,
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
    /// The certificate has expired, or will too soon.
    TlsExpired,
    /// The certificate is for another name.
    TlsName,
    /// TLS failed otherwise.
    Tls,
    /// A status of 400 to 499.
    Http4xx,
    /// A status of 500 or above.
    Http5xx,
    /// The body does not say what it must.
    BadBody,
    /// The body is longer than what is read of it.
    BodyTooLarge,
    /// User, password or privileges are wrong.
    Auth,
    /// The server answers and is not what it must be: neither primary nor secondary, or not the primary.
    NotPrimary,
    /// No server of the set is the primary.
    NoPrimary,
    /// The last look is too old to say anything.
    Stale,
    /// The key, row, file or database is not there.
    Missing,
    /// The heartbeat is too old.
    TooOld,
    /// A limit is reached.
    Limit,
    /// The check itself broke.
    Panic,
    /// Anything else.
    Other,
}

/// What is not as it should be although a look passed: a closed set.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Warning {
    /// Slower than it should be.
    Slow,
    /// The certificate ends soon.
    ExpiresSoon,
    /// A limit is near.
    NearLimit,
}

// === impl Outcome ===

impl Outcome {
    /// A pass.
    #[must_use]
    pub fn pass(duration: Duration) -> Self {
        Self { failure: None, warning: None, duration, detail: None, certificate_end: None }
    }

    /// A failure.
    #[must_use]
    pub fn fail(reason: Reason, duration: Duration) -> Self {
        Self { failure: Some(reason), ..Self::pass(duration) }
    }

    /// This look after another one: a certificate that was seen is known until another is, also when the look was late
    /// or the server away.
    #[must_use]
    pub fn after(self, before: Option<&Self>) -> Self {
        Self { certificate_end: self.certificate_end.or(before.and_then(|before| before.certificate_end)), ..self }
    }

    /// What is not as it should be although it passed: what the look itself found, or that it was slow.
    #[must_use]
    pub fn warning(&self, timing: &Timing) -> Option<Warning> {
        let is_slow = timing.degraded_after.is_some_and(|limit| self.duration > limit);
        self.warning.or(is_slow.then_some(Warning::Slow)).filter(|_| self.failure.is_none())
    }

    /// What this look by itself says of the check.
    #[must_use]
    pub fn level(&self, timing: &Timing) -> Verdict {
        match (self.failure, self.warning(timing)) {
            (Some(_), _) => Verdict::Down,
            (None, Some(_)) => Verdict::Degraded,
            (None, None) => Verdict::Up,
        }
    }
}

// === impl Reason ===

impl Reason {
    /// All reasons in the order of their numbers, for what is exposed as zero from the start.
    pub const ALL: [Self; 21] = [
        Self::Timeout,
        Self::Refused,
        Self::Reset,
        Self::Dns,
        Self::Unreachable,
        Self::TlsExpired,
        Self::TlsName,
        Self::Tls,
        Self::Http4xx,
        Self::Http5xx,
        Self::BadBody,
        Self::BodyTooLarge,
        Self::Auth,
        Self::NotPrimary,
        Self::NoPrimary,
        Self::Stale,
        Self::Missing,
        Self::TooOld,
        Self::Limit,
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
            Self::TlsExpired => "tls_expired",
            Self::TlsName => "tls_name",
            Self::Tls => "tls",
            Self::Http4xx => "http_4xx",
            Self::Http5xx => "http_5xx",
            Self::BadBody => "bad_body",
            Self::BodyTooLarge => "body_too_large",
            Self::Auth => "auth",
            Self::NotPrimary => "not_primary",
            Self::NoPrimary => "no_primary",
            Self::Stale => "stale",
            Self::Missing => "missing",
            Self::TooOld => "too_old",
            Self::Limit => "limit",
            Self::Panic => "panic",
            Self::Other => "other",
        }
    }
}

// === impl Warning ===

impl Warning {
    /// The code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::ExpiresSoon => "expires_soon",
            Self::NearLimit => "near_limit",
        }
    }
}

impl From<Fault> for Reason {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Timeout => Self::Timeout,
            Fault::Refused => Self::Refused,
            Fault::Reset => Self::Reset,
            Fault::Dns => Self::Dns,
            Fault::Unreachable => Self::Unreachable,
            Fault::TlsExpired => Self::TlsExpired,
            Fault::TlsName => Self::TlsName,
            Fault::Tls => Self::Tls,
            Fault::Auth => Self::Auth,
            Fault::Missing => Self::Missing,
            Fault::Limit => Self::Limit,
            Fault::Starting | Fault::Other => Self::Other,
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
            StoreReason::Unreachable => Self::Unreachable,
            StoreReason::Tls => Self::Tls,
            StoreReason::Auth => Self::Auth,
            StoreReason::NotPrimary => Self::NotPrimary,
            StoreReason::NoPrimary => Self::NoPrimary,
            StoreReason::Other => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::health::Hold;

    #[test]
    fn every_reason_has_a_code_and_a_number_of_its_own() {
        let codes: std::collections::BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        assert!(Reason::ALL.into_iter().enumerate().all(|(number, reason)| reason as usize == number));
    }

    #[test]
    fn a_warning_degrades_a_pass_and_never_a_failure() {
        let timing = Timing { degraded_after: Some(Duration::from_millis(500)), ..timing() };
        let slow = Outcome::pass(Duration::from_millis(600));
        assert_eq!((slow.level(&timing), slow.warning(&timing)), (Verdict::Degraded, Some(Warning::Slow)));
        let near = Outcome { warning: Some(Warning::NearLimit), ..Outcome::pass(Duration::ZERO) };
        assert_eq!((near.level(&timing), near.warning(&timing)), (Verdict::Degraded, Some(Warning::NearLimit)));
        let failed = Outcome { warning: Some(Warning::NearLimit), ..Outcome::fail(Reason::Limit, Duration::from_secs(1)) };
        assert_eq!((failed.level(&timing), failed.warning(&timing)), (Verdict::Down, None));
        assert_eq!(Outcome::pass(Duration::ZERO).level(&timing), Verdict::Up);
    }

    #[test]
    fn a_certificate_is_known_until_another_is_seen() {
        let end = |seconds| Some(Timestamp::from_second(seconds).unwrap());
        let seen = |certificate_end| Outcome { certificate_end, ..Outcome::pass(Duration::ZERO) };
        let late = Outcome::fail(Reason::Timeout, Duration::ZERO).after(Some(&seen(end(1))));
        assert_eq!((late.failure, late.certificate_end), (Some(Reason::Timeout), end(1)));
        assert_eq!(seen(end(2)).after(Some(&late)).certificate_end, end(2));
        assert_eq!(seen(None).after(None).certificate_end, None);
    }

    fn timing() -> Timing {
        Timing {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            fail_after: 3,
            pass_after: 2,
            degraded_after: None,
            hold: Hold::default(),
        }
    }
}
