//! A TCP connection that is accepted, and closed at once.

use tokio::net::TcpStream;

use crate::health::outcome::Reason;
use crate::health::probe::Answer;

pub(super) async fn ask(address: &str) -> Answer {
    match TcpStream::connect(address).await {
        Ok(_) => Ok(()),
        Err(error) => Err((Reason::of_io(&error), None)),
    }
}
