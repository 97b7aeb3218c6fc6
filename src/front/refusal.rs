//! What the front door refuses, and what it says then: a status, a body of JSON and a label, and nothing of what is inside.

use std::time::Duration;

use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde_json::json;

use crate::front::body::{AnswerBody, BodyFault};
use crate::front::clients::Excess;
use crate::front::path::PathFault;
use crate::front::upstream::UpstreamFault;

/// Why a request is not answered by the API.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// Its path could be read in two ways.
    Path(PathFault),
    /// Its path and query are too long.
    UriTooLong,
    /// A header says something that cannot be passed on, or two things.
    Header,
    /// Its method is none that is passed on.
    Method,
    /// No valid key came with it.
    Unauthorized,
    /// The key does not permit it.
    Forbidden,
    /// A page of another origin asks.
    Origin,
    /// Too much at once or too often.
    Excess(Excess),
    /// Its body is too long.
    TooLarge,
    /// Its body is of a type that is not taken.
    MediaType,
    /// Its body did not come in time.
    TooSlow,
    /// Its body broke off.
    BrokenBody,
    /// There can be no project of this id.
    Project,
    /// The claim on the project cannot be taken.
    Store,
    /// The API could not be asked or did not answer.
    Upstream(UpstreamFault),
}

// === impl Refusal ===

impl Refusal {
    /// All labels that stand for a decision of the front door; what is the API's is counted elsewhere.
    pub const LABELS: [&'static str; 15] = [
        "path",
        "uri_too_long",
        "header",
        "method",
        "unauthorized",
        "forbidden",
        "origin",
        "rate",
        "concurrency",
        "too_large",
        "media_type",
        "too_slow",
        "broken_body",
        "project",
        "store",
    ];

