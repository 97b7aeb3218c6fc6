//! What is written wrongly is refused, with its place and what would be right.

use std::io::Write as _;

use bellwether::config::environment::Environment;
use bellwether::config::{Config, Request, load};

fn read(text: &str) -> Result<Config, String> {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let request = Request { file: Some(file.path()), ..Request::default() };
    let environment = Environment::of([("SECRET", "hunter2"), ("PG", "postgresql://u:hunter2@db/x"), ("BAD", "postgres:hunter2")]);
    load(&request, &environment).map_err(|error| error.to_string().replace(file.path().to_str().unwrap(), "b.yaml"))
}

#[track_caller]
fn refuse(check: &str, expected: &[&str]) {
    let text = format!("health:\n  checks:\n    x: {{ {check} }}\n");
    let message = read(&text).expect_err(check);
    let lines: Vec<&str> = message.lines().skip(1).map(|line| line.trim().trim_start_matches("b.yaml:3:8: health.checks.x: ")).collect();
    assert_eq!(lines, expected, "{message}");
}

#[test]
fn keys_of_another_type_are_named() {
    refuse(
        "type: tcp, address: \"a:1\", url: \"http://x\", max_age: 1m, cpu: { warn: 50% }",
        &[
            "a check of type tcp has no `cpu, memory or disk`; that is for host",
            "a check of type tcp has no `max_age`; that is for redis and file",
            "a check of type tcp has no `url`; that is for http",
        ],
    );
    refuse("type: tcp, address: \"a:1\", adress: x", &["b.yaml:3:37: health.checks.x: unknown key `adress`; did you mean `address`?"]);
}

#[test]
fn names_are_parts_of_addresses_and_groups_have_members() {
    let rule = "made of letters, digits, _ - and . with a letter or digit among them, 100 at most: it is part of addresses";
    let long = "x".repeat(101);
    for name in ["..", ".", "a/b", "\"a b\"", "ü", long.as_str()] {
        let check = format!("health: {{ checks: {{ {name}: {{ type: tcp, address: \"a:1\" }} }} }}\n");
        let message = read(&check).expect_err(name);
        assert!(message.contains(&format!("a check's name is {rule}")), "{message}");
        let group = format!("health: {{ checks: {{ a: {{ type: tcp, address: \"a:1\" }} }}, groups: {{ {name}: [a] }} }}\n");
        let message = read(&group).expect_err(name);
        assert!(message.contains(&format!("a group's name is {rule}")), "{message}");
    }
    let message = read("health: { checks: { a: { type: tcp, address: \"a:1\" } }, groups: { g: [] } }\n").expect_err("no members");
    assert!(message.contains("health.groups.g: a group without checks is ready whatever happens"), "{message}");
}

#[test]
fn what_can_never_fail_or_is_read_by_others_is_warned_of() {
    let warnings = |text: &str| read(text).unwrap().warnings.iter().map(|warning| warning.message.clone()).collect::<Vec<_>>();
    let checks = |critical: bool| format!("health: {{ checks: {{ a: {{ type: tcp, address: \"a:1\", critical: {critical} }} }} }}\n");
    assert_eq!(warnings(&checks(false)), ["no check is `critical`: /readyz is 200 whatever fails"]);
    assert_eq!(warnings(&checks(true)), Vec::<String>::new());
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "correct horse battery staple").unwrap();
    let admin = |listen: &str| format!("admin: {{ listen: \"{listen}\", token_file: {} }}\n", token.path().display());
    assert!(warnings(&admin("0.0.0.0:9601"))[0].contains("the token crosses the network as plain text"));
    assert_eq!(warnings(&admin("127.0.0.1:9601")), Vec::<String>::new());
}

