//! What happens to a folder while its files are deleted: exchanged folders, changed files, no rights, no end, a kill.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bellwether::clock::Now;
use bellwether::config::retention::{Budget, FilePolicy};
use bellwether::retention::files::{FileRun, FileTally, Reins, Told};
use rustix::fs::{FlockOperation, flock};

use crate::files::{Folder, set_age};

const DAY: u64 = 86_400;

/// What happens to a file right before it goes.
type Change = fn(&Path);

/// Deletes what is older than a day, and does something right before each file goes.
fn apply(root: &Path, mut before: impl FnMut(&Path)) -> FileTally {
    let policy = FilePolicy::simple("tmp", root, "**", Duration::from_secs(DAY)).unwrap();
    let reins = Reins { budget: Budget::default(), rest: 0.0, ends: &|| None };
    let run = FileRun::begin(&policy, Now::read().wall, None, None).unwrap();
    let (_, tally) = run
        .apply(&reins, |told| {
            if let Told::Goes(path) = told {
                before(path);
            }
        })
        .unwrap();
    tally
}

#[test]
fn a_folder_that_is_exchanged_for_a_link_does_not_lead_outside() {
    let folder = Folder::new("");
    let outside = folder.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    for number in 0..5 {
        folder.file(&format!("a/{number}"), 2 * DAY, 1);
        fs::write(outside.join(number.to_string()), "theirs").unwrap();
        set_age(&outside.join(number.to_string()), 2 * DAY);
    }
    let (a, aside) = (folder.root().join("a"), folder.root().join("aside"));
    let mut is_exchanged = false;
    let tally = apply(&folder.root(), |_| {
        if !is_exchanged {
            is_exchanged = true;
            fs::rename(&a, &aside).unwrap();
            symlink(&outside, &a).unwrap();
        }
    });
    assert!(is_exchanged);
    assert_eq!(crate::files::names(&outside).len(), 5, "{tally:?}");
    assert_eq!(fs::read(outside.join("0")).unwrap(), b"theirs");
}

#[test]
fn a_folder_that_is_moved_out_meanwhile_keeps_its_files() {
    let folder = Folder::new("");
    for number in 0..5 {
        folder.file(&format!("a/{number}"), 2 * DAY, 1);
    }
    let rescued = folder.folder.path().join("rescued");
    let a = folder.root().join("a");
    let tally = apply(&folder.root(), |_| {
        if a.exists() {
            fs::rename(&a, &rescued).unwrap();
        }
    });
    assert_eq!((tally.deleted, tally.changed), (0, 5));
    assert_eq!(crate::files::names(&rescued).len(), 5);
}

#[test]
fn a_file_that_changes_between_plan_and_deletion_stays() {
    let changes: [(&str, Change); 4] = [
        ("written to", |path| fs::write(path, "more").unwrap()),
        ("replaced", |path| {
            fs::write(path.with_extension("new"), "x").unwrap();
            set_age(&path.with_extension("new"), 2 * DAY);
            fs::rename(path.with_extension("new"), path).unwrap();
        }),
        ("handed over", |path| fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap()),
        ("exchanged for a link", |path| {
            fs::rename(path, path.parent().unwrap().parent().unwrap().join("rescued")).unwrap();
            symlink("/etc/hostname", path).unwrap();
        }),
    ];
    for (what, change) in changes {
        let folder = Folder::new("");
        let path = folder.file("file", 2 * DAY, 1);
        let tally = apply(&folder.root(), |_| change(&path));
        assert_eq!((tally.deleted, tally.changed), (0, 1), "{what}");
        assert!(path.symlink_metadata().is_ok(), "{what}");
    }
}

#[test]
fn a_file_that_is_open_or_locked_stays() {
    let folder = Folder::new("guards: { max_fraction: 1 }");
    let open = File::open(folder.file("open", 2 * DAY, 1)).unwrap();
    let locked = File::open(folder.file("locked", 2 * DAY, 1)).unwrap();
    flock(&locked, FlockOperation::LockExclusive).unwrap();
    folder.file("old", 2 * DAY, 1);
    let (code, said) = folder.run(&["plan"]);
    assert_eq!((code, said.contains("1 of 3 would be deleted") && said.contains("2 kept: older, and open or locked")), (0, true), "{said}");
    folder.run(&["apply", "--yes", "--now"]);
    assert_eq!(folder.names(), BTreeSet::from(["open".to_owned(), "locked".to_owned()]));
    drop((open, locked));
    folder.run(&["apply", "--yes", "--now"]);
    assert!(folder.names().is_empty());
}

