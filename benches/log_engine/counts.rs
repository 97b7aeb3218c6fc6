//! What a tool has counted, read from its exposition, against the truth.

use std::collections::BTreeMap;

use crate::corpus::{DISCOVERY_BOUNDS, Histogram, QUERY_BOUNDS, Truth};

/// Samples by name and labels, as `name{a="b",le="0.5"}` with sorted labels.
pub type Counts = BTreeMap<String, f64>;

/// Which rules have been run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rules {
    /// Lines by level and service, errors, the five messages and both histograms.
    All,
    /// The five messages and both histograms: rules that most lines cannot match.
    Rare,
}

/// The samples that must have been counted.
pub fn expected(truth: &Truth, rules: Rules) -> Counts {
    let mut counts = Counts::new();
    let mut count = |name: &str, labels: &[(&str, &str)], count: u64| counts.insert(key(name, labels), float(count));
    if rules == Rules::All {
        for ((level, service), lines) in &truth.lines {
            count("app_log_lines_total", &[("level", level), ("service", service)], *lines);
        }
        for (service, errors) in &truth.errors {
            count("app_errors_total", &[("service", service)], *errors);
        }
    }
    for ((event, service), events) in &truth.events {
        count("app_events_total", &[("event", event), ("service", service)], *events);
    }
    for (kind, histogram) in &truth.queries {
        add_histogram(&mut counts, "app_query_duration_seconds", &[("kind", kind)], &QUERY_BOUNDS, histogram);
    }
    add_histogram(&mut counts, "app_discovery_duration_seconds", &[], &DISCOVERY_BOUNDS, &truth.discoveries);
    counts
}

fn add_histogram(counts: &mut Counts, name: &str, labels: &[(&str, &str)], bounds: &[f64], histogram: &Histogram) {
    for (bucket, bound) in histogram.buckets.iter().zip(bounds.iter().copied().chain([f64::INFINITY])) {
        let bound = bound.to_string();
        let labels: Vec<(&str, &str)> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
        counts.insert(key(&format!("{name}_bucket"), &labels), float(*bucket));
    }
    counts.insert(key(&format!("{name}_count"), labels), float(histogram.buckets.last().copied().unwrap_or_default()));
    counts.insert(key(&format!("{name}_sum"), labels), histogram.sum);
}

/// Reads the samples of an exposition whose names begin with `app_`.
pub fn read(exposition: &str) -> Counts {
    exposition.lines().filter(|line| line.starts_with("app_")).filter_map(sample).collect()
}

/// Why counts are wrong: the first sample that is not as expected. Sums may differ in their last digits, because two
/// files can be added in either order; everything else may not.
pub fn difference(found: &Counts, expected: &Counts) -> Option<String> {
    let differs = |key: &str, found: f64, expected: f64| {
        if key.contains("_sum") { (found - expected).abs() > expected.abs() * 1e-9 } else { (found - expected).abs() > 0.0 }
    };
    let mut keys: Vec<&String> = found.keys().chain(expected.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter().find_map(|key| {
        let (found, expected) = (found.get(key).copied().unwrap_or_default(), expected.get(key).copied().unwrap_or_default());
        differs(key, found, expected).then(|| format!("{key} is {found} instead of {expected}"))
    })
}

/// `name{a="b",c="d"} 7`, perhaps with blanks and a time behind it. Label values of the corpus hold neither commas nor quotes.
fn sample(line: &str) -> Option<(String, f64)> {
    let (series, rest) = match line.split_once('}') {
        Some((series, rest)) => (series, rest),
        None => line.split_once(' ')?,
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels = labels.split(',').filter_map(|label| label.split_once('='));
    let labels: Vec<(&str, String)> = labels
        .map(|(name, value)| (name, value.trim_matches('"').to_owned()))
        // mtail names its program.
        .filter(|(name, _)| *name != "prog")
        .map(|(name, value)| (name, if name == "le" { bound(&value) } else { value }))
        .collect();
    let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Some((key(name, &labels), value))
}

fn bound(text: &str) -> String {
    text.parse::<f64>().map_or_else(|_| text.to_owned(), |bound| bound.to_string())
}

fn key(name: &str, labels: &[(&str, &str)]) -> String {
    let mut labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    labels.sort();
    format!("{name}{{{}}}", labels.join(","))
}

fn float(count: u64) -> f64 {
    count as f64
}
