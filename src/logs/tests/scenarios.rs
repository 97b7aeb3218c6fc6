//! The scenarios in which log readers lose or double lines, one test each, with the exact value of every counter.
//!
//! | number | what happens | where |
//! |---|---|---|
//! | T01–T03 | a late writer after a rename; several renames between two looks | here |
//! | T04–T07 | copied and cut off: with and without `O_APPEND`, regrown, while stopped | here |
//! | T08–T10 | renamed, compressed, inode used again, while stopped | here |
//! | T11–T16 | half lines, equal files, tiny files, links, parts of container lines | here |
//! | T17 | kill -9 under load | `tests/it/logs.rs`, and a thousand times by `just soak-logs` |
//! | T18 | a state that is torn, empty, changed, of another version; a full volume; a failing disk | `survival`, `tests/it/logs_faults.rs` |
//! | T19 | a state volume that is or turns read only; a second process | `tests/it/logs_faults.rs`; `app::state_dir` |
//! | T20, T21 | rules that are reloaded under load; bad ones | `reload`, `tests/it/logs.rs` |
//! | T22 | an attack with labels | `series::rules` (a million values) |
//! | T23 | a series that was idle | `survival` |
//! | T24 | the first increment | `survival` |
//! | T25–T28 | a scrape while lines come; long, bad and malformed lines | `content`; a gigabyte: `tests/it/logs_faults.rs` |
//! | T29 | too few watches; a queue that overflows | `tests/it/logs_faults.rs`; `logs::watch` |
//! | T30 | idle files, ten thousand files | here, `tests/it/logs_faults.rs` |
//! | T31, T32 | deletion, permission | here |
//! | T33 | times of the past and the future; a clock that jumps | `content`; `tests/it/logs_faults.rs` |
//! | T34 | the standard input ends | `live`, `tests/it/logs.rs` |
//! | T35 | random histories against a model, each moment of a look | `histories`, `moments` |
//! | T36 | rules proposed for an unknown log | `tests/it/logs_diagnose.rs` |

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// Cuts a file off, as `> file` does.
fn cut_off(bench: &Bench, name: &str) {
    OpenOptions::new().write(true).open(bench.path(name)).unwrap().set_len(0).unwrap();
}

fn cri(flag: char, text: &str) -> String {
    format!("2026-04-04T09:00:01.733456789Z stderr {flag} {text}\n")
}

#[test]
fn t01_a_late_writer_after_a_rename() {
    let mut bench = Bench::new();
    let mut old = bench.append("app.log", lines(0..1));
    bench.look().check(1, 0, 0);
    bench.rename("app.log", "app.log.1");
    old.write_all(lines(1..2).as_bytes()).unwrap();
    bench.append("app.log", lines(2..3));
    bench.look().check(3, 1, 0);
    bench.pass_grace().check(3, 1, 0);
    assert_eq!(bench.lost(), 0);
}

#[test]
fn t02_two_renames_between_two_looks() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..1));
    bench.look();
    for (name, range) in [("app.log.1", 1..3), ("app.log.2", 3..5)] {
        bench.rename("app.log", name);
        bench.append("app.log", lines(range));
    }
    bench.look().check(5, 2, 0);
    bench.pass_grace().check(5, 2, 0);
    assert_eq!(bench.lost(), 0);
}

#[test]
fn t03_three_rapid_rotations() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..2));
    bench.look();
    for round in 1..4 {
        for number in (1..round).rev() {
            bench.rename(&format!("app.log.{number}"), &format!("app.log.{}", number + 1));
        }
        bench.rename("app.log", "app.log.1");
        bench.append("app.log", lines(2 * round..2 * round + 2));
    }
    bench.append("app.log", lines(8..9));
    bench.look().check(9, 3, 0);
    bench.pass_grace().check(9, 3, 0);
    assert_eq!(bench.lost(), 0);
}

