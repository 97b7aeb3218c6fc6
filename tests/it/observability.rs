//! What is shipped for Prometheus and Grafana must fit what the sidecar exposes: a renamed metric leaves an alert that
//! never fires and a panel that is always empty, and nobody is told. These tests hold the rules, their unit tests, the
//! runbook and the dashboard against the golden exposition and against each other.
//!
//! The lints return problems instead of panicking, so that `faults` can plant faults and see each of them found.

mod dashboard;
mod faults;
mod golden;
mod promql;
mod rules;

use std::collections::BTreeSet;
use std::path::Path;

use dashboard::{dashboard, lint_dashboard, lint_other_queries, text};
use golden::Golden;
use rules::{Rule, anchors, lint_coverage, lint_rule, rule_tests, rules};

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
