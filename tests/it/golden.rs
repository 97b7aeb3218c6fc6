//! The golden exposition: which series the profile exposes once everything has been looked at. Values are masked.
//!
//! Dashboards and alerts are held to it. `BELLWETHER_BLESS=1 cargo test --test it golden` writes it anew.

use std::collections::BTreeMap;
use std::path::Path;

use mongodb::bson::{DateTime, Document, doc, oid::ObjectId};

use crate::mongod::Mongod;
use crate::raw_http::request;
use crate::sidecar::{Setup, eventually, free_port};

const GOLDEN: &str = "tests/golden/decisionbox.metrics";

/// A sample with its value taken away; process metrics that some systems lack are left in, as ours has them.
fn mask(exposition: &str) -> String {
    let mut families: BTreeMap<&str, (Vec<&str>, Vec<String>)> = BTreeMap::new();
    let mut current = "";
    for line in exposition.lines() {
        if let Some(head) = line.strip_prefix("# ") {
            current = head.split(' ').nth(1).unwrap();
            families.entry(current).or_default().0.push(line);
        } else {
            let (series, _) = line.rsplit_once(' ').unwrap();
            let series = series.replace(env!("CARGO_PKG_VERSION"), "VERSION");
            families.get_mut(current).unwrap().1.push(format!("{series} 0"));
        }
    }
    let mut text = String::new();
    for (heads, mut samples) in families.into_values() {
        samples.sort();
        for line in heads.into_iter().map(str::to_owned).chain(samples) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

/// One document in each collection that the profile looks at, and the indexes that the application makes.
async fn seed(mongod: &Mongod) {
    let database = mongod.database("decisionbox").await;
    let now = DateTime::now();
    let documents = [
        ("projects", doc! { "name": "p" }),
        ("secrets", doc! { "key": "llm-api-key", "encrypted": true }),
        ("discoveries", doc! { "created_at": now, "run_type": "full" }),
        ("discovery_runs", doc! { "status": "completed", "project_id": "p", "started_at": now, "completed_at": now }),
        ("discovery_debug_logs", doc! { "created_at": now, "timestamp": now, "log_type": "llm", "success": true }),
        ("feedback", doc! { "discovery_id": ObjectId::new().to_hex() }),
    ];
    for (collection, document) in documents {
        database.collection::<Document>(collection).insert_one(document).await.unwrap();
    }
    for (collection, field, seconds) in [
        ("discovery_debug_logs", "timestamp", 2_592_000),
        ("discovery_debug_logs", "created_at", 2_592_000),
        ("search_history", "created_at", 7_776_000),
        ("project_schema_cache", "cached_at", 604_800),
        ("project_schema_index_logs", "created_at", 604_800),
    ] {
        let index = doc! { "key": { field: 1 }, "name": format!("{field}_1"), "expireAfterSeconds": seconds };
        database.run_command(doc! { "createIndexes": collection, "indexes": [index] }).await.unwrap();
    }
}

/// What a sidecar exposes of the application's services where it is these itself.
fn of_embedded_services(mongod: &Mongod) -> String {
    let door = format!("127.0.0.1:{}", free_port());
    let front = format!("front: {{ listen: \"{door}\", runs: embedded, secrets: embedded, auth: {{ anonymous: [read] }} }}\n");
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let setup = Setup::default().config(&format!("profile: decisionbox\n{front}")).variable("SECRET_ENCRYPTION_KEY", key);
    let sidecar = setup.variable("MONGODB_URI", &mongod.uri()).start();
    sidecar.wait_for("/metrics", 200);
    let is_of_services = |line: &&str| {
        let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
        ["bellwether_runs_", "bellwether_secrets_"].iter().any(|prefix| name.starts_with(prefix))
    };
    sidecar.get("/metrics").body.lines().filter(is_of_services).flat_map(|line| [line, "\n"]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_profile_exposes_what_dashboards_and_alerts_ask_for() {
    let mongod = Mongod::start().await;
    seed(&mongod).await;
    let backups = tempfile::tempdir().unwrap();
    crate::backups::mongodump(&backups.path().join("dump"), &["projects", "secrets", "discoveries", "feedback"]);
    let (secrets, door) = (tempfile::tempdir().unwrap(), format!("127.0.0.1:{}", free_port()));
    // The start that was missed is made up at once. Nobody takes what is told.
    let config = "profile: decisionbox\nretention: { jitter: 0s }\nnotify: [{ webhook: { url: \"http://127.0.0.1:9/\" } }]\n";
    let key = secrets.path().join("key");
    std::fs::write(&key, "correct-horse-battery-staple").unwrap();
    let keys = format!("[{{ name: dashboard, file: {}, scopes: [runs] }}]", key.display());
    let front = format!("front: {{ listen: \"{door}\", auth: {{ anonymous: [read], keys: {keys} }} }}\n");
    let sidecar = Setup::default()
        .config(&format!("{config}{front}{}", crate::tls::admin(secrets.path())))
        .variable("MONGODB_URI", &mongod.uri())
        .variable("BACKUP_PATH", &format!("{}/*", backups.path().display()))
        .start();
    let looked = |body: &String| {
        let success: Vec<&str> = body.lines().filter(|line| line.starts_with("bellwether_collector_success{")).collect();
        let ttl = body.lines().filter(|line| line.starts_with("bellwether_ttl_index_present{")).count();
        !success.is_empty()
            && success.iter().all(|line| line.ends_with(" 1") || line.ends_with(" 1.0"))
            && ttl == 5
            && ["api", "dashboard", "mongodb"]
                .iter()
                .all(|check| body.contains(&format!("\nbellwether_check_uptime_ratio{{check=\"{check}\"")))
            && body.contains("\nbellwether_backup_last_success_timestamp_seconds{")
            && body.contains("\nbellwether_retention_matched_documents{")
    };
    sidecar.wait_for("/startupz", 200);
    let asked = request(&door, "GET", "/api/v1/projects", None, "").0;
    assert_eq!(asked, 502, "there is no API");
    let exposition = eventually("everything has been looked at", || sidecar.get("/metrics").body, looked);
    let found = mask(&format!("{exposition}{}", of_embedded_services(&mongod)));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN);
    if std::env::var_os("BELLWETHER_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &found).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let missing: Vec<&str> = golden.lines().filter(|line| !found.contains(line)).collect();
    let new: Vec<&str> = found.lines().filter(|line| !golden.contains(line)).collect();
    assert!(golden == found, "not in the exposition any more: {missing:#?}\nnew in it: {new:#?}\nsee the head of this file");
}
