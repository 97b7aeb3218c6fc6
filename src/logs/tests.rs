//! The engine against real files, step by step: a test says when it looks and what time it is, and then demands the
//! exact value of each counter.

mod histories;
mod live;
mod put_aside;
mod rotation;
mod scenarios;
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

    /// Compresses a file and removes it, as `gzip` and `zstd --rm` do; some rotations do not keep the time.
    fn compress(&self, name: &str, packing: Packing, keeps_time: bool) {
        let content = fs::read(self.path(name)).unwrap();
        let modified = fs::metadata(self.path(name)).unwrap().modified().unwrap();
        let (end, bytes) = match packing {
            Packing::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&content).unwrap();
                ("gz", encoder.finish().unwrap())
            }
            Packing::Zstd => ("zst", zstd::encode_all(content.as_slice(), 1).unwrap()),
        };
        let path = self.path(&format!("{name}.{end}"));
        fs::write(&path, bytes).unwrap();
        if keeps_time {
            File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        }
        fs::remove_file(self.path(name)).unwrap();
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
