//! What a plan needs to know of a table, read in one transaction that could not write.

use jiff::Timestamp;

use crate::config::retention::TablePolicy;
use crate::retention::table::TableError;
use crate::retention::table::plan::TableKept;
use crate::retention::table::sql::{self, FLOOR, Shape, literal, quoted};
use crate::store::postgres::{PostgresError, PostgresSession};

/// Counting reads the whole table where there is no index on the date.
const LIMIT_MS: u32 = 120_000;

/// What there is in a table, as a policy divides it.
#[derive(Clone, Debug, PartialEq)]
pub struct TableFacts {
    pub(super) shape: Shape,
    /// The database's clock.
    pub now: Timestamp,
    /// What is older goes.
    pub cutoff: Timestamp,
    /// All rows.
    pub total: u64,
    /// Older than the cutoff, with a date that was set.
    pub expired: u64,
    /// The oldest of these.
    pub oldest: Option<Timestamp>,
    /// What is kept.
    pub kept: TableKept,
    /// Tables whose rows the server would delete or change together with these, and that the policy does not name.
    pub uncovered: Vec<String>,
}

/// Reads the facts of a policy's table. Writes nothing: the transaction could not.
/// `decided` is a cutoff that somebody has decided on, in milliseconds since 1970.
pub(super) async fn read(policy: &TablePolicy, session: &PostgresSession, decided: Option<i64>) -> Result<TableFacts, TableError> {
    let failed = |step| TableError::store(&policy.name, step);
    let begin =
        format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL TimeZone = 'UTC'; SET LOCAL statement_timeout = {LIMIT_MS}");
    session.run(&begin).await.map_err(failed("beginning to read"))?;
    let read = within(policy, session, decided).await;
    let ended = session.run("ROLLBACK").await.map_err(failed("ending the reading"));
    let facts = read?;
    ended?;
    Ok(facts)
}

async fn within(policy: &TablePolicy, session: &PostgresSession, decided: Option<i64>) -> Result<TableFacts, TableError> {
    let failed = |step| TableError::store(&policy.name, step);
    let shape = shape(policy, session).await?;
    let now =
        ask(session, "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint").await.map_err(failed("asking for its clock"))?;
    let now = now.and_then(|millis| Timestamp::from_millisecond(millis.parse().ok()?).ok());
    let now = now.ok_or_else(|| mismatch(policy, "the database's clock is at no time that there is".to_owned()))?;
    let cutoff = sql::cutoff(policy, now, decided);
    let (table, column) = (&shape.table, format!("t.{}", quoted(&policy.column)));
    let expired = shape.is_expired(&policy.column, cutoff);
    let referenced = format!("NOT ({})", shape.is_unreferenced(&policy.unless_referenced));
    let counts = format!(
        "SELECT count(*), count(*) FILTER (WHERE {expired}), count(*) FILTER (WHERE {column} IS NULL), \
         count(*) FILTER (WHERE {column} < '{FLOOR}'), count(*) FILTER (WHERE {column} > now()), \
         (extract(epoch FROM min({column}) FILTER (WHERE {expired})) * 1000)::bigint FROM {table} t"
    );
    let counts = session.rows(&counts).await.map_err(failed("counting rows by their date"))?;
    let number = |at: usize| counts.first().and_then(|row| row.get(at)?.as_ref()?.parse::<u64>().ok()).unwrap_or_default();
    let (total, expired_rows) = (number(0), number(1));
    let oldest = counts.first().and_then(|row| Timestamp::from_millisecond(row.get(5)?.as_ref()?.parse().ok()?).ok());
    let referenced = match policy.unless_referenced.is_empty() {
        true => 0,
        false => {
            let asked = format!("SELECT count(*) FROM {table} t WHERE {expired} AND {referenced}");
            let counted = ask(session, &asked).await.map_err(failed("counting rows that others refer to"))?;
            counted.and_then(|text| text.parse().ok()).unwrap_or_default()
        }
    };
    let mut kept = TableKept { young: 0, referenced, null: number(2), before_floor: number(3), future: number(4) };
    kept.young = total.saturating_sub(expired_rows + kept.null + kept.before_floor + kept.future);
    let uncovered = uncovered(policy, &shape, session).await.map_err(failed("looking for what refers to the rows"))?;
    Ok(TableFacts { shape, now, cutoff, total, expired: expired_rows, oldest, kept, uncovered })
}

