//! The lints find what they are for: each is tried on a planted fault.

use serde_json::json;

use super::dashboard::{dashboard, lint_dashboard, lint_other_queries, list, shown};
use super::golden::Golden;
use super::promql::examine;
use super::rules::{AlertCase, lint_coverage, lint_rule, rule_tests, rules, runbooks};
use super::{Plant, assert_none, set};

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
    let (sections, shown) = (runbooks(), shown());
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
    assert_none(&lint_rule(good, &golden, &sections, &shown));
    for (expected, plant) in faults {
        let mut rule = good.clone();
        plant(&mut rule);
        let found = lint_rule(&rule, &golden, &sections, &shown);
        assert!(found.iter().any(|problem| problem.contains(expected)), "{expected:?} is not in {found:?}");
    }

    // A case counts only when all parts of it are there.
    let fires = |case: &&AlertCase| case.alertname == good.name() && !case.exp_alerts.is_empty();
    let first = tests.iter().flat_map(|test| &test.alert_rule_test).filter(fires).map(AlertCase::minute).min();
    let just_before = first.expect("it fires") - 1;
    for lost in 0..4 {
        let mut tests = rule_tests();
        for case in tests.iter_mut().flat_map(|test| &mut test.alert_rule_test).filter(|case| case.alertname == good.name()) {
            match lost {
                0 => case.exp_alerts.clear(),
                1 => case.exp_alerts.iter_mut().for_each(|alert| drop(alert.exp_annotations.remove("description"))),
                2 => case.eval_time = "1m".into(),
                _ if case.minute() == just_before => case.eval_time = "0m".into(),
                _ => {}
            }
        }
        assert_eq!(lint_coverage(good, &tests).len(), 1, "part {lost} was not missed");
    }
    assert_none(&lint_coverage(good, &tests));
}

#[test]
fn faults_in_the_dashboard_are_found() {
    let (golden, rules, good) = (Golden::load(), rules(), dashboard("bellwether-decisionbox-runs"));
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
