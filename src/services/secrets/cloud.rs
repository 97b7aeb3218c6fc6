//! Secrets in the service that a cloud has for them: Secrets Manager of Amazon, Secret Manager of Google. The names are those
//! that the application's own providers use, so that its agents read what is set here.
//!
//! Values are encrypted there: no key of ours is needed. Calls are plain HTTP; who signs them, and with which identity, is
//! what the archives' storage uses: keys, or the identity of the machine, the pod or the account.

#![cfg_attr(
    not(any(feature = "secrets-aws", feature = "secrets-gcp")),
    allow(dead_code, unused_variables, unreachable_code, reason = "no provider is built")
)]

#[cfg(feature = "secrets-aws")]
mod aws;
#[cfg(feature = "secrets-gcp")]
mod gcp;

use std::fmt;
use std::time::Duration;

use axum::http::HeaderMap;
use reqwest::{Client, Method, Url};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::config::services::CloudSecrets;
use crate::config::trust::Trust;
use crate::services::secrets::held::Held;
use crate::store::fault::Fault;
use crate::store::http;

/// How long one answer may take. A list asks once for each secret, and a project has four.
const LIMIT: Duration = Duration::from_secs(10);
/// A secret has at most 64 KiB; a page of a list a kilobyte for each.
const LARGEST: usize = 1 << 20;
/// More than this no project has, and no answer shows.
const MOST: usize = 100;

/// A cloud's service for secrets.
pub(super) enum Cloud {
    /// Amazon's Secrets Manager.
    #[cfg(feature = "secrets-aws")]
    Aws(aws::Manager),
    /// Google's Secret Manager.
    #[cfg(feature = "secrets-gcp")]
    Gcp(gcp::Manager),
}

/// Why a cloud's service does not do what is asked. What it said is not kept: it may repeat what was sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum CloudFault {
    /// The name holds what the service does not take.
    Name,
    /// There are no credentials, or they are not taken.
    Unauthenticated,
    /// They do not allow it.
    Forbidden,
    /// The secret is there and marked for deletion.
    #[cfg_attr(not(feature = "secrets-aws"), expect(dead_code, reason = "Amazon alone keeps what is deleted for a while"))]
    Deleted,
    /// The service answered with this status.
    Status(u16),
    /// The answer is not what the service's documentation says.
    Form,
    /// The service could not be reached.
    Unreachable(Fault),
}

/// An answer: its status and its body.
struct Answer {
    status: u16,
    body: Zeroizing<Vec<u8>>,
}

// === impl Cloud ===

impl Cloud {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// What is missing or wrong in what opens it, or that this build does not have it.
    pub fn open(cloud: &CloudSecrets, namespace: &str) -> Result<Self, String> {
        match cloud {
            #[cfg(feature = "secrets-aws")]
            CloudSecrets::Aws { region, endpoint, access } => {
                aws::Manager::open(region.as_deref(), endpoint.as_ref(), access, namespace).map(Self::Aws)
            }
            #[cfg(feature = "secrets-gcp")]
            CloudSecrets::Gcp { project, endpoint, access } => {
                gcp::Manager::open(project, endpoint.as_ref(), access, namespace).map(Self::Gcp)
            }
            #[cfg(not(all(feature = "secrets-aws", feature = "secrets-gcp")))]
            _ => Err("this build does not have the provider".to_owned()),
        }
    }

    /// The secrets of a project by name.
    pub async fn list(&self, project: &str) -> Result<Vec<Held>, CloudFault> {
        let mut held: Vec<Held> = match *self {
            #[cfg(feature = "secrets-aws")]
            Self::Aws(ref manager) => manager.list(project).await?,
            #[cfg(feature = "secrets-gcp")]
            Self::Gcp(ref manager) => manager.list(project).await?,
        };
        held.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(held)
    }

    /// Sets a secret, which is made where there is none.
    pub async fn set(&self, project: &str, key: &str, value: &str) -> Result<(), CloudFault> {
        match *self {
            #[cfg(feature = "secrets-aws")]
            Self::Aws(ref manager) => manager.set(project, key, value).await,
            #[cfg(feature = "secrets-gcp")]
            Self::Gcp(ref manager) => manager.set(project, key, value).await,
        }
    }
}

// === impl Answer ===

impl Answer {
    fn json(&self) -> Result<Value, CloudFault> {
        serde_json::from_slice(&self.body).map_err(|_| CloudFault::Form)
    }
}

fn client() -> Result<Client, reqwest::Error> {
    http::client(&Trust::System, LIMIT)
}

/// Sends a request and reads its answer, whatever its status.
async fn send(client: &Client, method: Method, url: Url, headers: HeaderMap, body: Vec<u8>) -> Result<Answer, CloudFault> {
    let unreachable = |error: reqwest::Error| CloudFault::Unreachable(Fault::of(&error));
    let mut answer = client.request(method, url).headers(headers).body(body).send().await.map_err(unreachable)?;
    let status = answer.status().as_u16();
    let mut body = Zeroizing::new(Vec::new());
    while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > LARGEST {
            return Err(CloudFault::Form);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, body })
}

impl fmt::Display for CloudFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => formatter.write_str("the name holds characters that the service does not take"),
            Self::Unauthenticated => formatter.write_str("there are no credentials that the service takes"),
            Self::Forbidden => formatter.write_str("the credentials do not allow it"),
            Self::Deleted => formatter.write_str("the secret is marked for deletion; restore it first, or wait until it is gone"),
            Self::Status(status) => write!(formatter, "the service answered with the status {status}"),
            Self::Form => formatter.write_str("the service's answer is not understood"),
            Self::Unreachable(fault) => formatter.write_str(fault.text()),
        }
    }
}
