//! The secrets of one project in the collection: read all of them, write one.

use std::time::Duration;

use mongodb::IndexModel;
use mongodb::bson::{Bson, DateTime, Document, doc};
use mongodb::options::IndexOptions;

use crate::services::secrets::cipher::Keyring;
use crate::services::secrets::held::Held;
use crate::services::secrets::vault::{CONFIRM_MILLIS, LIMIT, Stored};
use crate::services::secrets::{SecretsError, Vault};
use crate::store::mongodb::{StoreError, majority, within};

/// More than this no project has, and no answer shows.
const MOST: i64 = 1000;

/// A secret to be stored, in its stored form.
#[derive(Debug)]
pub(in crate::services::secrets) struct New<'a> {
    pub namespace: &'a str,
    pub project: &'a str,
    pub key: &'a str,
    pub value: String,
    pub encrypted: bool,
    /// In milliseconds since 1970.
    pub now: i64,
}

// === impl Vault ===

impl Vault {
    /// The secrets of a project by name, opened where a key opens them.
    pub(in crate::services::secrets) async fn of_project(
        &self,
        namespace: &str,
        project: &str,
        keyring: &Keyring,
    ) -> Result<Vec<Held>, SecretsError> {
        let filter = doc! { "namespace": namespace, "project_id": project };
        let projection = doc! { "namespace": 1, "project_id": 1, "key": 1, "value": 1, "encrypted": 1, "updated_at": 1 };
        let doing = "reading the secrets of a project";
        let collection = self.mongo.database().await.map_err(|source| self.failed(doing, source))?.collection::<Document>(&self.collection);
        let stored = within(LIMIT, async move {
            let mut cursor = collection.find(filter).projection(projection).sort(doc! { "key": 1 }).limit(MOST).max_time(LIMIT).await?;
            let mut found = Vec::new();
            while cursor.advance().await? {
                found.push(Stored::of(cursor.deserialize_current()?));
            }
            Ok(found)
        });
        let held = stored.await.map_err(|source| self.failed(doing, source))?.into_iter().map(|stored| {
            let (standing, value) = stored.opened(keyring);
            let updated = if let Bson::DateTime(time) = &stored.updated_at { Some(time.timestamp_millis()) } else { None };
            Held { key: stored.name.key, value, standing, updated }
        });
        Ok(held.collect())
    }

    /// Stores a secret over the one of this name, or as a new one; confirmed by a majority.
    pub(in crate::services::secrets) async fn set(&self, new: New<'_>) -> Result<(), SecretsError> {
        let doing = "storing a secret";
        let now = DateTime::from_millis(new.now);
        let filter = doc! { "namespace": new.namespace, "project_id": new.project, "key": new.key };
        let update = doc! {
            "$set": { "value": new.value, "encrypted": new.encrypted, "updated_at": now },
            "$setOnInsert": { "created_at": now },
        };
        let mut result = self.upsert(filter.clone(), update.clone()).await;
        // Of two that insert the same at once one wins, and the other finds it there.
        if result.as_ref().is_err_and(StoreError::is_duplicate) {
            result = self.upsert(filter, update).await;
        }
        result.map_err(|source| self.failed(doing, source))
    }

    async fn upsert(&self, filter: Document, update: Document) -> Result<(), StoreError> {
        let collection = self.mongo.database().await?.collection::<Document>(&self.collection);
        let confirm = Duration::from_millis(u64::from(CONFIRM_MILLIS.unsigned_abs()));
        within(LIMIT, async move { collection.update_one(filter, update).upsert(true).write_concern(majority(confirm)).await })
            .await
            .map(|_| ())
    }

    /// Makes the application's own unique index where it is not there yet, with its name: without it, two that set the
    /// same secret at once would make two of it.
    pub(in crate::services::secrets) async fn ensure_unique(&self) -> Result<(), SecretsError> {
        let doing = "making the unique index of the secrets";
        let collection = self.mongo.database().await.map_err(|source| self.failed(doing, source))?.collection::<Document>(&self.collection);
        let index = IndexModel::builder()
            .keys(doc! { "namespace": 1, "project_id": 1, "key": 1 })
            .options(IndexOptions::builder().unique(true).build())
            .build();
        within(LIMIT, async move { collection.create_index(index).await }).await.map(|_| ()).map_err(|source| self.failed(doing, source))
    }
}