#[test]
fn t04_copied_and_cut_off_with_a_writer_that_appends() {
    let mut bench = Bench::new();
    let mut writer = bench.append("app.log", lines(0..5));
    bench.look();
    writer.write_all(lines(5..7).as_bytes()).unwrap();
    bench.copy_and_cut_off("app.log", "app.log.1");
    writer.write_all(lines(7..9).as_bytes()).unwrap();
    bench.look().check(9, 0, 1);
    bench.pass_grace().check(9, 0, 1);
    assert_eq!((bench.lost(), bench.repaired("zeros")), (0, 0));
}

#[test]
fn t05_copied_and_cut_off_with_a_writer_that_goes_on_where_it_was() {
    let mut bench = Bench::new();
    let mut writer = File::create(bench.path("app.log")).unwrap();
    writer.write_all(lines(0..5).as_bytes()).unwrap();
    bench.look();
    bench.copy_and_cut_off("app.log", "app.log.1");
    // Somewhat later in a large file: the gap has 64 MiB and takes no room on the disk.
    std::io::Seek::seek(&mut writer, std::io::SeekFrom::Start(64 << 20)).unwrap();
    writer.write_all(lines(5..7).as_bytes()).unwrap();
    bench.look().check(7, 0, 1);
    assert_eq!((bench.lost(), bench.repaired("zeros")), (0, 1));
}

#[test]
fn t06_cut_off_and_regrown_beyond_where_it_was_read() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..5));
    bench.look();
    cut_off(&bench, "app.log");
    bench.append("app.log", lines(5..15));
    bench.look().check(15, 0, 1);
    assert_eq!(bench.lost(), 0);
}

#[test]
fn t07_copied_and_cut_off_while_stopped() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..5));
    bench.look().save();
    bench.copy_and_cut_off("app.log", "app.log.1");
    bench.append("app.log", lines(5..8));
    bench.kill();
    bench.look().check(8, 0, 1);
    assert_eq!(bench.lost(), 0);
}

#[test]
fn t08_renamed_while_stopped() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..2));
    bench.look().save();
    bench.append("app.log", lines(2..4));
    bench.rename("app.log", "app.log.1");
    bench.append("app.log", lines(4..5));
    bench.kill();
    bench.look().check(5, 1, 0);
    bench.pass_grace().check(5, 1, 0);
    assert_eq!(bench.lost(), 0);
}

#[test]
fn t09_compressed_while_stopped() {
    for packing in [Packing::Gzip, Packing::Zstd] {
        let mut bench = Bench::new();
        bench.append("app.log", lines(0..2));
        bench.look().save();
        bench.append("app.log", lines(2..4));
        bench.rename("app.log", "app.log.1");
        bench.compress("app.log.1", packing, true);
        bench.append("app.log", lines(4..5));
        bench.kill();
        bench.look().check(5, 1, 0);
        assert_eq!((bench.lost(), bench.troubles("vanished")), (0, 0));
    }
    // In a way that cannot be read: what is known to be missing is counted, and that something is.
    let mut bench = Bench::new();
    let part = &lines(2..3)[..20];
    bench.append("app.log", lines(0..2) + part);
    bench.look().save();
    bench.rename("app.log", "app.log.1.xz");
    fs::write(bench.path("app.log.1.xz"), b"\xfd7zXZ\0").unwrap();
    fs::rename(bench.path("app.log.1.xz"), bench.folder.path().join("app.log.1.xz")).unwrap();
    bench.append("app.log", lines(4..5));
    bench.kill();
    bench.look().check(3, 1, 0);
    assert_eq!((bench.lost(), bench.troubles("vanished")), (part.len() as u64, 1));
}

#[test]
fn t10_an_inode_that_is_used_again_while_stopped() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..50));
    bench.look().save();
    let before = bench.inode("app.log");
    bench.kill();
    fs::remove_file(bench.path("app.log")).unwrap();
    bench.reuse(before, "app.log");
    bench.append("app.log", lines(100..160));
    bench.look().check(110, 1, 0);
    assert_eq!((bench.lost(), bench.troubles("vanished")), (0, 1));
}

