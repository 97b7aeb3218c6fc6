//! Whether a project is there, and whether it is ready for a run.

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

/// A project that is there.
#[derive(Debug)]
pub(super) struct Project {
    /// Where its schema index stands; older releases have none.
    pub schema_index: Option<String>,
}

// === impl Projects ===

impl Projects {
    pub(super) fn new(mongo: Arc<Mongo>) -> Self {
        Self { mongo }
    }

    /// The project of this id, or what to answer.
    pub(super) async fn find(&self, id: &str) -> Result<Project, Refusal> {
        let unknown = || Refusal::new(StatusCode::NOT_FOUND, "project not found");
        let id = ObjectId::parse_str(id).map_err(|_| unknown())?;
        let failed = |error| {
            tracing::warn!(%error, "a project could not be looked up");
            Refusal::unavailable("the database did not answer: the project could not be looked up; try again")
        };
        let collection = self.mongo.database().await.map_err(failed)?.collection::<Document>(COLLECTION);
        let found = within(LIMIT, async move {
            collection.find_one(doc! { "_id": id }).projection(doc! { "schema_index_status": 1 }).max_time(LIMIT).await
        });
        let document = found.await.map_err(failed)?.ok_or_else(unknown)?;
        Ok(Project { schema_index: document.get_str("schema_index_status").ok().map(str::to_owned) })
    }
}
