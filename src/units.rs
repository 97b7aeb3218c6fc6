//! Quantities as people and programs write them: durations, sizes and the units of log fields.
//!
//! Owns the parsing of text into base units (seconds, bytes). Knows nothing of configuration files or logs.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The unit of a numeric field, where its text does not say it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// A count or any other number without a unit.
    None,
    /// Nanoseconds, as Go and BSON store a `time.Duration`.
    Ns,
    /// Microseconds.
    Us,
    /// Milliseconds.
    Ms,
    /// Seconds: what a bare number is taken for.
    #[default]
    S,
    /// Minutes.
    M,
    /// Hours.
    H,
    /// Bytes.
    Bytes,
    /// 1024 bytes.
    Kib,
    /// 1024 KiB.
    Mib,
    /// 1024 MiB.
    Gib,
}

/// Why a text is not a duration or a size. The message says what would be one.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UnitError {
    /// A number without a unit: `30` may be seconds, minutes or days.
    #[error("`{0}` has no unit: write for example 30s, 5m, 12h or 90d")]
    BareNumber(String),
    /// A unit whose length depends on the calendar.
    #[error("`{0}` counts in months or years, whose length varies: write days, for example 90d")]
    Calendar(String),
    /// Not a duration at all.
    #[error("`{0}` is not a duration: write for example 500ms, 30s, 5m, 12h or 90d")]
    Duration(String),
    /// Not a size at all.
    #[error("`{0}` is not a size: write for example 64KiB, 1MiB or 10GiB")]
    Size(String),
}

// === impl Unit ===

impl Unit {
    /// What a number in this unit is multiplied with to be in the base unit.
    #[must_use]
    pub fn factor(self) -> f64 {
        match self {
            Self::None | Self::S | Self::Bytes => 1.0,
            Self::Ns => 1e-9,
            Self::Us => 1e-6,
            Self::Ms => 1e-3,
            Self::M => 60.0,
            Self::H => 3600.0,
            Self::Kib => 1024.0,
            Self::Mib => 1024.0 * 1024.0,
            Self::Gib => 1024.0 * 1024.0 * 1024.0,
        }
    }

    /// A number in this unit as base units. Divides where that is the exact operation: 323 ms is 0.323 s to the last
    /// bit, which a multiplication with 0.001 would miss.
    #[must_use]
    pub fn to_base(self, number: f64) -> f64 {
        match self {
            Self::Ns => number / 1e9,
            Self::Us => number / 1e6,
            Self::Ms => number / 1e3,
            _ => number * self.factor(),
        }
    }
}

/// Reads a duration of a configuration file. A unit is demanded, months and years are refused.
///
/// # Errors
/// What is wrong with the text, and what would be right.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let trimmed = text.trim();
    if !trimmed.is_empty() && trimmed.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(UnitError::BareNumber(trimmed.to_owned()));
    }
    if ["month", "year", "M", "y"].iter().any(|unit| trimmed.contains(unit)) {
        return Err(UnitError::Calendar(trimmed.to_owned()));
    }
    humantime::parse_duration(trimmed).map_err(|_| UnitError::Duration(trimmed.to_owned()))
}

/// Writes a duration the way [`parse_duration`] reads it, in days at the most: `90d`, `1h 30m`, `250ms`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let millis = (u64::from(duration.subsec_millis()), "ms");
    let words: Vec<String> =
        parts.into_iter().chain([millis]).filter(|(number, _)| *number > 0).map(|(number, unit)| format!("{number}{unit}")).collect();
    if words.is_empty() { "0s".to_owned() } else { words.join(" ") }
}

/// Reads a duration as Go's `time.Duration.String` writes it, as seconds: `5m23.412345678s`, `812.345µs`, `-1.5s`,
/// `1h0m0s`, `0s`. `None` for any other text, so that a caller can go on with another reading.
#[must_use]
pub fn parse_go_duration(text: &str) -> Option<f64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, length) = go_unit(rest)?;
        seconds += unit.to_base(number);
        rest = &rest[length..];
    }
    Some(if negative { -seconds } else { seconds })
}

