//! The secrets service over the services of clouds: Amazon's is moto, which checks each signature; Google's is spoken by a
//! server of this test, which checks each token.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bellwether::config::environment::Environment;
use bellwether::config::secrets::Secrets;
use bellwether::config::services::{CloudSecrets, Provider, SecretsService};
use bellwether::config::storage::StorageAccess;
use bellwether::metrics::registry;
use bellwether::services::secrets::service::router;
use serde_json::{Value, json};

use crate::archive::{cached_moto, tool};
use crate::mongod::eventually;
use crate::served::{Served, serve};
use crate::sidecar::free_port;

const PROJECT: &str = "65f0c0ffee65f0c0ffee65f0";

async fn service(cloud: CloudSecrets, state: &std::path::Path) -> Served {
    let settings = SecretsService { provider: Provider::Cloud(cloud), namespace: "decisionbox".to_owned(), allow_plaintext: false };
    let secrets = Secrets { collection: "secrets".to_owned(), key: None, previous_keys: Vec::new(), plaintext_in: Vec::new() };
    serve(router(&settings, &secrets, None, Some(state), &mut registry()).unwrap()).await
}

fn path(project: &str, key: &str) -> String {
    format!("/api/v1/projects/{project}/secrets{}{key}", if key.is_empty() { "" } else { "/" })
}

async fn set(service: &Served, project: &str, key: &str, value: &str) -> (u16, Value) {
    let reply = service.ask(Method::PUT, &path(project, key), json!({ "value": value }).to_string()).await;
    (reply.status, reply.json())
}

async fn listed(service: &Served, project: &str) -> Vec<(String, String)> {
    let reply = service.get(&path(project, "")).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let text = |secret: &Value, name: &str| secret[name].as_str().unwrap().to_owned();
    reply.json()["data"].as_array().unwrap().iter().map(|secret| (text(secret, "key"), text(secret, "masked"))).collect()
}

fn pair(key: &str, masked: &str) -> (String, String) {
    (key.to_owned(), masked.to_owned())
}

/// What the application's routes promise, whoever keeps the values.
async fn sets_and_lists(service: &Served, state: &std::path::Path) {
    assert_eq!(listed(service, PROJECT).await, []);
    let saved = json!({ "data": { "key": "llm-api-key", "masked": "sk-ant***wAA1", "status": "saved" } });
    assert_eq!(set(service, PROJECT, "llm-api-key", "sk-ant-api03-first-wAA1").await, (200, saved));
    assert_eq!(set(service, PROJECT, "llm-api-key", "sk-ant-api03-second-wAA2").await.0, 200);
    assert_eq!(set(service, PROJECT, "warehouse-credentials", "{\n \"é\": \"service account\"\n}").await.0, 200);
    // Of another project, and of one whose name begins alike.
    assert_eq!(set(service, "65f0c0ffee65f0c0ffee65f1", "llm-api-key", "sk-other-project").await.0, 200);
    let shown = listed(service, PROJECT).await;
    assert_eq!(shown[0], pair("llm-api-key", "sk-ant***wAA2"));
    assert_eq!((shown.len(), shown[1].0.as_str()), (2, "warehouse-credentials"));
    let updated = service.get(&path(PROJECT, "")).await.json()["data"][0]["updated_at"].as_str().unwrap().to_owned();
    let age = jiff::Timestamp::now().duration_since(updated.parse().unwrap());
    assert!(age.abs() < jiff::SignedDuration::from_mins(5), "{updated}");
    let (status, body) = set(service, PROJECT, "a b", "sk-ant-api03-third-wAA3").await;
    assert!(status == 400 && body.to_string().contains("does not take"), "{body}");
    let trail = std::fs::read_to_string(state.join("audit/secrets.jsonl")).unwrap();
    assert!(trail.lines().count() == 5 && !trail.contains("api03"), "{trail}");
}

/// A moto that lets nobody in whose calls are not signed with the key that it has made.
struct Moto {
    child: Child,
    address: String,
    key: [String; 2],
}

// === impl Moto ===

