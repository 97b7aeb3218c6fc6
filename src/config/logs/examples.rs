//! `logs.tests`: lines, and the values that they must give.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::{Place, Problem, Problems};
use crate::config::spanned::Spanned;
use crate::config::values::{OrderedMap, Texts};
use crate::metrics::sample::SeriesName;

/// A test as it is written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "LogTest")]
pub(super) struct RawLogTest {
    /// What it shows.
    name: String,
    /// The lines of a log: a list, or a text with line breaks.
    lines: Texts,
    /// Series as they stand in an exposition, and their values once these lines have been counted.
    expect: OrderedMap<f64>,
}

/// Lines, and the values that they must give.
#[derive(Clone, Debug)]
pub struct LogTest {
    /// What it shows.
    pub name: String,
    /// Where it stands.
    pub place: Option<Place>,
    /// The lines, each with its end.
    pub lines: String,
    /// Series and their exact values.
    pub expect: Vec<(SeriesName, f64)>,
}

// === impl RawLogTest ===

impl RawLogTest {
    pub(super) fn validate(test: Spanned<Self>, problems: &mut Problems) -> LogTest {
        let Spanned { place, value: Self { name, lines, expect } } = test;
        let path = format!("logs.tests.{name}");
        let mut read = Vec::new();
        for (series, value) in expect.0 {
            match series.parse::<SeriesName>() {
                Ok(series) => read.push((series, value)),
                Err(error) => problems.error(Problem { place: place.clone(), path: path.clone(), message: error.to_string() }),
            }
        }
        if read.is_empty() {
            let message = "a test that expects nothing cannot fail; add series and their values to `expect`".to_owned();
            problems.error(Problem { place: place.clone(), path, message });
        }
        let lines = lines.0.iter().map(|line| format!("{}\n", line.trim_end_matches('\n'))).collect();
        LogTest { name, place, lines, expect: read }
    }
}
