//! Mistakes in retention policies, one at a time: each is refused with where, what, why and what to do. The messages stand
//! in `tests/golden/retention_refusals.txt`; `BELLWETHER_BLESS=1 cargo test --test it refusals` writes them anew.

use std::fmt::Write as _;
use std::path::Path;

use bellwether::config::environment::Environment;
use bellwether::config::{Request, load};

const GOLDEN: &str = "tests/golden/retention_refusals.txt";

const HEAD: &str = "stores: { mongodb: { uri: mongodb://db, database: app }, postgres: { url: \"postgres://app@db/app\" } }\n";

/// A policy of a kind, with one key and its value.
type Written = fn(&str, &str) -> String;

/// A document policy with one key in it written as it should not be.
fn document(key: &str, value: &str) -> String {
    let mut keys = vec![
        ("name", "old"),
        ("mongodb", "{ collection: discoveries, field: created_at }"),
        ("keep", "90d"),
        ("archive", "file:///srv/archive"),
    ];
    keys.retain(|(name, _)| *name != key);
    policy("policies", &keys, key, value)
}

fn table(key: &str, value: &str) -> String {
    let mut keys =
        vec![("name", "old"), ("table", "query_logs"), ("column", "created_at"), ("keep", "90d"), ("archive", "file:///srv/archive")];
    keys.retain(|(name, _)| *name != key);
    policy("tables", &keys, key, value)
}

fn file(key: &str, value: &str) -> String {
    let mut keys = vec![("name", "old"), ("root", "/srv/uploads"), ("keep", "24h")];
    keys.retain(|(name, _)| *name != key);
    policy("files", &keys, key, value)
}

fn policy(section: &str, keys: &[(&str, &str)], key: &str, value: &str) -> String {
    let lines: Vec<String> = keys.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    format!("retention:\n  mode: enforce\n  {section}:\n    - {}\n      {key}: {value}\n", lines.join("\n      "))
}

fn mistakes() -> Vec<(String, String)> {
    let mut mistakes = Vec::new();
    let kinds: [(&str, Written); 3] = [("documents", document), ("tables", table), ("files", file)];
    for (kind, policy) in kinds {
        for (what, value) in [
            ("no unit", "30"),
            ("a unit of text", "\"30\""),
            ("zero", "0"),
            ("zero days", "0d"),
            ("negative", "-30d"),
            ("months", "3 months"),
            ("years", "1y"),
            ("too short", "30m"),
            ("a list", "[30d]"),
            ("for ever", "forever"),
        ] {
            mistakes.push((format!("{kind}: keep, {what}"), policy("keep", value)));
        }
        mistakes.push((format!("{kind}: a key twice"), policy("keep", "90d\n      keep: 30d")));
        mistakes.push((format!("{kind}: an unknown key"), policy("keeep", "90d")));
        mistakes.push((format!("{kind}: no name"), policy("name", "\"\"")));
        mistakes.push((format!("{kind}: a name with a slash"), policy("name", "../old")));
        mistakes.push((format!("{kind}: a mode that is none"), policy("mode", "delete")));
        mistakes.push((format!("{kind}: two of a name"), {
            let one = policy("keep", "90d");
            let (head, item) = one.split_once("    - ").unwrap();
            format!("{head}    - {item}    - {item}")
        }));
    }
    for (what, key, value) in [
        ("a glob", "mongodb", "{ collection: \"disc*\", field: created_at }"),
        ("a collection of the server", "mongodb", "{ collection: system.users, field: created_at }"),
        ("a collection of ours", "mongodb", "{ collection: bellwether_leases, field: created_at }"),
        ("an operator as a field", "mongodb", "{ collection: discoveries, field: $where }"),
        ("no archive", "archive", "null"),
        ("an archive of no kind", "archive", "/srv/archive"),
        ("the fraction as per cent", "guards", "{ max_fraction: 20 }"),
        ("a fraction of nothing", "guards", "{ max_fraction: 0 }"),
        ("no document", "guards", "{ max_documents: 0 }"),
        ("the newest none", "keep_last", "{ count: 0, per: project_id }"),
        ("a child of itself", "children", "[{ collection: discoveries, field: parent }]"),
        ("an id form that is none", "children", "[{ collection: feedback, field: discovery_id, id: hex }]"),
        ("a hold of nothing", "holds", "[{ id: objectid_hex }]"),
    ] {
        mistakes.push((format!("documents: {what}"), document(key, value)));
    }
    for (what, key, value) in [
        ("a glob", "table", "\"query_*\""),
        ("a column with a pattern", "column", "\"*_at\""),
        ("no archive", "archive", "null"),
        ("an archive of no kind", "archive", "/srv/archive"),
        ("the fraction as per cent", "max_fraction", "20"),
        ("a fraction of nothing", "max_fraction", "0"),
        ("no row", "max_rows", "0"),
        ("a reference by a pattern", "unless_referenced", "[{ table: \"chat_*\", column: session_id }]"),
    ] {
        mistakes.push((format!("tables: {what}"), table(key, value)));
    }
    for (what, key, value) in [
        ("all of the disk", "root", "/"),
        ("one name deep", "root", "/tmp"),
        ("a relative root", "root", "uploads"),
        ("a root with a glob", "root", "/srv/*"),
        ("a way up", "root", "/srv/uploads/../.."),
        ("a folder of the system", "root", "/etc/app"),
        ("somebody's home", "root", "/home/ann"),
        ("the state of the sidecar", "root", "/var/lib/bellwether/state"),
        ("a pattern that leaves", "pattern", "../*"),
        ("a pattern that is none", "pattern", "\"[\""),
        ("the newest none", "keep_last", "{ count: 0 }"),
        ("a total of nothing", "max_total", "0"),
        ("a total of no unit", "max_total", "lots"),
        ("the fraction as per cent", "guards", "{ max_fraction: 50 }"),
        ("no file", "guards", "{ max_files: 0 }"),
    ] {
        mistakes.push((format!("files: {what}"), file(key, value)));
    }
    mistakes.push(("files: the archive of others".to_owned(), file("root", "/srv/backups") + "  archive: file:///srv/backups/archive\n"));
    mistakes
}

/// Without a mistake, each kind is accepted: the messages are about the mistake alone.
#[test]
fn what_has_no_mistake_is_accepted() {
    for yaml in [document("keep", "90d"), table("keep", "90d"), file("keep", "24h")] {
        let yaml = format!("{HEAD}{yaml}");
        let request = Request { text: Some(&yaml), ..Request::default() };
        load(&request, &Environment::default()).map(drop).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    }
}

#[test]
fn each_mistake_is_refused_with_where_what_why_and_what_to_do() {
    let mut text = String::new();
    for (what, yaml) in mistakes() {
        let yaml = format!("{HEAD}{yaml}");
        let request = Request { text: Some(&yaml), ..Request::default() };
        let error = load(&request, &Environment::default()).map(drop).expect_err(&format!("{what} is accepted:\n{yaml}")).to_string();
        let problems: Vec<&str> = error.lines().skip(1).map(str::trim).collect();
        let [problem] = problems[..] else { panic!("{what}: one mistake, and not one problem: {error}") };
        assert!(problem.starts_with("proposal:"), "{what}: no place: {problem}");
        writeln!(text, "{what}\n  {problem}").unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN);
    if std::env::var_os("BELLWETHER_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    for (found, expected) in text.lines().zip(golden.lines()) {
        assert_eq!(found, expected, "a message has changed: BELLWETHER_BLESS=1 cargo test --test it refusals");
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}
