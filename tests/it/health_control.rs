//! What changes something: maintenance and reload, over the control listener, by a signal and by the file.

use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::component::Component;
use crate::mongod::Mongod;
use crate::raw_http::request;
use crate::sidecar::{Setup, Sidecar, command, eventually, free_port};
use crate::tls::{Authority, TlsServer};

const TOKEN: &str = "correct horse battery staple";

/// A sidecar with a control listener, and the address of that.
fn controlled(checks: &str, folder: Option<tempfile::TempDir>) -> (Sidecar, String) {
    let folder = folder.unwrap_or_else(|| tempfile::tempdir().unwrap());
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let control = format!("127.0.0.1:{}", free_port());
    let text = format!(
        "state_dir: \"${{BELLWETHER_STATE_DIR}}\"\nadmin: {{ listen: {control}, token_file: {} }}\nhealth:\n  defaults: {{ interval: 300ms, timeout: 250ms }}\n  checks:\n{checks}",
        token.display()
    );
    let sidecar = Setup::default().config(&text).folder(folder).start();
    sidecar.wait_for("/startupz", 200);
    (sidecar, control)
}

fn rewrite(sidecar: &Sidecar, change: impl Fn(String) -> String) {
    let file = sidecar.folder.path().join("bellwether.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(file, change(text)).unwrap();
}

fn document(sidecar: &Sidecar) -> Value {
    serde_json::from_str(&sidecar.get("/health").body).unwrap()
}

fn check(sidecar: &Sidecar, name: &str) -> Value {
    document(sidecar)["checks"][format!("{name}:responseTime")][0].clone()
}

#[test]
fn everything_on_the_control_listener_needs_the_token() {
    let (_sidecar, control) = controlled("    db: { type: tcp, address: \"127.0.0.1:1\" }\n", None);
    for (method, path) in
        [("GET", "/maintenance"), ("POST", "/maintenance"), ("DELETE", "/maintenance"), ("POST", "/-/reload"), ("GET", "/nope")]
    {
        for token in [None, Some("wrong"), Some("")] {
            assert_eq!(request(&control, method, path, token, "{}").0, 401, "{method} {path} {token:?}");
        }
    }
    assert_eq!(request(&control, "GET", "/nope", Some(TOKEN), "").0, 404);
    for body in [
        "",
        "{}",
        "[]",
        "{\"for\":\"30\"}",
        "{\"for\":\"0s\"}",
        "{\"for\":\"99d\"}",
        "{\"for\":\"1h\",\"checks\":[\"nope\"]}",
        "{\"for\":\"1h\",\"x\":1}",
    ] {
        let (status, answer) = request(&control, "POST", "/maintenance", Some(TOKEN), body);
        assert_eq!(status, 400, "{body}: {answer}");
    }
    let huge = format!("{{\"for\":\"1h\",\"reason\":\"{}\"}}", "x".repeat(100_000));
    assert_eq!(request(&control, "POST", "/maintenance", Some(TOKEN), &huge).0, 413);
}

#[test]
fn a_token_that_is_replaced_in_its_file_holds_without_a_restart() {
    let (sidecar, control) = controlled("    db: { type: tcp, address: \"127.0.0.1:1\" }\n", None);
    let asked = |token| request(&control, "GET", "/maintenance", Some(token), "").0;
    let seen = |success| {
        eventually("the file has been read", || sidecar.value("bellwether_admin_token_reload_success"), |value| *value == Some(success))
    };
    let token = sidecar.folder.path().join("token");
    std::fs::write(&token, "short").unwrap();
    seen(0.0);
    assert_eq!((asked(TOKEN), asked("short")), (200, 401));
    std::fs::write(&token, "another horse, another battery").unwrap();
    seen(1.0);
    assert_eq!((asked(TOKEN), asked("another horse, another battery")), (401, 200));
}

#[test]
fn a_control_listener_without_a_token_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "admin: { listen: 127.0.0.1:9601 }\n").unwrap();
    let output = command().args(["check", "--config"]).arg(file.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8(output.stderr).unwrap().contains("1:18: admin.listen: the control listener needs `token_file`"));
}

