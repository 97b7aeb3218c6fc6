//! The Helm chart: what it holds of alerts and dashboards is made of the same sources as `bellwether export`, and what Helm
//! makes of it is what `bellwether export` gives, with and without changed numbers.
//!
//! `BELLWETHER_BLESS=1 cargo test --test it helm::the_chart` writes the made files anew. Without Helm (scripts/helm.sh builds
//! one where there is Go) the rest says that it shows nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bellwether::shipped::Kit;
use bellwether::shipped::rules::{Rule, RuleFile};
use bellwether::shipped::settings::{Setting, listed};
use serde_json::{Map, Value, json};

use crate::archive::tool;
use crate::cluster::Cluster;

const CHART: &str = "deploy/helm/bellwether";
/// Where the part of `values.yaml` begins that is made.
const SETTINGS: &str = "\nsettings:\n";
const PROFILE: &str = "decisionbox";

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(project(path)).unwrap_or_default()
}

fn kit() -> (Kit, RuleFile) {
    let kit = Kit::of(PROFILE);
    (kit, kit.rules(&[]).unwrap())
}

/// The key of each rule, as `export alerts --settings` lists them; none for one without a number.
fn keys(rules: &RuleFile) -> Vec<Option<String>> {
    let text = listed(rules);
    let mut lines = text.lines();
    let of_rule = |rule: &Rule| {
        let has = [rule.threshold_place().is_some(), rule.alert.is_some(), rule.labels.contains_key("severity")];
        let mine: Vec<&str> = lines.by_ref().take(has.into_iter().filter(|it| *it).count()).collect();
        let key = mine.first()?.split('=').next()?.rsplit_once('.')?.0;
        assert!(key.starts_with(rule.name()), "{key} is not of {}", rule.name());
        Some(key.to_owned())
    };
    rules.rules().map(of_rule).collect()
}

/// The rules with a gap where their threshold stands, and with the way to their settings.
fn with_gaps(rules: &RuleFile) -> Value {
    let mut keys = keys(rules).into_iter();
    let groups = rules.groups.iter().map(|group| {
        let rules: Vec<Value> = group.rules.iter().map(|rule| with_gap(rule, keys.next().unwrap())).collect();
        json!({ "name": group.name, "rules": rules })
    });
    json!({ "groups": groups.collect::<Vec<_>>() })
}

fn with_gap(rule: &Rule, key: Option<String>) -> Value {
    let mut value = serde_json::to_value(rule).unwrap();
    let Some(key) = key else { return value };
    let fields = value.as_object_mut().unwrap();
    fields.insert("key".to_owned(), key.split('.').collect());
    if let Some(place) = rule.threshold_place() {
        fields.remove("expr");
        fields.insert("before".to_owned(), json!(rule.expr[..place.start]));
        fields.insert("after".to_owned(), json!(rule.expr[place.end..]));
    }
    if rule.alert.is_some() {
        fields["labels"].as_object_mut().unwrap().remove("severity");
    }
    value
}

/// The dashboards with the key of a setting in place of each threshold that it moves.
fn dashboards_with_gaps(kit: Kit, rules: &RuleFile) -> Vec<Value> {
    let plain = kit.dashboards(rules).unwrap();
    let mut gaps = plain.clone();
    for (rule, key) in rules.rules().zip(keys(rules)) {
        let (Some(key), Some(threshold)) = (key, rule.threshold()) else { continue };
        let shown = if threshold == 0.0 { 1.0 } else { threshold };
        // So little that it stays between its neighbours.
        let setting: Setting = format!("{key}.threshold={}", shown * 1.000_001).parse().unwrap();
        let moved = kit.dashboards(&kit.rules(&[setting]).unwrap()).unwrap();
        for (gap, (plain, moved)) in gaps.iter_mut().zip(plain.iter().zip(moved)) {
            let panels = plain["panels"].as_array().unwrap().iter().zip(moved["panels"].as_array().unwrap());
            for (number, _) in panels.enumerate().filter(|(_, (plain, moved))| plain != moved) {
                let steps = gap["panels"][number]["fieldConfig"]["defaults"]["thresholds"]["steps"].as_array_mut().unwrap();
                // Two alerts with one number have one step, which moves with the first of them.
                if let Some(step) = steps.iter_mut().find(|step| step["value"].as_f64() == Some(shown)) {
                    step["value"] = json!(format!("@{key}@"));
                }
            }
        }
    }
    gaps
}

