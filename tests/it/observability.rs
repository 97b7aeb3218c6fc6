//! What is shipped for Prometheus and Grafana must fit what the sidecar exposes: a renamed metric leaves an alert that
//! never fires and a panel that is always empty, and nobody is told. These tests hold the rules, their unit tests, the
//! runbook and the dashboard against the golden exposition and against each other.
//!
//! All of it in one file, because the parts are each other's yardstick. The lints return problems instead of panicking,
//! so that the last tests can plant faults and see each of them found.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use promql_parser::label::{MatchOp, Matchers};
use promql_parser::parser::{self, BinaryExpr, Expr, LabelModifier, VectorMatchCardinality};
use serde::Deserialize;
use serde_json::{Value, json};

/// The exposition of the profile, which another test keeps equal to the real one.
const GOLDEN: &str = "tests/golden/decisionbox.metrics";
const RULES: &str = "alerts/decisionbox.rules.yml";
const RULE_TESTS: &str = "alerts/tests/decisionbox_test.yml";
const RUNBOOK: &str = "docs/runbooks/decisionbox.md";
const DASHBOARD: &str = "dashboards/decisionbox.json";

/// Panels that every Grafana has. The Angular ones (graph, singlestat, table-old) are gone from current releases.
const CORE_PANELS: [&str; 14] = [
    "barchart",
    "bargauge",
    "gauge",
    "heatmap",
    "histogram",
    "logs",
    "piechart",
    "row",
    "stat",
    "state-timeline",
    "status-history",
    "table",
    "text",
    "timeseries",
];

type Labels = BTreeSet<String>;
type Problems = Vec<String>;
/// Puts a fault into a rule.
type Plant = fn(&mut Rule);

fn read(path: &str) -> String {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&full).unwrap_or_else(|error| panic!("{path} cannot be read: {error}"))
}

fn set<'a>(items: impl IntoIterator<Item = &'a str>) -> Labels {
    items.into_iter().map(str::to_owned).collect()
}

// --- the golden exposition ---

/// One sample name: what a query can ask for.
#[derive(Default)]
struct Series {
    counter: bool,
    /// Its labels with the values that they have in the golden.
    labels: BTreeMap<String, Labels>,
    sampled: bool,
}

struct Golden(BTreeMap<String, Series>);

impl Golden {
    fn load() -> Self {
        Self::parse(&read(GOLDEN)).unwrap_or_else(|problem| panic!("{GOLDEN}: {problem}"))
    }

    /// Prometheus text 0.0.4.
    fn parse(text: &str) -> Result<Self, String> {
        let mut series = BTreeMap::<String, Series>::new();
        // Prometheus makes this one for every target.
        series.insert("up".into(), Series { sampled: true, ..Series::default() });
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                let (name, kind) = declared.split_once(' ').ok_or_else(|| format!("no type in {line:?}"))?;
                let names = match kind {
                    "histogram" => ["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")).to_vec(),
                    _ => vec![name.to_owned()],
                };
                for name in names {
                    series.insert(name, Series { counter: matches!(kind, "counter" | "histogram"), ..Series::default() });
                }
            } else if !line.starts_with('#') {
                let (name, labels) = parse_sample(line)?;
                let found = series.get_mut(name).ok_or_else(|| format!("{name} has no TYPE line"))?;
                found.sampled = true;
                for (label, value) in labels {
                    found.labels.entry(label).or_default().insert(value);
                }
            }
        }
        Ok(Self(series))
    }
}

/// A name and its labels with their values.
type Sample<'a> = (&'a str, Vec<(String, String)>);

/// Reads a line such as `name{label="value"} 1`.
fn parse_sample(line: &str) -> Result<Sample<'_>, String> {
    let bad = || format!("not a sample: {line:?}");
    let end = line.find(['{', ' ']).ok_or_else(bad)?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, quoted) = rest.split_once("=\"").ok_or_else(bad)?;
            let mut value = String::new();
            let mut chars = quoted.char_indices();
            let end = loop {
                match chars.next().ok_or_else(bad)? {
                    (at, '"') => break at,
                    (_, '\\') => value.push(chars.next().ok_or_else(bad)?.1),
                    (_, other) => value.push(other),
                }
            };
            labels.push((label.trim_start_matches(',').to_owned(), value));
            rest = &quoted[end + 1..];
        }
        rest = &rest[1..];
    }
    rest.split_whitespace().next().and_then(|value| value.parse::<f64>().ok()).ok_or_else(bad)?;
    Ok((name, labels))
}

