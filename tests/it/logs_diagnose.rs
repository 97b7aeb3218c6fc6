//! `bellwether logs explain|test|suggest|replay` as people run them, and the promises of `docs/logs.md` about them.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use crate::sidecar::command;

const DOCS: &str = "docs/logs.md";

#[track_caller]
fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command().args(arguments).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path
}

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/decisionbox").join(name)
}

/// The code block behind a heading or a sentence of the documentation.
fn block<'a>(docs: &'a str, behind: &str) -> &'a str {
    let rest = &docs[docs.find(behind).unwrap_or_else(|| panic!("{DOCS} has no `{behind}`"))..];
    let begin = rest.find("\n```").unwrap() + 1;
    let begin = begin + rest[begin..].find('\n').unwrap() + 1;
    &rest[begin..begin + rest[begin - 1..].find("\n```").unwrap()]
}

/// Explains the lines of one block of the documentation by the rules of another, and compares that with a third.
#[track_caller]
fn explained(rules: &str, lines: &str, heading: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCS);
    let docs = fs::read_to_string(&path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "config.yaml", block(&docs, rules));
    // In the documentation a byte that would act upon a terminal stands as an escape.
    let lines = block(&docs, lines).replace("\\e", "\u{1b}").replace("\\t", "\t");
    assert_eq!(lines.lines().count(), 10);
    let log = write(folder.path(), "app.log", &lines);
    let (code, said, error) = run(&["logs", "explain", "--config", config.to_str().unwrap(), log.to_str().unwrap()]);
    assert_eq!((code, error.as_str()), (0, ""));
    let said = format!("{}\n", said.trim_end());
    if std::env::var_os("BELLWETHER_BLESS").is_some() {
        let (before, behind) = docs.split_once(heading).unwrap();
        let behind = behind.split_once("\n```text\n").unwrap().1.split_once("```\n").unwrap().1;
        fs::write(&path, format!("{before}{heading}\n\n```text\n{said}```\n{behind}")).unwrap();
    } else {
        assert_eq!(said, block(&docs, heading), "BELLWETHER_BLESS=1 writes it anew");
    }
    lines
}

#[test]
fn the_documentation_shows_what_explain_says() {
    explained("## Rules\n", "Ten lines, one of each kind:", "`bellwether logs explain` says of them:");
    let lines = explained("with rules for them:", "rag-foundation (gunicorn):", "`bellwether logs explain` says of these:");
    let samples: String = ["decisionbox", "others"]
        .iter()
        .flat_map(|system| fs::read_dir(sample("..").join(system)).unwrap())
        .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    for line in lines.lines() {
        assert!(samples.lines().any(|sample| sample == line), "no program has written this: {line}");
    }
}

#[test]
fn the_tests_of_the_documentation_pass_and_a_wrong_value_is_said_with_its_place() {
    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCS)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let tests = block(&docs, "a configuration with tests.").strip_prefix("logs:\n").unwrap();
    let right = format!("{}{tests}", block(&docs, "## Rules\n"));
    let config = write(folder.path(), "config.yaml", &right);
    let config = config.to_str().unwrap();
    assert_eq!(run(&["logs", "test", "--config", config]), (0, "1 tests, 0 failed\n".to_owned(), String::new()));
    let (code, said, _) = run(&["check", "--config", config]);
    assert!(code == 0 && said.contains("1 log tests"), "{said}");

    fs::write(config, right.replace("\"503\"}': 1", "\"503\"}': 2").replace("\"other\"}': 0", "\"none\"}': 0")).unwrap();
    let (code, said, _) = run(&["logs", "test", "--config", config]);
    assert_eq!(code, 1);
    for part in [
        ":16:7: logs.tests.a failed request",
        "app_request_failures_total{status=\"503\"}: expected 2, found 1",
        "status=\"none\"}: expected 0, found not there",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (code, json, _) = run(&["logs", "test", "--json", "--config", config]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["failed"][0]["differences"][0]["found"]), (1, &serde_json::json!(1.0)));
    let (code, _, error) = run(&["check", "--config", config]);
    assert!(code == 78 && error.contains("1 of 1 tests of log rules fail") && error.contains("expected 2, found 1"), "{error}");

    fs::write(config, right.replace("{status=\"503\"}': 1", "{status=}': 1")).unwrap();
    let (code, _, error) = run(&["check", "--config", config]);
    assert!(code == 78 && error.contains("is no series"), "{error}");
}

#[test]
fn the_profile_passes_its_own_tests() {
    let (code, said, error) = run(&["logs", "test", "--profile", "decisionbox"]);
    assert_eq!((code, error.as_str()), (0, ""), "{said}");
    assert!(!said.starts_with("0 tests"), "{said}");
}