/// The settings as YAML, a line for each rule.
fn settings(rules: &RuleFile) -> String {
    fn lines(map: &Map<String, Value>, indent: usize, found: &mut Vec<String>) {
        for (name, value) in map {
            let inner = value.as_object().unwrap();
            let flat: Vec<String> = inner.iter().filter_map(|(key, value)| Some(format!("{key}: {}", value.as_str()?))).collect();
            let begin = format!("{:indent$}{name}:", "");
            if flat.is_empty() {
                found.push(begin);
                lines(inner, indent + 2, found);
            } else {
                found.push(format!("{begin} {{ {} }}", flat.join(", ")));
            }
        }
    }
    let mut all = Map::new();
    for (key, value) in listed(rules).lines().map(|line| line.split_once('=').unwrap()) {
        let mut place = &mut all;
        let (path, property) = key.rsplit_once('.').unwrap();
        for part in path.split('.') {
            place = place.entry(part).or_insert_with(|| json!({})).as_object_mut().unwrap();
        }
        place.insert(property.to_owned(), json!(value));
    }
    let mut found = Vec::new();
    lines(&all, 2, &mut found);
    found.join("\n") + "\n"
}

/// The files of the chart that are made, by their path.
fn made() -> BTreeMap<String, String> {
    let (kit, rules) = kit();
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap() + "\n";
    let values = read(&format!("{CHART}/values.yaml"));
    let head = values.split(SETTINGS).next().unwrap();
    let mut files = BTreeMap::from([
        ("values.yaml".to_owned(), format!("{head}{SETTINGS}{}", settings(&rules))),
        ("files/rules.json".to_owned(), pretty(&with_gaps(&rules))),
    ]);
    for dashboard in dashboards_with_gaps(kit, &rules) {
        files.insert(format!("files/dashboards/{}.json", dashboard["uid"].as_str().unwrap()), pretty(&dashboard));
    }
    files.into_iter().map(|(path, text)| (format!("{CHART}/{path}"), text)).collect()
}

#[test]
fn the_chart_holds_what_the_sources_make() {
    let made = made();
    if std::env::var_os("BELLWETHER_BLESS").is_some() {
        std::fs::create_dir_all(project(CHART).join("files/dashboards")).unwrap();
        made.iter().for_each(|(path, text)| std::fs::write(project(path), text).unwrap());
    }
    for (path, text) in &made {
        assert!(*text == read(path), "{path} is not what the sources make: see the head of this file");
    }
    let dashboards = std::fs::read_dir(project(CHART).join("files/dashboards")).unwrap().count();
    assert_eq!(dashboards + 2, made.len(), "a dashboard that is gone has left its file");
    let version = format!("\nappVersion: {}\n", env!("CARGO_PKG_VERSION"));
    assert!(read(&format!("{CHART}/Chart.yaml")).contains(&version), "the chart is for another version");
}

/// Helm, where there is one.
fn helm() -> Option<PathBuf> {
    let found = tool("helm", "BELLWETHER_HELM");
    if found.is_none() {
        eprintln!("NOT SHOWN: there is no helm on PATH or in BELLWETHER_HELM; what it makes of the chart was not looked at");
    }
    found
}

fn template(helm: &Path, values: &[&str]) -> Output {
    let mut command = Command::new(helm);
    command.args(["template", "bellwether"]).arg(project(CHART)).args(["--namespace", "decisionbox"]);
    for value in ["prometheusRule.enabled=true", "dashboards.enabled=true", "podMonitor.enabled=true"].iter().chain(values) {
        command.args(["--set", value]);
    }
    command.output().unwrap()
}

/// What Helm makes, by kind and name.
type Objects = BTreeMap<(String, String), Value>;

fn rendered(helm: &Path, values: &[&str]) -> Objects {
    let output = template(helm, values);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let objects: Vec<Value> = serde_saphyr::from_multiple(std::str::from_utf8(&output.stdout).unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    objects.into_iter().filter(|it| !it.is_null()).map(|it| ((text(&it["kind"]), text(&it["metadata"]["name"])), it)).collect()
}

fn named<'a>(objects: &'a Objects, kind: &str, name: &str) -> &'a Value {
    objects.get(&(kind.to_owned(), name.to_owned())).unwrap_or_else(|| panic!("no {kind} {name} in {:?}", objects.keys()))
}