// --- PromQL ---

/// Walks one expression and notes whatever the golden does not hold.
struct Walk<'a> {
    golden: &'a Golden,
    /// Dashboards narrow every query to the chosen job and instance; rules must not.
    wants_target: bool,
    problems: Problems,
}

/// The problems of an expression and the labels of its result.
fn examine(golden: &Golden, query: &str, wants_target: bool) -> (Problems, Labels) {
    match parser::parse(query) {
        Err(error) => (vec![format!("does not parse: {error}")], Labels::new()),
        Ok(expr) => {
            let mut walk = Walk { golden, wants_target, problems: Vec::new() };
            let labels = walk.labels_of(&expr, None);
            (walk.problems, labels)
        }
    }
}

impl Walk<'_> {
    fn labels_of(&mut self, expr: &Expr, function: Option<&str>) -> Labels {
        match expr {
            Expr::VectorSelector(it) => self.selector(it.name.as_deref(), &it.matchers, function),
            Expr::MatrixSelector(it) => self.selector(it.vs.name.as_deref(), &it.vs.matchers, function),
            Expr::Paren(it) => self.labels_of(&it.expr, function),
            Expr::Unary(it) => self.labels_of(&it.expr, None),
            Expr::Subquery(it) => self.labels_of(&it.expr, None),
            Expr::Binary(it) => self.binary(it),
            Expr::Aggregate(it) => {
                let inner = self.labels_of(&it.expr, None);
                match &it.modifier {
                    None => Labels::new(),
                    Some(LabelModifier::Include(by)) => self.known(&by.labels, &inner, "by"),
                    Some(LabelModifier::Exclude(without)) => {
                        let gone = self.known(&without.labels, &inner, "without");
                        inner.difference(&gone).cloned().collect()
                    }
                }
            }
            Expr::Call(it) => {
                let mut labels = Labels::new();
                for argument in &it.args.args {
                    labels.extend(self.labels_of(argument, Some(it.func.name)));
                }
                match it.func.name {
                    "absent" | "absent_over_time" => labels.clear(),
                    "histogram_quantile" if !labels.remove("le") => self.problems.push("histogram_quantile without le".into()),
                    _ => {}
                }
                labels
            }
            _ => Labels::new(),
        }
    }

    fn binary(&mut self, it: &BinaryExpr) -> Labels {
        let (left, right) = (self.labels_of(&it.lhs, None), self.labels_of(&it.rhs, None));
        let scalar = |side: &Expr| matches!(side, Expr::NumberLiteral(_)) || matches!(side, Expr::Call(call) if call.func.name == "time");
        if scalar(&it.lhs) || scalar(&it.rhs) {
            return if scalar(&it.lhs) { right } else { left };
        }
        let op = it.op.to_string();
        if op == "or" {
            return left.union(&right).cloned().collect();
        }
        let one_to_one = it.modifier.as_ref().is_none_or(|it| matches!(it.card, VectorMatchCardinality::OneToOne));
        match it.modifier.as_ref().and_then(|it| it.matching.as_ref()) {
            Some(LabelModifier::Include(on)) => {
                self.known(&on.labels, &left, "on");
                let on = self.known(&on.labels, &right, "on");
                let arithmetic = !matches!(op.as_str(), "and" | "unless");
                if arithmetic && one_to_one { on } else { left }
            }
            Some(LabelModifier::Exclude(_)) => left,
            None => {
                // Vectors whose labels differ never match, and the query is empty for ever without an error.
                if left != right {
                    self.problems.push(format!("{left:?} {op} {right:?} never match"));
                }
                left
            }
        }
    }

    fn selector(&mut self, name: Option<&str>, matchers: &Matchers, function: Option<&str>) -> Labels {
        let Some((name, series)) = name.and_then(|name| Some((name, self.golden.0.get(name)?))) else {
            self.problems.push(format!("{} is not exposed", name.unwrap_or("a selector without a name")));
            return Labels::new();
        };
        if !series.sampled {
            self.problems.push(format!("{name} has no sample, so its labels are not known"));
        }
        if series.counter && !matches!(function, Some("rate" | "irate" | "increase")) {
            self.problems.push(format!("the counter {name} is used without a rate"));
        }
        let mut labels: Labels = series.labels.keys().cloned().collect();
        labels.extend(set(["job", "instance"]));
        for matcher in &matchers.matchers {
            self.known(std::slice::from_ref(&matcher.name), &labels, name);
            let Some(exposed) = series.labels.get(&matcher.name) else { continue };
            // A value that is not there from the start has no first increase, and its alert misses the first event.
            let wanted: Vec<&str> = match &matcher.op {
                MatchOp::Equal => vec![&matcher.value],
                MatchOp::Re(_) => matcher.value.split('|').collect(),
                MatchOp::NotEqual | MatchOp::NotRe(_) => continue,
            };
            for value in wanted.into_iter().filter(|value| !exposed.contains(*value)) {
                self.problems.push(format!("{name} has no {}=\"{value}\"", matcher.name));
            }
        }
        for target in ["job", "instance"] {
            if self.wants_target && !matchers.matchers.iter().any(|matcher| matcher.name == target) {
                self.problems.push(format!("{name} is asked for without a matcher on {target}"));
            }
        }
        labels
    }

    fn known(&mut self, asked: &[String], labels: &Labels, place: &str) -> Labels {
        for label in asked.iter().filter(|label| !labels.contains(*label)) {
            self.problems.push(format!("{place}: there is no label {label}"));
        }
        asked.iter().cloned().collect()
    }
}

