//! The start of a run: the project is claimed, the API is asked, and the claim becomes what the answer says.
//!
//! A start that has been claimed goes on although its client goes away: what the API has begun is not undone by that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::{Request, Response, StatusCode};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::front::admission::{Outcome, claim_name, outcome};
use crate::front::body::{AnswerBody, RequestBody, UpstreamBody};
use crate::front::claims::{Attempt, Claim, Claims, Standing};
use crate::front::headers::prepare_answer;
use crate::front::metrics::starts::StartMetrics;
use crate::front::refusal::{Refusal, json_answer};
use crate::front::upstream::{Upstream, UpstreamFault};
use crate::store::mongodb::StoreError;

/// The answer to a start is a few words.
const ANSWER_LIMIT: usize = 64 * 1024;
/// How long one who is refused waits for the id of the run that is just being started.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is asked for.
const POLL: Duration = Duration::from_millis(50);
/// An answer that was given so long ago holds for those who have waited for it.
const FRESH: Duration = Duration::from_millis(200);
/// How long the first look at the runs is waited for.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// Between two attempts to write down what was started.
const AGAIN: Duration = Duration::from_millis(500);

/// Starts runs, one a project.
#[derive(Debug)]
pub struct Starts {
    claims: Arc<Claims>,
    /// Whether runs that were there before have been adopted.
    has_looked: watch::Receiver<bool>,
    /// Those who wait for the same answer share one question.
    questions: Mutex<HashMap<String, Arc<Question>>>,
    metrics: StartMetrics,
    /// What goes on behind an answer.
    background: TaskTracker,
}

/// The last answer, and when it was given.
type Question = tokio::sync::Mutex<Option<(Instant, Standing)>>;

/// Whether a start is let through.
enum Admitted {
    /// Under this claim.
    Claimed(Claim),
    /// There is this run; empty while it is being started.
    Running(String),
}

// === impl Starts ===

impl Starts {
    /// Starts that wait for the first look at the runs.
    #[must_use]
    pub fn new(claims: Arc<Claims>, has_looked: watch::Receiver<bool>, metrics: StartMetrics) -> Self {
        Self { claims, has_looked, questions: Mutex::default(), metrics, background: TaskTracker::new() }
    }

    /// Starts a run of a project, where there is none: asks the API under a claim.
    ///
    /// # Errors
    /// When there can be no such project, the database does not answer, or the API does not.
    pub async fn start(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        project: &str,
        request: Request<RequestBody>,
        patience: Duration,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let project = claim_name(project).ok_or(Refusal::Project)?;
        let (starts, upstream) = (Arc::clone(self), Arc::clone(upstream));
        let proceeds = self.background.spawn(async move { starts.proceed(&upstream, &project, request, patience).await });
        proceeds.await.unwrap_or(Err(Refusal::Upstream(UpstreamFault::Reset)))
    }

    /// Waits until what goes on behind answers has ended.
    pub async fn finish(&self, limit: Duration) {
        self.background.close();
        // What is left is adopted by the next front door.
        let _ = tokio::time::timeout(limit, self.background.wait()).await;
    }

    async fn proceed(
        self: Arc<Self>,
        upstream: &Upstream,
        project: &str,
        request: Request<RequestBody>,
        patience: Duration,
    ) -> Result<Response<AnswerBody>, Refusal> {
        match self.admit(project).await {
            Ok(Admitted::Claimed(claim)) => self.ask(upstream, claim, request, patience).await,
            Ok(Admitted::Running(run)) => {
                self.metrics.count("already_running");
                Ok(already_running(&run))
            }
            Err(error) => {
                self.metrics.count("unavailable");
                tracing::warn!(%error, "a run cannot be started: the claim on its project cannot be taken");
                Err(Refusal::Store)
            }
        }
    }

    async fn admit(&self, project: &str) -> Result<Admitted, StoreError> {
        let mut has_looked = self.has_looked.clone();
        let looked = tokio::time::timeout(FIRST_LOOK, has_looked.wait_for(|looked| *looked)).await.is_ok_and(|looked| looked.is_ok());
        if !looked {
            return Err(StoreError::Timeout(FIRST_LOOK));
        }
        for _ in 0..3 {
            if let Attempt::Taken(claim) = self.claims.take(project).await? {
                return Ok(Admitted::Claimed(claim));
            }
            match self.standing(project).await? {
                Standing::Running(run) => return Ok(Admitted::Running(run)),
                Standing::Starting => break,
                // It has become free meanwhile, and somebody may be quicker.
                Standing::Free => {}
            }
        }
        Ok(Admitted::Running(String::new()))
    }

