//! Health against real servers: a mongod that is frozen, absent and late, components that fail in every way.

use rustix::process::Signal;
use serde_json::Value;

use crate::component::Component;
use crate::mongod::Mongod;
use crate::sidecar::{Setup, Sidecar, eventually};

/// mongodb ← api ← dashboard, looked at ten times a second.
fn stack(mongod_uri: &str, api: &Component, dashboard: &Component) -> Setup {
    Setup::default()
        .config(&format!(
            r#"
stores: {{ mongodb: {{ uri: "${{MONGODB_URI}}", database: app }} }}
state_dir: "${{BELLWETHER_STATE_DIR}}"
health:
  defaults: {{ interval: 300ms, timeout: 250ms, fail_after: 3, pass_after: 2 }}
  checks:
    mongodb: {{ type: mongodb, critical: true }}
    api: {{ type: http, url: "{}", critical: true, depends_on: [mongodb] }}
    dashboard: {{ type: http, url: "{}", depends_on: [api] }}
  groups:
    database: [mongodb]
"#,
            api.url(),
            dashboard.url()
        ))
        .variable("MONGODB_URI", mongod_uri)
}

fn root_causes(sidecar: &Sidecar) -> Vec<String> {
    let document: Value = serde_json::from_str(&sidecar.get("/health").body).unwrap();
    document["x-root_causes"].as_array().unwrap().iter().map(|cause| cause.as_str().unwrap().to_owned()).collect()
}

fn check(sidecar: &Sidecar, name: &str) -> Value {
    let document: Value = serde_json::from_str(&sidecar.get("/health").body).unwrap();
    document["checks"][format!("{name}:responseTime")][0].clone()
}

