//! Plain HTTP on loopback: a status, a content type and a body.

use std::time::Duration;

use anyhow::{Context, Result};

pub struct Reply {
    pub status: u16,
    pub content_type: String,
    pub body: String,
}

/// No roots of trust are loaded, as nothing here speaks TLS (and some systems have none), and no proxy is used.
pub fn client(timeout: Duration) -> Result<reqwest::Client> {
    reqwest::Client::builder().tls_certs_only([]).no_proxy().timeout(timeout).build().context("cannot set up an HTTP client")
}

pub async fn get(client: &reqwest::Client, url: &str, accept: &str) -> Result<Reply, reqwest::Error> {
    let response = client.get(url).header("accept", accept).send().await?;
    let status = response.status().as_u16();
    let content_type = response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    Ok(Reply { status, content_type, body: response.text().await? })
}
