//! Lines of every form, through the whole decoder: what each is, and what the rules make of it.

use super::*;
use crate::config::environment::Environment;
use crate::config::{Request, load};
use crate::logs::fault::Reason;

/// The decoder with the rules of the profile, all facts told by logs.
fn decoder() -> (Decoder, Families) {
    let request = Request { profile: Some("decisionbox"), logs_only: true, ..Request::default() };
    let config = load(&request, &Environment::of([("MONGODB_URI", "mongodb://db")])).unwrap();
    let mut families = Families::default();
    let rules = RuleSet::compile(&config.logs.rules, &mut families).unwrap();
    (Decoder::new(rules, 1024 * 1024), families)
}

fn outcomes(lines: &[&str]) -> (Vec<Outcome>, Families) {
    let (mut decoder, mut families) = decoder();
    let mut framing = Framing::default();
    let outcomes = lines.iter().filter_map(|line| decoder.line(line.as_bytes(), &mut framing, &mut families)).collect();
    (outcomes, families)
}

#[track_caller]
fn check(lines: &[(&str, Outcome)]) -> Families {
    let texts: Vec<&str> = lines.iter().map(|(line, _)| *line).collect();
    let (found, families) = outcomes(&texts);
    let expected: Vec<Outcome> = lines.iter().map(|(_, outcome)| *outcome).collect();
    assert_eq!(found, expected);
    families
}

#[track_caller]
fn check_one(line: &str, metric: &str, labels: &[&str], value: f64) {
    let families = check(&[(line, Outcome::Record)]);
    assert_eq!(families.value(metric, labels), Some(value), "{line}");
}

const COMPLETED: &str = "decisionbox_discovery_duration_seconds";
const LINES: &str = "decisionbox_log_lines_total";

#[test]
fn all_forms_of_a_line_count_alike() {
    for line in [
        r#"{"severity":"INFO","timestamp":"2026-04-04T09:06:00.655Z","caller":"log/compat.go:75","message":"Discovery run completed","duration":"5m23.4s"}"#,
        r#"{"level":"info","ts":1775293560.655,"caller":"log/compat.go:75","msg":"Discovery run completed","duration":"5m23.4s"}"#,
        r#"{"level":30,"time":1775293560655,"caller":"log/compat.go:75","event":"Discovery\u0020run completed","duration":"5m23.4s"}"#,
        "2026-04-04T09:06:00.655Z\t\x1b[34mINFO\x1b[0m\tlog/compat.go:75\tDiscovery run completed\t{\"duration\": \"5m23.4s\"}",
        "[agent 7] 2026-04-04T09:06:00.655Z\tINFO\tlog/compat.go:75\tDiscovery run completed\t{\"duration\": \"5m23.4s\"}",
        r#"[agent 7] {"level":"info","caller":"log/compat.go:75","message":"Discovery run completed","duration":"5m23.4s"}"#,
        r#"2026-04-04T09:06:00.655123456Z stderr F {"level":"info","caller":"log/compat.go:75","message":"Discovery run completed","duration":"5m23.4s"}"#,
        r#"{"log":"{\"level\":\"info\",\"caller\":\"log/compat.go:75\",\"message\":\"Discovery run completed\",\"duration\":\"5m23.4s\"}\n","stream":"stderr","time":"2026-04-04T09:06:00.655Z"}"#,
        "\u{feff}{\"level\":\"info\",\"caller\":\"log/compat.go:75\",\"message\":\"Discovery run completed\",\"duration\":\"5m23.4s\"}\r",
        "\0\0\0{\"level\":\"info\",\"caller\":\"log/compat.go:75\",\"message\":\"Discovery run completed\",\"duration\":\"5m23.4s\"}  ",
    ] {
        check_one(line, COMPLETED, &[], 1.0);
        check_one(line, LINES, &["info", "decisionbox-agent"], 1.0);
    }
}

