//! What is asked of Postgres, in words. Pure.
//!
//! Names and values are quoted here and nowhere else. COPY takes no parameters, so that values become literals.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::config::retention::{Reference, TableName, TablePolicy};

/// Dates before this were never set: 2000-01-01.
pub(super) const FLOOR: &str = "2000-01-01 00:00:00+00";
/// How far the local time of a database may be from UTC, in hours: months begin at different times.
const WEST: i64 = 12;
const EAST: i64 = 14;

/// What the catalogue says of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shape {
    /// The table with its schema, quoted.
    pub table: String,
    /// The columns that COPY can write and read again, in order.
    pub columns: Vec<String>,
    /// The primary key: column and type.
    pub key: Vec<(String, String)>,
    /// The type of the date column.
    pub date_type: String,
}

/// A name in double quotes.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A value in single quotes; backslashes mean themselves whatever the server's settings.
pub(super) fn literal(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('\'', "''");
    if value.contains('\\') { format!("E'{escaped}'") } else { format!("'{escaped}'") }
}

/// A table as SQL names it.
pub(super) fn table(name: &TableName) -> String {
    match &name.schema {
        Some(schema) => format!("{}.{}", quoted(schema), quoted(&name.table)),
        None => quoted(&name.table),
    }
}

/// What is older goes. Never within the current month where budgets are computed from it, whichever zone the
/// application counts its months in; and never later than what was `decided` on, in milliseconds since 1970.
pub(super) fn cutoff(policy: &TablePolicy, now: Timestamp, decided: Option<i64>) -> Timestamp {
    let cutoff = cutoff_at(policy, now);
    let decided = decided.and_then(|decided| Timestamp::from_millisecond(decided).ok());
    let cutoff = decided.map_or(cutoff, |decided| decided.min(cutoff));
    // As the plan's name can say it.
    Timestamp::from_millisecond(cutoff.as_millisecond()).unwrap_or(cutoff)
}

fn cutoff_at(policy: &TablePolicy, now: Timestamp) -> Timestamp {
    let hours = |hours: i64| jiff::SignedDuration::from_hours(hours);
    let keep = jiff::SignedDuration::try_from(policy.keep).unwrap_or(jiff::SignedDuration::MAX);
    let by_age = now.checked_sub(keep).unwrap_or(Timestamp::MIN);
    if !policy.keep_current_month {
        return by_age;
    }
    let furthest_west = now.checked_sub(hours(WEST)).unwrap_or(Timestamp::MIN).to_zoned(TimeZone::UTC).date();
    let month: Date = furthest_west.first_of_month();
    let begin = month.to_zoned(TimeZone::UTC).map_or(Timestamp::MIN, |begin| begin.timestamp());
    by_age.min(begin.checked_sub(hours(EAST)).unwrap_or(Timestamp::MIN))
}

// === impl Shape ===

impl Shape {
    /// Rows older than the cutoff whose date was set. Comparisons keep null and both infinities out.
    pub(super) fn is_expired(&self, column: &str, cutoff: Timestamp) -> String {
        let column = format!("t.{}", quoted(column));
        // A date without a time of day is older only when its whole day is.
        let cast = match self.date_type.as_str() {
            "date" => "date",
            "timestamp without time zone" => "timestamp",
            _ => "timestamptz",
        };
        format!("{column} >= '{FLOOR}'::{cast} AND {column} < '{cutoff}'::{cast}")
    }

    /// Rows that nothing refers to.
    pub(super) fn is_unreferenced(&self, references: &[Reference]) -> String {
        let Some((key, _)) = self.key.first() else { return "true".to_owned() };
        let one = |reference: &Reference| {
            format!("NOT EXISTS (SELECT 1 FROM {} r WHERE r.{} = t.{})", table(&reference.table), quoted(&reference.column), quoted(key))
        };
        if references.is_empty() { "true".to_owned() } else { references.iter().map(one).collect::<Vec<_>>().join(" AND ") }
    }

    /// One batch, in the order of the primary key: the version, the key, and the row as COPY writes it.
    pub(super) fn batch(&self, condition: &str, after: Option<&[String]>, rows: u32) -> String {
        let keys = self.key_columns("t.");
        let after = after.map_or_else(String::new, |after| format!(" AND ({keys}) > ({})", self.key_literals(after)));
        let key_texts: Vec<String> = self.key.iter().map(|(name, _)| format!("t.{}::text", quoted(name))).collect();
        let columns: Vec<String> = self.columns.iter().map(|name| format!("t.{}", quoted(name))).collect();
        format!(
            "COPY (SELECT t.xmin::text, {}, {} FROM {} t WHERE {condition}{after} ORDER BY {keys} LIMIT {rows}) TO STDOUT",
            key_texts.join(", "),
            columns.join(", "),
            self.table
        )
    }

    /// Locks the rows of a batch, so that nothing can come to refer to them.
    pub(super) fn lock(&self, rows: &[Version]) -> String {
        format!("SELECT count(*) FROM (SELECT 1 FROM {} t, {} WHERE {} FOR UPDATE OF t) l", self.table, self.values(rows), self.same_row())
    }

