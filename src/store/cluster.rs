//! Kubernetes, as far as agents need it: Jobs with their pods, and the Secret of each. One namespace.
//!
//! Nothing is connected before the first question, and each question has a deadline. What is asked for is written as JSON, and
//! of what is answered only a few fields are read: the whole types of Kubernetes are megabytes of code.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::http;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::Status;
use kube::{Client, Config};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::config::cluster::ClusterAccess;
use crate::store::fault::Fault;

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// What the cluster writes down as the author of a change.
const MANAGER: &str = "bellwether";
/// Where neither the configuration nor the cluster's own settings name one.
const DEFAULT_NAMESPACE: &str = "default";

/// What is looked after.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Job,
    Pod,
    Secret,
}

/// A request, unless it cannot be written.
type Asked = Result<http::Request<Vec<u8>>, kube::core::request::Error>;

#[derive(Debug, Deserialize)]
struct List<T> {
    items: Vec<T>,
}

/// What every object says of itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Which object of this name it is.
    pub uid: String,
    /// What it is found by.
    pub labels: BTreeMap<String, String>,
    /// What else was noted on it.
    pub annotations: BTreeMap<String, String>,
    /// When it was made, in RFC 3339, whose order is that of time.
    pub creation_timestamp: Option<String>,
    /// Since when it is being deleted.
    pub deletion_timestamp: Option<String>,
}

/// A Job.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Job {
    /// What it says of itself.
    pub metadata: Metadata,
    /// What was asked for.
    pub spec: JobSpec,
    /// What has become of it.
    pub status: JobStatus,
}

/// What was asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct JobSpec {
    /// It must not begin.
    pub suspend: bool,
}

/// What has become of a Job.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct JobStatus {
    /// What holds of it.
    pub conditions: Vec<Condition>,
}

/// Something that holds of an object, or does not.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// What, such as `Complete`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in a word.
    pub reason: String,
    /// Why, in words for people.
    pub message: String,
}

/// A pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// What it says of itself.
    pub metadata: Metadata,
    /// What has become of it.
    pub status: PodStatus,
}

/// What has become of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// Why it has ended, such as `Evicted`.
    pub reason: String,
    /// The same in words for people.
    pub message: String,
    /// What holds of it.
    pub conditions: Vec<Condition>,
    /// Its containers.
    pub container_statuses: Vec<ContainerStatus>,
}

/// What has become of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// One of three.
    pub state: ContainerState,
}

/// Where a container is: at most one is there.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    /// It has not begun.
    pub waiting: Option<Waiting>,
    /// It runs.
    pub running: Option<IgnoredAny>,
    /// It has ended.
    pub terminated: Option<Terminated>,
}

/// Why a container has not begun.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Waiting {
    /// In a word.
    pub reason: String,
    /// In words for people.
    pub message: String,
}

/// How a container has ended.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    /// Its exit code.
    pub exit_code: i32,
    /// The signal, where it is told.
    pub signal: i32,
    /// Such as `OOMKilled`.
    pub reason: String,
    /// What it has left to say.
    pub message: String,
}

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

// === impl Kind ===

impl Kind {
    /// Its group and its name in an address.
    fn path(self) -> (&'static str, &'static str) {
        match self {
            Self::Job => ("/apis/batch/v1", "jobs"),
            Self::Pod => ("/api/v1", "pods"),
            Self::Secret => ("/api/v1", "secrets"),
        }
    }
}

// === impl JobStatus ===

impl JobStatus {
    /// The condition of this kind, where it holds.
    #[must_use]
    pub fn holds(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind && condition.status == "True")
    }
}

// === impl ClusterError ===

impl ClusterError {
    /// Whether what was asked for is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }

    /// Whether we lack the right to it.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused { code: 403, .. })
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

    /// Asks for something at the collection of a kind in our namespace.
    async fn ask<T: DeserializeOwned>(&self, kind: Kind, request: impl FnOnce(&kube::core::Request) -> Asked) -> Result<T, ClusterError> {
        let (client, namespace) = self.client().await?;
        let (group, plural) = kind.path();
        let request = request(&kube::core::Request::new(format!("{group}/namespaces/{namespace}/{plural}")));
        let request = request.map_err(kube::Error::BuildRequest)?;
        match tokio::time::timeout(LIMIT, client.request(request)).await {
            Ok(answer) => answer.map_err(ClusterError::from),
            Err(_) => Err(ClusterError::Unreached(Fault::Timeout)),
        }
    }

    async fn list<T: DeserializeOwned>(&self, kind: Kind, labels: &str) -> Result<Vec<T>, ClusterError> {
        let wanted = ListParams::default().labels(labels);
        self.ask(kind, |collection| collection.list(&wanted)).await.map(|list: List<T>| list.items)
    }

    async fn create<T: DeserializeOwned>(&self, kind: Kind, object: &Value) -> Result<T, ClusterError> {
        self.ask(kind, |collection| {
            // A field that Kubernetes does not know is refused: it would do nothing, and nobody would be told.
            let address = format!("{}?fieldManager={MANAGER}&fieldValidation=Strict", collection.url_path);
            let body = serde_json::to_vec(object).map_err(kube::core::request::Error::SerializeBody)?;
            let request = http::Request::post(address).header(http::header::CONTENT_TYPE, "application/json");
            request.body(body).map_err(kube::core::request::Error::BuildRequest)
        })
        .await
    }

    /// The Jobs with these labels.
    ///
    /// # Errors
    /// When the cluster does not answer, or does not let us.
    pub async fn jobs(&self, labels: &str) -> Result<Vec<Job>, ClusterError> {
        self.list(Kind::Job, labels).await
    }

    /// The pods with these labels.
    ///
    /// # Errors
    /// As [`Cluster::jobs`].
    pub async fn pods(&self, labels: &str) -> Result<Vec<Pod>, ClusterError> {
        self.list(Kind::Pod, labels).await
    }

    /// Makes a Job. What the cluster made of it.
    ///
    /// # Errors
    /// As [`Cluster::jobs`].
    pub async fn create_job(&self, job: &Value) -> Result<Job, ClusterError> {
        self.create(Kind::Job, job).await
    }

    /// Makes a Secret.
    ///
    /// # Errors
    /// As [`Cluster::jobs`].
    pub async fn create_secret(&self, secret: &Value) -> Result<(), ClusterError> {
        self.create(Kind::Secret, secret).await.map(|IgnoredAny| ())
    }

    /// Changes a Job by a merge patch.
    ///
    /// # Errors
    /// As [`Cluster::jobs`].
    pub async fn patch_job(&self, name: &str, patch: &Value) -> Result<(), ClusterError> {
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        self.ask(Kind::Job, |jobs| jobs.patch(name, &params, &Patch::Merge(patch))).await.map(|IgnoredAny| ())
    }

    /// Has a Job deleted, which is there until its pods are gone. One that is not there is fine.
    ///
    /// # Errors
    /// As [`Cluster::jobs`].
    pub async fn delete_job(&self, name: &str) -> Result<(), ClusterError> {
        match self.ask(Kind::Job, |jobs| jobs.delete(name, &DeleteParams::foreground())).await {
            Err(error) if error.is_missing() => Ok(()),
            deleted => deleted.map(|IgnoredAny| ()),
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
