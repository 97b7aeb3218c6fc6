//! The fault table of health, where `health` does not have it already: each test says which line it is.
//!
//! | | fault | where else |
//! |---|---|---|
//! | H1 | a server that is frozen | `health`; for a minute: scripts/bench_health.py |
//! | H2 | a server that is killed | |
//! | H3 | packets that are dropped, or rejected | `health_network`, by the kernel |
//! | H4 | slow answers | |
//! | H5 | resets, flapping | `health::state` |
//! | H6 | strange answers | `checks::http`, `health` |
//! | H7 | silence, certificates, names | `checks::tls`, `health_network`, `health::probe` |
//! | H8 | a look that breaks, workers that are stuck | `health::schedule`, `health::aggregate` |
//! | H9 | a parent that is down | `health`, `health::aggregate` |
//! | H10 | absent at the start | `health` |
//! | H11 | SIGTERM | `health` |
//! | H12 | reload | `health_control`, `app::reload` |
//! | H13 | many and slow clients | `listener`; 10,000 a second: scripts/bench_health.py |
//! | H14 | a pool that is exhausted | |
//! | H15 | a hundred checks that start together | `health::schedule`, `health::schedule::beat` |
//! | H16 | a wall clock that jumps | `health::state`, `health::aggregate`, `health::history`, `health::maintenance` |