    /// Deletes exactly these versions, where they still are what the policy is about.
    pub(super) fn delete(&self, rows: &[Version], condition: &str) -> String {
        format!(
            "WITH gone AS (DELETE FROM {} t USING {} WHERE {} AND {condition} RETURNING 1) SELECT count(*) FROM gone",
            self.table,
            self.values(rows),
            self.same_row()
        )
    }

    fn same_row(&self) -> String {
        let keys: Vec<String> = (0..).zip(&self.key).map(|(at, (name, _))| format!("t.{} = v.k{at}", quoted(name))).collect();
        format!("{} AND t.xmin::text = v.x", keys.join(" AND "))
    }

    fn values(&self, rows: &[Version]) -> String {
        let row = |row: &Version| format!("({}, {})", literal(&row.xmin), self.key_literals(&row.key));
        let names: Vec<String> = (0..self.key.len()).map(|at| format!("k{at}")).collect();
        format!("(VALUES {}) v(x, {})", rows.iter().map(row).collect::<Vec<_>>().join(", "), names.join(", "))
    }

    fn key_columns(&self, prefix: &str) -> String {
        self.key.iter().map(|(name, _)| format!("{prefix}{}", quoted(name))).collect::<Vec<_>>().join(", ")
    }

    fn key_literals(&self, values: &[String]) -> String {
        values.iter().zip(&self.key).map(|(value, (_, kind))| format!("{}::{kind}", literal(value))).collect::<Vec<_>>().join(", ")
    }
}

/// A row as it was when it was archived.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Version {
    /// The transaction that wrote it.
    pub xmin: String,
    /// Its primary key.
    pub key: Vec<String>,
}

/// One line of a batch: the version, and the row without what stands before it.
pub(super) fn take_apart(line: &[u8], key_columns: usize) -> Option<(Version, &[u8])> {
    let mut rest = line;
    let mut take = || {
        let tab = memchr::memchr(b'\t', rest)?;
        let (value, after) = (&rest[..tab], &rest[tab + 1..]);
        rest = after;
        unescape(value)
    };
    let xmin = take()?;
    let key = (0..key_columns).map(|_| take()).collect::<Option<Vec<_>>>()?;
    Some((Version { xmin, key }, rest))
}

/// A value of COPY's text format; `None` for null, or where it is no text.
fn unescape(value: &[u8]) -> Option<String> {
    if value == b"\\N" {
        return None;
    }
    let mut plain = Vec::with_capacity(value.len());
    let mut bytes = value.iter();
    while let Some(&byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => match bytes.next()? {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                other => *other,
            },
            byte => byte,
        });
    }
    String::from_utf8(plain).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn policy(days: u64, keep_current_month: bool) -> TablePolicy {
        TablePolicy {
            name: "query_logs".to_owned(),
            mode: crate::config::retention::Mode::Enforce,
            table: TableName { schema: None, table: "query_logs".to_owned() },
            column: "created_at".to_owned(),
            keep: Duration::from_secs(days * 86_400),
            keep_current_month,
            unless_referenced: Vec::new(),
            archive: None,
            max_fraction: 0.2,
            max_rows: 1,
        }
    }

    #[track_caller]
    fn check(days: u64, month: bool, now: &str, expected: &str) {
        assert_eq!(cutoff(&policy(days, month), now.parse().unwrap(), None).to_string(), expected);
    }

    #[test]
    fn the_current_month_is_never_cut_into_whichever_zone_it_is_of() {
        check(90, true, "2026-11-21T03:17:00Z", "2026-08-23T03:17:00Z");
        check(1, true, "2026-11-21T03:17:00Z", "2026-10-31T10:00:00Z");
        check(1, false, "2026-11-21T03:17:00Z", "2026-11-20T03:17:00Z");
        // It is the first of November in UTC, and still October twelve hours further west.
        check(1, true, "2026-11-01T11:59:59Z", "2026-09-30T10:00:00Z");
        check(1, true, "2026-11-01T12:00:00Z", "2026-10-31T10:00:00Z");
        check(40, true, "2027-03-31T23:00:00Z", "2027-02-19T23:00:00Z");
    }

    #[test]
    fn names_and_values_are_quoted() {
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("\\'; DROP"), "E'\\\\''; DROP'");
    }

    #[test]
    fn a_line_is_a_version_and_a_row() {
        let (version, row) = take_apart(b"742\ta\\tb\\\\c\t7\tx\\ny\t\\N\n", 2).unwrap();
        assert_eq!(version, Version { xmin: "742".to_owned(), key: vec!["a\tb\\c".to_owned(), "7".to_owned()] });
        assert_eq!(row, b"7\tx\\ny\t\\N\n".split_at(2).1, "the row keeps its own escapes");
        assert!(take_apart(b"742\n", 1).is_none());
    }
}
