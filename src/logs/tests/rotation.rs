//! What happens to files while they are read.

use super::*;

#[test]
fn lines_are_counted_as_they_come() {
    let mut bench = Bench::new();
    bench.look().check(0, 0, 0);
    bench.append("app.log", lines(0..3));
    bench.look().check(3, 0, 0);
    let line = lines(3..4);
    bench.append("app.log", &line[..20]);
    bench.look().check(3, 0, 0);
    bench.append("app.log", &line[20..]);
    bench.look().look().check(4, 0, 0);
    assert_eq!(bench.value("bellwether_log_bytes_total", &["app"]), fs::metadata(bench.path("app.log")).unwrap().len());
    assert_eq!(bench.value("bellwether_log_files", &["app"]), 1);
    assert_eq!(bench.value("bellwether_log_lag_bytes", &["app"]), 0);
}

#[test]
fn a_line_may_be_split_anywhere() {
    let mut bench = Bench::new();
    let text = lines(0..3);
    for position in 1..text.len() {
        let name = format!("{position}.log");
        bench.append(&name, &text[..position]);
        bench.look();
        bench.append(&name, &text[position..]);
        bench.look();
        fs::remove_file(bench.path(&name)).unwrap();
        bench.pass_grace();
    }
    bench.check(3 * (text.len() as u64 - 1), 0, 0);
}

#[test]
fn a_rename_loses_nothing_and_late_writers_are_heard() {
    let mut bench = Bench::new();
    let mut old = bench.append("app.log", lines(0..2));
    bench.look();
    bench.append("app.log", lines(2..4));
    bench.rename("app.log", "app.log.1");
    bench.append("app.log", lines(4..6));
    bench.look().check(6, 1, 0);
    old.write_all(lines(6..9).as_bytes()).unwrap();
    bench.look().check(9, 1, 0);
    bench.now += GRACE / 2;
    old.write_all(lines(9..10).as_bytes()).unwrap();
    bench.look();
    bench.now += GRACE / 2;
    old.write_all(lines(10..11).as_bytes()).unwrap();
    bench.look().check(11, 1, 0);
    bench.pass_grace().check(11, 1, 0);
    assert_eq!(descriptors(&bench.path("app.log.1")), 1, "only the writer's own");
    assert_eq!(bench.lost(), 0);
}

#[test]
fn a_pattern_may_match_rotated_files_too() {
    let mut bench = Bench::with("app.log*", Start::Beginning);
    for round in 0..4 {
        bench.append("app.log", lines(round * 2..round * 2 + 2));
        bench.look();
        for number in (1..4).rev() {
            if bench.path(&format!("app.log.{number}")).exists() {
                bench.rename(&format!("app.log.{number}"), &format!("app.log.{}", number + 1));
            }
        }
        bench.rename("app.log", "app.log.1");
    }
    bench.append("app.log", lines(8..9));
    bench.look().check(9, 4, 0);
}

#[test]
fn two_renames_with_a_pattern_that_matches_rotated_files_too() {
    let mut bench = Bench::with("app.log*", Start::Beginning);
    bench.append("app.log", lines(0..1));
    bench.look();
    bench.append("app.log", lines(1..2));
    bench.rename("app.log", "app.log.2");
    bench.append("app.log", lines(2..4));
    bench.rename("app.log", "app.log.1");
    bench.append("app.log", lines(4..5));
    // The one in the middle was never seen at the path, so only one rotation was.
    bench.look().check(5, 1, 0);
    bench.pass_grace().check(5, 1, 0);
}

#[test]
fn a_truncated_file_is_read_from_its_begin() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..5));
    bench.look();
    fs::copy(bench.path("app.log"), bench.path("app.log.1")).unwrap();
    OpenOptions::new().write(true).open(bench.path("app.log")).unwrap().set_len(0).unwrap();
    bench.append("app.log", lines(5..7));
    bench.look().check(7, 0, 1);
    assert_eq!(bench.lost(), 0);
}

#[test]
fn a_writer_that_leaves_a_gap_of_zeros() {
    let mut bench = Bench::new();
    let mut writer = File::create(bench.path("app.log")).unwrap();
    writer.write_all(lines(0..5).as_bytes()).unwrap();
    bench.look();
    writer.set_len(0).unwrap();
    writer.write_all(lines(5..7).as_bytes()).unwrap();
    bench.look().check(7, 0, 1);
}