#[test]
fn a_stack_trace_belongs_to_its_error() {
    let families = check(&[
        ("2026-04-04T09:06:09.320Z\t\x1b[31mFATAL\x1b[0m\tlog/compat.go:78\tDiscovery failed\t{\"error\": \"x\"}", Outcome::Record),
        ("github.com/decisionbox-io/decisionbox/services/agent/internal/log.(*entry).Fatal", Outcome::Continuation),
        ("\t/workspace/services/agent/internal/log/compat.go:78", Outcome::Continuation),
        ("[agent 7] main.main", Outcome::Continuation),
        ("", Outcome::Blank),
        ("main.main", Outcome::Unstructured),
        ("panic: oh", Outcome::Continuation),
        ("", Outcome::Blank),
        ("goroutine 1 [running]:", Outcome::Continuation),
        ("main.main()", Outcome::Continuation),
        ("\t/workspace/main.go:58 +0x1d", Outcome::Continuation),
        ("2026-04-04T09:06:10.320Z\tINFO\tlog/compat.go:75\tnext", Outcome::Record),
        ("\t/workspace/main.go:58 +0x1d", Outcome::Unstructured),
    ]);
    assert_eq!(families.value(LINES, &["fatal", "decisionbox-agent"]), Some(1.0));
}

/// A rule's match is for what stands in the line: no line becomes an error that does not say so.
#[test]
fn a_level_is_what_the_line_says() {
    for line in
        ["02:38:15:   0.10s ! a1:cron_job failed, ValueError: x", "10.0.0.1 - - [21/Nov/2026:02:38:15 +0000] \"GET / HTTP/1.1\" 502 1"]
    {
        check_one(line, LINES, &["unknown", "other"], 1.0);
    }
    check(&[
        ("panic: oh", Outcome::Continuation),
        ("level=error msg=oh", Outcome::Record),
        ("Traceback (most recent call last):", Outcome::Continuation),
        ("ValueError: x", Outcome::Continuation),
        ("ValueError: x", Outcome::Unstructured),
        ("[agent 7] Traceback (most recent call last):", Outcome::Continuation),
        ("{\"level\":\"info\"}", Outcome::Record),
        ("ValueError: x", Outcome::Unstructured),
    ]);
}

