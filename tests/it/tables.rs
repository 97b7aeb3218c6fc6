//! Rows of a real Postgres: planned, archived, deleted, brought back; and killed in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use bellwether::config::storage::StorageAccess;
use bellwether::retention::archive::{Run, RunName, Severity, Target};
use tempfile::TempDir;

use crate::postgres::Postgres;
use crate::sidecar::command;

/// The tables of a RAG application: what people asked, what it cost, and the sessions that hold it together.
const SCHEMA: &str = "
CREATE TABLE chat_sessions (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), updated_at timestamptz);
CREATE TABLE chat_history (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  session_id uuid REFERENCES chat_sessions (id) ON DELETE CASCADE, created_at timestamp, message text, meta jsonb,
  length int GENERATED ALWAYS AS (length(message)) STORED);
CREATE TABLE query_logs (id serial, user_id text, created_at timestamptz, cost_usd numeric(12, 6), tokens bigint, raw bytea,
  tags text[], PRIMARY KEY (user_id, id));
CREATE VIEW recent AS SELECT * FROM query_logs;";

struct Setup {
    server: Postgres,
    folder: TempDir,
    policies: String,
    url: String,
    mode: &'static str,
}

// === impl Setup ===

impl Setup {
    fn start(policies: &str) -> Self {
        let server = Postgres::start();
        let url = server.url();
        let setup = Self { server, folder: tempfile::tempdir().unwrap(), policies: policies.to_owned(), url, mode: "enforce" };
        setup.server.ask(SCHEMA);
        setup
    }

    fn archive(&self) -> String {
        format!("file://{}", self.folder.path().join("archive").display())
    }

    fn config(&self) -> String {
        format!(
            "stores: {{ postgres: {{ url: \"{}?sslmode=disable\" }} }}\nretention:\n  mode: {}\n  tables:\n{}",
            self.url,
            self.mode,
            self.policies.replace("ARCHIVE", &self.archive())
        )
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let file = self.folder.path().join("config.yaml");
        std::fs::write(&file, self.config()).unwrap();
        let mut command = command();
        command.env("BELLWETHER_STATE_DIR", self.folder.path().join("state"));
        command.arg("retention").args(arguments).arg("--config").arg(file);
        command
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(!said.contains("hunter2"), "{said}");
        (status.code().unwrap(), said)
    }

    /// Everything that is in a table, as one text.
    fn content(&self, table: &str) -> String {
        self.server.ask(&format!("SELECT string_agg(t::text, E'\\n' ORDER BY t::text) FROM {table} t"))
    }

    /// Every row of every archive that is as it was written, by its id.
    fn archived(&self) -> BTreeMap<String, Vec<String>> {
        let target = Target::open(&self.archive(), &StorageAccess::default()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut archived: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for name in RunName::list(&target, None).await.unwrap() {
                // A run that was killed before it had said whose it is has archived nothing.
                let Ok(run) = Run::open(&target, &name).await else { continue };
                let findings = run.verify(|_, _| {}).await.unwrap();
                assert!(findings.iter().all(|finding| finding.severity == Severity::Note), "{findings:?}");
                for segment in run.segments().await.unwrap().iter().filter(|segment| segment.has_receipt) {
                    let (receipt, records, damage) = run.records(segment).await.unwrap();
                    assert_eq!(damage, None);
                    for (entry, bytes) in receipt.records.iter().zip(records) {
                        archived.entry(entry.id.clone()).or_default().push(String::from_utf8(bytes).unwrap());
                    }
                }
            }
            archived
        })
    }
}

fn policy(name: &str, column: &str, more: &str) -> String {
    format!("    - {{ name: {name}, table: {name}, column: {column}, keep: 90d, archive: \"ARCHIVE\", max_fraction: 1{more} }}\n")
}

/// Old and young rows, and those that a careless comparison would take: null, never set, in the future, infinite.
fn seed_logs(setup: &Setup) {
    setup.server.ask(
        "INSERT INTO query_logs (user_id, created_at, cost_usd, tokens, raw, tags)
           SELECT 'u' || (n % 7), now() - interval '91 days' - n * interval '1 minute', n * 0.000123, n, decode(md5(n::text), 'hex'),
                  ARRAY['a\tb', 'c\\d', E'e\\nf', NULL] FROM generate_series(1, 1200) n;
         INSERT INTO query_logs (user_id, created_at) SELECT 'young', now() - n * interval '1 day' FROM generate_series(0, 49) n;
         INSERT INTO query_logs (user_id, created_at) VALUES ('odd', NULL), ('odd', '0001-01-01'), ('odd', '1970-01-01'),
           ('odd', now() + interval '1 year'), ('odd', '-infinity'), ('odd', 'infinity'), ('o''dd \\ \"x', now() - interval '100 days')",
    );
}

