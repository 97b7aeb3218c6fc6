//! What goes on by itself: agents are looked at, their ends are written down, their heartbeats are sent, and what an
//! earlier process has left half done is brought to its end.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mongodb::bson::oid::ObjectId;
use tokio_util::sync::CancellationToken;

use crate::clock::Now;
use crate::runtime::supervise::PartResult;
use crate::services::runs::Runs;
use crate::services::runs::roster::Ended;
use crate::services::runs::run::{Exit, Phase, Status, Verdict};
use crate::store::mongodb::StoreError;

/// Twelve heartbeats fit into a claim: eleven may fail.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a claim lasts without a heartbeat.
pub(super) const CLAIM: Duration = Duration::from_secs(60);
/// How often claims without an agent are looked for.
const SWEEP: Duration = Duration::from_secs(30);
/// When the end of a run that could not be written down is tried again.
const RETRY: Duration = Duration::from_secs(2);

// === impl Runs ===

impl Runs {
    /// Keeps runs until `stop`. Agents go on after it.
    ///
    /// # Errors
    /// None of its own: what the database does not take is tried again.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) -> PartResult {
        let (mut beat, mut swept, mut has_failed) = (None::<Instant>, None::<Instant>, false);
        let is_due = |last: Option<Instant>, every| last.is_none_or(|last| last.elapsed() >= every);
        loop {
            self.look(&mut has_failed).await;
            if is_due(beat, HEARTBEAT) {
                beat = Some(Instant::now());
                self.heartbeat().await;
            }
            if is_due(swept, SWEEP) {
                swept = Some(Instant::now());
                self.sweep().await;
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.bell.notified() => {}
                () = tokio::time::sleep(self.agents.every()) => {}
            }
        }
    }

    async fn look(&self, has_failed: &mut bool) {
        match self.agents.look().await {
            Ok(reattached) => {
                self.metrics.reattached(reattached);
                *has_failed = false;
            }
            Err(error) => {
                self.metrics.look_failed();
                if !std::mem::replace(has_failed, true) {
                    tracing::warn!(
                        error = &error as &dyn Error,
                        "agents cannot be looked at; what is known of them stays until that is possible"
                    );
                }
            }
        }
        let all = self.agents.all();
        let unrecorded = all.iter().filter(|(_, _, phase)| *phase == Phase::Ended).count();
        self.metrics.note(all.len() - unrecorded, unrecorded);
        for ended in self.agents.ended().await {
            if let Err(error) = self.record(&ended).await {
                tracing::warn!(run = %ended.run, error = &*error, "the end of a run could not be written down; trying again");
                self.agents.postpone(ended.run, RETRY);
            }
        }
    }

    /// Writes down what a run has come to, and frees its project. May be done twice.
    async fn record(&self, ended: &Ended) -> Result<(), Box<dyn Error + Send + Sync>> {
        let Ended { run, project, cancelled, ending, last_error } = ended;
        self.agents.rule_out(ended).await?;
        let document = self.documents.status(*run).await?;
        let status = document.as_ref().and_then(|document| Status::named(document.get_str("status").ok()?));
        let verdict = ending.verdict(status, *cancelled, last_error.as_deref());
        if let Some(verdict) = verdict.as_ref().filter(|_| document.is_some()) {
            self.documents.finish(*run, verdict, Now::read().wall.as_millisecond()).await?;
        }
        let freed = self.claims.release(project, &run.to_hex()).await?;
        // Each of several replicas sees the end of a Job; it is counted by the one that frees its project.
        if freed || !self.agents.are_shared() {
            self.tell(ended, verdict.as_ref(), status);
        }
        if let Err(error) = self.agents.recorded(*run).await {
            // It is still here, and all of this is done again.
            if self.agents.has(*run) {
                return Err(error.into());
            }
            tracing::warn!(%run, error = &error as &dyn Error, "that a run is written down could not be noted; after a restart that is done once more");
        }
        Ok(())
    }

    /// Counts and logs what a run has come to.
    fn tell(&self, ended: &Ended, verdict: Option<&Verdict>, status: Option<Status>) {
        let Ended { run, project, ending, .. } = ended;
        let status = verdict.map(|verdict| verdict.status).or(status).unwrap_or(Status::Failed);
        self.metrics.ended(status);
        let error = verdict.and_then(|verdict| verdict.error.as_deref()).unwrap_or_default();
        match &ending.exit {
            Exit::Code(0) => tracing::info!(%run, %project, status = status.word(), "an agent has ended"),
            exit => tracing::warn!(%run, %project, status = status.word(), ?exit, error = %error.escape_debug(), "an agent has ended"),
        }
    }

    /// Keeps the claims of agents that live, and hears of wishes to cancel them.
    async fn heartbeat(&self) {
        let live: Vec<(ObjectId, String)> =
            self.agents.all().into_iter().filter(|(_, _, phase)| *phase == Phase::Live).map(|(run, project, _)| (run, project)).collect();
        let all: Vec<String> = self.agents.all().iter().map(|(run, _, _)| run.to_hex()).collect();
        if all.is_empty() {
            return;
        }
        let claims = match self.claims.renew(all).await {
            Ok(()) => self.claims.ours().await,
            Err(error) => Err(error),
        };
        let claims = match claims {
            Ok(claims) => claims,
            Err(error) => {
                self.metrics.heartbeat_failed();
                tracing::warn!(%error, "the heartbeat of runs could not be written; trying again");
                return;
            }
        };
        for (run, project) in live {
            let hex = run.to_hex();
            let claim = claims.iter().find(|claim| claim.run == hex);
            if claim.is_none() && self.claims.find(&project).await.is_ok_and(|claim| claim.is_some_and(|claim| claim.run != hex)) {
                tracing::error!(%run, %project, "another run has taken the project over, as this one had no heartbeat for long; its agent is told to end");
                self.agents.cancel(run).await;
            }
            if claim.is_some_and(|claim| claim.cancel.as_deref() == Some(hex.as_str())) {
                tracing::info!(%run, %project, "a run is cancelled by way of another process");
                self.agents.cancel(run).await;
            }
        }
    }

    /// Ends what a process began and was killed in: a claim without an agent.
    async fn sweep(&self) {
        if let Err(error) = self.free_claims().await {
            tracing::warn!(%error, "claims of runs without an agent could not be looked for; trying again");
        }
        if let Err(error) = self.agents.prune(self.settings.keep, Now::read().wall.into()).await {
            tracing::warn!(error = &error as &dyn Error, "old outputs of agents could not be removed");
        }
    }

    async fn free_claims(&self) -> Result<(), StoreError> {
        let lapsed = self.claims.lapsed().await?;
        for claim in self.claims.ours().await? {
            let Ok(run) = ObjectId::parse_str(&claim.run) else { continue };
            if self.agents.has(run) {
                continue;
            }
            let Some(ending) = self.agents.ending_of_missing(lapsed.contains(&claim)) else { continue };
            let document = self.documents.status(run).await?;
            let status = document.as_ref().and_then(|document| Status::named(document.get_str("status").ok()?));
            if let Some(verdict) = ending.verdict(status, false, None).filter(|_| document.is_some()) {
                self.documents.finish(run, &verdict, Now::read().wall.as_millisecond()).await?;
            }
            self.claims.release(&claim.project, &claim.run).await?;
            tracing::warn!(%run, project = claim.project, "a claim without an agent was given back");
        }
        Ok(())
    }
}