impl Moto {
    async fn start() -> Self {
        let Some(server) = tool("moto_server", "BELLWETHER_MOTO").or_else(cached_moto) else {
            panic!("there is no moto_server: run scripts/moto.sh, or set BELLWETHER_MOTO to its path");
        };
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let child = Command::new(server)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            // The three that follow; whatever comes then is checked.
            .env("INITIAL_NO_AUTH_ACTION_COUNT", "3")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut moto = Self { child, address, key: [String::new(), String::new()] };
        eventually("moto listens", async || std::net::TcpStream::connect(&moto.address).ok()).await;
        let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"secretsmanager:*","Resource":"*"}]}"#;
        moto.iam(&[("Action", "CreateUser")]).await;
        moto.iam(&[("Action", "PutUserPolicy"), ("PolicyName", "p"), ("PolicyDocument", policy)]).await;
        let made = moto.iam(&[("Action", "CreateAccessKey")]).await;
        let within = |tag: &str| made.split_once(&format!("<{tag}>")).and_then(|(_, rest)| rest.split('<').next()).unwrap().to_owned();
        moto.key = [within("AccessKeyId"), within("SecretAccessKey")];
        moto
    }

    async fn iam(&self, parameters: &[(&str, &str)]) -> String {
        let mut form = reqwest::Url::parse("http://form/").unwrap();
        form.query_pairs_mut().extend_pairs(parameters).extend_pairs([("UserName", "bellwether"), ("Version", "2010-05-08")]);
        let answer = reqwest::Client::new()
            .post(format!("http://{}/", self.address))
            .header("authorization", "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=x")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.query().unwrap().to_owned())
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success());
        answer.text().await.unwrap()
    }

    fn provider(&self, secret: &str) -> CloudSecrets {
        let variables = [("AWS_ACCESS_KEY_ID", self.key[0].as_str()), ("AWS_SECRET_ACCESS_KEY", secret), ("AWS_REGION", "eu-central-1")];
        let endpoint = Some(format!("http://{}/", self.address).parse().unwrap());
        CloudSecrets::Aws { region: None, endpoint, access: StorageAccess::of(&Environment::of(variables)) }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amazons_secrets_manager_keeps_them_and_each_call_is_signed() {
    let (moto, state) = (Moto::start().await, tempfile::tempdir().unwrap());
    sets_and_lists(&service(moto.provider(&moto.key[1]), state.path()).await, state.path()).await;
    let wrong = service(moto.provider("hunter2hunter2hunter2hunter2"), state.path()).await;
    let reply = wrong.get(&path(PROJECT, "")).await;
    assert!(reply.status == 503 && !reply.body.contains("hunter2"), "{}", reply.body);
    let (status, body) = set(&wrong, PROJECT, "llm-api-key", "sk-ant-api03-never-wAA9").await;
    assert!(status == 503 && !body.to_string().contains("api03"), "{body}");
    let right = service(moto.provider(&moto.key[1]), state.path()).await;
    assert_eq!(listed(&right, PROJECT).await[0], pair("llm-api-key", "sk-ant***wAA2"), "what was refused has changed nothing");
    let gone = CloudSecrets::Aws { region: None, endpoint: "http://127.0.0.1:1/".parse().ok(), access: StorageAccess::default() };
    assert_eq!(service(gone, state.path()).await.get(&path(PROJECT, "")).await.status, 503);
}

/// Secret Manager, as far as it is asked: secrets with their labels, and versions of them.
#[derive(Default)]
struct Google {
    secrets: BTreeMap<String, (Value, Vec<(String, jiff::Timestamp)>)>,
    modulus: Vec<u8>,
    refused: u64,
}

/// The token is the account's own (a JWT), and for everything that the account may do.
fn holds(token: &str, key: &[u8]) -> bool {
    let Some((text, signature)) = token.rsplit_once('.') else { return false };
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
    let claims = text.split('.').nth(1).and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok()).unwrap_or_default();
    let claims: Value = serde_json::from_slice(&claims).unwrap_or_default();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(text.as_bytes(), &signature).is_ok()
        && claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
        && claims["exp"].as_i64().is_some_and(|expires| expires > jiff::Timestamp::now().as_second())
}

