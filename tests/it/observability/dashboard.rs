//! The dashboard: what a reader needs, and what every panel asks for.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::golden::Golden;
use super::promql::examine;
use super::rules::Rule;
use super::{CORE_PANELS, Labels, Problems, read};

/// The names of the files, which are the uids.
pub const DASHBOARDS: [&str; 4] =
    ["bellwether-decisionbox", "bellwether-decisionbox-runs", "bellwether-decisionbox-stores", "bellwether-itself"];

pub fn dashboard(name: &str) -> Value {
    let path = format!("dashboards/{name}.json");
    serde_json::from_str(&read(&path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The alerts that a panel names.
pub fn named_alerts(panel: &Value) -> Vec<&str> {
    text(panel, "/description").split("Alert: ").skip(1).map(|rest| rest.split('.').next().unwrap_or_default()).collect()
}

/// The alerts that each dashboard has a panel for, by its path in Grafana.
pub fn shown() -> BTreeMap<String, Labels> {
    let of_one = |name: &str| {
        let dashboard = dashboard(name);
        let named = list(&dashboard, "/panels").iter().flat_map(named_alerts).map(str::to_owned).collect();
        (format!("/d/{}", text(&dashboard, "/uid")), named)
    };
    DASHBOARDS.iter().map(|name| of_one(name)).collect()
}

pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A query as Prometheus gets it from Grafana.
pub fn substituted(query: &str) -> String {
    [("$__rate_interval", "1m"), ("$job", ".+"), ("$instance", ".+")]
        .iter()
        .fold(query.to_owned(), |query, (variable, value)| query.replace(variable, value))
}

pub fn lint_dashboard(dashboard: &Value, golden: &Golden, rules: &[Rule]) -> Problems {
    let mut problems = lint_frame(dashboard);
    let mut cells = BTreeMap::<(u64, u64), u64>::new();
    let mut ids = BTreeSet::new();
    for panel in list(dashboard, "/panels") {
        let title = text(panel, "/title");
        let mut found = Vec::new();
        let id = panel["id"].as_u64().unwrap_or_default();
        if id == 0 || !ids.insert(id) {
            found.push(format!("the id {id} is missing or used twice"));
        }
        found.extend(lint_place(panel, id, &mut cells));
        if !CORE_PANELS.contains(&text(panel, "/type")) {
            found.push(format!("{:?} is no panel of every Grafana", text(panel, "/type")));
        }
        if panel["type"] != "row" {
            found.extend(lint_panel(panel, golden, rules));
        }
        problems.extend(found.into_iter().map(|problem| format!("panel {title:?}: {problem}")));
    }
    problems
}

/// What belongs to the dashboard as a whole.
pub fn lint_frame(dashboard: &Value) -> Problems {
    let mut problems = Problems::new();
    let mut check = |holds: bool, problem: &str| {
        if !holds {
            problems.push(problem.to_owned());
        }
    };
    check(dashboard["schemaVersion"] == 42, "schemaVersion is not 42");
    check(dashboard["editable"] == false, "it is editable, so changes are lost at the next provisioning");
    check(dashboard["id"].is_null(), "it has an id, which belongs to one Grafana");
    check(dashboard.get("__inputs").is_none(), "it has __inputs, which provisioning does not resolve");
    check(dashboard["graphTooltip"] == 1, "the crosshair is not shared");
    check(dashboard["timezone"] == "browser", "the timezone is not the reader's");
    check(dashboard["refresh"] == "30s" && text(dashboard, "/time/from") == "now-1h", "refresh or time range is missing");
    for field in ["/uid", "/title", "/description"] {
        check(!text(dashboard, field).is_empty(), &format!("{field} is missing"));
    }
    check(!list(dashboard, "/tags").is_empty(), "it has no tags");

    let variables = list(dashboard, "/templating/list");
    let named = |name: &str| variables.iter().find(|variable| variable["name"] == name);
    let source = named("datasource");
    check(source.is_some_and(|it| it["type"] == "datasource" && it["query"] == "prometheus"), "there is no data source variable");
    for name in ["job", "instance"] {
        let good = |it: &Value| it["multi"] == true && it["includeAll"] == true && it["allValue"] == ".+" && it["refresh"] == 2;
        check(named(name).is_some_and(good), &format!("the variable {name} is missing or cannot mean all"));
    }
    let notes = list(dashboard, "/annotations/list");
    check(notes.iter().any(|note| text(note, "/expr").contains("process_start_time_seconds")), "restarts are not annotated");
    let of_a_system = list(dashboard, "/tags").len() > 1;
    check(!of_a_system || notes.iter().any(|note| text(note, "/expr").contains("failures_total")), "failed runs are not annotated");
    check(list(dashboard, "/links").iter().all(|link| link["includeVars"] == true && link["keepTime"] == true), "a link drops the choice");

    let mut sources = Vec::new();
    data_sources(dashboard, &mut sources);
    check(!sources.is_empty() && sources.iter().all(|uid| *uid == "${datasource}"), "a data source is not ${datasource}");
    problems
}

pub fn data_sources<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match key.as_str() {
                    "datasource" => found.push(text(inner, "/uid")),
                    _ => data_sources(inner, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| data_sources(item, found)),
        _ => {}
    }
}

pub fn lint_place(panel: &Value, id: u64, cells: &mut BTreeMap<(u64, u64), u64>) -> Problems {
    let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64());
    let (Some(x), Some(y), Some(w), Some(h)) = (x, y, w, h) else { return vec!["it has no place".into()] };
    if w == 0 || h == 0 || x + w > 24 {
        return vec!["it does not fit the 24 columns".into()];
    }
    let over: BTreeSet<u64> =
        (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line))).filter_map(|cell| cells.insert(cell, id)).collect();
    over.into_iter().map(|other| format!("it lies over the panel with id {other}")).collect()
}

