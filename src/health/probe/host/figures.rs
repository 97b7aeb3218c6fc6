//! Where a machine and its control groups tell what they use: `/proc`, cgroup v2 and v1, `statvfs`.
//!
//! Owns the formats; the judgement is the caller's. Formats: proc(5), and
//! <https://docs.kernel.org/admin-guide/cgroup-v2.html>.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A limit of v1 that is none: it is the largest number of pages.
const NO_LIMIT: u64 = 1 << 60;

/// Where the numbers are read.
#[derive(Debug)]
pub(super) struct Source {
    /// The folders of the control group, one for each controller in v1.
    groups: Vec<PathBuf>,
    /// It was named: its numbers count also where it has no limits of its own.
    is_named: bool,
}

/// CPU time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cpu {
    /// Of a control group: seconds used, and how many CPUs it may use.
    Group { used: f64, cpus: f64 },
    /// Of the machine: busy and all ticks of all its CPUs.
    Machine { busy: f64, all: f64 },
}

// === impl Cpu ===

impl Cpu {
    /// The share that was used since then. `None` where the numbers went back or the group has changed.
    pub fn share_since(self, before: Self, elapsed: Duration) -> Option<f64> {
        let (used, of) = match (self, before) {
            (Self::Group { used, cpus }, Self::Group { used: before, .. }) => (used - before, elapsed.as_secs_f64() * cpus),
            (Self::Machine { busy, all }, Self::Machine { busy: busy_before, all: all_before }) => (busy - busy_before, all - all_before),
            _ => return None,
        };
        // Two looks within one tick: nothing was used that could be seen.
        if used <= 0.0 || of <= 0.0 { Some(0.0) } else { Some(used / of) }
    }
}

// === impl Source ===

impl Source {
    /// The named group, or the one that this process is in.
    pub fn new(named: Option<PathBuf>) -> Self {
        let is_named = named.is_some();
        let groups = match named {
            Some(folder) => vec![folder],
            None => own_groups(&fs::read_to_string("/proc/self/cgroup").unwrap_or_default()),
        };
        Self { groups, is_named }
    }

