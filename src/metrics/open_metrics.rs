//! Writes metric families as OpenMetrics 1.0 text, with what prometheus-client cannot write: created timestamps.
//!
//! Owns the syntax (<https://prometheus.io/docs/specs/om/open_metrics_spec/>). Knows nothing of where values come from.

use std::fmt::Write as _;

/// The type of a family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Only grows; its samples are named with `_total`.
    Counter,
    /// Any value.
    Gauge,
    /// Counts in buckets.
    Histogram,
}

/// A trace of one event within a sample: never in the older text format.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Names and values; together at most 128 characters, as OpenMetrics demands.
    pub labels: Vec<(String, String)>,
    /// What the event added or was observed as.
    pub value: f64,
    /// When it was counted, in milliseconds since the epoch.
    pub millis: i64,
}

/// What a histogram holds.
#[derive(Clone, Copy, Debug)]
pub struct Buckets<'a> {
    /// The upper bounds, without `+Inf`.
    pub bounds: &'a [f64],
    /// How many fell into each, not cumulated; one more than bounds.
    pub counts: &'a [u64],
    /// The sum of all.
    pub sum: f64,
    /// One for each bucket, or none at all.
    pub exemplars: &'a [Option<Exemplar>],
}

/// The labels of a series, written once for all of its samples.
#[derive(Clone, Debug)]
pub struct Labels(String);

/// A text that grows family by family.
#[derive(Debug, Default)]
pub struct OpenMetrics {
    text: String,
}

// === impl Labels ===

impl Labels {
    /// Writes labels, with their values escaped.
    #[must_use]
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut text = String::new();
        for (name, value) in pairs {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(name);
            text.push_str("=\"");
            escape(value, &mut text);
            text.push('"');
        }
        Self(text)
    }
}

// === impl OpenMetrics ===

impl OpenMetrics {
    /// Begins a family. `name` is without `_total`; `help` is one sentence with its full stop.
    pub fn family(&mut self, name: &str, help: &str, kind: Kind) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        escape(help, &mut self.text);
        self.push(format_args!("\n# TYPE {name} {kind}\n"));
    }

    /// A sample of a gauge.
    pub fn gauge(&mut self, name: &str, labels: &Labels, value: f64) {
        self.sample(name, "", labels, None, value);
        self.text.push('\n');
    }

    /// A sample of a counter, and since when it counts (milliseconds since the epoch; 0 where that is not known).
    pub fn counter(&mut self, name: &str, labels: &Labels, value: f64, created: i64, exemplar: Option<&Exemplar>) {
        self.sample(name, "_total", labels, None, value);
        self.exemplar(exemplar);
        self.created(name, labels, created);
    }

    /// The samples of a histogram, and since when it counts.
    pub fn histogram(&mut self, name: &str, labels: &Labels, buckets: &Buckets<'_>, created: i64) {
        let mut count = 0;
        for (position, found) in buckets.counts.iter().enumerate() {
            count += found;
            let bound = buckets.bounds.get(position).copied().unwrap_or(f64::INFINITY);
            self.sample(name, "_bucket", labels, Some(bound), whole(count));
            self.exemplar(buckets.exemplars.get(position).and_then(Option::as_ref));
        }
        self.sample(name, "_sum", labels, None, buckets.sum);
        self.text.push('\n');
        self.sample(name, "_count", labels, None, whole(count));
        self.text.push('\n');
        self.created(name, labels, created);
    }

    /// The text, without the mark of its end.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }

    fn sample(&mut self, name: &str, suffix: &str, labels: &Labels, bound: Option<f64>, value: f64) {
        self.text.push_str(name);
        self.text.push_str(suffix);
        if bound.is_some() || !labels.0.is_empty() {
            self.text.push('{');
            if let Some(bound) = bound {
                self.text.push_str("le=\"");
                self.number(bound);
                self.text.push_str(if labels.0.is_empty() { "\"" } else { "\"," });
            }
            self.text.push_str(&labels.0);
            self.text.push('}');
        }
        self.text.push(' ');
        // Counts are whole numbers, and are written as such.
        if suffix == "_bucket" || suffix == "_count" { self.push(format_args!("{value}")) } else { self.number(value) }
    }

    fn exemplar(&mut self, exemplar: Option<&Exemplar>) {
        if let Some(Exemplar { labels, value, millis }) = exemplar {
            let labels = Labels::new(labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            self.push(format_args!(" # {{{}}} ", labels.0));
            self.number(*value);
            self.text.push(' ');
            self.seconds(*millis);
        }
        self.text.push('\n');
    }

    fn created(&mut self, name: &str, labels: &Labels, millis: i64) {
        if millis != 0 {
            self.text.push_str(name);
            self.text.push_str("_created");
            if !labels.0.is_empty() {
                self.push(format_args!("{{{}}}", labels.0));
            }
            self.text.push(' ');
            self.seconds(millis);
            self.text.push('\n');
        }
    }

    fn seconds(&mut self, millis: i64) {
        self.push(format_args!("{}.{:03}", millis.div_euclid(1000), millis.rem_euclid(1000)));
    }

    fn number(&mut self, value: f64) {
        match value {
            _ if value.is_nan() => self.text.push_str("NaN"),
            f64::INFINITY => self.text.push_str("+Inf"),
            f64::NEG_INFINITY => self.text.push_str("-Inf"),
            // The form that other clients write: `1.0`, `0.25`, `1e20`.
            value => self.push(format_args!("{value:?}")),
        }
    }

    fn push(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.text.write_fmt(arguments);
    }
}

fn escape(value: &str, text: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn whole(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_its_samples() {
        let mut written = OpenMetrics::default();
        let labels = Labels::new([("l", "q\" \\ \n")]);
        let exemplar = Exemplar { labels: vec![("run_id".to_owned(), "r1".to_owned())], value: 1.5, millis: 1_775_293_201_733 };
        written.family("runs", "All \"runs\" \\ so far.", Kind::Counter);
        written.counter("runs", &labels, 3.0, 1_775_293_201_005, Some(&exemplar));
        written.family("open", "Open.", Kind::Gauge);
        written.gauge("open", &Labels::new([]), f64::NAN);
        written.family("d_seconds", "Time.", Kind::Histogram);
        let exemplars = [None, Some(exemplar)];
        written.histogram("d_seconds", &labels, &Buckets { bounds: &[1.0], counts: &[2, 1], sum: 2.25, exemplars: &exemplars }, 0);
        let expected = "# HELP runs All \\\"runs\\\" \\\\ so far.
# TYPE runs counter
runs_total{l=\"q\\\" \\\\ \\n\"} 3.0 # {run_id=\"r1\"} 1.5 1775293201.733
runs_created{l=\"q\\\" \\\\ \\n\"} 1775293201.005
# HELP open Open.
# TYPE open gauge
open NaN
# HELP d_seconds Time.
# TYPE d_seconds histogram
d_seconds_bucket{le=\"1.0\",l=\"q\\\" \\\\ \\n\"} 2
d_seconds_bucket{le=\"+Inf\",l=\"q\\\" \\\\ \\n\"} 3 # {run_id=\"r1\"} 1.5 1775293201.733
d_seconds_sum{l=\"q\\\" \\\\ \\n\"} 2.25
d_seconds_count{l=\"q\\\" \\\\ \\n\"} 3
";
        assert_eq!(written.finish(), expected);
    }
}
