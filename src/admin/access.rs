//! Who asks: somebody who may see details, or anybody.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use crate::admin::Surface;

/// What proxies add to a request that they pass on.
const FORWARDED: [&str; 6] = ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];

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
        // A proxy on this machine forwards strangers; most say so, each in its way.
        let is_forwarded = FORWARDED.iter().any(|name| parts.headers.contains_key(*name));
        Ok(if has_token || (is_local && !is_forwarded) { Self::Trusted } else { Self::Anonymous })
    }
}

/// The token that a request carries. The scheme is written in any case (RFC 9110, 11.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check(header: &'static str, token: Option<&str>) {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(header))]);
        assert_eq!(bearer(&headers), token, "{header}");
    }

    #[test]
    fn a_token_is_found_in_its_scheme_and_in_no_other() {
        check("Bearer secret", Some("secret"));
        check("bearer  secret ", Some("secret"));
        check("Basic c2VjcmV0", None);
        check("Bearersecret", None);
        check("Bearer", None);
        check("", None);
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
