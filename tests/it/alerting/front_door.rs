//! The panels and alerts of the front door and of the services behind it: one door has an API behind it, one an API that
//! cuts every connection, and one the sidecar's own services, whose agent is not there.

use std::time::{Duration, Instant};

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, doc};

use super::PATIENCE;
use super::panels::problems_of_the_front_door;
use super::servers::Stack;
use crate::component::Component;
use crate::mongod::Mongod;
use crate::raw_http::{RESET, Server, request};
use crate::sidecar::{Setup, free_port};

const KEY: &str = "correct-horse-battery-staple";
const ENCRYPTION_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// What the front doors are asked for is told by these, and by which of the three.
const TOLD: [(&str, usize); 2] = [("BellwetherFrontStartsFailing", 1), ("BellwetherRunsNotStarted", 2)];

#[tokio::test(flavor = "multi_thread")]
async fn the_panels_of_the_front_door_have_data_and_starts_that_fail_are_told() {
    let (mongod, api, stack) = (Mongod::start().await, Component::start(), Stack::start().await);
    let projects = mongod.database("decisionbox").await.collection::<Document>("projects");
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, KEY).unwrap();
    let broken = Server::start(|_| RESET);
    let open = |behind: &str| {
        let door = format!("127.0.0.1:{}", free_port());
        let keys = format!("[{{ name: dashboard, file: {}, scopes: [runs, secrets] }}]", key.display());
        let auth = format!("{{ anonymous: [read], keys: {keys} }}");
        let front = format!("profile: decisionbox\nfront: {{ listen: \"{door}\", {behind}, auth: {auth} }}\n");
        let agent = "services: { runs: { agent: [/nowhere/agent] } }\n";
        let setup = Setup::default().config(&format!("{front}{agent}")).variable("MONGODB_URI", &mongod.uri());
        let setup = setup.variable("SECRET_ENCRYPTION_KEY", ENCRYPTION_KEY);
        (setup.variable("API_URL", &api.url()).variable("DASHBOARD_URL", &api.url()).start(), door)
    };
    let of_api = format!("upstream: \"{}\"", api.url());
    let of_broken = format!("upstream: \"http://{}\"", broken.address);
    let doors = [open(&of_api), open(&of_broken), open(&format!("{of_api}, runs: embedded, secrets: embedded"))];
    stack.scrape(&doors.each_ref().map(|(sidecar, _)| sidecar.address.as_str()));
    let deadline = Instant::now() + PATIENCE;
    loop {
        for ((_, door), (read, start)) in doors.iter().zip([(404, 404), (502, 502), (404, 500)]) {
            let codes = [(); 5].map(|()| request(door, "GET", "/api/v1/projects", None, "").0);
            assert_eq!(codes, [read; 5], "the component knows no projects");
            // Each start is of another project: none is refused because of the one before.
            let project = ObjectId::new();
            projects.insert_one(doc! { "_id": project, "name": "p" }).await.unwrap();
            let started = request(door, "POST", &format!("/api/v1/projects/{}/discover", project.to_hex()), Some(KEY), "");
            assert_eq!(started.0, start, "{started:?}");
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
