//! Lines that belong to the line before: stack traces of Go, Python, Node and Java, panics and goroutine dumps. Pure.

use serde::{Deserialize, Serialize};

/// What the next line of a stream may go on with.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Following {
    /// Nothing: each line stands for itself.
    #[default]
    Nothing,
    /// The stack trace of an error on the console.
    Trace,
    /// A panic or a dump of goroutines.
    Panic,
    /// A traceback of Python.
    Traceback,
    /// The exception that a traceback has led to.
    Raised,
}

/// What begins a panic or a dump, whatever stood before it.
const BEGINNINGS: [&[u8]; 4] = [b"panic: ", b"fatal error: ", b"runtime: ", b"SIGQUIT: "];
/// Lines of a dump that are neither a function nor a place.
const WITHIN: [&[u8]; 5] = [b"created by ", b"[signal ", b"exit status ", b"goroutine ", b"..."];
/// What begins a traceback of Python, whatever stood before it.
const TRACEBACK: &[u8] = b"Traceback (most recent call last):";
/// What stands between an exception and the next one of its chain.
const CHAINS: [&[u8]; 2] = [
    b"During handling of the above exception, another exception occurred:",
    b"The above exception was the direct cause of the following exception:",
];

// === impl Following ===

impl Following {
    /// Whether a line goes on with what came before it. Changes what may come next.
    pub fn takes(&mut self, line: &[u8]) -> bool {
        if BEGINNINGS.iter().any(|beginning| line.starts_with(beginning)) || is_goroutine(line) {
            *self = Self::Panic;
            return true;
        }
        if is_traceback(line) {
            *self = Self::Traceback;
            return true;
        }
        let is_taken = match self {
            Self::Nothing => false,
            Self::Trace => is_place(line) || is_function(line) || line.starts_with(b"created by "),
            Self::Panic => {
                is_place(line) || is_function(line) || is_register(line) || WITHIN.iter().any(|beginning| line.starts_with(beginning))
            }
            Self::Traceback if is_exception(line) => {
                *self = Self::Raised;
                true
            }
            Self::Traceback => is_indented(line),
            Self::Raised => is_indented(line) || CHAINS.iter().any(|chain| line.starts_with(chain)),
        };
        if is_taken {
            return true;
        }
        *self = Self::Nothing;
        // Frames of Node and Java tell themselves, whatever was before them.
        is_frame(line)
    }

    /// A blank line ends a trace, but neither a dump nor a chain of exceptions: it stands within them.
    pub fn blank(&mut self) {
        if *self == Self::Trace {
            *self = Self::Nothing;
        }
    }
}

/// `goroutine 42 [running]:`
fn is_goroutine(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"goroutine ") else { return false };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && rest[digits..].starts_with(b" ") && memchr::memchr(b'[', rest).is_some()
}

/// `\t/workspace/services/agent/main.go:43 +0x1d`
fn is_place(line: &[u8]) -> bool {
    line.starts_with(b"\t") || line.starts_with(b"    ")
}

fn is_indented(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

/// `Traceback (most recent call last):`, also of a group.
fn is_traceback(line: &[u8]) -> bool {
    let line = line.trim_ascii_start();
    line.starts_with(TRACEBACK) || line.strip_prefix(b"+ Exception Group ").is_some_and(|line| line.starts_with(TRACEBACK))
}

/// `sqlalchemy.exc.OperationalError: connection refused`, or an exception without a text.
fn is_exception(line: &[u8]) -> bool {
    let end = line.iter().position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))).unwrap_or(line.len());
    let is_name = line.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
    is_name && (end == line.len() || line[end..].starts_with(b":"))
}

/// `    at Object.<anonymous> (/app/src/x.js:6:15)`, `\tat app.Main.main(Main.java:3)`
fn is_frame(line: &[u8]) -> bool {
    is_place(line) && line.trim_ascii_start().starts_with(b"at ")
}

