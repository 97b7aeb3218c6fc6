//! Which alerts are not told because another one says it all: by the same rules as the sample for Alertmanager, so that
//! people hear the same with and without a Prometheus. Pure.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde::Deserialize;

use crate::notify::alert::Alert;
use crate::shipped;

/// Rules by which an alert keeps others quiet.
#[derive(Debug)]
pub struct Inhibition(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    source: Vec<Matcher>,
    target: Vec<Matcher>,
    equal: Vec<String>,
}

#[derive(Debug)]
struct Matcher {
    label: String,
    value: Regex,
    is_negative: bool,
}

/// Why the rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InhibitionError {
    /// It is no configuration of Alertmanager.
    #[error("the inhibition rules cannot be read: {0}")]
    Form(String),
    /// One of its matchers.
    #[error("`{0}` is no matcher such as `severity =~ \"warning|info\"`")]
    Matcher(String),
}

#[derive(Deserialize)]
struct RawFile {
    inhibit_rules: Vec<RawRule>,
}

#[derive(Deserialize)]
struct RawRule {
    source_matchers: Vec<String>,
    target_matchers: Vec<String>,
    #[serde(default)]
    equal: Vec<String>,
}

// === impl Inhibition ===

impl Inhibition {
    /// The rules of the sample that is shipped.
    ///
    /// # Errors
    /// When they cannot be read; a test holds that they can.
    pub fn shipped() -> Result<Self, InhibitionError> {
        Self::parse(shipped::ALERTMANAGER)
    }

    /// Reads the rules of a configuration of Alertmanager.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn parse(text: &str) -> Result<Self, InhibitionError> {
        let file: RawFile = serde_saphyr::from_str(text).map_err(|error| InhibitionError::Form(error.to_string()))?;
        let all = |texts: Vec<String>| texts.iter().map(|text| Matcher::parse(text)).collect::<Result<Vec<_>, _>>();
        let rules = file
            .inhibit_rules
            .into_iter()
            .map(|rule| Ok(Rule { source: all(rule.source_matchers)?, target: all(rule.target_matchers)?, equal: rule.equal }));
        rules.collect::<Result<_, _>>().map(Self)
    }

    /// The fingerprints of those that another one of them keeps quiet.
    #[must_use]
    pub fn silenced(&self, alerts: &[Alert]) -> BTreeSet<u64> {
        let mut silenced = BTreeSet::new();
        for rule in &self.0 {
            let sources: Vec<&Alert> =
                alerts.iter().filter(|alert| alert.is_firing() && Matcher::all(&rule.source, &alert.labels)).collect();
            if sources.is_empty() {
                continue;
            }
            for target in alerts.iter().filter(|alert| Matcher::all(&rule.target, &alert.labels)) {
                if sources.iter().any(|source| rule.silences(source, target)) {
                    silenced.insert(target.fingerprint());
                }
            }
        }
        silenced
    }
}

// === impl Rule ===

impl Rule {
    /// Whether a source silences a target that agrees with it.
    fn silences(&self, source: &Alert, target: &Alert) -> bool {
        // As in Alertmanager: what is both must not silence itself, or two of its kind each other.
        let is_both = Matcher::all(&self.target, &source.labels) && Matcher::all(&self.source, &target.labels);
        !is_both && self.equal.iter().all(|label| source.labels.get(label) == target.labels.get(label))
    }
}

// === impl Matcher ===

impl Matcher {
    fn parse(text: &str) -> Result<Self, InhibitionError> {
        let refuse = || InhibitionError::Matcher(text.to_owned());
        let begin = text.find(['=', '!']).ok_or_else(refuse)?;
        let (label, rest) = text.split_at(begin);
        let (is_negative, is_regex, value) = match rest.as_bytes() {
            [b'=', b'~', ..] => (false, true, &rest[2..]),
            [b'!', b'~', ..] => (true, true, &rest[2..]),
            [b'!', b'=', ..] => (true, false, &rest[2..]),
            [b'=', ..] => (false, false, &rest[1..]),
            _ => return Err(refuse()),
        };
        let value = value.trim().trim_matches('"');
        let pattern = if is_regex { value.to_owned() } else { regex::escape(value) };
        let value = Regex::new(&format!("^(?:{pattern})$")).map_err(|_| refuse())?;
        Ok(Self { label: label.trim().to_owned(), value, is_negative })
    }

    fn all(matchers: &[Self], labels: &BTreeMap<String, String>) -> bool {
        matchers.iter().all(|matcher| {
            let found = labels.get(&matcher.label).map_or("", String::as_str);
            matcher.value.is_match(found) != matcher.is_negative
        })
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn alert(labels: &[(&str, &str)]) -> Alert {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Alert { labels, annotations: BTreeMap::new(), starts_at: Timestamp::UNIX_EPOCH, ends_at: None }
    }

    #[test]
    fn a_cause_silences_its_symptoms_and_critical_its_warning() {
        let rules = Inhibition::shipped().unwrap();
        let down = alert(&[("alertname", "DecisionBoxMongoDBDown"), ("severity", "critical")]);
        let not_ready = alert(&[("alertname", "DecisionBoxNotReady"), ("severity", "critical")]);
        assert_eq!(rules.silenced(&[down.clone(), not_ready.clone()]), BTreeSet::from([not_ready.fingerprint()]));
        let ended = Alert { ends_at: Some(Timestamp::UNIX_EPOCH), ..down };
        assert!(rules.silenced(&[ended, not_ready]).is_empty());

        let pair = |severity, input| alert(&[("alertname", "A"), ("severity", severity), ("input", input)]);
        let all = [pair("critical", "x"), pair("warning", "x"), pair("warning", "y")];
        assert_eq!(rules.silenced(&all), BTreeSet::from([all[1].fingerprint()]));
    }

    #[test]
    fn matchers_are_those_of_alertmanager() {
        let labels = BTreeMap::from([("a".to_owned(), "b.c".to_owned())]);
        for (text, holds) in [
            ("a = b.c", true),
            ("a=\"bxc\"", false),
            ("a =~ \"b.*\"", true),
            ("a =~ \"b\"", false),
            ("a != x", true),
            ("a !~ \"b.*|x\"", false),
            ("missing = \"\"", true),
        ] {
            assert_eq!(Matcher::all(&[Matcher::parse(text).unwrap()], &labels), holds, "{text}");
        }
        assert!(Matcher::parse("severity").is_err() && Matcher::parse("a =~ \"(\"").is_err());
    }
}
