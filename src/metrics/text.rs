//! Prometheus text 0.0.4, written from OpenMetrics 1.0.
//!
//! The encoder of prometheus-client writes OpenMetrics only, and clients that do not ask for it (curl, older agents)
//! must get the older format. The two differ in little: this module owns the differences and nothing else.
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::borrow::Cow;

/// Rewrites an OpenMetrics exposition as Prometheus text 0.0.4: counters are named with `_total` in HELP and TYPE,
/// `info` is a gauge, UNIT, EOF, exemplars and created timestamps are left out, unknown types become `untyped`.
#[must_use]
pub fn from_open_metrics(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut pending_help: Option<&str> = None;
    // The family whose samples may have a created timestamp among them.
    let mut counting: Option<&str> = None;
    for line in open_metrics.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            // The name in HELP depends on the type, which the next line tells.
            pending_help = Some(help);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            write_head(&mut text, pending_help.take(), kind);
            counting = kind.split_once(' ').filter(|(_, kind)| matches!(*kind, "counter" | "histogram")).map(|(name, _)| name);
        } else if !line.starts_with('#') && !line.is_empty() && !is_created(line, counting) {
            text.push_str(without_exemplar(line));
            text.push('\n');
        }
    }
    text
}

/// Whether a sample says since when a series of this family counts.
fn is_created(line: &str, family: Option<&str>) -> bool {
    let rest = family.and_then(|family| line.strip_prefix(family)).and_then(|rest| rest.strip_prefix("_created"));
    rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
}

fn write_head(text: &mut String, help: Option<&str>, kind: &str) {
    let (name, kind) = kind.split_once(' ').unwrap_or((kind, "unknown"));
    let (name, kind): (Cow<'_, str>, &str) = match kind {
        "counter" => (format!("{name}_total").into(), kind),
        "info" => (format!("{name}_info").into(), "gauge"),
        "stateset" => (name.into(), "gauge"),
        "unknown" | "gaugehistogram" => (name.into(), "untyped"),
        _ => (name.into(), kind),
    };
    if let Some((_, help)) = help.and_then(|help| help.split_once(' ')) {
        // OpenMetrics escapes quotes in HELP, the older format does not.
        text.push_str(&format!("# HELP {name} {}\n", help.replace("\\\"", "\"")));
    }
    text.push_str(&format!("# TYPE {name} {kind}\n"));
}

/// Cuts ` # {…} value` off a sample, where the `#` stands outside of label values.
fn without_exemplar(line: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    for (position, byte) in line.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'#' if !quoted => return line[..position].trim_end(),
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::from_open_metrics;

    #[track_caller]
    fn check(open_metrics: &str, text: &str) {
        assert_eq!(from_open_metrics(open_metrics), text);
    }

    #[test]
    fn a_counter_is_named_with_total_everywhere() {
        check(
            "# HELP runs Runs.\n# TYPE runs counter\nruns_total{a=\"b\"} 1\n# EOF\n",
            "# HELP runs_total Runs.\n# TYPE runs_total counter\nruns_total{a=\"b\"} 1\n",
        );
    }

    #[test]
    fn units_and_exemplars_are_left_out() {
        check(
            "# HELP d_seconds Time.\n# TYPE d_seconds histogram\n# UNIT d_seconds seconds\nd_seconds_bucket{le=\"1.0\"} 3 # {id=\"x\"} 0.5\n# EOF\n",
            "# HELP d_seconds Time.\n# TYPE d_seconds histogram\nd_seconds_bucket{le=\"1.0\"} 3\n",
        );
    }

    #[test]
    fn created_timestamps_are_left_out_and_a_gauge_of_that_name_is_not() {
        check(
            "# TYPE a counter\na_total 1\na_created 2.5\n# TYPE b histogram\nb_created{x=\"y\"} 2.5\n# TYPE a_created gauge\na_created 3\n",
            "# TYPE a_total counter\na_total 1\n# TYPE b histogram\n# TYPE a_created gauge\na_created 3\n",
        );
    }

    #[test]
    fn a_hash_within_a_label_value_is_not_an_exemplar() {
        check("# TYPE x gauge\nx{a=\"q\\\" # {y}\"} 1\n", "# TYPE x gauge\nx{a=\"q\\\" # {y}\"} 1\n");
    }

    #[test]
    fn types_that_the_older_format_lacks_become_ones_that_it_has() {
        check("# TYPE build info\nbuild_info{v=\"1\"} 1\n", "# TYPE build_info gauge\nbuild_info{v=\"1\"} 1\n");
        check("# TYPE y unknown\ny 1\n", "# TYPE y untyped\ny 1\n");
    }
}
