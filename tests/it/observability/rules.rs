//! Rules, their unit tests and the runbook.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::golden::Golden;
use super::promql::examine;
use super::{Labels, Problems, RULE_TESTS, RULES, RUNBOOK, read};

#[derive(Deserialize)]
pub struct RuleFile {
    pub groups: Vec<Group>,
}

#[derive(Deserialize)]
pub struct Group {
    pub rules: Vec<Rule>,
}

#[derive(Clone, Deserialize)]
pub struct Rule {
    pub alert: Option<String>,
    pub record: Option<String>,
    pub expr: String,
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
    let file: RuleFile = serde_saphyr::from_str(&read(RULES)).unwrap_or_else(|error| panic!("{RULES}: {error}"));
    file.groups.into_iter().flat_map(|group| group.rules).collect()
}

#[derive(Deserialize)]
pub struct TestFile {
    pub tests: Vec<RuleTest>,
}

#[derive(Deserialize)]
pub struct RuleTest {
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
        self.eval_time.strip_suffix('m').and_then(|time| time.parse().ok()).expect("eval_time in minutes")
    }
}

pub fn rule_tests() -> Vec<RuleTest> {
    let file: TestFile = serde_saphyr::from_str(&read(RULE_TESTS)).unwrap_or_else(|error| panic!("{RULE_TESTS}: {error}"));
    file.tests
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

pub fn lint_rule(rule: &Rule, golden: &Golden, anchors: &Labels, dashboard_uid: &str) -> Problems {
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
pub fn lint_coverage(rule: &Rule, tests: &[RuleTest]) -> Problems {
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
