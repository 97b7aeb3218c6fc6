//! The run service's API: the application's own routes and bodies, and a list of runs.
//!
//! | route | answers |
//! |---|---|
//! | `POST /api/v1/projects/{id}/discover` | 202 with the new run; 409 with the one that is under way |
//! | `GET /api/v1/projects/{id}/status` | the latest run and discovery of a project |
//! | `GET /api/v1/runs?project_id=&status=&limit=&before=`, `GET /api/v1/projects/{id}/runs` | runs, the newest first, without steps |
//! | `GET /api/v1/runs/{run}` | one run |
//! | `DELETE /api/v1/runs/{run}` | cancels it |
//! | `GET /api/v1/runs/{run}/debug-logs?since=&limit=` | what its agent asked its LLM and its warehouse |

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document};
use serde_json::{Value, json};

use crate::clock::Now;
use crate::runtime::caller::Caller;
use crate::services::answer::{self, Refusal};
use crate::services::runs::Runs;
use crate::services::runs::documents::Wanted;
use crate::services::runs::run::{Status, Verdict};
use crate::services::runs::shape::shown;
use crate::services::runs::start::{NoRun, Task};
use crate::store::mongodb::StoreError;

/// A task is a line of JSON.
const BODY_LIMIT: usize = 16 * 1024;
/// How many runs a page shows, unless it is said.
const PAGE: i64 = 50;
const LARGEST_PAGE: i64 = 200;
const DEBUG_LOGS: i64 = 1000;

type Answer = Result<Response, Refusal>;

// === impl Runs ===

impl Runs {
    /// The routes of the service.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/api/v1/projects/{project}/discover", post(discover))
            .route("/api/v1/projects/{project}/status", get(project_status))
            .route("/api/v1/projects/{project}/runs", get(list_of_project))
            .route("/api/v1/runs", get(list))
            .route("/api/v1/runs/{run}", get(one).delete(cancel))
            .route("/api/v1/runs/{run}/debug-logs", get(debug_logs))
            .fallback(answer::not_found)
            .method_not_allowed_fallback(answer::wrong_method)
            .with_state(Arc::clone(self))
    }

    async fn cancel(&self, run: ObjectId, caller: &Caller) -> Result<(), Refusal> {
        let document = self.documents.status(run).await.map_err(unavailable)?.ok_or_else(unknown_run)?;
        let text = |name| document.get_str(name).unwrap_or_default();
        if !Status::named(text("status")).is_some_and(Status::is_active) {
            let message = format!("run is not active (status: {})", text("status"));
            return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
        }
        let project = text("project_id");
        let is_here = self.agents.cancel(run).await;
        if !is_here {
            self.claims.ask_to_cancel(project, &run.to_hex()).await.map_err(unavailable)?;
        }
        tracing::info!(%run, project, %caller, is_here, "a run was cancelled");
        let verdict = Verdict { status: Status::Cancelled, error: None, exit_code: None, signal: None };
        let written = self.documents.finish(run, &verdict, Now::read().wall.as_millisecond()).await;
        // Of an agent of ours the keeper writes it once more, when the agent has ended.
        if is_here { Ok(()) } else { written.map_err(unavailable) }
    }
}

fn unavailable(error: StoreError) -> Refusal {
    tracing::warn!(%error, "the database did not answer the run service");
    Refusal::unavailable("the database did not answer; try again")
}

fn unknown_run() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "run not found")
}

fn send(answer: Answer) -> Response {
    answer.unwrap_or_else(|refusal| refusal.into_response())
}

fn segment(path: Result<Path<String>, PathRejection>) -> Result<String, Refusal> {
    path.map(|Path(segment)| segment).map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "the path is not valid UTF-8"))
}

fn run_id(path: Result<Path<String>, PathRejection>) -> Result<ObjectId, Refusal> {
    let invalid = |_| Refusal::new(StatusCode::BAD_REQUEST, "invalid run ID: it has 24 hexadecimal digits");
    ObjectId::parse_str(segment(path)?).map_err(invalid)
}

async fn discover(State(runs): State<Arc<Runs>>, project: Result<Path<String>, PathRejection>, request: Request) -> Response {
    let task = async {
        let project = segment(project)?;
        let body = answer::read(request.into_body(), BODY_LIMIT).await?;
        let task = if body.iter().all(u8::is_ascii_whitespace) { Task::default() } else { answer::parse(&body)? };
        Ok::<_, Refusal>((project, task))
    };
    let (project, task) = match task.await {
        Ok(task) => task,
        Err(refusal) => return refusal.into_response(),
    };
    match runs.start(project, task).await {
        Ok(run) => {
            let started = json!({ "message": "Discovery agent started", "run_id": run.to_hex(), "status": "started" });
            answer::data(StatusCode::ACCEPTED, &started)
        }
        Err(NoRun::AlreadyRunning(run)) => {
            let message = "A discovery is already running for this project";
            answer::data(StatusCode::CONFLICT, &json!({ "message": message, "run_id": run, "status": "already_running" }))
        }
        Err(NoRun::Refused(_, refusal)) => refusal.into_response(),
    }
}

async fn project_status(State(runs): State<Arc<Runs>>, project: Result<Path<String>, PathRejection>) -> Response {
    let status = async {
        let project = segment(project)?;
        runs.projects.find(&project).await?;
        let (run, last) = runs.documents.latest(&project).await.map_err(unavailable)?;
        let mut status = json!({ "project_id": project, "run": run.map(shown) });
        if let (Some(last), Some(status)) = (last, status.as_object_mut()) {
            status.insert("last_discovery".to_owned(), last_discovery(last));
        }
        Ok(answer::data(StatusCode::OK, &status))
    };
    send(status.await)
}