#[test]
fn a_rotation_between_the_first_listing_and_the_opening_that_gives_the_inode_to_another_file() {
    use std::os::unix::fs::MetadataExt as _;
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..2));
    bench.look().save();
    bench.append("app.log", lines(2..4));
    bench.kill();
    let inode = fs::metadata(bench.path("app.log")).unwrap().ino();
    let listing = bench.engine.shard.list();
    bench.rename("app.log", "app.log.1");
    bench.append("app.log", lines(4..7));
    bench.rename("app.log", "app.log.2");
    bench.compress("app.log.2", Packing::Gzip, true);
    bench.compress("app.log.1", Packing::Gzip, true);
    // Most file systems give a free inode to one of the next files. Where this one does not, another inode must do.
    let fillers: Vec<String> = (0..64).map(|number| format!("filler{number}")).collect();
    fillers.iter().for_each(|name| drop(bench.append(name, "")));
    let has_it = |name: &&String| fs::metadata(bench.path(name)).unwrap().ino() == inode;
    bench.rename(fillers.iter().find(has_it).unwrap_or(&fillers[0]), "app.log");
    bench.append("app.log", lines(7..8));
    bench.engine.shard.sweep(listing, bench.now);
    assert!(bench.engine.shard.is_outdated());
    bench.look().check(8, 2, 0);
    assert_eq!((bench.lost(), bench.troubles("vanished")), (0, 0));
}

#[test]
fn a_file_that_is_cut_off_between_its_opening_and_the_first_read() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..5));
    let listing = bench.engine.shard.list();
    bench.engine.shard.sweep(listing, bench.now);
    bench.copy_and_cut_off("app.log", "app.log.1");
    bench.append("app.log", lines(5..12));
    bench.look().check(12, 0, 1);
    bench.save();
    bench.kill();
    bench.look().check(12, 0, 1);
    assert_eq!(bench.lost(), 0);
}

#[test]
fn a_rotation_between_the_listing_and_the_opening_loses_nothing() {
    let mut bench = Bench::with("app.log", Start::Beginning);
    bench.append("app.log", lines(0..2));
    bench.look();
    // While it runs: the listing says one file, and another one is opened.
    bench.rename("app.log", "app.log.1");
    bench.append("app.log", lines(2..4));
    let listing = bench.engine.shard.list();
    bench.rename("app.log", "app.log.2");
    bench.append("app.log", lines(4..5));
    bench.engine.shard.sweep(listing, bench.now);
    assert!(bench.engine.shard.is_outdated());
    bench.look().check(5, 2, 0);
    assert!(!bench.engine.shard.is_outdated());

    // Twice, so that a younger file has been rotated away, too.
    bench.rename("app.log", "app.log.5");
    bench.append("app.log", lines(20..22));
    let listing = bench.engine.shard.list();
    bench.rename("app.log", "app.log.6");
    bench.append("app.log", lines(22..23));
    bench.rename("app.log", "app.log.7");
    bench.append("app.log", lines(23..24));
    bench.engine.shard.sweep(listing, bench.now);
    bench.look().check(9, 5, 0);

    // At the start, with a file that an earlier run has known and not read to its end.
    bench.save();
    bench.append("app.log", lines(5..9));
    bench.kill();
    let listing = bench.engine.shard.list();
    bench.rename("app.log", "app.log.8");
    bench.append("app.log", lines(9..10));
    bench.engine.shard.sweep(listing, bench.now);
    assert!(!bench.engine.shard.is_caught_up());
    bench.look().check(14, 6, 0);
    assert!(bench.engine.shard.is_caught_up());

    // And with nothing in the place of the one that has gone.
    bench.save();
    bench.append("app.log", lines(10..11));
    bench.kill();
    let listing = bench.engine.shard.list();
    bench.rename("app.log", "app.log.9");
    bench.engine.shard.sweep(listing, bench.now);
    bench.look();
    bench.append("app.log", lines(11..12));
    bench.look().check(16, 7, 0);
}

#[test]
fn known_bytes_that_vanish_are_counted() {
    let mut bench = Bench::new();
    let unread = lines(2..5);
    bench.append("app.log", lines(0..2));
    bench.look().save();
    bench.append("app.log", &unread);
    // The sweep sees the size; the file is truncated before it is read.
    let listing = bench.engine.shard.list();
    bench.engine.shard.sweep(listing, bench.now);
    OpenOptions::new().write(true).open(bench.path("app.log")).unwrap().set_len(0).unwrap();
    bench.look().check(2, 0, 1);
    assert_eq!(bench.lost(), unread.len() as u64);
}

