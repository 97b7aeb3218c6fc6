//! `stores`: the databases of the application.
//!
//! Owns the check of a MongoDB URI, and what the Rust driver would refuse in one that the application accepts. Postgres
//! and Redis have files of their own.

mod postgres;
mod redis;

use mongodb::options::ConnectionString;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::{Problem, Problems};
use crate::config::spanned::Spanned;
pub use crate::config::stores::postgres::PostgresStore;
use crate::config::stores::postgres::RawPostgres;
use crate::config::stores::redis::RawRedis;
pub use crate::config::stores::redis::RedisStore;
use crate::secret::Secret;

/// Options that drivers of other languages take and the Rust driver refuses. The sidecar sets limits of its own, so
/// leaving them out changes nothing.
const REFUSED_OPTIONS: [&str; 2] = ["sockettimeoutms", "timeoutms"];

/// The section as it is written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Stores")]
pub(super) struct RawStores {
    mongodb: Option<RawMongo>,
    postgres: Option<RawPostgres>,
    redis: Option<RawRedis>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "MongoDB")]
struct RawMongo {
    /// The connection string, such as `mongodb://host:27017`.
    uri: Spanned<String>,
    /// The application's database.
    database: Spanned<String>,
}

/// The databases of the application.
#[derive(Clone, Debug, Default)]
pub struct Stores {
    /// MongoDB, where there is one.
    pub mongodb: Option<MongoStore>,
    /// Postgres, where there is one.
    pub postgres: Option<PostgresStore>,
    /// Redis, where there is one.
    pub redis: Option<RedisStore>,
    /// There were problems so far: a store may be missing because of them, which is not a second problem.
    pub(super) suspect: bool,
}

/// A MongoDB that can be reached in principle: the URI has been parsed.
#[derive(Clone, Debug)]
pub struct MongoStore {
    /// The connection string, without what the driver refuses.
    pub uri: Secret,
    /// The application's database.
    pub database: String,
}

// === impl RawStores ===

impl RawStores {
    pub(super) fn validate(self, problems: &mut Problems) -> Stores {
        let mongodb = self.mongodb.and_then(|mongo| mongo.validate(problems));
        let postgres = self.postgres.and_then(|postgres| postgres.validate(problems));
        let redis = self.redis.and_then(|redis| redis.validate(problems));
        Stores { mongodb, postgres, redis, suspect: problems.has_errors() }
    }
}

// === impl RawMongo ===

impl RawMongo {
    fn validate(self, problems: &mut Problems) -> Option<MongoStore> {
        let problem = |message: String| Problem { place: self.uri.place.clone(), path: "stores.mongodb.uri".to_owned(), message };
        let (uri, removed) = without_refused_options(&self.uri.value);
        for option in removed {
            problems.warn(problem(format!(
                "the option {option} is left out: the Rust driver refuses it, and the sidecar has limits of its own"
            )));
        }
        if let Err(error) = ConnectionString::parse(&uri) {
            // The error's own text may quote the URI, with the password in it.
            problems.error(problem(format!(
                "this is not a MongoDB connection string ({}); write mongodb://host:27017 or mongodb+srv://host, with special characters of the password percent-encoded",
                reason(&error)
            )));
            return None;
        }
        if self.database.value.is_empty() || self.database.value.contains(['/', '\\', '.', ' ', '"', '$', '\0']) {
            problems.error(Problem {
                place: self.database.place,
                path: "stores.mongodb.database".to_owned(),
                message: "a database's name has none of / \\ . \" $ or space in it".to_owned(),
            });
            return None;
        }
        Some(MongoStore { uri: Secret::new(uri), database: self.database.value })
    }
}

/// Takes the options away that the driver refuses; returns the rest and their names.
fn without_refused_options(uri: &str) -> (String, Vec<String>) {
    let Some((head, query)) = uri.split_once('?') else { return (uri.to_owned(), Vec::new()) };
    let name = |option: &str| option.split('=').next().unwrap_or_default().to_owned();
    let is_refused = |option: &&str| REFUSED_OPTIONS.contains(&name(option).to_ascii_lowercase().as_str());
    let (refused, kept): (Vec<&str>, Vec<&str>) = query.split('&').partition(is_refused);
    let uri = if kept.is_empty() { head.to_owned() } else { format!("{head}?{}", kept.join("&")) };
    (uri, refused.into_iter().map(name).collect())
}

/// What kind of mistake it is, in words that hold nothing of the URI.
fn reason(error: &mongodb::error::Error) -> &'static str {
    let text = error.to_string();
    if text.contains("scheme") {
        "it begins neither with mongodb:// nor with mongodb+srv://"
    } else if text.contains("port") {
        "the port is not a number"
    } else if text.contains("option") || text.contains("value") {
        "one of its options is unknown or has a wrong value"
    } else if text.contains("percent") || text.contains("url encoded") || text.contains("username") || text.contains("password") {
        "its user name or password is not percent-encoded"
    } else {
        "host, port or options are malformed"
    }
}

#[cfg(test)]
mod tests {
    use super::without_refused_options;

    #[test]
    fn options_that_the_driver_refuses_are_left_out() {
        for (uri, kept, removed) in [
            ("mongodb://h", "mongodb://h", vec![]),
            ("mongodb://h/?socketTimeoutMS=5", "mongodb://h/", vec!["socketTimeoutMS"]),
            (
                "mongodb://h/db?timeoutMS=5&replicaSet=rs&SOCKETTIMEOUTMS=1",
                "mongodb://h/db?replicaSet=rs",
                vec!["timeoutMS", "SOCKETTIMEOUTMS"],
            ),
        ] {
            let (found, names) = without_refused_options(uri);
            assert_eq!((found.as_str(), names), (kept, removed.into_iter().map(str::to_owned).collect()));
        }
    }
}
