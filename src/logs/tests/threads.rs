//! Several threads read at the same time: the counters are exact, the lines of a file keep their order, and a snapshot
//! never sees half.

use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::*;

const FILES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Counts lines by file, and remembers the number of the last line of each.
const RULES: &str = "
  rules:
    - metric: app_lines_total
      type: counter
      labels: { file: { field: file, allow: [a, b, c, d, e], else: other } }
    - metric: app_last
      type: gauge
      value: { field: seq, unit: none }
      labels: { file: { field: file, allow: [a, b, c, d, e], else: other } }
    - metric: app_paths_total
      type: counter
      labels: { path: { field: path, path_template: true } }
      limit: 7
";

/// An engine with three threads, for which each file is far behind as soon as it has something to read.
fn bench() -> Bench {
    let mut bench = Bench::new();
    let file = bench.folder.path().join("rules.yaml");
    fs::write(&file, format!("profile: none\nlogs:{RULES}")).unwrap();
    let rules = load(&Request { file: Some(&file), ..Request::default() }, &Environment::default()).unwrap().logs.rules;
    bench.config.rules = rules;
    bench.config.threads = Some(3);
    restart(&mut bench);
    bench
}

fn restart(bench: &mut Bench) {
    bench.kill();
    bench.engine.shard.far_behind = 1;
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Append(usize, u64),
    Rename(usize),
    Look,
    Save,
    Kill,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..FILES.len(), 1_u64..400).prop_map(|(file, count)| Event::Append(file, count)),
        2 => (0..FILES.len()).prop_map(Event::Rename),
        2 => Just(Event::Look),
        1 => Just(Event::Save),
        1 => Just(Event::Kill),
    ]
}

/// The writer of all files.
#[derive(Default)]
struct Writer {
    written: [u64; 5],
    renamed: usize,
}

// === impl Writer ===

impl Writer {
    fn append(&mut self, bench: &Bench, file: usize, count: u64) {
        let text: String = (self.written[file]..self.written[file] + count)
            .map(|seq| format!("{{\"file\":\"{}\",\"path\":\"/{}/{seq}\",\"seq\":{seq}}}\n", FILES[file], seq % 13))
            .collect();
        self.written[file] += count;
        bench.append(&format!("{}.log", FILES[file]), text);
    }

    fn happens(&mut self, bench: &mut Bench, event: Event) {
        match event {
            Event::Append(file, count) => self.append(bench, file, count),
            Event::Rename(file) => {
                self.append(bench, file, 1);
                self.renamed += 1;
                bench.rename(&format!("{}.log", FILES[file]), &format!("{}.log.{}", FILES[file], self.renamed));
                self.append(bench, file, 1);
            }
            Event::Look => {
                bench.look();
            }
            Event::Save => bench.save(),
            Event::Kill => {
                restart(bench);
                bench.look();
            }
        }
    }
}

/// Every line was counted once, the last one of each file last, and the series beyond the cap have the rest.
#[track_caller]
fn check(bench: &Bench, written: &[u64; 5]) {
    for (file, written) in FILES.iter().zip(written) {
        assert_eq!(bench.value("app_lines_total", &[file]), *written, "{file}");
        if *written > 0 {
            assert_eq!(bench.value("app_last", &[file]), written - 1, "{file}");
        }
    }
    let families = bench.engine.families();
    let families = families.lock();
    let paths = (0..13).map(|path| format!("/{path}/{{id}}")).chain(["overflow".to_owned(), "/{id}/{id}".to_owned()]);
    let total: f64 = paths.filter_map(|path| families.value("app_paths_total", &[&path])).sum();
    assert_eq!(total, written.iter().sum::<u64>() as f64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn whatever_happens_to_several_files_each_line_counts_once_and_in_order(events in prop::collection::vec(event(), 1..40)) {
        let (mut bench, mut writer) = (bench(), Writer::default());
        // A file that is rotated away before anybody has seen one at its path is not known to belong to it.
        FILES.iter().for_each(|file| drop(bench.append(&format!("{file}.log"), "")));
        bench.look().save();
        for event in events {
            writer.happens(&mut bench, event);
        }
        bench.look();
        check(&bench, &writer.written);
    }
}

#[test]
fn files_that_are_far_behind_are_read_by_several_threads() {
    let mut bench = bench();
    let mut writer = Writer::default();
    (0..FILES.len()).for_each(|file| writer.append(&bench, file, 8_000));
    let listing = bench.engine.shard.list();
    bench.engine.shard.sweep(listing, bench.now);
    bench.engine.shard.read(bench.now);
    assert_eq!(bench.engine.shard.readers(), 3);
    bench.look();
    check(&bench, &writer.written);
    bench.look();
    assert_eq!(bench.engine.shard.readers(), 1, "their memory is given back");
}

#[test]
fn a_snapshot_sees_lines_and_offsets_together_while_threads_read() {
    let bench = bench();
    let mut writer = Writer::default();
    (0..FILES.len()).for_each(|file| writer.append(&bench, file, 8_000));
    let Bench { folder, config, mut engine, now } = bench;
    engine.shard.far_behind = 1;
    let (shared, caught_up, stop) = (std::sync::Arc::clone(&engine.shared), engine.caught_up(), CancellationToken::new());
    let token = stop.clone();
    let running = std::thread::spawn(move || engine.run(token).map_err(|error| error.to_string()));
    // Every state on the way is one from which a later run gets to the same counters.
    let mut states = Vec::new();
    while !caught_up.is_set() {
        states.push(shared.encode(&["app".to_owned()]).unwrap());
    }
    stop.cancel();
    running.join().unwrap().unwrap();
    let kept = states.len().div_ceil(6);
    for state in states.iter().step_by(kept) {
        let later = folder.path().join("later");
        fs::create_dir_all(&later).unwrap();
        crate::series::snapshot::Snapshots::open(&later, "logs", |_| Some(())).0.write(state).unwrap();
        let engine = Engine::new(&config, Some(&later)).unwrap();
        let mut bench = Bench { folder: tempfile::tempdir().unwrap(), config: config.clone(), engine, now };
        bench.look();
        check(&bench, &writer.written);
        fs::remove_dir_all(&later).unwrap();
    }
}
