//! A GET whose status and body count. Redirects are not followed: what answers with one has answered.

use std::error::Error as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt as _;
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response, Url};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::config::health::{Assertion, HttpProbe};
use crate::health::outcome::Reason;
use crate::health::probe::{Answer, Failed, Found};
use crate::store::fault::Fault;
use crate::store::names::Names;
use crate::store::tls::{self, Expiry};

/// How much of a body is read: all that a health document needs, and what lets the connection be used again.
const BODY_LIMIT: usize = 64 * 1024;

/// Asks one component.
#[derive(Debug)]
pub struct Prober {
    probe: HttpProbe,
    plain: Client,
    /// A client of its own, as what it sees of the certificate is this check's.
    secured: OnceCell<Client>,
    expiry: Expiry,
    /// The address that was there last, so that the others are not asked in vain with each look.
    current: AtomicUsize,
}

/// The part of a body that was read.
enum Body {
    Whole(Vec<u8>),
    TooLarge,
}

// === impl Prober ===

impl Prober {
    pub fn new(probe: &HttpProbe, plain: &Client) -> Self {
        Self {
            probe: probe.clone(),
            plain: plain.clone(),
            secured: OnceCell::new(),
            expiry: Expiry::default(),
            current: AtomicUsize::new(0),
        }
    }

    pub fn expiry(&self) -> &Expiry {
        &self.expiry
    }

    pub async fn ask(&self) -> Answer {
        let (first, count) = (self.current.load(Ordering::Relaxed), self.probe.urls.len());
        let mut answer = self.get(&self.probe.urls[first % count]).await?;
        if is_gone(answer.status().as_u16()) {
            for (number, url) in self.probe.urls.iter().enumerate().filter(|(number, _)| *number != first) {
                answer = self.get(url).await?;
                if !is_gone(answer.status().as_u16()) {
                    self.current.store(number, Ordering::Relaxed);
                    break;
                }
            }
        }
        self.judge(answer).await
    }

    async fn get(&self, url: &Url) -> Result<Response, Failed> {
        let client = if url.scheme() == "https" { self.secured().await? } else { &self.plain };
        client.get(url.clone()).headers(self.probe.headers.clone()).send().await.map_err(|error| failed(&error))
    }

    async fn secured(&self) -> Result<&Client, Failed> {
        let make = async || {
            let config = tls::client(&self.probe.trust, &self.expiry)
                .map_err(|_| Failed::saying(Reason::Tls, "there are no authorities to trust; install ca-certificates"))?;
            // A connection that is kept shows no new certificate, and a look should see what a new client sees.
            builder().tls_backend_preconfigured(config).pool_max_idle_per_host(0).build().map_err(|error| failed(&error))
        };
        self.secured.get_or_try_init(make).await
    }

    async fn judge(&self, response: Response) -> Answer {
        let status = response.status().as_u16();
        let passes = self.probe.status.contains(status);
        let body = read(response).await?;
        if !passes && self.probe.alive.contains(status) {
            return Ok(Found::saying(format!("HTTP {status}: alive")));
        }
        let document = match (&body, self.probe.json.is_empty()) {
            (_, true) => None,
            (Body::TooLarge, _) if passes => return Err(Failed::saying(Reason::BodyTooLarge, "the body is longer than 64 KiB")),
            (Body::TooLarge, _) => None,
            (Body::Whole(bytes), _) => serde_json::from_slice::<Value>(bytes).ok(),
        };
        let mismatch = document.as_ref().and_then(|document| first_mismatch(&self.probe.json, document));
        if !passes {
            let reason = match status {
                401 | 403 => Reason::Auth,
                400..=499 => Reason::Http4xx,
                500.. => Reason::Http5xx,
                _ => Reason::Other,
            };
            let what = mismatch.map(|mismatch| format!(", {mismatch}")).unwrap_or_default();
            return Err(Failed::saying(reason, format!("HTTP {status}{what}")));
        }
        match (self.probe.json.is_empty(), document, mismatch) {
            (true, ..) | (false, Some(_), None) => Ok(Found::default()),
            (false, _, Some(mismatch)) => Err(Failed::saying(Reason::BadBody, mismatch)),
            (false, None, None) => Err(Failed::saying(Reason::BadBody, "the body is not JSON")),
        }
    }
}

fn first_mismatch(assertions: &[Assertion], document: &Value) -> Option<String> {
    assertions.iter().find_map(|assertion| assertion.check(document).err()).map(|mismatch| mismatch.to_string())
}

/// Whether the address is not there: never was, or is no more, as that of an old version of an interface.
fn is_gone(status: u16) -> bool {
    matches!(status, 404 | 410)
}

/// Reads a body up to its limit. The type of its content is of no interest: servers that write the status first send
/// JSON as text.
async fn read(response: Response) -> Result<Body, Failed> {
    let mut bytes = Vec::new();
    let mut parts = response.bytes_stream();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| failed(&error))?;
        if bytes.len() + part.len() > BODY_LIMIT {
            return Ok(Body::TooLarge);
        }
        bytes.extend_from_slice(&part);
    }
    Ok(Body::Whole(bytes))
}

fn failed(error: &reqwest::Error) -> Failed {
    match Fault::of(error) {
        _ if error.is_timeout() => Failed::from(Fault::Timeout),
        Fault::Other => of_protocol(error),
        fault => Failed::from(fault),
    }
}

/// What hyper says of an answer that ended too early, or is none.
fn of_protocol(error: &reqwest::Error) -> Failed {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            let is_cut = error.is_incomplete_message() || error.is_closed() || error.is_canceled();
            return if is_cut { Failed::from(Fault::Reset) } else { Failed::saying(Reason::Other, "the answer is not HTTP") };
        }
        cause = error.source();
    }
    Failed::from(Fault::Other)
}

/// The client of all checks without TLS.
pub(super) fn client() -> Result<Client, reqwest::Error> {
    // Authorities are read where there is TLS, so that an image without any does not stop plain http.
    builder().tls_certs_only([]).pool_max_idle_per_host(1).build()
}

fn builder() -> ClientBuilder {
    let agent = concat!("bellwether/", env!("CARGO_PKG_VERSION"));
    let mut headers = HeaderMap::new();
    headers.insert(reqwest::header::ACCEPT, reqwest::header::HeaderValue::from_static("application/json, */*"));
    Client::builder().redirect(Policy::none()).no_proxy().user_agent(agent).default_headers(headers).dns_resolver(Names::default())
}
