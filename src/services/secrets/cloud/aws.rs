//! Amazon's Secrets Manager: `NAMESPACE/PROJECT/KEY`, by its JSON protocol, each call signed (Signature Version 4).

use std::str::FromStr as _;

use axum::http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use mongodb::bson::Uuid;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{HttpRequest, HttpRequestBody};
use reqwest::{Client, Method, Url};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::config::storage::StorageAccess;
use crate::services::secrets::Standing;
use crate::services::secrets::cloud::{Answer, CloudFault, MOST, client, send};
use crate::services::secrets::held::Held;

/// Where the application's own provider looks, unless told otherwise.
const REGION: &str = "us-east-1";
const SERVICE: &str = "secretsmanager";

pub(in crate::services::secrets) struct Manager {
    client: Client,
    credentials: AwsCredentialProvider,
    region: String,
    endpoint: Url,
    namespace: String,
}

// === impl Manager ===

impl Manager {
    pub fn open(region: Option<&str>, endpoint: Option<&Url>, access: &StorageAccess, namespace: &str) -> Result<Self, String> {
        let options: Vec<(AmazonS3ConfigKey, String)> = access.options("AWS_")?;
        let of_environment = options.iter().find(|(key, _)| *key == AmazonS3ConfigKey::Region).map(|(_, region)| region.as_str());
        let region = region.or(of_environment).unwrap_or(REGION).to_owned();
        // The builder is the one place that knows every way to credentials: keys, a pod's, a task's or the machine's identity.
        let mut builder = AmazonS3Builder::new().with_bucket_name("none").with_region(&region);
        for (key, value) in options.iter().filter(|(key, _)| *key != AmazonS3ConfigKey::Region) {
            builder = builder.with_config(*key, value);
        }
        let store = builder.build().map_err(|_| "the variables AWS_… are not understood".to_owned())?;
        let default = format!("https://{SERVICE}.{region}.amazonaws.com/");
        let endpoint = match endpoint {
            Some(endpoint) => endpoint.clone(),
            None => Url::from_str(&default).map_err(|_| "`region` is no region, such as eu-central-1".to_owned())?,
        };
        let client = client().map_err(|_| "there is no HTTP client to be had".to_owned())?;
        Ok(Self { client, credentials: store.credentials().clone(), region, endpoint, namespace: namespace.to_owned() })
    }

    pub async fn list(&self, project: &str) -> Result<Vec<Held>, CloudFault> {
        let prefix = self.name(project, "")?;
        let (mut held, mut next) = (Vec::new(), Value::Null);
        loop {
            let mut body = json!({ "Filters": [{ "Key": "name", "Values": [prefix] }], "MaxResults": MOST });
            if !next.is_null() {
                body["NextToken"] = next;
            }
            let page = done(&self.call("ListSecrets", &body).await?)?;
            for secret in page["SecretList"].as_array().ok_or(CloudFault::Form)? {
                // The filter takes no heed of upper and lower case.
                let name = secret["Name"].as_str().ok_or(CloudFault::Form)?;
                let key = name.strip_prefix(&prefix).filter(|key| !key.is_empty() && secret["DeletedDate"].is_null());
                if let Some(key) = key {
                    held.push(self.held(name, key, &secret["LastChangedDate"]).await?);
                }
            }
            next = page["NextToken"].clone();
            if next.is_null() || held.len() >= MOST {
                return Ok(held);
            }
        }
    }

    async fn held(&self, name: &str, key: &str, changed: &Value) -> Result<Held, CloudFault> {
        let answer = self.call("GetSecretValue", &json!({ "SecretId": name })).await?;
        let value = match fault(&answer) {
            None => answer.json()?["SecretString"].as_str().map(|text| Zeroizing::new(text.as_bytes().to_vec())),
            // It has no value yet, or none any more.
            Some(AwsFault::Missing | AwsFault::Refused) => None,
            Some(other) => return Err(other.told(answer.status)),
        };
        let standing = if value.is_some() { Standing::Current } else { Standing::Malformed };
        let updated = changed.as_f64().and_then(|seconds| jiff::SignedDuration::try_from_secs_f64(seconds).ok());
        let updated = updated.and_then(|since| Timestamp::UNIX_EPOCH.checked_add(since).ok()).map(Timestamp::as_millisecond);
        Ok(Held { key: key.to_owned(), value, standing, updated })
    }

