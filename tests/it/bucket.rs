//! A bucket that speaks as much of S3 as archives need, and fails on demand as storage does: with a status, with half an
//! object, with a bit that has flipped. What a real S3 says to the same calls is shown by the test against moto.
//!
//! It also speaks the XML interface of Google Cloud Storage, which differs by two headers: no server that one can run speaks
//! it (fake-gcs-server takes no objects by it).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};

/// How it fails.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Fault {
    #[default]
    None,
    /// Every write is answered with this status, and nothing is kept.
    RefuseWrites(u16),
    /// The last byte of what is written gets lost.
    Truncate,
    /// A bit of what is written flips.
    Flip,
}

/// Whose interface it speaks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Dialect {
    #[default]
    Amazon,
    Google,
}

#[derive(Debug, Default)]
struct Content {
    dialect: Dialect,
    objects: BTreeMap<String, Bytes>,
    fault: Fault,
    writes: u64,
}

/// A bucket that listens on a loopback port until it is dropped.
pub struct Bucket {
    content: Arc<Mutex<Content>>,
    pub address: String,
    server: tokio::task::JoinHandle<()>,
}

// === impl Bucket ===

impl Bucket {
    pub async fn start() -> Self {
        Self::start_as(Dialect::Amazon).await
    }

    pub async fn google() -> Self {
        Self::start_as(Dialect::Google).await
    }

    async fn start_as(dialect: Dialect) -> Self {
        let content = Arc::new(Mutex::new(Content { dialect, ..Content::default() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&content));
        #[expect(clippy::disallowed_methods, reason = "ends with the bucket")]
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { content, address, server }
    }

    pub fn fails(&self, fault: Fault) {
        self.content.lock().unwrap().fault = fault;
    }

    /// The keys, and how many bytes each holds.
    pub fn keys(&self) -> Vec<String> {
        self.content.lock().unwrap().objects.keys().cloned().collect()
    }

    /// How many writes there were, those included that were refused.
    pub fn writes(&self) -> u64 {
        self.content.lock().unwrap().writes
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(content): State<Arc<Mutex<Content>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let is_signed = parts.headers.get("authorization").is_some_and(|value| value.to_str().unwrap().starts_with("AWS4-HMAC-SHA256"));
    let dialect = content.lock().unwrap().dialect;
    if !is_signed && dialect == Dialect::Amazon {
        return StatusCode::FORBIDDEN.into_response();
    }
    let key = decoded(parts.uri.path().trim_start_matches("/archive").trim_start_matches('/'));
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    let mut content = content.lock().unwrap();
    match parts.method {
        Method::PUT => {
            let only_new = match dialect {
                Dialect::Amazon => parts.headers.contains_key("if-none-match"),
                // A generation of 0 is an object that is not there.
                Dialect::Google => parts.headers.get("x-goog-if-generation-match").is_some_and(|value| value == "0"),
            };
            put(&mut content, key, body, only_new)
        }
        Method::GET if key.is_empty() => list(&content, parts.uri.query().unwrap_or_default()),
        Method::GET => match content.objects.get(&key) {
            Some(bytes) => Response::builder()
                .header("etag", "\"1\"")
                .header("last-modified", "Sat, 21 Nov 2026 00:00:00 GMT")
                .body(Body::from(bytes.clone()))
                .unwrap(),
            None => (StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>").into_response(),
        },
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

/// Google's client encodes every character of a key but letters and digits.
fn decoded(text: &str) -> String {
    let url = reqwest::Url::parse(&format!("http://bucket/?text={text}")).unwrap();
    url.query_pairs().next().unwrap().1.into_owned()
}

fn put(content: &mut Content, key: String, body: Bytes, only_new: bool) -> Response {
    content.writes += 1;
    if let Fault::RefuseWrites(status) = content.fault {
        return (StatusCode::from_u16(status).unwrap(), "<Error><Code>InternalError</Code></Error>").into_response();
    }
    if only_new && content.objects.contains_key(&key) {
        return (StatusCode::PRECONDITION_FAILED, "<Error><Code>PreconditionFailed</Code></Error>").into_response();
    }
    let mut kept = body.to_vec();
    match content.fault {
        Fault::Truncate => drop(kept.pop()),
        Fault::Flip => {
            let middle = kept.len() / 2;
            kept[middle] ^= 1;
        }
        Fault::None | Fault::RefuseWrites(_) => {}
    }
    content.objects.insert(key, kept.into());
    Response::builder().header("etag", "\"1\"").header("x-goog-generation", "1").body(Body::empty()).unwrap()
}

/// ListObjectsV2 with a prefix and the delimiter `/`.
fn list(content: &Content, query: &str) -> Response {
    let parameter = |name: &str| {
        let pair = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
        decoded(pair.unwrap_or_default())
    };
    let prefix = parameter("prefix");
    let mut xml = "<ListBucketResult><IsTruncated>false</IsTruncated>".to_owned();
    let mut folders = Vec::new();
    for (key, bytes) in content.objects.iter().filter(|(key, _)| key.starts_with(&prefix)) {
        match key[prefix.len()..].split_once('/') {
            Some((folder, _)) => folders.push(format!("{prefix}{folder}/")),
            None => write!(
                xml,
                "<Contents><Key>{key}</Key><Size>{}</Size><LastModified>2026-11-21T00:00:00.000Z</LastModified><ETag>1</ETag></Contents>",
                bytes.len()
            )
            .unwrap(),
        }
    }
    folders.dedup();
    for folder in folders {
        write!(xml, "<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>").unwrap();
    }
    xml.push_str("</ListBucketResult>");
    ([("content-type", "application/xml")], xml).into_response()
}
