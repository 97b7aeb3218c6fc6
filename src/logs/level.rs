//! The names of levels, in any dialect. Pure.

/// The one name that all dialects' names of a level become, without an allocation. `None` for a name that is not known.
#[must_use]
pub fn level_name(text: &[u8]) -> Option<&'static str> {
    const NAMES: [(&str, &str); 22] = [
        ("info", "info"),
        ("error", "error"),
        ("warn", "warn"),
        ("debug", "debug"),
        ("fatal", "fatal"),
        ("warning", "warn"),
        ("trace", "trace"),
        ("critical", "fatal"),
        ("panic", "fatal"),
        ("dpanic", "fatal"),
        ("err", "error"),
        ("crit", "fatal"),
        ("emerg", "fatal"),
        ("emergency", "fatal"),
        ("alert", "fatal"),
        ("information", "info"),
        // pino and bunyan
        ("10", "trace"),
        ("20", "debug"),
        ("30", "info"),
        ("40", "warn"),
        ("50", "error"),
        ("60", "fatal"),
    ];
    NAMES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name.as_bytes())).map(|(_, level)| *level)
}
