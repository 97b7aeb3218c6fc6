//! Each form: a line, and exactly what is in it.

use super::parse;
use crate::series::record::Value;

/// Time, level, message, and fields as `name=value`.
#[track_caller]
fn check(line: &str, expected: [&str; 3], fields: &[&str]) {
    let text = parse(line.as_bytes()).unwrap_or_else(|| panic!("{line:?} has no form"));
    let found = [text.time, text.level, text.message].map(|part| String::from_utf8_lossy(part).into_owned());
    assert_eq!(found, expected, "{line:?}");
    for field in fields {
        let (name, value) = field.split_once('=').unwrap();
        let found = match text.get(&[name]) {
            Value::Null => "-".into(),
            found => found.text().unwrap().into_owned(),
        };
        assert_eq!(found, value, "{name} of {line:?}");
    }
}

#[test]
fn structlog() {
    let time = "2026-11-21 02:38:15";
    check(
        "2026-11-21 02:38:15 [info     ] Keyword search completed       query=auth flow results_count=10 search_time_ms=41.7",
        [time, "info", "Keyword search completed"],
        &["query=auth flow", "results_count=10", "search_time_ms=41.7", "logger=-"],
    );
    check(
        "2026-11-21 02:38:15 [warning  ] A message that is longer than thirty characters error=database is locked",
        [time, "warning", "A message that is longer than thirty characters"],
        &["error=database is locked"],
    );
    check(
        "2026-11-21T02:38:15.5Z [error    ] boom                           [app.db] code=None",
        ["2026-11-21T02:38:15.5Z", "error", "boom"],
        &["logger=app.db", "code=-"],
    );
    check("2026-11-21 02:38:15 [debug    ] alone", [time, "debug", "alone"], &[]);
}

#[test]
fn python_logging() {
    check(
        "2026-11-21 02:38:15,284 - app.db - WARNING - slow - very",
        ["2026-11-21 02:38:15,284", "WARNING", "slow - very"],
        &["logger=app.db"],
    );
    check("2026-11-21 02:38:15,284 - ERROR - oh", ["2026-11-21 02:38:15,284", "ERROR", "oh"], &[]);
    check("2026-11-21 02:38:15,284 INFO oh", ["2026-11-21 02:38:15,284", "INFO", "oh"], &[]);
    check("2026-11-21T02:38:15Z  WARN server: oh", ["2026-11-21T02:38:15Z", "WARN", "server: oh"], &[]);
    check("WARNING:app.db:slow: very", ["", "WARNING", "slow: very"], &["logger=app.db"]);
    check(
        "INFO  [alembic.runtime.migration] Context impl PostgresqlImpl.",
        ["", "INFO", "Context impl PostgresqlImpl."],
        &["logger=alembic.runtime.migration"],
    );
}

#[test]
fn uvicorn_and_gunicorn() {
    check("INFO:     Started server process [41]", ["", "INFO", "Started server process [41]"], &["client=-"]);
    check(
        "INFO:     127.0.0.1:52144 - \"GET /health?x=1 HTTP/1.1\" 200 OK",
        ["", "INFO", "127.0.0.1:52144 - \"GET /health?x=1 HTTP/1.1\" 200 OK"],
        &["client=127.0.0.1:52144", "method=GET", "path=/health", "protocol=HTTP/1.1", "status=200"],
    );
    check(
        "[2026-11-21 02:35:45 +0000] [3097] [INFO] Starting gunicorn 27.0.1",
        ["2026-11-21 02:35:45 +0000", "INFO", "Starting gunicorn 27.0.1"],
        &["pid=3097"],
    );
    check(
        "[2026-11-21 02:35:45 +0000] [9] [CRITICAL] WORKER TIMEOUT (pid:10)",
        ["2026-11-21 02:35:45 +0000", "CRITICAL", "WORKER TIMEOUT (pid:10)"],
        &[],
    );
}