    /// Its label; `None` where it is the API's failure.
    #[must_use]
    pub fn label(self) -> Option<&'static str> {
        Some(match self {
            Self::Path(_) => "path",
            Self::UriTooLong => "uri_too_long",
            Self::Header => "header",
            Self::Method => "method",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Origin => "origin",
            Self::Excess(Excess::ClientRate(_) | Excess::Rate(_)) => "rate",
            Self::Excess(Excess::ClientRequests | Excess::Requests) => "concurrency",
            Self::TooLarge => "too_large",
            Self::MediaType => "media_type",
            Self::TooSlow => "too_slow",
            Self::BrokenBody => "broken_body",
            Self::Project => "project",
            Self::Store => "store",
            Self::Upstream(_) => return None,
        })
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Path(_) | Self::Header | Self::BrokenBody => StatusCode::BAD_REQUEST,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::Origin => StatusCode::FORBIDDEN,
            Self::Excess(Excess::ClientRate(_) | Excess::ClientRequests) => StatusCode::TOO_MANY_REQUESTS,
            Self::Excess(Excess::Rate(_) | Excess::Requests) | Self::Store => StatusCode::SERVICE_UNAVAILABLE,
            Self::Project => StatusCode::NOT_FOUND,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Upstream(UpstreamFault::Timeout | UpstreamFault::ConnectTimeout) => StatusCode::GATEWAY_TIMEOUT,
            Self::Upstream(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// The answer. Its body is the API's own where the API has one for this.
    #[must_use]
    pub fn answer(self) -> Response<AnswerBody> {
        let body = match self {
            Self::Unauthorized => json!({ "error": "unauthorized" }),
            Self::Forbidden => json!({ "error": "insufficient permissions" }),
            Self::Project => json!({ "error": "project not found" }),
            Self::Excess(excess) => {
                let (code, message) = match excess {
                    Excess::ClientRate(_) => ("RATE_LIMITED", "too many requests; try again later"),
                    Excess::ClientRequests => ("RATE_LIMITED", "too many requests at the same time; wait for some to be answered"),
                    Excess::Rate(_) | Excess::Requests => ("OVERLOADED", "too many requests of all clients; try again later"),
                };
                json!({ "error": code, "message": message, "retryAfter": retry_after(excess) })
            }
            refusal => {
                let (code, message) = refusal.words();
                json!({ "error": code, "message": message })
            }
        };
        let mut response = json_answer(self.status(), &body);
        let headers = response.headers_mut();
        match self {
            // Whoever sends what can be read in two ways is not read any further.
            Self::Path(_) | Self::Header | Self::BrokenBody | Self::TooSlow | Self::TooLarge => {
                drop(headers.insert(CONNECTION, HeaderValue::from_static("close")));
            }
            Self::Unauthorized => drop(headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            Self::Method => drop(headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"))),
            Self::Store => drop(headers.insert(RETRY_AFTER, HeaderValue::from_static("2"))),
            Self::Excess(excess) => drop(headers.insert(RETRY_AFTER, HeaderValue::from(retry_after(excess)))),
            _ => {}
        }
        response
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Path(PathFault::Form) => ("BAD_PATH", "a path begins with a slash"),
            Self::Path(PathFault::Empty) => ("BAD_PATH", "a path has no empty segment"),
            Self::Path(PathFault::Dots) => ("BAD_PATH", "a path has no segment `.` or `..`"),
            Self::Path(PathFault::Separator) => ("BAD_PATH", "a path has no `;` and no backslash"),
            Self::Path(PathFault::Encoding) => ("BAD_PATH", "a path has nothing encoded that need not be, and no separator or control"),
            Self::Path(PathFault::Utf8) => ("BAD_PATH", "a path is UTF-8"),
            Self::UriTooLong => ("URI_TOO_LONG", "the path and its query are too long"),
            Self::Header => ("BAD_HEADER", "a header says what cannot be passed on, or stands here twice"),
            Self::Method => ("METHOD_NOT_ALLOWED", "this method is not passed on"),
            Self::Origin => ("ORIGIN_NOT_ALLOWED", "pages of this origin may not ask"),
            Self::TooLarge => ("PAYLOAD_TOO_LARGE", "the body is too long"),
            Self::MediaType => ("UNSUPPORTED_MEDIA_TYPE", "a body is application/json"),
            Self::TooSlow => ("REQUEST_TIMEOUT", "the body did not come in time"),
            Self::BrokenBody => ("BAD_BODY", "the body broke off"),
            Self::Upstream(UpstreamFault::Timeout | UpstreamFault::ConnectTimeout) => {
                ("UPSTREAM_TIMEOUT", "the API did not answer in time")
            }
            Self::Upstream(_) => ("UPSTREAM_UNAVAILABLE", "the API cannot be reached"),
            Self::Store => ("STORE_UNAVAILABLE", "whether a run is there cannot be asked now; try again"),
            Self::Unauthorized | Self::Forbidden | Self::Project | Self::Excess(_) => ("REFUSED", "refused"),
        }
    }
}

impl From<UpstreamFault> for Refusal {
    fn from(fault: UpstreamFault) -> Self {
        match fault {
            UpstreamFault::Request(BodyFault::TooLarge) => Self::TooLarge,
            UpstreamFault::Request(BodyFault::TooSlow) => Self::TooSlow,
            UpstreamFault::Request(_) => Self::BrokenBody,
            fault => Self::Upstream(fault),
        }
    }
}

impl From<BodyFault> for Refusal {
    fn from(fault: BodyFault) -> Self {
        UpstreamFault::Request(fault).into()
    }
}

/// JSON that must not be kept.
#[must_use]
pub fn json_answer(status: StatusCode, body: &serde_json::Value) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::own(format!("{body}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// In whole seconds, at least one.
fn retry_after(excess: Excess) -> u64 {
    match excess {
        Excess::ClientRate(wait) | Excess::Rate(wait) => {
            wait.max(Duration::from_millis(1)).as_millis().div_ceil(1000).try_into().unwrap_or(1)
        }
        Excess::ClientRequests | Excess::Requests => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_too_often_is_told_when_to_come_back() {
        let response = Refusal::Excess(Excess::ClientRate(Duration::from_millis(1001))).answer();
        assert_eq!((response.status().as_u16(), response.headers()[RETRY_AFTER].to_str().unwrap()), (429, "2"));
        let response = Refusal::Excess(Excess::Requests).answer();
        assert_eq!((response.status().as_u16(), response.headers()[RETRY_AFTER].to_str().unwrap()), (503, "1"));
    }
}
