//! Takes colours off. Pure.

/// What begins a sequence of a terminal.
const ESCAPE: u8 = 0x1b;

/// Whether there may be sequences of a terminal in a line.
#[must_use]
pub fn is_coloured(line: &[u8]) -> bool {
    memchr::memchr(ESCAPE, line).is_some()
}

/// The line without the sequences of a terminal: `ESC [ … letter`.
pub fn strip(line: &[u8], bare: &mut Vec<u8>) {
    bare.clear();
    let mut rest = line;
    while let Some(position) = memchr::memchr(ESCAPE, rest) {
        bare.extend_from_slice(&rest[..position]);
        rest = &rest[position + 1..];
        if let Some(sequence) = rest.strip_prefix(b"[") {
            let parameters = sequence.iter().take_while(|byte| matches!(byte, 0x20..=0x3f)).count();
            rest = sequence.get(parameters + 1..).unwrap_or_default();
        }
    }
    bare.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_taken_off_and_nothing_else() {
        let mut bare = Vec::new();
        for (line, expected) in [
            ("\x1b[2m2026-11-21\x1b[0m [\x1b[32m\x1b[1minfo     \x1b[0m] x", "2026-11-21 [info     ] x"),
            ("no colours", "no colours"),
            ("\x1b[38;5;12mx\x1b[K", "x"),
            ("cut \x1b[3", "cut "),
            ("\x1b", ""),
            ("a\x1bb", "ab"),
        ] {
            strip(line.as_bytes(), &mut bare);
            assert_eq!(String::from_utf8_lossy(&bare), expected, "{line:?}");
        }
    }
}
