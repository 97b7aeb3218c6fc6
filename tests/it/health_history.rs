//! What was: over a restart, as JSON, on the page and as metrics; and what is, in the shapes of others.

use serde_json::Value;

use crate::component::Component;
use crate::sidecar::{Setup, Sidecar, eventually};

fn start(component: &Component, folder: Option<tempfile::TempDir>) -> Sidecar {
    let text = format!(
        "state_dir: \"${{BELLWETHER_STATE_DIR}}\"\nhealth:\n  defaults: {{ interval: 300ms, timeout: 250ms }}\n  checks:\n    api: {{ type: http, critical: true, url: \"{}\" }}\n    web: {{ type: tcp, address: \"127.0.0.1:1\" }}\n",
        component.url()
    );
    let setup = Setup::default().config(&text);
    match folder {
        Some(folder) => setup.folder(folder).start(),
        None => setup.start(),
    }
}

fn history(sidecar: &Sidecar, query: &str) -> Value {
    serde_json::from_str(&sidecar.get(&format!("/api/v1/history{query}")).body).unwrap()
}

fn changes(report: &Value) -> Vec<String> {
    let of = |transition: &Value| format!("{} {}", transition["from"].as_str().unwrap(), transition["to"].as_str().unwrap());
    report["transitions"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn the_history_survives_a_restart_whose_time_is_unknown() {
    let component = Component::start();
    let sidecar = start(&component, None);
    sidecar.wait_for("/readyz", 200);
    component.answer_with(503);
    sidecar.wait_for("/readyz", 503);
    let seen = |sidecar: &Sidecar| history(sidecar, "?check=api&window=1h")["checks"][0].clone();
    eventually("some seconds down", || seen(&sidecar), |api| api["uptime"]["down_seconds"].as_u64() > Some(1));
    let (status, folder) = sidecar.stop();
    assert_eq!(status.code(), Some(0));
    let sidecar = start(&component, Some(folder));
    let report = eventually("it is down again", || seen(&sidecar), |api| changes(api).len() >= 4);
    assert_eq!(changes(&report), ["unknown up", "up down", "down unknown", "unknown down"]);
    assert!(report["uptime"]["down_seconds"].as_u64() > Some(1) && report["uptime"]["unknown_seconds"].as_u64() > Some(1), "{report:#}");
    let ratio = eventually("uptime", || sidecar.value("bellwether_check_uptime_ratio{check=\"api\",window=\"24h\"}"), Option::is_some);
    assert!(ratio < Some(1.0), "{ratio:?}");

    assert_eq!(history(&sidecar, "?window=30d")["checks"].as_array().unwrap().len(), 2);
    assert_eq!(sidecar.get("/api/v1/history?window=2h").status, 400);
    assert_eq!(sidecar.get("/api/v1/history?check=nope").status, 404);
    let page = eventually("both are down", || sidecar.get("/"), |page| page.body.contains("Root cause: <strong>api, web</strong>"));
    assert_eq!(page.content_type, "text/html; charset=utf-8");
    for part in [
        "<h1 class=fail>Not ready</h1>",
        "Root cause: <strong>api, web</strong>",
        "href=\"health/api\">api</a> *",
        "up → <span class=down>",
    ] {
        assert!(page.body.contains(part), "{part}: {}", page.body);
    }
    assert!(!page.body.contains("<script"), "{}", page.body);
}

#[test]
fn others_are_told_in_their_words() {
    let component = Component::start();
    let sidecar = start(&component, None);
    sidecar.wait_for("/readyz", 200);
    eventually("the other one", || sidecar.get("/readyz/web").body, |body| body.contains("down: refused"));
    let ask = |path: &str| {
        let answer = sidecar.get(path);
        (answer.status, serde_json::from_str::<Value>(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}")))
    };
    let (status, document) = ask("/compat/decisionbox/health");
    let expected =
        serde_json::json!({ "status": "ok", "services": { "api": { "status": "ok" }, "web": { "status": "error", "error": "refused" } } });
    assert_eq!((status, document), (200, expected));
    let (status, document) = ask("/compat/ragbase/health");
    assert_eq!((status, &document["status"], &document["checks"]), (200, &"ok".into(), &serde_json::json!({ "api": true, "web": false })));
    assert!(document["uptime"].is_f64() && document["version"].is_string());
    component.answer_with(503);
    sidecar.wait_for("/readyz", 503);
    assert_eq!((ask("/compat/decisionbox/health").0, ask("/compat/ragbase/health").0), (503, 503));
    assert_eq!(ask("/compat/decisionbox/health").1["status"], "degraded");
    assert_eq!(sidecar.get("/compat/other/health").status, 404);
}
