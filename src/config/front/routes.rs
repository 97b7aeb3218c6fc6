//! What is known of the API behind the front door: its routes, and the scope that each one needs.
//!
//! Owns how a route is written. Finding the route of a request is `front::routes`'s.

use hyper::Method;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::{Complaints, Problems};
use crate::config::spanned::Spanned;

/// What a request needs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Nothing: probes.
    Open,
    /// Looking at projects, runs and discoveries.
    Read,
    /// Starting, cancelling and indexing.
    Runs,
    /// Listing and setting secrets.
    Secrets,
    /// Everything else, and all of the above.
    Admin,
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Scopes(u8);

/// A route of the API.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path, with `{name}` for a segment that varies.
    pub template: String,
    /// The segments of the template.
    pub segments: Vec<Segment>,
    /// What it needs.
    pub scope: Scope,
}

/// A part of a path between two slashes.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Segment {
    /// Exactly this.
    Literal(String),
    /// Anything that is not empty.
    Any,
}

/// Reads all routes; two that mean the same are refused.
pub(super) fn read_routes(written: Vec<(String, Spanned<Scope>)>, problems: &mut Problems) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for (text, Spanned { place, value }) in written {
        let mut complaints = Complaints::new(place, format!("front.routes.{text}"), problems);
        match Route::read(&text, value) {
            None => complaints.say("a route is written as its method and its path, such as `GET /api/v1/runs/{id}`"),
            Some(route) if routes.iter().any(|other| other.method == route.method && other.segments == route.segments) => {
                complaints.say("this route stands here twice");
            }
            Some(route) => routes.push(route),
        }
    }
    routes
}

// === impl Route ===

impl Route {
    /// Reads `METHOD /template`.
    fn read(text: &str, scope: Scope) -> Option<Self> {
        let (method, template) = text.split_once(' ')?;
        let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
        let method = Method::from_bytes(method.as_bytes()).ok().filter(|_| is_method)?;
        let segments = template.strip_prefix('/')?.split('/').map(Segment::read).collect::<Option<_>>()?;
        Some(Self { method, template: template.to_owned(), segments, scope })
    }
}

// === impl Segment ===

impl Segment {
    fn read(text: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        if let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            return (!name.is_empty() && name.bytes().all(is_plain)).then_some(Self::Any);
        }
        (!text.is_empty() && text.bytes().all(is_plain)).then(|| Self::Literal(text.to_owned()))
    }
}

// === impl Scopes ===

impl Scopes {
    /// With one more.
    #[must_use]
    pub fn with(self, scope: Scope) -> Self {
        Self(self.0 | Self::bit(scope))
    }

    /// With all of the others.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether they permit what needs `scope`. Who may do everything may do this, too.
    #[must_use]
    pub fn permit(self, scope: Scope) -> bool {
        self.0 & (Self::bit(scope) | Self::bit(Scope::Admin)) != 0 || scope == Scope::Open
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn bit(scope: Scope) -> u8 {
        match scope {
            Scope::Open => 0,
            Scope::Read => 1,
            Scope::Runs => 2,
            Scope::Secrets => 4,
            Scope::Admin => 8,
        }
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        scopes.into_iter().fold(Self::default(), Self::with)
    }
}
