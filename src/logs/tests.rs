//! The engine against real files, step by step: a test says when it looks and what time it is, and then demands the
//! exact value of each counter.

mod content;
mod histories;
mod live;
mod moments;
mod put_aside;
mod reload;
mod rotation;
mod scenarios;
mod skipping;
mod survival;
mod threads;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::environment::Environment;
use crate::config::logs::{FileGlob, InputKind, LogInput, Logs, Start};
use crate::config::{Request, load};
use crate::logs::engine::Engine;
use crate::logs::shard::GRACE;

/// The rules of the profile, and one input `app` with these patterns.
fn config(patterns: &[String], start: Start) -> Logs {
    let request = Request { profile: Some("decisionbox"), logs_only: true, ..Request::default() };
    let logs = load(&request, &Environment::of([("MONGODB_URI", "mongodb://db")])).unwrap().logs;
    let globs = patterns.iter().map(|pattern| FileGlob::parse(pattern).unwrap()).collect();
    Logs { inputs: vec![LogInput { name: "app".to_owned(), kind: InputKind::Files(globs), start }], ..logs }
}

/// A folder of logs, an engine that reads it, and a clock that goes on when a test says so.
struct Bench {
    folder: tempfile::TempDir,
    config: Logs,
    engine: Engine,
    now: Instant,
}

// === impl Bench ===

impl Bench {
    /// Reads `app.log` from its begin.
    fn new() -> Self {
        Self::with("*.log", Start::Beginning)
    }

    fn with(pattern: &str, start: Start) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&[format!("{}/logs/{pattern}", folder.path().display())], start);
        fs::create_dir(folder.path().join("logs")).unwrap();
        let engine = Engine::new(&config, Some(&folder.path().join("state"))).unwrap();
        Self { folder, config, engine, now: Instant::now() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("logs").join(name)
    }

    fn append(&self, name: &str, text: impl AsRef<[u8]>) -> File {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap();
        file.write_all(text.as_ref()).unwrap();
        file
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// What logrotate does with `copytruncate`.
    fn copy_and_cut_off(&self, from: &str, to: &str) {
        fs::copy(self.path(from), self.path(to)).unwrap();
        OpenOptions::new().write(true).open(self.path(from)).unwrap().set_len(0).unwrap();
    }

    fn compress(&self, name: &str, packing: Packing, keeps_time: bool) {
        packing.compress(&self.path(name), keeps_time);
    }

    fn inode(&self, name: &str) -> u64 {
        std::os::unix::fs::MetadataExt::ino(&fs::metadata(self.path(name)).unwrap())
    }

    /// Makes an empty file with an inode that another one had until now: the file system gives the number to one of the
    /// next files. Where that was a file of another test, this waits until it is gone.
    fn reuse(&self, inode: u64, name: &str) {
        for _ in 0..600 {
            let mut others = Vec::new();
            self.append(name, "");
            while self.inode(name) != inode && others.len() < 200 {
                others.push(format!("other.{}", others.len()));
                self.rename(name, &others[others.len() - 1]);
                self.append(name, "");
            }
            others.iter().for_each(|other| fs::remove_file(self.path(other)).unwrap());
            if self.inode(name) == inode {
                return;
            }
            fs::remove_file(self.path(name)).unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("this file system does not use inodes again");
    }

    /// Looks at the disk and reads everything.
    fn look(&mut self) -> &mut Self {
        let listing = self.engine.shard.list();
        self.engine.shard.sweep(listing, self.now);
        while self.engine.shard.read(self.now) {}
        self
    }

    fn save(&mut self) {
        let shared = std::sync::Arc::clone(&self.engine.shared);
        self.engine.keeper.as_mut().unwrap().save(&shared);
    }

    /// What kill -9 leaves: the last snapshot and the files.
    fn kill(&mut self) {
        self.engine = Engine::new(&self.config, Some(&self.folder.path().join("state"))).unwrap();
    }

    /// Lets the grace of files that have gone pass, and looks.
    fn pass_grace(&mut self) -> &mut Self {
        self.look();
        self.now += GRACE + Duration::from_secs(1);
        self.look()
    }

    fn value(&self, metric: &str, labels: &[&str]) -> u64 {
        let value = self.engine.families().lock().value(metric, labels).unwrap();
        assert!(value >= 0.0 && value.fract() == 0.0);
        value as u64
    }

    fn outcome(&self, outcome: &str) -> u64 {
        self.value("bellwether_log_lines_total", &["app", outcome])
    }

    /// All lines were records, each was counted by the rules, and nothing else happened.
    #[track_caller]
    fn check(&self, records: u64, renames: u64, truncations: u64) {
        let others = ["continuation", "unstructured", "malformed", "too_long", "blank"].map(|outcome| self.outcome(outcome));
        let counted = self.value("decisionbox_log_lines_total", &["info", "decisionbox-agent"]);
        assert_eq!((self.outcome("record"), counted, others), (records, records, [0; 5]));
        let rotations = ["rename", "truncate"].map(|kind| self.value("bellwether_log_rotations_total", &["app", kind]));
        assert_eq!(rotations, [renames, truncations]);
    }

    fn lost(&self) -> u64 {
        self.value("bellwether_log_lost_bytes_total", &["app"])
    }

    fn repaired(&self, repair: &str) -> u64 {
        self.value("bellwether_log_repaired_total", &["app", repair])
    }

    fn snapshot_failures(&self) -> u64 {
        self.engine.keeper.as_ref().unwrap().failures()
    }

    fn troubles(&self, reason: &str) -> u64 {
        self.value("bellwether_log_file_errors_total", &["app", reason])
    }
}

/// How a file is compressed.
#[derive(Clone, Copy, Debug)]
enum Packing {
    Gzip,
    Zstd,
}

// === impl Packing ===

impl Packing {
    /// Compresses a file and removes it, as `gzip` and `zstd --rm` do; some rotations do not keep the time.
    fn compress(self, path: &Path, keeps_time: bool) {
        let content = fs::read(path).unwrap();
        let modified = fs::metadata(path).unwrap().modified().unwrap();
        let (end, bytes) = match self {
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&content).unwrap();
                ("gz", encoder.finish().unwrap())
            }
            Self::Zstd => ("zst", zstd::encode_all(content.as_slice(), 1).unwrap()),
        };
        let packed = PathBuf::from(format!("{}.{end}", path.display()));
        fs::write(&packed, bytes).unwrap();
        if keeps_time {
            File::options().write(true).open(&packed).unwrap().set_modified(modified).unwrap();
        }
        fs::remove_file(path).unwrap();
    }
}

