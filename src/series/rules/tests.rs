//! Rules as data, records as data, the values that come of it.

mod waits;

use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::clock::Moment;
use crate::config::environment::Environment;
use crate::config::rules::Comparison;
use crate::config::{Request, load};
use crate::metrics::open_metrics::OpenMetrics;

struct Fields<'a>(&'a [String], Vec<(&'a str, Value<'a>)>);

impl Record for Fields<'_> {
    fn get(&self, field: FieldId) -> Value<'_> {
        self.1.iter().find(|(name, _)| *name == self.0[field]).map_or(Value::Null, |(_, value)| value.clone())
    }
}

fn rules() -> (RuleSet, Families) {
    let request = Request { profile: Some("decisionbox"), logs_only: true, ..Request::default() };
    let config = load(&request, &Environment::default()).unwrap();
    let mut families = Families::default();
    let set = RuleSet::compile(&config.logs.rules, &mut families).unwrap();
    (set, families)
}

#[track_caller]
fn check(fields: &[(&str, Value<'_>)], expected: &[(&str, &[&str], f64)]) {
    let (mut set, mut families) = rules();
    let names = set.fields().to_vec();
    set.apply(&Fields(&names, fields.to_vec()), &mut families);
    for (metric, labels, value) in expected {
        assert_eq!(families.value(metric, labels), Some(*value), "{metric} {labels:?}");
    }
}

fn text(text: &str) -> Value<'_> {
    Value::Text(text.into())
}

#[test]
fn an_llm_failure_is_counted_once_and_classified() {
    let error = "claude: failed after 3 attempts: context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    check(
        &[("message", text("LLM call failed")), ("error", text(error)), ("latency_ms", Value::Digits("905211"))],
        &[
            ("decisionbox_llm_failures_total", &["timeout"], 1.0),
            ("decisionbox_llm_failures_total", &["rate_limit"], 0.0),
            ("decisionbox_llm_calls_total", &["failure"], 1.0),
            ("decisionbox_llm_call_duration_seconds", &[], 1.0),
        ],
    );
    let later = [("message", text("LLM call failed during exploration")), ("attempt", Value::Digits("0")), ("error", text(error))];
    check(&later, &[("decisionbox_llm_failures_total", &["timeout"], 0.0)]);
    check(&[later[0].clone(), later[2].clone()], &[("decisionbox_llm_failures_total", &["timeout"], 1.0)]);
}

#[test]
fn both_types_of_duration_become_seconds() {
    check(
        &[("message", text("Discovery run completed")), ("duration", text("5m23.412345678s"))],
        &[("decisionbox_discovery_duration_seconds", &[], 1.0)],
    );
    check(
        &[("message", text("Exploration finished")), ("duration", Value::Digits("1023412"))],
        &[("decisionbox_exploration_duration_seconds", &[], 1.0)],
    );
}

#[test]
fn labels_are_closed_sets() {
    check(
        &[("message", text("Request error")), ("status", Value::Digits("409")), ("level", text("warn")), ("caller", text("log/log.go:47"))],
        &[("decisionbox_http_request_failures_total", &["409"], 1.0), ("decisionbox_log_lines_total", &["warn", "decisionbox-api"], 1.0)],
    );
    check(
        &[("message", text("Request error")), ("status", text("x\"}\n evil")), ("level", Value::Null)],
        &[("decisionbox_http_request_failures_total", &["other"], 1.0), ("decisionbox_log_lines_total", &["unknown", "other"], 1.0)],
    );
}

#[test]
fn alternatives_count_a_line_once() {
    let error = text("server selection error: server selection timeout");
    check(
        &[("message", text("MongoDB connection failed")), ("error", error), ("caller", text("log/log.go:48"))],
        &[("decisionbox_mongodb_errors_total", &["decisionbox-api"], 1.0)],
    );
}

/// The rules of a configuration file, at a moment.
fn of(rules: &str, now: Moment) -> (RuleSet, Families) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, format!("logs:\n  rules:\n{}", textwrap(rules))).unwrap();
    let request = Request { file: Some(&file), logs_only: true, ..Request::default() };
    let config = load(&request, &Environment::default()).unwrap();
    let mut families = Families::default();
    families.set_now(now);
    let set = RuleSet::for_logs(&config.logs.rules, &mut families).unwrap();
    (set, families)
}

