//! What is kept over restarts and crashes.

use super::*;

#[test]
fn at_the_very_first_start_the_position_is_configured() {
    for (start, expected) in [(Start::Beginning, 3), (Start::End, 0)] {
        let mut bench = Bench::with("*.log", start);
        let next = lines(3..4);
        bench.append("app.log", lines(0..3) + &next[..9]);
        bench.look().check(expected, 0, 0);
        // The line that was being written is counted whole, a file that comes later from its begin.
        bench.append("app.log", &next[9..]);
        bench.append("later.log", lines(4..6));
        bench.look().check(expected + 3, 0, 0);
        // Later starts are not the first one.
        bench.save();
        bench.append("new.log", lines(6..7));
        bench.append("app.log", lines(7..8));
        bench.kill();
        bench.look().check(expected + 5, 0, 0);
    }
}

#[test]
fn after_a_crash_the_counters_are_those_of_an_uninterrupted_run() {
    let mut bench = Bench::new();
    let text = lines(0..40);
    let (mut written, mut snapshots) = (0, 0);
    // Every byte position is once the end of the file at a crash, with the snapshot taken at various distances.
    while written < text.len() {
        let next = (written + 7).min(text.len());
        bench.append("app.log", &text[written..next]);
        written = next;
        bench.look();
        if written % 3 == 0 {
            bench.save();
            snapshots += 1;
        }
        if written % 5 == 0 {
            bench.kill();
            bench.look();
        }
        let whole = text[..written].matches('\n').count() as u64;
        bench.check(whole, 0, 0);
    }
    assert!(snapshots > 10);
    bench.check(40, 0, 0);
    assert_eq!(bench.value("bellwether_log_bytes_total", &["app"]), text.len() as u64);
}

#[test]
fn rotations_while_nobody_looks() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..2));
    bench.look().save();
    bench.append("app.log", lines(2..4));
    bench.rename("app.log", "app.log.1");
    bench.append("app.log", lines(4..5));
    bench.rename("app.log.1", "app.log.2");
    bench.rename("app.log", "app.log.1");
    bench.append("app.log", lines(5..6));
    bench.kill();
    bench.look().check(6, 2, 0);
    bench.save();
    bench.kill();
    bench.pass_grace().check(6, 2, 0);
    assert_eq!(bench.lost(), 0);
}

#[test]
fn a_snapshot_before_the_first_look_forgets_nothing() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..2));
    bench.append("other.log", lines(2..4));
    bench.look().save();
    bench.kill();
    bench.save();
    bench.kill();
    bench.look().check(4, 0, 0);
}

#[test]
fn a_truncation_while_nobody_looks() {
    for regrown in [1, 9] {
        let mut bench = Bench::new();
        bench.append("app.log", lines(0..3));
        bench.look().save();
        fs::write(bench.path("app.log"), lines(3..3 + regrown)).unwrap();
        bench.kill();
        bench.look().check(3 + regrown, 0, 1);
    }
}

#[test]
fn a_file_that_vanished_while_nobody_looked_is_lost_as_far_as_known() {
    let mut bench = Bench::new();
    let unread = lines(2..5);
    bench.append("app.log", lines(0..2));
    bench.look();
    let line = &unread[..20];
    bench.append("app.log", line);
    bench.look().save();
    bench.append("app.log", &unread[20..]);
    fs::remove_file(bench.path("app.log")).unwrap();
    bench.kill();
    bench.look().check(2, 0, 0);
    assert_eq!(bench.lost(), line.len() as u64);
}

