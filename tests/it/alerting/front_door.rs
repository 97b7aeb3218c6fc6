//! The panels and alerts of the front door and of the services behind it: one door has an API behind it, one an API that
//! cuts every connection, and one the sidecar's own services, whose collections take no document any more.
//!
//! Not here: heartbeats that fail. There is one in 5 s, and where time goes faster no window holds six of them. promtool
//! tests it.

use std::time::{Duration, Instant};

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, doc};

use super::PATIENCE;
use super::panels::problems_of_the_front_door;
use super::servers::Stack;
use crate::component::Component;
use crate::mongod::{Mongod, eventually};
use crate::raw_http::{RESET, Server, request};
use crate::sidecar::{Setup, free_port};

const KEY: &str = "correct-horse-battery-staple";
const ENCRYPTION_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// What is told, and of which of the three.
const TOLD: [(&str, usize); 4] = [
    ("BellwetherFrontStartsFailing", 1),
    ("BellwetherRunsNotStarted", 2),
    ("BellwetherRunsUnrecorded", 2),
    ("BellwetherSecretsFailing", 2),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_panels_of_the_front_door_have_data_and_what_fails_behind_it_is_told() {
    let (mongod, api, stack) = (Mongod::start().await, Component::start(), Stack::start().await);
    let database = mongod.database("decisionbox").await;
    let folder = tempfile::tempdir().unwrap();
    let (script, end) = (folder.path().join("agent.sh"), folder.path().join("end"));
    std::fs::write(&script, format!("while [ ! -e {} ]; do /bin/sleep 0.05; done\n", end.display())).unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, KEY).unwrap();
    let broken = Server::start(|_| RESET);
    let open = |behind: &str| {
        let door = format!("127.0.0.1:{}", free_port());
        let keys = format!("[{{ name: dashboard, file: {}, scopes: [runs, secrets] }}]", key.display());
        let auth = format!("{{ anonymous: [read], keys: {keys} }}");
        let front = format!("profile: decisionbox\nfront: {{ listen: \"{door}\", {behind}, auth: {auth} }}\n");
        let agent = format!("services: {{ runs: {{ agent: [/bin/sh, {}] }} }}\n", script.display());
        let setup = Setup::default().config(&format!("{front}{agent}")).variable("MONGODB_URI", &mongod.uri());
        let setup = setup.variable("SECRET_ENCRYPTION_KEY", ENCRYPTION_KEY);
        (setup.variable("API_URL", &api.url()).variable("DASHBOARD_URL", &api.url()).start(), door)
    };
    let of_api = format!("upstream: \"{}\"", api.url());
    let of_broken = format!("upstream: \"http://{}\"", broken.address);
    let doors = [open(&of_api), open(&of_broken), open(&format!("{of_api}, runs: embedded, secrets: embedded"))];
    stack.scrape(&doors.each_ref().map(|(sidecar, _)| sidecar.address.as_str()));
    // Each start is of another project: none is refused because of the one before.
    let start = async |door: &str| {
        let project = ObjectId::new();
        database.collection::<Document>("projects").insert_one(doc! { "_id": project, "name": "p" }).await.unwrap();
        let project = format!("/api/v1/projects/{}", project.to_hex());
        (request(door, "POST", &format!("{project}/discover"), Some(KEY), ""), project)
    };
    // An agent begins, and ends when nothing can be written down any more; the database itself answers its check.
    let services = doors[2].1.as_str();
    let begun = eventually("the run service", async || Some(start(services).await.0).filter(|answer| answer.0 == 202)).await;
    for command in [doc! { "collMod": "discovery_runs" }, doc! { "create": "secrets" }] {
        let nothing = doc! { "validator": { "impossible": { "$exists": true } } };
        database.run_command(command.into_iter().chain(nothing).collect::<Document>()).await.unwrap();
    }
    std::fs::write(&end, "").unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        for ((_, door), (read, started)) in doors.iter().zip([(404, 404), (502, 502), (404, 503)]) {
            let codes = [(); 5].map(|()| request(door, "GET", "/api/v1/projects", None, "").0);
            assert_eq!(codes, [read; 5], "the component knows no projects");
            let (answer, project) = start(door).await;
            assert_eq!(answer.0, started, "{answer:?}, after {begun:?}");
            if door == services {
                let secret = client.put(format!("http://{door}{project}/secrets/llm-api-key")).bearer_auth(KEY);
                let set = secret.header("content-type", "application/json").body("{\"value\":\"v\"}").send().await.unwrap();
                assert_eq!(set.status().as_u16(), 503);
            }
        }
        let mut problems = problems_of_the_front_door(&stack).await;
        for (alert, door) in TOLD {
            let firing = stack.query(&format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}}"), false).await.unwrap();
            let of: Vec<&str> = firing.iter().map(|(labels, _)| labels["instance"].as_str()).collect();
            if of != [doors[door].0.address.as_str()] {
                problems.push(format!("{alert} is told of {of:?}"));
            }
        }
        if problems.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{problems:#?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let failed = "sum by (instance) (increase(bellwether_front_requests_total{code=~\"5..\"}[10m])) > 0";
    let failing = stack.query(failed, false).await.unwrap();
    let of: Vec<&str> = failing.iter().map(|(labels, _)| labels["instance"].as_str()).collect();
    assert!(of.len() == 2 && !of.contains(&doors[0].0.address.as_str()), "{failing:?}");
}