use std::io::{BufRead as _, BufReader, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bellwether::admin::document::Documents;
use bellwether::admin::{self, Surface};
use bellwether::clock::Now;
use bellwether::config::health::Health;
use bellwether::health::board::Board;
use bellwether::health::history::Keeper;
use bellwether::runtime::heartbeat::Heartbeat;
use bellwether::runtime::latch::Latch;
use bellwether::runtime::listen::{Bounds, ListenerMetrics, Served, serve};
use bellwether::runtime::shutdown::Shutdown;
use mongodb::bson::doc;
use serde_json::Value;

use crate::mongod::Mongod;
use crate::proxy::{Network, Proxy};
use crate::raw_http::{RESET, Server, request};
use crate::sidecar::{Setup, Sidecar, eventually};

fn config(defaults: &str, checks: &str) -> String {
    format!("state_dir: \"${{BELLWETHER_STATE_DIR}}\"\nhealth:\n  defaults: {{ {defaults} }}\n  checks:\n{checks}")
}

fn mongodb(uri: &str, defaults: &str, check: &str) -> Sidecar {
    let text = config(defaults, &format!("    mongodb: {{ type: mongodb, critical: true{check} }}\n"));
    let text = format!("stores: {{ mongodb: {{ uri: \"${{MONGODB_URI}}\", database: app }} }}\n{text}");
    let sidecar = Setup::default().config(&text).variable("MONGODB_URI", uri).start();
    sidecar.wait_for("/readyz", 200);
    sidecar
}

fn check(sidecar: &Sidecar, name: &str) -> Value {
    let document: Value = serde_json::from_str(&sidecar.get(&format!("/health/{name}")).body).unwrap();
    document["checks"][format!("{name}:responseTime")][0].clone()
}

fn looks(sidecar: &Sidecar, check: &str) -> f64 {
    let metrics = sidecar.get("/metrics").body;
    let prefix = format!("bellwether_check_results_total{{check=\"{check}\",");
    let lines = metrics.lines().filter(|line| line.starts_with(&prefix));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// H1: a frozen server takes no more sockets and tasks than one that answers, while it is frozen and afterwards, and is
/// found again without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn h1_a_frozen_mongod_holds_nothing_up_and_takes_nothing_along() {
    let mongod = Mongod::start().await;
    let sidecar = mongodb(&mongod.uri(), "interval: 300ms, timeout: 250ms", "");
    let timeouts = || sidecar.value("bellwether_check_results_total{check=\"mongodb\",reason=\"timeout\"}").unwrap();
    let held = || (sidecar.sockets(), sidecar.value("bellwether_runtime_tasks{runtime=\"checks\"}").unwrap());
    let before = held();
    mongod.freeze();
    let answer = sidecar.wait_for("/readyz", 503);
    assert!(answer.body.contains("[-]mongodb failed: down: timeout"), "{}", answer.body);
    let seen = check(&sidecar, "mongodb");
    assert!(seen["x-consecutive"].as_u64() >= Some(3), "not before the third: {seen:#}");
    assert_eq!((&seen["status"], &seen["x-reason"]), (&"fail".into(), &"timeout".into()));
    let mut most = before;
    eventually(
        "forty looks, twelve seconds and more",
        || {
            for probe in ["/livez", "/startupz", "/self/readyz"] {
                assert_eq!(sidecar.get(probe).status, 200, "{probe}");
            }
            assert_eq!(sidecar.get("/readyz").status, 503);
            let now = held();
            most = (most.0.max(now.0), most.1.max(now.1));
            timeouts()
        },
        |timeouts| *timeouts >= 40.0,
    );
    assert!(most.0 <= before.0 + 3 && most.1 <= before.1 + 3.0, "{most:?} held at most, {before:?} before");
    mongod.thaw();
    sidecar.wait_for("/readyz", 200);
    eventually("no more than before", held, |now| now.0 <= before.0 + 3 && now.1 <= before.1 + 3.0);
    assert_eq!(sidecar.value("bellwether_check_transitions_total{check=\"mongodb\"}"), Some(2.0));
}

/// H2: the raw series flips with the first look, the verdict after as many as it was told.
#[tokio::test(flavor = "multi_thread")]
async fn h2_a_killed_mongod_is_seen_at_once_and_believed_later() {
    let mut mongod = Mongod::start().await;
    let sidecar = mongodb(&mongod.uri(), "interval: 2600ms, timeout: 2500ms, fail_after: 2, pass_after: 2", "");
    mongod.kill();
    let series = ["bellwether_check_raw_success", "bellwether_check_up"].map(|name| format!("{name}{{check=\"mongodb\"}} "));
    let scrape = || {
        let metrics = sidecar.get("/metrics").body;
        series.clone().map(|series| metrics.lines().find_map(|line| line.strip_prefix(&series)).unwrap().to_owned())
    };
    eventually("the look fails and the verdict holds", scrape, |[raw, up]| raw.starts_with('0') && up.starts_with('1'));
    assert_eq!(sidecar.get("/readyz").status, 200);
    sidecar.wait_for("/readyz", 503);
    let seen = check(&sidecar, "mongodb");
    assert_eq!((&seen["x-reason"], &seen["x-raw"]), (&"refused".into(), &"fail".into()), "{seen:#}");
    mongod.restart().await;
    eventually("the look passes and the verdict holds", scrape, |[raw, up]| raw.starts_with('1') && up.starts_with('0'));
    sidecar.wait_for("/readyz", 200);
    assert_eq!(sidecar.value("bellwether_check_transitions_total{check=\"mongodb\"}"), Some(2.0));
}

/// H3: what is dropped on the way is bounded by the check's own deadline, and what is cut is seen as that.
#[tokio::test(flavor = "multi_thread")]
async fn h3_a_partition_is_a_timeout_and_ends_when_it_is_healed() {
    let mongod = Mongod::start().await;
    let proxy = Proxy::to(&mongod.address());
    let uri = format!("mongodb://{}/?directConnection=true", proxy.address);
    let sidecar = mongodb(&uri, "interval: 400ms, timeout: 300ms", "");
    let open_before = sidecar.value("process_open_fds").unwrap();
    proxy.becomes(Network::Silent);
    sidecar.wait_for("/readyz", 503);
    assert_eq!(check(&sidecar, "mongodb")["x-reason"], "timeout");
    let before = looks(&sidecar, "mongodb");
    eventually("looks go on", || looks(&sidecar, "mongodb"), |looks| *looks > before + 5.0);
    assert!(sidecar.value("process_open_fds").unwrap() <= open_before + 3.0, "no new connection with each look");
    proxy.becomes(Network::Whole);
    sidecar.wait_for("/readyz", 200);
    proxy.becomes(Network::Cut);
    sidecar.wait_for("/readyz", 503);
    let reason = check(&sidecar, "mongodb")["x-reason"].clone();
    assert!(["reset", "timeout", "no_primary", "other"].iter().any(|known| reason == *known), "{reason}");
    proxy.becomes(Network::Whole);
    sidecar.wait_for("/readyz", 200);
}

/// H4: slow is a warning, and still ready.
#[tokio::test(flavor = "multi_thread")]
async fn h4_a_slow_answer_is_degraded_and_never_unready() {
    let mongod = Mongod::start().await;
    let proxy = Proxy::to(&mongod.address());
    let uri = format!("mongodb://{}/?directConnection=true", proxy.address);
    let sidecar = mongodb(&uri, "interval: 2100ms, timeout: 2s", ", degraded_after: 100ms, fail_after: 1");
    proxy.delays(Duration::from_millis(150));
    let seen = eventually(
        "it is degraded",
        || {
            assert_eq!(sidecar.get("/readyz").status, 200);
            check(&sidecar, "mongodb")
        },
        |check| check["x-state"] == "degraded",
    );
    assert_eq!((&seen["status"], &seen["x-raw"]), (&"warn".into(), &"pass".into()));
    let document = sidecar.get("/health");
    assert!(document.status == 200 && document.body.contains("\"output\": \"mongodb is degraded\""), "{}", document.body);
    proxy.delays(Duration::ZERO);
    eventually("it is up", || check(&sidecar, "mongodb"), |check| check["x-state"] == "up");
}

/// H5: one that flaps with each look changes nothing, and the counters show all of it.
#[test]
fn h5_flapping_is_counted_and_changes_no_verdict() {
    let server = Server::start(|number| if number % 2 == 0 { 200 } else { 503 });
    let check = format!("    api: {{ type: http, critical: true, url: \"http://{}/\" }}\n", server.address);
    let sidecar = Setup::default().config(&config("interval: 100ms, timeout: 90ms", &check)).start();
    sidecar.wait_for("/readyz", 200);
    let failures = || sidecar.value("bellwether_check_results_total{check=\"api\",reason=\"http_5xx\"}").unwrap();
    eventually("ten failures", failures, |failures| *failures >= 10.0);
    assert_eq!(sidecar.value("bellwether_check_transitions_total{check=\"api\"}"), Some(0.0));
    assert_eq!(sidecar.get("/readyz").status, 200);
    assert!(sidecar.value("bellwether_check_results_total{check=\"api\",reason=\"none\"}").unwrap() >= 9.0);
}

/// H5: every second connection is reset, by chance: a verdict changes after as many looks as it was told to, not more often,
/// and the counters show each single one.
#[test]
fn h5_resets_are_counted_and_bounded() {
    let chance = std::sync::Mutex::new(fastrand::Rng::with_seed(5));
    let resets = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&resets);
    let server = Server::start(move |number| {
        // The first one passes, so that it begins as up.
        let is_reset = number > 0 && chance.lock().unwrap().bool();
        count.fetch_add(u64::from(is_reset), Ordering::SeqCst);
        if is_reset { RESET } else { 200 }
    });
    let check = format!("    api: {{ type: http, critical: true, url: \"http://{}/\" }}\n", server.address);
    let sidecar = Setup::default().config(&config("interval: 100ms, timeout: 90ms", &check)).start();
    let counted = |reason: &str| sidecar.value(&format!("bellwether_check_results_total{{check=\"api\",reason=\"{reason}\"}}")).unwrap();
    eventually("sixty resets", || counted("reset"), |resets| *resets >= 60.0);
    let transitions = sidecar.value("bellwether_check_transitions_total{check=\"api\"}").unwrap();
    let looks = looks(&sidecar, "api");
    // Down after three failures and up after two passes: two changes within five looks, at most.
    assert!(transitions >= 1.0 && transitions <= 1.0 + looks * 2.0 / 5.0, "{transitions} transitions in {looks} looks");
    // On a busy machine one may come after its time.
    let (seen, late, sent) = (counted("reset"), counted("timeout"), resets.load(Ordering::SeqCst));
    assert!(f64::from(u32::try_from(sent).unwrap()) - seen - late <= 1.0, "{sent} sent, {seen} seen: the last one may be under way");
    assert!(counted("none") > 20.0);
}

