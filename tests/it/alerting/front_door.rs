//! The panels of the front door, of which one has an API behind it and another has none.

use std::time::{Duration, Instant};

use super::PATIENCE;
use super::panels::problems_of_the_front_door;
use super::servers::Stack;
use crate::component::Component;
use crate::mongod::Mongod;
use crate::raw_http::request;
use crate::sidecar::{Setup, free_port};

#[tokio::test(flavor = "multi_thread")]
async fn the_panels_of_the_front_door_have_data() {
    let (mongod, api, stack) = (Mongod::start().await, Component::start(), Stack::start().await);
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "correct-horse-battery-staple").unwrap();
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let open = |upstream: &str| {
        let door = format!("127.0.0.1:{}", free_port());
        let keys = format!("[{{ name: dashboard, file: {}, scopes: [runs] }}]", key.display());
        let auth = format!("{{ anonymous: [read], keys: {keys} }}");
        let front = format!("profile: decisionbox\nfront: {{ listen: \"{door}\", upstream: \"{upstream}\", auth: {auth} }}\n");
        let setup = Setup::default().config(&front).variable("MONGODB_URI", &mongod.uri());
        (setup.variable("API_URL", &api.url()).variable("DASHBOARD_URL", &api.url()).start(), door)
    };
    let doors = [open(&api.url()), open(&nobody)];
    stack.scrape(&doors.each_ref().map(|(sidecar, _)| sidecar.address.as_str()));
    let deadline = Instant::now() + PATIENCE;
    loop {
        for ((_, door), code) in doors.iter().zip([404, 502]) {
            let codes = [(); 5].map(|()| request(door, "GET", "/api/v1/projects", None, "").0);
            assert_eq!(codes, [code; 5], "the component knows no projects");
        }
        let problems = problems_of_the_front_door(&stack).await;
        if problems.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{problems:#?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let failed = "sum by (instance) (increase(bellwether_front_requests_total{code=~\"5..\"}[10m])) > 0";
    let failing = stack.query(failed, false).await.unwrap();
    assert!(failing.iter().map(|(labels, _)| labels["instance"].as_str()).eq([doors[1].0.address.as_str()]), "{failing:?}");
}