async fn google(State(google): State<Arc<Mutex<Google>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body: Value = serde_json::from_slice(&axum::body::to_bytes(body, 1 << 20).await.unwrap()).unwrap_or_default();
    let mut google = google.lock().unwrap();
    let token = parts.headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap_or_default();
    if !holds(token, &google.modulus) {
        google.refused += 1;
        return (StatusCode::UNAUTHORIZED, r#"{"error":{"status":"UNAUTHENTICATED"}}"#).into_response();
    }
    let url: reqwest::Url = format!("http://g{}", parts.uri).parse().unwrap();
    let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    let rest = parts.uri.path().strip_prefix("/v1/projects/cloud-1/secrets").unwrap().trim_start_matches('/').to_owned();
    let not_found = || (StatusCode::NOT_FOUND, r#"{"error":{"status":"NOT_FOUND"}}"#).into_response();
    let name = |id: &str| format!("projects/123/secrets/{id}");
    match (&parts.method, rest.as_str()) {
        (&Method::GET, "") => {
            // One a page, so that pages are asked for.
            let wanted = query["filter"].strip_prefix("name:").unwrap();
            let after = query.get("pageToken").cloned().unwrap_or_default();
            let mut found = google.secrets.iter().filter(|(id, _)| id.contains(wanted) && **id > after);
            let Some((id, (labels, _))) = found.next() else { return "{}".into_response() };
            let next = if found.next().is_some() { id.as_str() } else { "" };
            json!({ "secrets": [{ "name": name(id), "labels": labels }], "nextPageToken": next }).to_string().into_response()
        }
        (&Method::POST, "") => {
            assert_eq!(body["replication"], json!({ "automatic": {} }));
            if google.secrets.contains_key(&query["secretId"]) {
                return (StatusCode::CONFLICT, r#"{"error":{"status":"ALREADY_EXISTS"}}"#).into_response();
            }
            google.secrets.insert(query["secretId"].clone(), (body["labels"].clone(), Vec::new()));
            json!({ "name": name(&query["secretId"]) }).to_string().into_response()
        }
        (&Method::POST, rest) => {
            let Some((_, versions)) = rest.strip_suffix(":addVersion").and_then(|id| google.secrets.get_mut(id)) else {
                return not_found();
            };
            versions.push((body["payload"]["data"].as_str().unwrap().to_owned(), jiff::Timestamp::now()));
            json!({ "name": "version", "state": "ENABLED" }).to_string().into_response()
        }
        (_, rest) => {
            let (id, what) = rest.split_once("/versions/").unwrap();
            let Some((data, time)) = google.secrets.get(id).and_then(|(_, versions)| versions.last()) else { return not_found() };
            match what {
                "latest" => json!({ "name": "version", "createTime": time.to_string(), "state": "ENABLED" }).to_string().into_response(),
                "latest:access" => json!({ "name": "version", "payload": { "data": data } }).to_string().into_response(),
                _ => not_found(),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn googles_secret_manager_keeps_them_and_each_call_has_a_token_of_the_account() {
    let (key, state) = (RsaKeyPair::generate(KeySize::Rsa2048).unwrap(), tempfile::tempdir().unwrap());
    let kept = Arc::new(Mutex::new(Google { modulus: key.public_key().as_ref().to_vec(), ..Google::default() }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint: reqwest::Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let server = Router::new().fallback(google).with_state(Arc::clone(&kept));
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    tokio::spawn(async move { axum::serve(listener, server).await.unwrap() });
    let provider = |key: &RsaKeyPair, name: &str| {
        let file = state.path().join(name);
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(key.as_der().unwrap().as_ref()));
        let account = json!({ "client_email": "sidecar@cloud-1.iam.gserviceaccount.com", "private_key": pem, "private_key_id": "1" });
        std::fs::write(&file, account.to_string()).unwrap();
        let access = StorageAccess::of(&Environment::of([("GOOGLE_SERVICE_ACCOUNT", file.to_str().unwrap())]));
        CloudSecrets::Gcp { project: "cloud-1".to_owned(), endpoint: Some(endpoint.clone()), access }
    };
    sets_and_lists(&service(provider(&key, "right"), state.path()).await, state.path()).await;
    {
        let kept = kept.lock().unwrap();
        let (labels, versions) = &kept.secrets[&format!("decisionbox-{PROJECT}-llm-api-key")];
        assert_eq!((labels["managed-by"].as_str(), versions.len(), kept.refused), (Some("decisionbox"), 2, 0));
        assert_eq!(labels["project-id"], PROJECT);
    }
    let other = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let wrong = service(provider(&other, "wrong"), state.path()).await;
    assert_eq!(wrong.get(&path(PROJECT, "")).await.status, 503);
    assert!(kept.lock().unwrap().refused > 0);
    // A secret without a version: somebody has made it, and has not set it.
    kept.lock().unwrap().secrets.insert(format!("decisionbox-{PROJECT}-zz"), (json!({}), Vec::new()));
    let right = service(provider(&key, "again"), state.path()).await;
    assert_eq!(listed(&right, PROJECT).await[2], pair("zz", "***"));
}
