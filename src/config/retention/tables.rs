//! `retention.tables`: which rows of Postgres are kept for how long.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::{Complaints, Problems};
use crate::config::retention::policy::check_archive;
use crate::config::retention::{Mode, Names};
use crate::config::spanned::Spanned;
use crate::config::values::HumanDuration;

/// A policy that keeps less than a day is a mistake of units until proven otherwise.
const SHORTEST_KEEP: Duration = Duration::from_secs(86_400);
/// The greatest part of a table that a run may delete, where nothing else is said.
const MAX_FRACTION: f64 = 0.2;
/// The most rows that a run deletes, where nothing else is said. The next run goes on.
const MAX_ROWS: u64 = 1_000_000;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TablePolicy")]
pub(super) struct RawTablePolicy {
    name: String,
    /// `plan` keeps this policy from deleting, whatever the section says.
    mode: Option<Mode>,
    /// The table, with its schema where that is not the first of the search path.
    table: String,
    /// The column that says how old a row is: a timestamp or a date.
    column: String,
    /// Rows younger than this are kept.
    keep: HumanDuration,
    /// Rows of the current month are kept, however short `keep` is: budgets are computed from them.
    #[serde(default)]
    keep_current_month: bool,
    /// Rows that others refer to are kept.
    #[serde(default)]
    unless_referenced: Vec<RawReference>,
    /// Where rows go before they are deleted: file://, s3://, gs:// or az://.
    archive: Option<String>,
    /// The greatest part of the table that a run may delete: 0.2.
    max_fraction: Option<f64>,
    /// The most rows that a run deletes; the next one goes on: 1000000.
    max_rows: Option<u64>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TableReference")]
struct RawReference {
    /// The table that refers.
    table: String,
    /// Its column that holds the key.
    column: String,
}

/// Which rows of a table are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct TablePolicy {
    /// Its name.
    pub name: String,
    /// Whether it deletes.
    pub mode: Mode,
    /// The table.
    pub table: TableName,
    /// The column that says how old a row is.
    pub column: String,
    /// Younger rows are kept.
    pub keep: Duration,
    /// Rows of the current month are kept.
    pub keep_current_month: bool,
    /// Rows that these refer to are kept.
    pub unless_referenced: Vec<Reference>,
    /// Where rows go before they are deleted; without it nothing is deleted.
    pub archive: Option<String>,
    /// The greatest part of the table that a run may delete.
    pub max_fraction: f64,
    /// The most rows that a run deletes.
    pub max_rows: u64,
}

/// A table, with its schema where one was given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TableName {
    /// The schema.
    pub schema: Option<String>,
    /// The table.
    pub table: String,
}

/// A column of another table that refers to the rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// The table.
    pub table: TableName,
    /// The column.
    pub column: String,
}

// === impl RawTablePolicy ===

impl RawTablePolicy {
    /// `archive` is where rows go that say nothing else.
    pub(super) fn validate_all(
        raw: Vec<Spanned<Self>>,
        mode: Mode,
        archive: Option<&Spanned<String>>,
        names: &mut Names,
        problems: &mut Problems,
    ) -> Vec<TablePolicy> {
        let mut policies: Vec<TablePolicy> = Vec::new();
        for Spanned { place, value } in raw {
            let mut complaints = Complaints::new(place, format!("retention.tables.{}", value.name), problems);
            names.check(&value.name, &mut complaints);
            policies.extend(value.validate(mode, archive, &mut complaints));
        }
        policies
    }

    fn validate(self, mode: Mode, archive: Option<&Spanned<String>>, complaints: &mut Complaints<'_>) -> Option<TablePolicy> {
        if self.keep.0 < SHORTEST_KEEP {
            complaints.say("`keep` is at least 1d: a shorter time is mostly a mistake of units");
        }
        let max_fraction = self.max_fraction.unwrap_or(MAX_FRACTION);
        if !(max_fraction > 0.0 && max_fraction <= 1.0) {
            complaints.say("`max_fraction` is a part of the table, above 0 and up to 1, such as 0.2");
        }
        if self.max_rows == Some(0) {
            complaints.say("`max_rows` is at least 1; write `mode: plan` where nothing is to be deleted");
        }
        if self.column.is_empty() || self.column.contains(['*', '%', '?', '\0']) {
            complaints.say(format!("{:?} is no column: it is named exactly, with no patterns", self.column));
        }
        let mode = if mode == Mode::Plan { Mode::Plan } else { self.mode.unwrap_or(mode) };
        let archive = self.archive.or_else(|| archive.map(|url| url.value.clone()));
        check_archive(archive.as_deref(), mode, complaints);
        let mut name = |text: &str| {
            let parsed = TableName::parse(text);
            if parsed.is_none() {
                complaints.say(format!("`{text}` is no table: write table or schema.table; there are no patterns"));
            }
            parsed
        };
        let table = name(&self.table);
        let references: Vec<_> = self
            .unless_referenced
            .into_iter()
            .filter_map(|reference| Some(Reference { table: name(&reference.table)?, column: reference.column }))
            .collect();
        Some(TablePolicy {
            name: self.name,
            mode,
            table: table?,
            column: self.column,
            keep: self.keep.0,
            keep_current_month: self.keep_current_month,
            unless_referenced: references,
            archive,
            max_fraction,
            max_rows: self.max_rows.unwrap_or(MAX_ROWS).max(1),
        })
    }
}

// === impl TableName ===

impl TableName {
    fn parse(text: &str) -> Option<Self> {
        let is_name = |name: &str| !name.is_empty() && name.len() <= 63 && !name.contains(['*', '%', '?', '"', '.', ' ', '\0']);
        let (schema, table) = match text.split_once('.') {
            Some((schema, table)) => (Some(schema), table),
            None => (None, text),
        };
        (is_name(table) && schema.is_none_or(is_name)).then(|| Self { schema: schema.map(str::to_owned), table: table.to_owned() })
    }
}
