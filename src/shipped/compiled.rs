//! A rule that is understood: its query as a tree, its times as times, its annotations as templates.

use std::time::Duration;

use crate::promql::template::{Template, TemplateError};
use crate::promql::{Expression, Labels, ParseError, hold, parse};
use crate::shipped::rules::Rule;

/// A rule that is understood.
#[derive(Clone, Debug)]
pub struct CompiledRule {
    /// The name of the alert or of the recorded series.
    pub name: String,
    /// Whether it is an alert.
    pub is_alert: bool,
    /// Its query.
    pub expression: Expression,
    /// How long the query must hold.
    pub hold: Duration,
    /// What it adds to labels; for an alert with `alertname`.
    pub labels: Labels,
    /// What people read.
    pub annotations: Vec<(String, Template)>,
}

/// A rule that we cannot evaluate.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// Its query.
    #[error("the query of {rule}: {cause}")]
    Query {
        /// The name of the rule.
        rule: String,
        /// Why.
        cause: ParseError,
    },
    /// A template of it.
    #[error("an annotation of {rule}: {cause}")]
    Template {
        /// The name of the rule.
        rule: String,
        /// Why.
        cause: TemplateError,
    },
    /// Its `for`.
    #[error("the time `{text}` of {rule} is no duration such as 10m")]
    Hold {
        /// The name of the rule.
        rule: String,
        /// What stands there.
        text: String,
    },
}

// === impl CompiledRule ===

impl CompiledRule {
    /// Understands a rule.
    ///
    /// # Errors
    /// When it uses what we do not support.
    pub fn new(rule: &Rule) -> Result<Self, RuleError> {
        let name = || rule.name().to_owned();
        let expression = parse(&rule.expr).map_err(|cause| RuleError::Query { rule: name(), cause })?;
        let wrong = |text: &String| RuleError::Hold { rule: name(), text: text.clone() };
        let hold = rule.hold.as_ref().map(|text| hold(text).ok_or_else(|| wrong(text))).transpose()?.unwrap_or_default();
        let annotations = rule.annotations.iter().map(|(key, text)| match Template::parse(text) {
            Ok(template) => Ok((key.clone(), template)),
            Err(cause) => Err(RuleError::Template { rule: name(), cause }),
        });
        let mut labels = rule.labels.clone();
        labels.extend(rule.alert.iter().map(|alert| ("alertname".to_owned(), alert.clone())));
        let annotations = annotations.collect::<Result<_, _>>()?;
        Ok(Self { name: name(), is_alert: rule.alert.is_some(), expression, hold, labels, annotations })
    }
}
