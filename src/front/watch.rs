//! The watch over claims and runs: a claim ends with its run, a run that nobody has claimed is adopted, and one whose agent
//! is gone is told, and marked as failed only where the configuration says so.
//!
//! Every front door watches; each step is one conditional update, so that it does not matter who comes first.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;

use crate::config::front::admission::Admission;
use crate::front::admission::{Step, reconcile};
use crate::front::claims::Claims;
use crate::front::jobs;
use crate::front::metrics::starts::StartMetrics;
use crate::front::processes;
use crate::store::cluster::{Cluster, ClusterError};
use crate::store::mongodb::StoreError;

/// Looks at claims and runs again and again.
#[derive(Debug)]
pub struct Watch {
    claims: Arc<Claims>,
    admission: Admission,
    metrics: StartMetrics,
    has_looked: Sender<bool>,
    /// Where agents are Jobs.
    cluster: Option<Cluster>,
}

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error("the database: {0}")]
    Store(#[from] StoreError),
    #[error("the cluster: {0}")]
    Cluster(#[from] ClusterError),
}

// === impl Watch ===

impl Watch {
    /// A watch that tells by `has_looked` when it has looked for the first time.
    #[must_use]
    pub fn new(claims: Arc<Claims>, admission: Admission, metrics: StartMetrics, has_looked: Sender<bool>) -> Self {
        let cluster = admission.jobs.clone().map(Cluster::new);
        Self { claims, admission, metrics, has_looked, cluster }
    }

    /// Looks until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut has_failed = false;
        while !stop.is_cancelled() {
            let looked = self.look().await;
            if let Err(error) = &looked
                && !has_failed
            {
                tracing::warn!(%error, "cannot look at runs, their claims and their Jobs; nothing more is done about them until that is possible");
            }
            has_failed = looked.is_err();
            self.metrics.success.set(i64::from(!has_failed));
            if !has_failed {
                self.has_looked.send_replace(true);
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(self.admission.every) => {}
            }
        }
    }

    async fn look(&self) -> Result<(), LookError> {
        let claims = self.claims.held().await?;
        let runs = self.claims.active().await?;
        self.metrics.show_claims(&claims);
        let mut silent = BTreeSet::new();
        for step in reconcile(&claims, &runs, self.admission.stale_after) {
            match step {
                Step::End { project, run } => self.claims.end(&project, &run).await?,
                Step::Lapse { project } => self.claims.lapse(&project).await?,
                Step::Adopt { project, run } => {
                    if self.claims.adopt(&project, &run).await? {
                        tracing::info!(project, run, "a run that was not started here holds its project from now on");
                    }
                }
                Step::Stale { run } => drop(silent.insert(run)),
            }
        }
        let mut gone = without_process(silent).await;
        if let Some(cluster) = self.cluster.as_ref().filter(|_| !gone.is_empty()) {
            let living = jobs::that_run(cluster, &gone).await?;
            gone.retain(|run| !living.contains(run));
        }
        let mut stale = i64::try_from(gone.len()).unwrap_or(i64::MAX);
        for run in gone.iter().filter(|_| self.admission.mark_failed) {
            if self.claims.mark_failed(run, self.admission.stale_after).await? {
                self.metrics.marked_failed.inc();
                tracing::warn!(
                    run,
                    "a run was marked as failed: its agent has not stirred for longer than `stale_after`, and is not to be seen"
                );
                stale -= 1;
            }
        }
        self.metrics.stale.set(stale);
        Ok(())
    }
}

/// Those of the runs whose agent is no process that can be seen from here. One that is there is stuck, and not gone.
async fn without_process(silent: BTreeSet<String>) -> BTreeSet<String> {
    if silent.is_empty() {
        return silent;
    }
    let runs = silent.clone();
    let living = tokio::task::spawn_blocking(move || processes::that_name(&runs)).await.unwrap_or_default();
    silent.difference(&living).cloned().collect()
}
