//! The tests of a configuration: lines through the decoder and the rules, and whether the values are those expected.

use crate::config::logs::{LogTest, Logs};
use crate::logs::engine::LogsError;
use crate::logs::replay::Replay;
use crate::metrics::Registry;
use crate::metrics::exposition::Format;
use crate::metrics::sample::{SeriesName, samples};
use crate::series::families::SharedFamilies;

/// The name of the input that the lines come from.
const INPUT: &str = "test";

/// A series that has another value than a test expects.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The series.
    pub series: SeriesName,
    /// What the test expects.
    pub expected: f64,
    /// What it is; `None` where there is no such series.
    pub found: Option<f64>,
}

/// Runs a test with the rules of its configuration. It passes when there is no difference.
///
/// # Errors
/// When the rules contradict each other.
pub fn run_test(config: &Logs, test: &LogTest) -> Result<Vec<Difference>, LogsError> {
    let found = count(config, test.lines.as_bytes())?;
    let differences = test.expect.iter().filter_map(|(series, expected)| {
        let found = found.get(series).copied();
        let same = found == Some(*expected);
        (!same).then(|| Difference { series: series.clone(), expected: *expected, found })
    });
    Ok(differences.collect())
}

/// The values of all series once these lines have been counted.
///
/// # Errors
/// When the rules contradict each other.
pub fn count(config: &Logs, lines: &[u8]) -> Result<std::collections::BTreeMap<SeriesName, f64>, LogsError> {
    let families = SharedFamilies::default();
    Replay::new(config, &families)?.stream(lines, INPUT)?;
    let mut registry = Registry::default();
    registry.expose(families);
    Ok(Format::Text.write(&registry).map(|text| samples(&text)).unwrap_or_default())
}
