//! Connections to the API that are kept for the next request. The one that was used last is used first, so that those of
//! a peak end by themselves.
//!
//! There is one API and one thread that asks it. A pool for many of each does per request what is not needed here: it
//! hashes the host and starts a task.

use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::front::UpstreamTarget;
use crate::front::body::RequestBody;
use crate::front::metrics::FrontMetrics;
use crate::front::upstream::UpstreamFault;
use crate::store::names::Names;
use crate::store::tls::{Expiry, client};

/// How long a connection is kept and not used: below the 60 s after which DecisionBox's API closes it, so that no request
/// meets its end.
const KEEP: Duration = Duration::from_secs(30);
/// How many are kept: as many as may be asked over at once by default.
const MOST_KEPT: usize = 512;

/// Connections to one API.
#[derive(Debug)]
pub struct Pool {
    host: String,
    port: u16,
    tls: Option<Tls>,
    names: Names,
    limit: Duration,
    kept: Mutex<Vec<Kept>>,
    metrics: FrontMetrics,
}

struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

#[derive(Debug)]
struct Kept {
    sender: SendRequest<RequestBody>,
    since: Instant,
}

/// A connection that can be asked over.
#[derive(Debug)]
pub struct Connection {
    /// Takes one request at a time.
    pub sender: SendRequest<RequestBody>,
}

/// A connection that can be given back once its answer has ended.
#[derive(Debug)]
pub struct Returned {
    sender: SendRequest<RequestBody>,
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
        Ok(Self { host, port, tls, names: Names::default(), limit, kept: Mutex::default(), metrics })
    }

    /// A connection that was kept and still is open.
    pub fn kept(&self) -> Option<Connection> {
        let mut kept = self.lock();
        let usable = kept.iter().rposition(|kept| kept.sender.is_ready())?;
        let Kept { sender, since } = kept.remove(usable);
        if since.elapsed() > KEEP {
            // It was used last: all others are older.
            kept.clear();
            return None;
        }
        Some(Connection { sender })
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
        #[expect(clippy::disallowed_methods, reason = "lives no longer than its connection, which ends when nobody holds it")]
        tokio::spawn(async move {
            // Whoever waits for the answer is told what went wrong.
            let _ = connection.with_upgrades().await;
            open.dec();
        });
        Ok(Connection { sender })
    }

    fn keep(&self, sender: SendRequest<RequestBody>) {
        if sender.is_closed() {
            return;
        }
        let mut kept = self.lock();
        // Those that have ended meanwhile, and those that nobody has needed for a while.
        if let Some(oldest) = kept.first()
            && (oldest.since.elapsed() > KEEP || oldest.sender.is_closed())
        {
            kept.retain(|kept| kept.since.elapsed() <= KEEP && !kept.sender.is_closed());
        }
        if kept.len() < MOST_KEPT {
            kept.push(Kept { sender, since: Instant::now() });
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
        Returned { sender: self.sender, pool: Arc::clone(pool) }
    }
}

// === impl Returned ===

impl Returned {
    /// Its answer has ended: it can be asked over again.
    pub fn give_back(self) {
        self.pool.keep(self.sender);
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Tls({:?})", self.name)
    }
}
