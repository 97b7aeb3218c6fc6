//! A WebSocket on its way through: bytes both ways, until one side ends it, nobody says anything, or the process stops.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::front::upstream::pool::Driver;
use crate::front::visit::Visit;

/// What is read at once.
const BUFFER: usize = 8 * 1024;

/// When something was said last, in milliseconds since the begin.
struct Talk {
    began: Instant,
    last: AtomicU64,
    patience: Duration,
}

/// Passes bytes on between both sides in the background, for as long as anybody talks. Takes up the place of its request
/// until its end.
pub fn open(client: OnUpgrade, server: OnUpgrade, driver: Driver, mut visit: Box<Visit>, patience: Duration, stop: CancellationToken) {
    let tunnels = visit.tunnels();
    tunnels.inc();
    #[expect(clippy::disallowed_methods, reason = "ends with its connection, by the configured silence, or at the stop")]
    tokio::spawn(async move {
        let talk = async {
            let driven = async {
                driver.finish().await;
                Ok(())
            };
            let (client, server, ()) = tokio::try_join!(client, server, driven).ok()?;
            Some(pass_on(TokioIo::new(client), TokioIo::new(server), patience).await)
        };
        tokio::select! {
            sent = talk => visit.sent(sent.unwrap_or_default()),
            () = stop.cancelled() => {}
        }
        tunnels.dec();
    });
}

/// How many bytes went to the client.
async fn pass_on<C, S>(client: C, server: S, patience: Duration) -> usize
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let talk = Talk { began: Instant::now(), last: AtomicU64::new(0), patience };
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    let sent = AtomicU64::new(0);
    // One side that fails ends both; one that has said all leaves the other to go on.
    let both =
        async { tokio::try_join!(one_way(from_client, to_server, &talk, None), one_way(from_server, to_client, &talk, Some(&sent))) };
    let _ = both.await;
    usize::try_from(sent.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
}

async fn one_way<R, W>(mut from: R, mut to: W, talk: &Talk, count: Option<&AtomicU64>) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        let Ok(read) = timeout(talk.rest(), from.read(&mut buffer)).await else {
            // The other way may have been used meanwhile.
            if talk.rest().is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            continue;
        };
        let length = read?;
        if length == 0 {
            return to.shutdown().await;
        }
        timeout(talk.patience, to.write_all(&buffer[..length])).await.map_err(|_| io::ErrorKind::TimedOut)??;
        if let Some(count) = count {
            count.fetch_add(length as u64, Ordering::Relaxed);
        }
        talk.goes_on();
    }
}

// === impl Talk ===

impl Talk {
    fn goes_on(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
    }

    /// How much longer the silence may last.
    fn rest(&self) -> Duration {
        let silence = self.now().saturating_sub(self.last.load(Ordering::Relaxed));
        self.patience.saturating_sub(Duration::from_millis(silence))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
