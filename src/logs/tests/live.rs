//! The engine with its threads: events, the stop, the last snapshot, the standard input.

use std::thread;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::logs::decoder::Decoder;
use crate::logs::metrics::InputSeries;
use crate::logs::state::Shared;
use crate::logs::stream::pump::{Pump, Source};
use crate::logs::watch::Bell;
use crate::series::families::{Families, SharedFamilies};
use crate::series::rules::RuleSet;

/// Waits for a state; a test that never gets there fails with what it saw last.
#[track_caller]
fn await_records(families: &SharedFamilies, expected: f64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = families.lock().value("bellwether_log_lines_total", &["app", "record"]);
        if found == Some(expected) {
            return;
        }
        assert!(Instant::now() < deadline, "{found:?} records instead of {expected}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn it_follows_files_until_the_stop_and_goes_on_after_it() {
    let Bench { folder, config, engine, .. } = Bench::with("**/*.log", Start::Beginning);
    let (logs, state) = (folder.path().join("logs"), folder.path().join("state"));
    let append = |name: &str, text: String| {
        OpenOptions::new().append(true).create(true).open(logs.join(name)).unwrap().write_all(text.as_bytes()).unwrap();
    };
    append("app.log", lines(0..1000));

    let (families, caught_up, stop) = (engine.families(), engine.caught_up(), CancellationToken::new());
    let token = stop.clone();
    let running = thread::spawn(move || engine.run(token).map_err(|error| error.to_string()));
    await_records(&families, 1000.0);
    append("app.log", lines(1000..1001));
    await_records(&families, 1001.0);
    assert!(caught_up.is_set());
    fs::create_dir(logs.join("later")).unwrap();
    append("later/app.log", lines(0..5));
    await_records(&families, 1006.0);
    fs::rename(logs.join("app.log"), logs.join("app.log.1")).unwrap();
    append("app.log.1", lines(1001..1003));
    append("app.log", lines(1003..1004));
    await_records(&families, 1009.0);
    append("app.log", lines(1004..1006));
    stop.cancel();
    running.join().unwrap().unwrap();
    await_records(&families, 1011.0);

    // The last snapshot has it all: nothing is read again.
    let engine = Engine::new(&config, Some(&state)).unwrap();
    await_records(&engine.families(), 1011.0);
    let stop = CancellationToken::new();
    stop.cancel();
    let families = engine.families();
    engine.run(stop).unwrap();
    await_records(&families, 1011.0);
}

#[test]
fn the_standard_input_is_read_to_its_end() {
    let config = config(&[], Start::End);
    let mut families = Families::default();
    let rules = RuleSet::compile(&config.rules, &mut families).unwrap();
    let series = InputSeries::declare("app", &mut families).unwrap();
    let (shared, bell) = (Shared::new(families, Vec::new(), None), Bell::default());
    let (reader, mut writer) = std::io::pipe().unwrap();
    let file = File::from(std::os::fd::OwnedFd::from(reader));
    let source = Source { input: "app".to_owned(), series, name: "pipe".to_owned(), file, tee: None };
    let pump = Pump::new(Decoder::new(rules, 1024), vec![source], Vec::new());
    thread::scope(|scope| {
        let running = scope.spawn(|| pump.run(&shared, &|| bell.is_stopping()));
        writer.write_all(lines(0..3).as_bytes()).unwrap();
        await_records(&shared.families, 3.0);
        writer.write_all(lines(3..4).trim_end().as_bytes()).unwrap();
        drop(writer);
        running.join().unwrap();
    });
    await_records(&shared.families, 4.0);
}

#[test]
fn whole_streams_are_replayed_one_after_the_other() {
    let config = config(&[], Start::End);
    let families = SharedFamilies::default();
    crate::logs::replay(&config, lines(0..3).as_bytes(), "app", &families).unwrap();
    crate::logs::replay(&config, lines(3..5).trim_end().as_bytes(), "app", &families).unwrap();
    await_records(&families, 5.0);
    assert_eq!(families.lock().value("decisionbox_log_lines_total", &["info", "decisionbox-agent"]), Some(5.0));
}