    /// CPU time so far.
    pub fn cpu(&self) -> Option<Cpu> {
        let quota = self.read("cpu.max").map_or_else(|| self.quota_v1(), |text| quota_v2(&text));
        if quota.is_some() || self.is_named {
            let seconds = match self.read("cpu.stat").and_then(|text| number_of(&text, "usage_usec")) {
                Some(micros) => Some(micros / 1e6),
                None => self.number("cpuacct.usage").map(|nanos| nanos / 1e9),
            };
            if let Some(used) = seconds {
                return Some(Cpu::Group { used, cpus: quota.or_else(cpus)? });
            }
        }
        machine_cpu(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// The share of the memory that is used. Pages of files that the kernel would give up do not count.
    pub fn memory(&self) -> Option<f64> {
        let limit = self.read("memory.max").or_else(|| self.read("memory.limit_in_bytes")).and_then(|text| bytes(&text));
        let machine = fs::read_to_string("/proc/meminfo").ok();
        let total = machine.as_deref().and_then(|text| number_of(text, "MemTotal:")).map(|kib| kib * 1024.0);
        let limit = limit.or(if self.is_named { total } else { None });
        if let Some(limit) = limit
            && let Some(used) = self.number("memory.current").or_else(|| self.number("memory.usage_in_bytes"))
        {
            let stat = self.read("memory.stat").unwrap_or_default();
            let idle = number_of(&stat, "total_inactive_file").or_else(|| number_of(&stat, "inactive_file"));
            return Some((used - idle.unwrap_or(0.0)).max(0.0) / limit);
        }
        let available = machine.as_deref().and_then(|text| number_of(text, "MemAvailable:"))? * 1024.0;
        Some(1.0 - available / total?)
    }

    fn quota_v1(&self) -> Option<f64> {
        let quota = self.number("cpu.cfs_quota_us").filter(|quota| *quota > 0.0)?;
        Some(quota / self.number("cpu.cfs_period_us")?)
    }

    fn number(&self, file: &str) -> Option<f64> {
        self.read(file)?.trim().parse().ok()
    }

    fn read(&self, file: &str) -> Option<String> {
        self.groups.iter().find_map(|folder| fs::read_to_string(folder.join(file)).ok())
    }
}

/// The share of a file system that is used, of its space or of its inodes, whichever is closer to its end. As `df`
/// counts: what is kept for root is not there for others.
pub(super) fn disk(path: &Path) -> Option<f64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let space = share(stat.f_blocks.saturating_sub(stat.f_bfree), stat.f_bavail);
    // Some file systems make inodes as they need them, and tell none.
    let inodes = share(stat.f_files.saturating_sub(stat.f_ffree), stat.f_favail);
    Some(space.max(inodes))
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
fn share(used: u64, free: u64) -> f64 {
    if used.saturating_add(free) == 0 { 0.0 } else { used as f64 / (used as f64 + free as f64) }
}

/// The folders of the groups that `/proc/self/cgroup` names. Within a container they are mounted at the root.
fn own_groups(text: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mut folders = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let mounted = if controllers.is_empty() { root.to_owned() } else { root.join(controllers) };
        let relevant = controllers.is_empty() || controllers.split(',').any(|name| matches!(name, "cpu" | "cpuacct" | "memory"));
        if relevant {
            folders.push(mounted.join(path.trim_start_matches('/')));
            // A path that leads out of the container's view is not there, and the mounted root is its group.
            folders.push(mounted);
        }
    }
    folders.dedup();
    folders
}

/// `max 100000` or `150000 100000`: microseconds of CPU time in each period.
fn quota_v2(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
fn bytes(text: &str) -> Option<f64> {
    text.trim().parse::<u64>().ok().filter(|bytes| *bytes < NO_LIMIT && *bytes > 0).map(|bytes| bytes as f64)
}

/// The number behind a word at the begin of a line.
fn number_of(text: &str, word: &str) -> Option<f64> {
    text.lines().find_map(|line| {
        let mut parts = line.split_whitespace();
        (parts.next() == Some(word)).then(|| parts.next()?.parse().ok()).flatten()
    })
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal. What guests use is part of
/// user already.
fn machine_cpu(text: &str) -> Option<Cpu> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<f64> = line.split_whitespace().take(8).map(|ticks| ticks.parse().unwrap_or(0.0)).collect();
    let all: f64 = ticks.iter().sum();
    let idle = ticks.get(3)? + ticks.get(4).unwrap_or(&0.0);
    Some(Cpu::Machine { busy: all - idle, all })
}

#[expect(clippy::cast_precision_loss, reason = "there are fewer CPUs than 2^52")]
fn cpus() -> Option<f64> {
    std::thread::available_parallelism().ok().map(|cpus| cpus.get() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(files: &[(&str, &str)]) -> (tempfile::TempDir, Source) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let source = Source { groups: vec![folder.path().to_owned()], is_named: false };
        (folder, source)
    }

    #[track_caller]
    fn about(found: Option<f64>, expected: f64) {
        assert!(found.is_some_and(|found| (found - expected).abs() < 1e-9), "{found:?} is not {expected}");
    }

    #[test]
    fn the_second_version_of_control_groups() {
        let (_folder, source) = group(&[
            ("cpu.max", "150000 100000\n"),
            ("cpu.stat", "usage_usec 2500000\nuser_usec 1\n"),
            ("memory.max", "1000000\n"),
            ("memory.current", "900000\n"),
            ("memory.stat", "anon 1\ninactive_file 400000\n"),
        ]);
        assert_eq!(source.cpu(), Some(Cpu::Group { used: 2.5, cpus: 1.5 }));
        about(source.memory(), 0.5);
    }

    #[test]
    fn the_first_version_of_control_groups() {
        let (_folder, source) = group(&[
            ("cpu.cfs_quota_us", "50000\n"),
            ("cpu.cfs_period_us", "100000\n"),
            ("cpuacct.usage", "3000000000\n"),
            ("memory.limit_in_bytes", "1000000\n"),
            ("memory.usage_in_bytes", "600000\n"),
            ("memory.stat", "inactive_file 1\ntotal_inactive_file 100000\n"),
        ]);
        assert_eq!(source.cpu(), Some(Cpu::Group { used: 3.0, cpus: 0.5 }));
        about(source.memory(), 0.5);
    }

    #[test]
    fn a_group_without_limits_is_the_machine() {
        let (folder, source) =
            group(&[("cpu.max", "max 100000\n"), ("cpu.stat", "usage_usec 1\n"), ("memory.max", "max\n"), ("memory.current", "1\n")]);
        assert!(matches!(source.cpu(), Some(Cpu::Machine { .. })));
        assert!(source.memory().unwrap() > 0.001);
        let named = Source::new(Some(folder.path().to_owned()));
        assert!(matches!(named.cpu(), Some(Cpu::Group { .. })), "one that was named counts");
        assert!(named.memory().unwrap() < 0.001);
        let (_folder, source) = group(&[("cpu.cfs_quota_us", "-1\n"), ("memory.limit_in_bytes", "9223372036854771712\n")]);
        assert!(matches!(source.cpu(), Some(Cpu::Machine { .. })));
        assert!(source.memory().is_some());
    }

    #[test]
    fn a_share_is_what_was_used_since_the_last_look() {
        let group = |used| Cpu::Group { used, cpus: 2.0 };
        about(group(11.0).share_since(group(10.0), Duration::from_secs(5)), 0.1);
        about(group(1.0).share_since(group(10.0), Duration::from_secs(5)), 0.0);
        about(group(1.0).share_since(group(1.0), Duration::ZERO), 0.0);
        let machine = machine_cpu("cpu  100 0 100 700 100 0 0 0 50 0\ncpu0 1 2 3 4\n").unwrap();
        assert_eq!(machine, Cpu::Machine { busy: 200.0, all: 1000.0 });
        about(Cpu::Machine { busy: 300.0, all: 1200.0 }.share_since(machine, Duration::ZERO), 0.5);
        assert_eq!(machine.share_since(group(1.0), Duration::ZERO), None);
        assert_eq!(machine_cpu("intr 1\n"), None);
    }

    #[test]
    fn own_groups_are_found_in_both_versions() {
        assert_eq!(own_groups("0::/\n"), ["/sys/fs/cgroup"].map(PathBuf::from));
        assert_eq!(own_groups("0::/a/b\n"), ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup"].map(PathBuf::from));
        assert_eq!(
            own_groups("5:memory:/m\n4:cpu,cpuacct:/c\n3:pids:/p\ngarbage\n"),
            ["/sys/fs/cgroup/memory/m", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu,cpuacct/c", "/sys/fs/cgroup/cpu,cpuacct"]
                .map(PathBuf::from)
        );
    }

    #[test]
    fn a_file_system_has_a_share() {
        assert!((0.0..=1.0).contains(&disk(Path::new("/")).unwrap()));
        assert_eq!(disk(Path::new("/does/not/exist")), None);
        about(Some(share(0, 0)), 0.0);
        about(Some(share(3, 1)), 0.75);
    }
}