/// `main.main`, `net/http.(*conn).serve(0xc000, {0x1, 0x2})`, `panic({0x5a6f80?, 0xc0000})`
fn is_function(line: &[u8]) -> bool {
    let name = &line[..memchr::memchr(b' ', line).unwrap_or(line.len())];
    let begins = name.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
    let has_arguments = line.ends_with(b")") && name.contains(&b'(');
    begins && (has_arguments || (name.len() == line.len() && name.contains(&b'.') && !name.ends_with(b".")))
}

/// `rax    0x0`
fn is_register(line: &[u8]) -> bool {
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let name = words.next().is_some_and(|name| name.len() <= 6 && name.iter().all(u8::is_ascii_alphanumeric));
    name && words.next().is_some_and(|value| value.starts_with(b"0x")) && words.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::Following;

    #[track_caller]
    fn check(mut following: Following, lines: &[(&str, bool)]) {
        for (line, taken) in lines {
            assert_eq!(following.takes(line.as_bytes()), *taken, "{line:?}");
        }
    }

    #[test]
    fn a_trace_ends_with_the_first_line_that_is_no_frame() {
        check(
            Following::Trace,
            &[
                ("github.com/decisionbox-io/decisionbox/services/api/internal/log.(*entry).Error", true),
                ("\t/workspace/services/api/internal/log/log.go:48", true),
                ("main.main.func1", true),
                ("created by main.start in goroutine 1", true),
                ("Usage of agent:", false),
                ("main.main", false),
            ],
        );
    }

    #[test]
    fn a_panic_needs_nothing_before_it() {
        check(
            Following::Nothing,
            &[
                ("main.main", false),
                ("panic: runtime error: invalid memory address or nil pointer dereference", true),
                ("[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x4a]", true),
                ("goroutine 1 [running]:", true),
                ("main.(*T).handle(0xc000010000, {0x7f, 0x3})", true),
                ("\t/workspace/main.go:58 +0x1d", true),
                ("panic({0x5a6f80?, 0xc000012345?})", true),
                ("rax    0x0", true),
                ("exit status 2", true),
                ("Failed to load config: MONGODB_URI is required", false),
                ("\t/workspace/main.go:58 +0x1d", false),
                ("goroutine 42 [chan receive, 3 minutes]:", true),
            ],
        );
        check(Following::Nothing, &[("goroutine leak found", false), ("2026/04/04 09:00:00 http: panic serving 1.2.3.4:5: x", false)]);
    }

    #[test]
    fn a_traceback_goes_on_to_its_last_exception() {
        check(
            Following::Nothing,
            &[
                ("Traceback (most recent call last):", true),
                ("  File \"/app/x.py\", line 5, in <module>", true),
                ("    try: 1/0", true),
                ("         ~^~", true),
                ("ZeroDivisionError: division by zero", true),
                ("During handling of the above exception, another exception occurred:", true),
                ("Traceback (most recent call last):", true),
                ("app.errors.Broken", true),
                ("  a note", true),
                ("something else", false),
                ("  File \"/app/x.py\", line 5, in <module>", false),
                ("ZeroDivisionError: division by zero", false),
            ],
        );
        let group = [
            ("  + Exception Group Traceback (most recent call last):", true),
            ("  |   File \"x.py\", line 1", true),
            ("  | ExceptionGroup: two (2 sub-exceptions)", true),
            ("  +-+---------------- 1 ----------------", true),
            ("    | ValueError: 1", true),
        ];
        check(Following::Nothing, &group);
    }

    #[test]
    fn a_blank_line_ends_a_trace_but_no_chain() {
        for (mut following, is_taken) in [(Following::Trace, false), (Following::Panic, true), (Following::Raised, true)] {
            following.blank();
            assert_eq!(following != Following::Nothing, is_taken, "{following:?}");
        }
    }

    #[test]
    fn frames_of_node_and_java_tell_themselves() {
        check(
            Following::Nothing,
            &[
                ("Error: boom", false),
                ("    at Object.<anonymous> (/app/src/x.js:6:15)", true),
                ("\tat app.Main.main(Main.java:3)", true),
                ("    at last", true),
                ("    prose", false),
            ],
        );
    }
}