#[test]
fn a_stack_trace_and_parts_go_on_after_a_restart() {
    let mut bench = Bench::new();
    bench.append("app.log", "2026-04-04T09:06:09.320Z\tERROR\tlog/compat.go:77\tOops\nmain.main\n");
    let line = lines(0..1);
    let (begin, end) = line.trim_end().split_at(30);
    bench.append("other.log", format!("2026-04-04T09:00:01.733456789Z stderr P {begin}\n"));
    bench.look().save();
    bench.append("app.log", "\t/workspace/main.go:43\n");
    bench.append("other.log", format!("2026-04-04T09:00:01.733456789Z stderr F {end}\n"));
    bench.kill();
    bench.look();
    assert_eq!((bench.outcome("record"), bench.outcome("continuation"), bench.outcome("unstructured")), (2, 2, 0));
}

#[test]
fn a_torn_snapshot_falls_back_to_the_one_before() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..2));
    bench.look().save();
    bench.append("app.log", lines(2..4));
    bench.look().save();
    // The second snapshot was written to the slot 0.
    let newest = bench.folder.path().join("state/logs.0.state");
    let bytes = fs::read(&newest).unwrap();
    fs::write(&newest, &bytes[..bytes.len() / 2]).unwrap();
    bench.append("app.log", lines(4..5));
    bench.kill();
    bench.look().check(5, 0, 0);
    let mut registry = crate::metrics::Registry::default();
    bench.engine.register(&mut registry);
    let text = crate::metrics::exposition::Format::Text.write(&registry).unwrap();
    assert!(text.contains("bellwether_log_snapshot_failures_total 1\n"), "{text}");
}

#[test]
fn a_snapshot_of_another_version_falls_back_to_the_one_before() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..2));
    bench.look().save();
    // A newer version has run and written one snapshot, which is whole.
    let state = bench.folder.path().join("state");
    let understood = |payload: &[u8]| crate::logs::state::Saved::decode(payload);
    let (mut snapshots, found) = crate::series::snapshot::Snapshots::open(&state, "logs", understood);
    assert!(found.state.is_some());
    snapshots.write(&postcard::to_stdvec(&(u16::MAX, "of the future")).unwrap()).unwrap();
    bench.append("app.log", lines(2..5));
    bench.kill();
    bench.look().check(5, 0, 0);
    assert!(state.join("logs.0.state.refused").exists());
    // Goes on from there as if nothing had been.
    bench.save();
    bench.append("app.log", lines(5..6));
    bench.kill();
    bench.look().check(6, 0, 0);
}

#[test]
fn without_a_folder_nothing_is_remembered() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..2));
    for _ in 0..2 {
        bench.engine = Engine::new(&bench.config, None).unwrap();
        bench.look().check(2, 0, 0);
    }
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let bench = Bench::new();
    bench.append("file", "");
    let error = Engine::new(&bench.config, Some(&bench.path("file/state"))).unwrap_err();
    assert!(error.to_string().contains("logs/file/state for the log state; create it"), "{error}");
}

#[test]
fn t18_a_state_that_cannot_be_trusted() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 6] = [
        ("torn", |slot| fs::write(slot, &fs::read(slot).unwrap()[..100]).unwrap()),
        ("empty", |slot| fs::write(slot, "").unwrap()),
        ("zeros", |slot| fs::write(slot, vec![0; fs::read(slot).unwrap().len()]).unwrap()),
        ("changed", |slot| {
            let mut bytes = fs::read(slot).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            fs::write(slot, bytes).unwrap();
        }),
        ("longer", |slot| OpenOptions::new().append(true).open(slot).unwrap().write_all(b"more").unwrap()),
        ("a folder", |slot| {
            fs::remove_file(slot).unwrap();
            fs::create_dir(slot).unwrap();
        }),
    ];
    for (name, harm) in harms {
        let mut bench = Bench::new();
        bench.append("app.log", lines(0..2));
        bench.look().save();
        bench.append("app.log", lines(2..4));
        bench.look().save();
        harm(&bench.folder.path().join("state/logs.0.state"));
        bench.append("app.log", lines(4..5));
        bench.kill();
        bench.look().check(5, 0, 0);
        assert_eq!(bench.snapshot_failures(), 1, "{name}");
        // Both: a documented start, and it is said.
        bench.kill();
        for slot in ["state/logs.0.state", "state/logs.1.state"] {
            let slot = bench.folder.path().join(slot);
            if slot.is_dir() {
                fs::remove_dir(&slot).unwrap();
            }
            fs::write(&slot, "hardly a state").unwrap();
        }
        bench.kill();
        bench.look().check(5, 0, 0);
        assert_eq!(bench.snapshot_failures(), 3, "{name}");
    }
}

