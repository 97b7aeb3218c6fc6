//! Who asks, as the front door has found out: it stands in the extensions of the request that is handed on.

use std::fmt;

/// The name of whoever asks: that of the key or the token, never the key itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller(pub String);

// === impl Caller ===

impl Caller {
    /// The caller of a request; one whom nobody has asked for a name is `anonymous`.
    #[must_use]
    pub fn of(extensions: &axum::http::Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(|| Self("anonymous".to_owned()))
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0.escape_debug())
    }
}
