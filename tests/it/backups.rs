//! Backups as the real programs write them, and as they are when something went wrong.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use bellwether::backup::{Pace, Problem, Report, look};
use bellwether::config::environment::Environment;
use bellwether::config::{Config, Request, load};
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use mongodb::bson::{RawDocumentBuf, doc};
use tempfile::TempDir;

use crate::postgres::Postgres;
use crate::redis::Redis;
use crate::sidecar::{Setup, command, eventually};

/// A folder as `mongodump` writes it.
pub fn mongodump(folder: &Path, collections: &[&str]) {
    let database = folder.join("decisionbox");
    fs::create_dir_all(&database).unwrap();
    for collection in collections {
        let document = RawDocumentBuf::try_from(&doc! { "_id": 1, "x": "y".repeat(100) }).unwrap().into_bytes();
        fs::write(database.join(format!("{collection}.bson")), document.repeat(20)).unwrap();
        fs::write(database.join(format!("{collection}.metadata.json")), "{}").unwrap();
    }
}

struct Place {
    folder: TempDir,
}

// === impl Place ===

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("backup")).unwrap();
        Self { folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("backup").join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn config_text(&self, more: &str) -> String {
        format!("backups:\n  - {{ name: b, path: \"{}/*\"{more} }}\n", self.folder.path().join("backup").display())
    }

    fn config(&self, more: &str) -> Config {
        let file = self.folder.path().join("config.yaml");
        fs::write(&file, self.config_text(more)).unwrap();
        load(&Request { file: Some(&file), ..Request::default() }, &Environment::of([])).unwrap()
    }

    fn look(&self, more: &str) -> Report {
        look(&self.config(more).backups[0], Timestamp::now(), &Pace::default())
    }

    #[track_caller]
    fn check(&self, more: &str, expected: &[Problem]) -> String {
        let report = self.look(more);
        let found: Vec<Problem> = report.problems.iter().map(|(problem, _)| *problem).collect();
        assert_eq!(found, expected, "{report:#?}");
        report.problems.into_iter().map(|(_, message)| message).collect()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn noise(bytes: usize) -> Vec<u8> {
    std::iter::repeat_with(|| fastrand::u8(..)).take(bytes).collect()
}

/// Cut anywhere, or with a bit flipped anywhere, it is never good.
fn never_good_when_damaged(place: &Place, name: &str, good: &[u8]) {
    place.write(name, good);
    place.check("", &[]);
    for _ in 0..40 {
        // A plain dump ends with a few bytes that say nothing.
        place.write(name, &good[..fastrand::usize(1..good.len() - 40)]);
        assert!(!place.look("").is_good(), "cut off and yet good");
    }
    fs::remove_file(place.file(name)).unwrap();
}

fn never_good_when_flipped(place: &Place, name: &str, good: &[u8], from: usize) {
    for _ in 0..40 {
        let mut bad = good.to_vec();
        bad[fastrand::usize(from..good.len())] ^= 1 << fastrand::u8(0..8);
        place.write(name, &bad);
        assert!(!place.look("").is_good(), "a bit flipped and yet good");
    }
    fs::remove_file(place.file(name)).unwrap();
}

#[test]
fn dumps_of_a_real_postgres_are_good_to_their_last_byte_and_no_further() {
    let server = Postgres::start();
    server.ask(
        "CREATE TABLE t (id int PRIMARY KEY, x text); INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 3000) n;
         CREATE VIEW v AS SELECT * FROM t; CREATE INDEX i ON t (x); SELECT lo_from_bytea(0, decode(repeat('ab', 5000), 'hex'))",
    );
    let dump = |arguments: &[&str]| {
        let Output { status, stdout, stderr } =
            server.command("pg_dump").arg(server.url()).args(arguments).stdout(Stdio::piped()).output().unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        stdout
    };
    let place = Place::new();
    never_good_when_damaged(&place, "plain.sql", &dump(&[]));
    never_good_when_damaged(&place, "plain.sql.gz", &gzip(&dump(&[])));
    never_good_when_flipped(&place, "plain.sql.gz", &gzip(&dump(&[])), 10);
    never_good_when_damaged(&place, "custom.dump", &dump(&["-Fc"]));
    never_good_when_damaged(&place, "custom0.dump", &dump(&["-Fc", "-Z0", "-b"]));
    never_good_when_damaged(&place, "plain.sql.zst", &zstd::encode_all(&*dump(&[]), 3).unwrap());
    // `pg_dump … | gzip` without pipefail, and a server that was not there.
    place.write("failed.sql.gz", &gzip(b""));
    assert!(place.check("", &[Problem::Incomplete]).contains("pg_dump did not get to its end"));
}

#[test]
fn a_snapshot_of_a_real_redis_is_good_to_its_last_byte() {
    let server = Redis::start();
    for number in 0..500 {
        server.ask(&["SET", &format!("k{number}"), &format!("{number}").repeat(30)]);
    }
    server.ask(&["SAVE"]);
    let snapshot = fs::read(server.folder().join("dump.rdb")).unwrap();
    let place = Place::new();
    never_good_when_damaged(&place, "redis-backup.rdb", &snapshot);
    never_good_when_flipped(&place, "redis-backup.rdb", &snapshot, 0);
    place.write("dump.rdb", b"REDIS");
    place.check("", &[Problem::Incomplete]);
    place.write("dump.rdb", &[b"RUDIS0011".as_slice(), &[0; 40]].concat());
    place.check("", &[Problem::Corrupt]);
}

#[test]
fn a_folder_of_mongodump_holds_whole_documents_and_what_it_must() {
    let place = Place::new();
    let dump = place.file("2026-11-21");
    mongodump(&dump, &["projects", "secrets"]);
    place.check(", must_hold: [projects, secrets]", &[]);
    assert_eq!(place.look("").holds, ["projects", "secrets"]);
    assert!(place.check(", must_hold: [projects, feedback]", &[Problem::Lacking]).contains("feedback"));
    let file = dump.join("decisionbox/projects.bson");
    let whole = fs::read(&file).unwrap();
    for cut in [1, 3, 50, whole.len() - 1] {
        fs::write(&file, &whole[..cut]).unwrap();
        place.check("", &[Problem::Incomplete]);
    }
    fs::write(&file, [&whole[..], &[1, 0, 0, 0, 0]].concat()).unwrap();
    place.check("", &[Problem::Corrupt]);
    fs::remove_file(&file).unwrap();
    fs::write(file.with_extension("bson.gz"), gzip(&whole)).unwrap();
    // The metadata of a compressed dump are compressed too.
    place.check("", &[Problem::Incomplete]);
    fs::write(dump.join("decisionbox/projects.metadata.json.gz"), gzip(b"{}")).unwrap();
    place.check("", &[]);
    fs::remove_dir_all(&dump).unwrap();
    fs::create_dir(&dump).unwrap();
    place.check(", min_size: 0B", &[]);
}

#[test]
fn an_archive_of_mongodump_ends_when_all_of_its_collections_have() {
    let bytes = |document| RawDocumentBuf::try_from(&document).unwrap().into_bytes();
    let end = vec![0xff; 4];
    let name = |collection: &str, done: bool| bytes(doc! { "db": "d", "collection": collection, "EOF": done, "CRC": 0_i64 });
    let parts: Vec<Vec<u8>> = vec![
        vec![0x6d, 0xe2, 0x99, 0x81],
        bytes(doc! { "concurrent_collections": 4, "version": "0.1", "server_version": "6.0.27", "tool_version": "100.9.4" }),
        bytes(doc! { "db": "d", "collection": "projects", "metadata": "{}", "size": 1, "type": "collection" }),
        bytes(doc! { "db": "d", "collection": "secrets", "metadata": "{}", "size": 1, "type": "collection" }),
        end.clone(),
        name("projects", false),
        bytes(doc! { "_id": 1 }),
        bytes(doc! { "_id": 2 }),
        end.clone(),
        name("projects", true),
        end.clone(),
        name("secrets", true),
        end,
    ];
    let place = Place::new();
    never_good_when_damaged(&place, "all.archive", &parts.concat());
    never_good_when_damaged(&place, "all.archive.gz", &gzip(&parts.concat()));
    place.write("all.archive", &parts.concat());
    assert_eq!(place.look("").holds, ["projects", "secrets"]);
    // Cut off between two parts, where every byte makes sense.
    place.write("all.archive", &parts[..11].concat());
    place.check("", &[Problem::Incomplete]);
}

#[test]
fn age_size_and_a_tried_restore_are_asked_for() {
    let place = Place::new();
    assert!(place.check("", &[Problem::Missing]).contains("there is none at"));
    let set_age = |path: &Path, hours: u64| {
        let time = std::time::SystemTime::from(Timestamp::now()) - std::time::Duration::from_secs(hours * 3600);
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    };
    let old = place.write("1.bin", &noise(1000));
    set_age(&old, 30);
    assert!(place.check("", &[Problem::TooOld]).contains("it is 30 h old; at most 26 h may be"));
    place.check(", max_age: 31h", &[]);
    place.check(", max_age: 31h, min_size: 1KiB", &[Problem::TooSmall]);
    place.write("2.bin", &noise(400));
    assert!(place.check("", &[Problem::Shrunk]).contains("it has 400 bytes, and the one before had 1000"));
    place.check(", min_ratio: 0.3", &[]);
    place.write("2.bin", b"");
    place.check("", &[Problem::TooSmall, Problem::Shrunk]);
    place.write("2.bin", &noise(1000));
    let marker = place.folder.path().join("tested");
    let tested = format!(", restore_test: {{ path: {}, max_age: 90d }}", marker.display());
    place.check(&tested, &[Problem::RestoreUntested]);
    fs::write(&marker, "").unwrap();
    place.check(&tested, &[]);
    set_age(&marker, 91 * 24);
    place.check(&tested, &[Problem::RestoreUntested]);
    // A link is no backup of its own: it would make a day-old one look new.
    std::os::unix::fs::symlink(&old, place.file("latest")).unwrap();
    assert!(place.look("").newest.unwrap().path.ends_with("2.bin"));
    place.write("3.gz", b"not compressed");
    place.check(", min_ratio: 0", &[Problem::Corrupt]);
    place.check(", min_ratio: 0, kind: opaque", &[]);
}

#[test]
fn the_command_says_what_is_wrong_and_what_is_in_no_backup() {
    let folder = tempfile::tempdir().unwrap();
    mongodump(&folder.path().join("dump"), &["projects", "secrets", "discoveries"]);
    let run = |arguments: &[&str]| {
        let path = format!("{}/*", folder.path().display());
        let variables = [("MONGODB_URI", "mongodb://db"), ("BACKUP_PATH", path.as_str())];
        let Output { status, stdout, stderr } =
            command().args(["backup", "verify", "--profile", "decisionbox"]).args(arguments).envs(variables).output().unwrap();
        (status.code().unwrap(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
    };
    let (code, said) = run(&[]);
    assert_eq!(code, 65, "{said}");
    assert!(said.contains("BAD") && said.contains("lacking: it does not hold feedback"), "{said}");
    assert!(said.contains("not in any backup that tells what it holds: feedback (important)"), "{said}");
    mongodump(&folder.path().join("dump"), &["feedback"]);
    let (code, said) = run(&["--json"]);
    assert_eq!(code, 0, "{said}");
    let told: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((told["good"].as_bool(), told["not_backed_up"].as_array().map(Vec::len)), (Some(true), Some(0)), "{said}");
    assert_eq!(run(&["--backup", "nope"]).0, 64);
    let (code, said) = {
        let output = command().args(["backup", "verify", "--profile", "none"]).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(code, 64, "{said}");
}

#[test]
fn the_sidecar_watches_and_tells_by_metrics() {
    let place = Place::new();
    place.write("1.sql.gz", &gzip(b"-- PostgreSQL database dump\n"));
    let sidecar = Setup::default().config(&place.config_text("")).start();
    let expected = [
        "bellwether_backup_valid{backup=\"b\"} 0",
        "bellwether_backup_problem{backup=\"b\",reason=\"incomplete\"} 1",
        "bellwether_backup_problem{backup=\"b\",reason=\"too_old\"} 0",
        "bellwether_backup_max_age_seconds{backup=\"b\"} 93600",
    ];
    eventually("the backup is looked at", || sidecar.get("/metrics").body, |body| expected.iter().all(|line| body.contains(line)));
    assert!(!sidecar.get("/metrics").body.contains("bellwether_backup_last_success_timestamp_seconds{"));
}
