//! `sources`: where logs and database tell the same fact, which of them counts.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::{Problem, Problems};
use crate::config::spanned::Spanned;

/// A place that facts come from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The lines of the logs.
    Logs,
    /// The documents of the database.
    Store,
}

/// Which source counts for each fact.
#[derive(Clone, Debug, Default)]
pub struct Sources(BTreeMap<String, Source>);

// === impl Sources ===

impl Sources {
    pub(super) fn new(raw: BTreeMap<String, Source>) -> Self {
        Self(raw)
    }

    /// Lets one source tell every fact: the replay of a log has no database beside it.
    pub(super) fn only(&mut self, source: Source) {
        self.0.values_mut().for_each(|chosen| *chosen = source);
    }

    /// Whether a rule of `source` that tells `fact` counts. A rule without a fact always does.
    pub(super) fn is_active(&self, fact: Option<&Spanned<String>>, source: Source, problems: &mut Problems) -> bool {
        let Some(fact) = fact else { return true };
        if let Some(chosen) = self.0.get(&fact.value) {
            return *chosen == source;
        }
        problems.error(Problem {
            place: fact.place.clone(),
            path: "sources".to_owned(),
            message: format!("the fact `{0}` has no source; add `{0}: store` or `{0}: logs` to `sources`", fact.value),
        });
        false
    }
}
