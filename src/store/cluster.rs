//! Kubernetes, as far as agents need it: Jobs with their pods, and the Secret of each. One namespace.
//!
//! Nothing is connected before the first question, and each question has a deadline.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::Status;
use kube::{Api, Client, Config};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::config::cluster::ClusterAccess;
use crate::store::fault::Fault;

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// What the cluster writes down as the author of a change.
const MANAGER: &str = "bellwether";
/// The service account's namespace, in a pod.
const DEFAULT_NAMESPACE: &str = "default";

/// A namespace of a cluster.
pub struct Cluster {
    access: ClusterAccess,
    client: OnceCell<(Client, String)>,
}

/// Why the cluster could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// There is no kubeconfig, or it is none.
    #[error("the kubeconfig {path} cannot be used")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: Box<KubeconfigError>,
    },
    /// This is no pod with a service account.
    #[error("this is no pod with a service account, and no kubeconfig is configured")]
    Outside(#[source] Box<InClusterError>),
    /// It answered, and does not want to.
    #[error("the API server answered {code} {reason}: {message}")]
    Refused {
        /// The status code.
        code: u16,
        /// Its word for it, such as `Forbidden`.
        reason: String,
        /// What it says.
        message: String,
    },
    /// It was not reached.
    #[error("the API server was not reached: {}", .0.text())]
    Unreached(Fault),
}

// === impl ClusterError ===

impl ClusterError {
    /// Whether what was asked for is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }

    /// Whether somebody else was faster.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { code: 409, .. })
    }
}

impl From<kube::Error> for ClusterError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let Status { code, reason, message, .. } = *status;
                Self::Refused { code, reason, message }
            }
            other => Self::Unreached(Fault::of(&other)),
        }
    }
}

// === impl Cluster ===

impl Cluster {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(access: ClusterAccess) -> Self {
        Self { access, client: OnceCell::new() }
    }

    async fn client(&self) -> Result<&(Client, String), ClusterError> {
        self.client
            .get_or_try_init(|| async {
                let mut config = read(self.access.kubeconfig.as_deref()).await?;
                config.connect_timeout = Some(CONNECT_LIMIT);
                let namespace = self.access.namespace.clone().unwrap_or_else(|| config.default_namespace.trim().to_owned());
                let namespace = if namespace.is_empty() { DEFAULT_NAMESPACE.to_owned() } else { namespace };
                Ok((Client::try_from(config)?, namespace))
            })
            .await
    }

    async fn api<K>(&self) -> Result<Api<K>, ClusterError>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        let (client, namespace) = self.client().await?;
        Ok(Api::namespaced(client.clone(), namespace))
    }

    /// The Jobs with these labels.
    ///
    /// # Errors
    /// When the cluster does not answer, or does not let us.
    pub async fn jobs(&self, labels: &str) -> Result<Vec<Job>, ClusterError> {
        let (api, wanted) = (self.api::<Job>().await?, ListParams::default().labels(labels));
        within(api.list(&wanted)).await.map(|list| list.items)
    }

    /// The pods with these labels.
    ///
    /// # Errors
    /// As [`Cluster::jobs`].
    pub async fn pods(&self, labels: &str) -> Result<Vec<Pod>, ClusterError> {
        let (api, wanted) = (self.api::<Pod>().await?, ListParams::default().labels(labels));
        within(api.list(&wanted)).await.map(|list| list.items)
    }

    /// Makes a Job. What the cluster made of it.
    ///
    /// # Errors
    /// As [`Cluster::jobs`].
    pub async fn create_job(&self, job: &Job) -> Result<Job, ClusterError> {
        let api = self.api::<Job>().await?;
        within(api.create(&created(), job)).await
    }

    /// Makes a Secret.
    ///
    /// # Errors
    /// As [`Cluster::jobs`].
    pub async fn create_secret(&self, secret: &Secret) -> Result<(), ClusterError> {
        let api = self.api::<Secret>().await?;
        within(api.create(&created(), secret)).await.map(drop)
    }

    /// Changes a Job by a merge patch.
    ///
    /// # Errors
    /// As [`Cluster::jobs`].
    pub async fn patch_job(&self, name: &str, patch: &Value) -> Result<(), ClusterError> {
        let (api, params) = (self.api::<Job>().await?, PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() });
        within(api.patch(name, &params, &Patch::Merge(patch))).await.map(drop)
    }

    /// Has a Job deleted, which is there until its pods are gone. One that is not there is fine.
    ///
    /// # Errors
    /// As [`Cluster::jobs`].
    pub async fn delete_job(&self, name: &str) -> Result<(), ClusterError> {
        let api = self.api::<Job>().await?;
        match within(api.delete(name, &DeleteParams::foreground())).await {
            Err(error) if error.is_missing() => Ok(()),
            deleted => deleted.map(drop),
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Cluster").field("access", &self.access).finish_non_exhaustive()
    }
}

async fn read(kubeconfig: Option<&Path>) -> Result<Config, ClusterError> {
    let Some(path) = kubeconfig else { return Config::incluster().map_err(|cause| ClusterError::Outside(Box::new(cause))) };
    let failed = |cause| ClusterError::Kubeconfig { path: path.to_owned(), cause: Box::new(cause) };
    let read = Kubeconfig::read_from(path).map_err(failed)?;
    Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.map_err(failed)
}

fn created() -> PostParams {
    PostParams { dry_run: false, field_manager: Some(MANAGER.to_owned()) }
}

async fn within<T>(answer: impl Future<Output = kube::Result<T>>) -> Result<T, ClusterError> {
    match tokio::time::timeout(LIMIT, answer).await {
        Ok(answer) => answer.map_err(ClusterError::from),
        Err(_) => Err(ClusterError::Unreached(Fault::Timeout)),
    }
}
