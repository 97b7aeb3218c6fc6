//! What browsers are told about pages of other origins: those that the configuration names may ask, and no others.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use hyper::{Method, Response, StatusCode};

use crate::config::front::Cors;
use crate::front::body::AnswerBody;
use crate::front::refusal::Refusal;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static("authorization, content-type, x-api-key, x-request-id");
const EXPOSED: HeaderValue = HeaderValue::from_static("retry-after, x-request-id");

/// Whether a browser asks if it may ask.
#[must_use]
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

impl Cors {
    /// The answer to a browser that asks if it may ask.
    ///
    /// # Errors
    /// It may not.
    pub fn preflight(&self, headers: &HeaderMap) -> Result<Response<AnswerBody>, Refusal> {
        headers.get(ORIGIN).filter(|origin| self.allows(origin)).ok_or(Refusal::Origin)?;
        let mut response = Response::new(AnswerBody::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let told = response.headers_mut();
        told.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        told.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        told.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.max_age.as_secs()));
        Ok(response)
    }

    /// Tells the browser of a page that may ask that it may read the answer.
    pub fn tell(&self, headers: &mut HeaderMap, origin: Option<&HeaderValue>) {
        if self.origins.is_empty() {
            return;
        }
        headers.append(VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = origin.filter(|origin| self.allows(origin)) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }

    /// Whether a WebSocket may be opened: browsers ask nobody before they do. From a page of the front door's own host, of
    /// an origin that is named, or from no page at all.
    ///
    /// # Errors
    /// It may not.
    pub fn check_websocket(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
        let host = |origin: &HeaderValue| Some(origin.to_str().ok()?.split_once("://")?.1.to_owned());
        let own = headers.get(HOST).and_then(|host| host.to_str().ok());
        if self.allows(origin) || own.is_some() && host(origin).as_deref() == own { Ok(()) } else { Err(Refusal::Origin) }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn origins_are_compared_as_a_whole() {
        let cors = Cors { origins: vec!["https://app.example.com".to_owned()], max_age: Duration::from_secs(60) };
        for (origin, allowed) in [
            ("https://app.example.com", true),
            ("https://app.example.com:8443", false),
            ("http://app.example.com", false),
            ("https://app.example.com.evil.com", false),
            ("https://evilapp.example.com", false),
            ("null", false),
            ("*", false),
        ] {
            let origin = HeaderValue::from_static(origin);
            let asked = HeaderMap::from_iter([(ORIGIN, origin.clone()), (HOST, HeaderValue::from_static("front:8088"))]);
            let mut told = HeaderMap::new();
            cors.tell(&mut told, Some(&origin));
            assert_eq!(told.get(ACCESS_CONTROL_ALLOW_ORIGIN).is_some(), allowed, "{origin:?}");
            assert_eq!(told[VARY], "origin");
            assert_eq!(cors.preflight(&asked).is_ok(), allowed, "{origin:?}");
            assert_eq!(cors.check_websocket(&asked).is_ok(), allowed, "{origin:?}");
        }
        let own = [(ORIGIN, HeaderValue::from_static("https://front:8088")), (HOST, HeaderValue::from_static("front:8088"))];
        assert!(cors.check_websocket(&HeaderMap::from_iter(own)).is_ok());
        assert!(cors.check_websocket(&HeaderMap::new()).is_ok());
    }
}
