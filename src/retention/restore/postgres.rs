//! Rows back into their tables. What was inserted is compared with what was archived before it is committed.

use crate::retention::archive::Form;
use crate::retention::restore::{Batch, Manner, RestoreError, Tally};
use crate::retention::table::quoted;
use crate::store::postgres::{Postgres, PostgresError, PostgresSession};

/// Holds the rows of one batch in the server, for the transaction.
const ARCHIVED: &str = "pg_temp.bellwether_archived";

/// Tables of one database.
pub(super) struct Rows {
    postgres: Postgres,
    session: Option<PostgresSession>,
}

/// The statements for one table.
struct Statements {
    table: String,
    columns: String,
    key_text: String,
    same_key: String,
    same_row: String,
    set: String,
}

// === impl Rows ===

impl Rows {
    pub(super) fn new(postgres: Postgres) -> Self {
        Self { postgres, session: None }
    }

    pub(super) async fn take(&mut self, batch: Batch, manner: Manner, tally: &mut Tally) -> Result<(), RestoreError> {
        let unit = batch.unit.clone();
        let failed = |step| {
            let unit = unit.clone();
            move |source| RestoreError::Table { unit, step, source }
        };
        let session = match self.session.take() {
            Some(session) => session,
            None => self.postgres.session().await.map_err(failed("connecting"))?,
        };
        session.run("BEGIN; SET LOCAL TimeZone = 'UTC'; SET LOCAL statement_timeout = '120s'").await.map_err(failed("beginning"))?;
        let mut done = Tally::default();
        let taken = within(&session, &batch, manner, &mut done).await;
        let end = if taken.is_ok() && !manner.dry_run { "COMMIT" } else { "ROLLBACK" };
        let ended = session.run(end).await.map_err(failed("ending"));
        taken?;
        ended?;
        tally.add(done);
        self.session = Some(session);
        Ok(())
    }
}

async fn within(session: &PostgresSession, batch: &Batch, manner: Manner, tally: &mut Tally) -> Result<(), RestoreError> {
    let unit = batch.unit.as_str();
    let failed = |step| move |source| RestoreError::Table { unit: unit.to_owned(), step, source };
    let Form::Copy { table, columns } = &batch.form else { return Ok(()) };
    let statements = statements(session, table, columns).await.map_err(failed("reading the primary key"))?;
    let Statements { table, columns, same_key, same_row, set, key_text } = &statements;
    session
        .run(&format!("DROP TABLE IF EXISTS {ARCHIVED}; CREATE TEMP TABLE bellwether_archived (LIKE {table}, at bigint)"))
        .await
        .map_err(failed("making room for the rows"))?;
    let content: Vec<u8> = batch.records.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
    let copied = session.copy_in(&format!("COPY {ARCHIVED} ({columns}) FROM STDIN"), content).await.map_err(failed("copying rows"))?;
    if copied != batch.records.len() as u64 {
        return Err(RestoreError::NotTheSame { unit: unit.to_owned(), id: "of a whole segment".to_owned() });
    }
    let count = |condition: String| async move {
        let rows = session.rows(&format!("SELECT count(*) FROM {ARCHIVED} a JOIN {table} t ON {condition}")).await?;
        Ok::<u64, PostgresError>(rows.first().and_then(|row| row.first()?.as_ref()?.parse().ok()).unwrap_or_default())
    };
    let present = count(same_key.clone()).await.map_err(failed("looking for what is there"))?;
    let identical = count(format!("{same_key} AND {same_row}")).await.map_err(failed("comparing rows"))?;
    let differing = present.saturating_sub(identical);
    tally.identical += identical;
    if manner.overwrite {
        tally.overwritten += differing;
        session
            .run(&format!("UPDATE {table} t SET {set} FROM {ARCHIVED} a WHERE {same_key} AND NOT ({same_row})"))
            .await
            .map_err(failed("replacing rows"))?;
    } else if differing > 0 {
        let keys = session
            .rows(&format!("SELECT {} FROM {ARCHIVED} a JOIN {table} t ON {same_key} WHERE NOT ({same_row})", key_text))
            .await
            .map_err(failed("comparing rows"))?;
        keys.iter().for_each(|row| tally.differs(unit, row.first().and_then(Option::as_deref).unwrap_or_default()));
    }
    // The identity of a row is part of it, also where the server would make up another one.
    session
        .run(&format!(
            "INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {ARCHIVED} a \
             WHERE NOT EXISTS (SELECT 1 FROM {table} t WHERE {same_key}) ON CONFLICT DO NOTHING"
        ))
        .await
        .map_err(failed("inserting rows"))?;
    let whole = count(format!("{same_key} AND {same_row}")).await.map_err(failed("comparing rows"))?;
    let expected = batch.records.len() as u64 - if manner.overwrite { 0 } else { differing };
    if whole != expected {
        return Err(RestoreError::NotTheSame { unit: unit.to_owned(), id: format!("({} of {expected})", expected - whole.min(expected)) });
    }
    tally.restored += batch.records.len() as u64 - present;
    session.run(&format!("DROP TABLE {ARCHIVED}")).await.map_err(failed("making room again"))
}

async fn statements(session: &PostgresSession, table: &str, columns: &[String]) -> Result<Statements, PostgresError> {
    let oid = format!("'{}'::regclass", table.replace('\'', "''"));
    let key = session
        .rows(&format!(
            "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) \
             WHERE i.indrelid = {oid} AND i.indisprimary ORDER BY array_position(i.indkey, a.attnum)"
        ))
        .await?;
    let key: Vec<String> = key.into_iter().filter_map(|row| row.into_iter().next().flatten()).map(|name| quoted(&name)).collect();
    let columns: Vec<String> = columns.iter().map(|name| quoted(name)).collect();
    let others: Vec<String> = columns.iter().filter(|column| !key.contains(column)).cloned().collect();
    let each =
        |form: &dyn Fn(&String) -> String, columns: &[String], between: &str| columns.iter().map(form).collect::<Vec<_>>().join(between);
    Ok(Statements {
        table: table.to_owned(),
        key_text: if key.is_empty() { "''".to_owned() } else { each(&|name| format!("a.{name}::text"), &key, " || ',' || ") },
        same_key: if key.is_empty() { "false".to_owned() } else { each(&|name| format!("a.{name} = t.{name}"), &key, " AND ") },
        // As texts: not every type knows when two are the same.
        same_row: each(&|name| format!("a.{name}::text IS NOT DISTINCT FROM t.{name}::text"), &columns, " AND "),
        set: each(&|name| format!("{name} = a.{name}"), &others, ", "),
        columns: columns.join(", "),
    })
}