/// H7: a server that accepts and never answers.
#[test]
fn h7_a_server_that_accepts_and_never_answers_is_a_timeout() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let checks = format!(
        "    http: {{ type: http, url: \"http://{address}/\" }}\n    tls: {{ type: http, url: \"https://{address}/\" }}\n    tcp: {{ type: tcp, address: \"{address}\" }}\n"
    );
    let sidecar = Setup::default().config(&config("interval: 500ms, timeout: 400ms", &checks)).start();
    sidecar.wait_for("/startupz", 200);
    for (name, reason) in [("http", "timeout".into()), ("tls", "timeout".into()), ("tcp", Value::Null)] {
        let seen = eventually(name, || check(&sidecar, name), |check| check["time"].is_string());
        assert_eq!(seen["x-reason"], reason, "{name}");
    }
}

/// When no name can be resolved any more, it is not every component that is to blame.
#[test]
fn when_everything_remote_is_out_of_reach_the_network_is_the_cause() {
    let checks = "    db: { type: tcp, critical: true, address: \"db.invalid:1\" }\n    api: { type: http, url: \"http://api.invalid/\", depends_on: [db] }\n    own: { type: tcp, address: \"127.0.0.1:1\" }\n";
    let sidecar = Setup::default().config(&config("interval: 5s, timeout: 4s", checks)).start();
    let causes = || {
        let document: Value = serde_json::from_str(&sidecar.get("/health").body).unwrap();
        document["x-root_causes"].to_string()
    };
    eventually("the network", causes, |causes| causes == "[\"local_network\",\"own\"]");
    assert_eq!(check(&sidecar, "api")["x-suppressed_by"], "local_network");
    assert_eq!(check(&sidecar, "api")["x-reason"], "dns");
    assert_eq!(sidecar.get("/readyz").status, 503);
    assert_eq!(sidecar.value("bellwether_check_root_cause{check=\"local_network\"}"), Some(1.0));
    assert_eq!(sidecar.value("bellwether_check_root_cause{check=\"db\"}"), Some(0.0));
}

