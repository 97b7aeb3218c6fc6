//! `bellwether run -- command`: what the command writes is counted and passed on unchanged, its end is ours.

use std::fs;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::sidecar::{command, eventually, free_port, scrape};

/// A sidecar in front of a shell script.
struct Front {
    command: Command,
    listen: String,
    folder: TempDir,
}

// === impl Front ===

impl Front {
    fn new(script: &str) -> Self {
        Self::of(&["/bin/sh", "-c", script], &[])
    }

    fn of(arguments: &[&str], options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listen = format!("127.0.0.1:{}", free_port());
        let file = folder.path().join("config.yaml");
        fs::write(&file, format!("state_dir: {}\n", folder.path().join("state").display())).unwrap();
        let mut command = command();
        command.args(["run", "--listen", &listen, "--config"]).arg(&file).args(options).arg("--").args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).env("PATH", "/usr/bin:/bin").current_dir(folder.path());
        Self { command, listen, folder }
    }

    fn start(&mut self) -> Child {
        self.command.spawn().unwrap()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn lines(&self, input: &str, outcome: &str) -> Option<f64> {
        let name = format!("bellwether_log_lines_total{{input=\"{input}\",outcome=\"{outcome}\"}} ");
        scrape(&self.listen)?.lines().find_map(|line| line.strip_prefix(&name))?.parse().ok()
    }
}

fn wait_for_file(path: &Path) {
    eventually("the command has begun", || path.exists(), |is_there| *is_there);
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn output_is_passed_on_byte_for_byte_and_the_exit_code_is_the_commands() {
    // Bytes that are no text, no line end at the end, a large part, both streams.
    let script = r#"head -c 300000 /dev/urandom | tee "$0.out"; printf 'tail \000\377' | tee -a "$0.out"; printf 'err\nhalf' | tee "$0.err" >&2; exit 42"#;
    let mut front = Front::of(&["/bin/sh", "-c", script], &[]);
    front.command.arg(front.path("sent"));
    let output = front.command.output().unwrap();
    assert_eq!(output.status.code(), Some(42));
    assert!(output.stdout == fs::read(front.path("sent.out")).unwrap(), "{} bytes", output.stdout.len());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "err\nhalf");
    assert_eq!(output.stderr, fs::read(front.path("sent.err")).unwrap());
}

#[test]
fn its_lines_are_counted_by_stream_and_can_be_scraped_after_its_end() {
    let script = r#"echo '{"level":"info","msg":"a"}'; echo '{"level":"error","msg":"b"}' >&2; printf '{"level":"info"}'"#;
    let mut front = Front::of(&["/bin/sh", "-c", script], &["--linger", "60s"]);
    let mut child = front.start();
    eventually("the last line without an end", || front.lines("stdout", "record"), |count| *count == Some(2.0));
    assert_eq!(front.lines("stderr", "record"), Some(1.0));
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_last_lines_of_a_command_are_kept_for_the_next_one() {
    let mut front = Front::new("for i in $(seq 1000); do echo '{\"level\":\"info\"}'; done; exit 3");
    assert_eq!(front.command.output().unwrap().status.code(), Some(3));
    assert_eq!(front.command.output().unwrap().status.code(), Some(3));
    let mut last = Front::of(&["/bin/sh", "-c", "sleep 60"], &[]);
    let file = last.path("config.yaml");
    fs::write(&file, format!("state_dir: {}\n", front.path("state").display())).unwrap();
    let mut child = last.start();
    eventually("the lines of both runs", || last.lines("stdout", "record"), |count| *count == Some(2000.0));
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn signals_reach_the_command_and_its_death_by_one_is_told() {
    let script = r#"for s in HUP USR1 USR2 INT; do trap "echo got $s" $s; done; trap 'echo got TERM; exit 7' TERM; : > ready; while :; do sleep 0.05; done"#;
    let mut front = Front::new(script);
    let mut child = front.start();
    wait_for_file(&front.path("ready"));
    let mut stdout = child.stdout.take().unwrap();
    let mut read_line = || {
        let mut line = Vec::new();
        let mut byte = [0];
        while byte != *b"\n" && stdout.read(&mut byte).unwrap() == 1 {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    };
    for (number, name) in
        [(Signal::HUP, "HUP"), (Signal::USR1, "USR1"), (Signal::USR2, "USR2"), (Signal::INT, "INT"), (Signal::TERM, "TERM")]
    {
        signal(&child, number);
        assert_eq!(read_line(), format!("got {name}\n"));
    }
    assert_eq!(child.wait().unwrap().code(), Some(7));

    let mut front = Front::new("kill -KILL $$");
    assert_eq!(front.command.output().unwrap().status.code(), Some(137));
    let mut front = Front::new("kill -SEGV $$");
    assert_eq!(front.command.output().unwrap().status.code(), Some(139));
}

#[test]
fn what_cannot_be_run_ends_as_in_a_shell() {
    let mut front = Front::of(&["/nonexistent/agent"], &[]);
    let output = front.command.output().unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot run /nonexistent/agent"), "{output:?}");
    let mut front = Front::of(&["./config.yaml"], &[]);
    assert_eq!(front.command.output().unwrap().status.code(), Some(126));
}

#[test]
fn a_reader_that_goes_away_or_stands_still_costs_no_line() {
    let script = r#"i=0; while [ $i -lt 20000 ]; do echo '{"level":"info","msg":"a line that fills the pipe soon"}'; i=$((i+1)); done; : > done; while [ ! -e end ]; do sleep 0.05; done; exit 5"#;
    // Goes away.
    let mut front = Front::new(script);
    let mut child = front.start();
    drop(child.stdout.take());
    drop(child.stderr.take());
    wait_for_file(&front.path("done"));
    eventually("all lines", || front.lines("stdout", "record"), |count| *count == Some(20_000.0));
    fs::write(front.path("end"), "").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));

    // Stands still, then reads on: nothing is lost, and the sidecar answers in between.
    let mut front = Front::new(script);
    let mut child = front.start();
    eventually("some lines", || front.lines("stdout", "record"), |count| count.is_some_and(|count| count > 100.0));
    assert!(!front.path("done").exists(), "the command waits for its reader, as it would without us");
    fs::write(front.path("end"), "").unwrap();
    let mut text = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut text).unwrap();
    assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 20_000);
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn a_frozen_reader_does_not_keep_the_sidecar_alive_after_the_command() {
    let script = "trap 'exit 9' TERM; : > ready; while :; do echo '{\"level\":\"info\"}'; done";
    let mut front = Front::new(script);
    let mut child = front.start();
    wait_for_file(&front.path("ready"));
    eventually("lines", || front.lines("stdout", "record"), |count| count.is_some_and(|count| count > 100.0));
    // The shell is frozen in its write; a kill is what an orchestrator has at last.
    let pids = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    let pid = Pid::from_raw(pids.split_whitespace().next().unwrap().parse().unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(137));
}