#[test]
fn nginx() {
    check(
        "172.18.0.6 - alice [21/Nov/2026:02:38:15 +0000] \"POST /api/x?token=1 HTTP/2.0\" 502 157 \"-\" \"curl/8.5 (x)\" 0.003",
        ["21/Nov/2026:02:38:15 +0000", "", "POST /api/x?token=1 HTTP/2.0"],
        &["client=172.18.0.6", "method=POST", "path=/api/x", "status=502", "bytes=157", "referer=-", "user_agent=curl/8.5 (x)"],
    );
    check(
        "::1 - - [21/Nov/2026:02:38:15 +0000] \"\\x16\\x03\" 400 - \"https://a/\" \"-\"",
        ["21/Nov/2026:02:38:15 +0000", "", "\\x16\\x03"],
        &["client=::1", "status=400", "method=-", "bytes=-", "referer=https://a/", "user_agent=-"],
    );
    check(
        "2026/11/21 02:38:15 [error] 29#29: *1 connect() failed (111: Connection refused) while connecting to upstream, client: 10.0.0.1, server: _, request: \"GET /a HTTP/1.1\", upstream: \"http://10.0.0.2:80/a\", host: \"x\"",
        ["2026/11/21 02:38:15", "error", "connect() failed (111: Connection refused) while connecting to upstream"],
        &["client=10.0.0.1", "method=GET", "path=/a", "upstream=http://10.0.0.2:80/a", "host=x"],
    );
    check("2026/11/21 02:38:15 [notice] 1#1: start worker processes", ["2026/11/21 02:38:15", "notice", "start worker processes"], &[]);
}

#[test]
fn arq() {
    check("02:38:15: Starting worker for 3 functions: a, b", ["", "", "Starting worker for 3 functions: a, b"], &["duration=-"]);
    check(
        "02:38:15:   4.32s ← a1b2c3:index_document_job ●",
        ["", "", "  4.32s ← a1b2c3:index_document_job ●"],
        &["duration=4.32s", "job_id=a1b2c3", "function=index_document_job"],
    );
    check(
        "02:38:15:   0.10s ! a1:cron_job failed, ValueError: x",
        ["", "", "  0.10s ! a1:cron_job failed, ValueError: x"],
        &["function=cron_job", "mark=!"],
    );
    check("02:38:15:   0.36s → a1:index(doc='1')", ["", "", "  0.36s → a1:index(doc='1')"], &["function=index"]);
}

#[test]
fn logfmt() {
    check(
        r#"time="2026-11-21T02:38:15Z" level=warning msg="slow \"query\"" took=1.5s rows=10 ok=true none=null"#,
        ["", "", ""],
        &["level=warning", r#"msg=slow "query""#, "took=1.5s", "rows=10", "ok=true", "none=-"],
    );
}

#[test]
fn prose_has_no_form() {
    for line in [
        "Error: connect ECONNREFUSED",
        "error: something is wrong",
        "INFO",
        "FATALITY: no",
        "a=b",
        "a=b c=d",
        "level=info and then prose (x)",
        "msg=\"never ends",
        "[Keyword] Starting indexing for repositories: all enabled",
        "[Vector]   Indexed 128 files (1.3 MB) in 4.2s",
        "[2026-11-21 02:35:45 +0000] [x] [INFO] no pid",
        "2026/04/04 09:00:00 http: panic serving 10.0.0.1:5000: x",
        "2026/04/04 09:00:00 [notify] slack: timeout",
        "2026-04-04 is a day",
        "2026-04-04 09:00:00 and nothing else",
        "12:00:00 no colon",
        "HTTP Request: POST http://backend:3000/internal/callback \"HTTP/1.1 200 OK\"",
        "1.2.3.4 - - [21/Nov/2026:02:38:15 +0000] \"GET / HTTP/1.1\" abc",
        "  File \"/app/x.py\", line 1",
        "ValueError: x",
        "\u{1}",
    ] {
        assert!(parse(line.as_bytes()).is_none(), "{line:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_line_makes_it_panic(line in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80), form in 0_usize..9) {
        let begin = ["", "2026-11-21 02:38:15 [info     ] ", "2026-11-21 02:38:15,284 - ", "INFO:", "02:38:15: 1s ", "level=", "2026/11/21 02:38:15 [error] 1#1: ", "1.2.3.4 - - [21/Nov/2026:02:38:15 +0000] \"", "[2026-11-21 02:35:45 +0000] [1] "][form];
        if let Some(text) = parse(&[begin.as_bytes(), line.as_slice()].concat()) {
            let _ = text.get(&["a", "level", "status", "message"]);
        }
    }
}
