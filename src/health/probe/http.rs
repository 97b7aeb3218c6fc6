//! A GET whose status counts: 200 to 399 passes, as it does for the kubelet. Redirects are not followed.

use std::error::Error;

use futures_util::StreamExt as _;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};

use crate::health::outcome::Reason;
use crate::health::probe::Answer;

/// How much of a body is read, so that the connection can be used again; a longer one costs a new connection.
const BODY_LIMIT: usize = 64 * 1024;

pub(super) fn client() -> Result<Client, reqwest::Error> {
    let builder = || {
        let agent = concat!("bellwether/", env!("CARGO_PKG_VERSION"));
        Client::builder().redirect(Policy::none()).no_proxy().pool_max_idle_per_host(1).user_agent(agent)
    };
    builder().build().or_else(|error| {
        // An image without CA certificates must not stop plain http.
        tracing::warn!(%error, "no CA certificates were found: https checks will fail; install ca-certificates");
        builder().tls_certs_only([]).build()
    })
}

pub(super) async fn ask(client: &Client, url: Url) -> Answer {
    let response = client.get(url).send().await.map_err(|error| (reason_of(&error), None))?;
    let status = response.status();
    let mut body = response.bytes_stream();
    let mut read = 0;
    while read < BODY_LIMIT
        && let Some(part) = body.next().await
    {
        read += part.map_err(|error| (reason_of(&error), None))?.len();
    }
    let reason = match status.as_u16() {
        200..=399 => return Ok(()),
        401 | 403 => Reason::Auth,
        400..=499 => Reason::Http4xx,
        _ => Reason::Http5xx,
    };
    Err((reason, Some(format!("HTTP {}", status.as_u16()))))
}

fn reason_of(error: &reqwest::Error) -> Reason {
    if error.is_timeout() {
        return Reason::Timeout;
    }
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            let reason = Reason::of_io(error);
            if reason != Reason::Other {
                return reason;
            }
        }
        let text = error.to_string();
        if text.contains("certificate") || text.contains("handshake") {
            return Reason::Tls;
        }
        if text.contains("dns error") {
            return Reason::Dns;
        }
        if text.contains("connection closed") || text.contains("reset") {
            return Reason::Reset;
        }
        cause = error.source();
    }
    Reason::Other
}
