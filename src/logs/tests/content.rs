//! Whatever lines hold, and whoever looks meanwhile: T25 to T28 and T33 of `scenarios`.

use super::*;

#[test]
fn t25_a_scrape_while_lines_come_sees_no_half_of_them() {
    let mut bench = Bench::new();
    let run = "{\"severity\":\"INFO\",\"caller\":\"log/compat.go:75\",\"message\":\"Discovery run completed\",\"service\":\"decisionbox-agent\",\"duration\":\"5m23.4s\"}\n";
    let families = bench.engine.families();
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let scraping = scope.spawn(|| {
            let (mut scrapes, mut last) = (0, 0.0);
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) || scrapes == 0 {
                let families = families.lock();
                let lines = families.value("bellwether_log_lines_total", &["app", "record"]).unwrap();
                let observed = families.value("decisionbox_discovery_duration_seconds", &[]).unwrap_or(0.0);
                assert!((lines - observed).abs() < f64::EPSILON && lines >= last, "{lines} lines, {observed} observed");
                (scrapes, last) = (scrapes + 1, lines);
            }
            scrapes
        });
        for _ in 0..100 {
            bench.append("app.log", run.repeat(50));
            bench.look();
        }
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(scraping.join().unwrap() > 0);
    });
    assert_eq!(bench.value("decisionbox_discovery_duration_seconds", &[]), 5000);
}

#[test]
fn t26_lines_as_long_as_allowed_and_longer() {
    let mut bench = Bench::new();
    let max = bench.config.max_line;
    let line = |length: usize| {
        let begin = "{\"severity\":\"INFO\",\"caller\":\"log/compat.go:75\",\"x\":\"";
        format!("{begin}{}\"}}\n", "x".repeat(length - begin.len() - 2))
    };
    bench.append("app.log", line(max) + &line(max + 1) + &lines(0..1));
    bench.look();
    assert_eq!((bench.outcome("record"), bench.outcome("too_long")), (2, 1));
    // In pieces that meet nowhere, with looks in between.
    let long = line(max);
    for piece in long.as_bytes().chunks(100_003) {
        bench.append("app.log", piece);
        bench.look();
    }
    assert_eq!((bench.outcome("record"), bench.outcome("too_long")), (3, 1));
    let mut file = bench.append("app.log", "");
    (0..100).for_each(|_| file.write_all(&vec![b'x'; 1 << 20]).unwrap());
    bench.look();
    bench.append("app.log", format!("\n{}", lines(1..2)));
    bench.look();
    assert_eq!((bench.outcome("record"), bench.outcome("too_long")), (4, 2));
    assert_eq!(bench.value("bellwether_log_bytes_total", &["app"]), fs::metadata(bench.path("app.log")).unwrap().len());
}

#[test]
fn t27_whatever_may_be_in_a_line() {
    let mut bench = Bench::new();
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let texts: [&[u8]; 13] = [
        b"{\"a\":\"\xff\"}",
        b"\xef\xbb\xbf{\"a\":1}",
        b"{\"a\":1}\r",
        b"",
        b"   ",
        b"{\"level\":\"info\",\"level\":\"info\"}",
        b"{\"a\":1e400}",
        b"{\"a\":-0}",
        b"{\"a\":NaN}",
        b"{\"a\":9223372036854775809}",
        b"{\"a\":\"\\ud800\"}",
        b"{\"a\":\"\0\"}",
        deep.as_bytes(),
    ];
    for text in texts {
        bench.append("app.log", [text, b"\n"].concat());
    }
    bench.append("app.log", lines(0..1));
    bench.look();
    let outcomes = ["record", "malformed", "blank", "unstructured", "continuation", "too_long"].map(|outcome| bench.outcome(outcome));
    assert_eq!(outcomes, [9, 3, 2, 0, 0, 0]);
    let reason = |reason: &str| bench.value("bellwether_log_malformed_total", &["app", reason]);
    assert_eq!(["not_a_number", "control_character", "too_deep"].map(reason), [1, 1, 1]);
    let repaired = ["bad_utf8", "byte_order_mark", "carriage_return", "duplicate_key", "lone_surrogate", "number_range"];
    assert_eq!(repaired.map(|repair| bench.repaired(repair)), [1; 6]);
}

#[test]
fn t28_a_malformed_line_between_good_ones() {
    let mut bench = Bench::new();
    let first = lines(0..1);
    bench.append("app.log", format!("{first}{{\"cut\":\n{}", lines(1..2)));
    bench.look();
    assert_eq!((bench.outcome("record"), bench.outcome("malformed")), (2, 1));
    assert_eq!(bench.value("bellwether_log_malformed_total", &["app", "truncated"]), 1);
    let samples = bench.engine.samples().all();
    let sample = &samples[0];
    let seen = (samples.len(), sample.input.as_str(), sample.reason, sample.offset, sample.column, sample.excerpt.as_str());
    assert_eq!(seen, (1, "app", "truncated", first.len() as u64, 8, "{\"cut\":"));
    assert_eq!(sample.source, bench.path("app.log").display().to_string());
}

#[test]
fn t33_times_of_the_past_and_the_future_expire_nothing() {
    let mut bench = Bench::new();
    let day = Duration::from_secs(86_400);
    bench.append("app.log", lines(0..1));
    bench.append("app.log", "{\"severity\":\"INFO\",\"caller\":\"log/compat.go:75\",\"ts\":\"1969-01-01T00:00:00Z\"}\n");
    bench.append("app.log", "{\"severity\":\"INFO\",\"caller\":\"log/compat.go:75\",\"ts\":\"9999-12-31T23:59:59Z\"}\n");
    let set = |bench: &Bench, time| File::options().write(true).open(bench.path("app.log")).unwrap().set_modified(time).unwrap();
    for time in [std::time::UNIX_EPOCH, std::time::UNIX_EPOCH + day * 365 * 200] {
        set(&bench, time);
        bench.look().check(3, 0, 0);
        bench.save();
        bench.kill();
        bench.look().check(3, 0, 0);
    }
    // The time that passes in between is nobody's business either.
    bench.now += day;
    bench.look().check(3, 0, 0);
    bench.append("app.log", lines(3..4));
    bench.look().check(4, 0, 0);
    assert_eq!(bench.value("bellwether_log_files", &["app"]), 1);
    assert_eq!(bench.lost(), 0);
}

#[test]
fn zeros_before_a_line_that_is_too_long_are_those_of_its_file() {
    // Found by the fuzzer: they were counted with the next line that came, whosever that was.
    let mut bench = Bench::new();
    let max = bench.config.max_line;
    bench.append("app.log", [vec![0; 100], vec![b'x'; max + 1], b"\n".to_vec()].concat());
    bench.look();
    assert_eq!((bench.outcome("too_long"), bench.repaired("zeros")), (1, 1));
    bench.append("app.log", lines(0..1));
    bench.look();
    assert_eq!((bench.outcome("record"), bench.repaired("zeros")), (1, 1));
}
