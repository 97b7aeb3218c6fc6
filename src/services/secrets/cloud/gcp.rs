//! Google's Secret Manager: `NAMESPACE-PROJECT-KEY`, by its REST interface, each call with a bearer token.

use std::str::FromStr as _;

use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use object_store::gcp::{GcpCredentialProvider, GoogleCloudStorageBuilder, GoogleConfigKey};
use reqwest::{Client, Method, Url};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::config::storage::StorageAccess;
use crate::services::secrets::Standing;
use crate::services::secrets::cloud::{Answer, CloudFault, MOST, client, send};
use crate::services::secrets::held::Held;

const ENDPOINT: &str = "https://secretmanager.googleapis.com/";

pub(in crate::services::secrets) struct Manager {
    client: Client,
    credentials: GcpCredentialProvider,
    endpoint: Url,
    /// The project of the cloud, which is none of the application's.
    parent: String,
    namespace: String,
}

// === impl Manager ===

impl Manager {
    pub fn open(project: &str, endpoint: Option<&Url>, access: &StorageAccess, namespace: &str) -> Result<Self, String> {
        // The builder is the one place that knows every way to credentials: a key, a pod's or the machine's identity. Their
        // scope is `cloud-platform`, which holds for secrets, too.
        let mut builder = GoogleCloudStorageBuilder::new().with_bucket_name("none");
        for (key, value) in access.options::<GoogleConfigKey>("GOOGLE_")? {
            builder = builder.with_config(key, value);
        }
        let store =
            builder.build().map_err(|_| "the variables GOOGLE_… are not understood, or the file of a key cannot be read".to_owned())?;
        let endpoint = match endpoint {
            Some(endpoint) => endpoint.clone(),
            None => Url::from_str(ENDPOINT).map_err(|error| error.to_string())?,
        };
        let client = client().map_err(|_| "there is no HTTP client to be had".to_owned())?;
        let parent = format!("v1/projects/{project}/secrets");
        Ok(Self { client, credentials: store.credentials().clone(), endpoint, parent, namespace: namespace.to_owned() })
    }

    pub async fn list(&self, project: &str) -> Result<Vec<Held>, CloudFault> {
        let prefix = self.id(project, "")?;
        let (mut held, mut next) = (Vec::new(), String::new());
        loop {
            let query = [("filter", format!("name:{prefix}")), ("pageSize", MOST.to_string()), ("pageToken", next)];
            let page = done(&self.call(Method::GET, "", &query, None).await?)?;
            // Without secrets there is no list.
            for secret in page["secrets"].as_array().into_iter().flatten() {
                let id = secret["name"].as_str().and_then(|name| name.rsplit('/').next()).ok_or(CloudFault::Form)?;
                if let Some(key) = id.strip_prefix(&prefix).filter(|key| !key.is_empty()) {
                    held.push(self.held(id, key).await?);
                }
            }
            next = page["nextPageToken"].as_str().unwrap_or_default().to_owned();
            if next.is_empty() || held.len() >= MOST {
                return Ok(held);
            }
        }
    }

    async fn held(&self, id: &str, key: &str) -> Result<Held, CloudFault> {
        let lost = Held { key: key.to_owned(), value: None, standing: Standing::Malformed, updated: None };
        let version = self.call(Method::GET, &format!("/{id}/versions/latest"), &[], None).await?;
        if version.status == 404 {
            return Ok(lost);
        }
        let updated = done(&version)?["createTime"].as_str().and_then(|time| Timestamp::from_str(time).ok()).map(Timestamp::as_millisecond);
        let answer = self.call(Method::GET, &format!("/{id}/versions/latest:access"), &[], None).await?;
        // The latest version may be disabled or destroyed.
        if matches!(answer.status, 400 | 404) {
            return Ok(Held { updated, ..lost });
        }
        let payload = done(&answer)?;
        let value = payload["payload"]["data"].as_str().and_then(|data| BASE64.decode(data).ok()).ok_or(CloudFault::Form)?;
        Ok(Held { key: key.to_owned(), value: Some(Zeroizing::new(value)), standing: Standing::Current, updated })
    }

    pub async fn set(&self, project: &str, key: &str, value: &str) -> Result<(), CloudFault> {
        let id = self.id(project, key)?;
        let version = json!({ "payload": { "data": BASE64.encode(value) } });
        let answer = self.call(Method::POST, &format!("/{id}:addVersion"), &[], Some(&version)).await?;
        if answer.status != 404 {
            return done(&answer).map(drop);
        }
        let labels = json!({ "managed-by": "decisionbox", "namespace": self.namespace, "project-id": project });
        let make = json!({ "replication": { "automatic": {} }, "labels": labels });
        let made = self.call(Method::POST, "", &[("secretId", id.clone())], Some(&make)).await?;
        // Of two that make the same new secret at once, one finds that it is there.
        if made.status != 409 {
            done(&made)?;
        }
        done(&self.call(Method::POST, &format!("/{id}:addVersion"), &[], Some(&version)).await?).map(drop)
    }

    fn id(&self, project: &str, key: &str) -> Result<String, CloudFault> {
        let id = format!("{}-{project}-{key}", self.namespace);
        let is_taken = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if id.len() <= 255 && id.bytes().all(is_taken) { Ok(id) } else { Err(CloudFault::Name) }
    }

    async fn call(&self, method: Method, path: &str, query: &[(&str, String)], body: Option<&Value>) -> Result<Answer, CloudFault> {
        let credential = self.credentials.get_credential().await.map_err(|_| CloudFault::Unauthenticated)?;
        let mut url = self.endpoint.join(&format!("{}{path}", self.parent)).map_err(|_| CloudFault::Form)?;
        for (name, value) in query.iter().filter(|(_, value)| !value.is_empty()) {
            url.query_pairs_mut().append_pair(name, value);
        }
        let mut headers = HeaderMap::new();
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", credential.bearer)).map_err(|_| CloudFault::Unauthenticated)?;
        bearer.set_sensitive(true);
        headers.insert("authorization", bearer);
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        send(&self.client, method, url, headers, body).await
    }
}

fn done(answer: &Answer) -> Result<Value, CloudFault> {
    match answer.status {
        200 => answer.json(),
        401 => Err(CloudFault::Unauthenticated),
        403 => Err(CloudFault::Forbidden),
        status => Err(CloudFault::Status(status)),
    }
}
