//! The application's collection of runs: the same documents, and never a run that is over brought back.

use std::sync::Arc;
use std::time::Duration;

use mongodb::Collection;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{DateTime, Document, doc};

use crate::services::runs::run::{Status, Verdict};
use crate::store::mongodb::{Mongo, StoreError, majority, within};

const RUNS: &str = "discovery_runs";
const DISCOVERIES: &str = "discoveries";
const DEBUG_LOGS: &str = "discovery_debug_logs";
/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The runs of all projects.
#[derive(Clone, Debug)]
pub(super) struct RunDocuments {
    mongo: Arc<Mongo>,
}

/// Which runs a list shows.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub project: Option<String>,
    pub status: Option<Status>,
    /// Only runs older than this one.
    pub before: Option<ObjectId>,
    pub limit: i64,
}

// === impl RunDocuments ===

impl RunDocuments {
    pub(super) fn new(mongo: Arc<Mongo>) -> Self {
        Self { mongo }
    }

    async fn collection(&self, name: &str) -> Result<Collection<Document>, StoreError> {
        Ok(self.mongo.database().await?.collection(name))
    }

    /// Writes a run down as the application does, before its agent is started.
    pub(super) async fn insert(&self, run: ObjectId, project: &str, now: i64) -> Result<(), StoreError> {
        let now = DateTime::from_millis(now);
        let document = doc! {
            "_id": run, "project_id": project, "status": Status::Pending.word(), "phase": "init", "phase_detail": "Starting discovery agent",
            "progress": 0, "started_at": now, "updated_at": now, "steps": [],
            "total_queries": 0, "successful_queries": 0, "failed_queries": 0, "insights_found": 0,
        };
        let runs = self.collection(RUNS).await?;
        within(LIMIT, async move { runs.insert_one(document).write_concern(majority(LIMIT)).await }).await.map(|_| ())
    }

    /// Its agent runs: says so unless the agent has said more already.
    pub(super) async fn mark_running(&self, run: ObjectId, now: i64) -> Result<(), StoreError> {
        let pending = doc! { "_id": run, "status": Status::Pending.word() };
        self.update(pending, doc! { "status": Status::Running.word(), "updated_at": DateTime::from_millis(now) }).await
    }

    /// Writes down what a run has come to. One that is over stays as it is, except that a cancelled one stays cancelled
    /// whatever its agent wrote at last.
    pub(super) async fn finish(&self, run: ObjectId, verdict: &Verdict, now: i64) -> Result<(), StoreError> {
        let now = DateTime::from_millis(now);
        let mut fields = doc! { "status": verdict.status.word(), "updated_at": now, "completed_at": now };
        match verdict.status {
            Status::Completed => fields.extend(doc! { "phase": "complete", "progress": 100 }),
            Status::Cancelled => fields.extend(doc! { "phase_detail": "Cancelled by user" }),
            _ => fields.extend(doc! { "phase_detail": "Failed" }),
        }
        fields.extend(verdict.error.as_ref().map(|error| ("error".to_owned(), error.into())));
        fields.extend(verdict.exit_code.map(|code| ("exit_code".to_owned(), code.into())));
        fields.extend(verdict.signal.map(|signal| ("exit_signal".to_owned(), signal.into())));
        let filter = match verdict.status {
            Status::Cancelled => doc! { "_id": run },
            _ => doc! { "_id": run, "status": { "$in": active() } },
        };
        self.update(filter, fields).await
    }

    async fn update(&self, filter: Document, fields: Document) -> Result<(), StoreError> {
        let runs = self.collection(RUNS).await?;
        let update = doc! { "$set": fields };
        within(LIMIT, async move { runs.update_one(filter, update).write_concern(majority(LIMIT)).await }).await.map(|_| ())
    }

    pub(super) async fn find(&self, run: ObjectId) -> Result<Option<Document>, StoreError> {
        let runs = self.collection(RUNS).await?;
        within(LIMIT, async move { runs.find_one(doc! { "_id": run }).max_time(LIMIT).await }).await
    }

