//! The tests of the rules themselves (`alerts/tests`, which promtool runs), run by our evaluator: both must find the same.

use std::path::Path;

use serde::Deserialize;

use super::*;
use crate::promql::{Expression, Test, hold, parse};
use crate::shipped::Kit;

#[derive(Deserialize)]
struct TestFile {
    evaluation_interval: String,
    tests: Vec<RuleTest>,
}

#[derive(Deserialize)]
struct RuleTest {
    name: String,
    interval: String,
    input_series: Vec<InputSeries>,
    #[serde(default)]
    alert_rule_test: Vec<Expectation>,
}

#[derive(Deserialize)]
struct InputSeries {
    series: String,
    values: String,
}

#[derive(Deserialize)]
struct Expectation {
    eval_time: String,
    alertname: String,
    #[serde(default)]
    exp_alerts: Vec<ExpectedAlert>,
}

#[derive(Deserialize)]
struct ExpectedAlert {
    #[serde(default)]
    exp_labels: BTreeMap<String, String>,
    #[serde(default)]
    exp_annotations: BTreeMap<String, String>,
}

fn millis(text: &str) -> i64 {
    hold(text).map_or(0, |time| time.as_millis() as i64)
}

/// `1+2x3 _x2 stale`: the notation of promtool. `Some(None)` ends the series, `None` is no sample.
fn expand(values: &str) -> Vec<Option<Option<f64>>> {
    let mut all = Vec::new();
    for item in values.split_whitespace() {
        if item == "stale" {
            all.push(Some(None));
        } else if let Some(times) = item.strip_prefix("_x") {
            all.extend(vec![None; times.parse().unwrap()]);
        } else if item == "_" {
            all.push(None);
        } else if let Some((series, times)) = item.split_once('x') {
            let at = series[1..].find(['+', '-']).map(|at| at + 1);
            let (first, step) = at.map_or((series, "0"), |at| series.split_at(at));
            let (first, step): (f64, f64) = (first.parse().unwrap(), step.parse().unwrap());
            all.extend((0..=times.parse::<u32>().unwrap()).map(|time| Some(Some(first + step * f64::from(time)))));
        } else {
            all.push(Some(Some(item.parse().unwrap())));
        }
    }
    all
}

fn labels_of(series: &str) -> (String, Labels) {
    let Expression::Instant(selector) = parse(series).unwrap() else { panic!("{series}") };
    let labels = selector.matchers.into_iter().map(|matcher| match matcher.test {
        Test::Equal(text) => (matcher.label, text),
        other => panic!("{other:?}"),
    });
    (selector.name.clone(), labels.collect())
}

fn run(test: &RuleTest, step: i64, rules: &RuleFile) -> usize {
    let mut evaluator = Evaluator::new(rules).unwrap();
    let interval = millis(&test.interval);
    let series: Vec<_> = test.input_series.iter().map(|series| (labels_of(&series.series), expand(&series.values))).collect();
    let end = test.alert_rule_test.iter().map(|expectation| millis(&expectation.eval_time)).max().unwrap_or(0);
    let mut checked = 0;
    let mut next = 0;
    for at in (0..=end).step_by(step as usize) {
        while next * interval <= at {
            for ((name, labels), values) in &series {
                if let Some(Some(value)) = values.get(next as usize) {
                    evaluator.samples_mut().push(name, labels.clone(), next * interval, *value);
                }
            }
            next += 1;
        }
        let wall = Timestamp::from_millisecond(at).unwrap();
        let failures = evaluator.evaluate(Moment { at, seconds: at as f64 / 1000.0 }, wall);
        assert_eq!(failures, 0, "{}", test.name);
        for expectation in test.alert_rule_test.iter().filter(|expectation| millis(&expectation.eval_time) == at) {
            let mut found: Vec<(Labels, BTreeMap<String, String>)> = evaluator
                .alerts()
                .into_iter()
                .filter(|alert| alert.is_firing() && alert.name() == expectation.alertname)
                .map(|alert| (alert.labels, alert.annotations))
                .collect();
            let mut expected: Vec<(Labels, BTreeMap<String, String>)> = expectation
                .exp_alerts
                .iter()
                .map(|alert| {
                    let mut labels = alert.exp_labels.clone();
                    labels.insert("alertname".to_owned(), expectation.alertname.clone());
                    (labels, alert.exp_annotations.clone())
                })
                .collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{} at {}", test.name, expectation.eval_time);
            checked += 1;
        }
    }
    checked
}

#[test]
fn we_find_what_prometheus_finds() {
    let rules = Kit::of("decisionbox").rules(&[]).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts/tests");
    let (mut files, mut checked) = (0, 0);
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let file: TestFile = serde_saphyr::from_str(&text).unwrap();
        files += 1;
        checked += file.tests.iter().map(|test| run(test, millis(&file.evaluation_interval), &rules)).sum::<usize>();
    }
    assert!(files >= 4 && checked >= 300, "{checked} expectations in {files} files");
}

