//! The command line and its exit codes, as a container or a person meets them.

use std::process::Output;

use crate::sidecar::{Setup, command, eventually, free_port};

#[track_caller]
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command().args(arguments).envs(variables.iter().copied()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn a_missing_address_of_mongodb_is_a_configuration_error_that_names_the_remedy() {
    let (code, _, stderr) = run(&["run", "--profile", "decisionbox"], &[]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("the variable MONGODB_URI is not set; set MONGODB_URI, or MONGODB_URI_FILE"), "{stderr}");
}

#[test]
fn a_wrong_address_of_mongodb_is_refused_and_not_printed() {
    for uri in ["localhost:27017", "mongodb://user:hunter2@/db", "mongodb://user:hunter2:x@host:port"] {
        let (code, _, stderr) = run(&["check", "--profile", "decisionbox"], &[("MONGODB_URI", uri)]);
        assert_eq!(code, 78, "{uri}: {stderr}");
        assert!(stderr.contains("is not a MongoDB connection string") && !stderr.contains("hunter2"), "{stderr}");
    }
}

#[test]
fn a_good_configuration_is_summed_up() {
    let (code, stdout, stderr) = run(&["check", "--profile", "decisionbox", "--print"], &[("MONGODB_URI", "mongodb://u:hunter2@db")]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("ok: profile decisionbox, 3 checks"), "{stdout}");
    assert!(!stdout.contains("hunter2"), "{stdout}");
}

#[test]
fn wrong_usage_has_its_own_code() {
    assert_eq!(run(&["run", "--nonsense"], &[]).0, 64);
    assert_eq!(run(&["run", "--profile", "nope"], &[]).0, 64);
    assert_eq!(run(&["--help"], &[]).0, 0);
    assert_eq!(run(&["check", "--log", "a=b=c"], &[]).0, 64);
}

#[test]
fn the_schema_and_the_profile_can_be_had() {
    let (code, stdout, _) = run(&["export", "schema"], &[]);
    assert_eq!(code, 0);
    assert!(serde_json::from_str::<serde_json::Value>(&stdout).unwrap()["properties"]["logs"].is_object());
    assert!(run(&["export", "profile", "decisionbox"], &[]).1.contains("decisionbox_runs"));
}

#[test]
fn the_numbers_of_alerts_can_be_changed_without_a_fork() {
    let (code, plain, stderr) = run(&["export", "alerts"], &[]);
    assert_eq!(code, 0, "{stderr}");
    let set = ["export", "alerts", "--set", "DecisionBoxRunTooLong.warning.threshold=45m", "--grafana", "https://grafana/"];
    let (code, changed, stderr) = run(&set, &[]);
    assert_eq!(code, 0, "{stderr}");
    assert!(plain.contains("[5m]) > 1800\n") && changed.contains("[5m]) > 2700\n"), "{changed}");
    assert!(changed.contains("dashboard_url: https://grafana/d/bellwether-decisionbox\n"), "{changed}");
    // The panel shows what the alert says.
    let runs = ["export", "dashboards", "bellwether-decisionbox-runs", "--set", "DecisionBoxRunTooLong.warning.threshold=45m"];
    assert!(run(&runs, &[]).1.contains("2700"));

    for (wrong, expected) in
        [("DecisionBoxRunTooLong.threshold=45m", "DecisionBoxRunTooLong.warning"), ("Nosuch.for=5m", "no rule has the key")]
    {
        let (code, _, stderr) = run(&["export", "alerts", "--set", wrong], &[]);
        assert!(code == 64 && stderr.contains(expected), "{stderr}");
    }
    assert!(run(&["export", "alerts", "--settings"], &[]).1.contains("DecisionBoxReadinessBurn.critical.1h.threshold=14.4\n"));
    assert!(run(&["export", "alerts", "--profile", "none"], &[]).1.contains("BellwetherWatchdog"));
    assert!(!run(&["export", "alerts", "--profile", "none"], &[]).1.contains("DecisionBox"));
}

#[test]
fn rules_dashboards_and_monitors_are_objects_of_kubernetes_too() {
    let object = |arguments: &[&str]| -> Vec<serde_json::Value> {
        let all = [&["export"], arguments, &["--format", "kubernetes", "--namespace", "watch", "--label", "release=prometheus"]].concat();
        let (code, stdout, stderr) = run(&all, &[]);
        assert_eq!(code, 0, "{stderr}");
        stdout.split("---\n").filter(|text| !text.is_empty()).map(|text| serde_saphyr::from_str(text).unwrap()).collect()
    };
    let rules = object(&["alerts"]).remove(0);
    let plain: serde_json::Value = serde_saphyr::from_str(&run(&["export", "alerts"], &[]).1).unwrap();
    assert_eq!((rules["kind"].as_str(), &rules["spec"]["groups"]), (Some("PrometheusRule"), &plain["groups"]));
    assert_eq!(rules["metadata"]["labels"]["release"], "prometheus");
    // What is exported says what the files say.
    let files = ["bellwether", "decisionbox"].map(|name| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("alerts/{name}.rules.yml"));
        serde_saphyr::from_str::<serde_json::Value>(&std::fs::read_to_string(path).unwrap()).unwrap()
    });
    let groups: Vec<&serde_json::Value> = files.iter().flat_map(|file| file["groups"].as_array().unwrap()).collect();
    assert_eq!(plain["groups"].as_array().unwrap().iter().collect::<Vec<_>>(), groups);

    let maps = object(&["dashboards"]);
    assert_eq!(maps.len(), 4);
    for map in maps {
        assert_eq!((map["kind"].as_str(), map["metadata"]["labels"]["grafana_dashboard"].as_str()), (Some("ConfigMap"), Some("1")));
        let (file, text) = map["data"].as_object().unwrap().iter().next().unwrap();
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards").join(file);
        assert_eq!(text.as_str().unwrap().trim_end(), std::fs::read_to_string(path).unwrap().trim_end());
    }
    assert_eq!(object(&["monitor"])[0]["kind"], "PodMonitor");
    let service = object(&["monitor", "--kind", "service"]).remove(0);
    assert_eq!((service["kind"].as_str(), service["spec"]["endpoints"][0]["path"].as_str()), (Some("ServiceMonitor"), Some("/metrics")));
}