/// Does things to a log while the reader is busy with it.
#[derive(Clone)]
struct Hand(PathBuf);

// === impl Hand ===

impl Hand {
    fn at(&self, end: &str) -> PathBuf {
        PathBuf::from(format!("{}{end}", self.0.display()))
    }

    fn append(&self, text: &str) {
        OpenOptions::new().append(true).create(true).open(&self.0).unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Copies and cuts off, with what is written afterwards.
    fn copy(&self, end: &str, next: &str) {
        fs::copy(&self.0, self.at(end)).unwrap();
        self.cut_off(next);
    }

    fn cut_off(&self, next: &str) {
        File::options().write(true).open(&self.0).unwrap().set_len(0).unwrap();
        self.append(next);
    }

    fn rename(&self, end: &str, next: &str) {
        fs::rename(&self.0, self.at(end)).unwrap();
        self.append(next);
    }

    fn compress(&self, end: &str, packing: Packing, keeps_time: bool) {
        packing.compress(&self.at(end), keeps_time);
    }
}

/// Files are told apart by times that are as exact as a tick of the kernel.
const TICK: Duration = Duration::from_millis(5);

/// Lines `from..to`, each another one.
fn lines(range: std::ops::Range<u64>) -> String {
    range
        .map(|number| format!("{{\"severity\":\"INFO\",\"caller\":\"log/compat.go:75\",\"message\":\"line\",\"seq\":{number}}}\n"))
        .collect()
}

/// Descriptors of this process that lead to a file, also when that is deleted.
fn descriptors(path: &Path) -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let name = path.display().to_string();
    links.filter(|link| link.display().to_string().starts_with(&name)).count()
}

/// Root may read everything, so the test runs once more as somebody else, from a copy that everybody may run.
fn as_nobody(test: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    for path in [folder.path(), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let output = std::process::Command::new(&program)
        .args(["--exact", test])
        .env("TMPDIR", folder.path())
        .current_dir(folder.path())
        .uid(65_534)
        .gid(65_534)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}
