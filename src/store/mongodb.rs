//! MongoDB clients that never wait long, never hold many connections, and never print what a server said.
//!
//! Facts about the driver (3.9, measured): a refused connection waits out the whole server selection; a frozen server
//! is noticed only after heartbeat plus connect timeout; a driver's future must not be dropped (RUST-937), so a
//! deadline is kept by spawning the operation and leaving it behind.

use std::future::Future;
use std::io;
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::error::{Error as DriverError, ErrorKind, WriteFailure};
use mongodb::options::{Acknowledgment, ClientOptions, WriteConcern};
use mongodb::{Client, Database};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

use crate::config::stores::MongoStore;

/// How soon a refused or silent server is given up: below the default timeout of a check.
const SELECTION_TIMEOUT: Duration = Duration::from_secs(2);
/// How soon a frozen server is noticed, together with the connect timeout.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// The server's code for a document that is there already.
const DUPLICATE_KEY: i32 = 11_000;

/// What a client is for: its name in the server's log, and how many connections it may hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// Checks: a client of its own, so that a busy pool elsewhere is not taken for an outage.
    Health,
    /// Reading what only the database knows.
    Collect,
    /// Looking at indexes and planning.
    Retention,
    /// Looking after the application's secrets.
    Secrets,
    /// Being the application's run service.
    Runs,
    /// Claiming projects for runs: a start waits for it.
    Front,
}

/// A MongoDB that is connected to when it is first needed.
#[derive(Debug)]
pub struct Mongo {
    store: MongoStore,
    purpose: Purpose,
    /// How soon a refused or silent server is given up.
    patience: Duration,
    client: OnceCell<Client>,
}

/// What kind of failure it was: a closed set, fit for a label.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Reason {
    /// No answer in time.
    Timeout,
    /// Nobody listens there.
    Refused,
    /// The connection was cut.
    Reset,
    /// The name cannot be resolved.
    Dns,
    /// There is no way to the host.
    Unreachable,
    /// TLS failed.
    Tls,
    /// User, password or privileges are wrong.
    Auth,
    /// The server answers and is not the primary.
    NotPrimary,
    /// No server of the set is the primary.
    NoPrimary,
    /// Anything else.
    Other,
}

/// An operation failed. The driver's own text is kept for a log on request and never shown: it holds hosts and whole
/// replies.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It was not done in time; it may still be.
    #[error("MongoDB did not answer within {0:?}")]
    Timeout(Duration),
    /// The driver reported it.
    #[error("MongoDB: {}", reason_text(*.reason))]
    Driver {
        /// What kind of failure it was.
        reason: Reason,
        /// The server's error code, where there is one.
        code: Option<i32>,
    },
    /// The operation panicked.
    #[error("an operation on MongoDB panicked; the panic is in the log above")]
    Panicked,
}

// === impl Mongo ===

impl Mongo {
    /// A client that is made when it is first needed: nothing is connected or resolved here.
    #[must_use]
    pub fn new(store: &MongoStore, purpose: Purpose) -> Self {
        Self { store: store.clone(), purpose, patience: SELECTION_TIMEOUT, client: OnceCell::new() }
    }

    /// Gives a server up before `limit`, so that the reason is known when the asker's own deadline comes.
    #[must_use]
    pub fn giving_up_before(self, limit: Duration) -> Self {
        Self { patience: self.patience.min(limit.mul_f64(0.8)), ..self }
    }

    /// The application's database.
    ///
    /// # Errors
    /// When the connection string needs a look-up (`mongodb+srv`) that fails; the next call tries again.
    pub async fn database(&self) -> Result<Database, StoreError> {
        let client = self.client.get_or_try_init(|| self.connect()).await.map_err(|error| StoreError::from_driver(&error))?;
        Ok(client.database(&self.store.database))
    }

    /// The database's clock, in milliseconds since the epoch; needs no privilege.
    ///
    /// # Errors
    /// When the server does not answer within `limit`.
    pub async fn server_time(&self, limit: Duration) -> Result<i64, StoreError> {
        let database = self.database().await?;
        let reply = within(limit, async move { database.run_command(doc! { "hello": 1 }).await }).await?;
        let time = reply.get_datetime("localTime").map_err(|_| StoreError::Driver { reason: Reason::Other, code: None })?;
        Ok(time.timestamp_millis())
    }

    async fn connect(&self) -> mongodb::error::Result<Client> {
        let mut options = ClientOptions::parse(self.store.uri.expose()).await?;
        let (name, pool) = match self.purpose {
            Purpose::Health => ("bellwether-health", 2),
            Purpose::Collect => ("bellwether-collect", 2),
            Purpose::Retention => ("bellwether-retention", 4),
            Purpose::Secrets => ("bellwether-secrets", 2),
            Purpose::Runs => ("bellwether-runs", 4),
            Purpose::Front => ("bellwether-front", 8),
        };
        options.app_name = Some(name.to_owned());
        options.max_pool_size = Some(pool);
        options.min_pool_size = None;
        options.connect_timeout = Some(SELECTION_TIMEOUT);
        options.server_selection_timeout = Some(self.patience);
        options.heartbeat_freq = Some(HEARTBEAT);
        Client::with_options(options)
    }
}

