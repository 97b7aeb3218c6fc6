//! Who asks: somebody who may see details, or anybody.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use crate::admin::Surface;

/// Who asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Viewer {
    /// Has the token, or is on this machine: sees reasons and details.
    Trusted,
    /// Anybody: sees verdicts.
    Anonymous,
}

impl FromRequestParts<Arc<Surface>> for Viewer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, surface: &Arc<Surface>) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let is_local = peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback());
        let has_token = surface.token.as_ref().zip(bearer(&parts.headers)).is_some_and(|(token, bearer)| token.matches(bearer));
        // A proxy on this machine forwards strangers; it says so.
        let is_forwarded = parts.headers.contains_key("x-forwarded-for") || parts.headers.contains_key("forwarded");
        Ok(if has_token || (is_local && !is_forwarded) { Self::Trusted } else { Self::Anonymous })
    }
}

/// The token that a request carries.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer ")).map(str::trim)
}
