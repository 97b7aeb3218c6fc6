//! Archives in a bucket. A write is done when the storage has answered.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{ClientOptions, Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, RetryConfig};
use reqwest::Url;

use crate::config::storage::StorageAccess;
use crate::retention::archive::target::{Listing, MAX_OBJECT};
use crate::store::fault::Fault;

/// One request may take so long; a batch waits for it.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// A request is tried again for so long. After that the run stops and says why; the next run goes on.
const RETRY_LIMIT: Duration = Duration::from_secs(60);
const RETRIES: usize = 4;

/// A bucket, and a folder in it.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    store: Arc<dyn ObjectStore>,
    folder: Path,
}

/// Why an object could not be read or written. What the client library said is not kept: it may hold a signature.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RemoteFault {
    /// There is an object of this name.
    Exists,
    /// The bucket is not there.
    Missing,
    /// The credentials are not taken.
    Unauthenticated,
    /// The credentials do not allow it.
    Forbidden,
    /// The storage answered with this status.
    Status(u16),
    /// The object is larger than what is read.
    TooLarge,
    /// The storage could not be reached.
    Unreachable(Fault),
}

// === impl Remote ===

impl Remote {
    /// A bucket by its address. Says what is missing, where something is.
    pub(super) fn open(url: &Url, access: &StorageAccess) -> Result<Self, String> {
        let client = ClientOptions::new().with_timeout(REQUEST_LIMIT).with_connect_timeout(REQUEST_LIMIT);
        let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_LIMIT, ..RetryConfig::default() };
        let (bucket, folder) = (format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default()), url.path().trim_matches('/'));
        let folder = Path::from_url_path(folder).map_err(|_| "the folder is not a path".to_owned())?;
        let problem = |error: &Error| format!("{}; {}", fault_of(error), hint(url.scheme()));
        let store: Arc<dyn ObjectStore> = match url.scheme() {
            "s3" => {
                // Options of the client, such as AWS_ALLOW_HTTP, are taken by `with_config`: it must come later.
                let mut builder = AmazonS3Builder::new().with_url(bucket).with_client_options(client).with_retry(retry);
                for (key, value) in access.options::<AmazonS3ConfigKey>("AWS_")? {
                    builder = builder.with_config(key, value);
                }
                Arc::new(builder.build().map_err(|error| problem(&error))?)
            }
            "gs" => {
                let mut builder = GoogleCloudStorageBuilder::new().with_url(bucket).with_client_options(client).with_retry(retry);
                for (key, value) in access.options::<GoogleConfigKey>("GOOGLE_")? {
                    builder = builder.with_config(key, value);
                }
                Arc::new(builder.build().map_err(|error| problem(&error))?)
            }
            _ => {
                let mut builder = MicrosoftAzureBuilder::new().with_url(bucket).with_client_options(client).with_retry(retry);
                for (key, value) in access.options::<AzureConfigKey>("AZURE_")? {
                    builder = builder.with_config(key, value);
                }
                Arc::new(builder.build().map_err(|error| problem(&error))?)
            }
        };
        Ok(Self { store, folder })
    }

    pub(super) async fn create(&self, key: &str, bytes: Vec<u8>) -> Result<(), RemoteFault> {
        let path = self.path(key)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&path, bytes.clone().into(), options).await {
            Ok(_) => Ok(()),
            // The answer to the first attempt may have been lost: then what is there is ours.
            Err(Error::AlreadyExists { .. }) if self.read(key).await?.as_deref() == Some(bytes.as_slice()) => Ok(()),
            Err(error) => Err(fault_of(&error)),
        }
    }

    pub(super) async fn replace(&self, key: &str, bytes: Vec<u8>) -> Result<(), RemoteFault> {
        let path = self.path(key)?;
        self.store.put(&path, bytes.into()).await.map(drop).map_err(|error| fault_of(&error))
    }

    pub(super) async fn read(&self, key: &str) -> Result<Option<Vec<u8>>, RemoteFault> {
        let path = self.path(key)?;
        let found = match self.store.get(&path).await {
            Err(Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(|error| fault_of(&error))?,
        };
        if found.meta.size > MAX_OBJECT {
            return Err(RemoteFault::TooLarge);
        }
        found.bytes().await.map(|bytes| Some(bytes.into())).map_err(|error| fault_of(&error))
    }

    pub(super) async fn list(&self, folder: &str) -> Result<Listing, RemoteFault> {
        let path = self.path(folder)?;
        let found = self.store.list_with_delimiter(Some(&path)).await.map_err(|error| fault_of(&error))?;
        let name = |path: &Path| path.filename().map(str::to_owned);
        Ok(Listing {
            folders: found.common_prefixes.iter().filter_map(name).collect(),
            files: found.objects.iter().filter_map(|object| name(&object.location)).collect(),
        })
    }

    /// Keys are made of safe names, and stay as they are.
    fn path(&self, key: &str) -> Result<Path, RemoteFault> {
        let whole = format!("{}/{key}", self.folder);
        Path::parse(whole.trim_matches('/')).map_err(|_| RemoteFault::Missing)
    }
}

fn hint(scheme: &str) -> &'static str {
    match scheme {
        "s3" => {
            "set AWS_REGION and AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (or the same with _FILE), AWS_ENDPOINT for other servers than Amazon's"
        }
        "gs" => "set GOOGLE_SERVICE_ACCOUNT to the path of a service account's key",
        _ => "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or the same with _FILE)",
    }
}

fn fault_of(error: &Error) -> RemoteFault {
    match error {
        Error::AlreadyExists { .. } | Error::Precondition { .. } => RemoteFault::Exists,
        Error::NotFound { .. } => RemoteFault::Missing,
        Error::PermissionDenied { .. } => RemoteFault::Forbidden,
        Error::Unauthenticated { .. } => RemoteFault::Unauthenticated,
        error => status_of(error).map_or_else(|| RemoteFault::Unreachable(Fault::of(error)), RemoteFault::Status),
    }
}

/// The client tells a status only in its text, as `… status code: 500 …`.
fn status_of(error: &Error) -> Option<u16> {
    let text = error.to_string();
    let (_, after) = text.split_once("status code: ").or_else(|| text.split_once("status: "))?;
    after.get(..3)?.parse().ok()
}

impl fmt::Display for RemoteFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => formatter.write_str("it is there already"),
            Self::Missing => formatter.write_str("the bucket or the folder is not there"),
            Self::Unauthenticated => formatter.write_str("the credentials are not taken"),
            Self::Forbidden => formatter.write_str("the credentials do not allow it"),
            Self::Status(status) => write!(formatter, "the storage answered with the status {status}"),
            Self::TooLarge => write!(formatter, "it has more than {MAX_OBJECT} bytes"),
            Self::Unreachable(fault) => formatter.write_str(fault.text()),
        }
    }
}
