//! `SELECT 1` on a connection that is kept, and a query whose first value must be one of some.

use crate::config::health::{PostgresProbe, Query, bounded};
use crate::health::outcome::Reason;
use crate::health::probe::{Answer, Failed, Found};
use crate::store::postgres::{First, Postgres, PostgresError};
use crate::store::tls::Expiry;

/// Asks one server.
#[derive(Debug)]
pub struct Prober {
    postgres: Postgres,
    query: Option<Query>,
}

// === impl Prober ===

impl Prober {
    pub fn new(probe: &PostgresProbe) -> Self {
        Self { postgres: Postgres::new(&probe.store, probe.limit), query: probe.query.clone() }
    }

    pub fn expiry(&self) -> &Expiry {
        self.postgres.expiry()
    }

    pub async fn ask(&self) -> Answer {
        match &self.query {
            None => self.postgres.ping().await.map(|()| Found::default()).map_err(failed),
            Some(query) => judge(self.postgres.read(&query.sql).await.map_err(failed)?, &query.expect),
        }
    }
}

fn failed(error: PostgresError) -> Failed {
    Failed::saying(Reason::from(error.fault), error.to_string())
}

fn judge(first: First, expect: &[String]) -> Answer {
    let value = match first {
        First::NoRow => return Err(Failed::saying(Reason::Missing, "the query returns no row")),
        First::Null => return if expect.is_empty() { Ok(Found::default()) } else { Err(wrong("null")) },
        First::Value(value) => value,
    };
    // Postgres writes booleans with one letter.
    let is_equal = |expected: &String| *expected == value || matches!((expected.as_str(), value.as_str()), ("true", "t") | ("false", "f"));
    if expect.is_empty() || expect.iter().any(is_equal) { Ok(Found::default()) } else { Err(wrong(&bounded(&value))) }
}

fn wrong(value: &str) -> Failed {
    Failed::saying(Reason::BadBody, format!("the query returns {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(first: First, expect: &[&str], expected: Result<(), Reason>) {
        let expect: Vec<String> = expect.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(judge(first, &expect).map(drop).map_err(|failed| failed.reason), expected);
    }

    #[test]
    fn the_first_value_is_held_to_what_is_expected() {
        let value = |text: &str| First::Value(text.to_owned());
        check(value("1"), &[], Ok(()));
        check(value("1"), &["1"], Ok(()));
        check(value("2"), &["1", "2"], Ok(()));
        check(value("3"), &["1", "2"], Err(Reason::BadBody));
        check(value("t"), &["true"], Ok(()));
        check(value("f"), &["true"], Err(Reason::BadBody));
        check(First::Null, &[], Ok(()));
        check(First::Null, &["1"], Err(Reason::BadBody));
        check(First::NoRow, &[], Err(Reason::Missing));
    }
}
