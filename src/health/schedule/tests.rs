//! Looks at things that hang, break and answer, in a time that passes by itself.

use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;

use super::*;
use crate::config::health::{Group, Health, Hold, Probe, READINESS_GROUP, Timing};
use crate::health::aggregate::State;
use crate::health::outcome::Outcome;
use crate::health::schedule::look::LOOKS_AT_ONCE;

/// How a thing behaves that is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Behaviour {
    Answers,
    Hangs,
    /// As the driver of MongoDB: nobody may drop the attempt.
    HangsUndropped,
    /// The attempt panics the first time, and answers then.
    BreaksOnce,
    /// The loop itself panics the first time.
    BreaksTheLoopOnce,
}

/// What was seen of the looks at one thing.
#[derive(Debug, Default)]
struct Seen {
    looks: AtomicUsize,
    begins: Mutex<Vec<Instant>>,
    running: AtomicUsize,
    most_running: AtomicUsize,
}

impl Behaviour {
    fn of(address: &str) -> Self {
        match address {
            "hangs" => Self::Hangs,
            "hangs undropped" => Self::HangsUndropped,
            "breaks" => Self::BreaksOnce,
            "breaks the loop" => Self::BreaksTheLoopOnce,
            _ => Self::Answers,
        }
    }
}

struct Thing {
    behaviour: Behaviour,
    seen: Arc<Seen>,
}

