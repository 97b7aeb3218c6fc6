//! Brings back what was archived: into the database, or into a folder as `mongodump` writes it.
//!
//! Owns what is brought back and in which order. Every record is compared with its sha256 before it goes anywhere; one
//! that is there and differs is never written over unless that was asked for.

mod dump;
mod mongodb;
mod postgres;

use std::path::PathBuf;

use crate::retention::archive::{ArchiveError, Entry, Finding, Form, Run, RunName, SegmentReceipt, Severity, Target};
use crate::store::mongodb::{Mongo, StoreError};
use crate::store::postgres::{Postgres, PostgresError};

use dump::Dump;
use mongodb::Documents;
use postgres::Rows;

/// What is to be brought back.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only this policy.
    pub policy: Option<String>,
    /// Only this run.
    pub run: Option<String>,
    /// Only these records; all where there are none.
    pub ids: Vec<String>,
    /// A record that is there and differs is replaced.
    pub overwrite: bool,
    /// Nothing is written.
    pub dry_run: bool,
}

/// Where records go.
#[derive(Debug)]
pub enum Sink {
    /// Back into the database.
    Stores {
        /// The MongoDB, for collections.
        mongo: Option<Box<Mongo>>,
        /// The Postgres, for tables.
        postgres: Option<Box<Postgres>>,
        /// The database of collections.
        database: String,
        /// It was chosen for this, and need not be the one that the records are of.
        is_chosen: bool,
    },
    /// Into a folder.
    Dump(PathBuf),
}

/// What was done, or would be.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Runs that were read.
    pub runs: u64,
    /// Brought back, and read again as they were.
    pub restored: u64,
    /// There already, as they were.
    pub identical: u64,
    /// There already and other: left alone.
    pub different: Vec<Different>,
    /// How many there are of those; only the first are named.
    pub differing: u64,
    /// There already and other: replaced.
    pub overwritten: u64,
    /// What cannot be brought back.
    pub damage: Vec<Finding>,
}

/// A record that is there and is not what was archived.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Different {
    /// The collection or table.
    pub unit: String,
    /// The record.
    pub id: String,
}

/// So many differing records are named.
const NAMED: usize = 20;