    pub async fn set(&self, project: &str, key: &str, value: &str) -> Result<(), CloudFault> {
        let name = self.name(project, key)?;
        // Of two that make the same new secret at once, one finds that it is there.
        for _ in 0..2 {
            let put = json!({ "SecretId": name, "SecretString": value, "ClientRequestToken": Uuid::new().to_string() });
            let answer = self.call("PutSecretValue", &put).await?;
            match fault(&answer) {
                None => return Ok(()),
                Some(AwsFault::Missing) => {}
                Some(AwsFault::Refused) => return Err(CloudFault::Deleted),
                Some(other) => return Err(other.told(answer.status)),
            }
            let tag = |key: &str, value: &str| json!({ "Key": key, "Value": value });
            let make = json!({
                "Name": name, "SecretString": value, "ClientRequestToken": Uuid::new().to_string(),
                "Tags": [tag("managed-by", "decisionbox"), tag("namespace", &self.namespace), tag("project-id", project)],
            });
            let answer = self.call("CreateSecret", &make).await?;
            match fault(&answer) {
                None => return Ok(()),
                Some(AwsFault::Exists) => {}
                Some(AwsFault::Refused) => return Err(CloudFault::Deleted),
                Some(other) => return Err(other.told(answer.status)),
            }
        }
        Err(CloudFault::Form)
    }

    fn name(&self, project: &str, key: &str) -> Result<String, CloudFault> {
        let name = format!("{}/{project}/{key}", self.namespace);
        let is_taken = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte);
        if name.len() <= 512 && name.bytes().all(is_taken) && !project.contains('/') { Ok(name) } else { Err(CloudFault::Name) }
    }

    async fn call(&self, operation: &str, body: &Value) -> Result<Answer, CloudFault> {
        let credential = self.credentials.get_credential().await.map_err(|_| CloudFault::Unauthenticated)?;
        let body = body.to_string().into_bytes();
        let mut request = HttpRequest::new(HttpRequestBody::from(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.as_str().parse().map_err(|_| CloudFault::Form)?;
        let target = HeaderValue::from_str(&format!("{SERVICE}.{operation}")).map_err(|_| CloudFault::Form)?;
        request.headers_mut().insert("x-amz-target", target);
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/x-amz-json-1.1"));
        let signed = AwsAuthorizer::new(&credential, SERVICE, &self.region).try_authorize(&mut request, None);
        signed.map_err(|_| CloudFault::Unauthenticated)?;
        let headers: HeaderMap = std::mem::take(request.headers_mut());
        send(&self.client, Method::POST, self.endpoint.clone(), headers, body).await
    }
}

/// What an answer that is no success says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum AwsFault {
    Missing,
    Exists,
    /// Not in this state of the secret: it is marked for deletion.
    Refused,
    Forbidden,
    Unauthenticated,
    Other,
}

// === impl AwsFault ===

impl AwsFault {
    fn told(self, status: u16) -> CloudFault {
        match self {
            Self::Forbidden => CloudFault::Forbidden,
            Self::Unauthenticated => CloudFault::Unauthenticated,
            Self::Refused => CloudFault::Deleted,
            Self::Missing | Self::Exists | Self::Other => CloudFault::Status(status),
        }
    }
}

fn fault(answer: &Answer) -> Option<AwsFault> {
    if answer.status == 200 {
        return None;
    }
    let said = answer.json().unwrap_or_default();
    // `com.amazonaws…#Name` or the name alone.
    let kind = said["__type"].as_str().unwrap_or_default().rsplit('#').next().unwrap_or_default();
    Some(match kind {
        "ResourceNotFoundException" => AwsFault::Missing,
        "ResourceExistsException" => AwsFault::Exists,
        "InvalidRequestException" => AwsFault::Refused,
        "AccessDeniedException" | "AccessDenied" => AwsFault::Forbidden,
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "ExpiredTokenException"
        | "MissingAuthenticationTokenException"
        | "SignatureDoesNotMatch"
        | "InvalidClientTokenId"
        | "IncompleteSignature" => AwsFault::Unauthenticated,
        _ if answer.status == 401 || answer.status == 403 => AwsFault::Unauthenticated,
        _ => AwsFault::Other,
    })
}

fn done(answer: &Answer) -> Result<Value, CloudFault> {
    match fault(answer) {
        None => answer.json(),
        Some(fault) => Err(fault.told(answer.status)),
    }
}