fn textwrap(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

fn run(set: &mut RuleSet, families: &mut Families, fields: &[(&str, Value<'_>)]) -> usize {
    let names = set.fields().to_vec();
    set.apply(&Fields(&names, fields.to_vec()), families)
}

/// Whether a condition on the field `f` holds for a value.
fn holds(condition: &str, value: Value<'_>) -> bool {
    let (mut set, mut families) = of(&format!("- {{ metric: m_total, type: counter, match: {{ f: {condition} }} }}"), Moment::default());
    run(&mut set, &mut families, &[("f", value)]) == 1
}

#[test]
fn each_kind_of_condition_holds_for_what_it_should() {
    let all = [
        ("done", vec![text("done")], vec![text("done "), text("Done"), Value::Null, Value::Composite]),
        ("[done, 7]", vec![text("done"), Value::Digits("7"), Value::Integer(7)], vec![text("x"), Value::Digits("7.0")]),
        ("true", vec![Value::Bool(true), text("true")], vec![Value::Bool(false), Value::Null]),
        ("{ prefix: [ab, cd] }", vec![text("abx"), text("cd")], vec![text("xab"), Value::Null]),
        ("{ contains: [b, d] }", vec![text("abc"), text("d")], vec![text("xyz"), Value::Null]),
        (r#"{ regex: "^a.*z$" }"#, vec![text("az"), text("abcz")], vec![text("azb"), Value::Null]),
        ("{ absent: true }", vec![Value::Null], vec![text(""), Value::Bool(false), Value::Composite]),
        ("{ exists: false }", vec![Value::Null], vec![text("")]),
        ("{ exists: true }", vec![text(""), Value::Bool(false), Value::Composite], vec![Value::Null]),
        ("{ not: debug }", vec![text("info"), Value::Null], vec![text("debug")]),
        ("{ not: { prefix: a, contains: z } }", vec![text("ab"), text("bz"), Value::Null], vec![text("abz")]),
        ("{ exists: true, not: [a, b] }", vec![text("c")], vec![text("a"), Value::Null]),
        ("{ ge: 400, lt: 500 }", vec![Value::Digits("400"), text("499.9")], vec![Value::Digits("500"), text("x"), Value::Null]),
        ("{ gt: 5s }", vec![text("5.1s"), Value::Digits("6"), text("1h0m0s")], vec![text("5s"), text("900ms"), Value::Bool(true)]),
        ("{ gt: 5s, unit: ms }", vec![Value::Integer(5001), text("6s")], vec![Value::Integer(5000), Value::Integer(6)]),
        ("{ gt: 300, unit: ms }", vec![Value::Integer(301), text("0.4s")], vec![Value::Integer(300)]),
        ("{ le: 1MiB }", vec![Value::Integer(1_048_576), text("64KiB")], vec![Value::Integer(1_048_577), text("2 MB"), text("1GiB")]),
        ("{ eq: 0 }", vec![Value::Digits("0"), Value::Digits("-0"), Value::Float(0.0)], vec![Value::Digits("1"), text(""), Value::Null]),
        ("{ ge: 90d }", vec![text("2160h0m0s")], vec![text("2159h0m0s")]),
        ("{ lt: 1 }", vec![Value::Digits("-1e300")], vec![text("NaN"), Value::Digits("1e400"), Value::Composite]),
    ];
    for (condition, hits, misses) in all {
        hits.into_iter().for_each(|value| assert!(holds(condition, value.clone()), "{condition} {value:?}"));
        misses.into_iter().for_each(|value| assert!(!holds(condition, value.clone()), "{condition} {value:?}"));
    }
}

#[test]
fn alternatives_and_exclusions_are_conditions_of_their_own() {
    let rules =
        "- { metric: m_total, type: counter, match: { level: error, any: [{ a: 1 }, { b: 2 }], none: [{ c: 3 }, { d: { prefix: x } }] } }";
    let (mut set, mut families) = of(rules, Moment::default());
    let mut hits = |fields: &[(&str, Value<'_>)]| run(&mut set, &mut families, &[&[("level", text("error"))], fields].concat());
    assert_eq!(hits(&[("a", Value::Digits("1"))]), 1);
    assert_eq!(hits(&[("b", Value::Digits("2")), ("c", Value::Digits("4"))]), 1);
    assert_eq!(hits(&[("c", Value::Digits("4"))]), 0);
    assert_eq!(hits(&[("a", Value::Digits("1")), ("c", Value::Digits("3"))]), 0);
    assert_eq!(hits(&[("a", Value::Digits("1")), ("d", text("xyz"))]), 0);
}

#[test]
fn a_value_that_cannot_be_counted_leaves_everything_as_it_is() {
    let rules = "- { metric: m_bytes_total, type: counter, value: { field: [size, length], unit: kib } }
- { metric: g, type: gauge, value: { field: size } }
- { metric: age_seconds, type: histogram, value: { field: until, since: from, unit: s }, buckets: [10] }";
    let (mut set, mut families) = of(rules, Moment::default());
    for (value, hits) in [
        (Value::Digits("2"), 2),
        (text("1.5 MB"), 2),
        (Value::Digits("-1"), 1),
        (text("soon"), 0),
        (Value::Null, 0),
        (Value::Bool(true), 0),
        (Value::Digits("1e400"), 0),
    ] {
        assert_eq!(run(&mut set, &mut families, &[("size", value.clone())]), hits, "{value:?}");
    }
    run(&mut set, &mut families, &[("length", Value::Digits("1"))]);
    assert_eq!(families.value("m_bytes_total", &[]), Some(2048.0 + 1_500_000.0 + 1024.0));
    assert_eq!(families.value("g", &[]), Some(-1.0), "a gauge may be negative");
    assert_eq!(run(&mut set, &mut families, &[("from", Value::Time(5000)), ("until", Value::Time(4000))]), 0);
    assert_eq!(run(&mut set, &mut families, &[("from", Value::Time(5000)), ("until", Value::Time(9000))]), 1);
    assert_eq!(families.value("age_seconds", &[]), Some(1.0));
    assert_eq!(families.value("bellwether_log_rule_hits_total", &["m_bytes_total"]), Some(3.0));
}

#[test]
fn each_kind_of_label_has_its_value() {
    let rules = "- metric: m_total
  type: counter
  labels:
    constant: always
    allowed: { field: [a, b], allow: [x, y] }
    mapped: { field: a, map: { x: ex, \"200\": ok }, else: none }
    class: { field: error, classify: { slow: [timeout, late], big: [large] }, else: other }
    path: { field: path, path_template: true, else: none }";
    let (mut set, mut families) = of(rules, Moment::default());
    for (fields, labels) in [
        (
            vec![("a", text("x")), ("error", text("i/o timeout, too large")), ("path", text("/runs/42"))],
            ["x", "slow", "always", "ex", "/runs/{id}"],
        ),
        (vec![("b", text("y")), ("error", text("too large"))], ["y", "big", "always", "none", "none"]),
        (vec![("a", Value::Integer(200)), ("b", text("y"))], ["other", "other", "always", "ok", "none"]),
        (vec![("a", Value::Null), ("b", Value::Bool(true)), ("path", Value::Composite)], ["other", "other", "always", "none", "none"]),
    ] {
        run(&mut set, &mut families, &fields);
        assert_eq!(families.value("m_total", &labels), Some(1.0), "{labels:?}");
    }
    let long = format!("/{}", "aaaa/".repeat(100));
    run(&mut set, &mut families, &[("path", text(&long))]);
    assert_eq!(families.value("m_total", &["other", "other", "always", "none", "none"]), Some(2.0), "{long}");
}

const NOON: i64 = 1_775_300_000_000;

fn noon(after: i64) -> Moment {
    Moment { wall: NOON + after, uptime: after }
}

fn exposed(families: &Families) -> String {
    let mut written = OpenMetrics::default();
    families.write(&mut written);
    written.finish()
}

#[test]
fn a_series_counts_since_its_first_line_and_a_restart_does_not_change_that() {
    let rules = "- { metric: app_requests_total, type: counter, labels: { path: { field: path, path_template: true } } }
- { metric: app_errors_total, type: counter }";
    let (mut set, mut families) = of(rules, noon(0));
    families.set_now(noon(60_000));
    run(&mut set, &mut families, &[("path", text("/a")), ("time", Value::Time(NOON + 5500))]);
    run(&mut set, &mut families, &[("path", text("/b"))]);
    let expected = [
        "app_requests_created{path=\"/a\"} 1775300005.500\n",
        "app_requests_created{path=\"/b\"} 1775300060.000\n",
        "app_errors_created 1775300000.000\n",
    ];
    let text = exposed(&families);
    expected.iter().for_each(|line| assert!(text.contains(line), "{line} {text}"));
    let (mut set, mut later) = of(rules, noon(999_000));
    assert!(later.restore(families.state()).is_empty());
    run(&mut set, &mut later, &[("path", self::text("/a"))]);
    let text = exposed(&later);
    expected.iter().for_each(|line| assert!(text.contains(line), "{line} {text}"));
    assert!(text.contains("app_requests_total{path=\"/a\"} 2.0\n"), "{text}");
}

#[test]
fn an_exemplar_is_an_id_and_no_text_and_is_replaced_once_a_second() {
    let rules = "- { metric: m_total, type: counter, exemplar: { trace_id: [trace_id, traceId], run_id: run_id } }";
    let (mut set, mut families) = of(rules, noon(0));
    let mut count = |after: i64, fields: &[(&str, Value<'_>)]| {
        families.set_now(noon(after));
        run(&mut set, &mut families, fields);
        exposed(&families).lines().find(|line| line.starts_with("m_total")).unwrap().to_owned()
    };
    assert_eq!(count(0, &[("run_id", text("a text of a customer"))]), "m_total 1.0");
    assert_eq!(
        count(0, &[("traceId", text("4bf9")), ("run_id", text("r1"))]),
        "m_total 2.0 # {trace_id=\"4bf9\",run_id=\"r1\"} 1.0 1775300000.000"
    );
    assert_eq!(count(999, &[("run_id", text("r2"))]), "m_total 3.0 # {trace_id=\"4bf9\",run_id=\"r1\"} 1.0 1775300000.000");
    assert_eq!(count(1000, &[("run_id", text("r3"))]), "m_total 4.0 # {run_id=\"r3\"} 1.0 1775300001.000");
    assert_eq!(count(5000, &[("run_id", text(&"x".repeat(65)))]), "m_total 5.0 # {run_id=\"r3\"} 1.0 1775300001.000");
}

#[test]
fn rules_that_come_and_go_leave_the_others_as_they_are() {
    let first = "- { metric: a_total, type: counter, match: { f: a } }\n- { metric: b_total, type: counter, match: { f: b } }";
    let second = "- { metric: b_total, type: counter, match: { f: b } }\n- { metric: c_total, type: counter, match: { f: c } }";
    let (mut set, mut families) = of(first, noon(0));
    for value in ["a", "b", "b"] {
        run(&mut set, &mut families, &[("f", text(value))]);
    }
    let (_, mut after) = of(second, noon(1000));
    assert!(after.restore(families.state()).is_empty());
    assert_eq!((after.value("a_total", &[]), after.value("b_total", &[]), after.value("c_total", &[])), (None, Some(2.0), Some(0.0)));
    assert!(exposed(&after).contains("b_created 1775300000.000\n"));
}

#[test]
fn a_million_values_of_a_label_are_bounded_and_their_sum_is_right() {
    let rules = "- { metric: m_total, type: counter, limit: 100, labels: { path: { field: path, path_template: true } } }";
    let (mut set, mut families) = of(rules, noon(0));
    for number in 0..1_000_000 {
        let path = format!("/user-{number}x");
        run(&mut set, &mut families, &[("path", text(&path))]);
    }
    let exposed = exposed(&families);
    let samples: Vec<&str> = exposed.lines().filter(|line| line.starts_with("m_total{")).collect();
    let sum: f64 = samples.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
    assert_eq!((samples.len(), sum), (101, 1_000_000.0));
    assert_eq!(families.value("m_total", &["overflow"]), Some(999_900.0));
}

/// Rules that are chosen in every way: by a value, by a field that is there, by one of several values, not at all.
const CHOSEN: &str = r#"
- { metric: a_total, type: counter, match: { message: [x, y] } }
- { metric: b_total, type: counter, match: { message: x, level: error } }
- { metric: c_total, type: counter, match: { any: [{ message: y }, { message: z, level: error }] } }
- { metric: d_total, type: counter, match: { any: [{ message: z }, { error: { contains: boom } }] } }
- { metric: e_total, type: counter, match: { error: { exists: true }, message: { not: x } } }
- { metric: f_total, type: counter, match: { error: { exists: false } } }
- { metric: g_total, type: counter, labels: { who: { field: caller, classify: { api: [log.go], agent: [compat.go, log] }, else: other } } }
- { metric: h_total, type: counter, match: { none: [{ message: x }] } }
- { metric: i_total, type: counter, match: { any: [{ message: x }, { level: { exists: false } }], error: { prefix: b } } }
"#;

proptest! {
    #[test]
    fn rules_that_are_not_looked_at_would_not_have_applied(seed in proptest::prelude::any::<u64>()) {
        let (mut set, mut families) = of(CHOSEN, Moment::default());
        let names = set.fields().to_vec();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut classes = std::collections::BTreeMap::new();
        for _ in 0..200 {
            let fields = [
                ("message", ["x", "y", "z", "other", ""][random.usize(0..5)]),
                ("level", ["error", "info", ""][random.usize(0..3)]),
                ("error", ["boom", "bad", "good", ""][random.usize(0..4)]),
                ("caller", ["log.go:1", "log.go:2", "compat.go:3", "log", "main.go", ""][random.usize(0..6)]),
            ];
            let fields = fields.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name, text(value))).collect();
            let record = Fields(&names, fields);
            let explained = set.explain(&record);
            let applies: Vec<&Explained> = explained.iter().filter(|rule| matches!(rule.verdict, Verdict::Applies { .. })).collect();
            prop_assert_eq!(set.apply(&record, &mut families), applies.len());
            for rule in applies {
                if let Verdict::Applies { labels, .. } = &rule.verdict
                    && let [(_, who)] = labels.as_slice()
                {
                    *classes.entry(who.clone()).or_insert(0.0) += 1.0;
                }
            }
        }
        for (who, expected) in classes {
            prop_assert_eq!(families.value("g_total", &[&who]), Some(expected), "{}", who);
        }
    }

    #[test]
    fn a_number_compares_the_same_in_whatever_unit_it_is_written(millis in 0_u32..10_000_000, bound in 1_u32..10_000_000) {
        let written = [
            (Value::Integer(i64::from(millis)), "ms"),
            (Value::Float(f64::from(millis) / 1000.0), "s"),
            (Value::Integer(i64::from(millis) * 1_000_000), "ns"),
        ];
        for (value, unit) in written {
            let condition = format!("{{ gt: {bound}ms, unit: {unit} }}");
            prop_assert_eq!(holds(&condition, value.clone()), millis > bound, "{} {:?}", condition, value);
        }
        // Go writes the same duration with its units.
        let text = format!("{}m{}.{:03}s", millis / 60_000, millis / 1000 % 60, millis % 1000);
        let seconds = Value::Text(text.clone().into()).quantity(Unit::S).unwrap();
        prop_assert!((seconds - f64::from(millis) / 1000.0).abs() < 1e-9, "{} {}", text, seconds);
    }

    #[test]
    fn one_of_five_comparisons_agrees_with_arithmetic(left in -1e9_f64..1e9, right in -1e9_f64..1e9) {
        for (comparison, expected) in [
            (Comparison::Greater, left > right),
            (Comparison::GreaterOrEqual, left >= right),
            (Comparison::Less, left < right),
            (Comparison::LessOrEqual, left <= right),
            (Comparison::Equal, left == right),
        ] {
            prop_assert_eq!(comparison.holds(left, right), expected);
        }
    }
}