#[test]
fn a_file_that_is_opened_meanwhile_and_locked_stays() {
    let folder = Folder::new("");
    let path = folder.file("file", 2 * DAY, 1);
    folder.file("other", 2 * DAY, 1);
    let mut held = None;
    let policy = FilePolicy::simple("tmp", &folder.root(), "**", Duration::from_secs(DAY)).unwrap();
    // Nobody has anything open while it is planned; then somebody locks one of the two.
    let run = FileRun::begin(&policy, Now::read().wall, None, None).unwrap();
    let file = File::open(&path).unwrap();
    flock(&file, FlockOperation::LockShared).unwrap();
    held.replace(file);
    let (_, tally) = run.apply(&Reins { budget: Budget::default(), rest: 0.0, ends: &|| None }, |_| {}).unwrap();
    assert_eq!((tally.deleted, tally.open + tally.changed), (1, u64::from(tally.open > 0)), "{tally:?}");
    assert!(path.exists() && held.is_some());
}

#[test]
fn one_process_at_a_time_looks_after_a_folder() {
    let folder = Folder::new("guards: { max_fraction: 1 }");
    folder.file("old", 2 * DAY, 1);
    let root = File::open(folder.root()).unwrap();
    flock(&root, FlockOperation::LockExclusive).unwrap();
    let (code, said) = folder.run(&["apply", "--yes", "--now"]);
    assert_eq!((code, said.contains("by another process; only one does it at a time")), (69, true), "{said}");
    assert_eq!(folder.names().len(), 1);
}

/// Root may read and delete everything: the command then runs as somebody else.
fn unprivileged(folder: &Folder, arguments: &[&str]) -> (i32, String) {
    let mut command = folder.command(arguments);
    if rustix::process::geteuid().is_root() {
        fs::set_permissions(folder.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        command.uid(65_534).gid(65_534);
    }
    let output = command.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap(), said)
}