/// H8: only when the workers make no progress is the sidecar itself not alive; proven by blocking them.
#[test]
fn h8_livez_fails_while_the_workers_are_blocked_and_only_then() {
    let workers = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (board, shutdown) = (Arc::new(Board::new(&Health::default(), Now::read())), Shutdown::default());
    let (heartbeat, checks) = (Heartbeat::new(Instant::now()), Heartbeat::new(Instant::now()));
    workers.spawn(heartbeat.clone().run(shutdown.token()));
    let beating = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    beating.spawn(checks.clone().run(shutdown.token()));
    let mut registry = bellwether::metrics::registry();
    let history = Keeper::open(&board, None, &mut registry, Now::read()).history();
    let surface = Surface {
        board,
        history,
        documents: Documents::default(),
        registry: std::sync::Arc::new(registry),
        caught_up: Latch::default(),
        shutdown: shutdown.clone(),
        heartbeats: [("workers", heartbeat), ("checks", checks)],
        stuck_after: Duration::from_secs(2),
        token: None,
        profile: "none",
        started: Instant::now(),
        startup_grace: Duration::ZERO,
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stop = shutdown.token();
    std::thread::spawn(move || {
        let admin = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        admin.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let service = Served {
                service: admin::router(Arc::new(surface)),
                certificate: None,
                metrics: ListenerMetrics::default(),
                bounds: Bounds::default(),
            };
            serve(listener, service, stop).await;
        });
    });
    let livez = || request(&address, "GET", "/livez", None, "");
    assert_eq!(livez(), (200, "ok".to_owned()));
    let blocked = Arc::new(AtomicBool::new(true));
    for _ in 0..2 {
        let blocked = Arc::clone(&blocked);
        workers.spawn(async move {
            while blocked.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
    }
    let (_, body) = eventually("not alive", livez, |(status, _)| *status == 503);
    assert!(body.contains("[-]workers failed: no progress for") && body.contains("[+]checks ok"), "{body}");
    assert_eq!(request(&address, "GET", "/self/readyz", None, "").0, 200, "and still answers");
    blocked.store(false, Ordering::SeqCst);
    eventually("alive again", livez, |(status, _)| *status == 200);
    workers.shutdown_background();
    beating.shutdown_background();
}

/// H13: whoever asks, however often, makes no additional call of a component.
#[test]
fn h13_requests_make_no_calls_of_components() {
    let server = Server::start(|_| 200);
    let checks = format!("    api: {{ type: http, critical: true, url: \"http://{}/\" }}\n", server.address);
    let sidecar = Setup::default().config(&config("interval: 1s, timeout: 900ms", &checks)).start();
    sidecar.wait_for("/readyz", 200);
    let paths = ["/readyz", "/health", "/metrics", "/", "/api/v1/history", "/readyz/api", "/compat/decisionbox/health"];
    std::thread::scope(|scope| {
        for path in paths {
            let address = &sidecar.address;
            scope.spawn(move || {
                for _ in 0..100 {
                    assert_eq!(request(address, "GET", path, None, "").0, 200, "{path}");
                }
            });
        }
    });
    // Each call is one look of the beat; the one under way may be counted on one side only.
    let (calls, looks) = (u32::try_from(server.requests()).unwrap(), looks(&sidecar, "api"));
    assert!((f64::from(calls) - looks).abs() <= 1.0, "{calls} calls, {looks} looks");
}

/// H13: tens of thousands of questions over a few connections, as fast as they are answered.
#[test]
fn h13_thousands_of_questions_make_no_call_either() {
    const CLIENTS: u32 = 4;
    const QUESTIONS: u32 = 5000;
    let server = Server::start(|_| 200);
    let checks = format!("    api: {{ type: http, critical: true, url: \"http://{}/\" }}\n", server.address);
    let sidecar = Setup::default().config(&config("interval: 1s, timeout: 900ms", &checks)).start();
    sidecar.wait_for("/readyz", 200);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| assert_eq!(pipeline(&sidecar.address, "/readyz", QUESTIONS), QUESTIONS));
        }
    });
    let (calls, looks) = (u32::try_from(server.requests()).unwrap(), looks(&sidecar, "api"));
    assert!((f64::from(calls) - looks).abs() <= 1.0, "{calls} calls, {looks} looks, {} questions", CLIENTS * QUESTIONS);
}

