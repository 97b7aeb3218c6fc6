//! Expressions against series that are written down, as Prometheus would answer them.

use super::*;
use crate::promql::parse;

type Past<'a> = &'a [(&'a str, &'a [(&'a str, &'a str)], &'a str)];

/// A minute each, beginning at 0: `a{x="1"} 0 1 2` and so on; `_` is nothing.
fn past(query: &Expression, series: Past<'_>) -> Samples {
    let mut samples = Samples::of([query].into_iter());
    for (name, labels, values) in series {
        let labels: Labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        for (minute, value) in (0_i64..).zip(values.split(' ')).filter(|(_, value)| *value != "_") {
            samples.push(name, labels.clone(), minute * 60_000, value.parse().ok());
        }
    }
    samples
}

#[track_caller]
fn check(query: &str, series: Past<'_>, minute: i64, expected: &str) {
    let parsed = parse(query).unwrap();
    let samples = past(&parsed, series);
    let found = match evaluate(&parsed, &samples, Moment { at: minute * 60_000, seconds: 1000.0 }) {
        Ok(Value::Scalar(value)) => value.to_string(),
        Ok(Value::Vector(samples)) => {
            let shown = |Sample { labels, value }: &Sample| {
                let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("{{{}}} {value}", labels.join(","))
            };
            samples.iter().map(shown).collect::<Vec<_>>().join("; ")
        }
        Err(error) => error.to_string(),
    };
    assert_eq!(found, expected, "{query}");
}

const AB: Past<'static> =
    &[("a", &[("x", "1"), ("y", "p")], "1 2 3"), ("a", &[("x", "2"), ("y", "p")], "10 20 30"), ("b", &[("x", "1"), ("z", "q")], "5 5 5")];

#[test]
fn the_last_value_counts_for_five_minutes() {
    check("a{x=\"1\"}", AB, 2, "{__name__=a,x=1,y=p} 3");
    check("a{x=\"1\"}", AB, 6, "{__name__=a,x=1,y=p} 3");
    check("a{x=\"1\"}", AB, 7, "");
    check("a{x=\"1\"} offset 1m", AB, 2, "{__name__=a,x=1,y=p} 2");
    check("a{y=\"\"}", AB, 2, "");
    check("b{y=\"\"}", AB, 2, "{__name__=b,x=1,z=q} 5");
    check("a{x!~\"1|3\"}", AB, 2, "{__name__=a,x=2,y=p} 30");
}

#[test]
fn comparisons_leave_what_holds_and_arithmetic_drops_the_name() {
    check("a > 5", AB, 2, "{__name__=a,x=2,y=p} 30");
    check("5 < a", AB, 2, "{__name__=a,x=2,y=p} 30");
    check("1 - a", AB, 2, "{x=1,y=p} -2; {x=2,y=p} -29");
    check("-a", AB, 0, "{x=1,y=p} -1; {x=2,y=p} -10");
    check("a * on (x) b", AB, 2, "{x=1} 15");
    check("a * b", AB, 2, "");
    check("a * ignoring (y, z) b", AB, 2, "{x=1} 15");
    check("b / on () a", AB, 2, "several series of one side have the same labels for the other");
    check("a / on () b", AB, 2, "several series of one side have the same labels for the other");
    check("time() - 1", AB, 2, "999");
    check("1 > 2", AB, 2, "a number stands where series are asked for, or the other way round");
}

#[test]
fn sets_keep_whole_elements() {
    check("a and on (x) b", AB, 2, "{__name__=a,x=1,y=p} 3");
    check("a unless on (x) b", AB, 2, "{__name__=a,x=2,y=p} 30");
    check("b or on (x) a", AB, 2, "{__name__=b,x=1,z=q} 5; {__name__=a,x=2,y=p} 30");
}

#[test]
fn aggregations_group() {
    check("sum without (x) (a)", AB, 2, "{y=p} 33");
    check("max by (x) (a)", AB, 2, "{x=1} 3; {x=2} 30");
    check("count(a)", AB, 2, "{} 2");
    check("min(a)", AB, 2, "{} 3");
}

#[test]
fn windows_are_closed_at_both_ends() {
    check("avg_over_time(a{x=\"1\"}[1m])", AB, 2, "{x=1,y=p} 2.5");
    check("last_over_time(a{x=\"1\"}[1m])", AB, 3, "{__name__=a,x=1,y=p} 3");
    check("last_over_time(a{x=\"1\"}[1m])", AB, 4, "");
    check("min_over_time(a{x=\"2\"}[10m])", AB, 2, "{x=2,y=p} 10");
    check("max_over_time(a{x=\"2\"}[10m])", AB, 2, "{x=2,y=p} 30");
    check("changes(a{x=\"1\"}[10m])", AB, 2, "{x=1,y=p} 2");
    check("present_over_time(a[1m] offset 1m)", AB, 2, "{x=1,y=p} 1; {x=2,y=p} 1");
    check("absent(c{x=\"1\", y=~\".+\"})", AB, 2, "{x=1} 1");
    check("absent(a)", AB, 2, "");
    check("scalar(b)", AB, 2, "5");
    check("scalar(a)", AB, 2, "NaN");
    check("vector(2)", AB, 2, "{} 2");
}

#[test]
fn an_increase_reaches_to_the_ends_of_its_window_and_over_restarts() {
    let counter = |values| [("a", [].as_slice(), values)];
    check("increase(a[4m])", &counter("0 1 2 3 4"), 4, "{} 4");
    // It begins within the window: half a step more, and never below zero.
    check("increase(a[4m])", &counter("_ _ 10 11 12"), 4, "{} 2.5");
    check("increase(a[4m])", &counter("_ _ 0 1 2"), 4, "{} 2");
    check("increase(a[4m])", &counter("5 6 1 2 3"), 4, "{} 4");
    check("increase(a[4m])", &counter("_ _ _ _ 3"), 4, "");
    check("round(increase(a[4m]))", &counter("_ _ 10 11 12"), 4, "{} 3");
}
