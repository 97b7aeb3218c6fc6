//! Rules, their unit tests and the runbook.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::golden::Golden;
use super::promql::examine;
use super::{Labels, Problems, RULE_TESTS, read};

/// Fires always: a dead man's switch.
pub const WATCHDOG: &str = "BellwetherWatchdog";

#[derive(Deserialize)]
pub struct RuleFile {
    pub groups: Vec<Group>,
}

/// The files of rules, by the name that their runbook has too.
const FILES: [&str; 2] = ["bellwether", "decisionbox"];

#[derive(Deserialize)]
pub struct Group {
    pub rules: Vec<Rule>,
}

#[derive(Clone, Deserialize)]
pub struct Rule {
    pub alert: Option<String>,
    pub record: Option<String>,
    pub expr: String,
    #[serde(default, rename = "for")]
    pub hold: String,
    /// The runbook that belongs to its file.
    #[serde(skip)]
    pub runbook: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl Rule {
    pub fn name(&self) -> &str {
        self.alert.as_deref().or(self.record.as_deref()).unwrap_or("a rule without a name")
    }

    /// The last number of the expression, which the file promises to be the threshold.
    pub fn threshold(&self) -> Option<f64> {
        let mut words = self.expr.split_whitespace().rev();
        let number = words.next()?.parse().ok()?;
        matches!(words.next()?, ">" | ">=" | "<" | "<=").then_some(number)
    }
}

pub fn rules() -> Vec<Rule> {
    let of_file = |name: &str| {
        let path = format!("alerts/{name}.rules.yml");
        let file: RuleFile = serde_saphyr::from_str(&read(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let runbook = format!("docs/runbooks/{name}.md");
        let rules = file.groups.into_iter().flat_map(|group| group.rules);
        rules.map(|rule| Rule { runbook: runbook.clone(), ..rule }).collect::<Vec<_>>()
    };
    FILES.iter().flat_map(|name| of_file(name)).collect()
}

/// The sections of each runbook.
pub fn runbooks() -> BTreeMap<String, Labels> {
    let path = |name: &&str| format!("docs/runbooks/{name}.md");
    FILES.iter().map(path).map(|path| (path.clone(), anchors(&read(&path)))).collect()
}

#[derive(Deserialize)]
pub struct TestFile {
    pub evaluation_interval: String,
    pub tests: Vec<RuleTest>,
}

#[derive(Deserialize)]
pub struct RuleTest {
    /// Minutes between two evaluations.
    #[serde(skip)]
    pub step: u64,
    pub alert_rule_test: Vec<AlertCase>,
}

#[derive(Deserialize)]
pub struct AlertCase {
    pub eval_time: String,
    pub alertname: String,
    pub exp_alerts: Vec<Expected>,
}

#[derive(Deserialize)]
pub struct Expected {
    pub exp_labels: BTreeMap<String, String>,
    pub exp_annotations: BTreeMap<String, String>,
}

impl AlertCase {
    pub fn minute(&self) -> u64 {
        minutes(&self.eval_time)
    }
}

/// A time of one unit, such as `90m`; nothing is 0.
pub fn minutes(text: &str) -> u64 {
    if text.is_empty() {
        return 0;
    }
    let (number, unit) = text.split_at(text.len() - 1);
    let factor = [("m", 1), ("h", 60), ("d", 1440)].into_iter().find(|(letter, _)| *letter == unit).expect("minutes, hours or days").1;
    number.parse::<u64>().expect("a number") * factor
}

pub fn rule_tests() -> Vec<RuleTest> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(RULE_TESTS);
    let paths = std::fs::read_dir(folder).expect("the tests of the rules").map(|entry| entry.expect("an entry").path());
    let of_file = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a file");
        let file: TestFile = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let step = minutes(&file.evaluation_interval);
        file.tests.into_iter().map(move |test| RuleTest { step, ..test })
    };
    paths.flat_map(of_file).collect()
}

/// Names of labels in a template such as `{{ $labels.check }}`.
pub fn template_labels(text: &str) -> Labels {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    text.split("$labels.").skip(1).map(name).collect()
}

/// The anchors that a heading of the runbook gets from GitHub and its like.
pub fn anchors(markdown: &str) -> Labels {
    markdown.lines().filter_map(|line| line.strip_prefix("## ")).map(|title| title.to_lowercase().replace(' ', "-")).collect()
}

/// `shown` are the alerts that each dashboard has a panel for, by its path in Grafana.
pub fn lint_rule(rule: &Rule, golden: &Golden, runbooks: &BTreeMap<String, Labels>, shown: &BTreeMap<String, Labels>) -> Problems {
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
    check(matches!(severity, "critical" | "warning" | "info") || name == WATCHDOG && severity == "none", "the severity is none of ours");
    check(rule.threshold().is_some(), "the expression does not end with its threshold");

    let summary = text("summary");
    check(!summary.is_empty() && !summary.contains("{{") && summary.ends_with('.'), "the summary is not a static sentence");
    let description = text("description");
    check(description.contains("{{") || (labels.is_empty() && !description.is_empty()), "the description says nothing of this case");
    for label in template_labels(description) {
        check(labels.contains(&label), &format!("the description names {label}, which the result does not have"));
    }
    let anchor = name.to_lowercase();
    check(text("runbook_url") == format!("{}#{anchor}", rule.runbook), "runbook_url is not the section of this alert");
    check(runbooks.get(&rule.runbook).is_some_and(|sections| sections.contains(&anchor)), "the runbook has no section for it");
    match shown.get(text("dashboard_url")) {
        None => check(false, "dashboard_url is no dashboard of ours"),
        Some(alerts) => check(alerts.contains(name) || name == WATCHDOG, "the dashboard has no panel for it"),
    }
    problems
}

/// Quiet while healthy, quiet one evaluation before its time, firing with everything that the rule promises, quiet again.
pub fn lint_coverage(rule: &Rule, tests: &[RuleTest]) -> Problems {
    let told: Vec<&String> = rule.annotations.keys().collect();
    let is_ours = |alert: &&Expected| rule.labels.iter().all(|(label, value)| alert.exp_labels.get(label) == Some(value));
    let whole = tests.iter().any(|test| {
        let cases: Vec<&AlertCase> = test.alert_rule_test.iter().filter(|case| case.alertname == rule.name()).collect();
        let fires = |case: &AlertCase| case.exp_alerts.iter().any(|alert| is_ours(&alert));
        let quiet = |wanted: &dyn Fn(u64) -> bool| cases.iter().any(|case| !fires(case) && wanted(case.minute()));
        cases.iter().filter(|case| fires(case)).any(|case| {
            let full = case.exp_alerts.iter().filter(is_ours).all(|alert| alert.exp_annotations.keys().collect::<Vec<_>>() == told);
            let at = case.minute();
            let just_before = quiet(&|time| time + test.step == at);
            let healthy = quiet(&|time| time + minutes(&rule.hold) + test.step <= at);
            full && (rule.name() == WATCHDOG || just_before && healthy && quiet(&|time| time > at))
        })
    });
    let missing = "no unit test in which it is quiet while healthy and just before its time, fires in full and resolves";
    if whole { Vec::new() } else { vec![missing.into()] }
}
