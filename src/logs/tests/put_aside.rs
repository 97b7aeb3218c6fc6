//! What a rotation has copied or compressed is read on, and nothing of it twice.

use super::*;

#[test]
fn a_file_that_was_compressed_while_nobody_looked_is_read_on() {
    for (packing, keeps_time) in [(Packing::Gzip, true), (Packing::Gzip, false), (Packing::Zstd, true)] {
        let mut bench = Bench::new();
        bench.append("app.log", lines(0..200));
        bench.look().save();
        let next = lines(200..260);
        bench.append("app.log", &next[..next.len() - 1]);
        bench.rename("app.log", "app.log.1");
        bench.compress("app.log.1", packing, keeps_time);
        bench.append("app.log", lines(260..270));
        bench.kill();
        bench.look().check(270, 1, 0);
        bench.save();
        bench.kill();
        bench.pass_grace().check(270, 1, 0);
        assert_eq!((bench.lost(), bench.troubles("vanished")), (0, 0));
        assert_eq!(bench.value("bellwether_log_files", &["app"]), 1);
    }
}

#[test]
fn several_rotations_that_compress_while_nobody_looked() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..50));
    bench.look().save();
    bench.append("app.log", lines(50..60));
    bench.rename("app.log", "app.log.1");
    bench.compress("app.log.1", Packing::Gzip, true);
    for (name, range) in [("app.log.2", 60..90), ("app.log.3", 90..91)] {
        bench.append(name, lines(range));
        bench.compress(name, Packing::Gzip, true);
    }
    // The last one is compressed with the next rotation.
    bench.append("app.log.4", lines(91..95));
    bench.append("app.log", lines(95..99));
    bench.kill();
    bench.look().check(99, 4, 0);
    bench.pass_grace().check(99, 4, 0);
    // What was read is not read again when it is compressed later.
    bench.compress("app.log.4", Packing::Zstd, false);
    bench.rename("app.log", "app.log.5");
    bench.append("app.log", lines(99..100));
    bench.look().check(100, 5, 0);
    bench.save();
    bench.compress("app.log.5", Packing::Zstd, false);
    bench.append("app.log", lines(100..101));
    bench.rename("app.log", "app.log.6");
    bench.append("app.log", lines(101..102));
    bench.kill();
    bench.look().check(102, 6, 0);
    assert_eq!(bench.lost(), 0);
}

#[test]
fn what_was_read_long_ago_is_not_read_again_when_it_is_compressed_at_last() {
    // More rotations than candidates are opened beside a log: each of those must be remembered as read.
    let rotations = 70;
    let mut bench = Bench::new();
    for number in 0..rotations {
        bench.append("app.log", lines(number * 3..number * 3 + 3));
        bench.look();
        bench.rename("app.log", &format!("app.log.{number}"));
    }
    bench.append("app.log", lines(rotations * 3..rotations * 3 + 1));
    bench.pass_grace().save();
    // Without their times, they look younger than what has been read.
    for number in 0..rotations {
        bench.compress(&format!("app.log.{number}"), Packing::Gzip, false);
    }
    bench.append("app.log", lines(rotations * 3 + 1..rotations * 3 + 2));
    bench.rename("app.log", "app.log.last");
    bench.append("app.log", lines(rotations * 3 + 2..rotations * 3 + 3));
    bench.kill();
    let records = rotations * 3 + 3;
    bench.look().check(records, rotations + 1, 0);
    bench.pass_grace();
    assert_eq!((bench.outcome("record"), bench.lost()), (records, 0));
}

#[test]
fn a_file_of_which_nothing_was_read_is_recognised_when_it_is_compressed() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..3));
    bench.look();
    bench.copy_and_cut_off("app.log", "app.log.1");
    bench.look().save();
    bench.append("app.log", lines(3..6));
    bench.kill();
    // It is seen, and killed before anything is read.
    let listing = bench.engine.shard.list();
    bench.engine.shard.sweep(listing, bench.now);
    bench.save();
    bench.append("app.log", lines(6..8));
    bench.rename("app.log", "app.log.2");
    bench.compress("app.log.2", Packing::Gzip, true);
    bench.append("app.log", lines(8..9));
    bench.kill();
    bench.look().check(9, 1, 1);
    assert_eq!((bench.lost(), bench.troubles("vanished")), (0, 0));
}

#[test]
fn a_compressed_file_may_have_got_the_inode_of_another_one_that_was_followed() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..2));
    bench.look();
    bench.rename("app.log", "app.log.1");
    bench.append("app.log", lines(2..4));
    bench.look().save();
    let followed = bench.inode("app.log");
    bench.append("app.log.1", lines(4..5));
    bench.append("app.log", lines(5..6));
    bench.rename("app.log", "app.log.2");
    bench.compress("app.log.2", Packing::Gzip, true);
    bench.kill();
    bench.reuse(followed, "app.log.1.gz");
    bench.compress("app.log.1", Packing::Gzip, true);
    assert_eq!(bench.inode("app.log.1.gz"), followed);
    bench.append("app.log", lines(6..7));
    bench.look().check(7, 2, 0);
    assert_eq!((bench.lost(), bench.troubles("vanished")), (0, 0));
}