#[test]
fn what_is_planned_is_what_goes_and_it_all_comes_back() {
    let mut setup = Setup::start(&policy("query_logs", "created_at", ", keep_current_month: true"));
    seed_logs(&setup);
    let before = setup.content("query_logs");
    let (code, said) = setup.run(&["plan"]);
    assert_eq!(code, 0, "{said}");
    for part in [
        "1201 of 1257 would be deleted",
        "1 kept: without a date",
        "3 kept: dated before 2000",
        "2 kept: dated in the future",
        "rows are deleted by their primary key",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(setup.content("query_logs"), before, "a plan writes nothing");
    setup.mode = "plan";
    let (code, said) = setup.run(&["apply", "--yes", "--now"]);
    assert_eq!(code, 69, "deleting is asked for in the configuration, too: {said}");
    assert!(said.contains("only plans, and nothing was done"), "{said}");
    assert_eq!(setup.content("query_logs"), before);
    setup.mode = "enforce";
    let (code, said) = setup.run(&["apply"]);
    assert_eq!(code, 64, "nobody is there to ask: {said}");
    let (code, said) = setup.run(&["apply", "--yes", "--now"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("1201 rows archived, 1201 deleted"), "{said}");
    assert_eq!(setup.server.ask("SELECT count(*) FROM query_logs"), "56");
    assert_eq!(setup.server.ask("SELECT count(*) FROM query_logs WHERE user_id = 'odd'"), "6");

    let archive = setup.archive();
    assert_eq!(setup.run(&["verify", "--archive", &archive]).0, 0);
    let (code, said) = setup.run(&["restore", "--archive", &archive, "--dry-run"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("1201 would be brought back"), "{said}");
    assert_eq!(setup.server.ask("SELECT count(*) FROM query_logs"), "56", "a dry run writes nothing");
    let (code, said) = setup.run(&["restore", "--archive", &archive, "--yes"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(setup.content("query_logs"), before);

    // What has changed since is left alone, unless that is asked for.
    setup.server.ask("UPDATE query_logs SET tokens = -1 WHERE tokens = 5");
    let (code, said) = setup.run(&["restore", "--archive", &archive, "--yes"]);
    assert_eq!(code, 65, "{said}");
    assert!(said.contains("1200 there already") && said.contains("1 there and other"), "{said}");
    let (code, said) = setup.run(&["restore", "--archive", &archive, "--yes", "--overwrite"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(setup.content("query_logs"), before);
}

#[test]
fn a_plan_that_was_looked_at_binds_the_run() {
    let setup = Setup::start(&policy("query_logs", "created_at", ""));
    seed_logs(&setup);
    let (_, said) = setup.run(&["plan"]);
    let plan = said.trim().rsplit_once("plan ").unwrap().1.to_owned();
    setup.server.ask("INSERT INTO query_logs (user_id, created_at) SELECT 'more', now() - interval '99 days' FROM generate_series(1, 200)");
    let (code, said) = setup.run(&["apply", "--plan", &plan, "--now"]);
    assert_eq!((code, said.contains("the plan was for 1201 rows, and now there are 1401")), (65, true), "{said}");
    setup.server.ask("DELETE FROM query_logs WHERE user_id = 'more'");
    let (code, said) = setup.run(&["apply", "--plan", &plan]);
    assert_eq!((code, said.contains("policy query_logs: soak")), (65, true), "{said}");
    let (code, said) = setup.run(&["apply", "--plan", &plan, "--now"]);
    assert_eq!((code, said.contains("1201 rows archived, 1201 deleted")), (0, true), "{said}");
}

#[test]
fn the_sidecar_deletes_rows_by_its_schedule_and_says_so() {
    let setup = Setup::start(&policy("query_logs", "created_at", ", keep_current_month: true"));
    seed_logs(&setup);
    let section = "retention:\n  mode: enforce\n  soak: 0s\n  schedule: '* * * * *'\n  jitter: 0s\n  throttle: { pause: 0 }\n";
    let config = setup.config().replace("retention:\n  mode: enforce\n", section);
    let sidecar = crate::sidecar::Setup::default().config(&config).start();
    let done = "bellwether_retention_runs_total{policy=\"query_logs\",stop=\"done\"}";
    crate::sidecar::eventually("the run ends", || sidecar.value(done), |runs| *runs >= Some(1.0));
    assert_eq!(setup.server.ask("SELECT count(*) FROM query_logs"), "56");
    for name in ["archived_documents_total", "deleted_documents_total"] {
        assert_eq!(sidecar.value(&format!("bellwether_retention_{name}{{policy=\"query_logs\"}}")), Some(1201.0), "{name}");
    }
    assert!(sidecar.value("bellwether_retention_archived_bytes_total{policy=\"query_logs\"}") > Some(1201.0));
    assert!(sidecar.value("bellwether_retention_last_success_timestamp_seconds{policy=\"query_logs\"}") > Some(0.0));
    assert_eq!(setup.run(&["verify", "--archive", &setup.archive()]).0, 0);
}

#[test]
fn psql_copies_a_dump_in() {
    let setup = Setup::start(&policy("query_logs", "created_at", ""));
    seed_logs(&setup);
    let before = setup.content("query_logs");
    setup.run(&["apply", "--yes", "--now"]);
    let dump = setup.folder.path().join("dump");
    let (code, said) = setup.run(&["restore", "--archive", &setup.archive(), "--to-dump", dump.to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    let copied = Command::new("psql")
        .args([&setup.server.url(), "-v", "ON_ERROR_STOP=1", "-f", "query_logs.sql"])
        .current_dir(dump.join("postgres"))
        .output()
        .expect("psql belongs to Postgres");
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    assert_eq!(setup.content("query_logs"), before);
}

#[test]
fn parents_go_when_nothing_refers_to_them_and_never_take_anything_along() {
    let sessions = |more: &str| policy("chat_sessions", "updated_at", more);
    let mut setup = Setup::start(&sessions(""));
    setup.server.ask(
        "INSERT INTO chat_sessions SELECT gen_random_uuid(), now() - interval '200 days' FROM generate_series(1, 30);
         INSERT INTO chat_history (session_id, created_at, message, meta)
           SELECT id, now() - interval '1 day', 'x', '{\"a\": 1}' FROM (SELECT id FROM chat_sessions LIMIT 10) s",
    );
    let (code, said) = setup.run(&["apply", "--yes", "--now"]);
    assert_eq!(code, 65, "{said}");
    assert!(said.contains("public.chat_history would go or change unarchived") && said.contains("unless_referenced"), "{said}");
    assert_eq!(setup.server.ask("SELECT count(*) FROM chat_sessions"), "30");

    setup.policies = sessions(", unless_referenced: [{ table: chat_history, column: session_id }]");
    let before = setup.content("chat_sessions");
    let (code, said) = setup.run(&["apply", "--yes", "--now"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(setup.server.ask("SELECT count(*) FROM chat_sessions"), "10");
    assert_eq!(setup.server.ask("SELECT count(*) FROM chat_history"), "10");
    setup.run(&["restore", "--archive", &setup.archive(), "--yes"]);
    assert_eq!(setup.content("chat_sessions"), before);

    // The other kinds of columns: a time without a zone, JSON, an identity, one that is computed.
    setup.policies = policy("chat_history", "created_at", "");
    setup.server.ask("UPDATE chat_history SET created_at = now() - interval '91 days', meta = '{\"b\":  2, \"a\": [1.50]}'");
    let before = setup.content("chat_history");
    let (code, said) = setup.run(&["apply", "--yes", "--now"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(setup.server.ask("SELECT count(*) FROM chat_history"), "0");
    let (code, said) = setup.run(&["restore", "--archive", &setup.archive(), "--policy", "chat_history", "--yes"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(setup.content("chat_history"), before);
}

#[test]
fn a_policy_that_cannot_be_right_is_refused_with_the_reason() {
    let mut setup = Setup::start("");
    seed_logs(&setup);
    let mut check = |policy: String, code: i32, part: &str| {
        setup.policies.clone_from(&policy);
        let (found, said) = setup.run(&["apply", "--yes", "--now"]);
        assert_eq!((found, said.contains(part)), (code, true), "{policy}: {said}");
    };
    let log = |more: &str| format!("    - {{ name: q, table: query_logs, column: created_at, keep: 90d, archive: \"ARCHIVE\"{more} }}\n");
    check(log(""), 65, "95.5 % of the table would be deleted; at most 20 %");
    check(log("").replace("created_at", "tokens"), 64, "the column tokens is of the type bigint, which is no date");
    check(log("").replace("created_at", "nope"), 64, "has no column nope");
    check(log("").replace("query_logs", "nope"), 64, "there is no table");
    check(log("").replace("query_logs", "recent"), 64, "is a view or the like");
    check(log("").replace("query_logs", "query_*"), 78, "there are no patterns");
    check(log("").replace("90d", "90"), 78, "");
    check(log("").replace("90d", "1h"), 78, "`keep` is at least 1d");
    check(log("").replace("90d", "3 months"), 78, "");
    check(log(", nonsense: 1"), 78, "nonsense");
    check(log(", max_fraction: 20"), 78, "above 0 and up to 1");
    check(log("").replace(", archive: \"ARCHIVE\"", ""), 78, "nothing is deleted before it is archived");
    assert_eq!(setup.server.ask("SELECT count(*) FROM query_logs"), "1257");
}

#[test]
fn a_missing_privilege_is_named_and_what_is_archived_stays() {
    let mut setup = Setup::start(&policy("query_logs", "created_at", ""));
    seed_logs(&setup);
    setup.server.ask("CREATE ROLE reader LOGIN PASSWORD 'hunter2'");
    setup.url = setup.server.url().replace("app:", "reader:");
    let (code, said) = setup.run(&["plan"]);
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("42501") && said.contains("grant the user SELECT and DELETE"), "{said}");
    setup.server.ask("GRANT SELECT ON query_logs TO reader");
    assert_eq!(setup.run(&["plan"]).0, 0, "reading is enough for a plan");
    let (code, said) = setup.run(&["apply", "--yes", "--now"]);
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("deleting rows failed; grant the user SELECT and DELETE"), "{said}");
    assert_eq!(setup.server.ask("SELECT count(*) FROM query_logs"), "1257");
}

#[test]
fn one_process_at_a_time_and_none_without_room_for_the_archive() {
    let setup = Setup::start(&policy("query_logs", "created_at", ""));
    seed_logs(&setup);
    // Where the archive should be there is a file.
    std::fs::write(setup.folder.path().join("archive"), "").unwrap();
    let (code, said) = setup.run(&["apply", "--yes", "--now"]);
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("rows cannot be archived: cannot"), "{said}");
    assert_eq!(setup.server.ask("SELECT count(*) FROM query_logs"), "1257");
    std::fs::remove_file(setup.folder.path().join("archive")).unwrap();

    // A trigger holds the first batch up for as long as the second process needs to be told.
    setup.server.ask(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3); RETURN NULL; END $$;
         CREATE TRIGGER slow AFTER DELETE ON query_logs FOR EACH STATEMENT EXECUTE FUNCTION slow()",
    );
    let mut first = setup.command(&["apply", "--yes", "--now"]).stdout(Stdio::null()).spawn().unwrap();
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted";
    crate::sidecar::eventually("the first holds the lock", || setup.server.ask(held), |count| count == "1");
    let (code, said) = setup.run(&["apply", "--yes", "--now"]);
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("another process"), "{said}");
    assert!(first.wait().unwrap().success());
}

/// As many kills as `BELLWETHER_KILLS` says; eight where it says nothing.
#[test]
fn killed_anywhere_every_row_is_in_the_table_or_in_a_verified_archive() {
    let kills: u32 = std::env::var_os("BELLWETHER_KILLS").map_or(8, |kills| kills.to_str().unwrap().parse().unwrap());
    let setup = Setup::start(&policy("query_logs", "created_at", ""));
    // What the application writes to old rows meanwhile, in one transaction with a note of it.
    setup.server.ask(
        "CREATE TABLE notes (id int PRIMARY KEY, tokens bigint);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           INSERT INTO notes VALUES (NEW.id, NEW.tokens) ON CONFLICT (id) DO UPDATE SET tokens = NEW.tokens; RETURN NULL; END $$;
         CREATE TRIGGER note AFTER INSERT OR UPDATE ON query_logs FOR EACH ROW EXECUTE FUNCTION note()",
    );
    let (mut seeded, mut gone, mut killed) = (0_u32, 0, 0);
    while killed < kills {
        if setup.server.ask("SELECT count(*) FROM query_logs").parse::<u32>().unwrap() < 1000 {
            setup.server.ask(&format!(
                "INSERT INTO query_logs (id, user_id, created_at, tokens)
                   SELECT n, 'u', now() - interval '100 days', 0 FROM generate_series({}, {}) n",
                seeded + 1,
                seeded + 6000
            ));
            seeded += 6000;
        }
        let mut child = setup.command(&["apply", "--yes", "--now"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(fastrand::u64(20..400)));
        setup
            .server
            .ask("UPDATE query_logs SET tokens = tokens + 1 WHERE ctid IN (SELECT ctid FROM query_logs ORDER BY random() LIMIT 200)");
        std::thread::sleep(Duration::from_millis(fastrand::u64(0..200)));
        killed += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        // The server sees the end of the connection, and ends what had begun.
        let others = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'bellwether%'";
        crate::sidecar::eventually("the session ends", || setup.server.ask(others), |count| count == "0");
        gone = check_invariant(&setup, seeded);
    }
    assert!(gone > 500, "the kills came before anything was deleted: {gone}");
    // What was begun ends, and all of it comes back as it was last.
    let (code, said) = setup.run(&["apply", "--yes", "--now"]);
    assert_eq!(code, 0, "{said}");
    let (_, said) = setup.run(&["restore", "--archive", &setup.archive(), "--yes"]);
    assert_eq!(setup.server.ask("SELECT count(*) FROM query_logs"), seeded.to_string(), "{said}");
    let stale = "SELECT count(*) FROM query_logs q JOIN notes n USING (id) WHERE q.tokens <> n.tokens";
    assert_eq!(setup.server.ask(stale), "0", "{said}");
}

/// Every row that is not in the table is in an archive, in its last state. Says how many are gone.
fn check_invariant(setup: &Setup, seeded: u32) -> usize {
    let list = |sql: &str| -> Vec<String> { setup.server.ask(sql).split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect() };
    let there: BTreeSet<String> = list("SELECT string_agg(id::text, ',') FROM query_logs").into_iter().collect();
    let last = list("SELECT string_agg(id || '=' || tokens, ',') FROM notes");
    let archived = setup.archived();
    let mut lost = String::new();
    let mut gone = 0;
    assert_eq!(last.len(), seeded as usize);
    for note in &last {
        let (id, tokens) = note.split_once('=').unwrap();
        if there.contains(id) {
            continue;
        }
        gone += 1;
        let rows = archived.get(&format!("u,{id}")).map(Vec::as_slice).unwrap_or_default();
        if !rows.iter().any(|row| row.split('\t').nth(4) == Some(tokens)) {
            writeln!(lost, "{id} with {tokens} tokens; archived: {rows:?}").unwrap();
        }
    }
    assert!(lost.is_empty(), "lost:\n{lost}");
    gone
}

#[test]
fn a_row_that_changes_between_archive_and_delete_stays() {
    let setup = Setup::start(&policy("query_logs", "created_at", ""));
    seed_logs(&setup);
    // The application holds a row; the deletion waits for it and then finds another version.
    let holder = setup.server.url();
    let begun = setup.folder.path().join("begun");
    let release = setup.folder.path().join("release");
    let thread = {
        let (begun, release) = (begun.clone(), release.clone());
        std::thread::spawn(move || hold_a_row(&holder, &begun, &release))
    };
    crate::sidecar::eventually("the row is held", || begun.exists(), |exists| *exists);
    let mut child = setup.command(&["apply", "--yes", "--now"]).stdout(Stdio::piped()).spawn().unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    crate::sidecar::eventually("the deletion waits", || setup.server.ask(waiting), |count| count == "1");
    std::fs::write(&release, "").unwrap();
    thread.join().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(setup.server.ask("SELECT tokens FROM query_logs WHERE user_id = 'u1' AND id = 1"), "999", "it changed and stays");
    assert_eq!(setup.server.ask("SELECT count(*) FROM query_logs"), "57");
}

fn hold_a_row(url: &str, begun: &Path, release: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&format!("{url}?sslmode=disable"), tokio_postgres::NoTls).await.unwrap();
        let work = async {
            client.batch_execute("BEGIN; UPDATE query_logs SET tokens = 999 WHERE user_id = 'u1' AND id = 1").await.unwrap();
            std::fs::write(begun, "").unwrap();
            while !release.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            client.batch_execute("COMMIT").await.unwrap();
        };
        tokio::select! {
            () = work => {}
            _ = connection => panic!("the connection ended"),
        }
    });
}
