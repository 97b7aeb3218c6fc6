//! Logs through the whole sidecar: files that are written, rotated and broken while it runs, dies and comes back.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use tempfile::TempDir;

use crate::sidecar::{Setup, Sidecar, command, eventually, scrape};

const LINES: &str = "bellwether_log_lines_total{input=\"agent\",outcome=\"record\"}";

fn setup(folder: &Path) -> Setup {
    Setup::default().config(&format!(
        r#"
state_dir: "${{BELLWETHER_STATE_DIR}}"
logs:
  max_line: 64KiB
  inputs:
    - {{ name: agent, files: ["{0}/*.log"], start: beginning }}
  rules:
    - {{ metric: app_lines_total, type: counter, labels: {{ level: {{ field: level, allow: [info, error], else: other }} }} }}
    - {{ metric: app_duration_seconds, type: histogram, match: {{ message: done }}, value: {{ field: duration }}, buckets: [1, 10] }}
"#,
        folder.display()
    ))
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn lines(count: usize) -> String {
    (0..count).map(|number| format!("{{\"level\":\"info\",\"ts\":\"2026-04-04T09:00:00Z\",\"msg\":\"m\",\"n\":{number}}}\n")).collect()
}

#[track_caller]
fn wait_for(sidecar: &Sidecar, series: &str, value: f64) {
    eventually(series, || sidecar.value(series), |seen| *seen == Some(value));
}

#[test]
fn counters_and_offsets_survive_every_kind_of_end() {
    let logs = tempfile::tempdir().unwrap();
    let file = logs.path().join("agent.log");
    append(&file, &lines(1000));
    let sidecar = setup(logs.path()).start();
    wait_for(&sidecar, LINES, 1000.0);
    append(&file, &lines(500));
    wait_for(&sidecar, LINES, 1500.0);

    // Killed in the middle of a line; a rotation and more lines while nobody looks.
    append(&file, "{\"level\":\"error\",\"msg\":\"do");
    let folder = sidecar.kill();
    append(&file, "ne\",\"duration\":\"1.5s\"}\n");
    fs::rename(&file, logs.path().join("agent.log.1")).unwrap();
    append(&logs.path().join("agent.log.1"), &lines(10));
    append(&file, &lines(7));
    let sidecar = setup(logs.path()).folder(folder).start();
    wait_for(&sidecar, LINES, 1518.0);
    wait_for(&sidecar, "app_duration_seconds_count", 1.0);
    assert_eq!(sidecar.value("app_lines_total{level=\"error\"}"), Some(1.0));

    let (status, folder) = sidecar.stop();
    assert_eq!(status.code(), Some(0));
    append(&file, &lines(5));
    let sidecar = setup(logs.path()).folder(folder).start();
    wait_for(&sidecar, LINES, 1523.0);
    wait_for(&sidecar, "app_lines_total{level=\"info\"}", 1522.0);
}

#[test]
fn after_twenty_kills_under_load_each_line_has_been_counted_once() {
    let logs = tempfile::tempdir().unwrap();
    let file = logs.path().join("agent.log");
    let mut folder: Option<TempDir> = None;
    let mut written = 0;
    for round in 0..20 {
        let mut setup = setup(logs.path());
        if let Some(folder) = folder.take() {
            setup = setup.folder(folder);
        }
        let sidecar = setup.start();
        for part in 0..20 {
            append(&file, &lines(50));
            written += 50;
            if part % 7 == round % 7 {
                fs::rename(&file, logs.path().join(format!("{round}-{part}.old.log"))).unwrap();
            }
        }
        folder = Some(sidecar.kill());
    }
    let mut last = setup(logs.path());
    last = last.folder(folder.unwrap());
    let sidecar = last.start();
    wait_for(&sidecar, LINES, f64::from(written));
}

#[test]
fn a_hostile_log_is_counted_by_what_is_wrong_and_stops_nothing() {
    let logs = tempfile::tempdir().unwrap();
    let file = logs.path().join("agent.log");
    let sidecar = setup(logs.path()).start();
    let hostile: [&[u8]; 7] = [
        b"{\"level\":\"info\",\"msg\":\"ok\"}\n",
        b"{\"level\":\"info\",\"msg\":\n",
        b"\xff\xfe not text at all\n",
        b"{\"level\":\"info\",\"msg\":\"\xff\xfe\"}\n",
        b"\n",
        b"{\"level\":\"x\\\"}\\n# evil{a=\\\"b\\\"} 1\",\"msg\":\"m\"}\n",
        b"panic: runtime error\n",
    ];
    append(&file, "");
    let mut open = OpenOptions::new().append(true).open(&file).unwrap();
    hostile.iter().for_each(|line| open.write_all(line).unwrap());
    // 100 MB without a line break: memory stays flat, the line counts once, and the next one is read.
    let block = vec![b'x'; 1 << 20];
    (0..100).for_each(|_| open.write_all(&block).unwrap());
    open.write_all(b"\n{\"level\":\"error\",\"msg\":\"after\"}\n").unwrap();
    wait_for(&sidecar, "app_lines_total{level=\"error\"}", 1.0);
    let outcome = |outcome: &str| sidecar.value(&format!("bellwether_log_lines_total{{input=\"agent\",outcome=\"{outcome}\"}}")).unwrap();
    assert_eq!(outcome("too_long"), 1.0);
    assert_eq!(outcome("blank"), 1.0);
    assert_eq!(outcome("malformed") + outcome("unstructured") + outcome("continuation") + outcome("record"), 7.0);
    assert!(outcome("malformed") >= 1.0);
    let all: f64 = ["record", "continuation", "unstructured", "malformed", "too_long", "blank"].iter().map(|name| outcome(name)).sum();
    assert_eq!(all, 9.0);
    assert!(sidecar.value("process_resident_memory_bytes").unwrap() < 100e6, "memory stays flat");
    let metrics = sidecar.get("/metrics").body;
    assert!(!metrics.contains("evil"), "hostile text is no label");
}

#[test]
fn a_file_that_vanishes_and_one_that_cannot_be_read_are_said_and_counted() {
    let logs = tempfile::tempdir().unwrap();
    let file = logs.path().join("agent.log");
    append(&file, &lines(3));
    // A folder in the place of a file cannot be read by anybody, root included.
    fs::create_dir(logs.path().join("folder.log")).unwrap();
    let sidecar = setup(logs.path()).start();
    wait_for(&sidecar, LINES, 3.0);
    wait_for(&sidecar, "bellwether_log_file_errors_total{input=\"agent\",reason=\"not_a_file\"}", 1.0);
    assert!(sidecar.log().contains("folder.log"), "{}", sidecar.log());
    fs::remove_file(&file).unwrap();
    append(&logs.path().join("other.log"), &lines(2));
    wait_for(&sidecar, LINES, 5.0);
    assert_eq!(sidecar.get("/livez").status, 200);
}

#[test]
fn standard_input_is_read_to_its_end_and_the_sidecar_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("127.0.0.1:{}", crate::sidecar::free_port());
    let mut child = command()
        .args(["run", "--stdin", "--listen", &listen])
        .env("BELLWETHER_STATE_DIR", folder.path())
        .env("BELLWETHER_CONFIG", {
            let path = folder.path().join("config.yaml");
            fs::write(&path, "state_dir: \"${BELLWETHER_STATE_DIR}\"\n").unwrap();
            path
        })
        .stdin(std::process::Stdio::piped())
        .stderr(File::create(folder.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines(40).as_bytes()).unwrap();
    eventually(
        "the lines are counted after the end of the input",
        || scrape(&listen),
        |seen| seen.as_ref().is_some_and(|text| text.contains("bellwether_log_lines_total{input=\"stdin\",outcome=\"record\"} 40")),
    );
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_replay_needs_no_database_and_writes_an_exposition() {
    let logs = tempfile::tempdir().unwrap();
    let file = logs.path().join("agent.jsonl");
    let line = "{\"severity\":\"INFO\",\"timestamp\":\"2026-04-04T09:06:00.655Z\",\"caller\":\"log/compat.go:75\",\"message\":\"Discovery run completed\",\"service\":\"decisionbox-agent\",\"duration\":\"5m23.4s\"}\n";
    append(&file, line);
    let output = command().args(["logs", "replay", "--profile", "decisionbox"]).arg(&file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("decisionbox_discovery_duration_seconds_sum 323.4\n"), "{text}");
    assert!(text.contains("bellwether_log_lines_total{input=\"agent.jsonl\",outcome=\"record\"} 1"), "{text}");
    let missing = command().args(["logs", "replay", "--profile", "decisionbox", "/nonexistent.log"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(74));
}

#[test]
fn what_waits_for_its_finish_and_since_when_a_series_counts_survive_a_kill() {
    let logs = tempfile::tempdir().unwrap();
    let file = logs.path().join("agent.log");
    let setup = || {
        Setup::default().config(&format!(
            r#"
state_dir: "${{BELLWETHER_STATE_DIR}}"
logs:
  inputs: [{{ name: agent, files: ["{}/*.log"], start: beginning }}]
  rules:
    - metric: app_job_duration_seconds
      type: histogram
      pair: {{ start: {{ message: started }}, finish: {{ message: done }}, key: job, expire: 2h }}
      exemplar: {{ job: job }}
      buckets: [60]
      absent_after: 1h
    - {{ metric: app_requests_total, type: counter, labels: {{ path: {{ field: path, path_template: true }} }} }}
"#,
            logs.path().display()
        ))
    };
    let line = |message: &str, job: usize, second: usize| {
        format!("{{\"msg\":\"{message}\",\"job\":\"j{job}\",\"path\":\"/{message}\",\"ts\":\"2026-04-04T09:00:{second:02}.5Z\"}}\n")
    };
    let created = |sidecar: &Sidecar| -> Vec<String> {
        let text = sidecar.get_as("/metrics", "application/openmetrics-text; version=1.0.0").body;
        text.lines().filter(|line| line.starts_with("app_") && line.contains("_created")).map(str::to_owned).collect()
    };
    let (mut folder, mut before): (Option<TempDir>, Vec<String>) = (None, Vec::new());
    // Each process sees the starts of its own jobs and the finishes of those of the process before it.
    for round in 0..5 {
        let sidecar = folder.take().map_or_else(setup, |folder| setup().folder(folder)).start();
        let text: String = (0..10).map(|job| line("started", round * 10 + job, round)).collect();
        append(&file, &text);
        if round > 0 {
            let text: String = (0..10).map(|job| line("done", (round - 1) * 10 + job, round + 1)).collect();
            append(&file, &text);
        }
        let (finished, open) = (f64::from(u32::try_from(round * 10).unwrap()), 10.0);
        wait_for(&sidecar, "app_job_duration_seconds_count", finished);
        wait_for(&sidecar, "app_job_open", open);
        wait_for(&sidecar, "app_job_duration_seconds_sum", finished * 2.0);
        for reason in ["expired", "evicted", "restarted", "unmatched"] {
            assert_eq!(sidecar.value(&format!("app_job_unpaired_total{{reason=\"{reason}\"}}")), Some(0.0), "{reason}");
        }
        // It has an hour from the very first start on, however old the lines are.
        wait_for(&sidecar, "app_job_absent", 0.0);
        let now = created(&sidecar);
        assert!(now.len() >= before.len() && before.iter().all(|line| now.contains(line)), "{before:#?} {now:#?}");
        assert!(now.contains(&"app_requests_created{path=\"/started\"} 1775293200.500".to_owned()), "{now:#?}");
        before = now;
        if round == 4 {
            let text = sidecar.get_as("/metrics", "application/openmetrics-text; version=1.0.0").body;
            assert!(text.contains("app_job_duration_seconds_bucket{le=\"60.0\"} 40 # {job=\"j"), "{text}");
        }
        // A state that has been written; what came since then is read again.
        let failures = "bellwether_log_snapshot_failures_total";
        eventually("a snapshot", || sidecar.value("bellwether_log_snapshot_timestamp_seconds"), |seen| seen.is_some_and(|seen| seen > 0.0));
        assert_eq!(sidecar.value(failures), Some(0.0));
        folder = Some(sidecar.kill());
    }
}

/// Ends a writer, also when a test fails.
struct Over<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// T20 and T21: rules change while lines come; what cannot be used changes nothing.
#[test]
fn rules_are_reloaded_under_load_and_bad_ones_are_refused_with_their_place() {
    let logs = tempfile::tempdir().unwrap();
    let file = logs.path().join("agent.log");
    append(&file, "");
    let sidecar = setup(logs.path()).start();
    let rewrite = |change: &dyn Fn(String) -> String| {
        let file = sidecar.folder.path().join("bellwether.yaml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, change(text.clone())).unwrap();
        text
    };
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let over = Over(&is_over);
        let writer = scope.spawn(|| {
            let mut written = 0;
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                append(&file, &lines(50));
                written += 50;
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            written
        });
        let rule = "    - { metric: app_messages_total, type: counter, match: { message: m } }\n";
        rewrite(&|text| text + rule);
        eventually("the new rule counts", || sidecar.value("app_messages_total"), |seen| seen.is_some_and(|seen| seen > 0.0));
        assert_eq!(sidecar.value("bellwether_config_reload_success"), Some(1.0));
        assert!(!sidecar.log().contains("restart to use them"), "{}", sidecar.log());

        let good = rewrite(&|text| text.replace("type: histogram", "type: histgram"));
        eventually("it is refused", || sidecar.value("bellwether_config_reload_success"), |seen| *seen == Some(0.0));
        let log = sidecar.log();
        assert!(log.contains("bellwether.yaml:9:") && log.contains("found `histgram`"), "{log}");
        let said = log.lines().find(|line| line.contains("histgram")).unwrap();
        let said: serde_json::Value = serde_json::from_str(said).unwrap();
        let lines: Vec<&str> = said["message"].as_str().unwrap().lines().collect();
        assert_eq!(lines[3].find('^'), lines[2].find("histgram"), "the caret stands below the word: {lines:#?}");
        let before = sidecar.value("app_messages_total").unwrap();
        eventually("the old rules go on", || sidecar.value("app_messages_total"), |seen| seen.is_some_and(|seen| seen > before));

        rewrite(&|_| good.replace(rule, ""));
        eventually("the rule is gone", || sidecar.value("app_messages_total"), |seen| seen.is_none());
        drop(over);
        writer.join().unwrap()
    });
    wait_for(&sidecar, "app_lines_total{level=\"info\"}", f64::from(written));
    wait_for(&sidecar, LINES, f64::from(written));
    // One family each, whatever came and went.
    let text = sidecar.get("/metrics").body;
    let types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let distinct: std::collections::BTreeSet<&str> = types.iter().copied().collect();
    assert_eq!(types.len(), distinct.len(), "{types:?}");
    let folder = sidecar.kill();
    let sidecar = setup(logs.path()).folder(folder).start();
    wait_for(&sidecar, "app_lines_total{level=\"info\"}", f64::from(written));
}
