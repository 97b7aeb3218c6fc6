//! The collection of secrets in MongoDB: ids, values, and replacements that change only what has not been changed since.
//!
//! Owns the queries. A plaintext never stands in a query: the server writes slow ones into its log.

pub(super) mod project;

use std::fmt;
use std::time::Duration;

use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use zeroize::Zeroizing;

use crate::config::secrets::PlaintextField;
use crate::config::stores::MongoStore;
use crate::services::secrets::SecretsError;
use crate::store::mongodb::{Mongo, Purpose, Reason, StoreError, within};

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(20);

/// How long the members of a replica set may take to confirm a write, in milliseconds: less than [`LIMIT`].
const CONFIRM_MILLIS: i32 = 15_000;

/// The collection of secrets.
#[derive(Debug)]
pub struct Vault {
    mongo: Mongo,
    collection: String,
}

/// What a secret is called. Shown escaped: whoever may set a secret chooses its name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Name {
    /// The namespace of the installation.
    pub namespace: String,
    /// The project.
    pub project: String,
    /// The key within the project.
    pub key: String,
}

/// A secret as it is stored.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) id: Bson,
    pub(super) name: Name,
    /// The stored text; `None` when there is none, or something that is no text.
    pub(super) value: Option<Zeroizing<String>>,
    /// The application takes the value for encrypted.
    pub(super) encrypted: bool,
    /// When the application last wrote it.
    pub(super) updated_at: Bson,
}

/// A new stored form for a secret.
#[derive(Debug)]
pub(super) struct Replacement<'a> {
    pub(super) secret: &'a Stored,
    pub(super) sealed: String,
}

// === impl Vault ===

impl Vault {
    /// The secrets of an application's database.
    #[must_use]
    pub fn new(store: &MongoStore, collection: &str) -> Self {
        Self { mongo: Mongo::new(store, Purpose::Secrets), collection: collection.to_owned() }
    }

    /// The `_id`s of all secrets.
    pub(super) async fn ids(&self) -> Result<Vec<Bson>, SecretsError> {
        let doing = "listing the secrets";
        let collection = self.mongo.database().await.map_err(|source| self.failed(doing, source))?.collection::<Document>(&self.collection);
        within(LIMIT, async move {
            let mut cursor = collection.find(doc! {}).projection(doc! { "_id": 1 }).batch_size(10_000).max_time(LIMIT).await?;
            let mut ids = Vec::new();
            while cursor.advance().await? {
                ids.extend(cursor.deserialize_current()?.remove("_id"));
            }
            Ok(ids)
        })
        .await
        .map_err(|source| self.failed(doing, source))
    }

    /// The secrets of these `_id`s that still are there.
    pub(super) async fn read(&self, ids: &[Bson]) -> Result<Vec<Stored>, SecretsError> {
        let doing = "reading secrets";
        let collection = self.mongo.database().await.map_err(|source| self.failed(doing, source))?.collection::<Document>(&self.collection);
        let filter = doc! { "_id": { "$in": ids } };
        let projection = doc! { "namespace": 1, "project_id": 1, "key": 1, "value": 1, "encrypted": 1, "updated_at": 1 };
        within(LIMIT, async move {
            let mut cursor = collection.find(filter).projection(projection).max_time(LIMIT).await?;
            let mut found = Vec::new();
            while cursor.advance().await? {
                found.push(Stored::of(cursor.deserialize_current()?));
            }
            Ok(found)
        })
        .await
        .map_err(|source| self.failed(doing, source))
    }

