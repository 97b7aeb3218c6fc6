//! Rules of Prometheus as its files hold them, and where the threshold of one stands.
//!
//! Knows nothing of what an expression means beyond its last number.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A file of rules.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RuleFile {
    /// Its groups, each evaluated in order.
    pub groups: Vec<Group>,
}

/// Rules that are evaluated one after the other.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name, unique within a file.
    pub name: String,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// An alert, or a query whose result is recorded.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The name of the alert.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert: Option<String>,
    /// The name of the series that is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// The query.
    pub expr: String,
    /// How long the query must hold before the alert fires.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// What is added to the labels of the result.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What people read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

// === impl RuleFile ===

impl RuleFile {
    /// All rules.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.groups.iter().flat_map(|group| &group.rules)
    }

    /// All rules, to be changed.
    pub fn rules_mut(&mut self) -> impl Iterator<Item = &mut Rule> {
        self.groups.iter_mut().flat_map(|group| &mut group.rules)
    }

    /// Puts addresses before the relative links: `runbooks` before `docs/…`, `grafana` before `/d/…`.
    pub fn link(&mut self, runbooks: Option<&str>, grafana: Option<&str>) {
        for (annotation, base) in [("runbook_url", runbooks), ("dashboard_url", grafana)] {
            let Some(base) = base.map(|base| base.trim_end_matches('/')) else { continue };
            for link in self.rules_mut().filter_map(|rule| rule.annotations.get_mut(annotation)) {
                *link = format!("{base}/{}", link.trim_start_matches('/'));
            }
        }
    }
}

// === impl Rule ===

impl Rule {
    /// The name of the alert or of the recorded series.
    #[must_use]
    pub fn name(&self) -> &str {
        self.alert.as_deref().or(self.record.as_deref()).unwrap_or_default()
    }

    /// Where the last number of the query stands, when the query ends with one: `… > 0.1`, `vector(0.99)`.
    #[must_use]
    pub fn threshold_place(&self) -> Option<Range<usize>> {
        let end = self.expr.trim_end().trim_end_matches(')').len();
        let start = self.expr[..end].rfind(|c: char| c.is_whitespace() || c == '(').map_or(0, |at| at + 1);
        self.expr[start..end].parse::<f64>().ok().filter(|number| number.is_finite())?;
        Some(start..end)
    }

    /// The last number of the query.
    #[must_use]
    pub fn threshold(&self) -> Option<f64> {
        self.expr[self.threshold_place()?].parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Rule;

    fn rule(expr: &str) -> Rule {
        serde_json::from_value(serde_json::json!({ "alert": "A", "expr": expr })).unwrap()
    }

    #[test]
    fn the_last_number_is_the_threshold() {
        for (expr, threshold) in [
            ("up > 0", Some(0.0)),
            ("a / (b >= 20) > 0.1", Some(0.1)),
            ("vector(0.99)", Some(0.99)),
            ("a > 2678400\n", Some(2_678_400.0)),
            ("a > b", None),
            ("up", None),
            ("a > NaN", None),
            ("", None),
        ] {
            assert_eq!(rule(expr).threshold(), threshold, "{expr}");
        }
    }
}
