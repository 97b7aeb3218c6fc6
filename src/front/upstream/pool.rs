//! Connections to the API that are kept for the next request. The one that was used last is used first, so that those of
//! a peak end by themselves.
//!
//! There is one API and one thread that asks it. A pool for many of each does per request what is not needed here: it
//! hashes the host and starts a task. A connection has no task either: whoever asks over it, or reads the answer, drives it.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::gauge::Gauge;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::config::front::UpstreamTarget;
use crate::front::body::RequestBody;
use crate::front::metrics::FrontMetrics;
use crate::front::upstream::UpstreamFault;
use crate::front::upstream::rush::{self, Rush};
use crate::front::upstream::timer::Timer;
use crate::store::names::Names;
use crate::store::tls::{Expiry, client};

/// How long a connection is kept and not used: below the 60 s after which DecisionBox's API closes it, so that no request
/// meets its end.
const KEEP: Duration = Duration::from_secs(30);
/// How often those are let go that nobody needed for so long, or that the API has closed.
const TIDY: Duration = Duration::from_secs(10);
/// How many are kept. Each takes 27 KiB here, and more at the API.
const MOST_KEPT: usize = 128;

/// Connections to one API.
#[derive(Debug)]
pub struct Pool {
    host: String,
    port: u16,
    tls: Option<Tls>,
    names: Names,
    limit: Duration,
    kept: Mutex<Vec<Kept>>,
    rush: Mutex<Rush>,
    /// Tells that one has been given back.
    given_back: Notify,
    metrics: FrontMetrics,
}

struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

#[derive(Debug)]
struct Kept {
    connection: Connection,
    since: Instant,
}

/// A connection that can be asked over.
#[derive(Debug)]
pub struct Connection {
    /// Takes one request at a time.
    pub sender: SendRequest<RequestBody>,
    /// Carries it to the API, and the answer back.
    pub driver: Driver,
    /// Rings where the API is too slow.
    pub timer: Timer,
}

/// What is done on a connection: reads and writes. Nothing happens on it unless this goes on.
pub struct Driver {
    work: Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
    open: Gauge,
}

/// A connection that can be given back once its answer has ended.
#[derive(Debug)]
pub struct Returned {
    connection: Connection,
    pool: Arc<Pool>,
}

// === impl Pool ===

impl Pool {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// When TLS cannot be made of what the configuration trusts.
    pub fn new(target: &UpstreamTarget, limit: Duration, metrics: FrontMetrics) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let tls = match &target.tls {
            None => None,
            Some(trust) => {
                let config = client(trust, &Expiry::default())?;
                let name = ServerName::try_from(target.host.clone())?;
                Some(Tls { connector: TlsConnector::from(Arc::new(config)), name })
            }
        };
        let (host, port) = (target.host.clone(), target.port);
        Ok(Self {
            host,
            port,
            tls,
            names: Names::default(),
            limit,
            kept: Mutex::default(),
            rush: Mutex::default(),
            given_back: Notify::new(),
            metrics,
        })
    }

    /// A connection that was kept. The API may have closed it meanwhile.
    pub fn kept(&self, now: Instant) -> Option<Connection> {
        let mut kept = self.lock();
        let Kept { connection, since } = kept.pop()?;
        if now.saturating_duration_since(since) > KEEP {
            // It was used last: all others are older.
            kept.clear();
            return None;
        }
        Some(connection)
    }

    /// Waits until another may be opened. Where one is given back before that, it is this.
    pub async fn turn(&self) -> Option<Connection> {
        if self.may_open() {
            return None;
        }
        let mut given_back = pin!(async {
            loop {
                self.given_back.notified().await;
                if let Some(connection) = self.kept(Instant::now()) {
                    return connection;
                }
            }
        });
        loop {
            // The place in the queue stays the same.
            match timeout(rush::WINDOW, given_back.as_mut()).await {
                Ok(connection) => return Some(connection),
                Err(_) if self.may_open() => return None,
                Err(_) => {}
            }
        }
    }

    fn may_open(&self) -> bool {
        self.rush.lock().unwrap_or_else(PoisonError::into_inner).may_open(Instant::now())
    }

    /// Lets go, until `stop`, of connections that nobody has needed for a while and of those that the API has closed.
    pub async fn tidy(&self, stop: &CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(TIDY)).await.is_some() {
            let now = Instant::now();
            self.lock().retain_mut(|kept| now.saturating_duration_since(kept.since) <= KEEP && kept.connection.is_open());
        }
    }

    /// A new one.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(&self) -> Result<Connection, UpstreamFault> {
        timeout(self.limit, self.open()).await.unwrap_or(Err(UpstreamFault::ConnectTimeout))
    }

    async fn open(&self) -> Result<Connection, UpstreamFault> {
        let stream = self.names.connect(&self.host, self.port).await.map_err(|error| UpstreamFault::from(&error))?;
        let Some(tls) = &self.tls else { return self.begin(stream).await };
        let stream = tls.connector.connect(tls.name.clone(), stream).await.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => UpstreamFault::ConnectTimeout,
            _ => UpstreamFault::Tls,
        })?;
        self.begin(stream).await
    }

    async fn begin<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S) -> Result<Connection, UpstreamFault> {
        let (sender, connection) = Builder::new().writev(false).handshake(TokioIo::new(stream)).await.map_err(|_| UpstreamFault::Reset)?;
        let open = self.metrics.upstream_connections.clone();
        open.inc();
        let driver = Driver { work: Some(Box::pin(connection.with_upgrades())), open };
        Ok(Connection { sender, driver, timer: Timer::default() })
    }

    fn keep(&self, mut connection: Connection) {
        // One that is still at its request, or that was closed behind its answer, is of no use to others.
        if !connection.sender.is_ready() && !connection.is_open() {
            return;
        }
        let mut kept = self.lock();
        if kept.len() < MOST_KEPT {
            kept.push(Kept { connection, since: Instant::now() });
            drop(kept);
            self.given_back.notify_one();
        }
    }

    /// Each update is a single step, so that a panic elsewhere leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Connection ===