#[test]
fn t11_half_a_line_before_a_restart() {
    let mut bench = Bench::new();
    let line = lines(0..1);
    bench.append("app.log", &line[..30]);
    bench.look().check(0, 0, 0);
    bench.save();
    bench.append("app.log", &line[30..]);
    bench.kill();
    bench.look().check(1, 0, 0);
}

#[test]
fn t12_files_that_begin_alike() {
    let mut bench = Bench::new();
    let begin = lines(0..60);
    assert!(begin.len() > 4096);
    bench.append("one.log", begin.clone() + &lines(60..61));
    bench.append("two.log", begin + &lines(70..72));
    bench.look().check(123, 0, 0);
    bench.save();
    bench.append("two.log", lines(72..73));
    bench.kill();
    bench.look().check(124, 0, 0);
}

#[test]
fn t13_five_bytes_without_an_end() {
    let mut bench = Bench::new();
    let line = lines(0..1);
    bench.append("app.log", &line[..5]);
    bench.look().check(0, 0, 0);
    bench.append("app.log", &line[5..line.len() - 1]);
    bench.look().check(0, 0, 0);
    bench.append("app.log", "\n");
    bench.look().check(1, 0, 0);
    bench.look().check(1, 0, 0);
}

#[test]
fn t14_a_link_is_turned_and_the_old_target_is_still_written_to() {
    let mut bench = Bench::new();
    let mut first = bench.append("first", lines(0..2));
    std::os::unix::fs::symlink(bench.path("first"), bench.path("app.log")).unwrap();
    bench.look().check(2, 0, 0);
    bench.append("second", lines(2..4));
    std::os::unix::fs::symlink(bench.path("second"), bench.path("next")).unwrap();
    bench.rename("next", "app.log");
    first.write_all(lines(4..5).as_bytes()).unwrap();
    bench.look().check(5, 1, 0);
    first.write_all(lines(5..6).as_bytes()).unwrap();
    bench.pass_grace().check(6, 1, 0);
    assert_eq!(bench.lost(), 0);
}

#[test]
fn t15_parts_of_a_container_line_on_both_sides_of_a_rotation() {
    for down in [false, true] {
        let mut bench = Bench::new();
        let line = lines(0..1);
        let line = line.trim_end();
        bench.append("0.log", cri('P', &line[..20]) + &cri('P', &line[20..40]));
        bench.look().check(0, 0, 0);
        bench.save();
        bench.rename("0.log", "0.log.20260404-090001");
        bench.append("0.log", cri('F', &line[40..]));
        if down {
            bench.compress("0.log.20260404-090001", Packing::Gzip, false);
            bench.kill();
        }
        bench.look().check(1, 1, 0);
        bench.pass_grace().check(1, 1, 0);
    }
}

#[test]
fn t16_a_container_line_whose_end_never_comes() {
    let mut bench = Bench::new();
    bench.append("0.log", cri('P', "{\"severity\":"));
    bench.look().look().check(0, 0, 0);
    bench.now += crate::logs::framing::PARTIAL_LIMIT + Duration::from_secs(1);
    bench.look();
    assert_eq!(bench.value("bellwether_log_malformed_total", &["app", "partial_dropped"]), 1);
    // An end that comes after all is a line of its own, and so is the next one.
    bench.append("0.log", cri('F', "\"INFO\"}") + &cri('F', lines(0..1).trim_end()));
    bench.look();
    assert_eq!((bench.outcome("record"), bench.outcome("unstructured")), (1, 1));
}

#[test]
fn t30_idle_files_are_not_read_again() {
    let mut bench = Bench::with("**/*.log", Start::Beginning);
    for folder in 0..10 {
        fs::create_dir(bench.path(&folder.to_string())).unwrap();
        for file in 0..100 {
            bench.append(&format!("{folder}/{file}.log"), lines(0..1));
        }
    }
    bench.look().check(1000, 0, 0);
    // A change within the same tick of the clock is looked for twice.
    bench.look().look();
    let listing = bench.engine.shard.list();
    bench.engine.shard.sweep(listing, bench.now);
    assert!(!bench.engine.shard.read(bench.now), "a file that has not changed has no turn");
    bench.check(1000, 0, 0);
    assert_eq!(bench.value("bellwether_log_files", &["app"]), 1000);
}