#[test]
fn what_may_not_be_looked_into_or_deleted_is_named_and_the_rest_goes() {
    let folder = Folder::new("guards: { max_fraction: 1 }");
    folder.file("secret/old", 2 * DAY, 1);
    folder.file("fixed/old", 2 * DAY, 1);
    folder.file("loose/old", 2 * DAY, 1);
    let mode = |path: &str, mode| fs::set_permissions(folder.root().join(path), fs::Permissions::from_mode(mode)).unwrap();
    for (path, bits) in [("", 0o755), ("secret", 0o700), ("fixed", 0o755), ("loose", 0o777)] {
        mode(path, bits);
    }
    if !rustix::process::geteuid().is_root() {
        mode("secret", 0o000);
        mode("fixed", 0o555);
    }
    let (code, said) = unprivileged(&folder, &["plan"]);
    assert_eq!((code, said.contains("2 of 2 would be deleted") && said.contains("1 folders cannot be looked into")), (0, true), "{said}");
    let (code, said) = unprivileged(&folder, &["apply", "--yes", "--now"]);
    assert_eq!(
        (code, said.contains("privilege") && said.contains("1 files cannot be deleted; let the sidecar run as the owner")),
        (69, true),
        "{said}"
    );
    mode("secret", 0o700);
    let names = folder.names();
    assert!(names.contains("secret/old") && names.contains("fixed/old") && !names.contains("loose/old"), "{names:?}");

    // Where the rank counts, what cannot be seen might be the newest: nothing goes.
    mode("secret", if rustix::process::geteuid().is_root() { 0o700 } else { 0o000 });
    let ranked = Folder { policy: folder.policy.clone() + ", keep_last: { count: 1 }", ..folder };
    let (code, said) = unprivileged(&ranked, &["apply", "--yes", "--now"]);
    assert_eq!((code, said.contains("what is newest may be in them")), (65, true), "{said}");
    fs::set_permissions(ranked.root().join("secret"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn another_disk_is_not_entered_and_one_that_cannot_be_written_to_is_named() {
    crate::namespace::alone("files_faults::another_disk_is_not_entered_and_one_that_cannot_be_written_to_is_named", async || {
        let folder = Folder::new("guards: { max_fraction: 1 }");
        folder.file("old", 2 * DAY, 1);
        fs::create_dir(folder.root().join("mounted")).unwrap();
        let elsewhere = Folder::new("");
        elsewhere.file("old", 2 * DAY, 1);
        let mount = |arguments: &[&str]| assert!(Command::new("mount").args(arguments).status().unwrap().success(), "{arguments:?}");
        let (root, theirs) = (folder.root().display().to_string(), elsewhere.root().display().to_string());
        // The same disk under another name: no number of a device tells it apart.
        mount(&["--bind", &theirs, &format!("{root}/mounted")]);
        mount(&["--rbind", &root, &root]);
        mount(&["-o", "remount,bind,ro", &root, &root]);
        let (code, said) = folder.run(&["apply", "--yes", "--now"]);
        assert_eq!((code, said.contains("the file system is read-only")), (69, true), "{said}");
        mount(&["-o", "remount,bind,rw", &root, &root]);
        let (code, said) = folder.run(&["apply", "--yes", "--now"]);
        assert_eq!((code, said.contains("1 files deleted")), (0, true), "{said}");
        assert!(elsewhere.root().join("old").exists());
        let (_, said) = folder.run(&["plan"]);
        assert!(said.contains("1 folders cannot be looked into"), "{said}");
    });
}

/// The most memory that a command has had at once, in KiB.
fn peak(mut command: Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let now = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
        peak = peak.max(now.unwrap_or_default());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(child.wait().unwrap().success());
    peak
}

#[test]
fn a_hundred_thousand_files_take_no_more_memory_than_one() {
    let folder = Folder::new("guards: { max_fraction: 1 }");
    folder.file("0/first", 2 * DAY, 1);
    let few = peak(folder.command(&["plan"]));
    // Names of one old file: a hundred thousand files would take the disk a while.
    for number in 0..100 {
        fs::create_dir_all(folder.root().join(number.to_string())).unwrap();
        let first = folder.file(&format!("{number}/one"), 2 * DAY, 1);
        for link in 0..1000 {
            fs::hard_link(&first, folder.root().join(format!("{number}/{link}"))).unwrap();
        }
    }
    let many = peak(folder.command(&["plan"]));
    let (code, said) = folder.run(&["apply", "--yes", "--now"]);
    assert_eq!((code, said.contains("100101 files would be deleted; at most 100000")), (65, true), "{said}");
    println!("{few} KiB for one file, {many} KiB for 100101");
    assert!(many < few + 16 * 1024, "{few} KiB for one file, {many} KiB for 100101");
}

#[test]
fn killed_in_the_middle_and_run_again_every_old_file_is_gone_and_no_other() {
    let mut folder = Folder::new("guards: { max_fraction: 1 }");
    folder.section = "mode: enforce, throttle: { pause: 2 }".to_owned();
    for number in 0..6000 {
        folder.file(&format!("{}/{number}", number % 7), if number % 3 == 0 { 60 } else { 2 * DAY }, 1);
    }
    let mut kills = 0;
    for wait in 0..40 {
        let mut child = folder.command(&["apply", "--yes", "--now"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(20 + 10 * wait));
        kills += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    println!("{kills} runs were killed");
    assert!(kills > 0);
    let (code, said) = folder.run(&["apply", "--yes", "--now"]);
    assert_eq!(code, 0, "{said}");
    let left: Vec<String> = folder.names().into_iter().filter(|name| name.contains('/')).collect();
    assert_eq!(left.len(), 2000);
    assert!(left.iter().all(|name| name.split_once('/').unwrap().1.parse::<u32>().unwrap() % 3 == 0));
    assert!(folder.run(&["status"]).1.contains("policy tmp: done"));
}
