//! Proposes rules for a log that nobody has written rules for: what its lines have in common, as a configuration that can
//! be used, looked through and changed. Pure; the same lines give the same text.
//!
//! Proposed are: all lines by level; each message of a warning or an error; each message that tells a duration or a
//! status. What varies within a message (ids, numbers, paths) is left out by matching what stands before it.

mod survey;
mod yaml;

use std::collections::BTreeSet;

pub use survey::Survey;

use crate::logs::suggest::survey::{Field, Group, Key};
use crate::logs::suggest::yaml::{flow, quote};

/// More rules than this nobody looks through.
const MAX_RULES: usize = 40;
/// A label with more values than this is none.
const MAX_VALUES: usize = 12;
/// From milliseconds to an hour.
const BUCKETS: &str = "[0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600]";

/// What is proposed.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The names of the metrics.
    pub metrics: Vec<String>,
    /// The rules, as the items of a YAML list.
    pub rules: String,
    /// Lines of the log, at least one for each rule.
    pub lines: Vec<String>,
}

/// A field that tells how long something took.
struct Duration<'a> {
    field: &'a str,
    /// `None` where the text tells it.
    unit: Option<&'static str>,
}

// === impl Proposal ===

impl Proposal {
    /// Proposes rules for what was found. The names of metrics begin with `prefix`.
    #[must_use]
    pub fn new(survey: &Survey, prefix: &str) -> Self {
        let prefix = slug(prefix);
        let mut proposal = Self { metrics: Vec::new(), rules: String::new(), lines: Vec::new() };
        proposal.add_lines(survey, &prefix);
        let mut groups: Vec<(&Key, &Group)> = survey.groups.iter().filter(|(key, _)| key.can_be_matched()).collect();
        groups.sort_by_key(|(key, group)| (std::cmp::Reverse((group.severity, group.count)), *key));
        for (key, group) in groups {
            if proposal.metrics.len() >= MAX_RULES {
                break;
            }
            proposal.add_group(key, group, &prefix);
        }
        proposal
    }

    /// The configuration: inputs, rules, and tests with the values that the lines give. `files` are patterns.
    #[must_use]
    pub fn configuration(&self, files: &[(String, String)], expect: &[(String, f64)]) -> String {
        let mut text = "logs:\n".to_owned();
        if !files.is_empty() {
            text.push_str("  inputs:\n");
            files.iter().for_each(|(name, file)| text.push_str(&format!("    - {{ name: {}, files: [{}] }}\n", quote(name), quote(file))));
        }
        text.push_str(&format!("  rules:\n{}", self.rules));
        if !expect.is_empty() {
            text.push_str("  tests:\n    - name: \"lines of the log that the rules were made from\"\n      lines:\n");
            self.lines.iter().for_each(|line| text.push_str(&format!("        - {}\n", quote(line))));
            text.push_str("      expect:\n");
            expect.iter().for_each(|(series, value)| text.push_str(&format!("        {}: {value}\n", quote(series))));
        }
        text
    }

    fn add_lines(&mut self, survey: &Survey, prefix: &str) {
        let levels: Vec<&str> = survey.levels.keys().map(String::as_str).collect();
        let mut labels = Vec::new();
        if !levels.is_empty() && levels.len() <= MAX_VALUES {
            labels.push(format!("        level: {{ field: level, allow: {}, else: unknown }}\n", flow(&levels)));
        }
        if let Some(services) = survey.services.few(MAX_VALUES) {
            labels.push(format!("        service: {{ field: service, allow: {}, else: other }}\n", flow(&services)));
        }
        let labels = if labels.is_empty() { String::new() } else { format!("      labels:\n{}", labels.concat()) };
        self.push(format!("{prefix}_log_lines_total"), "counter", "Log lines that are records", "", &labels);
        self.lines.extend(survey.first_line.clone());
    }

    fn add_group(&mut self, key: &Key, group: &Group, prefix: &str) {
        let (durations, status) = (durations(group), status(group));
        if group.severity < survey::WARNING && durations.is_empty() && status.is_none() {
            return;
        }
        let base = self.unused(&format!("{prefix}_{}", slug(&key.text)));
        let matcher = match key.is_prefix {
            true => format!("      match: {{ message: {{ prefix: {} }} }}\n", quote(&key.text)),
            false => format!("      match: {{ message: {} }}\n", quote(&key.text)),
        };
        let help = key.text.trim().trim_end_matches(['.', ':']);
        if group.severity >= survey::WARNING || status.is_some() {
            let labels = status.as_ref().map_or_else(String::new, |(field, values)| {
                format!("      labels:\n        status: {{ field: {}, allow: {}, else: other }}\n", quote(field), flow(values))
            });
            self.push(format!("{base}_total"), "counter", &format!("Lines that say: {help}"), &matcher, &labels);
        }
        if let Some(Duration { field, unit }) = durations.first() {
            let unit = unit.map_or_else(String::new, |unit| format!(", unit: {unit}"));
            let rest = format!("      value: {{ field: {}{unit} }}\n      buckets: {BUCKETS}\n", quote(field));
            self.push(
                format!("{base}_duration_seconds"),
                "histogram",
                &format!("Duration told by lines that say: {help}"),
                &matcher,
                &rest,
            );
        }
        self.lines.extend(group.line.clone().filter(|line| !self.lines.contains(line)));
    }