#[test]
fn t30_more_files_than_allowed_are_said_and_read_when_others_have_gone() {
    let mut bench = Bench::new();
    bench.engine.shard.set_max_files(3);
    (0..5).for_each(|file| drop(bench.append(&format!("{file}.log"), lines(0..2))));
    bench.look().look().check(6, 0, 0);
    assert_eq!((bench.troubles("too_many_files"), bench.value("bellwether_log_files", &["app"])), (2, 3));
    let open = (0..5).filter(|file| descriptors(&bench.path(&format!("{file}.log"))) > 0);
    open.collect::<Vec<u64>>().iter().take(2).for_each(|file| fs::remove_file(bench.path(&format!("{file}.log"))).unwrap());
    bench.pass_grace().look().check(10, 0, 0);
    assert_eq!(bench.lost(), 0);
}

#[test]
fn t31_a_file_that_is_deleted_while_it_is_open() {
    let mut bench = Bench::new();
    let writer = bench.append("app.log", lines(0..2));
    bench.look();
    bench.append("app.log", lines(2..3));
    fs::remove_file(bench.path("app.log")).unwrap();
    drop(writer);
    bench.look().check(3, 0, 0);
    assert_eq!(descriptors(&bench.path("app.log")), 1);
    bench.pass_grace().check(3, 0, 0);
    assert_eq!((descriptors(&bench.path("app.log")), bench.lost()), (0, 0));
    assert_eq!(bench.value("bellwether_log_files", &["app"]), 0);
}

#[test]
fn t32_what_cannot_be_read_yet() {
    if rustix::process::geteuid().is_root() {
        return as_nobody("logs::tests::scenarios::t32_what_cannot_be_read_yet");
    }
    let mut bench = Bench::with("**/*.log", Start::Beginning);
    bench.append("app.log", lines(0..2));
    fs::set_permissions(bench.path("app.log"), fs::Permissions::from_mode(0o000)).unwrap();
    bench.look().look().check(0, 0, 0);
    assert_eq!(bench.troubles("permission"), 1);
    fs::set_permissions(bench.path("app.log"), fs::Permissions::from_mode(0o600)).unwrap();
    bench.look().check(2, 0, 0);
    // Taken away from a file that is open, it changes nothing until that is opened anew.
    fs::set_permissions(bench.path("app.log"), fs::Permissions::from_mode(0o200)).unwrap();
    bench.append("app.log", lines(2..3));
    bench.look().check(3, 0, 0);
    fs::create_dir(bench.path("later")).unwrap();
    bench.append("later/app.log", lines(3..4));
    bench.look().check(4, 0, 0);
    assert_eq!(bench.troubles("permission"), 1);
}

#[test]
fn a_file_that_shrinks_by_some_bytes_is_read_from_its_begin() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..5));
    bench.look();
    let shorter = lines(0..4).len() as u64;
    OpenOptions::new().write(true).open(bench.path("app.log")).unwrap().set_len(shorter).unwrap();
    // Nothing tells the four lines that stayed from four new ones.
    bench.look().check(9, 0, 1);
    bench.append("app.log", lines(5..6));
    bench.look().check(10, 0, 1);
}

#[test]
fn late_lines_in_a_renamed_file_whose_own_content_was_cut_off_before() {
    // Found by a random history: what is younger than a renamed file is its successor, and may be written to.
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..1));
    bench.look();
    bench.copy_and_cut_off("app.log", "app.log.1");
    bench.append("app.log", lines(1..2));
    bench.rename("app.log", "app.log.2");
    let mut late = bench.append("app.log", lines(2..3));
    bench.rename("app.log", "app.log.3");
    bench.append("app.log", lines(3..4));
    bench.look().check(4, 2, 1);
    late.write_all(lines(4..5).as_bytes()).unwrap();
    bench.look().check(5, 2, 1);
}
