//! What is shipped for Prometheus and Grafana must fit what the sidecar exposes: a renamed metric leaves an alert that
//! never fires and a panel that is always empty, and nobody is told. These tests hold the rules, their unit tests, the
//! runbook and the dashboard against the golden exposition and against each other.
//!
//! The lints return problems instead of panicking, so that `faults` can plant faults and see each of them found.

pub mod dashboard;
mod faults;
mod golden;
mod promql;
mod rules;

use std::collections::BTreeSet;
use std::path::Path;

use bellwether::shipped::Kit;

use dashboard::{DASHBOARDS, dashboard, lint_dashboard, lint_other_queries, shown, text};
use golden::Golden;
use rules::{Rule, lint_coverage, lint_rule, rule_tests, rules, runbooks};

/// The exposition of the profile, which another test keeps equal to the real one.
const GOLDEN: &str = "tests/golden/decisionbox.metrics";
const RULE_TESTS: &str = "alerts/tests";

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
    let (golden, runbooks, shown) = (Golden::load(), runbooks(), shown());
    let rules = rules();
    assert!(rules.len() > 50, "the rules were not read");
    let of_rule = |rule: &Rule| -> Problems {
        let found = lint_rule(rule, &golden, &runbooks, &shown);
        found.into_iter().map(|problem| format!("{}: {problem}", rule.name())).collect()
    };
    assert_none(&rules.iter().flat_map(of_rule).collect::<Problems>());
    // Alertmanager takes two alerts with the same labels for one.
    let identities: BTreeSet<_> = rules.iter().map(|rule| (rule.name(), &rule.labels)).collect();
    assert_eq!(identities.len(), rules.len(), "two rules have the same name and labels");
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

/// An inhibition of an alert that was renamed inhibits nothing, and nobody is told.
#[test]
fn the_sample_of_alertmanager_names_alerts_that_are_there() {
    let sample = read("alerts/alertmanager/alertmanager.yml");
    let rules = rules();
    let words = sample.split(|c: char| !c.is_alphanumeric());
    let named: BTreeSet<&str> = words.filter(|word| word.starts_with("DecisionBox") || word.starts_with("Bellwether")).collect();
    assert!(named.len() > 10, "{named:?}");
    for name in named {
        assert!(rules.iter().any(|rule| rule.name() == name), "there is no alert {name}");
    }
}

#[test]
fn every_section_of_the_runbook_belongs_to_an_alert() {
    let rules = rules();
    for (runbook, sections) in runbooks() {
        let alerts = rules.iter().filter(|rule| rule.alert.is_some() && rule.runbook == runbook);
        assert_eq!(sections, alerts.map(|rule| rule.name().to_lowercase()).collect::<Labels>(), "{runbook}");
    }
}

#[test]
fn the_dashboards_ask_for_what_is_exposed_and_read_well() {
    let (golden, rules) = (Golden::load(), rules());
    for name in DASHBOARDS {
        let dashboard = dashboard(name);
        assert_eq!(text(&dashboard, "/uid"), name, "a file is found by its uid");
        let mut problems = lint_dashboard(&dashboard, &golden, &rules);
        problems.extend(lint_other_queries(&dashboard, &golden));
        assert_none(&problems.into_iter().map(|problem| format!("{name}: {problem}")).collect::<Problems>());
    }
}

/// Grafana provisions the files of `dashboards/`; people change their sources. `BELLWETHER_BLESS=1` writes them anew.
#[test]
fn the_dashboards_are_those_that_the_sources_make() {
    let kit = Kit::of("decisionbox");
    let made = kit.dashboards(&kit.rules(&[]).unwrap()).unwrap();
    assert_eq!(made.iter().map(|dashboard| text(dashboard, "/uid")).collect::<BTreeSet<_>>(), DASHBOARDS.into_iter().collect());
    for made in made {
        let name = text(&made, "/uid");
        if std::env::var_os("BELLWETHER_BLESS").is_some() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("dashboards/{name}.json"));
            std::fs::write(path, serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
        }
        assert!(
            made == dashboard(name),
            "dashboards/{name}.json is not what its source makes: BELLWETHER_BLESS=1 cargo test --test it sources_make"
        );
    }
}