fn assert_own_probes_pass(sidecar: &Sidecar) {
    for probe in ["/livez", "/startupz", "/self/readyz"] {
        let answer = sidecar.get(probe);
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"), "{probe}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_mongod_is_the_root_cause_and_comes_back_without_a_restart() {
    let mongod = Mongod::start().await;
    let (api, dashboard) = (Component::start(), Component::start());
    let sidecar = stack(&mongod.uri(), &api, &dashboard).start();
    sidecar.wait_for("/readyz", 200);
    let open_before = sidecar.value("process_open_fds").unwrap();

    mongod.freeze();
    let answer = sidecar.wait_for("/readyz", 503);
    assert!(answer.body.contains("[-]mongodb failed: down: timeout"), "{}", answer.body);
    assert_eq!(root_causes(&sidecar), ["mongodb"]);
    assert_eq!(sidecar.get("/readyz?exclude=mongodb").status, 200);
    assert_eq!(sidecar.get("/readyz/api").status, 200);
    assert_eq!(sidecar.get("/groups/database/readyz").status, 503);
    assert_own_probes_pass(&sidecar);
    // Single flight: a frozen server gets no new connection with each look.
    eventually(
        "ten more looks",
        || sidecar.value("bellwether_check_results_total{check=\"mongodb\",reason=\"timeout\"}"),
        |looks| looks.is_some_and(|looks| looks > 10.0),
    );
    assert!(sidecar.value("process_open_fds").unwrap() <= open_before + 3.0);

    mongod.thaw();
    sidecar.wait_for("/readyz", 200);
    assert_eq!(root_causes(&sidecar), Vec::<String>::new());
    assert_own_probes_pass(&sidecar);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_whole_stack_names_one_cause_and_ends_by_itself() {
    let mut mongod = Mongod::start().await;
    let (api, dashboard) = (Component::start(), Component::start());
    let sidecar = stack(&mongod.uri(), &api, &dashboard).start();
    sidecar.wait_for("/readyz", 200);

    mongod.kill();
    api.answer_with(503);
    dashboard.answer_with(503);
    eventually(
        "all three are down",
        || [check(&sidecar, "mongodb"), check(&sidecar, "api"), check(&sidecar, "dashboard")],
        |checks| checks.iter().all(|check| check["x-verdict"] == "down"),
    );
    assert_eq!(root_causes(&sidecar), ["mongodb"]);
    assert_eq!(check(&sidecar, "api")["x-suppressed_by"], "mongodb");
    assert_eq!(check(&sidecar, "dashboard")["x-suppressed_by"], "mongodb");
    assert_eq!(check(&sidecar, "api")["x-state"], "suppressed");
    assert_eq!(check(&sidecar, "mongodb")["x-state"], "down");
    // The same for alerts: one cause, and nothing else that is down.
    assert_eq!(exposed_as_one(&sidecar, "bellwether_check_root_cause"), ["{check=\"mongodb\"}"]);
    assert_eq!(
        exposed_as_one(&sidecar, "bellwether_check_state"),
        ["{check=\"mongodb\",state=\"down\"}", "{check=\"api\",state=\"suppressed\"}", "{check=\"dashboard\",state=\"suppressed\"}"]
    );
    let looks = || sidecar.value("bellwether_check_results_total{check=\"api\",reason=\"http_5xx\"}").unwrap();
    let seen = looks();
    eventually("what is suppressed is looked at all the same", looks, |looks| *looks >= seen + 3.0);
    let started = sidecar.value("process_start_time_seconds");
    assert_eq!(check(&sidecar, "api")["x-reason"], "http_5xx");
    assert_eq!(sidecar.get("/health").status, 503);
    assert_own_probes_pass(&sidecar);

    mongod.restart().await;
    api.answer_with(200);
    dashboard.answer_with(200);
    sidecar.wait_for("/readyz", 200);
    eventually("all is well", || sidecar.get("/health").body, |body| body.contains("\"status\": \"pass\",\n  \"version\""));
    assert_eq!(root_causes(&sidecar), Vec::<String>::new());
    assert_eq!(exposed_as_one(&sidecar, "bellwether_check_root_cause"), Vec::<String>::new());
    assert_eq!(
        exposed_as_one(&sidecar, "bellwether_check_state"),
        ["{check=\"mongodb\",state=\"up\"}", "{check=\"api\",state=\"up\"}", "{check=\"dashboard\",state=\"up\"}"]
    );
    assert_eq!(sidecar.value("process_start_time_seconds"), started, "it is still the same process");
}

/// The labels of the series of a metric that are 1.
fn exposed_as_one(sidecar: &Sidecar, metric: &str) -> Vec<String> {
    let metrics = sidecar.get("/metrics").body;
    let series = metrics.lines().filter_map(|line| line.strip_prefix(metric)?.rsplit_once(' '));
    let ones = series.filter(|(labels, value)| labels.starts_with('{') && value.parse() == Ok(1.0));
    ones.map(|(labels, _)| labels.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_absent_at_the_start_holds_nothing_up() {
    let mut mongod = Mongod::start().await;
    mongod.kill();
    let (api, dashboard) = (Component::start(), Component::start());
    let sidecar = stack(&mongod.uri(), &api, &dashboard).start();
    sidecar.wait_for("/startupz", 200);
    assert_eq!(sidecar.get("/readyz").status, 503);
    assert_own_probes_pass(&sidecar);
    mongod.restart().await;
    sidecar.wait_for("/readyz", 200);
}

#[test]
fn each_way_to_fail_has_its_reason() {
    let component = Component::start();
    let url = component.url();
    let nobody = crate::sidecar::free_port();
    let sidecar = Setup::default()
        .config(&format!(
            r#"
state_dir: "${{BELLWETHER_STATE_DIR}}"
health:
  defaults: {{ interval: 1s, timeout: 700ms }}
  checks:
    fine: {{ type: http, url: "{url}/fine" }}
    redirect: {{ type: http, url: "{url}/redirect" }}
    huge: {{ type: http, url: "{url}/huge" }}
    unauthorized: {{ type: http, url: "{url}/unauthorized" }}
    missing: {{ type: http, url: "{url}/missing" }}
    broken: {{ type: http, url: "{url}/broken" }}
    hang: {{ type: http, url: "{url}/hang" }}
    drip: {{ type: http, url: "{url}/drip" }}
    refused: {{ type: http, url: "http://127.0.0.1:{nobody}/" }}
    nowhere: {{ type: http, url: "http://does-not-exist.invalid/" }}
    tcp: {{ type: tcp, address: "127.0.0.1:{nobody}" }}
"#
        ))
        .start();
    sidecar.wait_for("/startupz", 200);
    for (name, reason) in [
        ("fine", Value::Null),
        ("redirect", Value::Null),
        ("huge", Value::Null),
        ("unauthorized", "auth".into()),
        ("missing", "http_4xx".into()),
        ("broken", "http_5xx".into()),
        ("hang", "timeout".into()),
        ("drip", "timeout".into()),
        ("refused", "refused".into()),
        ("nowhere", "dns".into()),
        ("tcp", "refused".into()),
    ] {
        let seen = eventually(name, || check(&sidecar, name), |check| check["time"].is_string());
        assert_eq!(seen["x-reason"], reason, "{name}: {seen:#}");
    }
}

#[test]
fn details_are_for_those_who_may_see_them() {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "correct horse battery staple\n").unwrap();
    let config = format!(
        "admin: {{ token_file: {} }}\nstate_dir: \"${{BELLWETHER_STATE_DIR}}\"\nhealth: {{ checks: {{ api: {{ type: tcp, critical: true, address: \"127.0.0.1:{}\" }} }} }}\n",
        token.path().display(),
        crate::sidecar::free_port()
    );
    let sidecar = Setup::default().config(&config).start();
    sidecar.wait_for("/startupz", 200);
    let ask = |headers: &[(&str, &str)]| {
        let mut request = raw_get(&sidecar.address, "/readyz", headers);
        request.retain(|c| c != '\r');
        request
    };
    assert!(ask(&[]).contains("[-]api failed: down: refused"), "{}", ask(&[]));
    let forwarded = ("X-Forwarded-For", "203.0.113.7");
    assert!(ask(&[forwarded]).contains("[-]api failed: reason withheld"), "{}", ask(&[forwarded]));
    assert!(ask(&[forwarded, ("Authorization", "Bearer wrong")]).contains("reason withheld"));
    assert!(ask(&[forwarded, ("Authorization", "Bearer correct horse battery staple")]).contains("down: refused"));
}

/// One request, word for word.
fn raw_get(address: &str, path: &str, headers: &[(&str, &str)]) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    // What comes back counts, whatever became of the request.
    let _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\r\n");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn sigterm_is_unready_first_and_then_a_clean_end() {
    let component = Component::start();
    let config = format!(
        "state_dir: \"${{BELLWETHER_STATE_DIR}}\"\nhealth: {{ checks: {{ api: {{ type: http, critical: true, url: \"{}\" }} }} }}\n",
        component.url()
    );
    let sidecar = Setup::default().config(&config).start();
    sidecar.wait_for("/readyz", 200);
    sidecar.signal(Signal::TERM);
    let answer = sidecar.wait_for("/readyz", 503);
    assert!(answer.body.contains("[-]shutdown failed: the sidecar is shutting down"), "{}", answer.body);
    assert_eq!(sidecar.get("/livez").status, 200, "it is alive until it ends");
    let (status, _) = sidecar.wait();
    assert_eq!(status.code(), Some(0));
}

/// Whatever does not answer holds up no end.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_is_a_clean_end_also_while_everything_hangs() {
    let mongod = Mongod::start().await;
    let component = Component::start();
    let config = format!(
        "stores: {{ mongodb: {{ uri: \"{}\", database: app }} }}\nstate_dir: \"${{BELLWETHER_STATE_DIR}}\"\nhealth: {{ checks: {{ mongodb: {{ type: mongodb, critical: true }}, api: {{ type: http, url: \"{}/hang\" }} }} }}\n",
        mongod.uri(),
        component.url()
    );
    let sidecar = Setup::default().config(&config).start();
    sidecar.wait_for("/readyz", 200);
    mongod.freeze();
    eventually("a look hangs", || sidecar.value("bellwether_check_looks{phase=\"waiting\"}"), |looks| *looks >= Some(1.0));
    sidecar.signal(Signal::TERM);
    let (status, log) = sidecar.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("stopped") && !log.contains("did not stop"), "{log}");
}

#[test]
fn a_second_signal_ends_at_once() {
    let sidecar = Setup::default().config("state_dir: \"${BELLWETHER_STATE_DIR}\"\n").start();
    sidecar.signal(Signal::TERM);
    sidecar.wait_for("/readyz", 503);
    sidecar.signal(Signal::TERM);
    let (status, log) = sidecar.wait();
    assert_eq!(status.code(), Some(143), "{log}");
    assert!(log.contains("a second signal"), "{log}");
}

#[test]
fn slow_clients_and_strange_paths_do_no_harm() {
    let sidecar = Setup::default().config("state_dir: \"${BELLWETHER_STATE_DIR}\"\n").start();
    let slow: Vec<_> = (0..100)
        .map(|_| {
            use std::io::Write as _;
            let mut stream = std::net::TcpStream::connect(&sidecar.address).unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost").unwrap();
            stream
        })
        .collect();
    assert_eq!(sidecar.get("/livez").status, 200);
    assert_eq!(sidecar.get("/nope").status, 404);
    assert_eq!(sidecar.get("/readyz/nope").status, 404);
    assert_eq!(sidecar.get("/groups/nope/readyz").status, 404);
    assert_eq!(sidecar.get("/health/nope").status, 404);
    // The server may close before all of it is written; then the answer may be lost with the connection.
    let answer = raw_get(&sidecar.address, &format!("/{}", "x".repeat(100_000)), &[]);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert_eq!(sidecar.get("/livez").status, 200);
    drop(slow);
}
