//! Our own exposition, read as Prometheus would read it: names, labels and values, without what we do not ask for.

use crate::promql::Labels;

/// The samples of an OpenMetrics text whose names are wanted.
///
/// A line that cannot be read is left out: the text is our own, and tests hold it to the format.
pub fn samples(text: &str, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = (&str, Labels, f64)> {
    text.lines().filter_map(move |line| {
        let name = line.split(['{', ' ', '#']).next()?;
        if name.is_empty() || !wanted(name) {
            return None;
        }
        let rest = &line[name.len()..];
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (Labels::new(), rest),
        };
        // A timestamp or an exemplar may follow.
        let value = rest.split_ascii_whitespace().next()?;
        Some((name, labels, value.parse().ok()?))
    })
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    loop {
        rest = rest.strip_prefix(',').unwrap_or(rest);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at + 1,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.to_owned(), value);
        rest = &after[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_read_whatever_stands_in_it() {
        let text = "# HELP a_total Text with \"quotes\" {and} braces\n# TYPE a counter\n\
                    a_total{x=\"1\",y=\"a \\\"b\\\" \\\\ \\n}, c\"} 5 # {run=\"1\"} 1.0 2.0\na_created 1.0\n\
                    a_total 7\nb{le=\"+Inf\"} 9\nab_total 1\na_total{broken\n# EOF\n";
        let found: Vec<_> = samples(text, |name| name == "a_total" || name == "b").collect();
        let labels =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Labels>();
        assert_eq!(
            found,
            [
                ("a_total", labels(&[("x", "1"), ("y", "a \"b\" \\ \n}, c")]), 5.0),
                ("a_total", Labels::new(), 7.0),
                ("b", labels(&[("le", "+Inf")]), 9.0),
            ]
        );
    }
}