// --- rules, their tests and the runbook ---

#[derive(Deserialize)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Clone, Deserialize)]
struct Rule {
    alert: Option<String>,
    record: Option<String>,
    expr: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Rule {
    fn name(&self) -> &str {
        self.alert.as_deref().or(self.record.as_deref()).unwrap_or("a rule without a name")
    }

    /// The last number of the expression, which the file promises to be the threshold.
    fn threshold(&self) -> Option<f64> {
        let mut words = self.expr.split_whitespace().rev();
        let number = words.next()?.parse().ok()?;
        matches!(words.next()?, ">" | ">=" | "<" | "<=").then_some(number)
    }
}

fn rules() -> Vec<Rule> {
    let file: RuleFile = serde_saphyr::from_str(&read(RULES)).unwrap_or_else(|error| panic!("{RULES}: {error}"));
    file.groups.into_iter().flat_map(|group| group.rules).collect()
}

#[derive(Deserialize)]
struct TestFile {
    tests: Vec<RuleTest>,
}

#[derive(Deserialize)]
struct RuleTest {
    alert_rule_test: Vec<AlertCase>,
}

#[derive(Deserialize)]
struct AlertCase {
    eval_time: String,
    alertname: String,
    exp_alerts: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    exp_labels: BTreeMap<String, String>,
    exp_annotations: BTreeMap<String, String>,
}

impl AlertCase {
    fn minute(&self) -> u64 {
        self.eval_time.strip_suffix('m').and_then(|time| time.parse().ok()).expect("eval_time in minutes")
    }
}

fn rule_tests() -> Vec<RuleTest> {
    let file: TestFile = serde_saphyr::from_str(&read(RULE_TESTS)).unwrap_or_else(|error| panic!("{RULE_TESTS}: {error}"));
    file.tests
}

/// Names of labels in a template such as `{{ $labels.check }}`.
fn template_labels(text: &str) -> Labels {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    text.split("$labels.").skip(1).map(name).collect()
}

/// The anchors that a heading of the runbook gets from GitHub and its like.
fn anchors(markdown: &str) -> Labels {
    markdown.lines().filter_map(|line| line.strip_prefix("## ")).map(|title| title.to_lowercase().replace(' ', "-")).collect()
}

fn lint_rule(rule: &Rule, golden: &Golden, anchors: &Labels, dashboard_uid: &str) -> Problems {
    let (mut problems, labels) = examine(golden, &rule.expr, false);
    let Some(name) = &rule.alert else { return problems };
    let mut check = |holds: bool, problem: &str| {
        if !holds {
            problems.push(problem.to_owned());
        }
    };
    let text = |annotation: &str| rule.annotations.get(annotation).map_or("", String::as_str);

    let prefixed = ["DecisionBox", "Bellwether"].iter().any(|prefix| name.starts_with(prefix));
    check(prefixed && name.chars().all(char::is_alphanumeric), "the name is not CamelCase with our prefix");
    let severity = rule.labels.get("severity").map_or("", String::as_str);
    check(matches!(severity, "critical" | "warning" | "info"), "the severity is none of ours");
    check(rule.threshold().is_some(), "the expression does not end with its threshold");

    let summary = text("summary");
    check(!summary.is_empty() && !summary.contains("{{") && summary.ends_with('.'), "the summary is not a static sentence");
    let description = text("description");
    check(description.contains("{{") || (labels.is_empty() && !description.is_empty()), "the description says nothing of this case");
    for label in template_labels(description) {
        check(labels.contains(&label), &format!("the description names {label}, which the result does not have"));
    }
    let anchor = name.to_lowercase();
    check(text("runbook_url") == format!("{RUNBOOK}#{anchor}"), "runbook_url is not the section of this alert");
    check(anchors.contains(&anchor), "the runbook has no section for it");
    check(text("dashboard_url") == format!("/d/{dashboard_uid}"), "dashboard_url is not our dashboard");
    problems
}

/// Quiet, firing with everything that the rule promises, quiet again.
fn lint_coverage(rule: &Rule, tests: &[RuleTest]) -> Problems {
    let name = rule.name();
    let told: Vec<&String> = rule.annotations.keys().collect();
    let whole = tests.iter().any(|test| {
        let cases: Vec<&AlertCase> = test.alert_rule_test.iter().filter(|case| case.alertname == name).collect();
        cases.iter().filter(|case| !case.exp_alerts.is_empty()).any(|fires| {
            let full =
                |alert: &Expected| alert.exp_labels.contains_key("severity") && alert.exp_annotations.keys().collect::<Vec<_>>() == told;
            let quiet = |wanted: fn(u64, u64) -> bool| cases.iter().any(|c| c.exp_alerts.is_empty() && wanted(c.minute(), fires.minute()));
            fires.exp_alerts.iter().all(full) && quiet(|at, fires| at < fires) && quiet(|at, fires| at > fires)
        })
    });
    if whole { Vec::new() } else { vec!["no unit test in which it is quiet, fires in full and resolves".into()] }
}

// --- the dashboard ---

fn dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).unwrap_or_else(|error| panic!("{DASHBOARD}: {error}"))
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A query as Prometheus gets it from Grafana.
fn substituted(query: &str) -> String {
    [("$__rate_interval", "1m"), ("$job", ".+"), ("$instance", ".+")]
        .iter()
        .fold(query.to_owned(), |query, (variable, value)| query.replace(variable, value))
}