impl Connection {
    /// What is given back after the answer.
    pub fn returned(self, pool: &Arc<Pool>) -> Returned {
        Returned { connection: self, pool: Arc::clone(pool) }
    }

    /// Whether the next request can go over it, as far as is known by now.
    fn is_open(&mut self) -> bool {
        self.driver.go_on(&mut Context::from_waker(Waker::noop()));
        self.sender.is_ready()
    }
}

// === impl Driver ===

impl Driver {
    /// Reads and writes what there is. Whoever waits for the answer is told what went wrong.
    pub fn go_on(&mut self, context: &mut Context<'_>) {
        if let Some(work) = &mut self.work
            && work.as_mut().poll(context).is_ready()
        {
            self.work = None;
        }
    }

    /// Waits for the end of the connection, or for its becoming another's.
    pub async fn finish(mut self) {
        if let Some(work) = self.work.take() {
            let _ = work.await;
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.open.dec();
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Driver({})", if self.work.is_some() { "open" } else { "ended" })
    }
}

// === impl Returned ===

impl Returned {
    /// Its answer has ended: it can be asked over again.
    pub fn give_back(self) {
        self.pool.keep(self.connection);
    }

    /// Goes on with the answer.
    pub fn go_on(&mut self, context: &mut Context<'_>) {
        self.connection.driver.go_on(context);
    }

    /// Ready when the API has been waited for until `due`.
    pub fn poll_due(&mut self, due: Instant, context: &mut Context<'_>) -> Poll<()> {
        self.connection.timer.poll_due(due, context)
    }

    /// What is left to do where the connection becomes a tunnel.
    pub fn into_driver(self) -> Driver {
        self.connection.driver
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Tls({:?})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    fn pool() -> Arc<Pool> {
        let target = UpstreamTarget { host: "api".to_owned(), port: 1, authority: "api:1".to_owned(), tls: None };
        Arc::new(Pool::new(&target, Duration::from_secs(1), FrontMetrics::default()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_rush_the_next_has_what_is_given_back_and_else_a_connection_of_its_own() {
        let pool = pool();
        let (ours, theirs) = duplex(1024);
        let connection = pool.begin(ours).await.unwrap();
        let begin = Instant::now();
        for _ in 0..rush::AT_ONCE {
            assert!(pool.turn().await.is_none());
        }
        assert_eq!(begin.elapsed(), Duration::ZERO);
        let (next, after, ()) = tokio::join!(pool.turn(), pool.turn(), async { connection.returned(&pool).give_back() });
        assert!(next.is_some() && after.is_none(), "one has it");
        assert_eq!(begin.elapsed(), rush::WINDOW);
        drop(theirs);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_api_has_closed_or_nobody_needs_is_let_go() {
        let pool = pool();
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let (one, other) = duplex(1024);
            ours.push(pool.begin(one).await.unwrap());
            theirs.push(other);
        }
        ours.into_iter().for_each(|connection| connection.returned(&pool).give_back());
        let (stop, open) = (CancellationToken::new(), || pool.metrics.upstream_connections.get());
        assert_eq!((pool.lock().len(), open()), (2, 2));
        theirs.pop();
        let look = async {
            tokio::time::sleep(TIDY + Duration::from_millis(1)).await;
            assert_eq!((pool.lock().len(), open()), (1, 1), "the API has closed one");
            tokio::time::sleep(KEEP + TIDY).await;
            assert_eq!((pool.lock().len(), open()), (0, 0), "nobody needs the other");
            stop.cancel();
        };
        tokio::join!(pool.tidy(&stop), look);
    }
}
