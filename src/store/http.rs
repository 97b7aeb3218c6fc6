//! HTTP towards servers that are asked now and then: the receivers of messages, an issuer of tokens, a cloud's services.
//!
//! Owns how their client is made. What it is asked, and what an answer means, belongs to whoever asks.

use std::time::Duration;

use reqwest::Client;
use reqwest::redirect::Policy;

use crate::config::trust::Trust;
use crate::store::names::Names;
use crate::store::tls::{self, Expiry};

/// A client that follows no redirect and asks no proxy. An answer, its body included, takes at most `limit`.
///
/// No connection is kept: requests are so far apart that it would be cut meanwhile, and what was sent would stay in its
/// buffers.
///
/// # Errors
/// When there is no client to be had at all. An image without any authorities has one for plain http alone.
pub fn client(trust: &Trust, limit: Duration) -> Result<Client, reqwest::Error> {
    let agent = concat!("bellwether/", env!("CARGO_PKG_VERSION"));
    let builder = Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .user_agent(agent)
        .timeout(limit)
        .dns_resolver(Names::default())
        .pool_max_idle_per_host(0);
    match tls::client(trust, &Expiry::default()) {
        Ok(config) => builder.tls_backend_preconfigured(config).build(),
        Err(_) => builder.tls_certs_only([]).build(),
    }
}