/// Something could not be brought back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The archive cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// There is no such run.
    #[error("there is no archive of {what} in {target}; see what there is with `bellwether retention verify`")]
    Nothing {
        /// What was asked for.
        what: String,
        /// Where.
        target: String,
    },
    /// The archive is of another database.
    #[error("{unit} is of the database {theirs}, and `stores` names {ours}; say --database {ours} to bring it back there")]
    OtherDatabase {
        /// The collection.
        unit: String,
        /// Of the archive.
        theirs: String,
        /// Of the configuration.
        ours: String,
    },
    /// There is no store for it.
    #[error("{unit} is a {kind}, and there is no `stores.{store}` to bring it back to")]
    NoStore {
        /// The collection or table.
        unit: String,
        /// Which of both.
        kind: &'static str,
        /// The key of the configuration.
        store: &'static str,
    },
    /// The database failed.
    #[error("cannot bring {unit} back: {step} failed")]
    Store {
        /// The collection or table.
        unit: String,
        /// What was done.
        step: &'static str,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// Postgres failed.
    #[error("cannot bring {unit} back: {step} failed")]
    Table {
        /// The table.
        unit: String,
        /// What was done.
        step: &'static str,
        /// Why not.
        #[source]
        source: PostgresError,
    },
    /// What was written is not what is read again.
    #[error("the record {id} of {unit} was written and is not the same when it is read again; nothing more is brought back")]
    NotTheSame {
        /// The collection or table.
        unit: String,
        /// The record.
        id: String,
    },
    /// The folder cannot be written to.
    #[error("cannot write {}", path.display())]
    Dump {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// Records of one segment that are as they were.
struct Batch {
    unit: String,
    form: Form,
    records: Vec<(Entry, Vec<u8>)>,
}

/// What becomes of a batch.
#[derive(Clone, Copy, Debug)]
struct Manner {
    overwrite: bool,
    dry_run: bool,
}

/// Brings records back. `each` is told how many records of each segment are done.
///
/// The last state of a record comes first, so that an earlier one finds it there and is left alone; where records are
/// written over, it comes last, and wins.
///
/// # Errors
/// When the archive or the database fails. Damage of the archive is told in the tally: what is whole is brought back.
pub async fn restore(target: &Target, wanted: &Wanted, sink: Sink, mut each: impl FnMut(u64)) -> Result<Tally, RestoreError> {
    let mut runs = RunName::list(target, wanted.policy.as_deref()).await?;
    runs.retain(|run| wanted.run.as_ref().is_none_or(|name| run.is(name)));
    if runs.is_empty() {
        let what = wanted.run.as_ref().or(wanted.policy.as_ref()).map_or_else(|| "anything".to_owned(), |name| format!("`{name}`"));
        return Err(RestoreError::Nothing { what, target: target.to_string() });
    }
    let last_first = !wanted.overwrite || matches!(sink, Sink::Dump(_));
    if last_first {
        runs.reverse();
    }
    let mut sink = Opened::of(sink, wanted.dry_run);
    let manner = Manner { overwrite: wanted.overwrite, dry_run: wanted.dry_run };
    let mut tally = Tally::default();
    for name in runs {
        let run = Run::open(target, &name).await?;
        sink.enter(&run);
        tally.runs += 1;
        let mut segments = run.segments().await?;
        if last_first {
            segments.reverse();
        }
        for segment in segments.into_iter().filter(|segment| segment.has_receipt) {
            let damaged = |message: String| Finding { severity: Severity::Damage, place: run.place_of(&segment), message };
            let (receipt, records, damage) = match run.records(&segment).await {
                Ok(read) => read,
                Err(ArchiveError::Storage(error)) => return Err(ArchiveError::from(error).into()),
                Err(error) => {
                    tally.damage.push(damaged(error.to_string()));
                    continue;
                }
            };
            tally.damage.extend(damage.map(|damage| damaged(damage.to_string())));
            let count = records.len() as u64;
            let batch = select(receipt, records, &wanted.ids);
            if !batch.records.is_empty() {
                sink.take(run.database(), batch, manner, &mut tally).await?;
            }
            each(count);
        }
    }
    sink.finish()?;
    Ok(tally)
}

fn select(receipt: SegmentReceipt, records: Vec<Vec<u8>>, ids: &[String]) -> Batch {
    let is_wanted = |entry: &Entry| ids.is_empty() || ids.iter().any(|id| is_named(&entry.id, id));
    let records = receipt.records.into_iter().zip(records).filter(|(entry, _)| is_wanted(entry)).collect();
    Batch { unit: receipt.unit, form: receipt.form, records }
}

/// Whether a record is meant by what a person typed: its id as it is archived, or the hexadecimal digits or the text
/// within it.
fn is_named(id: &str, typed: &str) -> bool {
    id == typed
        || serde_json::from_str(id).is_ok_and(|value: serde_json::Value| match &value {
            serde_json::Value::String(text) => text == typed,
            serde_json::Value::Object(wrapped) => wrapped.len() == 1 && wrapped.values().all(|inner| inner.as_str() == Some(typed)),
            serde_json::Value::Number(number) => number.to_string() == typed,
            _ => false,
        })
}

/// A sink that is written to.
enum Opened {
    Stores { documents: Option<Box<Documents>>, rows: Option<Box<Rows>>, database: String, is_chosen: bool },
    Dump(Dump),
}

// === impl Opened ===

impl Opened {
    fn of(sink: Sink, dry_run: bool) -> Self {
        match sink {
            Sink::Stores { mongo, postgres, database, is_chosen } => Self::Stores {
                documents: mongo.map(|mongo| Box::new(Documents::new(*mongo, &database))),
                rows: postgres.map(|postgres| Box::new(Rows::new(*postgres))),
                database,
                is_chosen,
            },
            Sink::Dump(folder) => Self::Dump(Dump::new(folder, dry_run)),
        }
    }

    fn enter(&mut self, run: &Run) {
        if let Self::Dump(dump) = self {
            dump.enter(run.database());
        }
    }

    async fn take(&mut self, of: &str, batch: Batch, manner: Manner, tally: &mut Tally) -> Result<(), RestoreError> {
        match self {
            Self::Dump(dump) => dump.take(&batch, tally),
            Self::Stores { documents: Some(documents), database, is_chosen, .. } if batch.form == Form::Bson => {
                if !*is_chosen && of != database {
                    return Err(RestoreError::OtherDatabase { unit: batch.unit, theirs: of.to_owned(), ours: database.clone() });
                }
                documents.take(batch, manner, tally).await
            }
            Self::Stores { rows: Some(rows), .. } if batch.form != Form::Bson => rows.take(batch, manner, tally).await,
            Self::Stores { .. } => {
                let (kind, store) = if batch.form == Form::Bson { ("collection", "mongodb") } else { ("table", "postgres") };
                Err(RestoreError::NoStore { unit: batch.unit, kind, store })
            }
        }
    }

    fn finish(self) -> Result<(), RestoreError> {
        match self {
            Self::Dump(dump) => dump.finish(),
            Self::Stores { .. } => Ok(()),
        }
    }
}

// === impl Tally ===

impl Tally {
    fn differs(&mut self, unit: &str, id: &str) {
        self.differing += 1;
        if self.different.len() < NAMED {
            self.different.push(Different { unit: unit.to_owned(), id: id.to_owned() });
        }
    }

    /// Adds what was done elsewhere.
    pub fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.restored += other.restored;
        self.identical += other.identical;
        self.differing += other.differing;
        self.overwritten += other.overwritten;
        self.different.extend(other.different);
        self.damage.extend(other.damage);
    }

    /// Whether everything that was wanted is in its place now.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.differing == 0 && self.damage.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::is_named;

    #[test]
    fn a_record_is_named_by_what_people_copy() {
        let hex = "65a1b2c3d4e5f60718293a4b";
        assert!(is_named(hex, hex));
        assert!(is_named(&format!(r#"{{"$oid":"{hex}"}}"#), hex));
        assert!(is_named(r#""text""#, "text"));
        assert!(is_named("7", "7"));
        assert!(!is_named("77", "7"));
    }
}
