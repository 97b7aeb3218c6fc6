//! Requests to receivers: with a deadline of their own, without redirects, and without a word of where they go to.

use std::time::Duration;

use jiff::fmt::rfc2822;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, Method, Response, Url};

use crate::clock::Now;
use crate::config::notify::{SecretText, address};
use crate::config::trust::Trust;
use crate::notify::outcome::Reason;
use crate::store::fault::Fault;
use crate::store::http;

/// How long a receiver may take. Slack and Discord answer within a second.
const LIMIT: Duration = Duration::from_secs(10);

/// The status of an answer, and how long it asks to wait.
pub(super) type Answer = Result<(u16, Option<Duration>), Reason>;

/// Makes the client of one receiver.
///
/// # Errors
/// When there is no client to be had at all.
pub(super) fn client(trust: &Trust) -> Result<Client, reqwest::Error> {
    http::client(trust, LIMIT)
}

/// The secret as it is now.
pub(super) async fn read(text: &SecretText) -> Result<crate::secret::Secret, Reason> {
    let text = text.clone();
    let read = tokio::task::spawn_blocking(move || text.read()).await;
    read.ok().and_then(Result::ok).ok_or(Reason::Secret)
}

/// The address as it is now.
pub(super) async fn read_address(text: &SecretText) -> Result<Url, Reason> {
    address(read(text).await?.expose()).ok_or(Reason::Secret)
}

/// Sends a request. The body of the answer is not read: the status says it all.
pub(super) async fn send(client: &Client, method: Method, url: Url, headers: HeaderMap, body: Vec<u8>) -> Answer {
    let sent = client.request(method, url).headers(headers).body(body).send().await;
    // The text of an error holds the address.
    sent.map(|answer| (answer.status().as_u16(), retry_after(&answer))).map_err(|error| reason(&error))
}

fn reason(error: &reqwest::Error) -> Reason {
    if error.is_timeout() {
        return Reason::Timeout;
    }
    match Fault::of(error) {
        Fault::Timeout => Reason::Timeout,
        Fault::Refused | Fault::Reset | Fault::Dns | Fault::Unreachable => Reason::Connection,
        Fault::Tls | Fault::TlsExpired | Fault::TlsName => Reason::Tls,
        _ if error.is_connect() => Reason::Connection,
        _ => Reason::Protocol,
    }
}

/// How long the receiver asks to wait: seconds, or a date.
fn retry_after(answer: &Response) -> Option<Duration> {
    let text = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = rfc2822::parse(text).ok()?;
    Duration::try_from(date.timestamp().duration_since(Now::read().wall)).ok()
}
