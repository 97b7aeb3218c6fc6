//! Files of real folders: planned, deleted, by hand and by the sidecar's own schedule.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use bellwether::clock::Now;
use tempfile::TempDir;

use crate::raw_http::request;
use crate::sidecar::{Setup, command, eventually, free_port};

const TOKEN: &str = "correct horse battery staple";
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// A folder of files that are kept for a day, and a command that looks after it.
pub struct Folder {
    pub folder: TempDir,
    /// What stands in the policy beside its name and root.
    pub policy: String,
    /// What stands in the section beside its policy.
    pub section: String,
}

// === impl Folder ===

impl Folder {
    pub fn new(policy: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("files")).unwrap();
        Self { folder, policy: format!("keep: 24h, settle: 0s, {policy}"), section: "mode: enforce".to_owned() }
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join("files")
    }

    /// A file of so many bytes, last written to so many seconds ago.
    pub fn file(&self, path: &str, age: u64, size: usize) -> PathBuf {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, vec![b'x'; size]).unwrap();
        set_age(&path, age);
        path
    }

    pub fn config(&self) -> String {
        format!("retention: {{ {}, files: [{{ name: tmp, root: {}, {} }}] }}\n", self.section, self.root().display(), self.policy)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let file = self.folder.path().join("config.yaml");
        fs::write(&file, self.config()).unwrap();
        let mut command = command();
        command.env("BELLWETHER_STATE_DIR", self.folder.path().join("state"));
        command.arg("retention").args(arguments).arg("--config").arg(file);
        command
    }

    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> (i32, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        (status.code().unwrap(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
    }

    /// Every name below the root.
    pub fn names(&self) -> BTreeSet<String> {
        names(&self.root())
    }
}

fn now() -> SystemTime {
    Now::read().wall.into()
}

pub fn set_age(path: &Path, seconds: u64) {
    let time = now() - Duration::from_secs(seconds);
    File::options().read(true).open(path).unwrap().set_modified(time).unwrap();
}

pub fn names(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            found.insert(entry.path().strip_prefix(root).unwrap().display().to_string());
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[test]
fn what_is_planned_is_what_goes_and_nothing_else() {
    let mut folder = Folder::new("guards: { max_fraction: 0.9 }");
    let outside = folder.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("old"), "theirs").unwrap();
    set_age(&outside.join("old"), 9 * DAY);
    folder.file("old", 2 * DAY, 10);
    folder.file("deep/er/old", DAY + 60, 5);
    folder.file("deep/.hidden", 2 * DAY, 5);
    folder.file("young", HOUR, 1);
    folder.file(".nfs0001", 9 * DAY, 1);
    // Another name of a file that lies outside: the name goes, the file does not.
    fs::hard_link(outside.join("old"), folder.root().join("linked")).unwrap();
    symlink(outside.join("old"), folder.root().join("link")).unwrap();
    symlink(&outside, folder.root().join("folder link")).unwrap();
    File::create(folder.root().join("future")).unwrap().set_modified(now() + Duration::from_secs(DAY)).unwrap();
    File::create(folder.root().join("never set")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert!(Command::new("mkfifo").arg(folder.root().join("pipe")).status().unwrap().success());
    let before = folder.names();

    let (code, said) = folder.run(&["plan"]);
    assert_eq!(code, 0, "{said}");
    for part in [
        "4 of 7 would be deleted, 20 bytes; files are not archived",
        "1 kept: younger",
        "1 kept: dated in the future",
        "1 kept: dated before 2000",
        "3 kept: links, sockets",
        "ok    fraction  57.1 %",
        "ok    folder",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(folder.names(), before, "a plan writes nothing");
    folder.section = "mode: plan".to_owned();
    let (code, said) = folder.run(&["apply", "--yes"]);
    assert_eq!((code, said.contains("only plans, and nothing was done")), (69, true), "{said}");
    folder.section = "mode: enforce".to_owned();
    let (code, said) = folder.run(&["apply"]);
    assert_eq!(code, 64, "nobody is there to ask: {said}");
    let (code, said) = folder.run(&["apply", "--yes"]);
    assert_eq!((code, said.contains("policy tmp: soak")), (65, true), "a new policy is only planned at first: {said}");
    assert_eq!(folder.names(), before);

    let (code, said) = folder.run(&["apply", "--yes", "--now"]);
    assert_eq!((code, said.contains("4 files deleted, 20 bytes freed")), (0, true), "{said}");
    let gone: BTreeSet<_> = before.difference(&folder.names()).cloned().collect();
    assert_eq!(gone, set(["old", "deep/er/old", "deep/.hidden", "linked"]));
    assert_eq!(fs::read(outside.join("old")).unwrap(), b"theirs");
    let (code, said) = folder.run(&["status"]);
    assert_eq!((code, said.contains("policy tmp: done at ") && said.contains("as it is now since")), (0, true), "{said}");
    let (code, said) = folder.run(&["apply", "--yes", "--now"]);
    assert_eq!((code, said.contains("0 files deleted")), (0, true), "{said}");
}

#[test]
fn the_newest_backups_stay_however_old_and_those_that_failed_do_not_count() {
    let folder = Folder::new("pattern: '*.sql.gz', keep_last: { count: 2, min_size: 100 }, guards: { max_fraction: 1 }");
    for day in 30..36 {
        folder.file(&format!("app-{day}.sql.gz"), day * DAY, 500);
    }
    // The dump failed for days: a valid, tiny gzip each time.
    for day in 26..30 {
        folder.file(&format!("app-{day}.sql.gz"), day * DAY, 20);
    }
    folder.file("app.sql", 90 * DAY, 500);
    let (code, said) = folder.run(&["apply", "--yes", "--now"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(folder.names(), set(["app-30.sql.gz", "app-31.sql.gz", "app.sql"]));
}

#[test]
fn rotated_logs_are_cut_to_a_total_and_the_one_that_is_written_to_stays() {
    let folder = Folder::new("pattern: 'app.log*', max_total: 10KiB");
    folder.file("app.log", 60, 6000);
    for age in 1..=5 {
        folder.file(&format!("app.log.{age}"), DAY + age * HOUR, 3000);
    }
    let (code, said) = folder.run(&["plan"]);
    assert_eq!((code, said.contains("4 of 6 would be deleted")), (0, true), "{said}");
    let (code, said) = folder.run(&["apply", "--yes", "--now"]);
    assert_eq!((code, said.contains("the guard fraction stops it")), (65, true), "two thirds are more than half: {said}");
    let folder = Folder { policy: folder.policy.clone() + ", guards: { max_fraction: 0.7 }", ..folder };
    let (code, said) = folder.run(&["apply", "--yes", "--now"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(folder.names(), set(["app.log", "app.log.1"]));
}

#[test]
fn folders_go_only_where_that_is_asked_for_and_when_they_are_empty_and_old() {
    let mut folder = Folder::new("guards: { max_fraction: 1 }");
    folder.file("a/b/old", 2 * DAY, 1);
    folder.file("c/young", 0, 1);
    fs::create_dir_all(folder.root().join("new")).unwrap();
    for path in ["a/b", "a", "c", ""] {
        set_age(&folder.root().join(path), 2 * DAY);
    }
    folder.run(&["apply", "--yes", "--now"]);
    assert_eq!(folder.names(), set(["a", "a/b", "c", "c/young", "new"]));
    // What was taken out of it makes a folder young.
    for path in ["a/b", "a"] {
        set_age(&folder.root().join(path), 2 * DAY);
    }
    folder.policy += ", empty_folders: true";
    let (code, said) = folder.run(&["apply", "--yes", "--now"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(folder.names(), set(["c", "c/young", "new"]));
}

#[test]
fn a_plan_that_was_looked_at_binds_the_run() {
    let mut folder = Folder::new("guards: { max_fraction: 1 }");
    for number in 0..20 {
        folder.file(&format!("{number}"), 2 * DAY, 1);
    }
    let plan = |folder: &Folder| {
        let (_, said) = folder.run(&["plan"]);
        said.trim().rsplit_once("plan ").unwrap().1.to_owned()
    };
    let looked_at = plan(&folder);
    for number in 20..23 {
        folder.file(&format!("{number}"), 2 * DAY, 1);
    }
    let (code, said) = folder.run(&["apply", "--plan", &looked_at, "--now"]);
    assert_eq!((code, said.contains("the plan was for 20 files, and now there are 23")), (65, true), "{said}");
    assert_eq!(folder.names().len(), 23);
    let looked_at = plan(&folder);
    folder.policy = folder.policy.replace("24h", "25h");
    let (code, said) = folder.run(&["apply", "--plan", &looked_at, "--now"]);
    assert_eq!(code, 65, "the policy is another by now: {said}");
    folder.policy = folder.policy.replace("25h", "24h");
    let (code, said) = folder.run(&["apply", "--plan", &looked_at, "--now"]);
    assert_eq!((code, said.contains("23 files deleted")), (0, true), "{said}");
}

#[test]
fn guards_stop_before_the_first_file() {
    for (guards, part) in [
        ("max_fraction: 0.4", "50.0 % of the files that match would be deleted; at most 40 %"),
        ("max_files: 9", "10 files would be deleted; at most 9"),
        ("min_remaining: 11", "10 files would remain; at least 11"),
    ] {
        let folder = Folder::new(&format!("guards: {{ {guards} }}"));
        for number in 0..20 {
            folder.file(&format!("{number}"), if number < 10 { 2 * DAY } else { HOUR }, 1);
        }
        let (code, said) = folder.run(&["apply", "--yes", "--now"]);
        assert_eq!((code, said.contains(part)), (65, true), "{guards}: {said}");
        assert_eq!(folder.names().len(), 20);
    }
    let folder = Folder::new("");
    fs::remove_dir(folder.root()).unwrap();
    let (code, said) = folder.run(&["apply", "--yes", "--now"]);
    assert_eq!((code, said.contains("is not there; is its disk mounted?")), (65, true), "{said}");
}

#[test]
fn a_budget_ends_a_run_and_a_pause_keeps_it_from_beginning() {
    let mut folder = Folder::new("guards: { max_fraction: 1 }");
    folder.section = "mode: enforce, budget: { documents: 7 }".to_owned();
    for number in 0..20 {
        folder.file(&format!("{number}"), 2 * DAY, 1);
    }
    let (code, said) = folder.run(&["apply", "--yes", "--now"]);
    assert_eq!((code, said.contains("budget_documents") && said.contains("7 files deleted")), (0, true), "{said}");
    assert_eq!(folder.run(&["pause", "--reason", "migration"]).0, 0);
    let (code, said) = folder.run(&["apply", "--yes", "--now"]);
    assert_eq!((code, said.contains("retention is paused: migration")), (69, true), "{said}");
    assert!(folder.run(&["status"]).1.contains("PAUSED: migration"));
    assert_eq!(folder.names().len(), 13);
    assert_eq!(folder.run(&["resume"]).0, 0);
    assert_eq!(folder.run(&["apply", "--yes", "--now"]).0, 0);
    assert_eq!(folder.names().len(), 6);
}

/// The start that was missed is made up at once.
const SCHEDULE: &str = "schedule: '* * * * *', jitter: 0s";

#[test]
fn the_sidecar_runs_what_is_due_says_so_and_remembers_it() {
    let mut folder = Folder::new("guards: { max_fraction: 0.9 }");
    folder.section = format!("mode: enforce, soak: 0s, {SCHEDULE}");
    folder.file("old", 2 * DAY, 10);
    folder.file("young", 1, 10);
    let sidecar = Setup::default().config(&folder.config()).start();
    eventually("the old file goes", || folder.names(), |names| *names == set(["young"]));
    let done = "bellwether_retention_runs_total{policy=\"tmp\",stop=\"done\"}";
    eventually("the run is counted", || sidecar.value(done), |runs| *runs >= Some(1.0));
    assert_eq!(sidecar.value("bellwether_retention_deleted_documents_total{policy=\"tmp\"}"), Some(1.0));
    assert_eq!(sidecar.value("bellwether_retention_dry_run{policy=\"tmp\"}"), Some(0.0));
    let due = "bellwether_retention_due_timestamp_seconds{policy=\"tmp\",kind=\"files\"}";
    let now = now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(sidecar.value(due).unwrap() > now - 5.0, "{:?}", sidecar.value(due));
    let remembered = fs::read_to_string(sidecar.state_dir().join("retention/tmp.json")).unwrap();
    assert!(remembered.contains("\"stop\": \"done\""), "{remembered}");
    let (status, _) = sidecar.stop();
    assert!(status.success());
}

#[test]
fn a_new_policy_soaks_before_the_schedule_enforces_it_and_one_that_plans_is_never_run() {
    for (section, stop) in [("mode: enforce", Some("soak")), ("mode: plan", None)] {
        let mut folder = Folder::new("guards: { max_fraction: 1 }");
        folder.section = format!("{section}, {SCHEDULE}");
        folder.file("old", 2 * DAY, 10);
        let sidecar = Setup::default().config(&folder.config()).start();
        let matched = "bellwether_retention_matched_documents{policy=\"tmp\"}";
        eventually("it is planned", || sidecar.value(matched), |matched| *matched == Some(1.0));
        if let Some(stop) = stop {
            let runs = format!("bellwether_retention_runs_total{{policy=\"tmp\",stop=\"{stop}\"}}");
            eventually("it has run", || sidecar.value(&runs), |runs| *runs >= Some(1.0));
        }
        assert_eq!(folder.names(), set(["old"]));
    }
}

#[test]
fn a_plan_a_run_a_pause_and_the_status_are_had_by_admin_calls() {
    let folder = Folder::new("guards: { max_fraction: 1 }");
    folder.file("old", 2 * DAY, 10);
    let (control, token) = (format!("127.0.0.1:{}", free_port()), folder.folder.path().join("token"));
    fs::write(&token, TOKEN).unwrap();
    let admin = format!("admin: {{ listen: \"{control}\", token_file: {} }}\n", token.display());
    let _sidecar = Setup::default().config(&(admin + &folder.config())).start();
    let ask = |method: &str, path: &str, body: &str| {
        let answer = request(&control, method, path, Some(TOKEN), body);
        (answer.0, serde_json::from_str::<serde_json::Value>(&answer.1).unwrap_or_default())
    };
    let (code, plans) = ask("GET", "/retention/plan?policy=tmp", "");
    assert_eq!((code, &plans[0]["would_delete"]), (200, &1.into()), "{plans}");
    assert_eq!(ask("GET", "/retention/plan?policy=nope", "").0, 409);
    let plan = plans[0]["plan_id"].as_str().unwrap().to_owned();
    assert_eq!(ask("POST", "/retention/pause", r#"{"reason":"migration"}"#).0, 200);
    let run = format!(r#"{{"policy":"tmp","plan":"{plan}","now":true}}"#);
    assert_eq!(ask("POST", "/retention/runs", &run).0, 202);
    let stop = |status: &serde_json::Value| status["policies"][0]["last"]["stop"].as_str().unwrap_or_default().to_owned();
    let status = eventually("the run ends", || ask("GET", "/retention/status", "").1, |status| stop(status) == "paused");
    assert_eq!(status["paused"], "migration");
    assert_eq!(folder.names(), set(["old"]));
    assert_eq!(ask("POST", "/retention/resume", "").0, 200);
    assert_eq!(ask("POST", "/retention/runs", &run).0, 202);
    eventually("the run ends", || ask("GET", "/retention/status", "").1, |status| stop(status) == "done");
    assert!(folder.names().is_empty());
}