pub fn lint_panel(panel: &Value, golden: &Golden, rules: &[Rule]) -> Problems {
    let mut problems = Problems::new();
    for (field, what) in
        [("/description", "description"), ("/fieldConfig/defaults/unit", "unit"), ("/fieldConfig/defaults/noValue", "noValue")]
    {
        if text(panel, field).is_empty() {
            problems.push(format!("it has no {what}"));
        }
    }
    if text(panel, "/datasource/uid").is_empty() {
        problems.push("it has no data source".into());
    }
    if panel["type"] == "timeseries" && panel.pointer("/fieldConfig/defaults/min") != Some(&json!(0)) {
        problems.push("its axis does not begin at 0".into());
    }
    let steps = list(panel, "/fieldConfig/defaults/thresholds/steps");
    if !steps.first().is_some_and(|step| step.get("value").is_some_and(Value::is_null)) {
        problems.push("its first threshold is not null".into());
    }

    let mut windows = vec!["$__rate_interval"];
    windows.extend([(" 1 h", "1h"), (" 15 min", "15m")].iter().filter(|(told, _)| text(panel, "/title").contains(told)).map(|it| it.1));
    for name in named_alerts(panel) {
        let named: Vec<&Rule> = rules.iter().filter(|rule| rule.name() == name).collect();
        if named.is_empty() {
            problems.push(format!("there is no alert {name}"));
        }
        for rule in named {
            windows.extend(ranges(&rule.expr));
            // Grafana colours from a step upwards: "above 0" of something that is counted begins at 1.
            let threshold = rule.threshold().map(|it| if it == 0.0 { 1.0 } else { it });
            if !steps.iter().any(|step| step["value"].as_f64().is_some() && step["value"].as_f64() == threshold) {
                problems.push(format!("no threshold equals that of {name}"));
            }
        }
    }

    let targets = list(panel, "/targets");
    if targets.is_empty() {
        problems.push("it has no query".into());
    }
    for target in targets {
        let query = text(target, "/expr");
        let (found, labels) = examine(golden, &substituted(query), true);
        problems.extend(found.into_iter().map(|problem| format!("{query}: {problem}")));
        for window in ranges(query).into_iter().filter(|window| !windows.contains(window)) {
            problems.push(format!("{query}: the range {window} is neither $__rate_interval nor that of its alert"));
        }
        for label in legend_labels(text(target, "/legendFormat")) {
            if !labels.contains(&label) {
                problems.push(format!("{query}: the legend names {label}, which the result does not have"));
            }
        }
    }
    problems
}

pub fn ranges(query: &str) -> Vec<&str> {
    query.split('[').skip(1).filter_map(|rest| rest.split(']').next()).collect()
}

pub fn legend_labels(legend: &str) -> Labels {
    legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()).map(|label| label.trim().to_owned()).collect()
}

/// The queries outside of panels. Variables choose the job and the instance, so they cannot be narrowed to them.
pub fn lint_other_queries(dashboard: &Value, golden: &Golden) -> Problems {
    let mut problems = Problems::new();
    for note in list(dashboard, "/annotations/list") {
        let (found, labels) = examine(golden, &substituted(text(note, "/expr")), true);
        problems.extend(found);
        let told = [text(note, "/titleFormat"), text(note, "/textFormat")].into_iter().flat_map(legend_labels);
        problems.extend(told.filter(|label| !labels.contains(label)).map(|label| format!("an annotation names {label}")));
    }
    for variable in list(dashboard, "/templating/list").iter().filter(|variable| variable["type"] == "query") {
        let query = text(variable, "/query");
        let Some((selector, label)) =
            query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).and_then(|inner| inner.rsplit_once(", "))
        else {
            problems.push(format!("{query}: not label_values(selector, label)"));
            continue;
        };
        let (found, labels) = examine(golden, &substituted(selector), false);
        problems.extend(found);
        if !labels.contains(label) {
            problems.push(format!("{query}: there is no label {label}"));
        }
    }
    problems
}
