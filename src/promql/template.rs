//! The templates of annotations, as far as our rules use them: `{{ $labels.x }}` and `{{ $value | humanize }}`.

use std::fmt::Write as _;

use super::Labels;

/// A text with places to be filled.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Label(String),
    Value(Form),
}

/// How a number is shown: the functions of Prometheus' templates.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    Plain,
    Humanize,
    Humanize1024,
    Duration,
    Percentage,
}

/// A template that uses what is not supported.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "the template has {{{{{0}}}}}: only $labels.NAME and $value with humanize, humanize1024, humanizeDuration or humanizePercentage are supported"
)]
pub struct TemplateError(String);

// === impl Template ===

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When it uses what is not supported.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, (inside, after))) = rest.split_once("{{").and_then(|(before, rest)| Some((before, rest.split_once("}}")?)))
        {
            parts.extend((!before.is_empty()).then(|| Part::Text(before.to_owned())));
            parts.push(Part::parse(inside).ok_or_else(|| TemplateError(inside.to_owned()))?);
            rest = after;
        }
        parts.extend((!rest.is_empty()).then(|| Part::Text(rest.to_owned())));
        Ok(Self(parts))
    }

    /// Fills it. A label that is not there is the empty text.
    #[must_use]
    pub fn fill(&self, labels: &Labels, value: f64) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Label(name) => text.push_str(labels.get(name).map_or("", String::as_str)),
                Part::Value(form) => form.write(value, &mut text),
            }
        }
        text
    }
}

// === impl Part ===

impl Part {
    fn parse(inside: &str) -> Option<Self> {
        let (what, form) = inside.split_once('|').map_or((inside.trim(), None), |(what, form)| (what.trim(), Some(form.trim())));
        let form = match form {
            None => Form::Plain,
            Some("humanize") => Form::Humanize,
            Some("humanize1024") => Form::Humanize1024,
            Some("humanizeDuration") => Form::Duration,
            Some("humanizePercentage") => Form::Percentage,
            Some(_) => return None,
        };
        if what == "$value" {
            return Some(Self::Value(form));
        }
        what.strip_prefix("$labels.").filter(|_| form == Form::Plain).map(|name| Self::Label(name.to_owned()))
    }
}

// === impl Form ===

impl Form {
    fn write(self, value: f64, text: &mut String) {
        if !value.is_finite() {
            text.push_str(if value.is_nan() {
                "NaN"
            } else if value > 0.0 {
                "+Inf"
            } else {
                "-Inf"
            });
            return;
        }
        match self {
            Self::Plain => push(text, format_args!("{value}")),
            Self::Percentage => push(text, format_args!("{}%", four_digits(value * 100.0))),
            Self::Humanize if value.abs() >= 1.0 => scaled(text, value, 1000.0, &["", "k", "M", "G", "T", "P", "E", "Z", "Y"], ""),
            Self::Humanize => small(text, value, ""),
            Self::Humanize1024 => scaled(text, value, 1024.0, &["", "ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"], ""),
            Self::Duration => duration(text, value),
        }
    }
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(what);
}

fn scaled(text: &mut String, mut value: f64, step: f64, units: &[&str], after: &str) {
    let mut units = units.iter();
    let mut unit = units.next();
    while value.abs() >= step && units.len() > 0 {
        value /= step;
        unit = units.next();
    }
    push(text, format_args!("{}{}{after}", four_digits(value), unit.unwrap_or(&"")));
}

fn small(text: &mut String, mut value: f64, after: &str) {
    let mut unit = "";
    if value != 0.0 {
        for next in ["m", "u", "n", "p", "f", "a", "z", "y"] {
            if value.abs() >= 1.0 {
                break;
            }
            value *= 1000.0;
            unit = next;
        }
    }
    push(text, format_args!("{}{unit}{after}", four_digits(value)));
}

fn duration(text: &mut String, value: f64) {
    if value.abs() < 1.0 {
        return small(text, value, "s");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds; what is larger than 2^64 is as large")]
    let whole = value.abs() as u64;
    let sign = if value < 0.0 { "-" } else { "" };
    let (days, hours, minutes, seconds) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    match (days, hours, minutes) {
        (1.., _, _) => push(text, format_args!("{sign}{days}d {hours}h {minutes}m {seconds}s")),
        (_, 1.., _) => push(text, format_args!("{sign}{hours}h {minutes}m {seconds}s")),
        (_, _, 1..) => push(text, format_args!("{sign}{minutes}m {seconds}s")),
        _ => push(text, format_args!("{}s", four_digits(value))),
    }
}

/// Four significant digits, as `%.4g` writes them.
fn four_digits(value: f64) -> String {
    let scientific = format!("{value:.3e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() };
    match usize::try_from(3 - exponent) {
        Ok(decimals) if (-4..4).contains(&exponent) => trim(&format!("{value:.decimals$}")),
        _ => format!("{}e{}{:02}", trim(mantissa), if exponent < 0 { '-' } else { '+' }, exponent.abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(form: &str, value: f64, expected: &str) {
        let template = Template::parse(&format!("{{{{ $value{form} }}}}")).unwrap();
        assert_eq!(template.fill(&Labels::new(), value), expected, "{form} {value}");
    }

    /// Each as promtool 2.42 writes it.
    #[test]
    fn numbers_look_as_in_prometheus() {
        check("", 0.5, "0.5");
        check(" | humanize", 0.0, "0");
        check(" | humanize", 1.0, "1");
        check(" | humanize", 1234.567, "1.235k");
        check(" | humanize", 999_999.0, "1000k");
        check(" | humanize", 0.0123, "12.3m");
        check(" | humanize", -2_000_000.0, "-2M");
        check(" | humanize1024", 1_048_576.0, "1Mi");
        check(" | humanize1024", 300_000_000.0, "286.1Mi");
        check(" | humanize1024", 0.5, "0.5");
        check(" | humanizePercentage", 0.1234, "12.34%");
        check(" | humanizePercentage", 1.0, "100%");
        check(" | humanizeDuration", 0.0, "0s");
        check(" | humanizeDuration", 0.25, "250ms");
        check(" | humanizeDuration", 59.5, "59.5s");
        check(" | humanizeDuration", 1800.0, "30m 0s");
        check(" | humanizeDuration", 90_061.0, "1d 1h 1m 1s");
        check(" | humanizeDuration", -3661.0, "-1h 1m 1s");
        check(" | humanize", f64::NAN, "NaN");
        check(" | humanize", f64::INFINITY, "+Inf");
    }

    #[test]
    fn labels_are_filled_in_and_are_no_templates_themselves() {
        let labels = Labels::from([("check".to_owned(), "{{ $value }}".to_owned())]);
        let template = Template::parse("The check \"{{ $labels.check }}\" of {{$labels.instance}}: {{ $value }}.").unwrap();
        assert_eq!(template.fill(&labels, 2.0), "The check \"{{ $value }}\" of : 2.");
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for text in ["{{ range query \"up\" }}", "{{ $value | title }}", "{{ $labels.x | humanize }}", "{{ .Value }}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
        assert_eq!(Template::parse("no end {{ here").unwrap().fill(&Labels::new(), 1.0), "no end {{ here");
    }
}
