//! The console lines of zap: `time TAB level TAB caller TAB message TAB {fields}`. Pure.
//!
//! Each part but the level and the message may be absent. Knows nothing of the fields within the braces.

use crate::logs::level::level_name;

/// The parts of a console line; those that are absent are empty.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Console<'a> {
    /// The message together with what looks like fields behind it.
    tail: &'a [u8],
    /// The time, as it is written.
    pub time: &'a [u8],
    /// The level, as it is written.
    pub level: &'a [u8],
    /// Which place of the code wrote it.
    pub caller: &'a [u8],
    /// What it says.
    pub message: &'a [u8],
    /// The other fields, as JSON with its braces.
    pub fields: &'a [u8],
}

// === impl Console ===

impl<'a> Console<'a> {
    /// Takes a line apart; `None` where it is no console line.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let (first, rest) = split_tab(line)?;
        if let Some(level) = level(first) {
            return Some(Self { level, ..Self::after_level(rest) });
        }
        if !first.first()?.is_ascii_digit() || first.len() > 48 {
            return None;
        }
        let (second, rest) = match split_tab(rest) {
            Some((second, rest)) => (second, rest),
            None => (rest, &[][..]),
        };
        Some(Self { time: first, level: level(second)?, ..Self::after_level(rest) })
    }

    /// Whether a stack trace may follow.
    #[must_use]
    pub fn is_error(&self) -> bool {
        matches!(level_name(self.level), Some("error" | "fatal"))
    }

    /// The same line, with what looked like fields as a part of the message.
    #[must_use]
    pub fn without_fields(self) -> Self {
        Self { message: self.tail, fields: &[], ..self }
    }

    fn after_level(rest: &'a [u8]) -> Self {
        let (caller, rest) = match split_tab(rest) {
            Some((first, behind)) if is_caller(first) => (first, behind),
            // A logger's name stands before the caller.
            Some((_, behind)) => match split_tab(behind) {
                Some((second, behind)) if is_caller(second) => (second, behind),
                _ => (&[][..], rest),
            },
            None => (&[][..], rest),
        };
        // The strings of the fields have no bare tab, so the fields begin behind the last one.
        let (message, fields) = match memchr::memrchr(b'\t', rest) {
            Some(tab) if rest[tab + 1..].starts_with(b"{") => (&rest[..tab], &rest[tab + 1..]),
            _ => (rest, &[][..]),
        };
        Self { tail: rest, caller, message, fields, ..Self::default() }
    }
}

fn split_tab(line: &[u8]) -> Option<(&[u8], &[u8])> {
    memchr::memchr(b'\t', line).map(|tab| (&line[..tab], &line[tab + 1..]))
}

/// A level. Numbers are no levels here.
fn level(part: &[u8]) -> Option<&[u8]> {
    (part.first()?.is_ascii_alphabetic() && level_name(part).is_some()).then_some(part)
}

/// `log/compat.go:75`
fn is_caller(part: &[u8]) -> bool {
    let Some(colon) = memchr::memrchr(b':', part) else { return false };
    let digits = &part[colon + 1..];
    colon > 0 && !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) && !part.contains(&b' ')
}

#[cfg(test)]
mod tests {
    use super::Console;

    #[track_caller]
    fn check(line: &str, expected: Option<[&str; 5]>) {
        let parts = Console::parse(line.as_bytes());
        let parts = parts.map(|parts| [parts.time, parts.level, parts.caller, parts.message, parts.fields]);
        assert_eq!(parts, expected.map(|parts| parts.map(str::as_bytes)), "{line:?}");
    }

    #[test]
    fn parts_may_be_absent() {
        let time = "2026-04-04T09:00:01.733Z";
        check(
            "2026-04-04T09:00:01.733Z\tINFO\tlog/log.go:46\tStarting\t{\"port\": \"8080\"}",
            Some([time, "INFO", "log/log.go:46", "Starting", "{\"port\": \"8080\"}"]),
        );
        check("2026-04-04T09:00:01.733Z\tERROR\tlog/log.go:46\tOops", Some([time, "ERROR", "log/log.go:46", "Oops", ""]));
        check("2026-04-04T09:00:01.733Z\twarn\tOops\t{}", Some([time, "warn", "", "Oops", "{}"]));
        check("2026-04-04T09:00:01.733Z\tinfo\tworker\tjob.go:7\ta\tb", Some([time, "info", "job.go:7", "a\tb", ""]));
        check("1.7e9\tINFO\tOops", Some(["1.7e9", "INFO", "", "Oops", ""]));
        check("DEBUG\ta.go:1\tOops", Some(["", "DEBUG", "a.go:1", "Oops", ""]));
        check("2026-04-04T09:00:01.733Z\tINFO", Some([time, "INFO", "", "", ""]));
        check("ERROR\t", Some(["", "ERROR", "", "", ""]));
        for line in ["", "\t", "a\tb\tc", "2026-04-04\tNOPE\tx", "\t/workspace/main.go:43", "info", "10\t20\tx", "\x1b[34\tx"] {
            check(line, None);
        }
    }
}