#[test]
fn t18_a_disk_that_is_full_for_a_while() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..2));
    bench.look().save();
    // The device says what a full disk says.
    let slot = bench.folder.path().join("state/logs.0.state");
    std::os::unix::fs::symlink("/dev/full", &slot).unwrap();
    bench.append("app.log", lines(2..4));
    bench.look().save();
    bench.save();
    assert_eq!(bench.snapshot_failures(), 2);
    fs::remove_file(&slot).unwrap();
    bench.kill();
    bench.look().check(4, 0, 0);
    bench.save();
    bench.append("app.log", lines(4..5));
    bench.kill();
    bench.look().check(5, 0, 0);
    assert_eq!(bench.snapshot_failures(), 0);
}

#[test]
fn t18_a_disk_that_fails_for_a_while() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..2));
    bench.look().save();
    // Nothing is at the begin of our memory: reading and writing there fails with EIO.
    let slot = bench.folder.path().join("state/logs.0.state");
    let error = File::open("/proc/self/mem").and_then(|mut file| std::io::Read::read(&mut file, &mut [0])).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    std::os::unix::fs::symlink("/proc/self/mem", &slot).unwrap();
    bench.append("app.log", lines(2..4));
    bench.look().save();
    assert_eq!(bench.snapshot_failures(), 1);
    // Neither can it be read: the other slot counts.
    bench.kill();
    bench.look().check(4, 0, 0);
    assert_eq!(bench.snapshot_failures(), 1);
    fs::remove_file(&slot).unwrap();
    bench.save();
    bench.append("app.log", lines(4..5));
    bench.kill();
    bench.look().check(5, 0, 0);
    assert_eq!(bench.snapshot_failures(), 0);
}

#[test]
fn t23_a_series_that_was_idle_for_a_year_goes_on_where_it_was() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..3));
    bench.look();
    let families = bench.engine.families();
    let year = 365 * 86_400_000;
    let mut now = crate::clock::Moment::read();
    now.wall += year;
    let mut all = families.lock();
    all.set_now(now);
    all.tick();
    drop(all);
    bench.now += Duration::from_millis(u64::try_from(year).unwrap());
    bench.look().check(3, 0, 0);
    bench.append("app.log", lines(3..4));
    bench.look().check(4, 0, 0);
    bench.save();
    bench.kill();
    bench.look().check(4, 0, 0);
}

#[test]
fn t24_the_first_increment_is_seen_as_one() {
    let mut bench = Bench::new();
    let exposed = |bench: &Bench| {
        let mut registry = crate::metrics::Registry::default();
        registry.expose(bench.engine.families());
        let text = crate::metrics::exposition::Format::OpenMetrics.write(&registry).unwrap();
        let of = |name: &str| {
            let begin = format!("{name}{{level=\"info\",service=\"decisionbox-agent\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&begin)).map(str::to_owned)
        };
        (of("decisionbox_log_lines_total").unwrap(), of("decisionbox_log_lines_created").unwrap())
    };
    let (zero, created) = exposed(&bench);
    assert_eq!(zero.parse(), Ok(0.0), "it is there before the first line");
    bench.append("app.log", lines(0..1));
    bench.look().save();
    assert_eq!(exposed(&bench).0.parse(), Ok(1.0));
    bench.kill();
    bench.look();
    assert_eq!(exposed(&bench).1, created, "a restart is no new begin");
}