/// What the catalogue says: the table, its columns, its key.
async fn shape(policy: &TablePolicy, session: &PostgresSession) -> Result<Shape, TableError> {
    let failed = |step| TableError::store(&policy.name, step);
    let name = sql::table(&policy.table);
    let found = session
        .rows(&format!(
            "SELECT format('%I.%I', n.nspname, c.relname), c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.oid = to_regclass({})",
            literal(&name)
        ))
        .await
        .map_err(failed("looking for the table"))?;
    let row = found.first().ok_or_else(|| mismatch(policy, format!("there is no table {name}")))?;
    let (Some(Some(table)), Some(Some(kind))) = (row.first(), row.get(1)) else {
        return Err(mismatch(policy, format!("there is no table {name}")));
    };
    if kind != "r" && kind != "p" {
        return Err(mismatch(policy, format!("{name} is a view or the like, and no table")));
    }
    let oid = format!("{}::regclass", literal(table));
    let columns = session
        .rows(&format!(
            "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute \
             WHERE attrelid = {oid} AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum"
        ))
        .await
        .map_err(failed("reading the columns"))?;
    let key = session
        .rows(&format!(
            "SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_index i CROSS JOIN unnest(i.indkey) WITH ORDINALITY k(attnum, at) \
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum WHERE i.indrelid = {oid} AND i.indisprimary ORDER BY k.at"
        ))
        .await
        .map_err(failed("reading the primary key"))?;
    let pairs = |rows: Vec<Vec<Option<String>>>| -> Vec<(String, String)> {
        rows.into_iter().filter_map(|mut row| Some((row.first_mut()?.take()?, row.get_mut(1)?.take()?))).collect()
    };
    let columns = pairs(columns);
    let Some((_, date_type)) = columns.iter().find(|(name, _)| *name == policy.column) else {
        return Err(mismatch(policy, format!("{name} has no column {}", policy.column)));
    };
    if !matches!(date_type.as_str(), "date" | "timestamp without time zone" | "timestamp with time zone") {
        let problem = format!(
            "the column {} is of the type {date_type}, which is no date: rows would be kept for ever, or deleted at once",
            policy.column
        );
        return Err(mismatch(policy, problem));
    }
    let date_type = date_type.clone();
    Ok(Shape { table: table.clone(), columns: columns.into_iter().map(|(name, _)| name).collect(), key: pairs(key), date_type })
}

/// Foreign keys by which the server deletes or changes other rows together with these.
async fn uncovered(policy: &TablePolicy, shape: &Shape, session: &PostgresSession) -> Result<Vec<String>, PostgresError> {
    let rows = session
        .rows(&format!(
            "SELECT DISTINCT format('%I.%I', n.nspname, c.relname), c.relname, a.attname FROM pg_constraint f \
             JOIN pg_class c ON c.oid = f.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = f.conkey[1] \
             WHERE f.contype = 'f' AND f.confrelid = {}::regclass AND f.confdeltype IN ('c', 'n', 'd')",
            literal(&shape.table)
        ))
        .await?;
    let is_covered = |table: &str, column: &str| {
        policy.unless_referenced.iter().any(|reference| reference.table.table == table && reference.column == column)
    };
    let uncovered = rows.iter().filter_map(|row| match row.as_slice() {
        [Some(qualified), Some(table), Some(column)] if !is_covered(table, column) => Some(qualified.clone()),
        _ => None,
    });
    Ok(uncovered.collect())
}

async fn ask(session: &PostgresSession, sql: &str) -> Result<Option<String>, PostgresError> {
    Ok(session.rows(sql).await?.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
}

fn mismatch(policy: &TablePolicy, problem: String) -> TableError {
    TableError::Mismatch { policy: policy.name.clone(), problem }
}
