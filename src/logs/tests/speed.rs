//! How many lines a second of CPU counts: a measurement, not a test of time. Run it with
//! `cargo test --release --lib logs::tests::speed -- --ignored --nocapture`.

use super::*;

const LINES: u64 = 200_000;

/// The CPU time of this thread in seconds, as the kernel counts it.
fn cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// Lines as the application writes them: 15 % tell what rules ask for, 30 % have another order of keys, 5 % have
/// spaces, 1 % are cut off.
fn corpus() -> (Vec<u8>, u64) {
    let mut random = fastrand::Rng::with_seed(7);
    let (mut text, mut malformed) = (Vec::new(), 0);
    for number in 0..LINES {
        let (message, fields) = match random.u32(0..100) {
            0..4 => ("LLM call failed", r#""error":"claude: failed after 3 attempts: context deadline exceeded (Client.Timeout exceeded while awaiting headers)","latency_ms":905211"#.to_owned()),
            4..9 => ("Query failed", r#""error":"googleapi: Error 400: Unrecognized name: user_idx at [3:14], invalidQuery","purpose":"Check day-7 retention","attempt":0,"max":5"#.to_owned()),
            9..12 => ("Discovery run completed", format!(r#""insights":7,"recommendations":5,"validations":12,"duration":"5m{}.412345678s""#, random.u32(0..60))),
            12..15 => ("Request failed", r#""method":"GET","path":"/health/ready","status":503,"duration":"5.000812345s""#.to_owned()),
            15..60 => ("Executing exploration step", format!(r#""step":{number},"action":"lookup_schema","thinking":"Check day-7 retention by cohort""#)),
            _ => ("Insight validation result", format!(r#""ratio":"0.72","insight":"Day 0-to-Day 1 drop of players","status":"adjusted","claimed":{number},"verified":8912"#)),
        };
        let head = format!(
            r#""severity":"INFO","timestamp":"2026-04-04T09:{:02}:01.733Z","caller":"log/compat.go:75","message":"{message}""#,
            number % 60
        );
        let ids = r#""service":"decisionbox-agent","project_id":"69d0f3a1c2b4e5f60718293a""#;
        let mut line = if random.u32(0..100) < 30 { format!("{{{ids},{fields},{head}}}") } else { format!("{{{head},{ids},{fields}}}") };
        if random.u32(0..100) < 5 {
            line = line.replace("\",\"", "\", \"").replace("\":", "\": ");
        }
        if random.u32(0..100) < 1 {
            line.truncate(line.len() / 2);
            malformed += 1;
        }
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
    (text, malformed)
}

#[test]
#[ignore = "a measurement: prints lines per CPU-second"]
fn lines_per_cpu_second() {
    let (text, malformed) = corpus();
    for _ in 0..5 {
        let before = cpu_seconds();
        let newlines = memchr::memchr_iter(b'\n', std::hint::black_box(&text)).count();
        let floor = cpu_seconds() - before;
        assert_eq!(newlines as u64, LINES);

        let mut bench = Bench::new();
        fs::write(bench.path("app.log"), &text).unwrap();
        let before = cpu_seconds();
        bench.look();
        let spent = cpu_seconds() - before;
        assert_eq!((bench.outcome("malformed"), bench.outcome("record")), (malformed, LINES - malformed));
        let rate = |seconds: f64| LINES as f64 / seconds / 1e6;
        let share = floor / spent * 100.0;
        println!(
            "{:.2} M lines per CPU-second, {} B a line; counting newlines {:.1} M, so {share:.0} %",
            rate(spent),
            text.len() as u64 / LINES,
            rate(floor)
        );
    }
}