fn lint_dashboard(dashboard: &Value, golden: &Golden, rules: &[Rule]) -> Problems {
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
fn lint_frame(dashboard: &Value) -> Problems {
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
    check(notes.iter().any(|note| text(note, "/expr").contains("failures_total")), "failed runs are not annotated");
    check(list(dashboard, "/links").iter().all(|link| link["includeVars"] == true && link["keepTime"] == true), "a link drops the choice");

    let mut sources = Vec::new();
    data_sources(dashboard, &mut sources);
    check(!sources.is_empty() && sources.iter().all(|uid| *uid == "${datasource}"), "a data source is not ${datasource}");
    problems
}

fn data_sources<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
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

fn lint_place(panel: &Value, id: u64, cells: &mut BTreeMap<(u64, u64), u64>) -> Problems {
    let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64());
    let (Some(x), Some(y), Some(w), Some(h)) = (x, y, w, h) else { return vec!["it has no place".into()] };
    if w == 0 || h == 0 || x + w > 24 {
        return vec!["it does not fit the 24 columns".into()];
    }
    let over: BTreeSet<u64> =
        (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line))).filter_map(|cell| cells.insert(cell, id)).collect();
    over.into_iter().map(|other| format!("it lies over the panel with id {other}")).collect()
}

fn lint_panel(panel: &Value, golden: &Golden, rules: &[Rule]) -> Problems {
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

    let claimed: Vec<&str> =
        text(panel, "/description").split("Alert: ").skip(1).map(|rest| rest.split('.').next().unwrap_or_default()).collect();
    let mut windows = vec!["$__rate_interval"];
    for name in claimed {
        let Some(rule) = rules.iter().find(|rule| rule.name() == name) else {
            problems.push(format!("there is no alert {name}"));
            continue;
        };
        windows.extend(ranges(&rule.expr));
        // Grafana colours from a step upwards: "above 0" of something that is counted begins at 1.
        let threshold = rule.threshold().map(|it| if it == 0.0 { 1.0 } else { it });
        if !steps.iter().any(|step| step["value"].as_f64().is_some() && step["value"].as_f64() == threshold) {
            problems.push(format!("no threshold equals that of {name}"));
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

fn ranges(query: &str) -> Vec<&str> {
    query.split('[').skip(1).filter_map(|rest| rest.split(']').next()).collect()
}

fn legend_labels(legend: &str) -> Labels {
    legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()).map(|label| label.trim().to_owned()).collect()
}

/// The queries outside of panels. Variables choose the job and the instance, so they cannot be narrowed to them.
fn lint_other_queries(dashboard: &Value, golden: &Golden) -> Problems {
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

// --- what ships is right ---

fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn every_rule_asks_for_what_is_exposed_and_says_what_it_must() {
    let (golden, anchors, dashboard) = (Golden::load(), anchors(&read(RUNBOOK)), dashboard());
    let rules = rules();
    assert!(rules.len() > 20, "the rules were not read");
    let of_rule = |rule: &Rule| -> Problems {
        let found = lint_rule(rule, &golden, &anchors, text(&dashboard, "/uid"));
        found.into_iter().map(|problem| format!("{}: {problem}", rule.name())).collect()
    };
    assert_none(&rules.iter().flat_map(of_rule).collect::<Problems>());
    let names: BTreeSet<&str> = rules.iter().map(Rule::name).collect();
    assert_eq!(names.len(), rules.len(), "two rules have the same name");
}

#[test]
fn every_alert_has_a_unit_test_in_which_it_fires() {
    let tests = rule_tests();
    let of_rule = |rule: Rule| -> Problems {
        lint_coverage(&rule, &tests).into_iter().map(|problem| format!("{}: {problem}", rule.name())).collect()
    };
    assert_none(&rules().into_iter().filter(|rule| rule.alert.is_some()).flat_map(of_rule).collect::<Problems>());
    // A case that names no alert is quiet for ever, and so passes for ever.
    let names: BTreeSet<String> = rules().iter().map(|rule| rule.name().to_owned()).collect();
    for case in tests.iter().flat_map(|test| &test.alert_rule_test) {
        assert!(names.contains(&case.alertname), "a unit test names {}, which is no alert", case.alertname);
    }
}

#[test]
fn every_section_of_the_runbook_belongs_to_an_alert() {
    let alerts: Labels = rules().iter().map(|rule| rule.name().to_lowercase()).collect();
    assert_eq!(anchors(&read(RUNBOOK)), alerts);
}

#[test]
fn the_dashboard_asks_for_what_is_exposed_and_reads_well() {
    let (golden, dashboard) = (Golden::load(), dashboard());
    let mut problems = lint_dashboard(&dashboard, &golden, &rules());
    problems.extend(lint_other_queries(&dashboard, &golden));
    assert_none(&problems);
}

// --- the lints find what they are for ---

/// Enough of an exposition to plant faults beside.
const SMALL: &str = "# HELP a_total A.\n# TYPE a_total counter\na_total{kind=\"x\"} 1\na_total{kind=\"y \\\"}\\n\"} 0\n\
    # HELP b B.\n# TYPE b gauge\nb{kind=\"x\",other=\"z\"} 2\n# HELP c C.\n# TYPE c gauge\n\
    # HELP h_seconds H.\n# TYPE h_seconds histogram\nh_seconds_bucket{le=\"+Inf\"} 0\nh_seconds_sum 0\nh_seconds_count 0\n";

#[test]
fn faults_in_an_exposition_are_refused() {
    for text in ["a 1", "# TYPE a\na 1", "# TYPE a gauge\na{b=\"c} 1", "# TYPE a gauge\na{b=\"c\"}", "# TYPE a gauge\na one"] {
        assert!(Golden::parse(text).is_err(), "{text:?} was taken");
    }
    let golden = Golden::parse(SMALL).expect("parses");
    assert_eq!(golden.0["a_total"].labels["kind"], set(["x", "y \"}n"]));
    assert!(golden.0.contains_key("h_seconds_bucket") && !golden.0.contains_key("h_seconds"));
}

#[test]
fn faults_in_an_expression_are_found() {
    let golden = Golden::parse(SMALL).expect("parses");
    for good in [
        "increase(a_total{kind=\"x\"}[5m]) > 0",
        "sum without (kind) (rate(a_total[5m])) / 3",
        "histogram_quantile(0.9, sum by (le) (rate(h_seconds_bucket[5m])))",
        "1 - (b unless on (job, instance, kind) (b == 0)) > 0",
        "absent(b)",
        "max by (job) (up) == 0",
    ] {
        assert_none(&examine(&golden, good, false).0);
    }
    for (bad, expected) in [
        ("rate(a_total[5m]", "does not parse"),
        ("rate(b)", "does not parse"),
        ("d > 0", "d is not exposed"),
        ("{kind=\"x\"}", "without a name is not exposed"),
        ("h_seconds > 0", "h_seconds is not exposed"),
        ("c > 0", "c has no sample"),
        ("a_total > 0", "used without a rate"),
        ("max_over_time(a_total[5m])", "used without a rate"),
        ("rate(sum(a_total)[5m:1m])", "used without a rate"),
        ("b{nosuch=\"x\"}", "no label nosuch"),
        ("b{kind=\"gone\"}", "no kind=\"gone\""),
        ("b{kind=~\"x|gone\"}", "no kind=\"gone\""),
        ("sum by (nosuch) (b)", "no label nosuch"),
        ("sum without (nosuch) (b)", "no label nosuch"),
        ("b and on (nosuch) b", "no label nosuch"),
        ("b and on (other) increase(a_total[5m])", "no label other"),
        ("b + increase(a_total[5m])", "never match"),
        ("histogram_quantile(0.9, sum by (job) (rate(h_seconds_bucket[5m])))", "without le"),
    ] {
        let found = examine(&golden, bad, false).0;
        assert!(found.iter().any(|problem| problem.contains(expected)), "{bad}: {expected:?} is not in {found:?}");
    }
    let found = examine(&golden, "b{job=~\".+\"}", true).0;
    assert!(found.len() == 1 && found[0].contains("without a matcher on instance"), "{found:?}");
}

#[test]
fn faults_in_a_rule_are_found() {
    let (golden, all, tests) = (Golden::load(), rules(), rule_tests());
    let good = all.iter().find(|rule| rule.name() == "DecisionBoxComponentDown").expect("is there");
    let sections = anchors(&read(RUNBOOK));
    let faults: [(&str, Plant); 10] = [
        ("CamelCase", |rule| rule.alert = Some("decisionbox_down".into())),
        ("severity", |rule| drop(rule.labels.insert("severity".into(), "page".into()))),
        ("threshold", |rule| rule.expr.push_str(" or vector(1)")),
        ("summary", |rule| drop(rule.annotations.insert("summary".into(), "The check {{ $labels.check }} fails.".into()))),
        ("description says", |rule| drop(rule.annotations.remove("description"))),
        ("names nosuch", |rule| drop(rule.annotations.insert("description".into(), "{{ $labels.nosuch }} fails.".into()))),
        ("runbook_url", |rule| drop(rule.annotations.remove("runbook_url"))),
        ("no section", |rule| rule.alert = Some("DecisionBoxNew".into())),
        ("dashboard_url", |rule| drop(rule.annotations.insert("dashboard_url".into(), "/d/other".into()))),
        ("not exposed", |rule| rule.expr = rule.expr.replace("root_cause", "cause")),
    ];
    let uid = text(&dashboard(), "/uid").to_owned();
    assert_none(&lint_rule(good, &golden, &sections, &uid));
    for (expected, plant) in faults {
        let mut rule = good.clone();
        plant(&mut rule);
        let found = lint_rule(&rule, &golden, &sections, &uid);
        assert!(found.iter().any(|problem| problem.contains(expected)), "{expected:?} is not in {found:?}");
    }

    // A case counts only when all three parts of it are there.
    for lost in 0..3 {
        let mut tests = rule_tests();
        for case in tests.iter_mut().flat_map(|test| &mut test.alert_rule_test).filter(|case| case.alertname == good.name()) {
            match lost {
                0 => case.exp_alerts.clear(),
                1 => case.exp_alerts.iter_mut().for_each(|alert| drop(alert.exp_annotations.remove("description"))),
                _ => case.eval_time = "1m".into(),
            }
        }
        assert_eq!(lint_coverage(good, &tests).len(), 1, "part {lost} was not missed");
    }
    assert_none(&lint_coverage(good, &tests));
}

#[test]
fn faults_in_the_dashboard_are_found() {
    let (golden, rules, good) = (Golden::load(), rules(), dashboard());
    let at = |title: &str| list(&good, "/panels").iter().position(|panel| panel["title"] == title).expect("is there");
    let (age, calls) = (format!("/panels/{}", at("Age of the oldest active run")), format!("/panels/{}", at("LLM calls")));
    let expr = format!("{calls}/targets/0/expr");
    let target = "job=~\"$job\",instance=~\"$instance\"";
    let faults = [
        ("schemaVersion", "/schemaVersion".to_owned(), json!(39)),
        ("editable", "/editable".to_owned(), json!(true)),
        ("/uid is missing", "/uid".to_owned(), json!("")),
        ("no tags", "/tags".to_owned(), json!([])),
        ("cannot mean all", "/templating/list/1/allValue".to_owned(), json!("")),
        ("no data source variable", "/templating/list/0/name".to_owned(), json!("source")),
        ("not ${datasource}", format!("{calls}/targets/0/datasource/uid"), json!("P1809F7CD0C75ACF3")),
        ("not ${datasource}", "/annotations/list/0/datasource".to_owned(), json!("Prometheus")),
        ("restarts", "/annotations/list/0/expr".to_owned(), json!("")),
        ("drops the choice", "/links/0/includeVars".to_owned(), json!(false)),
        ("used twice", format!("{calls}/id"), json!(1)),
        ("lies over", format!("{calls}/gridPos/h"), json!(20)),
        ("24 columns", format!("{calls}/gridPos/x"), json!(22)),
        ("every Grafana", format!("{calls}/type"), json!("graph")),
        ("no description", format!("{calls}/description"), json!("")),
        ("no unit", format!("{calls}/fieldConfig/defaults/unit"), json!(null)),
        ("no noValue", format!("{calls}/fieldConfig/defaults/noValue"), json!("")),
        ("begin at 0", format!("{calls}/fieldConfig/defaults/min"), json!(null)),
        ("not null", format!("{calls}/fieldConfig/defaults/thresholds/steps/0/value"), json!(0)),
        ("no query", format!("{calls}/targets"), json!([])),
        ("equals that of DecisionBoxRunTooLong", format!("{age}/fieldConfig/defaults/thresholds/steps/1/value"), json!(3600)),
        ("no alert DecisionBoxGone", format!("{age}/description"), json!("Alert: DecisionBoxGone.")),
        ("legend names", format!("{calls}/targets/0/legendFormat"), json!("{{nosuch}}")),
        ("without a rate", expr.clone(), json!(format!("decisionbox_llm_calls_total{{{target}}}"))),
        ("matcher on job", expr.clone(), json!("sum by (result) (rate(decisionbox_llm_calls_total[$__rate_interval]))")),
        ("range 5m", expr.clone(), json!(format!("sum by (result) (rate(decisionbox_llm_calls_total{{{target}}}[5m]))"))),
        ("not exposed", expr, json!(format!("decisionbox_nosuch{{{target}}}"))),
    ];
    for (expected, pointer, value) in faults {
        let mut bad = good.clone();
        *bad.pointer_mut(&pointer).unwrap_or_else(|| panic!("{pointer} is not there")) = value;
        let found = lint_dashboard(&bad, &golden, &rules);
        assert!(found.iter().any(|problem| problem.contains(expected)), "{pointer}: {expected:?} is not in {found:?}");
    }
    for (pointer, value) in [
        ("/annotations/list/1/expr", json!("decisionbox_nosuch")),
        ("/annotations/list/1/textFormat", json!("{{nosuch}}")),
        ("/templating/list/1/query", json!("label_values(bellwether_build_info, nosuch)")),
        ("/templating/list/2/query", json!("query_result(bellwether_build_info)")),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).expect("is there") = value;
        assert!(!lint_other_queries(&bad, &golden).is_empty(), "{pointer} was taken");
    }
}