    /// Stores new forms, each only where nobody has written the secret since it was read; how many were stored.
    pub(super) async fn replace(&self, replacements: &[Replacement<'_>]) -> Result<u64, SecretsError> {
        if replacements.is_empty() {
            return Ok(0);
        }
        let doing = "storing secrets";
        let updates: Vec<Document> = replacements.iter().map(Replacement::update).collect();
        let command = doc! {
            "update": &self.collection,
            "updates": updates,
            "ordered": false,
            "writeConcern": { "w": "majority", "wtimeout": CONFIRM_MILLIS },
        };
        let database = self.mongo.database().await.map_err(|source| self.failed(doing, source))?;
        let reply = within(LIMIT, async move { database.run_command(command).await }).await.map_err(|source| self.failed(doing, source))?;
        if reply.contains_key("writeErrors") || reply.contains_key("writeConcernError") {
            return Err(self.failed(doing, StoreError::Driver { reason: Reason::Other, code: None }));
        }
        Ok(u64::try_from(number(&reply, "nModified")).unwrap_or_default())
    }

    /// How many documents have a text that is not empty in a field where no key should be. The text is not read.
    pub(super) async fn count_plaintext(&self, field: &PlaintextField) -> Result<u64, SecretsError> {
        let doing = "counting fields with plaintext keys";
        let failed = |source| SecretsError::Store { doing, collection: field.collection.clone(), source };
        let collection = self.mongo.database().await.map_err(failed)?.collection::<RawDocumentBuf>(&field.collection);
        let filter = doc! { &field.field: { "$type": "string", "$ne": "" } };
        within(LIMIT, async move { collection.count_documents(filter).max_time(LIMIT).await }).await.map_err(failed)
    }

    fn failed(&self, doing: &'static str, source: StoreError) -> SecretsError {
        SecretsError::Store { doing, collection: self.collection.clone(), source }
    }
}

/// Servers answer with whatever number type they find fit.
fn number(document: &Document, name: &str) -> i64 {
    match document.get(name) {
        Some(Bson::Int32(number)) => i64::from(*number),
        Some(Bson::Int64(number)) => *number,
        _ => 0,
    }
}

// === impl Stored ===

impl Stored {
    fn of(mut document: Document) -> Self {
        let mut text = |name: &str| match document.remove(name) {
            Some(Bson::String(text)) => Some(text),
            _ => None,
        };
        let name = Name {
            namespace: text("namespace").unwrap_or_default(),
            project: text("project_id").unwrap_or_default(),
            key: text("key").unwrap_or_default(),
        };
        let value = text("value").map(Zeroizing::new);
        Self {
            id: document.remove("_id").unwrap_or(Bson::Null),
            name,
            value,
            encrypted: document.get_bool("encrypted").unwrap_or(false),
            updated_at: document.remove("updated_at").unwrap_or(Bson::Null),
        }
    }
}

// === impl Replacement ===

impl Replacement<'_> {
    /// A ciphertext is compared itself; a plaintext by its flag and by when it was written, so that it stands in no log.
    fn update(&self) -> Document {
        let secret = self.secret;
        let mut query = doc! { "_id": secret.id.clone() };
        match &secret.value {
            Some(value) if secret.encrypted => query.extend(doc! { "encrypted": true, "value": value.as_str() }),
            _ => query.extend(doc! { "encrypted": { "$ne": true }, "updated_at": secret.updated_at.clone() }),
        }
        // `updated_at` stays: the secret itself is the same.
        doc! { "q": query, "u": { "$set": { "value": &self.sealed, "encrypted": true } } }
    }
}

// === impl Name ===

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.namespace.escape_debug(), self.project.escape_debug(), self.key.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(encrypted: bool) -> Stored {
        Stored::of(
            doc! { "_id": 1, "namespace": "decisionbox", "project_id": "p", "key": "llm\u{1b}[31m", "value": "CANARY", "encrypted": encrypted, "updated_at": 5 },
        )
    }

    #[test]
    fn a_plaintext_stands_in_no_query() {
        let secret = stored(false);
        let update = Replacement { secret: &secret, sealed: "sealed".to_owned() }.update();
        assert!(!update.to_string().contains("CANARY"), "{update}");
        assert_eq!(update.get_document("q").expect("a query"), &doc! { "_id": 1, "encrypted": { "$ne": true }, "updated_at": 5 });
    }

    #[test]
    fn a_ciphertext_is_compared_itself() {
        let secret = stored(true);
        let update = Replacement { secret: &secret, sealed: "sealed".to_owned() }.update();
        assert_eq!(update.get_document("q").expect("a query"), &doc! { "_id": 1, "encrypted": true, "value": "CANARY" });
    }

    #[test]
    fn a_name_cannot_steer_a_terminal() {
        assert_eq!(stored(true).name.to_string(), "decisionbox/p/llm\\u{1b}[31m");
    }
}