fn last_discovery(mut last: Document) -> Value {
    let insights = last.get_document("summary").ok().and_then(|summary| summary.get("total_insights").cloned());
    let mut field = |name: &str| last.remove(name).unwrap_or(Bson::Null);
    let shown_fields = mongodb::bson::doc! {
        "date": field("discovery_date"), "insights_count": insights.unwrap_or(Bson::Int32(0)), "total_steps": field("total_steps"),
    };
    shown(shown_fields)
}

async fn one(State(runs): State<Arc<Runs>>, run: Result<Path<String>, PathRejection>) -> Response {
    let one = async {
        let found = runs.documents.find(run_id(run)?).await.map_err(unavailable)?.ok_or_else(unknown_run)?;
        Ok(answer::data(StatusCode::OK, &shown(found)))
    };
    send(one.await)
}

async fn cancel(State(runs): State<Arc<Runs>>, run: Result<Path<String>, PathRejection>, request: Request) -> Response {
    let caller = Caller::of(request.extensions());
    let cancelled = async {
        runs.cancel(run_id(run)?, &caller).await?;
        Ok(answer::data(StatusCode::OK, &json!({ "message": "Run cancelled", "status": Status::Cancelled.word() })))
    };
    send(cancelled.await)
}

async fn list(State(runs): State<Arc<Runs>>, uri: Uri) -> Response {
    let listed = async { page(&runs, wanted(&uri)?).await };
    send(listed.await)
}

async fn list_of_project(State(runs): State<Arc<Runs>>, project: Result<Path<String>, PathRejection>, uri: Uri) -> Response {
    let listed = async {
        let project = segment(project)?;
        runs.projects.find(&project).await?;
        page(&runs, Wanted { project: Some(project), ..wanted(&uri)? }).await
    };
    send(listed.await)
}

async fn page(runs: &Runs, mut wanted: Wanted) -> Answer {
    let limit = usize::try_from(wanted.limit).unwrap_or_default();
    // One more than is shown: whether there is a next page.
    wanted.limit += 1;
    let mut found = runs.documents.list(&wanted).await.map_err(unavailable)?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| has_more).and_then(|last| last.get_object_id("_id").ok());
    let mut document = json!({ "data": found.into_iter().map(shown).collect::<Vec<_>>() });
    if let (Some(next), Some(document)) = (next, document.as_object_mut()) {
        document.insert("next".to_owned(), next.to_hex().into());
    }
    Ok(answer::send(StatusCode::OK, &document))
}

/// Which runs a query asks for.
fn wanted(uri: &Uri) -> Result<Wanted, Refusal> {
    let mut wanted = Wanted { limit: PAGE, ..Wanted::default() };
    let wrong = |message: &str| Refusal::new(StatusCode::BAD_REQUEST, message);
    for (name, value) in pairs(uri)? {
        match name.as_str() {
            "project_id" => wanted.project = Some(value),
            "status" => {
                let words = Status::ALL.map(Status::word).join(", ");
                wanted.status = Some(Status::named(&value).ok_or_else(|| wrong(&format!("status is one of {words}")))?);
            }
            "before" => wanted.before = Some(ObjectId::parse_str(&value).map_err(|_| wrong("before is the id of a run"))?),
            "limit" => wanted.limit = limit(&value, LARGEST_PAGE)?,
            _ => {}
        }
    }
    Ok(wanted)
}

async fn debug_logs(State(runs): State<Arc<Runs>>, run: Result<Path<String>, PathRejection>, uri: Uri) -> Response {
    let logs = async {
        let run = run_id(run)?;
        let (mut since, mut most) = (None, DEBUG_LOGS);
        for (name, value) in pairs(&uri)? {
            match name.as_str() {
                "since" => {
                    let time: Timestamp =
                        value.parse().map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "since is a time such as 2026-04-04T09:00:00Z"))?;
                    since = Some(time.as_millisecond());
                }
                "limit" => most = limit(&value, DEBUG_LOGS)?,
                _ => {}
            }
        }
        runs.documents.status(run).await.map_err(unavailable)?.ok_or_else(unknown_run)?;
        let found = runs.documents.debug_logs(run, since, most).await.map_err(unavailable)?;
        Ok(answer::data(StatusCode::OK, &found.into_iter().map(shown).collect()))
    };
    send(logs.await)
}

fn limit(value: &str, most: i64) -> Result<i64, Refusal> {
    let limit = value.parse().ok().filter(|limit| (1..=most).contains(limit));
    limit.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, format!("limit is a number from 1 to {most}")))
}

/// The pairs of a query.
fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, Refusal> {
    let read = Query::try_from_uri(uri).map(|Query(pairs)| pairs);
    read.map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "the query cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_or_refused() {
        let wanted = |query: &str| wanted(&format!("/api/v1/runs?{query}").parse().expect("a path"));
        let found = wanted("project_id=p&status=failed&before=69d0f41bc2b4e5f60718293b&limit=200&other=1").expect("a query");
        assert_eq!((found.project.as_deref(), found.status, found.limit), (Some("p"), Some(Status::Failed), 200));
        assert!(found.before.is_some());
        assert_eq!(wanted("").expect("a query").limit, PAGE);
        for wrong in ["status=done", "before=x", "limit=0", "limit=201", "limit=x"] {
            assert!(wanted(wrong).is_err(), "{wrong}");
        }
    }
}