#[test]
fn what_was_seen_in_text_is_shown() {
    let mut families = Families::default();
    let rules = RuleSet::compile(&[], &mut families).unwrap();
    let mut decoder = Decoder::new(rules, 1024);
    decoder.watch();
    for (line, form, fields) in [
        (
            r#"level=info msg="a \"b\"" n=007 x=1.5 ok=true none=null"#,
            "logfmt",
            r#"{"level":"info","msg":"a \"b\"","n":"007","x":1.5,"ok":true,"none":null}"#,
        ),
        ("\x1b[2m2026-11-21 02:38:15\x1b[0m [\x1b[32minfo     \x1b[0m] Done  \x1b[36mpath\x1b[0m=a b", "structlog", r#"{"path":"a b"}"#),
        ("[2026-11-21 02:35:45 +0000] [3097] [INFO] Starting", "gunicorn", r#"{"pid":3097}"#),
        ("2026-04-04T09:00:01Z\tINFO\tStarting\t{\"port\": 80}", "console", r#"{"port":80}"#),
    ] {
        decoder.line(line.as_bytes(), &mut Framing::default(), &mut families);
        let seen = decoder.take_seen();
        assert_eq!(seen.layers, [form]);
        let fields: serde_json::Value = serde_json::from_str(fields).unwrap();
        assert_eq!(serde_json::Value::Object(seen.record.unwrap().fields), fields, "{line:?}");
    }
}

/// How many records of each level a sample has, with all lines by their outcome.
#[track_caller]
fn check_sample(name: &str, outcomes: &str, levels: [u32; 4]) {
    let text = "profile: none\nlogs: {rules: [{metric: lines_total, type: counter, labels: {level: {field: level, allow: [info, warn, error, fatal], else: none}}}]}\n";
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    let config = load(&Request { file: Some(file.path()), ..Request::default() }, &Environment::default()).unwrap();
    let mut families = Families::default();
    let rules = RuleSet::compile(&config.logs.rules, &mut families).unwrap();
    let (mut decoder, mut framing) = (Decoder::new(rules, 1024 * 1024), Framing::default());
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/others").join(name);
    let bytes = std::fs::read(&path).unwrap();
    let found: String = bytes
        .strip_suffix(b"\n")
        .unwrap_or(&bytes)
        .split(|byte| *byte == b'\n')
        .map(|line| match decoder.line(line, &mut framing, &mut families).unwrap() {
            Outcome::Record => 'r',
            Outcome::Continuation => '.',
            Outcome::Unstructured => 'u',
            Outcome::Blank => ' ',
            Outcome::Malformed(_) | Outcome::TooLong | Outcome::Skipped => '!',
        })
        .collect();
    assert_eq!(found, outcomes, "{name}");
    let counted = ["info", "warn", "error", "fatal"].map(|level| families.value("lines_total", &[level]).unwrap_or(0.0));
    assert_eq!(counted, levels.map(f64::from), "{name}");
}

#[test]
fn every_sample_of_other_systems_is_explained() {
    check_sample("myragdb_json.log", "rrrrrrr", [2, 1, 3, 1]);
    // structlog, the traceback of its error, uvicorn, prints.
    check_sample("myragdb_structlog.log", "rrr.....rrruuu", [4, 1, 1, 0]);
    check_sample("brainly_pino.log", "rrrrrrrrrrr", [6, 1, 2, 2]);
    // The traceback is printed a second time, behind the line that holds it; httpx prints without a form.
    check_sample("ragbase_aiworker.log", "rrrrr.....ru", [3, 1, 2, 0]);
    check_sample("ragbase_backend_pino.log", &"r".repeat(26), [20, 1, 5, 0]);
    check_sample("ragfoundation_gunicorn.log", &"r".repeat(42), [42, 0, 0, 0]);
    check_sample("ragfoundation_stdout.log", "rrrrrrrrrrrr", [4, 5, 3, 0]);
    check_sample("ragfoundation_worker.log", "rr", [0, 0, 0, 0]);
}

#[test]
fn text_that_no_logger_wrote_is_unstructured() {
    check(&[
        ("2026/04/04 09:00:00 http: panic serving 10.0.0.1:5000: runtime error", Outcome::Unstructured),
        ("2026/04/04 09:00:00 [notify] slack: timeout", Outcome::Unstructured),
        ("Failed to load config: MONGODB_URI is required", Outcome::Unstructured),
        ("Usage of /app/agent:", Outcome::Unstructured),
        ("  -project-id string", Outcome::Unstructured),
        ("\u{fffd}\u{1}\u{2}", Outcome::Unstructured),
        (r#"{"severity":"INFO","message":"cut o"#, Outcome::Malformed(Fault { reason: Reason::Truncated, at: 35 })),
        (
            "2026-04-04T09:06:10.320Z\tINFO\tlog/compat.go:75\tnext\t{\"a\": ",
            Outcome::Malformed(Fault { reason: Reason::Truncated, at: 57 }),
        ),
        ("2026-04-04T09:06:10.320Z\tINFO\tlog/compat.go:75\ttemplate\t{{x}}", Outcome::Record),
        ("   \t ", Outcome::Blank),
        ("[agent 7] ", Outcome::Blank),
    ]);
}

#[test]
fn parts_of_a_line_are_joined_and_counted_once() {
    let (found, families) = outcomes(&[
        r#"2026-04-04T09:06:00.1Z stderr P {"severity":"WARN","caller":"log/compat"#,
        "2026-04-04T09:06:00.1000000Z stdout P plain ",
        r#"2026-04-04T09:06:00.1Z stderr P .go:76","mess"#,
        r#"2026-04-04T09:06:00.1Z stderr F age":"Query failed"}"#,
        "2026-04-04T09:06:00.1000000Z stdout F text",
        r#"{"log":"{\"level\":\"war","stream":"stderr","time":"2026-04-04T09:06:00.655Z"}"#,
        r#"{"log":"n\",\"caller\":\"log/compat.go:76\"}\n","stream":"stderr","time":"2026-04-04T09:06:00.655Z"}"#,
    ]);
    assert_eq!(found, [Outcome::Record, Outcome::Unstructured, Outcome::Record]);
    assert_eq!(families.value(LINES, &["warn", "decisionbox-agent"]), Some(2.0));
}

#[test]
fn every_sample_is_explained() {
    for (name, records, continuations) in [
        ("agent_prod.jsonl", 40, 0),
        ("api_prod.jsonl", 35, 0),
        ("agent_dev_console_ansi.txt", 40, 30),
        ("api_dev_console_ansi.txt", 35, 36),
        ("api_stderr_tee_prefix.txt", 8, 0),
    ] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/decisionbox").join(name);
        let text = std::fs::read(&path).unwrap();
        let text = String::from_utf8(text).unwrap();
        let (found, _) = outcomes(&text.lines().collect::<Vec<_>>());
        let count = |outcome| found.iter().filter(|found| **found == outcome).count();
        assert_eq!(
            (count(Outcome::Record), count(Outcome::Continuation), found.len()),
            (records, continuations, records + continuations),
            "{name}"
        );
    }
}

/// The reason, and the byte at which it was noticed.
#[track_caller]
fn check_fault(line: &str, reason: Reason, at: usize) {
    check(&[(line, Outcome::Malformed(Fault { reason, at }))]);
}

#[test]
fn what_is_wrong_with_a_line_is_told_with_its_place() {
    check_fault(r#"{"a":"#, Reason::Truncated, 5);
    check_fault(r#"{"a":"x"#, Reason::Truncated, 7);
    check_fault(r#"{"a":tru"#, Reason::Truncated, 8);
    check_fault(r#"{"a":"\u00"#, Reason::Truncated, 10);
    check_fault(r#"{"a":1}}"#, Reason::Syntax, 7);
    check_fault(r#"{"a":True}"#, Reason::Syntax, 5);
    check_fault(r#"{"a":"\x"}"#, Reason::BadEscape, 7);
    check_fault(r#"{"a":"\u00g0"}"#, Reason::BadEscape, 10);
    check_fault(r#"{"a":"\ud800\uzzzz"}"#, Reason::BadEscape, 14);
    check_fault("{\"a\":\"\t\"}", Reason::ControlCharacter, 6);
    check_fault(r#"{"a":NaN}"#, Reason::NotANumber, 5);
    check_fault(r#"{"a":[-Infinity]}"#, Reason::NotANumber, 7);
    check_fault(&format!("{{\"a\":{}", "[".repeat(10_000)), Reason::TooDeep, 131);
    check_fault("{\"a\":{\"b\":", Reason::Truncated, 10);
    // Within what runtimes and runners put around it.
    check_fault(r#"  2026-04-04T09:06:00.1Z stderr F [agent 7] {"a":nix}"#.trim_start(), Reason::Syntax, 48);
    check_fault("\u{feff}[agent 7] {\"a\":1", Reason::Truncated, 19);
    check_fault(r#"{"log":"{\"a\":?}\n","stream":"stderr","time":"t"}"#, Reason::Syntax, 5);
}

#[test]
fn what_was_put_right_is_counted_and_the_line_too() {
    for (line, name) in [
        (&b"{\"a\":\"\xff\"}"[..], "bad_utf8"),
        (b"\xef\xbb\xbf{}", "byte_order_mark"),
        (b"\0\0{}", "zeros"),
        (b"{}\r", "carriage_return"),
        (br#"{"level":"info","level":"warn"}"#, "duplicate_key"),
        (br#"{"http":{"status":1},"http":{"status":2}}"#, ""),
        (br#"{"message":"\ud800"}"#, "lone_surrogate"),
        (br#"{"message":"\udc00\ud800"}"#, "lone_surrogate"),
        (br#"{"message":"\ud83d\ude00"}"#, ""),
        (br#"{"duration":1e400}"#, "number_range"),
        (br#"{"duration":-1e308}"#, ""),
        (br#"{"\u006c\u0065vel":"info"}"#, ""),
    ] {
        let (mut decoder, mut families) = decoder();
        let (mut lines, mut framing) = (Lines::default(), Framing::default());
        let tally = decoder.feed(&[line, b"\n"].concat(), &mut lines, &mut framing, &mut families);
        let found: Vec<&str> =
            Oddities::NAMES.into_iter().zip(tally.oddities).filter(|(_, count)| *count > 0).map(|(name, _)| name).collect();
        assert_eq!((found.join(","), tally.outcomes[0]), (name.to_owned(), 1), "{}", String::from_utf8_lossy(line));
    }
}

#[test]
fn bytes_that_are_no_utf8_are_replaced() {
    let (mut decoder, mut families) = decoder();
    let mut framing = Framing::default();
    let line = b"{\"level\":\"info\",\"caller\":\"log/log.go:1\xff\",\"message\":\"\xc3\x28\"}";
    assert_eq!(decoder.line(line, &mut framing, &mut families), Some(Outcome::Record));
    assert_eq!(families.value(LINES, &["info", "decisionbox-api"]), Some(1.0));
    assert_eq!(decoder.line(b"\xff\xfe\x00x", &mut framing, &mut families), Some(Outcome::Unstructured));
}

proptest::proptest! {
    #[test]
    fn no_line_makes_it_panic(lines in proptest::collection::vec(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80), 0..8), form in 0_usize..5) {
        let (mut decoder, mut families) = decoder();
        let mut framing = Framing::default();
        let begin = ["", "{\"log\":\"", "2026-04-04T09:06:00.1000000Z stdout P ", "[agent x] ", "2026-04-04T09:06:10.320Z\tINFO\t"][form];
        for line in lines {
            decoder.line(&[begin.as_bytes(), line.as_slice()].concat(), &mut framing, &mut families);
        }
    }
}