/// The rules are those of `export` with these settings.
fn assert_rules(objects: &Objects, rules: &RuleFile) {
    let (made, wanted) = (&named(objects, "PrometheusRule", "bellwether")["spec"]["groups"], serde_json::to_value(&rules.groups).unwrap());
    let rules_of = |groups: &Value| -> Vec<Value> {
        groups.as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()).cloned().collect()
    };
    for (made, wanted) in rules_of(made).iter().zip(&rules_of(&wanted)) {
        assert_eq!(made, wanted);
    }
    assert!(*made == wanted, "groups are missing, or have other names");
}

/// And so are the dashboards.
fn assert_dashboards(objects: &Objects, kit: Kit, rules: &RuleFile) {
    let dashboards = kit.dashboards(rules).unwrap();
    for wanted in &dashboards {
        let uid = wanted["uid"].as_str().unwrap();
        let object = named(objects, "ConfigMap", &format!("bellwether-dashboard-{uid}"));
        assert_eq!(object["metadata"]["labels"]["grafana_dashboard"], "1");
        let made: Value = serde_json::from_str(object["data"][format!("{uid}.json")].as_str().unwrap()).unwrap();
        for (made, wanted) in made["panels"].as_array().unwrap().iter().zip(wanted["panels"].as_array().unwrap()) {
            let steps = |panel: &Value| panel.pointer("/fieldConfig/defaults/thresholds/steps").cloned();
            let numbers = |panel: &Value| -> Vec<Option<f64>> {
                steps(panel).iter().flat_map(|it| it.as_array().unwrap()).map(|step| step["value"].as_f64()).collect()
            };
            assert_eq!(numbers(made), numbers(wanted), "{uid}: {}", wanted["title"]);
            assert_eq!(made["targets"], wanted["targets"]);
        }
    }
    assert_eq!(objects.keys().filter(|(kind, _)| kind == "ConfigMap").count(), dashboards.len());
}

#[test]
fn helm_makes_of_the_chart_what_export_gives() {
    let Some(helm) = helm() else { return };
    let lint = Command::new(&helm).args(["lint", "--strict"]).arg(project(CHART)).output().unwrap();
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
    let (kit, rules) = kit();
    let objects = rendered(&helm, &[]);
    assert_rules(&objects, &rules);
    assert_dashboards(&objects, kit, &rules);
    // What people read is a template of Prometheus, and must still be one.
    let text = named(&objects, "PrometheusRule", "bellwether").to_string();
    assert!(text.contains("{{ $labels.instance }}") && text.contains("{{ $value | humanizeDuration }}"));
}

/// What Helm makes with these settings and with links, and the rules as `export` gives them.
fn changed(helm: &Path, kit: Kit, changes: &[&str]) -> (Objects, RuleFile) {
    let (runbooks, grafana) = ("https://git.example.org/b/", "https://grafana.example.org");
    let mut values: Vec<String> = changes.iter().map(|change| format!("settings.{change}")).collect();
    values.extend([format!("links.runbooks={runbooks}"), format!("links.grafana={grafana}")]);
    let settings: Vec<Setting> = changes.iter().map(|change| change.parse().unwrap()).collect();
    let mut rules = kit.rules(&settings).unwrap();
    rules.link(Some(runbooks), Some(grafana));
    (rendered(helm, &values.iter().map(String::as_str).collect::<Vec<_>>()), rules)
}