/// Asks again and again over one connection, without waiting for answers in between; how many were 200.
fn pipeline(address: &str, path: &str, questions: u32) -> u32 {
    let stream = std::net::TcpStream::connect(address).unwrap();
    let mut writer = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 1..=questions {
                let connection = if number == questions { "close" } else { "keep-alive" };
                write!(writer, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: {connection}\r\n\r\n").unwrap();
            }
        });
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        u32::try_from(lines.filter(|line| line.contains("HTTP/1.1 200")).count()).unwrap()
    })
}

/// H16: the wall clock jumps an hour ahead and two hours back while the sidecar runs: looks go on as before, nothing is
/// stale, and times are those of the clock as it is.
#[test]
fn h16_a_jump_of_the_wall_clock_changes_times_and_nothing_else() {
    let server = Server::start(|_| 200);
    let clock = tempfile::NamedTempFile::new().unwrap();
    let set = |hours: &str| std::fs::write(clock.path(), format!("{hours}h\n")).unwrap();
    set("+0");
    let checks = format!("    api: {{ type: http, critical: true, url: \"http://{}/\" }}\n", server.address);
    let sidecar = Setup::default()
        .config(&config("interval: 300ms, timeout: 250ms", &checks))
        .variable("LD_PRELOAD", faketime().to_str().unwrap())
        .variable("FAKETIME_TIMESTAMP_FILE", clock.path().to_str().unwrap())
        .variable("FAKETIME_NO_CACHE", "1")
        .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .start();
    sidecar.wait_for("/readyz", 200);
    let known = || {
        let history: Value = serde_json::from_str(&sidecar.get("/api/v1/history?check=api&window=24h").body).unwrap();
        history["checks"][0]["uptime"]["up_seconds"].as_u64().unwrap()
    };
    for (hours, ahead) in [("+1", 1), ("-1", -1), ("+0", 0)] {
        set(hours);
        let before = looks(&sidecar, "api");
        eventually(
            "looks go on",
            || {
                assert_eq!(sidecar.get("/readyz").status, 200, "{hours}");
                let seen = check(&sidecar, "api");
                assert_eq!((&seen["x-state"], &seen["x-stale"]), (&"up".into(), &false.into()), "{hours}: {seen:#}");
                looks(&sidecar, "api")
            },
            |looks| *looks >= before + 10.0,
        );
        let time: jiff::Timestamp = check(&sidecar, "api")["time"].as_str().unwrap().parse().unwrap();
        let off = time.duration_since(jiff::Timestamp::now()) - jiff::SignedDuration::from_hours(ahead);
        assert!(off.abs() < jiff::SignedDuration::from_mins(10), "{hours}: {time}");
    }
    assert!(known() < 120, "no hour has passed: {} s", known());
    assert_eq!(sidecar.value("bellwether_check_transitions_total{check=\"api\"}"), Some(0.0));
}

