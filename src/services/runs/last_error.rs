//! The last error that an agent wrote, found in the end of its output by the application's own rule: the last line that
//! is FATAL, else the last that is ERROR, else the last line. Pure.

use serde_json::Value;

/// As the application cuts a line that it does not understand.
const LONGEST_LINE: usize = 200;
/// An error may hold the whole answer of a provider.
const LONGEST_ERROR: usize = 2000;

/// The error in the last bytes of an output, of which the first line may be cut.
pub(super) fn last_error(tail: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(tail);
    let lines: Vec<String> = text.lines().rev().map(without_colours).filter(|line| !line.trim().is_empty()).collect();
    let of = |level: &str| lines.iter().find_map(|line| error_of(line, level));
    let found = of("FATAL").or_else(|| of("ERROR")).map(|error| cut(&error, LONGEST_ERROR));
    found.or_else(|| lines.first().map(|line| cut(line.trim(), LONGEST_LINE)))
}

/// The error of a line of this level, in JSON or on the console.
fn error_of(line: &str, level: &str) -> Option<String> {
    let text = |value: &Value, names: [&str; 2]| names.iter().find_map(|name| value.get(name)?.as_str().map(str::to_owned));
    if line.starts_with('{') {
        let value: Value = serde_json::from_str(line).ok()?;
        let is_of_level = text(&value, ["severity", "level"]).is_some_and(|found| found.eq_ignore_ascii_case(level));
        return is_of_level.then(|| text(&value, ["error", "message"])).flatten();
    }
    let (head, fields) = line.split_once("\t{").map_or((line, None), |(head, fields)| (head, Some(fields)));
    let mut parts = head.split('\t');
    if !parts.by_ref().any(|part| part == level) {
        return None;
    }
    let error =
        fields.and_then(|fields| serde_json::from_str(&format!("{{{fields}")).ok()).and_then(|value: Value| text(&value, ["error", "err"]));
    error.or_else(|| parts.next_back().map(str::to_owned))
}

fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        let code = after.strip_prefix('[').unwrap_or(after);
        rest = code.find(|c: char| c.is_ascii_alphabetic()).map_or("", |end| &code[end + 1..]);
    }
    plain.push_str(rest);
    plain.retain(|c| c == '\t' || !c.is_control());
    plain
}

fn cut(text: &str, most: usize) -> String {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::last_error;

    #[track_caller]
    fn check(output: &str, expected: Option<&str>) {
        assert_eq!(last_error(output.as_bytes()).as_deref(), expected);
    }

    #[test]
    fn the_last_error_is_found_in_each_form() {
        check("", None);
        check("\n \n", None);
        check("panic: runtime error\n", Some("panic: runtime error"));
        let json = concat!(
            r#"{"severity":"FATAL","message":"Discovery failed","error":"step 12: claude: overloaded","stacktrace":"a\n\tb"}"#,
            "\n",
            r#"{"severity":"ERROR","message":"later","error":"less important"}"#,
            "\nexit\n"
        );
        check(json, Some("step 12: claude: overloaded"));
        check("{\"level\":\"error\",\"message\":\"no field of that name\"}\nbye\n", Some("no field of that name"));
        let console = "2026-04-04T09:06:09.320Z\t\u{1b}[31mFATAL\u{1b}[0m\tlog/compat.go:78\tDiscovery failed\t{\"service\": \"a\", \"error\": \"step 3: x\"}\nmain.main\n\t/workspace/main.go:58\n";
        check(console, Some("step 3: x"));
        check("t\tERROR\tx.go:1\tno fields at all\n", Some("no fields at all"));
        check("cut off in the mid\u{1b}[31", Some("cut off in the mid"));
    }

    #[test]
    fn hostile_output_is_cut_and_steers_no_terminal() {
        let found = last_error(format!("\u{1b}]0;title\u{7}{}é\u{0}", "x".repeat(5000)).as_bytes()).expect("a line");
        assert!(found.len() <= 200 && !found.contains(char::is_control), "{found}");
        let long = format!("{{\"severity\":\"ERROR\",\"error\":\"{}\"}}", "é".repeat(5000));
        assert!(last_error(long.as_bytes()).expect("an error").len() <= 2000);
        assert!(last_error(&[0xff, 0xfe, b'\n', 0x80]).is_some());
    }
}