/// The unit that a Go duration goes on with, and its length in bytes.
fn go_unit(rest: &str) -> Option<(Unit, usize)> {
    const UNITS: [(&str, Unit); 8] = [
        ("ns", Unit::Ns),
        ("us", Unit::Us),
        ("\u{b5}s", Unit::Us),
        ("\u{3bc}s", Unit::Us),
        ("ms", Unit::Ms),
        ("s", Unit::S),
        ("m", Unit::M),
        ("h", Unit::H),
    ];
    UNITS.iter().find(|(text, _)| rest.starts_with(text)).map(|(text, unit)| (*unit, text.len()))
}

/// Reads a size as bytes: `512`, `64KiB`, `1MiB`, `10GiB`, `1.5 MB`. Decimal units count in thousands.
///
/// # Errors
/// When the text is not a size.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let trimmed = text.trim();
    let refuse = || UnitError::Size(trimmed.to_owned());
    let digits = trimmed.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let number: f64 = trimmed[..digits].parse().map_err(|_| refuse())?;
    let factor = match trimmed[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kib" | "k" => 1024.0,
        "mib" | "m" => 1024.0 * 1024.0,
        "gib" | "g" => 1024.0 * 1024.0 * 1024.0,
        "tib" | "t" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        _ => return Err(refuse()),
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "digits are never negative, and the cast saturates")]
    Ok((number * factor).round() as u64)
}

/// Reads a text that tells its own unit, as seconds or bytes: a duration of Go (`5m23.4s`) or of people (`1h 30m`,
/// `3 seconds`), or a size (`64KiB`, `1.5 MB`). `5m` is five minutes, but where bytes are expected, five MiB.
#[must_use]
pub fn parse_quantity(text: &str, expected: Unit) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "sizes in logs are far below 2^53")]
    let size = || parse_size(text).ok().map(|bytes| bytes as f64);
    if matches!(expected, Unit::Bytes | Unit::Kib | Unit::Mib | Unit::Gib) {
        return size();
    }
    let duration = parse_go_duration(text).or_else(|| parse_duration(text).ok().map(|duration| duration.as_secs_f64()));
    duration.or_else(|| text.ends_with(['b', 'B']).then(size).flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read_as_seconds() {
        for (text, seconds) in [
            ("5m23.412345678s", 323.412_345_678),
            ("812.345\u{b5}s", 0.000_812_345),
            ("812.345\u{3bc}s", 0.000_812_345),
            ("3.412884ms", 0.003_412_884),
            ("5.000812345s", 5.000_812_345),
            ("1h0m0s", 3600.0),
            ("0s", 0.0),
            ("-1.5s", -1.5),
            ("100ns", 1e-7),
        ] {
            let read = parse_go_duration(text).unwrap_or(f64::NAN);
            assert!((read - seconds).abs() < 1e-12, "{text}: {read}");
        }
        for text in ["", "-", "5", "5x", "s", "1.2.3s", "5m 3s", "abc", "\u{b5}"] {
            assert_eq!(parse_go_duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_config_duration_needs_a_unit_that_is_always_as_long() {
        assert_eq!(parse_duration("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert!(matches!(parse_duration("30"), Err(UnitError::BareNumber(_))));
        assert!(matches!(parse_duration("3months"), Err(UnitError::Calendar(_))));
        assert!(matches!(parse_duration("1y"), Err(UnitError::Calendar(_))));
        assert!(matches!(parse_duration("soon"), Err(UnitError::Duration(_))));
        assert!(matches!(parse_duration("-5s"), Err(UnitError::Duration(_))));
    }

    #[test]
    fn a_duration_that_is_written_can_be_read() {
        for (text, seconds) in [("90d", 7_776_000.0), ("1h 30m", 5400.0), ("250ms", 0.25), ("0s", 0.0), ("1d 1s 5ms", 86_401.005)] {
            let duration = Duration::from_secs_f64(seconds);
            assert_eq!(format_duration(duration), text);
            assert_eq!(parse_duration(text), Ok(duration));
        }
    }

    #[test]
    fn sizes_are_read_as_bytes() {
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("1.5MB"), Ok(1_500_000));
        assert_eq!(parse_size("512"), Ok(512));
        assert!(parse_size("big").is_err());
    }

    #[test]
    fn milliseconds_become_seconds_exactly() {
        assert_eq!(Unit::Ms.to_base(323.0).to_string(), "0.323");
    }
}
