//! Begins a run: claim, document, agent, in this order, and each step undone or left to the keeper where the next fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use mongodb::bson::oid::ObjectId;
use serde::Deserialize;

use crate::clock::Now;
use crate::services::answer::Refusal;
use crate::services::runs::Runs;
use crate::services::runs::metrics::NotStarted;
use crate::services::runs::roster::NoRoom;
use crate::services::runs::run::{Status, Verdict};
use crate::store::mongodb::StoreError;
use crate::store::run_claims::{Claim, Claiming};

/// More areas no domain has.
const MOST_AREAS: usize = 50;
const LONGEST_AREA: usize = 64;
/// An agent asks its LLM once a step.
const MOST_STEPS: u32 = 10_000;

/// How long a start waits for another of the same project, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// What a run is asked to do. What is left out is the agent's own default.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Task {
    #[serde(default)]
    areas: Option<Vec<String>>,
    #[serde(default)]
    max_steps: Option<u32>,
    #[serde(default)]
    min_steps: Option<u32>,
}

/// Why there is no new run.
#[derive(Debug)]
pub(super) enum NoRun {
    /// This one is under way.
    AlreadyRunning(String),
    /// Anything else.
    Refused(NotStarted, Refusal),
}

// === impl Task ===

impl Task {
    /// What is wrong with it: everything of it becomes an argument of a program.
    fn problem(&self) -> Option<String> {
        let areas = self.areas.as_deref().unwrap_or_default();
        let is_area = |area: &&String| {
            let is_fit = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ');
            !area.is_empty() && area.len() <= LONGEST_AREA && !area.starts_with('-') && area.chars().all(is_fit)
        };
        if areas.len() > MOST_AREAS || !areas.iter().all(|area| is_area(&area)) {
            return Some(format!(
                "areas are at most {MOST_AREAS} names of at most {LONGEST_AREA} letters, digits, `-`, `_`, `.` or spaces"
            ));
        }
        let (most, least) = (self.max_steps.unwrap_or(0), self.min_steps.unwrap_or(0));
        if most > MOST_STEPS || least > MOST_STEPS {
            return Some(format!("max_steps and min_steps are at most {MOST_STEPS}"));
        }
        (most > 0 && least > most).then(|| format!("min_steps ({least}) must not exceed max_steps ({most})"))
    }

    fn arguments(&self, project: &str, run: ObjectId) -> Vec<String> {
        let mut arguments = vec!["--project-id".to_owned(), project.to_owned(), "--run-id".to_owned(), run.to_hex()];
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                arguments.extend([name.to_owned(), value]);
            }
        };
        add("--areas", self.areas.as_ref().filter(|areas| !areas.is_empty()).map(|areas| areas.join(",")));
        add("--max-steps", self.max_steps.filter(|steps| *steps > 0).map(|steps| steps.to_string()));
        add("--min-steps", self.min_steps.filter(|steps| *steps > 0).map(|steps| steps.to_string()));
        arguments
    }
}

// === impl Runs ===