    /// What a run's document says, without its steps.
    pub(super) async fn status(&self, run: ObjectId) -> Result<Option<Document>, StoreError> {
        let runs = self.collection(RUNS).await?;
        let fields = doc! { "status": 1, "project_id": 1, "updated_at": 1 };
        within(LIMIT, async move { runs.find_one(doc! { "_id": run }).projection(fields).max_time(LIMIT).await }).await
    }

    /// A run of the project that is not over and has been heard of since `since`, other than `run`.
    pub(super) async fn active(&self, project: &str, run: ObjectId, since: i64) -> Result<Option<ObjectId>, StoreError> {
        let filter = doc! {
            "project_id": project, "status": { "$in": active() }, "_id": { "$ne": run },
            "updated_at": { "$gte": DateTime::from_millis(since) },
        };
        let runs = self.collection(RUNS).await?;
        let found = within(LIMIT, async move { runs.find_one(filter).projection(doc! { "_id": 1 }).max_time(LIMIT).await }).await?;
        Ok(found.and_then(|found| found.get_object_id("_id").ok()))
    }

    /// The latest run of a project, and the latest discovery without its content.
    pub(super) async fn latest(&self, project: &str) -> Result<(Option<Document>, Option<Document>), StoreError> {
        let (runs, discoveries) = (self.collection(RUNS).await?, self.collection(DISCOVERIES).await?);
        let of_project = doc! { "project_id": project };
        within(LIMIT, async move {
            let run = runs.find_one(of_project.clone()).sort(doc! { "started_at": -1 }).max_time(LIMIT).await?;
            let fields = doc! { "discovery_date": 1, "total_steps": 1, "summary.total_insights": 1 };
            let last = discoveries.find_one(of_project).sort(doc! { "discovery_date": -1 }).projection(fields).max_time(LIMIT).await?;
            Ok((run, last))
        })
        .await
    }

    /// Runs, the newest first, without their steps.
    pub(super) async fn list(&self, wanted: &Wanted) -> Result<Vec<Document>, StoreError> {
        let mut filter = Document::new();
        filter.extend(wanted.project.as_ref().map(|project| ("project_id".to_owned(), project.into())));
        filter.extend(wanted.status.map(|status| ("status".to_owned(), status.word().into())));
        filter.extend(wanted.before.map(|before| ("_id".to_owned(), doc! { "$lt": before }.into())));
        let (runs, limit) = (self.collection(RUNS).await?, wanted.limit);
        within(LIMIT, async move {
            let find = runs.find(filter).sort(doc! { "_id": -1 }).projection(doc! { "steps": 0 }).limit(limit).max_time(LIMIT);
            all(find.await?).await
        })
        .await
    }

    /// What the agent of a run has asked its LLM and its warehouse since a moment, the oldest first; without prompts and rows.
    pub(super) async fn debug_logs(&self, run: ObjectId, since: Option<i64>, limit: i64) -> Result<Vec<Document>, StoreError> {
        let mut filter = doc! { "discovery_run_id": run.to_hex() };
        filter.extend(since.map(|since| ("created_at".to_owned(), doc! { "$gte": DateTime::from_millis(since) }.into())));
        let fields = [
            "discovery_run_id",
            "created_at",
            "log_type",
            "component",
            "operation",
            "phase",
            "duration_ms",
            "success",
            "sql_query",
            "query_error",
            "row_count",
            "fix_attempts",
            "llm_model",
            "llm_response",
            "llm_input_tokens",
            "llm_output_tokens",
            "error_message",
        ];
        let fields: Document = fields.iter().map(|field| ((*field).to_owned(), 1.into())).collect();
        let logs = self.collection(DEBUG_LOGS).await?;
        within(LIMIT, async move {
            let find = logs.find(filter).sort(doc! { "created_at": 1, "_id": 1 }).projection(fields).limit(limit).max_time(LIMIT);
            all(find.await?).await
        })
        .await
    }
}

async fn all(mut cursor: mongodb::Cursor<Document>) -> mongodb::error::Result<Vec<Document>> {
    let mut found = Vec::new();
    while cursor.advance().await? {
        found.push(cursor.deserialize_current()?);
    }
    Ok(found)
}

fn active() -> [&'static str; 2] {
    Status::ACTIVE.map(Status::word)
}
