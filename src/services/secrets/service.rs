//! The secrets service itself: the application's own routes and bodies, over a provider.
//!
//! | route | answers |
//! |---|---|
//! | `GET /api/v1/projects/{id}/secrets` | the names, masks and ages of a project's secrets |
//! | `PUT /api/v1/projects/{id}/secrets/{key}` | stores `{"value":"…"}` |
//!
//! A value comes in and is encrypted, or is read to be masked; it goes nowhere else, and its memory is cleared.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path as Segments, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use crate::clock::Now;
use crate::config::secrets::Secrets;
use crate::config::services::{Provider, SecretsService as Settings};
use crate::config::stores::MongoStore;
use crate::metrics::Registry;
use crate::runtime::caller::Caller;
use crate::services::answer::{self, Refusal};
use crate::services::projects::Projects;
use crate::services::secrets::cloud::{Cloud, CloudFault};
use crate::services::secrets::folder::Folder;
use crate::services::secrets::held::Held;
use crate::services::secrets::mask::mask;
use crate::services::secrets::metrics::{Answered, Operation, SecretsMetrics};
use crate::services::secrets::trail::{Entry, Trail};
use crate::services::secrets::vault::project::New;
use crate::services::secrets::{Keyring, SecretsError, Vault};
use crate::store::mongodb::{Mongo, Purpose};

/// The largest credentials that are known are files of 3 KB.
const BODY_LIMIT: usize = 64 * 1024;
/// The application takes any name, and uses four.
const LONGEST_KEY: usize = 128;

/// The service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SecretsServiceError {
    /// It would store keys as plaintext.
    #[error(
        "the secrets service has no key: set SECRET_ENCRYPTION_KEY, or SECRET_ENCRYPTION_KEY_FILE to the path of a file with it \
         (make one with `openssl rand -base64 32`); `services.secrets.allow_plaintext: true` stores secrets as they are"
    )]
    NoKey,
    /// There is nowhere to store them.
    #[error("the secrets service stores in `stores.mongodb`, which is not there; or choose `services.secrets.provider: file`")]
    NoStore,
    /// The cloud's service cannot be used.
    #[error("the secrets service cannot use the service of the cloud: {0}")]
    Cloud(String),
}

/// What the handlers work with.
struct Service {
    kept: Kept,
    namespace: String,
    /// `None` where there is no database that knows the projects.
    projects: Option<Projects>,
    trail: Trail,
    metrics: SecretsMetrics,
}

/// Where values are.
enum Kept {
    Vault { vault: Vault, keyring: Keyring, unique: OnceCell<()> },
    Folder(Folder),
    Cloud(Cloud),
}

/// A body.
#[derive(Deserialize)]
struct Wanted {
    #[serde(default, deserialize_with = "zeroizing")]
    value: Zeroizing<String>,
}

fn zeroizing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    Option::<String>::deserialize(deserializer).map(|value| Zeroizing::new(value.unwrap_or_default()))
}

/// The routes of the service.
///
/// # Errors
/// Without a key, unless plaintext is allowed, and without a database.
pub fn router(
    settings: &Settings,
    secrets: &Secrets,
    store: Option<&MongoStore>,
    state_dir: Option<&Path>,
    registry: &mut Registry,
) -> Result<Router, SecretsServiceError> {
    let mongo = |store| Arc::new(Mongo::new(store, Purpose::Secrets));
    let kept = match &settings.provider {
        Provider::Cloud(cloud) => Kept::Cloud(Cloud::open(cloud, &settings.namespace).map_err(SecretsServiceError::Cloud)?),
        Provider::File(path) => Kept::Folder(Folder::new(path.clone(), settings.namespace.clone())),
        Provider::MongoDb => {
            let keyring = Keyring::new(secrets.key.as_ref(), &secrets.previous_keys);
            if !keyring.can_seal() {
                if !settings.allow_plaintext {
                    return Err(SecretsServiceError::NoKey);
                }
                tracing::warn!("the secrets service has no key and stores secrets as plaintext, as `allow_plaintext` says");
            }
            let vault = Vault::new(store.ok_or(SecretsServiceError::NoStore)?, &secrets.collection);
            Kept::Vault { vault, keyring, unique: OnceCell::new() }
        }
    };
    let metrics = SecretsMetrics::default();
    metrics.register(registry);
    let service = Service {
        kept,
        namespace: settings.namespace.clone(),
        projects: store.map(|store| Projects::new(mongo(store))),
        trail: Trail::new(state_dir),
        metrics,
    };
    Ok(Router::new()
        .route("/api/v1/projects/{project}/secrets", get(list))
        .route("/api/v1/projects/{project}/secrets/{key}", put(set))
        .fallback(answer::not_found)
        .method_not_allowed_fallback(answer::wrong_method)
        .with_state(Arc::new(service)))
}

async fn list(State(service): State<Arc<Service>>, project: Result<Segments<String>, PathRejection>) -> Response {
    let listed = match project {
        Ok(Segments(project)) => service.list(&project).await,
        Err(_) => Err(unreadable_path()),
    };
    service.answer(Operation::List, listed)
}

async fn set(
    State(service): State<Arc<Service>>,
    segments: Result<Segments<(String, String)>, PathRejection>,
    request: Request,
) -> Response {
    let set = match segments {
        Ok(Segments((project, key))) => service.set(project, key, request).await,
        Err(_) => Err(unreadable_path()),
    };
    service.answer(Operation::Set, set)
}

