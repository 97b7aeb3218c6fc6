//! A connection that is held for a while: for transactions, locks and COPY. Whoever drops it ends all of them.

use std::io::Cursor;
use std::pin::pin;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio_postgres::SimpleQueryMessage;

use crate::store::fault::Fault;
use crate::store::postgres::{Postgres, PostgresError, Session};

/// The server ends statements earlier by limits of its own; this is for one that no longer answers at all.
const LIMIT: Duration = Duration::from_secs(180);

/// One row, as texts; `None` is null.
pub type TextRow = Vec<Option<String>>;

/// A connection that is held.
#[derive(Debug)]
pub struct PostgresSession(Session);

// === impl Postgres ===

impl Postgres {
    /// A connection for longer work. It is not kept for others.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn session(&self) -> Result<PostgresSession, PostgresError> {
        limited(async { self.connect().await.map(PostgresSession) }).await
    }
}

// === impl PostgresSession ===

impl PostgresSession {
    /// Runs statements and forgets what they answer.
    ///
    /// # Errors
    /// Why they failed.
    pub async fn run(&self, sql: &str) -> Result<(), PostgresError> {
        limited(async { self.0.client.batch_execute(sql).await.map_err(|error| PostgresError::from_driver(&error)) }).await
    }

    /// The rows of a query that has few.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn rows(&self, sql: &str) -> Result<Vec<TextRow>, PostgresError> {
        let messages = limited(async { self.0.client.simple_query(sql).await.map_err(|error| PostgresError::from_driver(&error)) }).await?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// The lines that a `COPY … TO STDOUT` in text format writes: at least one where there are any, and then as many as
    /// fit into so many bytes. Those that do not are read and forgotten.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn copy_out(&self, sql: &str, bytes: usize) -> Result<Vec<Vec<u8>>, PostgresError> {
        limited(async {
            let failed = |error| PostgresError::from_driver(&error);
            let mut stream = pin!(self.0.client.copy_out(sql).await.map_err(failed)?);
            let (mut lines, mut part, mut taken) = (Vec::<Vec<u8>>::new(), Vec::new(), 0);
            while let Some(chunk) = stream.next().await {
                let chunk = chunk.map_err(failed)?;
                for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
                    part.extend_from_slice(piece);
                    if !part.ends_with(b"\n") {
                        continue;
                    }
                    let line = std::mem::take(&mut part);
                    // Once one did not fit, none after it is taken: their order counts.
                    taken += line.len();
                    if lines.is_empty() || taken <= bytes {
                        lines.push(line);
                    }
                }
            }
            Ok(lines)
        })
        .await
    }

    /// Feeds a `COPY … FROM STDIN`, and says how many rows the server took.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn copy_in(&self, sql: &str, content: Vec<u8>) -> Result<u64, PostgresError> {
        limited(async {
            let failed = |error| PostgresError::from_driver(&error);
            let mut sink = pin!(self.0.client.copy_in::<_, Cursor<Vec<u8>>>(sql).await.map_err(failed)?);
            sink.send(Cursor::new(content)).await.map_err(failed)?;
            sink.finish().await.map_err(failed)
        })
        .await
    }
}

async fn limited<T>(work: impl Future<Output = Result<T, PostgresError>>) -> Result<T, PostgresError> {
    tokio::time::timeout(LIMIT, work).await.unwrap_or(Err(PostgresError { fault: Fault::Timeout, code: None }))
}
