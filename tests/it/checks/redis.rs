//! `redis` against a real server: keys, heartbeats, passwords, TLS, a frozen and a killed one.

use jiff::Timestamp;

use super::{expect, expect_saying, seen, watch};
use crate::redis::Redis;
use crate::sidecar::{Sidecar, eventually, free_port};
use crate::tls::Authority;

/// Waits for so many more looks.
#[track_caller]
fn more_looks(sidecar: &Sidecar, name: &str, count: f64) {
    let series = format!("bellwether_check_duration_seconds_count{{check=\"{name}\"}}");
    let before = sidecar.value(&series).unwrap();
    eventually("more looks", || sidecar.value(&series), |looks| looks.is_some_and(|looks| looks >= before + count));
}

#[test]
fn keys_are_there_and_young_enough() {
    let redis = Redis::start();
    let now = Timestamp::now();
    let old = now.as_second() - 1000;
    redis.ask(&["SET", "seconds", &now.as_second().to_string()]);
    redis.ask(&["SET", "millis", &now.as_millisecond().to_string()]);
    redis.ask(&["SET", "iso", &now.to_string()]);
    redis.ask(&["SET", "old", &old.to_string()]);
    redis.ask(&["SET", "arq:queue:health-check", "Nov-21 02:32:19 j_complete=0 j_failed=0 queued=0"]);
    redis.ask(&["RPUSH", "list", "a"]);
    redis.ask(&["SET", "big", &"9".repeat(1_000_000)]);
    let sidecar = watch(
        &format!("redis: {{ url: \"{}\" }}", redis.url()),
        r#"
    ping: { type: redis }
    seconds: { type: redis, key: seconds, max_age: 5m }
    millis: { type: redis, key: millis, max_age: 5m }
    iso: { type: redis, key: iso, max_age: 5m }
    arq: { type: redis, key: "arq:queue:health-check" }
    list: { type: redis, key: list }
    old: { type: redis, key: old, max_age: 5m }
    absent: { type: redis, key: absent, max_age: 5m }
    no_time: { type: redis, key: "arq:queue:health-check", max_age: 5m }
    list_age: { type: redis, key: list, max_age: 5m }
    big: { type: redis, key: big, max_age: 5m }"#,
    );
    for name in ["ping", "seconds", "millis", "iso", "arq", "list"] {
        expect(&sidecar, name, "up", None);
    }
    expect_saying(&sidecar, "old", "down", Some("too_old"), "written 16m");
    expect_saying(&sidecar, "absent", "down", Some("missing"), "the key is not there");
    for name in ["no_time", "list_age", "big"] {
        expect_saying(&sidecar, name, "down", Some("bad_body"), "neither a unix timestamp nor a date");
    }
    redis.ask(&["SET", "old", &now.as_second().to_string()]);
    expect(&sidecar, "old", "up", None);
    assert!(!sidecar.get("/health").body.contains("j_complete"), "values are not shown");
}

#[test]
fn one_connection_is_kept_and_comes_back_after_a_freeze_and_a_kill() {
    let mut redis = Redis::start();
    let sidecar = watch(&format!("redis: {{ url: \"{}\" }}", redis.url()), "    redis: { type: redis, critical: true }");
    expect(&sidecar, "redis", "up", None);
    let connections = redis.info("total_connections_received");
    more_looks(&sidecar, "redis", 4.0);
    assert_eq!(redis.info("total_connections_received"), connections + 1, "only the test's own");
    let open = sidecar.value("process_open_fds").unwrap();

    redis.freeze();
    expect(&sidecar, "redis", "down", Some("timeout"));
    more_looks(&sidecar, "redis", 4.0);
    assert!(sidecar.value("process_open_fds").unwrap() <= open + 2.0);
    redis.thaw();
    expect(&sidecar, "redis", "up", None);
    eventually("no connection is left behind", || redis.info("connected_clients"), |clients| *clients <= 2);

    redis.kill();
    expect(&sidecar, "redis", "down", Some("refused"));
    redis.restart();
    expect(&sidecar, "redis", "up", None);
    // A connection that is cut between two looks is not an outage.
    let failures = |sidecar: &Sidecar| sidecar.value("bellwether_check_results_total{check=\"redis\",reason=\"reset\"}").unwrap();
    let before = failures(&sidecar);
    redis.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    more_looks(&sidecar, "redis", 3.0);
    assert!(failures(&sidecar) - before < 0.5, "{:#}", seen(&sidecar, "redis"));
}

#[test]
fn wrong_passwords_ports_and_databases_have_their_reasons() {
    let redis = Redis::start();
    for (url, reason) in [
        (redis.url().replace("hunter2", "hunter3"), "auth"),
        (redis.url().replace(":hunter2@", ""), "auth"),
        (redis.url().replace(&redis.port.to_string(), &free_port().to_string()), "refused"),
        (redis.url().replace("127.0.0.1", "does-not-exist.invalid"), "dns"),
        // It takes the begin of the handshake for a command that goes on.
        (redis.url().replace("redis://", "rediss://"), "timeout"),
        (redis.url().replace("/0", "/99"), "other"),
    ] {
        let sidecar = watch(&format!("redis: {{ url: \"{url}\" }}"), "    redis: { type: redis }");
        expect(&sidecar, "redis", "down", Some(reason));
        let said = sidecar.get("/health").body + &sidecar.log();
        assert!(!said.contains("hunter") && !said.contains("does-not-exist"), "{said}");
    }
}

#[test]
fn tls_is_verified() {
    let authority = Authority::new();
    let good = Redis::start_with_tls(&authority.issue("localhost", -10, 90));
    let expired = Redis::start_with_tls(&authority.issue("localhost", -90, -1));
    let ca = authority.file().display().to_string();
    let url = |redis: &Redis, host: &str| format!("rediss://:hunter2@{host}:{}/0", redis.tls_port.unwrap());
    for (url, ca_file, reason) in [
        (url(&good, "localhost"), Some(&ca), None),
        (url(&good, "127.0.0.1"), Some(&ca), Some("tls_name")),
        (url(&good, "localhost"), None, Some("tls")),
        (url(&expired, "localhost"), Some(&ca), Some("tls_expired")),
    ] {
        let ca_file = ca_file.map(|path| format!(", ca_file: \"{path}\"")).unwrap_or_default();
        let sidecar = watch(&format!("redis: {{ url: \"{url}\"{ca_file} }}"), "    redis: { type: redis }");
        expect(&sidecar, "redis", if reason.is_some() { "down" } else { "up" }, reason);
    }
}
