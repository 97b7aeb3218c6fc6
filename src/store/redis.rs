//! One connection to a Redis, kept and used again. TLS and the connection are ours, so that failures have their
//! reasons; the protocol is the driver's.
//!
//! The connection is taken out of its place while it is used, as that of Postgres is.

use std::sync::{Mutex, PoisonError};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, RedisConnectionInfo, RedisError, ServerErrorKind, cmd};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::config::stores::RedisStore;
use crate::store::fault::Fault;
use crate::store::names::Names;
use crate::store::tls::{self, Expiry};

/// As much of a value as a time needs.
const VALUE_LIMIT: usize = 64;

/// A Redis that is connected to when it is first needed.
#[derive(Debug)]
pub struct Redis {
    store: RedisStore,
    names: Names,
    expiry: Expiry,
    idle: Mutex<Option<Session>>,
}

/// A connection, and the task that drives it, which ends with it.
#[derive(Debug)]
struct Session {
    connection: MultiplexedConnection,
    _driver: AbortOnDropHandle<()>,
}

/// An operation failed. The server's own text is not kept: it may hold values.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("Redis: {}", .0.text())]
pub struct RedisFault(pub Fault);

// === impl Redis ===

impl Redis {
    /// A client that connects when it is first needed.
    #[must_use]
    pub fn new(store: &RedisStore) -> Self {
        Self { store: store.clone(), names: Names::default(), expiry: Expiry::default(), idle: Mutex::default() }
    }

    /// Until when the server's certificate is valid.
    #[must_use]
    pub fn expiry(&self) -> &Expiry {
        &self.expiry
    }

    /// Whether the server answers at all.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn ping(&self) -> Result<(), RedisFault> {
        self.ask::<redis::Value>(&cmd("PING")).await.map(drop)
    }

    /// Whether a key is there.
    ///
    /// # Errors
    /// Why it cannot be known.
    pub async fn exists(&self, key: &str) -> Result<bool, RedisFault> {
        self.ask::<bool>(cmd("EXISTS").arg(key)).await
    }

    /// The begin of a key's text; a value of any size costs no more than that.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub async fn begin_of(&self, key: &str) -> Result<Vec<u8>, RedisFault> {
        self.ask::<Vec<u8>>(cmd("GETRANGE").arg(key).arg(0).arg(VALUE_LIMIT - 1)).await
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisFault> {
        let kept = self.take();
        let was_kept = kept.is_some();
        let mut session = match kept {
            Some(session) => session,
            None => self.connect().await?,
        };
        let mut answer = command.query_async::<T>(&mut session.connection).await;
        // A kept connection may have been cut while nobody looked, by a proxy or by a restart.
        if was_kept && answer.as_ref().is_err_and(RedisError::is_unrecoverable_error) {
            session = self.connect().await?;
            answer = command.query_async::<T>(&mut session.connection).await;
        }
        if !answer.as_ref().is_err_and(RedisError::is_unrecoverable_error) {
            self.keep(session);
        }
        answer.map_err(|error| RedisFault(fault_of(&error)))
    }

    async fn connect(&self) -> Result<Session, RedisFault> {
        let refused = |error: &std::io::Error| RedisFault(Fault::of_io(error));
        let stream = self.names.connect(&self.store.host, self.store.port).await.map_err(|error| refused(&error))?;
        let Some(trust) = &self.store.tls else { return self.greet(stream).await };
        let broken = RedisFault(Fault::Tls);
        let config = tls::client(trust, &self.expiry).map_err(|_| broken)?;
        let name = ServerName::try_from(self.store.host.clone()).map_err(|_| broken)?;
        let stream = TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await.map_err(|error| refused(&error))?;
        self.greet(stream).await
    }

    async fn greet<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(&self, stream: S) -> Result<Session, RedisFault> {
        // The check's own deadline is the only one.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let mut settings = RedisConnectionInfo::default().set_db(self.store.database);
        if let Some(user) = &self.store.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.store.password {
            settings = settings.set_password(password.expose());
        }
        let greeted = MultiplexedConnection::new_with_config(&settings, stream, config).await;
        let (connection, driver) = greeted.map_err(|error| RedisFault(fault_of(&error)))?;
        #[expect(clippy::disallowed_methods, reason = "ends with the session that holds its handle")]
        let driver: JoinHandle<()> = tokio::spawn(driver);
        Ok(Session { connection, _driver: AbortOnDropHandle::new(driver) })
    }

    fn take(&self) -> Option<Session> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep(&self, session: Session) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
    }
}

/// Codes of <https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors>: the word that an error begins
/// with.
fn fault_of(error: &RedisError) -> Fault {
    match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => Fault::Auth,
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => Fault::Auth,
        (ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown | ServerErrorKind::ClusterDown), _) => {
            Fault::Starting
        }
        _ if error.is_connection_refusal() => Fault::Refused,
        _ if error.is_timeout() => Fault::Timeout,
        _ => match Fault::of(error) {
            Fault::Other if error.is_connection_dropped() || error.is_io_error() => Fault::Reset,
            fault => fault,
        },
    }
}
