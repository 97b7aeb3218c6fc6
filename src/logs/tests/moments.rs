//! A rotation at each moment within a look: between any two of the calls that the reader makes.

use super::*;
use crate::logs::interlude;

/// What is done with a log behind the reader's back, and what it is called.
type Rotation = (&'static str, fn(&Hand));

/// Each writes the lines 100..110 after what was there, and those from 200 on into what is then the file.
const ROTATIONS: [Rotation; 7] = [
    ("copied and cut off", |log| {
        log.append(&lines(100..110));
        log.copy(".7", &lines(200..205));
    }),
    ("copied and cut off, and grown beyond where it was", |log| {
        log.append(&lines(100..110));
        log.copy(".7", &lines(200..400));
    }),
    ("copied and cut off, and empty", |log| {
        log.append(&lines(100..110));
        log.copy(".7", "");
    }),
    ("copied, cut off and compressed", |log| {
        log.append(&lines(100..110));
        log.copy(".7", &lines(200..205));
        log.compress(".7", Packing::Zstd, false);
    }),
    ("copied and cut off twice", |log| {
        log.append(&lines(100..110));
        log.copy(".7", &lines(200..203));
        std::thread::sleep(TICK);
        log.copy(".8", &lines(203..205));
    }),
    ("renamed", |log| {
        log.append(&lines(100..110));
        log.rename(".7", &lines(200..205));
    }),
    ("renamed and compressed", |log| {
        log.append(&lines(100..110));
        log.rename(".7", &lines(200..205));
        log.compress(".7", Packing::Gzip, true);
    }),
];

/// Lets each rotation happen at each moment of a look that finds what `prepare` has made, where `written` lines are.
fn at_each_moment(prepare: impl Fn() -> (Bench, u64)) {
    for (name, rotation) in ROTATIONS {
        let mut moment = 0;
        loop {
            let (mut bench, written) = prepare();
            std::thread::sleep(TICK);
            let log = Hand(bench.path("app.log"));
            let waiting = interlude::at(moment, move || rotation(&log));
            bench.look();
            let is_over = !waiting.has_happened();
            if is_over {
                rotation(&Hand(bench.path("app.log")));
            }
            bench.look();
            // Of a file that was empty at two looks in a row it is not known whether it was so in between.
            bench.append("app.log", lines(500..501));
            bench.pass_grace();
            let next = match name {
                "copied and cut off, and grown beyond where it was" => 200,
                "copied and cut off, and empty" => 0,
                _ => 5,
            };
            let counted = bench.value("decisionbox_log_lines_total", &["info", "decisionbox-agent"]);
            assert_eq!((counted, bench.lost()), (written + 10 + next + 1, 0), "{name}, at moment {moment}");
            // And nothing of it counts again.
            bench.save();
            bench.kill();
            bench.pass_grace();
            assert_eq!(bench.value("decisionbox_log_lines_total", &["info", "decisionbox-agent"]), counted, "{name}, at moment {moment}");
            if is_over {
                break;
            }
            moment += 1;
        }
        assert!(moment > 0, "a look has at least one moment");
    }
}

#[test]
fn while_a_file_goes_on() {
    at_each_moment(|| {
        let mut bench = Bench::with("app.log", Start::Beginning);
        bench.append("app.log", lines(0..5));
        bench.look();
        bench.append("app.log", lines(5..8));
        (bench, 8)
    });
}

#[test]
fn while_a_file_is_found_after_a_rename() {
    at_each_moment(|| {
        let mut bench = Bench::with("app.log", Start::Beginning);
        bench.append("app.log", lines(0..5));
        bench.look();
        bench.rename("app.log", "app.log.1");
        bench.append("app.log", lines(5..8));
        (bench, 8)
    });
}

#[test]
fn while_a_file_is_found_that_was_cut_off() {
    at_each_moment(|| {
        let mut bench = Bench::with("app.log", Start::Beginning);
        bench.append("app.log", lines(0..5));
        bench.look();
        bench.copy_and_cut_off("app.log", "app.log.1");
        bench.append("app.log", lines(5..8));
        (bench, 8)
    });
}

#[test]
fn while_a_file_is_found_for_the_first_time() {
    at_each_moment(|| {
        let mut bench = Bench::with("app.log", Start::Beginning);
        bench.look();
        bench.append("app.log", lines(0..8));
        (bench, 8)
    });
}

#[test]
fn while_a_file_gets_its_first_line() {
    at_each_moment(|| {
        let mut bench = Bench::with("app.log", Start::Beginning);
        bench.append("app.log", "");
        bench.look();
        bench.append("app.log", lines(0..3));
        (bench, 3)
    });
}

#[test]
fn while_a_file_of_an_earlier_run_is_found() {
    at_each_moment(|| {
        let mut bench = Bench::with("app.log", Start::Beginning);
        bench.append("app.log", lines(0..5));
        bench.look().save();
        bench.append("app.log", lines(5..8));
        bench.kill();
        (bench, 8)
    });
}

#[test]
fn while_the_rotations_since_an_earlier_run_are_found() {
    at_each_moment(|| {
        let mut bench = Bench::with("app.log", Start::Beginning);
        bench.append("app.log", lines(0..5));
        bench.look().save();
        bench.append("app.log", lines(5..8));
        bench.rename("app.log", "app.log.1");
        bench.append("app.log", lines(8..10));
        bench.compress("app.log.1", Packing::Gzip, true);
        std::thread::sleep(TICK);
        bench.copy_and_cut_off("app.log", "app.log.2");
        bench.append("app.log", lines(10..12));
        bench.kill();
        (bench, 12)
    });
}

/// So many lines are read in several buffers, so that a kill can come between them.
const MANY: std::ops::Range<u64> = 100..4_600;

/// What has happened to a log while nobody looked, and how many lines are written then. A hundred had been counted before.
type Away = (&'static str, fn(&Bench) -> u64);

const AWAY: [Away; 5] = [
    ("compressed", |bench| {
        bench.append("app.log", lines(MANY));
        bench.rename("app.log", "app.log.1");
        bench.compress("app.log.1", Packing::Gzip, false);
        bench.append("app.log", lines(MANY.end..MANY.end + 7));
        MANY.end + 7
    }),
    ("compressed, and there is no other yet", |bench| {
        bench.append("app.log", lines(MANY));
        bench.rename("app.log", "app.log.1");
        bench.compress("app.log.1", Packing::Zstd, true);
        MANY.end
    }),
    ("rotated twice and compressed, the second unseen", |bench| {
        bench.rename("app.log", "app.log.1");
        bench.compress("app.log.1", Packing::Gzip, false);
        bench.append("app.log", lines(MANY));
        bench.rename("app.log", "app.log.2");
        bench.compress("app.log.2", Packing::Gzip, false);
        bench.append("app.log", lines(MANY.end..MANY.end + 7));
        MANY.end + 7
    }),
    ("copied and cut off twice", |bench| {
        bench.append("app.log", lines(MANY));
        bench.copy_and_cut_off("app.log", "app.log.1");
        std::thread::sleep(TICK);
        bench.append("app.log", lines(MANY.end..2 * MANY.end));
        bench.copy_and_cut_off("app.log", "app.log.2");
        bench.append("app.log", lines(2 * MANY.end..2 * MANY.end + 7));
        2 * MANY.end + 7
    }),
    ("copied, cut off and compressed", |bench| {
        bench.append("app.log", lines(MANY));
        bench.copy_and_cut_off("app.log", "app.log.1");
        bench.compress("app.log.1", Packing::Gzip, true);
        bench.append("app.log", lines(MANY.end..MANY.end + 7));
        MANY.end + 7
    }),
];

#[test]
fn a_kill_at_any_moment_while_what_was_put_aside_is_read_loses_and_doubles_nothing() {
    for (name, away) in AWAY {
        for moment in 0.. {
            let mut bench = Bench::new();
            bench.append("app.log", lines(0..100));
            bench.look().save();
            std::thread::sleep(TICK);
            let written = away(&bench);
            bench.kill();
            // The last snapshot before the kill is taken at this moment.
            let (mut keeper, shared) = (bench.engine.keeper.take().unwrap(), std::sync::Arc::clone(&bench.engine.shared));
            let waiting = interlude::at(moment, move || keeper.save(&shared));
            bench.look();
            let has_happened = waiting.has_happened();
            bench.kill();
            let counted = |bench: &Bench| bench.value("decisionbox_log_lines_total", &["info", "decisionbox-agent"]);
            bench.look();
            assert_eq!((counted(&bench), bench.lost(), bench.troubles("vanished")), (written, 0, 0), "{name}, at moment {moment}");
            // Nor later, when it is looked through again.
            std::thread::sleep(TICK);
            bench.append("app.log", lines(500_000..500_001));
            bench.look().save();
            bench.kill();
            bench.rename("app.log", "app.log.9");
            bench.append("app.log", lines(500_001..500_002));
            bench.pass_grace();
            assert_eq!((counted(&bench), bench.lost()), (written + 2, 0), "{name}, at moment {moment}, after the next rotation");
            if !has_happened {
                break;
            }
        }
    }
}
