//! `bellwether secrets` against a real mongod: what it finds, what it changes, and that no value ever shows.

use std::process::{Output, Stdio};

use bellwether::config::secrets::EncryptionKey;
use bellwether::services::secrets::cipher::{Keyring, Opened};
use mongodb::bson::{Bson, DateTime, Document, doc};
use mongodb::{Collection, Database};

use crate::mongod::{Mongod, profile, profiled};
use crate::sidecar::command;

const OLD: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NEW: &str = "Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
const LOST: &str = "/////////////////////////////////////////w8=";

/// Stands in every plaintext, and must stand nowhere else.
const CANARY: &str = "CANARY";

fn key(text: &str) -> EncryptionKey {
    EncryptionKey::parse(text).unwrap()
}

fn seal(with: &str, plaintext: &str) -> String {
    Keyring::new(Some(&key(with)), &[]).seal(plaintext.as_bytes()).unwrap()
}

fn text<'a>(document: &'a Document, name: &str) -> &'a str {
    document.get_str(name).unwrap_or_default()
}

fn is_encrypted(document: &Document) -> bool {
    document.get_bool("encrypted").unwrap_or(false)
}

/// What the application would read with these keys.
fn read(keyring: &Keyring, document: &Document) -> Option<String> {
    let value = document.get_str("value").ok()?;
    if !is_encrypted(document) {
        return Some(value.to_owned());
    }
    match keyring.open(value) {
        Opened::Current(plaintext) | Opened::Previous(plaintext) => String::from_utf8(plaintext.to_vec()).ok(),
        Opened::NoKeyFits | Opened::Malformed => None,
    }
}

fn secret(name: &str, value: &str, encrypted: bool) -> Document {
    doc! {
        "namespace": "decisionbox",
        "project_id": "6650f0c2a7b1c2d3e4f50617",
        "key": name,
        "value": value,
        "encrypted": encrypted,
        "created_at": DateTime::from_millis(1_700_000_000_000),
        "updated_at": DateTime::from_millis(1_700_000_000_000),
    }
}

async fn all(secrets: &Collection<Document>) -> Vec<Document> {
    let mut cursor = secrets.find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap();
    let mut found = Vec::new();
    while cursor.advance().await.unwrap() {
        found.push(cursor.deserialize_current().unwrap());
    }
    found
}

fn prepared(server: &Mongod, arguments: &[&str], keys: &[(&str, &str)]) -> std::process::Command {
    let mut command = command();
    command.args(["secrets", "--profile", "decisionbox", "--log", "debug"]).args(arguments);
    command.env("MONGODB_URI", server.uri()).envs(keys.iter().copied());
    command
}

/// Runs a command to its end, and sees to it that it showed no plaintext.
fn run(server: &Mongod, arguments: &[&str], keys: &[(&str, &str)]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = prepared(server, arguments, keys).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert!(!stdout.contains(CANARY) && !stderr.contains(CANARY), "a plaintext was shown:\n{stdout}\n{stderr}");
    (status.code().unwrap(), stdout, stderr)
}

