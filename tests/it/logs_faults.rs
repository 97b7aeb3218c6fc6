//! Logs while the machine fails: a full, failing or read-only state volume, watches that run out, events that are lost,
//! ten thousand files, a line of a gigabyte, a clock that jumps.

use std::fs::{self, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::namespace::{alone, fill, mount};
use crate::sidecar::{Setup, Sidecar, command, eventually, free_port, scrape};

const LINES: &str = "bellwether_log_lines_total{input=\"agent\",outcome=\"record\"}";
const FAILURES: &str = "bellwether_log_snapshot_failures_total";
const WRITTEN: &str = "bellwether_log_snapshot_timestamp_seconds";
const OPEN: &str = "bellwether_log_files{input=\"agent\"}";

fn setup(logs: &Path) -> Setup {
    Setup::default().config(&format!(
        r#"
state_dir: "${{BELLWETHER_STATE_DIR}}"
logs:
  inputs:
    - {{ name: agent, files: ["{0}/**/*.log"], start: beginning }}
  rules:
    - {{ metric: app_lines_total, type: counter }}
    - {{ metric: app_requests_total, type: counter, match: {{ path: {{ exists: true }} }}, labels: {{ path: {{ field: path, path_template: true }} }}, limit: 5000 }}
    - metric: app_job_duration_seconds
      type: histogram
      pair: {{ start: {{ message: started }}, finish: {{ message: done }}, key: job, expire: 2h }}
      buckets: [60]
"#,
        logs.display()
    ))
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn lines(count: usize) -> String {
    (0..count).map(|number| format!("{{\"level\":\"info\",\"msg\":\"m\",\"n\":{number}}}\n")).collect()
}

#[track_caller]
fn wait_for(sidecar: &Sidecar, series: &str, value: f64) {
    eventually(series, || sidecar.value(series), |seen| *seen == Some(value));
}

/// A folder for a sidecar, whose state is on a small volume of its own.
fn on_small_volume() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    mount(&["-t", "tmpfs", "-o", "size=256k", "tmpfs"], &state);
    (folder, state)
}

/// T18: the volume of the state is full, from the start and later on: it is said, lines are counted on, and a kill in that
/// time loses nothing; when there is room again, the state is kept again.
#[test]
fn t18_a_full_volume_loses_nothing_and_is_written_to_when_there_is_room_again() {
    alone("logs_faults::t18_a_full_volume_loses_nothing_and_is_written_to_when_there_is_room_again", async || {
        let logs = tempfile::tempdir().unwrap();
        let file = logs.path().join("agent.log");
        append(&file, &lines(100));
        let (folder, state) = on_small_volume();
        let filler = fill(&state);
        let sidecar = setup(logs.path()).folder(folder).start();
        wait_for(&sidecar, LINES, 100.0);
        eventually("it is said", || sidecar.value(FAILURES), |seen| seen.is_some_and(|seen| seen > 0.0));
        append(&file, &lines(10));
        wait_for(&sidecar, LINES, 110.0);
        let sidecar = setup(logs.path()).folder(sidecar.kill()).start();
        wait_for(&sidecar, LINES, 110.0);

        fs::remove_file(&filler).unwrap();
        append(&file, &lines(10));
        eventually("it is kept", || sidecar.value(WRITTEN), |seen| seen.is_some_and(|seen| seen > 0.0));
        wait_for(&sidecar, LINES, 120.0);

        // Full again, and then a state that needs more room than the one that is there.
        let filler = fill(&state);
        let failures = sidecar.value(FAILURES).unwrap();
        let requests: String = (0..2000).map(|number| format!("{{\"msg\":\"m\",\"path\":\"/p{}\"}}\n", letters(number))).collect();
        append(&file, &requests);
        wait_for(&sidecar, LINES, 2120.0);
        eventually("it is said", || sidecar.value(FAILURES), |seen| seen.is_some_and(|seen| seen > failures));
        let sidecar = setup(logs.path()).folder(sidecar.kill()).start();
        wait_for(&sidecar, LINES, 2120.0);
        wait_for(&sidecar, "app_requests_total{path=\"/paaa\"}", 1.0);
        assert_eq!(sidecar.get("/livez").status, 200);

        fs::remove_file(&filler).unwrap();
        append(&file, &lines(1));
        eventually("it is kept", || sidecar.value(WRITTEN), |seen| seen.is_some_and(|seen| seen > 0.0));
        wait_for(&sidecar, LINES, 2121.0);
        let sidecar = setup(logs.path()).folder(sidecar.kill()).start();
        wait_for(&sidecar, LINES, 2121.0);
        assert_eq!(sidecar.value(FAILURES), Some(0.0));
    });
}

/// T18: writes succeed and the disk says at the flush that they have failed. It is said, the other state is left alone, and a
/// kill in that time counts nothing twice.
#[test]
fn t18_a_disk_that_fails_when_it_flushes_loses_nothing() {
    let (logs, faults) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (file, failing) = (logs.path().join("agent.log"), faults.path().join("failing"));
    let library = failing_sync(faults.path());
    let start = |folder| {
        let setup = setup(logs.path()).folder(folder);
        setup.variable("LD_PRELOAD", library.to_str().unwrap()).variable("FAILING_SYNC", failing.to_str().unwrap()).start()
    };
    append(&file, &lines(100));
    let sidecar = start(tempfile::tempdir().unwrap());
    wait_for(&sidecar, LINES, 100.0);
    eventually("it is kept", || sidecar.value(WRITTEN), |seen| seen.is_some_and(|seen| seen > 0.0));
    assert_eq!(sidecar.value(FAILURES), Some(0.0));

    fs::write(&failing, "").unwrap();
    append(&file, &lines(10));
    wait_for(&sidecar, LINES, 110.0);
    eventually("it is said", || sidecar.value(FAILURES), |seen| seen.is_some_and(|seen| seen >= 2.0));
    assert!(sidecar.log().contains("the log state is not kept") && sidecar.log().contains("os error 5"), "{}", sidecar.log());
    assert_eq!(sidecar.get("/livez").status, 200);
    let sidecar = start(sidecar.kill());
    wait_for(&sidecar, LINES, 110.0);

    let kept = sidecar.value(WRITTEN);
    fs::remove_file(&failing).unwrap();
    append(&file, &lines(10));
    eventually("it is kept again", || sidecar.value(WRITTEN), |seen| *seen > kept && seen.is_some_and(|seen| seen > 0.0));
    wait_for(&sidecar, LINES, 120.0);
    let sidecar = start(sidecar.kill());
    wait_for(&sidecar, LINES, 120.0);
    assert_eq!(sidecar.value(FAILURES), Some(0.0));
}

/// A library for `LD_PRELOAD`: while the file that `FAILING_SYNC` names is there, all flushes to the disk fail. Linking
/// needs the C compiler that makes it.
fn failing_sync(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("failing_sync.c"), folder.join("failing_sync.so"));
    let function = |name: &str| {
        format!(
            "int {name}(int file) {{\n  const char *failing = getenv(\"FAILING_SYNC\");\n  if (failing && access(failing, F_OK) == 0) {{ errno = EIO; return -1; }}\n  return syscall(SYS_{name}, file);\n}}\n"
        )
    };
    let includes = "#include <errno.h>\n#include <stdlib.h>\n#include <sys/syscall.h>\n#include <unistd.h>\n";
    fs::write(&source, format!("{includes}{}{}", function("fsync"), function("fdatasync"))).unwrap();
    let output = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// Three letters for a number: digits would be a template's `{id}`.
fn letters(number: usize) -> String {
    [number / 676, number / 26 % 26, number % 26].iter().map(|digit| char::from(b'a' + u8::try_from(*digit).unwrap())).collect()
}

/// T19: a state volume that is read only is said, and the sidecar does its work without a memory.
#[test]
fn t19_a_read_only_volume_is_said_and_lines_are_counted() {
    alone("logs_faults::t19_a_read_only_volume_is_said_and_lines_are_counted", async || {
        let logs = tempfile::tempdir().unwrap();
        let file = logs.path().join("agent.log");
        append(&file, &lines(10));
        let (folder, state) = on_small_volume();
        let sidecar = setup(logs.path()).folder(folder).start();
        wait_for(&sidecar, LINES, 10.0);
        assert_eq!(sidecar.value("bellwether_state_persistent"), Some(1.0));
        let (_, folder) = sidecar.stop();
        mount(&["-o", "remount,ro"], &state);
        let sidecar = setup(logs.path()).folder(folder).start();
        append(&file, &lines(5));
        wait_for(&sidecar, LINES, 15.0);
        assert_eq!(sidecar.value("bellwether_state_persistent"), Some(0.0));
        assert!(sidecar.log().contains("the state folder cannot be written to"), "{}", sidecar.log());
        let (_, folder) = sidecar.stop();
        // It goes on from what was kept last, as if nobody had looked in between.
        mount(&["-o", "remount,rw"], &state);
        let sidecar = setup(logs.path()).folder(folder).start();
        wait_for(&sidecar, LINES, 15.0);
        assert_eq!(sidecar.value("bellwether_state_persistent"), Some(1.0));
    });
}

/// T19: a volume that turns read only while the sidecar runs, as a file system does after an error.
#[test]
fn t19_a_volume_that_turns_read_only_is_said_and_lines_are_counted_on() {
    alone("logs_faults::t19_a_volume_that_turns_read_only_is_said_and_lines_are_counted_on", async || {
        let logs = tempfile::tempdir().unwrap();
        let file = logs.path().join("agent.log");
        append(&file, &lines(10));
        let (folder, state) = on_small_volume();
        let sidecar = setup(logs.path()).folder(folder).start();
        wait_for(&sidecar, LINES, 10.0);
        eventually("it is kept", || sidecar.value(WRITTEN), |seen| seen.is_some_and(|seen| seen > 0.0));
        // Over the volume itself, which cannot be made so while a lock is held in it.
        mount(&["--bind", state.to_str().unwrap()], &state);
        mount(&["-o", "remount,bind,ro"], &state);
        append(&file, &lines(5));
        wait_for(&sidecar, LINES, 15.0);
        eventually("it is said", || sidecar.value(FAILURES), |seen| seen.is_some_and(|seen| seen > 0.0));
        assert!(sidecar.log().contains("Read-only file system"), "{}", sidecar.log());
        assert_eq!(sidecar.get("/livez").status, 200);
        mount(&["-o", "remount,bind,rw"], &state);
        let failures = sidecar.value(FAILURES);
        append(&file, &lines(5));
        wait_for(&sidecar, LINES, 20.0);
        let kept = sidecar.value(WRITTEN);
        eventually("it is kept again", || sidecar.value(WRITTEN), |seen| *seen > kept);
        assert!(sidecar.value(FAILURES) <= failures.map(|failures| failures + 1.0));
        let sidecar = setup(logs.path()).folder(sidecar.kill()).start();
        wait_for(&sidecar, LINES, 20.0);
    });
}

/// T29: more happens than the kernel keeps for us: that is counted, and a look at everything finds what it has not told.
#[test]
fn t29_a_queue_that_overflows_hides_nothing() {
    let logs = tempfile::tempdir().unwrap();
    let file = |name: &str| logs.path().join(name);
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    append(&file("a.log"), &lines(1));
    append(&file("b.log"), &lines(1));
    let sidecar = setup(logs.path()).start();
    wait_for(&sidecar, LINES, 2.0);
    sidecar.freeze();
    let mut files = ["a.log", "b.log"].map(|name| OpenOptions::new().append(true).open(file(name)).unwrap());
    let line = lines(1);
    // In turns: what is the same as the event before it is not queued.
    for number in 0..limit + 100 {
        files[number % 2].write_all(line.as_bytes()).unwrap();
    }
    // From here on the kernel tells of nothing.
    fs::rename(file("a.log"), file("a.log.1")).unwrap();
    append(&file("a.log"), &lines(7));
    append(&file("c.log"), &lines(11));
    sidecar.signal(Signal::CONT);
    #[expect(clippy::cast_precision_loss, reason = "some ten thousand lines")]
    wait_for(&sidecar, LINES, (2 + limit + 100 + 7 + 11) as f64);
    // It comes behind all that was kept.
    wait_for(&sidecar, "bellwether_log_watch_overflows_total", 1.0);
    assert_eq!(sidecar.value("bellwether_log_rotations_total{input=\"agent\",kind=\"rename\"}"), Some(1.0));
    assert_eq!(sidecar.value("bellwether_log_lost_bytes_total{input=\"agent\"}"), Some(0.0));
    // It hears of changes as before.
    append(&file("c.log"), &lines(1));
    #[expect(clippy::cast_precision_loss, reason = "some ten thousand lines")]
    wait_for(&sidecar, LINES, (2 + limit + 100 + 7 + 12) as f64);
}

/// T29: the kernel has no more watches to give: that is said, and the sweeps find everything, rotations included.
#[test]
fn t29_without_watches_sweeps_find_everything() {
    alone("logs_faults::t29_without_watches_sweeps_find_everything", async || {
        let logs = tempfile::tempdir().unwrap();
        let file = |folder: usize| logs.path().join(format!("{folder}/agent.log"));
        for folder in 0..6 {
            fs::create_dir(logs.path().join(folder.to_string())).unwrap();
            append(&file(folder), &lines(10));
        }
        let limit = "/proc/sys/user/max_inotify_watches";
        fs::write(limit, "2").unwrap();
        let sidecar = setup(logs.path()).start();
        wait_for(&sidecar, LINES, 60.0);
        let unwatched = "bellwether_log_unwatched_folders";
        eventually("it is said", || sidecar.value(unwatched), |seen| seen.is_some_and(|seen| seen >= 4.0));
        assert!(sidecar.log().contains("raise fs.inotify.max_user_watches"), "{}", sidecar.log());
        for folder in 0..6 {
            append(&file(folder), &lines(5));
            fs::rename(file(folder), logs.path().join(format!("{folder}/agent.log.1"))).unwrap();
            append(&file(folder), &lines(5));
        }
        wait_for(&sidecar, LINES, 120.0);
        wait_for(&sidecar, "bellwether_log_rotations_total{input=\"agent\",kind=\"rename\"}", 6.0);
        // When there are watches again, they are taken.
        fs::write(limit, "1000").unwrap();
        wait_for(&sidecar, unwatched, 0.0);
        append(&file(3), &lines(1));
        wait_for(&sidecar, LINES, 121.0);
    });
}

/// T30: ten thousand files, each read to its end, none forgotten, in bounded memory.
#[test]
fn t30_ten_thousand_files_are_followed_in_bounded_memory() {
    let logs = tempfile::tempdir().unwrap();
    for folder in 0..100 {
        let path = logs.path().join(folder.to_string());
        fs::create_dir(&path).unwrap();
        for file in 0..100 {
            fs::write(path.join(format!("{file}.log")), lines(2)).unwrap();
        }
    }
    let sidecar = setup(logs.path()).start();
    wait_for(&sidecar, LINES, 20_000.0);
    assert_eq!(sidecar.value(OPEN), Some(10_000.0));
    assert_eq!(sidecar.value("bellwether_log_file_errors_total{input=\"agent\",reason=\"too_many_files\"}"), Some(0.0));
    for folder in [0, 99] {
        append(&logs.path().join(format!("{folder}/99.log")), &lines(1));
    }
    wait_for(&sidecar, LINES, 20_002.0);
    let memory = sidecar.value("process_resident_memory_bytes").unwrap();
    assert!(memory < 150e6, "{memory}");
    let sidecar = setup(logs.path()).folder(sidecar.kill()).start();
    wait_for(&sidecar, LINES, 20_002.0);
}

/// A line of a gigabyte, through a pipe and in a file: it counts once, memory stays flat, and the line after it counts.
#[test]
fn a_line_of_a_gigabyte_takes_no_memory() {
    let logs = tempfile::tempdir().unwrap();
    // A hole within a line is a part of it, and takes no room on the disk.
    let mut file = fs::File::create(logs.path().join("agent.log")).unwrap();
    file.write_all(b"x").unwrap();
    file.seek(SeekFrom::Start(1 << 30)).unwrap();
    file.write_all(format!("x\n{}", lines(1)).as_bytes()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml");
    let inputs = format!("inputs: [{{ name: agent, files: [\"{}/*.log\"], start: beginning }}]", logs.path().display());
    fs::write(&config, format!("state_dir: {}/state\nlogs: {{ {inputs} }}\n", folder.path().display())).unwrap();
    let listen = format!("127.0.0.1:{}", free_port());
    let mut child = command()
        .args(["run", "--stdin", "--listen", &listen, "--config"])
        .arg(&config)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let block = vec![b'x'; 1 << 20];
    (0..1024).for_each(|_| pipe.write_all(&block).unwrap());
    pipe.write_all(format!("\n{}", lines(1)).as_bytes()).unwrap();
    let is_counted = |text: &str| {
        ["agent", "stdin"].iter().all(|input| {
            ["record", "too_long"]
                .iter()
                .all(|outcome| text.contains(&format!("bellwether_log_lines_total{{input=\"{input}\",outcome=\"{outcome}\"}} 1.0\n")))
        })
    };
    let _child = Ends(child);
    let text = eventually("both lines", || scrape(&listen), |seen| seen.as_ref().is_some_and(|text| is_counted(text))).unwrap();
    let memory: f64 = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes ")).unwrap().parse().unwrap();
    assert!(memory < 100e6, "{memory}");
}

/// Ends with the test, also when that fails.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// T33: the wall clock jumps a day ahead and a day back: nothing expires that waits, and nothing is counted twice.
#[test]
fn t33_a_clock_that_jumps_expires_nothing() {
    let logs = tempfile::tempdir().unwrap();
    let (file, parts) = (logs.path().join("agent.log"), logs.path().join("0.log"));
    let clock = tempfile::NamedTempFile::new().unwrap();
    let set = |hours: &str| fs::write(clock.path(), format!("{hours}h\n")).unwrap();
    set("+0");
    let sidecar = setup(logs.path())
        .variable("LD_PRELOAD", crate::health_faults::faketime().to_str().unwrap())
        .variable("FAKETIME_TIMESTAMP_FILE", clock.path().to_str().unwrap())
        .variable("FAKETIME_NO_CACHE", "1")
        .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .start();
    append(&file, "{\"msg\":\"started\",\"job\":\"j\",\"ts\":\"2026-04-04T09:00:00Z\"}\n");
    append(&parts, "2026-04-04T09:00:01.733456789Z stderr P {\"level\":\n");
    wait_for(&sidecar, "app_job_open", 1.0);
    let mut written = 1;
    for hours in ["+24", "-24", "+0"] {
        set(hours);
        append(&file, &lines(10));
        written += 10;
        wait_for(&sidecar, LINES, f64::from(written));
        // Twice: what was seen before the jump, and what after it.
        eventually("a snapshot after the jump", || sidecar.value(FAILURES), |seen| *seen == Some(0.0));
        assert_eq!(sidecar.value("app_job_open"), Some(1.0), "{hours}");
        for reason in ["expired", "evicted", "restarted", "unmatched"] {
            assert_eq!(sidecar.value(&format!("app_job_unpaired_total{{reason=\"{reason}\"}}")), Some(0.0), "{hours} {reason}");
        }
        assert_eq!(sidecar.value("bellwether_log_malformed_total{input=\"agent\",reason=\"partial_dropped\"}"), Some(0.0), "{hours}");
        assert_eq!(sidecar.value(OPEN), Some(2.0), "{hours}");
    }
    append(&file, "{\"msg\":\"done\",\"job\":\"j\",\"ts\":\"2026-04-04T09:00:30Z\"}\n");
    append(&parts, "2026-04-04T09:00:01.833456789Z stderr F \"info\"}\n");
    wait_for(&sidecar, "app_job_duration_seconds_sum", 30.0);
    wait_for(&sidecar, LINES, f64::from(written + 2));
    assert_eq!(sidecar.value("bellwether_log_lost_bytes_total{input=\"agent\"}"), Some(0.0));
}
