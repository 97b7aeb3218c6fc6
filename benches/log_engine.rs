//! The log engine in figures: lines per CPU-second with the rules of the profile, beside the counting of newlines in the
//! same run, which nothing can beat; and how soon a line that is appended has been counted.
//!
//! `cargo bench --bench log_engine`. A figure is printed only when every count is exact. On a shared machine figures
//! vary; the share of newline counting varies less.

#![allow(
    missing_docs,
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a bench that cannot go on says where"
)]

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bellwether::config::environment::Environment;
use bellwether::config::{Config, Request, load};
use bellwether::logs::{Engine, replay};
use bellwether::series::families::SharedFamilies;

const LINES: u64 = 200_000;

fn main() {
    lines_per_cpu_second();
    append_to_visible();
}

/// The CPU time of this thread in seconds, as the kernel counts it.
fn cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// The profile, with its agent logs at `pattern`.
fn config(pattern: &str) -> Config {
    let request = Request { profile: Some("decisionbox"), logs_only: true, ..Request::default() };
    load(&request, &Environment::of([("BELLWETHER_AGENT_LOGS", pattern), ("BELLWETHER_API_LOGS", "/nonexistent/*.log")])).unwrap()
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

/// The CPU time of reading the file and counting its newlines, which no engine can beat.
fn newlines(path: &Path, rounds: u32) -> f64 {
    let mut buffer = vec![0; 256 * 1024];
    let before = cpu_seconds();
    for _ in 0..rounds {
        let (mut file, mut count) = (File::open(path).unwrap(), 0);
        loop {
            let read = std::io::Read::read(&mut file, &mut buffer).unwrap();
            count += memchr::memchr_iter(b'\n', &buffer[..read]).count() as u64;
            if read == 0 {
                break;
            }
        }
        assert_eq!(count, LINES);
    }
    (cpu_seconds() - before) / f64::from(rounds)
}

fn lines_per_cpu_second() {
    let (text, malformed) = corpus();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.log");
    fs::write(&file, &text).unwrap();
    let config = config("/nonexistent/*.log");
    for _ in 0..5 {
        let floor = newlines(&file, 10);
        let families = SharedFamilies::default();
        let before = cpu_seconds();
        replay(&config.logs, File::open(&file).unwrap(), "app", &families).unwrap();
        let spent = cpu_seconds() - before;
        let outcome = |outcome: &str| families.lock().value("bellwether_log_lines_total", &["app", outcome]).unwrap();
        assert_eq!((outcome("malformed"), outcome("record")), (malformed as f64, (LINES - malformed) as f64));
        let rate = |seconds: f64| LINES as f64 / seconds / 1e6;
        println!(
            "{:.2} M lines per CPU-second, {} B a line; counting newlines {:.1} M, so {:.1} %",
            rate(spent),
            text.len() as u64 / LINES,
            rate(floor),
            floor / spent * 100.0
        );
    }
}

fn append_to_visible() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    let engine = Engine::new(&config(path.to_str().unwrap()).logs, None).unwrap();
    let (families, caught_up, stop) = (engine.families(), engine.caught_up(), tokio_util::sync::CancellationToken::new());
    let token = stop.clone();
    let running = std::thread::spawn(move || engine.run(token).map_err(|error| error.to_string()));
    while !caught_up.is_set() {
        std::thread::yield_now();
    }
    let counted = || families.lock().value("bellwether_log_lines_total", &["agent", "record"]).unwrap_or_default();
    let mut delays = Vec::new();
    for number in 0..300_u32 {
        std::thread::sleep(Duration::from_millis(3));
        let before = Instant::now();
        file.write_all(b"{\"level\":\"info\",\"msg\":\"m\"}\n").unwrap();
        while counted() <= f64::from(number) {
            std::thread::yield_now();
        }
        delays.push(before.elapsed());
    }
    stop.cancel();
    running.join().unwrap().unwrap();
    delays.sort();
    println!("append to counted: median {:?}, p99 {:?}", delays[delays.len() / 2], delays[delays.len() * 99 / 100]);
}