    /// What keeps a project from being free, where possible with the id of its run.
    async fn standing(&self, project: &str) -> Result<Standing, StoreError> {
        let question = Arc::clone(self.questions().entry(project.to_owned()).or_default());
        let answer = self.ask_once(project, &question).await;
        let mut questions = self.questions();
        // The table's and ours.
        if Arc::strong_count(&question) <= 2 {
            questions.remove(project);
        }
        answer
    }

    async fn ask_once(&self, project: &str, question: &Question) -> Result<Standing, StoreError> {
        let mut last = question.lock().await;
        if let Some((given, standing)) = &*last
            && given.elapsed() < FRESH
            && *standing != Standing::Free
        {
            return Ok(standing.clone());
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let standing = self.claims.standing(project).await?;
            if standing != Standing::Starting || Instant::now() >= until {
                *last = Some((Instant::now(), standing.clone()));
                return Ok(standing);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Asks the API, and has the claim become what it answers.
    async fn ask(
        self: &Arc<Self>,
        upstream: &Upstream,
        claim: Claim,
        request: Request<RequestBody>,
        patience: Duration,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let rest = claim.rest();
        if rest.is_zero() {
            // This process stood still for so long that another may have the claim by now.
            self.metrics.count("unavailable");
            return Err(Refusal::Store);
        }
        let (mut response, connection) = match upstream.send(request, Some(rest)).await {
            Ok(answered) => answered,
            Err(fault) => {
                let outcome = if fault.may_have_arrived() { Outcome::Unknown } else { Outcome::Refused };
                self.settle(claim, outcome).await;
                return Err(fault.into());
            }
        };
        prepare_answer(response.headers_mut());
        let (mut parts, body) = response.into_parts();
        let body = to_bytes(Body::new(UpstreamBody::new(body, connection, patience)), ANSWER_LIMIT).await;
        let Ok(body) = body else {
            self.settle(claim, Outcome::Unknown).await;
            return Err(Refusal::Upstream(UpstreamFault::Reset));
        };
        self.settle(claim, outcome(parts.status.as_u16(), &body)).await;
        [CONTENT_LENGTH, TRANSFER_ENCODING].iter().for_each(|name| drop(parts.headers.remove(name)));
        Ok(Response::from_parts(parts, AnswerBody::own(body)))
    }

    /// The claim becomes what is known. What was started is written down behind the answer; all else before it, so that
    /// whoever tries again at once is not refused for nothing.
    async fn settle(self: &Arc<Self>, claim: Claim, outcome: Outcome) {
        self.metrics.count(outcome.label());
        let settled = match outcome {
            Outcome::Started(run) => {
                let starts = Arc::clone(self);
                self.background.spawn(async move { starts.note(&claim, &run).await });
                return;
            }
            Outcome::Refused => self.claims.give_back(&claim).await,
            Outcome::Failed | Outcome::Unknown => match self.claims.run_of(claim.project()).await {
                Ok(Some(run)) => self.claims.started(&claim, &run).await,
                Ok(None) if outcome == Outcome::Failed => self.claims.give_back(&claim).await,
                // It may still come: the claim lapses by its lease.
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            },
        };
        if let Err(error) = settled {
            tracing::warn!(%error, project = claim.project(), "a claim could not be given back; it lapses by its lease");
        }
    }

    /// Writes down which run holds the claim, as long as that may take.
    async fn note(&self, claim: &Claim, run: &str) {
        loop {
            match self.claims.started(claim, run).await {
                Ok(()) => return,
                Err(error) if claim.rest().is_zero() => {
                    tracing::warn!(%error, run, "a run could not be written down in its claim; it is adopted by the next look");
                    return;
                }
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// Each update is a single step, so that a panic elsewhere leaves nothing half done.
    fn questions(&self) -> MutexGuard<'_, HashMap<String, Arc<Question>>> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The API's own words.
fn already_running(run: &str) -> Response<AnswerBody> {
    let message = "A discovery is already running for this project";
    json_answer(StatusCode::CONFLICT, &json!({ "data": { "message": message, "run_id": run, "status": "already_running" } }))
}