/// Runs an operation and waits for it at most `limit`. An operation that is late is left behind, never dropped.
///
/// # Errors
/// The operation's own, or that it is late.
pub async fn within<T, F>(limit: Duration, operation: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: Future<Output = mongodb::error::Result<T>> + Send + 'static,
{
    wait(limit, &mut start(operation)).await
}

/// Starts an operation that goes on even when nobody waits for it.
pub fn start<T, F>(operation: F) -> JoinHandle<mongodb::error::Result<T>>
where
    T: Send + 'static,
    F: Future<Output = mongodb::error::Result<T>> + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "short-lived, and the driver's futures must not be dropped (RUST-937)")]
    tokio::spawn(operation)
}

async fn wait<T>(limit: Duration, operation: &mut JoinHandle<mongodb::error::Result<T>>) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, operation).await {
        Ok(Ok(Ok(value))) => Ok(value),
        Ok(Ok(Err(error))) => Err(StoreError::from_driver(&error)),
        Ok(Err(_)) => Err(StoreError::Panicked),
        Err(_) => Err(StoreError::Timeout(limit)),
    }
}

/// The reply of `hello`, as far as health needs it.
#[must_use]
pub fn is_usable(hello: &Document) -> bool {
    let flag = |name| hello.get_bool(name).unwrap_or(false);
    flag("isWritablePrimary") || flag("secondary")
}

// === impl StoreError ===

impl StoreError {
    /// Maps a driver's error to a kind, and forgets its text.
    #[must_use]
    pub fn from_driver(error: &DriverError) -> Self {
        Self::Driver { reason: reason_of(error), code: code_of(error) }
    }

    /// What kind of failure it was.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Timeout(_) => Reason::Timeout,
            Self::Driver { reason, .. } => *reason,
            Self::Panicked => Reason::Other,
        }
    }

    /// Whether a document with this key is there already: of several that insert it at once, one wins.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        matches!(self, Self::Driver { code: Some(DUPLICATE_KEY), .. })
    }
}

/// A majority confirms what is written, and is waited for no longer than `limit`.
#[must_use]
pub fn majority(limit: Duration) -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).w_timeout(limit).build()
}

/// The server's code, wherever the driver keeps it.
fn code_of(error: &DriverError) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(error)) => Some(error.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(error)) => Some(error.code),
        _ => None,
    }
}

fn reason_of(error: &DriverError) -> Reason {
    match error.kind.as_ref() {
        ErrorKind::Authentication { .. } => Reason::Auth,
        ErrorKind::DnsResolve { .. } => Reason::Dns,
        ErrorKind::InvalidTlsConfig { .. } => Reason::Tls,
        ErrorKind::Io(cause) => reason_of_io(cause),
        ErrorKind::Command(_) | ErrorKind::Write(_) => code_of(error).map_or(Reason::Other, reason_of_code),
        // The text names each server with its last error, and nothing else tells why none could be chosen.
        ErrorKind::ServerSelection { message, .. } | ErrorKind::ConnectionPoolCleared { message, .. } => reason_of_text(message),
        _ => Reason::Other,
    }
}

fn reason_of_io(cause: &io::Error) -> Reason {
    match cause.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Reason::Timeout,
        io::ErrorKind::ConnectionRefused => Reason::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
            Reason::Reset
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Reason::Unreachable,
        _ => reason_of_text(&cause.to_string()),
    }
}

/// Codes of <https://www.mongodb.com/docs/manual/reference/error-codes/>.
fn reason_of_code(code: i32) -> Reason {
    match code {
        13 | 18 | 8000 => Reason::Auth,
        50 | 262 => Reason::Timeout,
        10_107 | 13_435 | 13_436 | 10_058 => Reason::NotPrimary,
        _ => Reason::Other,
    }
}

fn reason_of_text(text: &str) -> Reason {
    let text = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["refused"]) {
        Reason::Refused
    } else if has(&["failed to lookup", "name resolution", "no such host", "name or service not known"]) {
        Reason::Dns
    } else if has(&["no route to host", "network is unreachable", "host is unreachable"]) {
        Reason::Unreachable
    } else if has(&["certificate", "tls", "handshakefailure"]) {
        Reason::Tls
    } else if has(&["authentication", "unauthorized", "scram"]) {
        Reason::Auth
    } else if has(&["reset", "broken pipe", "unexpected end", "eof"]) {
        Reason::Reset
    } else if has(&["timed out", "timeout"]) && !has(&["server selection timeout: no available servers", "secondary"]) {
        Reason::Timeout
    } else if has(&["replicasetnoprimary", "secondary"]) {
        Reason::NoPrimary
    } else {
        Reason::Timeout
    }
}

fn reason_text(reason: Reason) -> &'static str {
    match reason {
        Reason::Timeout => "no answer in time",
        Reason::Refused => "the connection was refused; is the server running, and is the address right?",
        Reason::Reset => "the connection was cut",
        Reason::Dns => "the host's name cannot be resolved",
        Reason::Unreachable => "there is no way to the host",
        Reason::Tls => "TLS failed; check the certificate and the host's name",
        Reason::Auth => "user, password or privileges are wrong",
        Reason::NotPrimary => "the server is not the primary",
        Reason::NoPrimary => "no server of the set is the primary",
        Reason::Other => "the operation failed",
    }
}
