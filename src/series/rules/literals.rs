//! Texts without which no rule can apply, found in the rules. Pure.

use crate::config::rules::Test;
use crate::series::rules::RuleSet;
use crate::series::rules::matching::CompiledMatch;

/// Shorter texts stand in too many lines.
const SHORTEST: usize = 4;

// === impl RuleSet ===

impl RuleSet {
    /// Texts of which one stands in every record to which a rule can apply, in ASCII that no form of writing changes.
    /// `is_verbatim` says whether the text of a field stands in the record as rules see it.
    ///
    /// # Errors
    /// The metric of a rule that may apply without any.
    pub fn literals(&self, is_verbatim: impl Fn(&str) -> bool) -> Result<Vec<String>, &str> {
        let verbatim: Vec<bool> = self.fields.iter().map(|field| is_verbatim(field)).collect();
        let mut all = Vec::new();
        for rule in &self.rules {
            all.extend(rule.matcher.literals(&verbatim).ok_or(rule.metric.as_str())?);
        }
        all.sort();
        all.dedup();
        Ok(all)
    }
}

// === impl CompiledMatch ===

impl CompiledMatch {
    fn literals(&self, verbatim: &[bool]) -> Option<Vec<String>> {
        let of_field = self.all.iter().filter(|(field, _)| verbatim[*field]).filter_map(|(_, test)| match test {
            Test::OneOf(texts) | Test::Prefix(texts) | Test::Contains(texts) => texts.iter().map(|text| literal(text)).collect(),
            _ => None,
        });
        // The longer the shortest text is, the fewer records hold one.
        let best = of_field.max_by_key(|texts: &Vec<String>| texts.iter().map(String::len).min());
        let alternatives = || self.any.iter().map(|alternative| alternative.literals(verbatim)).collect::<Option<Vec<_>>>();
        best.or_else(|| alternatives().filter(|all| !all.is_empty()).map(|all| all.concat()))
    }
}

/// The longest part of a text that is written in one way alone: JSON escapes quotes, backslashes, control characters, at
/// will slashes, and what is not ASCII.
fn literal(text: &str) -> Option<String> {
    let parts = text.split(|character: char| !matches!(character, ' '..='~') || matches!(character, '"' | '\\' | '/'));
    parts.max_by_key(|part| part.len()).filter(|part| part.len() >= SHORTEST).map(str::to_owned)
}