#[test]
fn an_address_in_use_is_named_with_the_remedy() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let (code, _, stderr) = run(&["run", "--listen", &address], &[("BELLWETHER_STATE_DIR", folder.path().to_str().unwrap())]);
    assert_eq!(code, 69, "{stderr}");
    assert!(stderr.contains(&format!("cannot listen on {address}; stop what listens there")), "{stderr}");
}

#[test]
fn a_second_process_does_not_share_the_state() {
    let first = Setup::default().config(&format!("state_dir: {}\n", "${BELLWETHER_STATE_DIR}")).start();
    let state = first.state_dir();
    let file = first.folder.path().join("bellwether.yaml");
    let listen = format!("127.0.0.1:{}", free_port());
    let arguments = ["run", "--config", file.to_str().unwrap(), "--listen", &listen];
    let (code, _, stderr) = run(&arguments, &[("BELLWETHER_STATE_DIR", state.to_str().unwrap())]);
    assert_eq!(code, 69, "{stderr}");
    assert!(stderr.contains("is in use by process"), "{stderr}");
}

#[test]
fn a_state_folder_that_cannot_be_written_is_done_without() {
    let sidecar = Setup::default().config("state_dir: /proc/nowhere\n").start();
    assert_eq!(sidecar.value("bellwether_state_persistent"), Some(0.0));
    assert!(sidecar.log().contains("counters and positions are lost at the next restart"), "{}", sidecar.log());
}

#[test]
fn the_log_is_json_where_nobody_watches() {
    let sidecar = Setup::default().start();
    let log = eventually("it has said that it is ready", || sidecar.log(), |log| log.ends_with('\n') && log.contains("ready to answer"));
    for line in log.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(event["timestamp"].is_string() && event["level"].is_string() && event["message"].is_string(), "{line}");
    }
}