#[test]
fn each_type_says_what_it_needs() {
    refuse("type: http", &["a check of type http needs a `url`"]);
    refuse("type: http, url: \"ftp://a\"", &["`url` is not an address such as http://localhost:8080/health"]);
    refuse("type: http, url: \"http://a\", fallback: [b]", &["`fallback` is not an address such as http://localhost:8080/health"]);
    refuse(
        "type: http, url: \"http://a\", status: [200, fine]",
        &["`status` is a status or a list of them, such as [200, 204], 200..299 or 2xx"],
    );
    refuse("type: http, url: \"http://a\", headers: { \"a b\": c }", &["`a b` is not a header's name"]);
    refuse(
        "type: http, url: \"https://a\", ca_file: /does/not/exist",
        &["cannot read certificates from /does/not/exist: I/O error: No such file or directory (os error 2)"],
    );
    refuse("type: tcp, address: \"a:0\"", &["a check of type tcp needs an `address` such as localhost:27017"]);
    refuse("type: tls", &["a check of type tls needs an `address` such as api.example.com:443"]);
    refuse(
        "type: tls, address: \"a:443\", warn_before: 1d, fail_before: 2d",
        &["`warn_before` must be longer than `fail_before`: the warning comes first"],
    );
    refuse(
        "type: tls, address: \"a:443\", server_name: \"a b\"",
        &["`server_name` (or the host of `address`) is neither a name nor an IP address"],
    );
    refuse("type: dns, name: \"a:53\"", &["a check of type dns needs a `name` such as api.example.com, without a port"]);
    refuse("type: dns, name: a, min_addresses: 0", &["`min_addresses` is at least 1"]);
    refuse("type: file", &["a check of type file needs a `path`"]);
    refuse("type: host", &["a check of type host needs limits: cpu, memory or disk, such as `memory: { warn: 80%, fail: 95% }`"]);
    refuse("type: host, cpu: {}", &["`cpu` needs `warn`, `fail` or both"]);
    refuse("type: host, memory: { warn: 90%, fail: 80% }", &["`warn` of memory must be below `fail`"]);
    refuse("type: host, memory: { warn: 0.9 }", &["b.yaml:3:38: health.checks.x.memory.warn: `0.9` is not a share: write for example 85%"]);
    refuse("type: postgres", &["this check needs `stores.postgres`"]);
    refuse("type: redis", &["this check needs `stores.redis`"]);
    refuse("type: mongodb, require: leader", &["b.yaml:3:34: health.checks.x.require: expected one of any, primary, found `leader`"]);
}

#[track_caller]
fn refuse_stores(stores: &str, checks: &str, expected: &[&str]) {
    let message = read(&format!("stores: {{ {stores} }}\nhealth: {{ checks: {{ {checks} }} }}\n")).expect_err(stores);
    assert!(!message.contains("hunter"), "{message}");
    for words in expected {
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn stores_are_checked_and_never_printed() {
    refuse_stores("postgres: { url: \"${BAD}\" }", "", &["b.yaml:1:28: stores.postgres.url: this is not a connection string of Postgres"]);
    refuse_stores("postgres: { url: \"postgresql:///x?user=u\" }", "", &["there is no host"]);
    refuse_stores("postgres: { url: \"postgresql://db/x\" }", "", &["there is no user"]);
    refuse_stores("postgres: { url: \"postgresql://u@db/x?sslrootcert=/nope.pem\" }", "", &["cannot read certificates from /nope.pem"]);
    refuse_stores("redis: { url: \"http://:${SECRET}@db\" }", "", &["this is not the address of a Redis"]);
    refuse_stores("redis: { url: \"redis://db\", ca_file: /nope.pem }", "", &["cannot read certificates from /nope.pem"]);
    let postgres = "postgres: { url: \"${PG}\" }";
    refuse_stores(postgres, "x: { type: postgres, query: \"  \" }", &["`query` is empty"]);
    refuse_stores(postgres, "x: { type: postgres, query: \"COMMIT; DELETE FROM a\" }", &["`query` is one statement"]);
    refuse_stores(postgres, "x: { type: postgres, expect: 1 }", &["`expect` is what a `query` must return; there is none"]);
    refuse_stores(
        "redis: { url: \"redis://db\" }",
        "x: { type: redis, max_age: 1m }",
        &["`max_age` is for the time in a `key`; there is none"],
    );
}

#[test]
fn what_a_postgres_client_does_not_know_is_left_out_with_a_warning() {
    let config = read("stores: { postgres: { url: \"${PG}?schema=public&connection_limit=5\" } }\n").unwrap();
    let warnings: Vec<&str> = config.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[1].starts_with("the option connection_limit is left out"), "{warnings:?}");
    assert!(!format!("{config:?}").contains("hunter2"), "no secret is ever printed");
}

#[test]
fn secrets_of_checks_are_never_printed() {
    let config = read(
        "stores: { redis: { url: \"redis://u:${SECRET}@db\" } }\nhealth: { checks: { x: { type: http, url: \"http://u:${SECRET}@a/b?t=${SECRET}\", headers: { Authorization: \"Bearer ${SECRET}\" } } } }\n",
    )
    .unwrap();
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
}

#[test]
fn the_schema_knows_every_type() {
    let schema = serde_json::to_string(&bellwether::config::schema()).unwrap();
    for word in ["\"postgres\"", "\"redis\"", "\"tls\"", "\"dns\"", "\"host\"", "\"alive_status\"", "\"min_addresses\"", "\"cgroup\""] {
        assert!(schema.contains(word), "{word}");
    }
}