#[test]
fn maintenance_silences_alerts_and_leaves_the_truth() {
    let component = Component::start();
    let checks = format!(
        "    api: {{ type: http, critical: true, url: \"{}\" }}\n    web: {{ type: tcp, address: \"127.0.0.1:1\", depends_on: [api] }}\n",
        component.url()
    );
    let (sidecar, control) = controlled(&checks, None);
    let body = "{\"checks\":[\"api\"],\"for\":\"30m\",\"reason\":\"update of <api>\"}";
    let (status, answer) = request(&control, "POST", "/maintenance", Some(TOKEN), body);
    assert_eq!(status, 201, "{answer}");
    component.answer_with(503);
    sidecar.wait_for("/readyz", 503);
    let seen = check(&sidecar, "api");
    assert_eq!((&seen["x-state"], &seen["x-verdict"], &seen["status"]), (&"maintenance".into(), &"down".into(), &"fail".into()));
    assert_eq!(seen["x-maintenance"]["reason"], "update of <api>");
    assert!(sidecar.get("/readyz").body.contains("[-]api failed: down: http_5xx, in maintenance"));
    assert_eq!(document(&sidecar)["x-root_causes"][0], "api", "people are told the cause");
    assert_eq!(sidecar.value("bellwether_check_root_cause{check=\"api\"}"), Some(0.0), "alerts are not");
    assert_eq!(sidecar.value("bellwether_check_state{check=\"api\",state=\"down\"}"), Some(0.0));
    assert_eq!(sidecar.value("bellwether_check_state{check=\"api\",state=\"maintenance\"}"), Some(1.0));
    assert_eq!(sidecar.value("bellwether_check_up{check=\"api\"}"), Some(0.0));
    eventually("the child is suppressed", || check(&sidecar, "web"), |web| web["x-state"] == "suppressed");
    // It is kept over a kill -9, as it was saved at once.
    eventually(
        "it is saved",
        || sidecar.state_dir().join("health.0.state").exists() || sidecar.state_dir().join("health.1.state").exists(),
        |saved| *saved,
    );
    let folder = sidecar.kill();
    let (sidecar, control) = controlled(&checks, Some(folder));
    eventually("it goes on", || check(&sidecar, "api"), |seen| seen["x-state"] == "maintenance" && seen["x-verdict"] == "down");
    let (_, list) = request(&control, "GET", "/maintenance", Some(TOKEN), "");
    assert_eq!(serde_json::from_str::<Value>(&list).unwrap()["maintenance"][0]["id"], 1);
    assert_eq!(request(&control, "DELETE", "/maintenance/7", Some(TOKEN), "").0, 404);
    assert_eq!(request(&control, "DELETE", "/maintenance/1", Some(TOKEN), "").0, 200);
    eventually("it is over", || check(&sidecar, "api"), |seen| seen["x-state"] == "down");
    assert_eq!(sidecar.value("bellwether_check_root_cause{check=\"api\"}"), Some(1.0));
}

#[test]
fn a_window_of_the_configuration_is_open_at_its_time() {
    let text = |cron: &str| {
        format!(
            "state_dir: \"${{BELLWETHER_STATE_DIR}}\"\nhealth:\n  checks:\n    api: {{ type: tcp, address: \"127.0.0.1:1\" }}\n  maintenance:\n    - {{ cron: \"{cron}\", duration: 1h, timezone: Europe/Berlin, checks: [api] }}\n"
        )
    };
    let sidecar = Setup::default().config(&text("* * * * *")).start();
    eventually("it is open", || check(&sidecar, "api"), |api| api["x-state"] == "maintenance");
    let file = tempfile::NamedTempFile::new().unwrap();
    for (cron, zone, expected) in
        [("nope", "Europe/Berlin", "is not a cron expression"), ("0 3 * * 0", "Europe/Nowhere", "there is no time zone")]
    {
        std::fs::write(file.path(), text(cron).replace("Europe/Berlin", zone).replace("[api]", "[api, other]")).unwrap();
        let output = command().args(["check", "--config"]).arg(file.path()).env("BELLWETHER_STATE_DIR", "/tmp").output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(expected) && stderr.contains("there is no check `other`"), "{stderr}");
    }
}