#[test]
fn an_explanation_names_the_place_the_rules_and_the_reasons() {
    let folder = tempfile::tempdir().unwrap();
    let lines =
        "{\"level\":\"info\",\"message\":\"Discovery run completed\",\"duration\":\"1m3s\"}\n\n{\"level\":\"info\",\"message\":x}\n";
    let log = write(folder.path(), "agent.log", lines);
    let log = log.to_str().unwrap();
    let (code, said, _) = run(&["logs", "explain", "--profile", "decisionbox", log]);
    assert_eq!(code, 0);
    for part in [
        "agent.log:1 byte 0: record: JSON\n",
        "  + decisionbox_discovery_duration_seconds 63\n",
        "  + decisionbox_log_lines_total{level=\"info\",service=\"other\"} 1\n",
        "  - decisionbox_exploration_duration_seconds: message is \"Discovery run completed\", not \"Exploration finished\"\n",
        "agent.log:2 byte 71: blank\n",
        "agent.log:3 byte 72: malformed\n  | {\"level\":\"info\",\"message\":x}\n  |                           ^ syntax at column 27\n",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let only = ["logs", "explain", "--profile", "decisionbox", "--rule", "decisionbox_discovery_duration_seconds", log];
    let (_, said, _) = run(&only);
    assert!(said.contains("+ decisionbox_discovery_duration_seconds 63") && !said.contains("decisionbox_log_lines_total"), "{said}");
    let (code, _, error) = run(&["logs", "explain", "--profile", "decisionbox", "--rule", "nope", log]);
    assert!(code == 64 && error.contains("no rule feeds the metric `nope`"), "{error}");
    let (_, json, _) = run(&["logs", "explain", "--profile", "decisionbox", "--json", log]);
    let documents: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(documents.len(), 3);
    assert_eq!((&documents[2]["fault"]["column"], &documents[2]["offset"]), (&serde_json::json!(27), &serde_json::json!(72)));
    let applied = documents[0]["record"]["rules"].as_array().unwrap().iter().filter(|rule| rule["applies"] == true).count();
    assert_eq!(applied, 2);
}

#[test]
fn suggestions_are_stable_accepted_and_green_on_the_log_they_were_made_from() {
    let folder = tempfile::tempdir().unwrap();
    let lines: String = (0..50)
        .map(|number| {
            let level = ["info", "info", "warn", "error"][number % 4];
            let message = ["started worker", "request done", "queue is full: 17 waiting", "payment failed"][number % 4];
            format!(
                "{{\"level\":\"{level}\",\"ts\":{},\"service\":\"api\",\"msg\":\"{message}\",\"elapsed_ms\":{},\"status\":{}}}\n",
                1_775_293_201 + number,
                number * 10,
                200 + number / 4 % 2
            )
        })
        .collect();
    let hostile = "{\"msg\":\"cost ${HOME} \\u0001 \\\"quoted\\\": x\",\"level\":\"error\"}\n{\"level\":\"x\\ny: z\",\"msg\":\"# {no} yaml: [\"}\nplain text\n";
    let log = write(folder.path(), "shop.api.log", format!("{lines}{hostile}"));
    let (code, proposed, error) = run(&["logs", "suggest", log.to_str().unwrap()]);
    assert_eq!((code, error.as_str()), (0, ""));
    assert_eq!(run(&["logs", "suggest", log.to_str().unwrap()]).1, proposed, "the same log gives the same text");
    for part in [
        "shop_log_lines_total",
        "shop_payment_failed_total",
        "shop_queue_is_full_total",
        "shop_request_done_duration_seconds",
        "unit: ms",
        "allow: [\"200\", \"201\"]",
    ] {
        assert!(proposed.contains(part), "{part}\n{proposed}");
    }
    let config = write(folder.path(), "proposed.yaml", &proposed);
    let config = config.to_str().unwrap();
    let (code, said, error) = run(&["check", "--config", config]);
    assert_eq!(code, 0, "{error}\n{proposed}");
    assert!(said.contains(" 1 log inputs, ") && said.contains(" 1 log tests, "), "{said}");
    let (code, said, _) = run(&["logs", "replay", "--config", config, log.to_str().unwrap()]);
    assert!(code == 0 && said.contains("shop_payment_failed_total{status=\"201\"} 6.0\n"), "{said}");

    for path in fs::read_dir(sample("")).unwrap().map(|entry| entry.unwrap().path()) {
        let (code, proposed, error) = run(&["logs", "suggest", path.to_str().unwrap()]);
        assert_eq!(code, 0, "{} {error}", path.display());
        let config = write(folder.path(), "sample.yaml", &proposed);
        let (code, _, error) = run(&["check", "--config", config.to_str().unwrap()]);
        assert_eq!(code, 0, "{}\n{error}\n{proposed}", path.display());
    }
    let nothing = write(folder.path(), "plain.log", "no form\nthat is known\n");
    let (code, _, error) = run(&["logs", "suggest", nothing.to_str().unwrap()]);
    assert!(code == 65 && error.contains("none of 2 lines is a record"), "{error}");
}

#[test]
fn a_replay_reads_compressed_files_and_the_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "{\"level\":\"info\",\"msg\":\"m\",\"caller\":\"log/log.go:1\"}\n".repeat(1000);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(lines.as_bytes()).unwrap();
    // Rotation programs append members; each is a part of the same log.
    let mut packed = gzip.finish().unwrap();
    packed.extend_from_within(..);
    let gzip = write(folder.path(), "a.log.1.gz", packed);
    let zstandard = write(folder.path(), "a.log.2.zst", zstd::encode_all(lines.as_bytes(), 0).unwrap());
    let plain = write(folder.path(), "a.log", &lines);
    let mut child = command()
        .args(["logs", "replay", "--profile", "decisionbox", "-"])
        .args([&gzip, &zstandard, &plain])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    for part in [
        "decisionbox_log_lines_total{level=\"info\",service=\"decisionbox-api\"} 5000.0\n",
        "bellwether_log_lines_total{input=\"a.log.1.gz\",outcome=\"record\"} 2000.0\n",
        "bellwether_log_lines_total{input=\"a.log.2.zst\",outcome=\"record\"} 1000.0\n",
        "bellwether_log_lines_total{input=\"-\",outcome=\"record\"} 1000.0\n",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let broken = write(folder.path(), "b.log.gz", [&fs::read(&gzip).unwrap()[..40], b"rest"].concat());
    let (code, _, error) = run(&["logs", "replay", "--profile", "decisionbox", broken.to_str().unwrap()]);
    assert!(code == 74 && error.contains("b.log.gz"), "{error}");
}
