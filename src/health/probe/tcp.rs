//! A TCP connection that is accepted, and closed at once.

use crate::health::outcome::Reason;
use crate::health::probe::{Answer, Failed, Found};
use crate::store::names::Names;

pub(super) async fn ask(names: &Names, address: &str) -> Answer {
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = parts.ok_or(Failed::from(Reason::Other))?;
    names.connect(host.trim_start_matches('[').trim_end_matches(']'), port).await?;
    Ok(Found::default())
}