#[test]
fn a_deleted_file_is_read_to_its_end_and_released() {
    let mut bench = Bench::new();
    let file = bench.append("app.log", lines(0..2));
    bench.look();
    bench.append("app.log", format!("{}{}", lines(2..3), lines(3..4).trim_end()));
    fs::remove_file(bench.path("app.log")).unwrap();
    drop(file);
    bench.look().check(3, 0, 0);
    assert_eq!(descriptors(&bench.path("app.log")), 1);
    // The last line never got its end; nobody can write it any more.
    bench.pass_grace().check(4, 0, 0);
    assert_eq!(descriptors(&bench.path("app.log")), 0);
    assert_eq!(bench.value("bellwether_log_files", &["app"]), 0);
    bench.append("app.log", lines(4..6));
    bench.look().check(6, 0, 0);
}

#[test]
fn a_folder_in_the_place_of_a_file() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..2));
    bench.look();
    fs::remove_file(bench.path("app.log")).unwrap();
    fs::create_dir(bench.path("app.log")).unwrap();
    bench.look().look().check(2, 0, 0);
    assert_eq!(bench.troubles("not_a_file"), 1);
    fs::remove_dir(bench.path("app.log")).unwrap();
    bench.append("app.log", lines(2..3));
    bench.look().check(3, 1, 0);
}

#[test]
fn a_link_to_nowhere_and_a_link_that_is_turned() {
    let mut bench = Bench::new();
    std::os::unix::fs::symlink(bench.path("first"), bench.path("app.log")).unwrap();
    bench.look().look();
    assert_eq!(bench.troubles("vanished"), 1);
    let mut first = bench.append("first", lines(0..2));
    bench.look().check(2, 0, 0);
    bench.append("second", lines(2..4));
    fs::remove_file(bench.path("app.log")).unwrap();
    std::os::unix::fs::symlink(bench.path("second"), bench.path("app.log")).unwrap();
    first.write_all(lines(4..5).as_bytes()).unwrap();
    bench.look().check(5, 1, 0);
    first.write_all(lines(5..6).as_bytes()).unwrap();
    bench.pass_grace().check(6, 1, 0);
}

#[test]
fn a_hundred_megabytes_without_a_line_end() {
    let mut bench = Bench::new();
    let mut file = bench.append("app.log", lines(0..1));
    let megabyte = vec![b'x'; 1024 * 1024];
    (0..100).for_each(|_| file.write_all(&megabyte).unwrap());
    bench.look();
    bench.save();
    bench.kill();
    file.write_all(format!("\n{}", lines(1..2)).as_bytes()).unwrap();
    bench.look();
    assert_eq!((bench.outcome("record"), bench.outcome("too_long"), bench.outcome("malformed")), (2, 1, 0));
    assert_eq!(bench.value("bellwether_log_bytes_total", &["app"]), fs::metadata(bench.path("app.log")).unwrap().len());
}

#[test]
fn bad_lines_are_counted_and_their_neighbours_too() {
    let mut bench = Bench::new();
    let bad = b"\xff\xfe\xfd plain\n\n{\"cut\":\n{\"a\":\"\xff\"}\r\npanic: oh\n\0\0\n";
    bench.append("app.log", [lines(0..1).as_bytes(), bad, lines(1..2).as_bytes()].concat());
    bench.look();
    let outcomes = ["record", "unstructured", "blank", "malformed", "continuation", "too_long"].map(|outcome| bench.outcome(outcome));
    assert_eq!(outcomes, [3, 1, 2, 1, 1, 0]);
}

#[test]
fn files_with_the_same_content_are_all_counted() {
    let mut bench = Bench::with("**/*.log", Start::Beginning);
    bench.append("a.log", lines(0..9));
    bench.append("b.log", lines(0..9));
    fs::create_dir(bench.path("deep")).unwrap();
    bench.append("deep/c.log", "x");
    std::os::unix::fs::symlink(bench.path("a.log"), bench.path("again.log")).unwrap();
    bench.look();
    bench.append("deep/c.log", "y\n");
    bench.look();
    assert_eq!((bench.outcome("record"), bench.outcome("unstructured")), (18, 1));
}