/// Counts an attempt for as long as it runs, however it ends.
struct Attempt(Arc<Seen>);

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Ask for Thing {
    #[expect(clippy::disallowed_methods, reason = "as the real ones do")]
    fn start(&self) -> JoinHandle<Outcome> {
        let look = self.seen.looks.fetch_add(1, Ordering::SeqCst);
        self.seen.begins.lock().unwrap().push(Instant::now());
        let behaviour = self.behaviour;
        assert!(behaviour != Behaviour::BreaksTheLoopOnce || look > 0, "by the test");
        let running = self.seen.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.seen.most_running.fetch_max(running, Ordering::SeqCst);
        let attempt = Attempt(Arc::clone(&self.seen));
        tokio::spawn(async move {
            let _attempt = attempt;
            match behaviour {
                Behaviour::Hangs | Behaviour::HangsUndropped => std::future::pending().await,
                Behaviour::BreaksOnce if look == 0 => panic!("by the test"),
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
            Outcome::pass(Duration::from_millis(5))
        })
    }

    fn may_be_dropped(&self) -> bool {
        self.behaviour != Behaviour::HangsUndropped
    }
}

fn check(name: &str, address: &str) -> Check {
    Check {
        name: name.to_owned(),
        probe: Probe::Tcp { address: address.to_owned() },
        critical: true,
        depends_on: Vec::new(),
        timing: Timing {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            fail_after: 3,
            pass_after: 2,
            degraded_after: None,
            hold: Hold::default(),
        },
    }
}

fn health(checks: Vec<Check>) -> Health {
    let fingerprints = checks.iter().map(|check| (check.name.clone(), address_of(check).len() as u64)).collect();
    let groups = vec![Group { name: READINESS_GROUP.to_owned(), checks: checks.iter().map(|check| check.name.clone()).collect() }];
    Health { checks, groups, maintenance: Vec::new(), fingerprints }
}

fn address_of(check: &Check) -> &str {
    match &check.probe {
        Probe::Tcp { address } => address,
        other => panic!("{other:?}"),
    }
}

/// The schedule under test, over things whose behaviour stands in their addresses' ports.
struct Bench {
    board: Arc<Board>,
    permits: Permits,
    seen: Arc<Mutex<HashMap<String, Arc<Seen>>>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Bench {
    #[expect(clippy::disallowed_methods, reason = "the test ends it")]
    fn start(config: &Health) -> Self {
        let (permits, stop) = (Permits::default(), CancellationToken::new());
        let board = Arc::new(Board::new(config, Now::read()));
        let metrics = Metrics::register(&board, &permits, &mut Registry::default());
        let seen: Arc<Mutex<HashMap<String, Arc<Seen>>>> = Arc::default();
        let all = Arc::clone(&seen);
        let prepare = move |check: &Check| {
            let seen = Arc::clone(all.lock().unwrap().entry(check.name.clone()).or_default());
            Thing { behaviour: Behaviour::of(address_of(check)), seen }
        };
        let task = tokio::spawn(Schedule::new(Arc::clone(&board), metrics, permits.clone(), prepare).run(stop.clone()));
        Self { board, permits, seen, stop, task }
    }

    fn seen(&self, check: &str) -> Arc<Seen> {
        Arc::clone(&self.seen.lock().unwrap()[check])
    }

    fn state(&self, check: &str) -> (State, Option<&'static str>) {
        // Not the shared snapshot: this clock stands still while the other one is paused.
        let later = Now { monotonic: std::time::Instant::now() + Duration::from_secs(1), ..Now::read() };
        let snapshot = self.board.snapshot(later);
        let check = snapshot.check(check).unwrap();
        (check.verdict, check.reason)
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// H15: the longest time between two looks at any of the checks, while half of a hundred hang.
#[tokio::test(start_paused = true)]
async fn components_that_hang_keep_no_other_from_being_looked_at() {
    for hanging in [50, 100] {
        let checks = (0..100).map(|number| check(&number.to_string(), if number < hanging { "hangs" } else { "answers" })).collect();
        let bench = Bench::start(&health(checks));
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert!(bench.permits.asking() <= LOOKS_AT_ONCE && bench.permits.lingering() <= hanging);
        assert!(bench.board.first_round().is_set());
        for number in 0..100 {
            let seen = bench.seen(&number.to_string());
            let begins = seen.begins.lock().unwrap();
            let longest = begins.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
            // The interval with its jitter, and a second in the queue: far from stale, which is 17.5 s.
            assert!(longest < Duration::from_millis(6500), "{hanging} hang: {number} waited {longest:?}");
            assert!(begins.len() >= 120 * 10 / 65, "{hanging} hang: {number} was looked at {} times", begins.len());
            assert_eq!(seen.most_running.load(Ordering::SeqCst), 1, "never twice at once");
            let state = bench.state(&number.to_string());
            let expected = if number < hanging { (State::Down, Some("timeout")) } else { (State::Up, None) };
            assert_eq!(state, expected, "{number}");
        }
        bench.end().await;
    }
}

/// H8: what breaks is stale with its reason, and begins again by itself.
#[tokio::test(start_paused = true)]
async fn a_look_or_a_loop_that_breaks_is_stale_and_is_begun_again() {
    for (address, restarted_after) in [("breaks", 5.5), ("breaks the loop", 1.3)] {
        let bench = Bench::start(&health(vec![check("api", address), check("other", "answers")]));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(bench.state("api"), (State::Stale, Some("panic")), "{address}");
        assert!(!bench.board.snapshot(Now::read()).groups[0].ready, "stale is never ready");
        assert!(bench.board.first_round().is_set(), "and holds no start up");
        tokio::time::sleep(Duration::from_secs_f64(restarted_after)).await;
        assert_eq!(bench.state("api"), (State::Up, None), "{address}");
        assert_eq!(bench.state("other"), (State::Up, None));
        bench.end().await;
    }
}

/// H12: a new configuration disturbs only what it changes.
#[tokio::test(start_paused = true)]
async fn a_replaced_configuration_leaves_unchanged_checks_alone() {
    let bench = Bench::start(&health(vec![check("kept", "answers"), check("moved", "answers"), check("gone", "answers")]));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before = bench.board.watched();
    let changes =
        bench.board.replace(&health(vec![check("kept", "answers"), check("moved", "hangs"), check("new", "answers")]), Now::read());
    assert_eq!((changes.added, changes.changed, changes.removed), (vec!["new".into()], vec!["moved".into()], vec!["gone".into()]));
    assert_eq!(bench.state("moved"), (State::Up, None), "the old verdict stands until the first look");
    assert_eq!(bench.state("new"), (State::Unknown, None));
    assert!(bench.board.snapshot(Now::read()).groups[0].ready, "nobody has said anything against it yet");
    let after = bench.board.watched();
    assert!(before[0].id == after[0].id && before[1].id != after[1].id);
    let looks_at_gone = bench.seen("gone").looks.load(Ordering::SeqCst);
    let looks_at_kept = bench.seen("kept").looks.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(bench.state("moved"), (State::Down, Some("timeout")), "and the first look decides");
    assert_eq!(bench.state("new"), (State::Up, None));
    tokio::time::sleep(Duration::from_secs(57)).await;
    assert_eq!(bench.seen("gone").looks.load(Ordering::SeqCst), looks_at_gone);
    let more = bench.seen("kept").looks.load(Ordering::SeqCst) - looks_at_kept;
    assert!((10..=14).contains(&more), "it went on on its beat: {more} looks in a minute");
    // An outcome of a check that is gone changes nothing.
    assert_eq!(bench.board.observe(before[2].id, Outcome::pass(Duration::ZERO), Now::read()), None);
    bench.end().await;
}

/// A check that is new is none of the old ones' business until it has been looked at, and is so in any case then.
#[tokio::test(start_paused = true)]
async fn a_new_check_counts_from_its_first_look_on() {
    for (address, millis, ready) in [("answers", 3000, true), ("hangs", 3000, false), ("breaks", 300, false)] {
        let bench = Bench::start(&health(vec![check("kept", "answers")]));
        tokio::time::sleep(Duration::from_secs(1)).await;
        bench.board.replace(&health(vec![check("kept", "answers"), check("new", address)]), Now::read());
        assert!(bench.board.snapshot(Now::read()).groups[0].ready, "{address}");
        tokio::time::sleep(Duration::from_millis(millis)).await;
        assert_eq!(bench.board.snapshot(Now::read()).groups[0].ready, ready, "{address}");
        bench.end().await;
    }
}

/// A reload meets looks that hang: what may be dropped ends with its check, the driver's future is left to itself.
#[tokio::test(start_paused = true)]
async fn a_check_that_is_gone_takes_along_what_may_be_dropped() {
    let bench = Bench::start(&health(vec![check("dropped", "hangs"), check("left", "hangs undropped")]));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let (dropped, left) = (bench.seen("dropped"), bench.seen("left"));
    assert_eq!([&dropped, &left].map(|seen| seen.running.load(Ordering::SeqCst)), [1, 1]);
    bench.board.replace(&health(Vec::new()), Now::read());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!([&dropped, &left].map(|seen| seen.running.load(Ordering::SeqCst)), [0, 1]);
    // And the same when the deadline has passed before.
    let bench = Bench::start(&health(vec![check("dropped", "hangs"), check("left", "hangs undropped")]));
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (dropped, left) = (bench.seen("dropped"), bench.seen("left"));
    assert_eq!(left.looks.load(Ordering::SeqCst), 1, "one that hangs is waited for");
    bench.board.replace(&health(Vec::new()), Now::read());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!([&dropped, &left].map(|seen| seen.running.load(Ordering::SeqCst)), [0, 1]);
}