/// One secret of each standing.
async fn one_of_each(database: &Database) -> Collection<Document> {
    let secrets = database.collection::<Document>("secrets");
    let documents = vec![
        secret("plain", "CANARY-plain", false),
        secret("current", &seal(NEW, "CANARY-current"), true),
        secret("previous", &seal(OLD, "CANARY-previous"), true),
        secret("lost", &seal(LOST, "CANARY-lost"), true),
        secret("unmarked", &seal(NEW, "CANARY-unmarked"), false),
        secret("malformed", "CANARY-no-ciphertext", true),
        doc! { "_id": "odd", "key": "\u{1b}[31mred", "value": 5, "encrypted": "yes" },
    ];
    secrets.insert_many(documents).await.unwrap();
    secrets
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_counts_what_is_encrypted_with_what_and_writes_nothing() {
    let server = Mongod::start().await;
    let database = server.database("decisionbox").await;
    let secrets = one_of_each(&database).await;
    let projects = vec![doc! { "embedding": { "credentials": "CANARY-embedding" } }, doc! { "embedding": { "credentials": "" } }];
    database.collection::<Document>("projects").insert_many(projects).await.unwrap();
    profile(&database).await;
    let before = all(&secrets).await;

    let keys = [("SECRET_ENCRYPTION_KEY", NEW), ("SECRET_PREVIOUS_ENCRYPTION_KEY", OLD)];
    let (code, json, _) = run(&server, &["audit", "--json"], &keys);
    let audit: serde_json::Value = serde_json::from_str(&json).unwrap();
    let counts: Vec<(&str, u64)> = audit["standings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|counted| (counted["standing"].as_str().unwrap(), counted["count"].as_u64().unwrap()))
        .collect();
    let expected = [("current", 1), ("previous", 1), ("plaintext", 1), ("unmarked", 1), ("no_key_fits", 1), ("malformed", 2)];
    assert_eq!(counts, expected);
    assert_eq!(audit["elsewhere"][0], serde_json::json!({ "collection": "projects", "field": "embedding.credentials", "count": 1 }));
    assert_eq!(code, 1, "there is something to do");

    let (_, table, _) = run(&server, &["audit"], &keys);
    assert!(table.contains("decisionbox/6650f0c2a7b1c2d3e4f50617/lost"), "{table}");
    assert!(table.contains(r"//\u{1b}[31mred"), "a name cannot steer the terminal: {table}");

    let (_, json, _) = run(&server, &["audit", "--json"], &[]);
    assert!(json.contains("\"unknown\""), "without a key nothing is called lost: {json}");
    assert!(!json.contains("no_key_fits"), "{json}");

    assert_eq!(all(&secrets).await, before);
    let operations = profiled(&database).await;
    assert!(!operations.is_empty());
    assert!(operations.iter().all(|done| ["query", "command", "getmore"].contains(&text(done, "op"))), "{operations:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_is_encrypted_in_place_once_and_stands_in_no_log_of_the_server() {
    let server = Mongod::start().await;
    let database = server.database("decisionbox").await;
    let secrets = one_of_each(&database).await;
    let keys = [("SECRET_ENCRYPTION_KEY", NEW), ("SECRET_PREVIOUS_ENCRYPTION_KEY", OLD)];

    let before = all(&secrets).await;
    let (code, _, message) = run(&server, &["encrypt", "--yes"], &keys);
    assert_eq!(code, 65, "{message}");
    assert!(message.contains("1 secrets are encrypted with a key that is not among those given"), "{message}");
    let (code, _, message) = run(&server, &["encrypt", "--skip-unreadable"], &keys);
    assert_eq!(code, 64, "there is no terminal to ask on: {message}");
    assert_eq!(all(&secrets).await, before, "nothing was changed");

    profile(&database).await;
    let (code, said, _) = run(&server, &["encrypt", "--yes", "--skip-unreadable"], &keys);
    assert_eq!((code, said.as_str()), (0, "2 encrypted, 5 left as they are\n"));
    let keyring = Keyring::new(Some(&key(NEW)), &[key(OLD)]);
    let by_name = |documents: Vec<Document>, name: &str| documents.into_iter().find(|document| text(document, "key") == name).unwrap();
    for name in ["plain", "unmarked"] {
        let stored = by_name(all(&secrets).await, name);
        assert!(is_encrypted(&stored));
        assert_eq!(read(&keyring, &stored), Some(format!("CANARY-{name}")));
        assert_eq!(stored.get("updated_at"), Some(&Bson::from(DateTime::from_millis(1_700_000_000_000))), "the secret is the same");
    }
    for name in ["current", "previous", "lost", "malformed"] {
        assert_eq!(by_name(all(&secrets).await, name), by_name(before.clone(), name));
    }
    let (_, said, _) = run(&server, &["encrypt", "--yes", "--skip-unreadable"], &keys);
    assert_eq!(said, "0 encrypted, 7 left as they are\n");

    let writes: Vec<Document> = profiled(&database).await.into_iter().filter(|done| text(done, "op") == "update").collect();
    assert_eq!(writes.len(), 2, "two secrets, each once");
    assert!(!format!("{writes:?}").contains(CANARY), "{writes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_the_application_writes_meanwhile_is_never_lost() {
    const SECRETS: u64 = 300;
    let server = Mongod::start().await;
    let secrets = server.database("decisionbox").await.collection::<Document>("secrets");
    let documents = (0..SECRETS).map(|number| secret(&number.to_string(), "CANARY-first", false));
    secrets.insert_many(documents).await.unwrap();

    #[expect(clippy::disallowed_methods, reason = "it ends within the test")]
    let writer = tokio::spawn({
        let secrets = secrets.clone();
        async move {
            let mut last = std::collections::HashMap::new();
            for turn in 0..1_500_i64 {
                let (name, value) = (fastrand::u64(..SECRETS).to_string(), format!("CANARY-{turn}"));
                let set =
                    doc! { "$set": { "value": &value, "encrypted": false, "updated_at": DateTime::from_millis(1_700_000_000_001 + turn) } };
                secrets.update_one(doc! { "key": &name }, set).await.unwrap();
                last.insert(name, value);
            }
            last
        }
    });
    while !writer.is_finished() {
        run(&server, &["encrypt", "--yes"], &[("SECRET_ENCRYPTION_KEY", NEW)]);
    }
    let last = writer.await.unwrap();
    let keyring = Keyring::new(Some(&key(NEW)), &[]);
    for document in all(&secrets).await {
        let expected = last.get(text(&document, "key")).map_or("CANARY-first", String::as_str);
        assert_eq!(read(&keyring, &document).as_deref(), Some(expected));
    }
    let (_, said, _) = run(&server, &["encrypt", "--yes"], &[("SECRET_ENCRYPTION_KEY", NEW)]);
    assert!(said.ends_with("left as they are\n"), "{said}");
    assert!(all(&secrets).await.iter().all(is_encrypted));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_killed_leaves_every_secret_readable_and_goes_on() {
    const SECRETS: u64 = 3_000;
    const KILLS: usize = 5;
    const MOST_KILLS: usize = 50;
    let server = Mongod::start().await;
    let secrets = server.database("decisionbox").await.collection::<Document>("secrets");
    let sealed: Vec<Document> =
        (0..SECRETS).map(|number| secret(&number.to_string(), &seal(OLD, &format!("CANARY-{number}")), true)).collect();
    let old: Vec<&str> = sealed.iter().map(|document| text(document, "value")).collect();
    secrets.insert_many(&sealed).await.unwrap();
    let keys = [("SECRET_ENCRYPTION_KEY", NEW), ("SECRET_PREVIOUS_ENCRYPTION_KEY", OLD)];
    let both = Keyring::new(Some(&key(NEW)), &[key(OLD)]);
    let new = Keyring::new(Some(&key(NEW)), &[]);

    let (code, _, message) = run(&server, &["rotate", "--yes"], &keys[..1]);
    assert_eq!(code, 65, "without the old key nothing can be rotated: {message}");

    let rotated = async || secrets.count_documents(doc! { "value": { "$nin": &old } }).await.unwrap();
    let mut in_the_middle = 0;
    for _ in 0..MOST_KILLS {
        let mut child = prepared(&server, &["rotate", "--yes"], &keys).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while rotated().await == 0 && child.try_wait().unwrap().is_none() {}
        child.kill().unwrap();
        child.wait().unwrap();
        for document in all(&secrets).await {
            assert_eq!(read(&both, &document), Some(format!("CANARY-{}", text(&document, "key"))));
        }
        in_the_middle += usize::from((1..SECRETS).contains(&rotated().await));
        if in_the_middle == KILLS {
            break;
        }
        // All over again, so that the next kill has something to hit.
        secrets.delete_many(doc! {}).await.unwrap();
        secrets.insert_many(&sealed).await.unwrap();
    }
    assert_eq!(in_the_middle, KILLS, "so many kills hit a rotation in the middle");

    let (code, _, message) = run(&server, &["rotate", "--yes"], &keys);
    assert_eq!(code, 0, "{message}");
    assert!(all(&secrets).await.iter().all(|document| read(&new, document).is_some()), "the old key is no longer needed");
    assert_eq!(run(&server, &["audit"], &keys[..1]).0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_said() {
    let server = Mongod::start().await;
    let (code, _, message) = run(&server, &["encrypt", "--yes"], &[]);
    assert_eq!(code, 64);
    assert!(message.contains("there is no key to encrypt with: set SECRET_ENCRYPTION_KEY"), "{message}");

    let short = [("SECRET_ENCRYPTION_KEY", "Q0FOQVJZ")];
    let (code, _, message) = run(&server, &["audit"], &short);
    assert_eq!(code, 78);
    assert!(message.contains("32 bytes in base64, and this is 6"), "{message}");
    assert!(!message.contains("Q0FOQVJZ"), "{message}");

    let (code, _, message) = run(&server, &["rotate", "--yes"], &[("SECRET_ENCRYPTION_KEY", NEW)]);
    assert_eq!(code, 64);
    assert!(message.contains("there is no previous key"), "{message}");
}
