//! One connection to a Postgres, kept and used again, that never asks for long and never prints what the server said.
//!
//! The connection is taken out of its place while it is used. An attempt that is dropped halfway therefore takes it
//! along: the next one begins anew, and there is never a second one beside it.

mod session;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;

use crate::config::stores::PostgresStore;
use crate::config::trust::Trust;
use crate::store::fault::Fault;
use crate::store::tls::{self, Expiry};

pub use session::{PostgresSession, TextRow};

/// A Postgres that is connected to when it is first needed.
#[derive(Debug)]
pub struct Postgres {
    config: Config,
    trust: Trust,
    limit: Duration,
    expiry: Expiry,
    idle: Mutex<Option<Session>>,
}

/// A connection, and the task that drives it, which ends with it.
#[derive(Debug)]
struct Session {
    client: Client,
    _driver: AbortOnDropHandle<()>,
}

/// An operation failed. The server's own text is not kept: it may hold values.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("Postgres: {}", text_of(*fault, code.as_deref()))]
pub struct PostgresError {
    /// What kind of failure it was.
    pub fault: Fault,
    /// The server's SQLSTATE, where there is one.
    pub code: Option<String>,
}

/// The first column of the first row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum First {
    /// There is no row.
    NoRow,
    /// There is a row, and no value in it.
    Null,
    /// The value as text.
    Value(String),
}

// === impl Postgres ===

impl Postgres {
    /// A client that connects when it is first needed. `limit` bounds each statement in the server.
    #[must_use]
    pub fn new(store: &PostgresStore, limit: Duration) -> Self {
        let mut config = store.config.clone();
        config.connect_timeout(limit);
        Self { config, trust: store.trust.clone(), limit, expiry: Expiry::default(), idle: Mutex::default() }
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
    pub async fn ping(&self) -> Result<(), PostgresError> {
        self.run(None, "SELECT 1").await.map(drop)
    }

    /// Runs a query that changes nothing, in a transaction that could not. The server ends it after the limit: it goes
    /// on working for a client that has gone away.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub async fn read(&self, sql: &str) -> Result<First, PostgresError> {
        let limit = self.limit.as_millis().max(1);
        self.run(Some(&format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {limit}")), sql).await
    }

    async fn run(&self, transaction: Option<&str>, sql: &str) -> Result<First, PostgresError> {
        let kept = self.take().filter(|session| !session.client.is_closed());
        let was_kept = kept.is_some();
        let mut session = match kept {
            Some(session) => session,
            None => self.connect().await?,
        };
        let mut answer = session.ask(transaction, sql).await;
        // A kept connection may have been cut while nobody looked, by a proxy or by a restart.
        if was_kept && answer.as_ref().is_err_and(|error| error.as_db_error().is_none()) {
            session = self.connect().await?;
            answer = session.ask(transaction, sql).await;
        }
        if !session.client.is_closed() {
            self.keep(session);
        }
        answer.map(|messages| first_of(&messages)).map_err(|error| PostgresError::from_driver(&error))
    }

    async fn connect(&self) -> Result<Session, PostgresError> {
        let failed = |error| PostgresError::from_driver(&error);
        // Without TLS there is nobody to trust, and none need be found.
        let trust = if self.config.get_ssl_mode() == SslMode::Disable { &Trust::Anybody } else { &self.trust };
        let tls = tls::client(trust, &self.expiry).map_err(|_| PostgresError { fault: Fault::Tls, code: None })?;
        let (client, connection) = self.config.connect(MakeRustlsConnect::new(tls)).await.map_err(failed)?;
        #[expect(clippy::disallowed_methods, reason = "ends with the session that holds its handle")]
        let driver: JoinHandle<()> = tokio::spawn(async move {
            // What ends the connection is seen by whoever uses it.
            let _ = connection.await;
        });
        Ok(Session { client, _driver: AbortOnDropHandle::new(driver) })
    }

    fn take(&self) -> Option<Session> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep(&self, session: Session) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
    }
}

// === impl Session ===

impl Session {
    async fn ask(&self, transaction: Option<&str>, sql: &str) -> Result<Vec<SimpleQueryMessage>, tokio_postgres::Error> {
        let Some(begin) = transaction else { return self.client.simple_query(sql).await };
        self.client.simple_query(begin).await?;
        let answer = self.client.simple_query(sql).await;
        self.client.simple_query("ROLLBACK").await?;
        answer
    }
}

fn first_of(messages: &[SimpleQueryMessage]) -> First {
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    match row.map(|row| if row.is_empty() { None } else { row.get(0) }) {
        None => First::NoRow,
        Some(None) => First::Null,
        Some(Some(text)) => First::Value(text.to_owned()),
    }
}

// === impl PostgresError ===

impl PostgresError {
    fn from_driver(error: &tokio_postgres::Error) -> Self {
        match error.code() {
            Some(state) => Self { fault: fault_of(state), code: Some(state.code().to_owned()) },
            None if error.is_closed() => Self { fault: Fault::Reset, code: None },
            None => Self { fault: fault_of_driver(error), code: None },
        }
    }
}

fn fault_of_driver(error: &tokio_postgres::Error) -> Fault {
    let fault = Fault::of(error);
    let text = error.to_string();
    match fault {
        Fault::Other if text.starts_with("timeout") => Fault::Timeout,
        Fault::Other if text.starts_with("authentication") || text.starts_with("invalid configuration") => Fault::Auth,
        Fault::Other if text.contains("TLS") => Fault::Tls,
        fault => fault,
    }
}

/// Codes of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn fault_of(state: &SqlState) -> Fault {
    match state.code() {
        "28P01" | "28000" | "42501" => Fault::Auth,
        "3D000" | "3F000" | "42P01" | "42703" | "42883" => Fault::Missing,
        "53300" | "53400" | "53100" | "53200" => Fault::Limit,
        "57P03" => Fault::Starting,
        "57014" | "55P03" | "25P03" | "57P05" => Fault::Timeout,
        "57P01" | "57P02" | "08006" | "08003" | "08000" => Fault::Reset,
        _ => Fault::Other,
    }
}

fn text_of(fault: Fault, code: Option<&str>) -> String {
    match code {
        Some(code) => format!("{} (SQLSTATE {code})", fault.text()),
        None => fault.text().to_owned(),
    }
}