/// H12: what can be used is taken over, and what cannot changes nothing.
#[test]
fn h12_a_changed_file_swaps_checks_and_a_broken_one_changes_nothing() {
    let component = Component::start();
    let kept = format!("    kept: {{ type: http, critical: true, url: \"{}\" }}\n", component.url());
    let (sidecar, control) = controlled(&format!("{kept}    gone: {{ type: tcp, address: \"127.0.0.1:1\" }}\n"), None);
    sidecar.wait_for("/readyz", 200);
    let since = check(&sidecar, "kept")["x-since"].clone();
    let good = std::fs::read_to_string(sidecar.folder.path().join("bellwether.yaml")).unwrap();

    for (broken, problem) in [
        (good.replace("checks:", "checks: ["), "is not YAML"),
        (good.clone() + "state_dir: /tmp\n", "stands here twice"),
        (good.clone() + "statedir: /tmp\n", "unknown key `statedir`"),
    ] {
        rewrite(&sidecar, |_| broken.clone());
        let (status, answer) = request(&control, "POST", "/-/reload", Some(TOKEN), "");
        assert!(status == 400 && answer.contains(problem), "{status} {answer}");
        assert_eq!(sidecar.value("bellwether_config_reload_success"), Some(0.0));
        assert_eq!(sidecar.get("/readyz").status, 200);
        rewrite(&sidecar, |_| good.clone());
        eventually(
            "the file is found to be good again",
            || sidecar.value("bellwether_config_reload_success"),
            |success| *success == Some(1.0),
        );
    }

    rewrite(&sidecar, |text| text.replace("gone: { type: tcp,", "fresh: { type: tcp,") + "logs: { inputs: [] }\n");
    eventually("the new check", || check(&sidecar, "fresh"), |fresh| fresh["x-state"] == "down");
    assert!(check(&sidecar, "gone").is_null());
    assert_eq!(sidecar.value("bellwether_check_up{check=\"gone\"}"), None);
    assert_eq!(sidecar.value("bellwether_check_results_total{check=\"gone\",reason=\"refused\"}"), None);
    assert_eq!(check(&sidecar, "kept")["x-since"], since, "an unchanged check keeps its state");
    assert!(sidecar.log().contains("restart to use them"), "{}", sidecar.log());
    assert!(sidecar.value("bellwether_config_last_reload_success_timestamp_seconds").unwrap() > 1e9);

    rewrite(&sidecar, |text| text.replace("kept:", "critical: { type: tcp, critical: true, address: \"127.0.0.1:1\" }\n    kept:"));
    sidecar.signal(Signal::HUP);
    sidecar.wait_for("/readyz", 503);
}

/// H12: a ConfigMap is a symlink to a folder that is swapped for another, and a change right after the start counts.
#[test]
fn h12_a_swapped_symlink_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let version = |name: &str, check: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        let text = format!("health: {{ checks: {{ {check}: {{ type: tcp, address: \"127.0.0.1:1\" }} }} }}\n");
        std::fs::write(path.join("bellwether.yaml"), text).unwrap();
        path
    };
    let swap_to = |path: &Path| {
        let fresh = folder.path().join("..data_tmp");
        std::os::unix::fs::symlink(path, &fresh).unwrap();
        std::fs::rename(fresh, folder.path().join("..data")).unwrap();
    };
    let (one, two) = (version("one", "one"), version("two", "two"));
    swap_to(&one);
    std::os::unix::fs::symlink("..data/bellwether.yaml", folder.path().join("bellwether.yaml")).unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let mut child = command()
        .args(["run", "--listen", &address, "--config"])
        .arg(folder.path().join("bellwether.yaml"))
        .env("BELLWETHER_STATE_DIR", folder.path().join("state"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let answers = || std::net::TcpStream::connect(&address).is_ok();
    eventually("it answers", answers, |answers| *answers);
    swap_to(&two);
    eventually("the new check", || request(&address, "GET", "/readyz/two", None, "").0, |status| *status == 503);
    assert_eq!(request(&address, "GET", "/readyz/one", None, "").0, 404);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// H12: between a reload and the first look at what is new, nothing is put in doubt that was known.
#[test]
fn h12_a_reload_that_adds_critical_checks_never_makes_unready() {
    let component = Component::start();
    // A deadline that a busy machine keeps, too.
    let critical =
        |name: &str| format!("    {name}: {{ type: http, critical: true, url: \"{}\", interval: 10s, timeout: 9s }}\n", component.url());
    let (sidecar, _) = controlled(&critical("first"), None);
    sidecar.wait_for("/readyz", 200);
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let mut asked = 0;
            while !is_done.load(std::sync::atomic::Ordering::SeqCst) {
                let (status, body) = request(&sidecar.address, "GET", "/readyz", None, "");
                assert_eq!(status, 200, "{body}");
                asked += 1;
            }
            asked
        });
        for number in 0..5 {
            let name = format!("new{number}");
            rewrite(&sidecar, |text| text + &critical(&name));
            sidecar.signal(Signal::HUP);
            eventually("the new check", || check(&sidecar, &name), |seen| seen["x-state"] == "up");
        }
        is_done.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(asked.join().unwrap() > 0);
    });
    // One that never answers counts as soon as that is known.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    rewrite(&sidecar, |text| text + &critical("silent").replace(&component.url(), &url).replace("timeout: 9s", "timeout: 250ms"));
    sidecar.signal(Signal::HUP);
    assert!(sidecar.wait_for("/readyz", 503).body.contains("[-]silent failed: down: timeout"));
}