    fn push(&mut self, metric: String, kind: &str, help: &str, matcher: &str, rest: &str) {
        self.rules.push_str(&format!("    - metric: {metric}\n      type: {kind}\n      help: {}\n{matcher}{rest}", quote(help)));
        self.metrics.push(metric);
    }

    /// A base of names that no metric begins with.
    fn unused(&self, wanted: &str) -> String {
        let is_used = |base: &str| {
            self.metrics.iter().any(|metric| metric.strip_prefix(base).is_some_and(|rest| matches!(rest, "_total" | "_duration_seconds")))
        };
        let numbered = (2..).map(|number| format!("{wanted}_{number}"));
        std::iter::once(wanted.to_owned()).chain(numbered).find(|base| !is_used(base)).unwrap_or_default()
    }
}

/// A text as a part of a metric's name.
fn slug(text: &str) -> String {
    let words: Vec<String> = text
        .split(|character: char| !character.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    let mut slug = String::new();
    for word in words {
        if !slug.is_empty() && slug.len() + word.len() > 48 {
            break;
        }
        slug = if slug.is_empty() { word } else { format!("{slug}_{word}") };
    }
    slug.truncate(64);
    match slug.bytes().next() {
        None => "app".to_owned(),
        Some(first) if first.is_ascii_digit() => format!("app_{slug}"),
        Some(_) => slug,
    }
}

/// The fields that tell how long something took, the one with the best name first.
fn durations(group: &Group) -> Vec<Duration<'_>> {
    let found = group.fields.iter().filter_map(|(field, told)| Some(Duration { field, unit: duration_unit(field, told)? }));
    let mut found: Vec<Duration<'_>> = found.collect();
    found.sort_by_key(|duration| (!duration.field.contains("dur"), duration.field));
    found
}

/// The unit of a field that is a duration by its name and its values; `Some(None)` where its texts tell it.
fn duration_unit(path: &str, told: &Field) -> Option<Option<&'static str>> {
    let name = path.rsplit('.').next().unwrap_or(path);
    let lower = name.to_ascii_lowercase();
    let by_end = [("_ms", "ms"), ("_millis", "ms"), ("_us", "us"), ("_ns", "ns"), ("_seconds", "s"), ("_secs", "s"), ("_sec", "s")];
    let unit = by_end.iter().find(|(end, _)| lower.ends_with(end)).map(|(_, unit)| *unit).or(name.ends_with("Ms").then_some("ms"));
    let is_named = ["duration", "latency", "elapsed", "took", "response_time", "responsetime"].contains(&lower.as_str());
    if told.others > 0 || (unit.is_none() && !is_named) {
        return None;
    }
    match (told.numbers > 0, told.durations > 0, unit) {
        (false, true, _) => Some(None),
        (true, _, Some(unit)) => Some(Some(unit)),
        // Without a word of it: whole numbers are milliseconds in most logs, fractions are seconds.
        (true, _, None) => Some(Some(if told.fractions > 0 { "s" } else { "ms" })),
        (false, false, _) => None,
    }
}

/// A field with an HTTP status, and its values.
fn status(group: &Group) -> Option<(&str, Vec<&str>)> {
    let names = ["status", "status_code", "statusCode"];
    group.fields.iter().find_map(|(field, told)| {
        let name = field.rsplit('.').next().unwrap_or(field);
        let values = told.values.few(MAX_VALUES).filter(|_| names.contains(&name))?;
        let is_status = |value: &&str| value.len() == 3 && value.parse::<u16>().is_ok_and(|code| (100..600).contains(&code));
        (!values.is_empty() && values.iter().all(is_status)).then_some((field.as_str(), values))
    })
}

/// Values of a field, as long as they are few.
#[derive(Clone, Debug, Default)]
struct Values {
    seen: BTreeSet<String>,
    many: bool,
}

// === impl Values ===

impl Values {
    fn add(&mut self, value: &str) {
        // A value that a configuration cannot hold, or that nobody would read, makes the field no label.
        let is_plain = value.len() <= 64 && !value.contains("${") && !value.chars().any(char::is_control);
        self.many |= !is_plain || (self.seen.len() > MAX_VALUES && !self.seen.contains(value));
        if !self.many {
            self.seen.insert(value.to_owned());
        }
    }

    /// All values, if there are some and no more than `most`.
    fn few(&self, most: usize) -> Option<Vec<&str>> {
        (!self.many && !self.seen.is_empty() && self.seen.len() <= most).then(|| self.seen.iter().map(String::as_str).collect())
    }
}
