//! Whether a project is there.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, doc};

use crate::services::answer::Refusal;
use crate::store::mongodb::{Mongo, within};

const COLLECTION: &str = "projects";
/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The application's projects.
#[derive(Clone, Debug)]
pub(super) struct Projects {
    mongo: Arc<Mongo>,
}

// === impl Projects ===

impl Projects {
    pub(super) fn new(mongo: Arc<Mongo>) -> Self {
        Self { mongo }
    }

    /// Nothing where there is a project of this id, or what to answer.
    pub(super) async fn find(&self, id: &str) -> Result<(), Refusal> {
        let unknown = || Refusal::new(StatusCode::NOT_FOUND, "project not found");
        let id = ObjectId::parse_str(id).map_err(|_| unknown())?;
        let failed = |error| {
            tracing::warn!(%error, "a project could not be looked up");
            Refusal::unavailable("the database did not answer: the project could not be looked up; try again")
        };
        let collection = self.mongo.database().await.map_err(failed)?.collection::<Document>(COLLECTION);
        let found =
            within(LIMIT, async move { collection.find_one(doc! { "_id": id }).projection(doc! { "_id": 1 }).max_time(LIMIT).await });
        found.await.map_err(failed)?.map(|_| ()).ok_or_else(unknown)
    }
}
