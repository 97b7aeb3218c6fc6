//! Streams of lines through sockets: many writers, hostile ones among them, and what a crash leaves behind.

use std::io::{Read as _, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;

use tempfile::TempDir;

use crate::sidecar::{Setup, Sidecar, command, eventually, free_port};

const LINE: &[u8] = b"{\"level\":\"info\",\"msg\":\"m\"}\n";

/// A sidecar with a Unix socket `unix` and a TCP port `tcp`.
fn setup(sockets: &Path, port: u16, more: &str) -> Setup {
    Setup::default().config(&format!(
        r#"
state_dir: "${{BELLWETHER_STATE_DIR}}"
logs:
  max_line: 64KiB
  inputs:
    - {{ name: unix, unix: "{}", mode: "0600"{more} }}
    - {{ name: tcp, tcp: {port}{more} }}
"#,
        sockets.join("logs.sock").display()
    ))
}

fn start(more: &str) -> (Sidecar, TempDir, PathBuf, String) {
    let sockets = tempfile::tempdir().unwrap();
    let (path, port) = (sockets.path().join("logs.sock"), free_port());
    (setup(sockets.path(), port, more).start(), sockets, path, format!("127.0.0.1:{port}"))
}

fn outcome(sidecar: &Sidecar, input: &str, outcome: &str) -> f64 {
    sidecar.value(&format!("bellwether_log_lines_total{{input=\"{input}\",outcome=\"{outcome}\"}}")).unwrap()
}

fn event(sidecar: &Sidecar, input: &str, event: &str) -> f64 {
    sidecar.value(&format!("bellwether_log_connections_total{{input=\"{input}\",event=\"{event}\"}}")).unwrap()
}

#[track_caller]
fn wait_for_records(sidecar: &Sidecar, input: &str, count: f64) {
    eventually("records", || outcome(sidecar, input, "record"), |seen| *seen == count);
}

#[test]
fn many_writers_are_counted_each_line_once() {
    let (sidecar, _sockets, path, address) = start("");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    thread::scope(|scope| {
        for writer in 0..20 {
            let (path, address) = (&path, &address);
            scope.spawn(move || {
                let mut streams: [Box<dyn Write>; 2] =
                    [Box::new(UnixStream::connect(path).unwrap()), Box::new(TcpStream::connect(address).unwrap())];
                for stream in &mut streams {
                    let text = LINE.repeat(500);
                    // Cut anywhere; the last line has no end.
                    text[..text.len() - 1].chunks(97 + writer).for_each(|piece| stream.write_all(piece).unwrap());
                }
            });
        }
    });
    for input in ["unix", "tcp"] {
        wait_for_records(&sidecar, input, 10_000.0);
        assert_eq!(event(&sidecar, input, "accepted"), 20.0);
        let open = format!("bellwether_log_connections{{input=\"{input}\"}}");
        eventually("all are gone", || sidecar.value(&open), |open| *open == Some(0.0));
        assert_eq!((outcome(&sidecar, input, "malformed"), outcome(&sidecar, input, "unstructured")), (0.0, 0.0));
    }
}

#[test]
fn hostile_writers_hold_up_nobody() {
    let (sidecar, _sockets, path, address) = start("");
    let pid = sidecar.pid();
    let rss = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    // A byte now and then, no line end, and one that says nothing.
    let mut slow = TcpStream::connect(&address).unwrap();
    let _silent = UnixStream::connect(&path).unwrap();
    slow.write_all(b"{\"level\":").unwrap();
    // 1 GB without a line end, through both.
    let hostile: Vec<_> = [true, false]
        .into_iter()
        .map(|unix| {
            let (path, address) = (path.clone(), address.clone());
            thread::spawn(move || {
                let mut stream: Box<dyn Write> =
                    if unix { Box::new(UnixStream::connect(path).unwrap()) } else { Box::new(TcpStream::connect(address).unwrap()) };
                let block = vec![b'{'; 1 << 20];
                (0..1000).for_each(|_| stream.write_all(&block).unwrap());
                stream.write_all(b"\n").unwrap();
                stream.write_all(LINE).unwrap();
            })
        })
        .collect();
    let mut good = UnixStream::connect(&path).unwrap();
    for count in 1..=20 {
        good.write_all(LINE).unwrap();
        eventually("a good line", || outcome(&sidecar, "unix", "record"), |seen| *seen >= f64::from(count));
    }
    slow.write_all(b"\"info\"}\n").unwrap();
    hostile.into_iter().for_each(|writer| writer.join().unwrap());
    wait_for_records(&sidecar, "unix", 21.0);
    wait_for_records(&sidecar, "tcp", 2.0);
    for input in ["unix", "tcp"] {
        assert_eq!(outcome(&sidecar, input, "too_long"), 1.0);
        let too_long = format!("bellwether_log_malformed_total{{input=\"{input}\",reason=\"too_long\"}}");
        assert_eq!(sidecar.value(&too_long), Some(1.0));
    }
    assert!(rss() < 64 * 1024, "{} KiB", rss());
}

#[test]
fn bad_input_is_counted_by_its_reason() {
    let (sidecar, _sockets, path, _) = start("");
    let mut stream = UnixStream::connect(&path).unwrap();
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let lines: [&[u8]; 14] = [
        deep.as_bytes(),
        br#"{"level":"info","level":"warn"}"#,
        br#"{"\u006c\u0065vel":"info"}"#,
        br#"{"level":"info","n":1e999}"#,
        br#"{"level":"info","s":"\udc00"}"#,
        br#"{"level":"info","n":NaN}"#,
        b"{\"level\":\"info\",\"s\":\"\xff\"}",
        b"{\"level\":\"info\",\"s\":\"\x01\"}",
        br#"{"level":"info","s":"\q"}"#,
        b"\xef\xbb\xbf{\"level\":\"info\"}",
        b"\0\0\0{\"level\":\"info\"}\r",
        br#"{"level":"#,
        b"2026-04-04T09:06:00.1000000Z stderr P {\"level\":",
        b"{\"level\":\"info\"}}",
    ];
    for line in lines {
        stream.write_all(line).unwrap();
        stream.write_all(b"\n").unwrap();
    }
    drop(stream);
    let reason = |name: &str| sidecar.value(&format!("bellwether_log_malformed_total{{input=\"unix\",reason=\"{name}\"}}")).unwrap();
    eventually("the end", || reason("partial_dropped"), |dropped| *dropped == 1.0);
    for name in ["truncated", "syntax", "bad_escape", "control_character", "not_a_number", "too_deep"] {
        assert_eq!(reason(name), 1.0, "{name}");
    }
    for name in ["bad_utf8", "byte_order_mark", "zeros", "carriage_return", "lone_surrogate", "number_range"] {
        let series = format!("bellwether_log_repaired_total{{input=\"unix\",repair=\"{name}\"}}");
        assert_eq!(sidecar.value(&series), Some(1.0), "{name}");
    }
    assert_eq!(outcome(&sidecar, "unix", "record"), 7.0);
    assert_eq!(outcome(&sidecar, "unix", "malformed"), 6.0);
}

#[test]
fn beyond_the_limit_nobody_is_let_in_unless_a_silent_one_makes_room() {
    let (sidecar, _sockets, path, _) = start(", max_connections: 2, idle_timeout: 1h");
    let mut first = UnixStream::connect(&path).unwrap();
    let _second = UnixStream::connect(&path).unwrap();
    eventually("two", || event(&sidecar, "unix", "accepted"), |count| *count == 2.0);
    let mut third = UnixStream::connect(&path).unwrap();
    assert_eq!(third.read(&mut [0]).unwrap(), 0, "it is closed at once");
    eventually("one refused", || event(&sidecar, "unix", "refused"), |count| *count == 1.0);
    first.write_all(LINE).unwrap();
    wait_for_records(&sidecar, "unix", 1.0);
    drop(first);
    eventually("room", || sidecar.value("bellwether_log_connections{input=\"unix\"}"), |open| *open == Some(1.0));
    UnixStream::connect(&path).unwrap().write_all(LINE).unwrap();
    wait_for_records(&sidecar, "unix", 2.0);

    let (sidecar, _sockets, path, _) = start(", max_connections: 1, idle_timeout: 1ms");
    let mut silent = UnixStream::connect(&path).unwrap();
    silent.write_all(b"{\"level\":\"info\"}").unwrap();
    eventually("one", || event(&sidecar, "unix", "accepted"), |count| *count == 1.0);
    thread::sleep(std::time::Duration::from_millis(5));
    UnixStream::connect(&path).unwrap().write_all(LINE).unwrap();
    // What the silent one had begun counts: its connection has ended.
    wait_for_records(&sidecar, "unix", 2.0);
    assert_eq!((event(&sidecar, "unix", "idle"), event(&sidecar, "unix", "refused")), (1.0, 0.0));
}

#[test]
fn after_a_kill_the_socket_is_taken_over_and_counters_go_on() {
    let sockets = tempfile::tempdir().unwrap();
    let (path, port) = (sockets.path().join("logs.sock"), free_port());
    let sidecar = setup(sockets.path(), port, "").start();
    UnixStream::connect(&path).unwrap().write_all(&LINE.repeat(5)).unwrap();
    wait_for_records(&sidecar, "unix", 5.0);
    let written = || sidecar.value("bellwether_log_snapshot_timestamp_seconds").unwrap();
    let before = written();
    UnixStream::connect(&path).unwrap().write_all(LINE).unwrap();
    eventually("a snapshot after it", written, |now| *now > before && outcome(&sidecar, "unix", "record") == 6.0);
    thread::sleep(std::time::Duration::from_millis(1200));
    let folder = sidecar.kill();
    assert!(path.exists(), "what kill -9 leaves");

    let sidecar = setup(sockets.path(), port, "").folder(folder).start();
    UnixStream::connect(&path).unwrap().write_all(LINE).unwrap();
    wait_for_records(&sidecar, "unix", 7.0);
    // Another process cannot take a socket that is in use, and says so.
    let other = tempfile::tempdir().unwrap();
    let config = other.path().join("config.yaml");
    std::fs::write(&config, format!("state_dir: {}\nlogs: {{inputs: [{{name: u, unix: {}}}]}}\n", other.path().display(), path.display()))
        .unwrap();
    let output = command().args(["run", "--listen", &format!("127.0.0.1:{}", free_port()), "--config"]).arg(&config).output().unwrap();
    assert_eq!(output.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&output.stderr).contains("log input `u`"), "{output:?}");
    sidecar.stop();
    assert!(!path.exists(), "nothing is left behind");
}

#[test]
fn at_the_stop_what_was_sent_is_counted() {
    let (sidecar, _sockets, path, _) = start("");
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(LINE).unwrap();
    wait_for_records(&sidecar, "unix", 1.0);
    stream.write_all(&LINE.repeat(1000)).unwrap();
    let (status, folder) = sidecar.stop();
    assert_eq!(status.code(), Some(0));
    let sockets = tempfile::tempdir().unwrap();
    let sidecar = setup(sockets.path(), free_port(), "").folder(folder).start();
    wait_for_records(&sidecar, "unix", 1001.0);
}