fn unreadable_path() -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "the path is not valid UTF-8")
}

// === impl Service ===

impl Service {
    fn answer(&self, operation: Operation, outcome: Result<Value, Refusal>) -> Response {
        let answered = match &outcome {
            Ok(_) => Answered::Done,
            Err(refusal) if refusal.is_failure() => Answered::Failed,
            Err(_) => Answered::Refused,
        };
        self.metrics.count(operation, answered);
        outcome.map_or_else(|refusal| refusal.into_response(), |value| answer::data(StatusCode::OK, &value))
    }

    async fn list(&self, project: &str) -> Result<Value, Refusal> {
        self.check_project(project).await?;
        let held = match &self.kept {
            Kept::Vault { vault, keyring, .. } => {
                let held = vault.of_project(&self.namespace, project, keyring).await;
                held.map_err(|error| failed("the secrets could not be listed", &error))?
            }
            Kept::Folder(folder) => {
                let (folder, project) = (folder.clone(), project.to_owned());
                let held = tokio::task::spawn_blocking(move || folder.list(&project)).await;
                held.unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into())).map_err(|error| {
                    tracing::warn!(%error, "the folder of secrets cannot be read");
                    Refusal::unavailable("the secrets could not be listed: their folder cannot be read")
                })?
            }
            Kept::Cloud(cloud) => cloud.list(project).await.map_err(|fault| refused("the secrets could not be listed", fault))?,
        };
        Ok(held.iter().map(Held::shown).collect())
    }

    async fn set(&self, project: String, key: String, request: Request) -> Result<Value, Refusal> {
        if key.len() > LONGEST_KEY || key.chars().any(char::is_control) {
            let message = format!("the name of a secret has at most {LONGEST_KEY} bytes, and no control characters");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
        }
        if let Kept::Folder(_) = &self.kept {
            let message = "secrets are files of a folder here and can only be read: change them where they are mounted from";
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message));
        }
        let (parts, body) = request.into_parts();
        let caller = Caller::of(&parts.extensions);
        let value = {
            let body = answer::read(body, BODY_LIMIT).await?;
            answer::parse::<Wanted>(&body)?.value
        };
        if value.is_empty() {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "value is required"));
        }
        self.check_project(&project).await?;
        let now = Now::read().wall;
        let stored = match &self.kept {
            Kept::Vault { vault, keyring, unique } => {
                let stored = self.seal_and_store(vault, keyring, unique, (&project, &key, &value), now).await;
                stored.map_err(|error| failed("the secret could not be stored; whether it was is not known", &error))
            }
            Kept::Cloud(cloud) => {
                let stored = cloud.set(&project, &key, &value).await.map(|()| true);
                stored.map_err(|fault| refused("the secret could not be stored; whether it was is not known", fault))
            }
            Kept::Folder(_) => Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "secrets are files of a folder here")),
        };
        let outcome = if stored.is_ok() { "saved" } else { "failed" };
        let namespace = self.namespace.clone();
        self.trail.write(Entry { time: now, caller, namespace, project, key: key.clone(), outcome }).await;
        let encrypted = stored?;
        let mut saved = json!({ "key": key, "masked": mask(value.as_bytes()), "status": "saved" });
        if let Some(saved) = saved.as_object_mut().filter(|_| !encrypted) {
            saved.insert("warning".to_owned(), "stored without encryption".into());
        }
        Ok(saved)
    }

    /// Stores a value of a project under its name. Whether it is encrypted there.
    async fn seal_and_store(
        &self,
        vault: &Vault,
        keyring: &Keyring,
        unique: &OnceCell<()>,
        (project, key, value): (&str, &str, &Zeroizing<String>),
        now: jiff::Timestamp,
    ) -> Result<bool, SecretsError> {
        let encrypted = keyring.can_seal();
        let stored = if encrypted { keyring.seal(value.as_bytes())? } else { value.to_string() };
        unique.get_or_init(|| make_unique(vault)).await;
        let (namespace, now) = (self.namespace.as_str(), now.as_millisecond());
        vault.set(New { namespace, project, key, value: stored, encrypted, now }).await?;
        Ok(encrypted)
    }

    async fn check_project(&self, project: &str) -> Result<(), Refusal> {
        match &self.projects {
            Some(projects) => projects.find(project).await.map(|_| ()),
            None => Ok(()),
        }
    }
}

/// Without the index the service works, and two that set the same new secret at once may make two of it.
async fn make_unique(vault: &Vault) {
    if let Err(error) = vault.ensure_unique().await {
        tracing::warn!(error = chain(&error), "the unique index of the secrets could not be made; the next start tries again");
    }
}

fn failed(what: &str, error: &SecretsError) -> Refusal {
    tracing::warn!(error = chain(error), "{what}");
    Refusal::unavailable(what)
}

fn refused(what: &str, fault: CloudFault) -> Refusal {
    if fault == CloudFault::Name {
        return Refusal::new(StatusCode::BAD_REQUEST, "the name of a secret or a project holds what the cloud's service does not take");
    }
    tracing::warn!(%fault, "{what}");
    Refusal::unavailable(what)
}

/// An error with its cause.
fn chain(error: &SecretsError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
