//! One sample of an exposition: the name of its series, read so that the order of labels does not matter, and its value.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The name of a series with its labels, such as `runs_total{status="failed"}`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct SeriesName {
    name: String,
    labels: BTreeMap<String, String>,
}

/// A text is not the name of a series.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is no series; write it as in an exposition, for example runs_total{{status=\"failed\"}}")]
pub struct SeriesNameError(String);

/// The samples of an exposition in the older text format.
#[must_use]
pub fn samples(exposition: &str) -> BTreeMap<SeriesName, f64> {
    let lines = exposition.lines().filter(|line| !line.starts_with('#'));
    let read = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        Some((series.parse().ok()?, value.parse().ok()?))
    };
    lines.filter_map(read).collect()
}

// === impl SeriesName ===

impl FromStr for SeriesName {
    type Err = SeriesNameError;

    fn from_str(text: &str) -> Result<Self, SeriesNameError> {
        let refuse = || SeriesNameError(text.to_owned());
        let text = text.trim();
        let (name, mut rest) = match text.split_once('{') {
            Some((name, rest)) => (name, rest.strip_suffix('}').ok_or_else(refuse)?.trim()),
            None => (text, ""),
        };
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':'));
        let mut labels = BTreeMap::new();
        while !rest.is_empty() {
            let (label, behind) = rest.split_once('=').ok_or_else(refuse)?;
            let (value, behind) = quoted(behind.trim_start()).ok_or_else(refuse)?;
            let label = label.trim();
            if !is_name(label) || labels.insert(label.to_owned(), value).is_some() {
                return Err(refuse());
            }
            let behind = behind.trim_start();
            rest = match behind.strip_prefix(',') {
                Some(behind) => behind.trim_start(),
                None if behind.is_empty() => behind,
                None => return Err(refuse()),
            };
        }
        if is_name(name.trim()) { Ok(Self { name: name.trim().to_owned(), labels }) } else { Err(refuse()) }
    }
}

impl fmt::Display for SeriesName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)?;
        if self.labels.is_empty() {
            return Ok(());
        }
        let labels: Vec<String> = self
            .labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")))
            .collect();
        write!(formatter, "{{{}}}", labels.join(","))
    }
}

/// The text within quotes, and what is behind them.
fn quoted(text: &str) -> Option<(String, &str)> {
    let text = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[position + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_the_same_in_whatever_order_its_labels_stand() {
        let read = |text: &str| text.parse::<SeriesName>().map(|series| series.to_string()).ok();
        for (text, series) in [
            ("m_total", Some("m_total")),
            ("m_total{}", Some("m_total")),
            (r#"m{b="2",a="1"}"#, Some(r#"m{a="1",b="2"}"#)),
            (r#" m { b = "2" , a="1", } "#, Some(r#"m{a="1",b="2"}"#)),
            (r#"m{a="q\" \\ \n }{,="}"#, Some(r#"m{a="q\" \\ \n }{,="}"#)),
            ("", None),
            ("m{", None),
            ("m{a}", None),
            (r#"m{a="1"#, None),
            (r#"m{a="1" b="2"}"#, None),
            (r#"m{a="1",a="2"}"#, None),
            ("m n", None),
        ] {
            assert_eq!(read(text).as_deref(), series, "{text}");
        }
    }

    #[test]
    fn samples_are_read_from_an_exposition() {
        let text = "# HELP m_total M.\n# TYPE m_total counter\nm_total{l=\"a b\"} 2.0\nh_bucket{le=\"+Inf\",l=\"x\"} 3\n";
        let found: Vec<String> = samples(text).iter().map(|(series, value)| format!("{series} {value}")).collect();
        assert_eq!(found, ["h_bucket{l=\"x\",le=\"+Inf\"} 3", "m_total{l=\"a b\"} 2"]);
    }
}
