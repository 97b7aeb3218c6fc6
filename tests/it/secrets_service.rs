//! The embedded secrets service against a real mongod: the application's routes, bodies and stored form.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use bellwether::config::secrets::{EncryptionKey, Secrets};
use bellwether::config::services::{Provider, SecretsService};
use bellwether::metrics::registry;
use bellwether::services::secrets::cipher::{Keyring, Opened};
use bellwether::services::secrets::service::{SecretsServiceError, router};
use mongodb::Database;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Document, doc};
use reqwest::Method;
use serde_json::json;

use crate::mongod::{Mongod, profile, profiled};
use crate::served::{Reply, Served, serve};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OLD: &str = "Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
const LOST: &str = "/////////////////////////////////////////w8=";

fn key(text: &str) -> EncryptionKey {
    EncryptionKey::parse(text).unwrap()
}

fn secrets(current: Option<&str>, previous: &[&str]) -> Secrets {
    Secrets {
        collection: "secrets".to_owned(),
        key: current.map(key),
        previous_keys: previous.iter().map(|text| key(text)).collect(),
        plaintext_in: Vec::new(),
    }
}

fn settings(provider: Provider, allow_plaintext: bool) -> SecretsService {
    SecretsService { provider, namespace: "decisionbox".to_owned(), allow_plaintext }
}

/// A service over MongoDB, and a project.
async fn service(server: &Mongod, state: &Path) -> (Served, Database, String) {
    let database = server.database("decisionbox").await;
    let project = ObjectId::new();
    database.collection::<Document>("projects").insert_one(doc! { "_id": project, "name": "Puzzle Quest" }).await.unwrap();
    (serve(of_mongodb(server, state)).await, database, project.to_hex())
}

fn of_mongodb(server: &Mongod, state: &Path) -> Router {
    let store = server.store("decisionbox");
    router(&settings(Provider::MongoDb, false), &secrets(Some(KEY), &[OLD]), Some(&store), Some(state), &mut registry()).unwrap()
}

async fn put(service: &Served, project: &str, name: &str, value: &str) -> Reply {
    let body = json!({ "value": value }).to_string();
    service.ask(Method::PUT, &format!("/api/v1/projects/{project}/secrets/{name}"), body).await
}

async fn list(service: &Served, project: &str) -> Reply {
    service.get(&format!("/api/v1/projects/{project}/secrets")).await
}