/// H12: a check is what its files hold, not only what is written of it.
#[test]
fn h12_authorities_that_were_replaced_are_used_after_a_reload() {
    let (old, new) = (Authority::new(), Authority::new());
    let server = TlsServer::start(new.issue("localhost", -10, 90));
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::copy(old.file(), &ca_file).unwrap();
    let api = format!(
        "    api: {{ type: tls, critical: true, address: \"localhost:{}\", ca_file: \"{}\" }}\n",
        server.address.port(),
        ca_file.display()
    );
    let (sidecar, control) = controlled(&format!("{api}    other: {{ type: tcp, address: \"127.0.0.1:1\" }}\n"), Some(folder));
    eventually("it is not trusted", || check(&sidecar, "api"), |api| api["x-reason"] == "tls");
    std::fs::copy(new.file(), &ca_file).unwrap();
    assert_eq!(request(&control, "POST", "/-/reload", Some(TOKEN), ""), (200, "reloaded: changed api\n".to_owned()));
    eventually("it is trusted", || check(&sidecar, "api"), |api| api["x-state"] == "up");
    assert_eq!(request(&control, "POST", "/-/reload", Some(TOKEN), "").1, "reloaded: no check has changed\n");
}

/// H12: whatever is replaced, and in whatever state it is, leaves nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn h12_reloads_leave_no_sockets_and_tasks_behind() {
    let mongod = Mongod::start().await;
    let component = Component::start();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let checks = format!(
        "    mongodb: {{ type: mongodb }}\n    api: {{ type: http, url: \"{}\" }}\n    silent: {{ type: http, url: \"http://{}\" }}\nstores: {{ mongodb: {{ uri: \"{}\", database: app }} }}\n",
        component.url(),
        silent.local_addr().unwrap(),
        mongod.uri()
    );
    let (sidecar, control) = controlled(&checks, None);
    eventually("mongodb", || check(&sidecar, "mongodb"), |seen| seen["x-state"] == "up");
    let held = || (sidecar.sockets(), sidecar.value("bellwether_runtime_tasks{runtime=\"checks\"}").unwrap());
    let before = held();
    for round in 0..20 {
        if round == 10 {
            mongod.freeze();
        }
        rewrite(&sidecar, |text| {
            if round % 2 == 0 {
                text.replace("interval: 300ms", "interval: 310ms")
            } else {
                text.replace("interval: 310ms", "interval: 300ms")
            }
        });
        let (status, answer) = request(&control, "POST", "/-/reload", Some(TOKEN), "");
        assert_eq!((status, answer.as_str()), (200, "reloaded: changed mongodb, api, silent\n"));
        let name = if round < 10 { "mongodb" } else { "api" };
        eventually("a look", || check(&sidecar, name), |seen| seen["x-consecutive"] == 1 || seen["x-state"] == "up");
    }
    mongod.thaw();
    eventually("nothing more than before", held, |now| now.0 <= before.0 + 3 && now.1 <= before.1 + 3.0);
    eventually("mongodb", || check(&sidecar, "mongodb"), |seen| seen["x-state"] == "up");
}

/// A pipe is empty when it is read again: taking that for a configuration would drop every check.
#[test]
fn a_configuration_from_a_pipe_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (pipe, token) = (folder.path().join("pipe"), folder.path().join("token"));
    std::fs::write(&token, TOKEN).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (address, control) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let text = format!(
        "admin: {{ listen: {control}, token_file: {} }}\nhealth: {{ checks: {{ one: {{ type: tcp, address: \"127.0.0.1:1\" }} }} }}\n",
        token.display()
    );
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::write(pipe, text).unwrap()
    });
    let mut child = command()
        .args(["run", "--listen", &address, "--config"])
        .arg(&pipe)
        .env("BELLWETHER_STATE_DIR", folder.path().join("state"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    writer.join().unwrap();
    eventually("it answers", || std::net::TcpStream::connect(&address).is_ok(), |answers| *answers);
    eventually("the check", || request(&address, "GET", "/readyz/one", None, "").0, |status| *status == 503);
    let (status, answer) = request(&control, "POST", "/-/reload", Some(TOKEN), "");
    assert!(status == 400 && answer.contains("is not a regular file and cannot be read again"), "{status} {answer}");
    assert_eq!(request(&address, "GET", "/readyz/one", None, "").0, 503);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn nothing_remote_is_part_of_liveness() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "health:\n  checks: { db: { type: tcp, address: \"db:1\" } }\n  groups: { liveness: [db] }\n").unwrap();
    let output = command().args(["check", "--config"]).arg(file.path()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains(":3:23: health.groups.liveness: `db` asks something outside of this process"), "{stderr}");
}
