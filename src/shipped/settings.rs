//! `KEY=VALUE`: a number of a rule, changed without a fork of the file.
//!
//! A key is the name of the rule, values of its labels where several rules have that name, and what is changed:
//! `DecisionBoxRunTooLong.warning.threshold`. Knows nothing of what a threshold means.

use std::fmt::Write as _;
use std::str::FromStr;

use crate::shipped::rules::{Rule, RuleFile};
use crate::units::{parse_duration, parse_size};

const SEVERITIES: [&str; 4] = ["critical", "warning", "info", "none"];

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    rule: String,
    /// Values that labels of the rule must have.
    chosen: Vec<String>,
    change: Change,
}

#[derive(Clone, Debug, PartialEq)]
enum Change {
    /// In base units.
    Threshold(String),
    For(String),
    Severity(String),
}

/// Why a setting cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SettingError {
    /// No `=`, or no property at the end of the key.
    #[error("`{0}` is not a setting: write for example DecisionBoxRunTooLong.warning.threshold=45m, or end the key with .for or .severity")]
    Form(String),
    /// A value that is not what the property takes.
    #[error("`{value}` cannot be a {property}: write {expected}")]
    Value {
        /// What was given.
        value: String,
        /// What it was given for.
        property: &'static str,
        /// What would be right.
        expected: &'static str,
    },
    /// No rule of this name.
    #[error("no rule has the key `{key}`; `bellwether export alerts --settings` lists all{like}")]
    Unknown {
        /// The key without its property.
        key: String,
        /// Keys of the same name, if there are any.
        like: String,
    },
    /// More than one rule of this name.
    #[error("`{key}` means {count} rules: choose one of {choices}")]
    Ambiguous {
        /// The key without its property.
        key: String,
        /// How many rules have it.
        count: usize,
        /// Keys that mean one rule.
        choices: String,
    },
    /// The rule has no number at its end, or nothing to hold.
    #[error("`{key}` has no {property}")]
    Nothing {
        /// The key without its property.
        key: String,
        /// What it does not have.
        property: &'static str,
    },
}

/// All keys with their values, as they stand in `rules`.
#[must_use]
pub fn listed(rules: &RuleFile) -> String {
    let mut text = String::new();
    for rule in rules.rules() {
        let key = key_of(rule, rules);
        let mut line = |property: &str, value: &str| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{key}.{property}={value}");
        };
        if let Some(place) = rule.threshold_place() {
            line("threshold", &rule.expr[place]);
        }
        if rule.alert.is_some() {
            line("for", rule.hold.as_deref().unwrap_or("0s"));
        }
        if let Some(severity) = rule.labels.get("severity") {
            line("severity", severity);
        }
    }
    text
}

/// The shortest key that means this rule alone.
fn key_of(rule: &Rule, rules: &RuleFile) -> String {
    let same: Vec<&Rule> = rules.rules().filter(|other| other.name() == rule.name()).collect();
    if same.len() < 2 {
        return rule.name().to_owned();
    }
    let severity = rule.labels.get("severity");
    let others = same.iter().filter(|other| other.labels.get("severity") == severity).count();
    let labels = rule.labels.iter().filter(|(label, _)| others > 1 || *label == "severity");
    labels.fold(rule.name().to_owned(), |key, (_, value)| format!("{key}.{value}"))
}

// === impl Setting ===

impl FromStr for Setting {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let form = || SettingError::Form(text.to_owned());
        let (key, value) = text.split_once('=').ok_or_else(form)?;
        let (key, property) = key.trim().rsplit_once('.').ok_or_else(form)?;
        let value = value.trim();
        let change = match property {
            "threshold" => Change::Threshold(number(value)?),
            "for" => Change::For(hold(value)?),
            "severity" if SEVERITIES.contains(&value) => Change::Severity(value.to_owned()),
            "severity" => {
                let expected = "critical, warning, info or none";
                return Err(SettingError::Value { value: value.to_owned(), property: "severity", expected });
            }
            _ => return Err(form()),
        };
        let mut parts = key.split('.').map(str::to_owned);
        let rule = parts.next().filter(|name| !name.is_empty()).ok_or_else(form)?;
        Ok(Self { rule, chosen: parts.collect(), change })
    }
}

impl Setting {
    /// Changes the one rule that it means.
    ///
    /// # Errors
    /// When it means none or several, or the rule does not have what is to be changed.
    pub fn apply(&self, rules: &mut RuleFile) -> Result<(), SettingError> {
        let key = || self.chosen.iter().fold(self.rule.clone(), |key, part| format!("{key}.{part}"));
        let keys = |matching: &dyn Fn(&Rule) -> bool| -> Vec<String> {
            rules.rules().filter(|rule| matching(rule)).map(|rule| key_of(rule, rules)).collect()
        };
        let found = keys(&|rule| self.means(rule));
        if found.is_empty() {
            let same = keys(&|rule| rule.name() == self.rule);
            let like = if same.is_empty() { String::new() } else { format!("; there are {}", same.join(", ")) };
            return Err(SettingError::Unknown { key: key(), like });
        }
        if found.len() > 1 {
            return Err(SettingError::Ambiguous { key: key(), count: found.len(), choices: found.join(", ") });
        }
        let Some(rule) = rules.rules_mut().find(|rule| self.means(rule)) else { return Ok(()) };
        let nothing = |property| SettingError::Nothing { key: key(), property };
        match &self.change {
            Change::Threshold(number) => {
                let place = rule.threshold_place().ok_or_else(|| nothing("threshold"))?;
                rule.expr.replace_range(place, number);
            }
            Change::For(_) | Change::Severity(_) if rule.alert.is_none() => return Err(nothing("alert")),
            Change::For(hold) => rule.hold = Some(hold.clone()),
            Change::Severity(severity) => drop(rule.labels.insert("severity".to_owned(), severity.clone())),
        }
        Ok(())
    }