#[test]
fn our_own_log_stands_between_the_lines_of_the_command() {
    // Each signal makes one line of ours at level info.
    let script = r#"trap 'true' USR1; : > ready; i=0; while [ $i -lt 300 ]; do printf '{"n":' >&2; sleep 0.002; printf '%s}\n' $i >&2; i=$((i+1)); done"#;
    let mut front = Front::of(&["/bin/sh", "-c", script], &["--log", "info"]);
    let mut child = front.start();
    wait_for_file(&front.path("ready"));
    let mut stderr = child.stderr.take().unwrap();
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    });
    while child.try_wait().unwrap().is_none() {
        let _ = kill_process(Pid::from_child(&child), Signal::USR1);
        std::thread::sleep(std::time::Duration::from_millis(3));
    }
    let text = reading.join().unwrap();
    let (ours, its): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.contains("\"timestamp\""));
    let expected: Vec<String> = (0..300).map(|number| format!("{{\"n\":{number}}}")).collect();
    assert_eq!(its, expected);
    assert!(ours.iter().filter(|line| line.contains("handed on")).count() > 10, "{ours:?}");
    assert!(ours.iter().all(|line| line.starts_with('{') && line.ends_with('}')), "{ours:?}");
}

#[test]
fn no_zombie_is_left_where_we_are_the_first_process() {
    // A PID namespace of its own, as in a container; the orphan is given to us when its parent ends.
    let probe = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).status();
    assert!(probe.is_ok_and(|status| status.success()), "this test needs unshare(1) and the right to make a PID namespace");
    let script = "(sleep 0.2 & exec sleep 0.1) & sh -c 'sleep 0.2 &' ; sleep 1; ps -eo stat= > states; exit 4";
    let front = Front::new(script);
    let mut inside = Command::new("unshare");
    inside.args(["--pid", "--fork", "--mount-proc"]).arg(front.command.get_program()).args(front.command.get_args());
    inside.env_clear().env("PATH", "/usr/bin:/bin").current_dir(front.folder.path()).stdin(Stdio::null());
    let output = inside.output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let states = fs::read_to_string(front.path("states")).unwrap();
    assert!(!states.lines().any(|state| state.starts_with('Z')), "{states}");
}

#[test]
fn killed_with_kill_9_the_command_ends_by_its_broken_pipe_and_the_next_run_goes_on() {
    let mut front = Front::new("while :; do echo '{\"level\":\"info\"}' || exit 0; sleep 0.01; done");
    let mut child = front.start();
    let mut stdout = child.stdout.take().unwrap();
    std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    eventually("lines", || front.lines("stdout", "record"), |count| count.is_some_and(|count| count > 150.0));
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    // At most the last second is lost.
    let mut next = Front::of(&["/bin/sleep", "60"], &[]);
    fs::write(next.path("config.yaml"), format!("state_dir: {}\n", front.path("state").display())).unwrap();
    let mut child = next.start();
    let kept = eventually("the kept count", || next.lines("stdout", "record"), Option::is_some).unwrap();
    assert!(kept > 0.0, "{kept}");
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(143));
}