/// The library that changes what a process is told of the time.
pub fn faketime() -> std::path::PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().filter_map(Result::ok).map(|folder| folder.path());
    let found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|file| file.is_file());
    found.expect("libfaketime is missing: scripts/tools.sh installs it (Debian: apt-get install faketime)")
}

/// H14: the application's pool is exhausted, and MongoDB is well: the sidecar has connections of its own.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "the test ends them")]
async fn h14_an_exhausted_pool_of_the_application_is_not_mongodbs_failure() {
    let mongod = Mongod::start().await;
    let mut options = mongodb::options::ClientOptions::parse(mongod.uri()).await.unwrap();
    options.max_pool_size = Some(1);
    let application = mongodb::Client::with_options(options).unwrap().database("app");
    application.collection("numbers").insert_one(doc! { "n": 1 }).await.unwrap();
    let busy = application.clone();
    let slow = tokio::spawn(async move {
        // Holds the only connection of the pool.
        let _ = busy.collection::<mongodb::bson::Document>("numbers").find_one(doc! { "$where": "sleep(60000) || true" }).await;
    });
    let sidecar = mongodb(&mongod.uri(), "interval: 300ms, timeout: 250ms", "");
    let waiting = tokio::spawn(async move { application.run_command(doc! { "ping": 1 }).await });
    let before = looks(&sidecar, "mongodb");
    eventually("more looks", || looks(&sidecar, "mongodb"), |looks| *looks > before + 10.0);
    assert!(!waiting.is_finished() && !slow.is_finished(), "the application waits for its pool");
    assert_eq!(check(&sidecar, "mongodb")["x-state"], "up");
    let database = mongod.database("admin").await;
    let pipeline = [
        doc! { "$currentOp": { "allUsers": true, "idleConnections": true } },
        doc! { "$match": { "appName": { "$regex": "^bellwether" } } },
    ];
    let mut cursor = database.aggregate(pipeline).await.unwrap();
    let mut connections = 0;
    while cursor.advance().await.unwrap() {
        connections += 1;
    }
    assert!((1..=4).contains(&connections), "one or two for looks, two for the driver's monitor: {connections}");
    slow.abort();
    waiting.abort();
}