    fn means(&self, rule: &Rule) -> bool {
        rule.name() == self.rule && self.chosen.iter().all(|value| rule.labels.values().any(|label| label == value))
    }
}

/// A number in base units: as it is, or written as a share, a duration or a size.
fn number(value: &str) -> Result<String, SettingError> {
    let finite = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    if finite(value).is_some() {
        return Ok(value.to_owned());
    }
    if let Some(percent) = value.strip_suffix('%').and_then(|share| finite(share.trim_end())) {
        return Ok((percent / 100.0).to_string());
    }
    let size = || parse_size(value).ok().map(|bytes| bytes.to_string());
    parse_duration(value).ok().map(|duration| duration.as_secs_f64().to_string()).or_else(size).ok_or_else(|| SettingError::Value {
        value: value.to_owned(),
        property: "threshold",
        expected: "a number in base units, or for example 45m, 10% or 64MiB",
    })
}

/// A duration as Prometheus writes one.
fn hold(value: &str) -> Result<String, SettingError> {
    let expected = "for example 30s, 5m or 1h";
    let refuse = |_| SettingError::Value { value: value.to_owned(), property: "for", expected };
    let millis = parse_duration(value).map_err(refuse)?.as_millis();
    Ok(match millis {
        _ if millis % 60_000 == 0 && millis > 0 => format!("{}m", millis / 60_000),
        _ if millis % 1000 == 0 => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
    })
}

#[cfg(test)]
mod tests {
    use super::{Setting, SettingError, listed};
    use crate::shipped::rules::RuleFile;

    fn rules() -> RuleFile {
        serde_saphyr::from_str(
            "groups:\n- name: g\n  rules:\n  - record: a:objective\n    expr: vector(0.99)\n  - alert: Long\n    expr: age > 1800\n    labels: { severity: warning }\n  \
             - alert: Long\n    expr: age > 7200\n    for: 5m\n    labels: { severity: critical }\n  - alert: Burn\n    expr: b > 6\n    labels: { severity: critical, window: 6h }\n  \
             - alert: Burn\n    expr: b > 14\n    labels: { severity: critical, window: 1h }\n  - alert: Plain\n    expr: up == up\n    labels: { severity: info }\n",
        )
        .unwrap()
    }

    fn applied(text: &str) -> Result<RuleFile, SettingError> {
        let mut rules = rules();
        text.parse::<Setting>()?.apply(&mut rules)?;
        Ok(rules)
    }

    #[test]
    fn a_setting_changes_one_thing_of_one_rule() {
        for (text, line) in [
            ("Long.warning.threshold=45m", "Long.warning.threshold=2700"),
            ("Long.critical.threshold=1.5", "Long.critical.threshold=1.5"),
            ("Long.critical.for=90s", "Long.critical.for=90s"),
            ("Long.warning.for=1h", "Long.warning.for=60m"),
            ("Burn.1h.threshold=10%", "Burn.critical.1h.threshold=0.1"),
            ("Burn.6h.severity=info", "Burn.info.threshold=6"),
            ("Plain.severity=none", "Plain.severity=none"),
            ("a:objective.threshold=99.5%", "a:objective.threshold=0.995"),
            ("Long.warning.threshold=1MiB", "Long.warning.threshold=1048576"),
        ] {
            let (before, after) = (listed(&rules()), listed(&applied(text).unwrap()));
            assert!(after.lines().any(|found| found == line), "{text}: {after}");
            assert_ne!(before, after);
        }
    }

    #[test]
    fn a_setting_that_does_not_fit_is_refused_with_what_would() {
        for (text, expected) in [
            ("Long", "is not a setting"),
            ("Long=5", "is not a setting"),
            (".threshold=5", "is not a setting"),
            ("Long.limit=5", "is not a setting"),
            ("Long.threshold=5", "means 2 rules: choose one of Long.warning, Long.critical"),
            ("Long.info.threshold=5", "there are Long.warning, Long.critical"),
            ("Short.threshold=5", "no rule has the key `Short`"),
            ("Long.warning.threshold=soon", "cannot be a threshold"),
            ("Long.warning.threshold=inf", "cannot be a threshold"),
            ("Long.warning.for=5", "cannot be a for"),
            ("Long.warning.severity=page", "critical, warning, info or none"),
            ("Plain.threshold=5", "has no threshold"),
            ("a:objective.for=5m", "has no alert"),
        ] {
            let error = applied(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
