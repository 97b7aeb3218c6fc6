//! The time of a line, in any dialect, as milliseconds since the epoch. Pure.

use jiff::Timestamp;

/// Numbers below this are seconds: as milliseconds they would lie in the year 1970.
const SECONDS: f64 = 1e11;

/// Of access logs, and of gunicorn.
const FORMATS: [&str; 2] = ["%d/%b/%Y:%H:%M:%S %z", "%Y-%m-%d %H:%M:%S %z"];

/// Reads a time: RFC 3339 (zones without a colon, and a space for the `T`, as well), or a number of seconds,
/// milliseconds, microseconds or nanoseconds since the epoch, told apart by their size.
#[must_use]
pub fn epoch_millis(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse::<f64>() {
        let millis = match number.abs() {
            size if size < SECONDS => number * 1e3,
            size if size < SECONDS * 1e3 => number,
            size if size < SECONDS * 1e6 => number / 1e3,
            _ => number / 1e6,
        };
        #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and no number is left for NaN")]
        return millis.is_finite().then_some(millis.round() as i64);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.as_millisecond());
    }
    FORMATS.iter().find_map(|format| Timestamp::strptime(format, text).ok()).map(Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::epoch_millis;

    #[test]
    fn the_times_of_all_dialects_are_read() {
        for (text, millis) in [
            ("2026-04-04T09:00:01.733Z", Some(1_775_293_201_733)),
            ("2026-04-04T10:00:01.733+0100", Some(1_775_293_201_733)),
            ("2026-04-04T10:00:01.733+01:00", Some(1_775_293_201_733)),
            ("1775293201.733", Some(1_775_293_201_733)),
            ("1775293201733", Some(1_775_293_201_733)),
            ("1775293201733000", Some(1_775_293_201_733)),
            ("1775293201733000000", Some(1_775_293_201_733)),
            ("04/Apr/2026:11:00:01 +0200", Some(1_775_293_201_000)),
            ("2026-04-04 09:00:01 +0000", Some(1_775_293_201_000)),
            ("yesterday", None),
            ("NaN", None),
            ("", None),
        ] {
            assert_eq!(epoch_millis(text), millis, "{text}");
        }
    }
}
