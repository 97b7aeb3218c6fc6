//! The golden exposition: which series there are, with which labels.

use std::collections::BTreeMap;

use super::promql::examine;
use super::rules::rules;
use super::{GOLDEN, Labels, read};

/// One sample name: what a query can ask for.
#[derive(Default)]
pub struct Series {
    pub counter: bool,
    /// Its labels with the values that they have in the golden.
    pub labels: BTreeMap<String, Labels>,
    pub sampled: bool,
    /// Whether it has the labels that Prometheus gives to what it scrapes.
    pub target: bool,
}

pub struct Golden(pub BTreeMap<String, Series>);

/// What the profile has no sample of, because nothing in it is configured so, with its labels.
const NOT_SAMPLED: [(&str, &[&str]); 1] = [("bellwether_check_tls_cert_expiry_timestamp_seconds", &["check"])];

impl Golden {
    /// The exposition, and what the rules record from it.
    pub fn load() -> Self {
        let mut golden = Self::parse(&read(GOLDEN)).unwrap_or_else(|problem| panic!("{GOLDEN}: {problem}"));
        for (name, labels) in NOT_SAMPLED {
            let series = golden.0.get_mut(name).unwrap_or_else(|| panic!("{name} is not exposed"));
            assert!(!series.sampled, "{name} has samples by now: take it off the list");
            series.sampled = true;
            series.labels = labels.iter().map(|label| ((*label).to_owned(), Labels::new())).collect();
        }
        for rule in rules().iter().filter(|rule| rule.record.is_some()) {
            let (_, labels) = examine(&golden, &rule.expr, false);
            let target = labels.contains("job") && labels.contains("instance");
            let labels = labels.into_iter().filter(|label| label != "job" && label != "instance").map(|label| (label, Labels::new()));
            golden.0.insert(rule.name().to_owned(), Series { sampled: true, target, labels: labels.collect(), ..Series::default() });
        }
        golden
    }

    /// Prometheus text 0.0.4.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut series = BTreeMap::<String, Series>::new();
        // Prometheus makes this one for every target.
        series.insert("up".into(), Series { sampled: true, target: true, ..Series::default() });
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                let (name, kind) = declared.split_once(' ').ok_or_else(|| format!("no type in {line:?}"))?;
                let names = match kind {
                    "histogram" => ["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")).to_vec(),
                    _ => vec![name.to_owned()],
                };
                for name in names {
                    series.insert(name, Series { counter: matches!(kind, "counter" | "histogram"), target: true, ..Series::default() });
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
pub type Sample<'a> = (&'a str, Vec<(String, String)>);

/// Reads a line such as `name{label="value"} 1`.
pub fn parse_sample(line: &str) -> Result<Sample<'_>, String> {
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
