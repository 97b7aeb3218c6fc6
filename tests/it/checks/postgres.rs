//! `postgres` against a real server: queries, passwords, TLS, a frozen and a killed one.

use super::{expect, expect_saying, watch};
use crate::postgres::Postgres;
use crate::sidecar::{Sidecar, eventually, free_port};
use crate::tls::Authority;

fn looks(sidecar: &Sidecar, name: &str) -> f64 {
    sidecar.value(&format!("bellwether_check_duration_seconds_count{{check=\"{name}\"}}")).unwrap()
}

#[track_caller]
fn more_looks(sidecar: &Sidecar, name: &str, count: f64) {
    let before = looks(sidecar, name);
    eventually("more looks", || looks(sidecar, name), |looks| *looks >= before + count);
}

/// How many connections the checks hold.
#[track_caller]
fn connections(postgres: &Postgres) -> u32 {
    postgres.ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bellwether-health'").parse().unwrap()
}

#[test]
fn queries_are_held_to_what_is_expected_and_change_nothing() {
    let postgres = Postgres::start();
    postgres.ask("CREATE TABLE jobs (state text); INSERT INTO jobs VALUES ('waiting'), (NULL)");
    postgres.ask("CREATE ROLE reader LOGIN PASSWORD 'hunter2'");
    let sidecar = watch(
        &format!("postgres: {{ url: \"{}\" }}", postgres.url()),
        r#"
    ping: { type: postgres }
    row: { type: postgres, query: "SELECT state FROM jobs WHERE state = 'waiting'" }
    one_of: { type: postgres, query: "SELECT count(*) FROM jobs;", expect: [2, 3] }
    truth: { type: postgres, query: "SELECT count(*) < 100 FROM jobs", expect: true }
    no_row: { type: postgres, query: "SELECT 1 FROM jobs WHERE state = 'x'" }
    wrong: { type: postgres, query: "SELECT state FROM jobs WHERE state IS NOT NULL", expect: done }
    nothing: { type: postgres, query: "SELECT state FROM jobs WHERE state IS NULL", expect: done }
    no_table: { type: postgres, query: "SELECT 1 FROM nowhere" }
    writes: { type: postgres, query: "DELETE FROM jobs RETURNING 1" }
    slow: { type: postgres, query: "SELECT pg_sleep(60)" }
    syntax: { type: postgres, query: "SELEKT 1" }"#,
    );
    for name in ["ping", "row", "one_of", "truth"] {
        expect(&sidecar, name, "up", None);
    }
    expect_saying(&sidecar, "no_row", "down", Some("missing"), "the query returns no row");
    expect_saying(&sidecar, "wrong", "down", Some("bad_body"), "the query returns waiting");
    expect_saying(&sidecar, "nothing", "down", Some("bad_body"), "the query returns null");
    expect_saying(&sidecar, "no_table", "down", Some("missing"), "SQLSTATE 42P01");
    expect_saying(&sidecar, "writes", "down", Some("other"), "SQLSTATE 25006");
    expect_saying(&sidecar, "syntax", "down", Some("other"), "SQLSTATE 42601");
    expect(&sidecar, "slow", "down", Some("timeout"));
    assert_eq!(postgres.ask("SELECT count(*) FROM jobs"), "2");
    more_looks(&sidecar, "slow", 3.0);
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND state = 'active'";
    eventually("the server ends the slow query", || postgres.ask(sleeping), |count| count == "0" || count == "1");
    eventually("one connection a check", || connections(&postgres), |count| *count <= 12);
}

#[test]
fn one_connection_is_kept_and_comes_back_after_a_freeze_and_a_kill() {
    let mut postgres = Postgres::start();
    let sidecar = watch(&format!("postgres: {{ url: \"{}\" }}", postgres.url()), "    postgres: { type: postgres, critical: true }");
    expect(&sidecar, "postgres", "up", None);
    let backend = "SELECT pid FROM pg_stat_activity WHERE application_name = 'bellwether-health'";
    let pid = postgres.ask(backend);
    more_looks(&sidecar, "postgres", 4.0);
    assert_eq!(postgres.ask(backend), pid, "the same connection all the time");
    assert_eq!(connections(&postgres), 1);
    let open = sidecar.value("process_open_fds").unwrap();

    postgres.freeze();
    expect(&sidecar, "postgres", "down", Some("timeout"));
    more_looks(&sidecar, "postgres", 4.0);
    assert!(sidecar.value("process_open_fds").unwrap() <= open + 2.0);
    postgres.thaw();
    expect(&sidecar, "postgres", "up", None);
    eventually("no connection is left behind", || connections(&postgres), |count| *count == 1);

    postgres.kill();
    expect(&sidecar, "postgres", "down", Some("refused"));
    postgres.restart();
    expect(&sidecar, "postgres", "up", None);
    // A connection that is ended between two looks is not an outage.
    let transitions = |sidecar: &Sidecar| sidecar.value("bellwether_check_transitions_total{check=\"postgres\"}").unwrap();
    let before = transitions(&sidecar);
    postgres.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bellwether-health'");
    more_looks(&sidecar, "postgres", 3.0);
    assert!(transitions(&sidecar) - before < 0.5);
}

#[test]
fn wrong_passwords_ports_and_databases_have_their_reasons() {
    let postgres = Postgres::start();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = postgres.port.to_string();
    for (url, reason) in [
        (postgres.url().replace("hunter2", "hunter3"), "auth"),
        (postgres.url().replace(":hunter2", ""), "auth"),
        (postgres.url().replace("app:", "nobody:"), "auth"),
        (postgres.url().replace(&port, &free_port().to_string()), "refused"),
        (postgres.url().replace(&port, &silent.local_addr().unwrap().port().to_string()), "timeout"),
        (postgres.url().replace("127.0.0.1", "does-not-exist.invalid"), "dns"),
        (postgres.url() + "-not-there", "missing"),
        (postgres.url() + "?sslmode=require", "tls"),
    ] {
        let sidecar = watch(&format!("postgres: {{ url: \"{url}\" }}"), "    pg: { type: postgres }");
        expect(&sidecar, "pg", "down", Some(reason));
        let said = sidecar.get("/health").body + &sidecar.log();
        assert!(!said.contains("hunter") && !said.contains("does-not-exist"), "{said}");
    }
}

#[test]
fn tls_is_verified_where_it_is_required() {
    let authority = Authority::new();
    let postgres = Postgres::start_with_tls(&authority.issue("localhost", -10, 90));
    let ca = authority.file().display().to_string();
    let url = |host: &str, mode: &str| format!("{}?sslmode={mode}", postgres.url().replace("127.0.0.1", host));
    for (url, ca_file, reason) in [
        (url("localhost", "require"), Some(&ca), None),
        (format!("{}&sslrootcert={ca}", url("localhost", "verify-full")), None, None),
        (url("localhost", "prefer"), None, None),
        (url("127.0.0.1", "require"), Some(&ca), Some("tls_name")),
        (url("localhost", "require"), None, Some("tls")),
    ] {
        let ca_file = ca_file.map(|path| format!(", ca_file: \"{path}\"")).unwrap_or_default();
        let sidecar = watch(&format!("postgres: {{ url: \"{url}\"{ca_file} }}"), "    pg: { type: postgres }");
        expect(&sidecar, "pg", if reason.is_some() { "down" } else { "up" }, reason);
    }
}