#[test]
fn what_was_put_aside_before_the_very_first_start_is_nobodys_also_when_it_is_compressed_later() {
    for packing in [Packing::Gzip, Packing::Zstd] {
        let mut bench = Bench::with("0.log", Start::Beginning);
        bench.append("0.log.20260404-080000", lines(0..50));
        bench.append("0.log", lines(50..60));
        bench.look().save();
        bench.append("0.log", lines(60..65));
        bench.look();
        // As the kubelet does with the file before.
        bench.compress("0.log.20260404-080000", packing, false);
        bench.rename("0.log", "0.log.20260404-090000");
        bench.append("0.log", lines(65..66));
        bench.look().check(16, 1, 0);
        bench.save();
        bench.kill();
        bench.pass_grace().check(16, 1, 0);
    }
}

#[test]
fn dates_within_names() {
    let mut bench = Bench::with("app.log", Start::Beginning);
    bench.append("app.log", lines(0..50));
    bench.look().save();
    bench.append("app.log", lines(50..60));
    bench.rename("app.log", "app-2026-04-04T09-00-00.000.log");
    bench.compress("app-2026-04-04T09-00-00.000.log", Packing::Gzip, false);
    bench.append("app-worker.log", lines(500..600));
    bench.append("app.log", lines(60..61));
    bench.kill();
    bench.look().check(61, 1, 0);
}

#[test]
fn compressed_files_that_cannot_be_read_are_lost_and_counted() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..50));
    let part = &lines(50..51)[..20];
    bench.append("app.log", part);
    bench.look().save();
    bench.rename("app.log", "app.log.1");
    bench.compress("app.log.1", Packing::Gzip, true);
    let bytes = fs::read(bench.path("app.log.1.gz")).unwrap();
    fs::write(bench.path("app.log.1.gz"), &bytes[..20]).unwrap();
    bench.append("app.log", lines(60..61));
    bench.kill();
    bench.look().check(51, 1, 0);
    assert_eq!((bench.lost(), bench.troubles("vanished")), (part.len() as u64, 1));
}

#[test]
fn what_was_written_before_a_copy_and_not_yet_read_is_in_the_copy() {
    for down in [false, true] {
        let mut bench = Bench::new();
        bench.append("app.log", lines(0..5));
        bench.look().save();
        let text = lines(5..8);
        bench.append("app.log", &text[..30]);
        bench.look().save();
        bench.append("app.log", &text[30..]);
        bench.copy_and_cut_off("app.log", "app.log.1");
        bench.append("app.log", lines(8..10));
        // Between two looks even twice.
        bench.copy_and_cut_off("app.log", "app.log.2");
        bench.append("app.log", lines(10..15));
        if down {
            bench.kill();
        }
        bench.look().check(15, 0, 2);
        assert_eq!(bench.lost(), 0);
        // Copies are no unread files when the file itself is renamed later.
        bench.rename("app.log", "app.log.3");
        bench.append("app.log", lines(15..16));
        bench.look().check(16, 1, 2);
        bench.save();
        bench.kill();
        bench.pass_grace().check(16, 1, 2);
    }
}

#[test]
fn a_pattern_that_matches_copies_and_compressed_files_counts_nothing_twice() {
    let mut bench = Bench::with("app.log*", Start::Beginning);
    bench.append("app.log", lines(0..50));
    bench.look().save();
    bench.append("app.log", lines(50..60));
    bench.copy_and_cut_off("app.log", "app.log.1");
    bench.append("app.log", lines(60..61));
    bench.look().check(61, 0, 1);
    bench.rename("app.log", "app.log.2");
    bench.compress("app.log.1", Packing::Gzip, true);
    bench.append("app.log", lines(61..62));
    bench.look().check(62, 1, 1);
    bench.save();
    bench.compress("app.log.2", Packing::Zstd, true);
    bench.kill();
    bench.look().check(62, 1, 1);
    bench.append("app.log", lines(62..63));
    bench.copy_and_cut_off("app.log", "app.log.3");
    bench.append("app.log", lines(63..64));
    bench.kill();
    bench.pass_grace().check(64, 1, 2);
}

#[test]
fn an_inode_that_is_used_again_is_another_file() {
    let mut bench = Bench::new();
    bench.append("app.log", lines(0..50));
    bench.look().save();
    let before = bench.inode("app.log");
    bench.append("app.log", lines(50..52));
    bench.rename("app.log", "app.log.1");
    bench.kill();
    bench.compress("app.log.1", Packing::Gzip, true);
    bench.reuse(before, "app.log");
    bench.append("app.log", lines(100..160));
    bench.look().check(112, 1, 0);
    assert_eq!(bench.lost(), 0);
}