impl Runs {
    /// Begins a run of a project. Goes on to its end even when nobody waits for it any more.
    pub(super) async fn start(self: &Arc<Self>, project: String, task: Task) -> Result<ObjectId, NoRun> {
        let this = Arc::clone(self);
        // Short-lived, and a client that hangs up must not leave a run half begun.
        let started = self.workers.spawn(async move { this.begin(project, task).await });
        let broke = || Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "failed to start agent: see the log of the run service");
        let started = started.await.unwrap_or_else(|_| Err(NoRun::Refused(NotStarted::Failed, broke())));
        match &started {
            Ok(_) => self.metrics.started(),
            Err(NoRun::AlreadyRunning(_)) => self.metrics.refused(NotStarted::AlreadyRunning),
            Err(NoRun::Refused(reason, _)) => self.metrics.refused(*reason),
        }
        started
    }

    async fn begin(self: Arc<Self>, project: String, task: Task) -> Result<ObjectId, NoRun> {
        if let Some(problem) = task.problem() {
            return Err(NoRun::Refused(NotStarted::Refused, Refusal::new(StatusCode::BAD_REQUEST, problem)));
        }
        let found = self.projects.find(&project).await;
        let found = found.map_err(|refusal| {
            let reason = if refusal.is_failure() { NotStarted::Failed } else { NotStarted::Refused };
            NoRun::Refused(reason, refusal)
        })?;
        // Releases without a schema index have no such field.
        if found.schema_index.is_some_and(|status| status != "ready") {
            let message = format!("schema index is not ready yet — poll /api/v1/projects/{project}/schema-index/status");
            return Err(NoRun::Refused(NotStarted::NotReady, Refusal::new(StatusCode::CONFLICT, message)));
        }
        let run = ObjectId::new();
        self.make_room(run, &project).await?;
        if let Err(no_run) = self.write_down(run, &project).await {
            self.agents.forget(run);
            return Err(no_run);
        }
        let launched = self.agents.launch(&self.settings, run, &project, task.arguments(&project, run)).await;
        // The keeper writes the end of one that was not started down, and sees one that has ended already.
        self.bell.notify_one();
        if let Err(why) = launched {
            tracing::error!(%run, project, error = why, "an agent could not be started");
            let refusal = Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("failed to start agent: {why}"));
            return Err(NoRun::Refused(NotStarted::Failed, refusal));
        }
        tracing::info!(%run, project, "an agent was started");
        if self.agents.begin_at_once()
            && let Err(error) = self.documents.mark_running(run, Now::read().wall.as_millisecond()).await
        {
            tracing::warn!(%run, %error, "that a run has begun could not be written down; its agent will");
        }
        Ok(run)
    }

    /// Makes room for an agent. Where another start of the project is under way here, which run it comes to is known only
    /// when the claim is: it may be one of another process. One that has just ended is waited for.
    async fn make_room(&self, run: ObjectId, project: &str) -> Result<(), NoRun> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.agents.reserve(run, project) {
                Ok(()) => return Ok(()),
                Err(NoRoom::Busy(other)) => {
                    if !self.agents.may_be_behind() || self.claim_of(project).await?.is_some() {
                        return Err(NoRun::AlreadyRunning(other.to_hex()));
                    }
                    self.bell.notify_one();
                }
                Err(NoRoom::Full) => {
                    let most = self.settings.max_running;
                    let message = format!("{most} agents run here already, which is as many as may; try again when one has ended");
                    return Err(NoRun::Refused(NotStarted::Full, Refusal::unavailable(message)));
                }
                Err(NoRoom::Ending) => self.bell.notify_one(),
                Err(NoRoom::Starting) => {
                    if let Some(claim) = self.claim_of(project).await? {
                        return Err(NoRun::AlreadyRunning(claim.run));
                    }
                }
            }
            if Instant::now() > until {
                let message = "another run of this project is being started or written down; try again";
                return Err(NoRun::Refused(NotStarted::Failed, Refusal::unavailable(message)));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The claim of a project, where it was not given back.
    async fn claim_of(&self, project: &str) -> Result<Option<Claim>, NoRun> {
        let found = self.claims.find(project).await.map_err(|error| not_written(project, &error))?;
        Ok(found.filter(|claim| claim.expires > 0))
    }

    /// Takes the project's claim and writes the run down. Where the database fails in between, the keeper frees the claim.
    async fn write_down(&self, run: ObjectId, project: &str) -> Result<(), NoRun> {
        let failed = |error: StoreError| not_written(project, &error);
        if let Claiming::Held(claim) = self.claims.take(project, &run.to_hex()).await.map_err(failed)? {
            self.take_over(&claim, run).await.map_err(failed)?.map_err(NoRun::AlreadyRunning)?;
        }
        // Runs of the application's own run service know no claims.
        let since = Now::read().wall.as_millisecond() - self.stale_millis();
        if let Some(other) = self.documents.active(project, run, since).await.map_err(failed)? {
            self.claims.release(project, &run.to_hex()).await.map_err(failed)?;
            return Err(NoRun::AlreadyRunning(other.to_hex()));
        }
        self.documents.insert(run, project, Now::read().wall.as_millisecond()).await.map_err(failed)
    }

    /// Takes the claim of a run over whose holder is gone and that is over, or has not been heard of for long. Else the run.
    async fn take_over(&self, claim: &Claim, run: ObjectId) -> Result<Result<(), String>, StoreError> {
        let held = Ok(Err(claim.run.clone()));
        let old = ObjectId::parse_str(&claim.run).ok();
        let document = match old {
            Some(old) => self.documents.status(old).await?,
            None => None,
        };
        let is_active =
            document.as_ref().and_then(|document| Status::named(document.get_str("status").ok()?)).is_some_and(Status::is_active);
        let heard =
            document.as_ref().and_then(|document| document.get_datetime("updated_at").ok()).map_or(0, |time| time.timestamp_millis());
        if is_active && Now::read().wall.as_millisecond() - heard < self.stale_millis() {
            return held;
        }
        if !self.claims.take_over(claim, &run.to_hex()).await? {
            return held;
        }
        if let Some(old) = old.filter(|_| is_active) {
            tracing::warn!(run = %old, project = claim.project, "a run was given up: neither its holder nor its agent has been heard of for long");
            let error = format!(
                "given up: nothing was heard of the agent for {:?}, and the run service that started it is gone",
                self.settings.stale_after
            );
            let verdict = Verdict { status: Status::Failed, error: Some(error), exit_code: None, signal: None };
            self.documents.finish(old, &verdict, Now::read().wall.as_millisecond()).await?;
        }
        Ok(Ok(()))
    }

    fn stale_millis(&self) -> i64 {
        i64::try_from(self.settings.stale_after.as_millis()).unwrap_or(i64::MAX)
    }
}

fn not_written(project: &str, error: &StoreError) -> NoRun {
    tracing::warn!(project, %error, "a run could not be written down");
    let message = "the database did not answer: the run was not started; try again";
    NoRun::Refused(NotStarted::Failed, Refusal::unavailable(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(text: &str) -> Task {
        serde_json::from_str(text).expect("a task")
    }

    #[test]
    fn a_task_becomes_arguments_and_never_options() {
        let run = ObjectId::parse_str("69d0f41bc2b4e5f60718293b").expect("an id");
        let fixed = ["--project-id", "p", "--run-id", "69d0f41bc2b4e5f60718293b"];
        assert_eq!(task("{}").arguments("p", run), fixed);
        let full = task(r#"{"areas":["churn","levels"],"max_steps":100,"min_steps":60,"unknown":true}"#);
        assert_eq!(full.problem(), None);
        assert_eq!(full.arguments("p", run)[4..], ["--areas", "churn,levels", "--max-steps", "100", "--min-steps", "60"]);
        for wrong in [
            r#"{"areas":["--test"]}"#,
            r#"{"areas":["a,b"]}"#,
            r#"{"areas":[""]}"#,
            r#"{"areas":["a\nb"]}"#,
            r#"{"max_steps":10001}"#,
            r#"{"max_steps":10,"min_steps":11}"#,
        ] {
            assert!(task(wrong).problem().is_some(), "{wrong}");
        }
    }
}