const RULE: &str = "
groups:
  - name: g
    rules:
      - { alert: A, expr: 'increase(a[10m]) > 3', for: 2m, labels: { severity: critical }, annotations: { summary: 'It is {{ $value }}.' } }
";

/// Every minute, `values` of `a`, with a restart of so many minutes before each value in `restarts`.
fn lives(values: &[f64], restarts: &[(usize, i64)]) -> Vec<(i64, String)> {
    let rules: RuleFile = serde_saphyr::from_str(RULE).unwrap();
    let mut evaluator = Evaluator::new(&rules).unwrap();
    let mut told = Vec::new();
    let mut at = 0;
    for (position, value) in values.iter().enumerate() {
        at += 60_000;
        if let Some((_, minutes)) = restarts.iter().find(|(before, _)| *before == position) {
            let state = postcard::to_stdvec(&evaluator.save(at - 60_000)).unwrap();
            evaluator = Evaluator::new(&rules).unwrap();
            // The clock of another process begins anywhere.
            at += 7_000_000 + minutes * 60_000;
            let away = Duration::from_secs(60 * (*minutes as u64 + 1));
            evaluator.restore(postcard::from_bytes(&state).unwrap(), at, away);
        }
        evaluator.samples_mut().note("a", at, vec![(Labels::new(), *value)]);
        let wall = Timestamp::from_millisecond(at).unwrap();
        assert_eq!(evaluator.evaluate(Moment { at, seconds: at as f64 / 1000.0 }, wall), 0);
        let alerts = evaluator
            .alerts()
            .into_iter()
            .map(|alert| format!("{}{}", alert.annotations["summary"], if alert.is_firing() { "" } else { " over" }));
        told.push((i64::try_from(position).unwrap(), alerts.collect::<Vec<_>>().join(";")));
    }
    told.dedup_by(|next, before| next.1 == before.1);
    told
}

#[test]
fn a_restart_neither_ends_an_incident_nor_begins_another() {
    let values: Vec<f64> = (0..40).map(|minute: i32| f64::from(minute.clamp(10, 15))).collect();
    let whole = lives(&values, &[]);
    assert!(whole.iter().any(|(_, alerts)| alerts.ends_with("over")) && whole.len() > 3, "{whole:?}");
    let phases = |told: &[(i64, String)]| {
        let phase = |text: &str| u8::from(!text.is_empty()) + u8::from(text.ends_with("over"));
        let mut phases: Vec<(i64, u8)> = told.iter().map(|(at, text)| (*at, phase(text))).collect();
        phases.dedup_by_key(|(_, phase)| *phase);
        phases
    };
    let expected = phases(&whole);
    for position in 1..40 {
        let mut found = phases(&lives(&values, &[(position, 0)]));
        // What is pending while nobody looks is so for longer.
        if (15..=16).contains(&position) {
            assert_eq!(found[1].0, expected[1].0 + 1, "a restart before {position}");
            found[1].0 -= 1;
        }
        assert_eq!(found, expected, "a restart before {position}");
    }
}

#[test]
fn what_ended_is_told_for_a_quarter_of_an_hour_and_may_come_again() {
    let mut values = vec![0.0, 0.0, 10.0];
    values.extend([10.0; 40]);
    values.extend([20.0; 5]);
    let told = lives(&values, &[]);
    let phases: Vec<(i64, bool, bool)> = told.iter().map(|(at, text)| (*at, !text.is_empty(), text.ends_with("over"))).collect();
    let (fired, ended, gone) =
        (phases[1].0, phases.iter().find(|phase| phase.2).unwrap().0, phases.iter().find(|phase| phase.0 > 10 && !phase.1).unwrap().0);
    assert_eq!((fired, gone - ended), (4, 15), "{told:?}");
    assert!(phases.last().is_some_and(|(at, fires, over)| *at > gone && *fires && !over), "{told:?}");
}

#[test]
fn a_rule_that_we_cannot_evaluate_is_refused_by_name() {
    let rule = |text: &str| {
        let file: RuleFile = serde_saphyr::from_str(&format!("groups: [{{ name: g, rules: [{{ alert: A, {text} }}] }}]")).unwrap();
        Evaluator::new(&file).unwrap_err().to_string()
    };
    assert_eq!(rule("expr: 'histogram_quantile(1, a)'"), "the query of A: byte 18 of the query: this function is not supported");
    assert_eq!(rule("expr: a, for: soon"), "the time `soon` of A is no duration such as 10m");
    assert!(rule("expr: a, annotations: { x: '{{ nope }}' }").starts_with("an annotation of A: the template has {{ nope }}: only"));
}