fn opened(stored: &Document) -> String {
    let Opened::Current(plaintext) = Keyring::new(Some(&key(KEY)), &[]).open(stored.get_str("value").unwrap()) else {
        panic!("the current key opens it: {stored}")
    };
    String::from_utf8(plaintext.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_stored_as_the_application_stores_it() {
    let server = Mongod::start().await;
    let state = tempfile::tempdir().unwrap();
    let (service, database, project) = service(&server, state.path()).await;
    profile(&database).await;

    let reply = list(&service, &project).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "{\"data\":[]}\n"));
    let reply = put(&service, &project, "llm-api-key", "sk-ant-api03-first-wAA1").await;
    assert_eq!(
        (reply.status, reply.json()),
        (200, json!({ "data": { "key": "llm-api-key", "masked": "sk-ant***wAA1", "status": "saved" } }))
    );
    let stored = database.collection::<Document>("secrets");
    let first = stored.find_one(doc! {}).await.unwrap().unwrap();
    let text = |name| first.get_str(name).unwrap();
    assert_eq!((text("namespace"), text("project_id"), text("key")), ("decisionbox", project.as_str(), "llm-api-key"));
    assert_eq!(first.get("encrypted"), Some(&Bson::from(true)));
    assert_eq!(opened(&first), "sk-ant-api03-first-wAA1");

    assert_eq!(put(&service, &project, "llm-api-key", "sk-ant-api03-second-wAA2").await.status, 200);
    assert_eq!(put(&service, &project, "warehouse-credentials", "{\n  \"type\": \"service_account\"\n}").await.status, 200);
    assert_eq!(stored.count_documents(doc! {}).await.unwrap(), 2);
    let second = stored.find_one(doc! { "key": "llm-api-key" }).await.unwrap().unwrap();
    assert_eq!(opened(&second), "sk-ant-api03-second-wAA2");
    assert_eq!(second.get("created_at"), first.get("created_at"));
    let listed = list(&service, &project).await.json();
    let shown: Vec<(&str, &str)> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|secret| (secret["key"].as_str().unwrap(), secret["masked"].as_str().unwrap()))
        .collect();
    assert_eq!(shown, [("llm-api-key", "sk-ant***wAA2"), ("warehouse-credentials", "{\n  \"t***t\"\n}")]);
    assert!(listed["data"][0]["updated_at"].as_str().unwrap().ends_with('Z'), "{listed}");
    assert_eq!(listed["data"][0].as_object().unwrap().len(), 3, "and nothing to warn of: {listed}");

    let names = stored.list_index_names().await.unwrap();
    assert_eq!(names, ["_id_", "namespace_1_project_id_1_key_1"], "the application's own index");
    let operations = profiled(&database).await;
    assert!(!operations.is_empty() && !format!("{operations:?}").contains("api03"), "no plaintext stands in an operation");

    let trail = std::fs::read_to_string(state.path().join("audit/secrets.jsonl")).unwrap();
    let entries: Vec<serde_json::Value> = trail.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(entries.len(), 3);
    assert_eq!(
        (&entries[0]["caller"], &entries[0]["key"], &entries[0]["outcome"]),
        (&json!("alice"), &json!("llm-api-key"), &json!("saved"))
    );
    assert!(!trail.contains("api03"), "{trail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_shown_as_such() {
    let server = Mongod::start().await;
    let state = tempfile::tempdir().unwrap();
    let (service, database, project) = service(&server, state.path()).await;
    let seal = |with: &str| Keyring::new(Some(&key(with)), &[]).seal(b"a secret of length").unwrap();
    let secret = |name: &str, value: String, encrypted: bool| {
        let time = DateTime::from_millis(1_700_000_000_000);
        doc! { "namespace": "decisionbox", "project_id": &project, "key": name, "value": value, "encrypted": encrypted, "updated_at": time }
    };
    let mut corrupted = seal(KEY);
    corrupted.replace_range(20..21, if &corrupted[20..21] == "A" { "B" } else { "A" });
    let mut other = secret("z-other-namespace", seal(KEY), true);
    other.insert("namespace", "staging");
    let documents = vec![
        secret("corrupted", corrupted, true),
        secret("lost", seal(LOST), true),
        secret("malformed", "not base64!".to_owned(), true),
        secret("plaintext", "sk-plain-and-long".to_owned(), false),
        secret("previous", seal(OLD), true),
        other,
    ];
    database.collection::<Document>("secrets").insert_many(documents).await.unwrap();
    let listed = list(&service, &project).await.json();
    let shown: Vec<(&str, &str, &str)> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|secret| {
            let text = |name: &str| secret[name].as_str().unwrap_or_default();
            (text("key"), text("masked"), text("warning").split([':', ';']).next().unwrap())
        })
        .collect();
    let expected = [
        ("corrupted", "***", "cannot be decrypted"),
        ("lost", "***", "cannot be decrypted"),
        ("malformed", "***", "not in the stored form"),
        ("plaintext", "sk-pla***long", "stored without encryption"),
        ("previous", "a secr***ngth", ""),
    ];
    assert_eq!(shown, expected);
    assert_eq!(listed["data"][0]["updated_at"], "2023-11-14T22:13:20Z");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_has_its_own_answer_and_none_repeats_a_value() {
    let server = Mongod::start().await;
    let state = tempfile::tempdir().unwrap();
    let (service, database, project) = service(&server, state.path()).await;
    let unknown = ObjectId::new().to_hex();
    let of = |project: &str, name: &str| format!("/api/v1/projects/{project}/secrets/{name}");
    let huge = json!({ "value": "CANARY".repeat(20_000) }).to_string();
    for (method, path, body, status, error) in [
        (Method::PUT, of(&unknown, "k"), r#"{"value":"CANARY"}"#, 404, "project not found"),
        (Method::PUT, of("no-id", "k"), r#"{"value":"CANARY"}"#, 404, "project not found"),
        (Method::GET, format!("/api/v1/projects/{unknown}/secrets"), "", 404, "project not found"),
        (Method::PUT, of(&project, "k"), "CANARY", 400, "invalid JSON: this is no JSON, at line 1 column 1"),
        (Method::PUT, of(&project, "k"), r#"{"value":"CANARY"#, 400, "invalid JSON: this is no JSON, at line 1 column 16"),
        (
            Method::PUT,
            of(&project, "k"),
            r#"{"value":["CANARY"]}"#,
            400,
            "invalid JSON: a value has another type than it should, at line 1 column 9",
        ),
        (Method::PUT, of(&project, "k"), r#""CANARY""#, 400, "invalid JSON: a value has another type than it should, at line 1 column 8"),
        (Method::PUT, of(&project, "k"), r#"{"value":""}"#, 400, "value is required"),
        (Method::PUT, of(&project, "k"), r#"{"value":null}"#, 400, "value is required"),
        (Method::PUT, of(&project, "k"), r#"{"secret":"CANARY"}"#, 400, "value is required"),
        (Method::PUT, of(&project, "k"), "", 400, "invalid JSON: this is no JSON, at line 1 column 0"),
        (Method::PUT, of(&project, "k"), huge.as_str(), 413, "the body has more than 65536 bytes"),
        (
            Method::PUT,
            of(&project, &"k".repeat(129)),
            r#"{"value":"CANARY"}"#,
            400,
            "the name of a secret has at most 128 bytes, and no control characters",
        ),
        (
            Method::PUT,
            of(&project, "a%0Ab"),
            r#"{"value":"CANARY"}"#,
            400,
            "the name of a secret has at most 128 bytes, and no control characters",
        ),
        (Method::PUT, of(&project, "%ff"), r#"{"value":"CANARY"}"#, 400, "the path is not valid UTF-8"),
        (Method::DELETE, of(&project, "k"), "", 405, "method not allowed"),
        (Method::GET, of(&project, "k"), "", 405, "method not allowed"),
        (Method::GET, "/api/v1/elsewhere".to_owned(), "", 404, "not found"),
    ] {
        let reply = service.ask(method.clone(), &path, body.to_owned()).await;
        assert_eq!(reply.error(), (status, error.to_owned()), "{method} {path}");
        assert!(!reply.body.contains("CANARY"), "{reply:?}");
    }
    // A body whose length nobody has said.
    let chunks = futures_util::stream::iter((0..5).map(|_| Ok::<_, std::io::Error>("C".repeat(0x4000))));
    let reply = service.ask(Method::PUT, &of(&project, "k"), reqwest::Body::wrap_stream(chunks)).await;
    assert_eq!(reply.status, 413, "{reply:?}");
    assert_eq!(database.collection::<Document>("secrets").count_documents(doc! {}).await.unwrap(), 0, "nothing was half done");

    server.freeze();
    let reply = put(&service, &project, "k", "CANARY").await;
    server.thaw();
    assert_eq!(reply.error(), (503, "the database did not answer: the project could not be looked up; try again".to_owned()));
    assert_eq!(reply.retry_after.as_deref(), Some("5"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_set_the_same_new_secret_at_once_make_one() {
    let server = Mongod::start().await;
    let state = tempfile::tempdir().unwrap();
    let (service, database, project) = service(&server, state.path()).await;
    let sets = (0..32).map(|number| {
        let (service, project) = (&service, &project);
        async move { put(service, project, "llm-api-key", &format!("sk-ant-api03-{number:04}")).await.status }
    });
    let statuses = futures_util::future::join_all(sets).await;
    assert_eq!(statuses, [200; 32]);
    assert_eq!(database.collection::<Document>("secrets").count_documents(doc! {}).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_it_does_not_start_unless_plaintext_is_wanted() {
    let server = Mongod::start().await;
    let store = server.store("decisionbox");
    let made =
        |allow, key: Option<&str>, store| router(&settings(Provider::MongoDb, allow), &secrets(key, &[]), store, None, &mut registry());
    let error = made(false, None, Some(&store)).unwrap_err();
    assert!(error.to_string().starts_with("the secrets service has no key: set SECRET_ENCRYPTION_KEY"), "{error}");
    assert!(matches!(made(false, Some(KEY), None).unwrap_err(), SecretsServiceError::NoStore));

    let database = server.database("decisionbox").await;
    let project = ObjectId::new();
    database.collection::<Document>("projects").insert_one(doc! { "_id": project }).await.unwrap();
    let service = serve(made(true, None, Some(&store)).unwrap()).await;
    let reply = put(&service, &project.to_hex(), "llm-api-key", "sk-plain-and-long").await;
    assert_eq!(reply.json()["data"]["warning"], "stored without encryption");
    let stored = database.collection::<Document>("secrets").find_one(doc! {}).await.unwrap().unwrap();
    assert_eq!(stored.get("value"), Some(&Bson::from("sk-plain-and-long")));
    assert_eq!(stored.get("encrypted"), Some(&Bson::from(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_a_folder_are_read_and_never_written() {
    let folder = tempfile::tempdir().unwrap();
    let project = "69d0f3a1c2b4e5f60718293a";
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(&format!("decisionbox-{project}-llm-api-key"), "sk-ant-api03-first-wAA1\n");
    write(&format!("decisionbox-{project}-huge"), &"x".repeat(70_000));
    write("decisionbox-0000f3a1c2b4e5f60718293a-llm-api-key", "another project's");
    write(&format!("staging-{project}-llm-api-key"), "another namespace's");
    // As Kubernetes mounts them.
    std::fs::create_dir(folder.path().join("..data")).unwrap();
    write("..data/warehouse", "{\"type\":\"service_account\"}");
    std::os::unix::fs::symlink("..data/warehouse", folder.path().join(format!("decisionbox-{project}-warehouse-credentials"))).unwrap();

    let provider = Provider::File(folder.path().to_owned());
    let service = serve(router(&settings(provider, false), &secrets(None, &[]), None, None, &mut registry()).unwrap()).await;
    let listed = list(&service, project).await.json();
    let shown: Vec<(&str, &str)> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|secret| (secret["key"].as_str().unwrap(), secret["masked"].as_str().unwrap()))
        .collect();
    assert_eq!(shown, [("huge", "***"), ("llm-api-key", "sk-ant***wAA1"), ("warehouse-credentials", "{\"type***nt\"}")]);
    let (status, error) = put(&service, project, "llm-api-key", "sk-other").await.error();
    assert_eq!(status, 405);
    assert!(error.starts_with("secrets are files of a folder here and can only be read"), "{error}");
    assert_eq!(list(&service, "no-such-project").await.json(), json!({ "data": [] }));
}

/// Everything that is logged, down to the last detail.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// One thread, so that everything is logged to the subscriber of this test.
#[tokio::test]
async fn a_thousand_values_stand_in_no_log_metric_answer_or_file() {
    const VALUES: usize = 1_000;
    let log = Captured::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    // With a single subscriber, a thread of another test that logs first would switch that event off for all threads.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);

    let server = Mongod::start().await;
    let state = tempfile::tempdir().unwrap();
    let store = server.store("decisionbox");
    let mut registry = registry();
    let routes =
        router(&settings(Provider::MongoDb, false), &secrets(Some(KEY), &[]), Some(&store), Some(state.path()), &mut registry).unwrap();
    let service = serve(routes).await;
    let projects = server.database("decisionbox").await.collection::<Document>("projects");
    let canary = |number: usize| format!("CANARY-{:08x}-{number:04}-tail", number.wrapping_mul(2_654_435_761));
    let mut said = String::new();
    for number in 0..VALUES {
        let project = ObjectId::new();
        if number % 10 != 9 {
            projects.insert_one(doc! { "_id": project }).await.unwrap();
        }
        let value = canary(number);
        // Each tenth is of a project that is not there, each tenth is cut off.
        let body = json!({ "value": value }).to_string();
        let body = if number % 10 == 8 { body[..body.len() - 3].to_owned() } else { body };
        let path = format!("/api/v1/projects/{}/secrets/key-{number}", project.to_hex());
        said.push_str(&service.ask(Method::PUT, &path, body).await.body);
        said.push_str(&list(&service, &project.to_hex()).await.body);
    }
    said.push_str(&registry.open_metrics().unwrap());
    said.push_str(&std::fs::read_to_string(state.path().join("audit/secrets.jsonl")).unwrap());
    said.push_str(&String::from_utf8_lossy(&log.0.lock().unwrap()));
    assert!(
        said.contains("bellwether_secrets_requests_total{operation=\"set\",outcome=\"done\"} 800"),
        "{}",
        registry.open_metrics().unwrap()
    );
    assert!(said.contains("a secret was set"), "the log was captured");
    let leaked: Vec<String> = (0..VALUES).map(canary).filter(|value| said.contains(value.trim_end_matches("-tail"))).collect();
    assert_eq!(leaked, Vec::<String>::new());
}