#[test]
fn helm_changes_a_number_as_export_does() {
    let Some(helm) = helm() else { return };
    let changes = [
        "BellwetherCollectorStopped.threshold=45m",
        "BellwetherLogLagging.critical.threshold=1GiB",
        "BellwetherFilesExhausted.threshold=90%",
        "DecisionBoxTTLNotExpiring.threshold=3000000",
        "decisionbox:readiness:objective.threshold=0.999",
        "BellwetherDown.for=10m",
        "BellwetherRetentionOverdue.severity=info",
    ];
    let kit = Kit::of(PROFILE);
    let (objects, rules) = changed(&helm, kit, &changes);
    assert_rules(&objects, &rules);
    assert_dashboards(&objects, kit, &rules);
    // Its step in a panel is also that of another alert, and moves with the first of the two: only the rules are equal.
    let (objects, rules) = changed(&helm, kit, &["DecisionBoxRunTooLong.warning.threshold=45m"]);
    assert_rules(&objects, &rules);

    let none = Kit::of("none");
    let (objects, rules) = (rendered(&helm, &["profile=none"]), none.rules(&[]).unwrap());
    assert_rules(&objects, &rules);
    assert_dashboards(&objects, none, &rules);

    for (value, words) in [
        ("settings.BellwetherLogLagging.critical.threshold=soon", "cannot be a threshold"),
        ("settings.BellwetherLogLagging.critical.threshold=null", "a threshold is missing"),
        ("settings.BellwetherDown=null", "settings.BellwetherDown is missing"),
    ] {
        let output = template(&helm, &[value]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{value}: {said}");
    }
}

/// The manifests of deploy/kubernetes are the chart with nothing set, but for labels.
#[test]
fn helm_makes_the_objects_of_the_manifests() {
    let Some(helm) = helm() else { return };
    let objects = rendered(&helm, &[]);
    let manifest = |name: &str| -> Vec<Value> { serde_saphyr::from_multiple(&read(&format!("deploy/kubernetes/{name}"))).unwrap() };
    let (deployment, service, monitor) = (manifest("deployment.yaml"), manifest("service.yaml"), manifest("pod-monitor.yaml"));
    let made = named(&objects, "Deployment", "bellwether");
    for place in ["/spec/template/spec", "/spec/strategy", "/spec/replicas", "/metadata/namespace"] {
        assert_eq!(made.pointer(place), deployment[0].pointer(place), "{place}");
    }
    assert_eq!(made["spec"]["selector"]["matchLabels"], made["spec"]["template"]["metadata"]["labels"]);
    assert_eq!(named(&objects, "PersistentVolumeClaim", "bellwether-state")["spec"], deployment[1]["spec"]);
    assert_eq!(named(&objects, "Service", "bellwether")["spec"]["ports"], service[0]["spec"]["ports"]);
    let made = named(&objects, "PodMonitor", "bellwether");
    assert_eq!(made["spec"]["podMetricsEndpoints"], monitor[0]["spec"]["podMetricsEndpoints"]);

    let configured = rendered(&helm, &["config.profile=none", "persistence.enabled=false", "serviceMonitor.enabled=true"]);
    let container = &named(&configured, "Deployment", "bellwether")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["args"], json!(["run", "--config", "/etc/bellwether/bellwether.yaml"]));
    assert_eq!(named(&configured, "ConfigMap", "bellwether")["data"]["bellwether.yaml"], "profile: none\n");
    assert_eq!(named(&configured, "ServiceMonitor", "bellwether")["spec"]["endpoints"], monitor[0]["spec"]["podMetricsEndpoints"]);
    assert!(!configured.contains_key(&("PersistentVolumeClaim".to_owned(), "bellwether-state".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server_takes_the_manifests_and_the_chart() {
    let Some(cluster) = Cluster::start().await else { return };
    for name in ["deployment.yaml", "service.yaml", "agents.yaml"] {
        let objects: Vec<Value> = serde_saphyr::from_multiple(&read(&format!("deploy/kubernetes/{name}"))).unwrap();
        for object in &objects {
            cluster.takes(object).await;
        }
    }
    let Some(helm) = helm() else { return };
    let everything = ["agents.enabled=true", "front.port=8088", "config.profile=none"];
    let objects = rendered(&helm, &everything);
    for kind in ["ServiceAccount", "Role", "RoleBinding", "Deployment", "Service", "ConfigMap", "PersistentVolumeClaim"] {
        assert!(objects.keys().any(|(made, _)| made == kind), "no {kind} is made");
    }
    let of_others = ["PodMonitor", "PrometheusRule"];
    for ((kind, _), object) in &objects {
        if !of_others.contains(&kind.as_str()) {
            cluster.takes(object).await;
        }
    }
    let role: Vec<Value> = serde_saphyr::from_multiple(&read("deploy/kubernetes/agents.yaml")).unwrap();
    assert_eq!(named(&objects, "Role", "bellwether-agents")["rules"], role[0]["rules"]);
    let pod = &named(&objects, "Deployment", "bellwether")["spec"]["template"]["spec"];
    assert_eq!((&pod["serviceAccountName"], &pod["automountServiceAccountToken"]), (&json!("bellwether"), &json!(true)));
}
