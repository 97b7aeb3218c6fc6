//! Names into addresses, by the system's resolver, as the applications do it.
//!
//! The resolver blocks a thread and cannot be interrupted; with servers that do not answer it takes half a minute. So
//! there is at most one question at a time for each name: whoever asks meanwhile waits for the same answer, and one who
//! goes away leaves it running for the next.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex as BlockingMutex, PoisonError};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

type Answer = io::Result<Vec<IpAddr>>;
type Question = Arc<Mutex<Option<JoinHandle<Answer>>>>;

/// The questions that run. Names come from the configuration, so that there are few.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<BlockingMutex<HashMap<String, Question>>>);

// === impl Names ===

impl Names {
    /// The addresses of a host.
    ///
    /// # Errors
    /// When there is no such name, or nobody answers.
    pub async fn resolve(&self, host: &str) -> Answer {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let question = Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(host.to_owned()).or_default());
        let mut running = question.lock().await;
        // The answer to somebody who went away is as old as their question.
        if running.as_ref().is_some_and(JoinHandle::is_finished) {
            *running = None;
        }
        let host = host.to_owned();
        let handle = running.get_or_insert_with(|| tokio::task::spawn_blocking(move || look_up(&host)));
        // Dropped here, the handle stays where the next one finds it.
        let answer = handle.await;
        *running = None;
        answer.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// A connection to a host, by the first of its addresses that takes it.
    ///
    /// # Errors
    /// When it has no address, or none takes it.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses: Vec<SocketAddr> = self.resolve(host).await?.into_iter().map(|address| SocketAddr::new(address, port)).collect();
        let stream = TcpStream::connect(addresses.as_slice()).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

fn look_up(host: &str) -> Answer {
    let mut addresses: Vec<IpAddr> = (host, 0).to_socket_addrs()?.map(|address| address.ip()).collect();
    addresses.dedup();
    Ok(addresses)
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.clone();
        Box::pin(async move {
            let addresses = names.resolve(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Names;

    #[tokio::test]
    async fn names_and_addresses_are_resolved() {
        let names = Names::default();
        assert_eq!(names.resolve("127.0.0.1").await.unwrap(), ["127.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
        assert!(!names.resolve("localhost").await.unwrap().is_empty());
        assert!(names.resolve("does-not-exist.invalid").await.is_err());
    }

    #[tokio::test]
    async fn a_question_goes_on_when_the_one_who_asked_has_gone() {
        let names = Names::default();
        let question = std::sync::Arc::clone(names.0.lock().unwrap().entry("slow".to_owned()).or_default());
        let (answer, answered) = std::sync::mpsc::channel::<()>();
        let slow = tokio::task::spawn_blocking(move || {
            answered.recv().unwrap();
            Ok(vec!["127.0.0.1".parse().unwrap()])
        });
        *question.lock().await = Some(slow);
        let gone = tokio::time::timeout(std::time::Duration::from_millis(10), names.resolve("slow"));
        assert!(gone.await.is_err());
        let (first, second, ()) = tokio::join!(names.resolve("slow"), names.resolve("localhost"), async { answer.send(()).unwrap() });
        assert_eq!(first.unwrap().len(), 1);
        assert!(second.is_ok(), "another name does not wait");
    }
}
