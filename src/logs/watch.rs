//! What wakes the reading thread: events of the kernel, and the stop.
//!
//! Events are only hints. They are gathered in a bounded set, and a sweep every second finds whatever they missed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Wake;
use std::time::Duration;

use notify::event::{EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::logs::file::{Inode, Seen};

/// File systems on which others may write without our kernel knowing: NFS, SMB, Ceph, 9P and those in user space.
const REMOTE: [u32; 7] = [0x6969, 0x517B, 0xFF53_4D42, 0xFE53_4D42, 0x00C3_6400, 0x0102_1997, 0x6573_5546];
/// More files than this that have changed between two looks are found by a sweep.
const MAX_PATHS: usize = 4096;

/// Rung by those who know that there is something to do.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Rope>);

#[derive(Debug, Default)]
struct Rope {
    rung: Mutex<Rung>,
    changed: Condvar,
}

/// Why the bell was rung.
#[derive(Debug, Default)]
pub struct Rung {
    /// These files have new content.
    pub paths: HashSet<PathBuf>,
    /// Files have come or gone.
    pub sweep: bool,
    /// It is time to stop.
    pub stop: bool,
}

/// Watches folders and rings.
#[derive(Debug)]
pub struct Watch {
    watcher: Option<RecommendedWatcher>,
    folders: HashMap<PathBuf, Inode>,
    warned: bool,
    metrics: WatchMetrics,
}

/// How well files are watched.
#[derive(Clone, Debug, Default)]
pub struct WatchMetrics {
    unwatched: Gauge,
    overflows: Counter,
}

// === impl Bell ===

impl Bell {
    /// Waits until it rings, but not longer than this, and takes the reasons.
    #[must_use]
    pub fn wait(&self, limit: Duration) -> Rung {
        let rung = self.lock();
        let quiet = |rung: &mut Rung| rung.paths.is_empty() && !rung.sweep && !rung.stop;
        let (mut rung, _) = self.0.changed.wait_timeout_while(rung, limit, quiet).unwrap_or_else(PoisonError::into_inner);
        // The stop stays: it must be seen by whoever asks next.
        let stop = rung.stop;
        std::mem::replace(&mut *rung, Rung { stop, ..Rung::default() })
    }

    /// Rings for the stop.
    pub fn stop(&self) {
        self.ring(|rung| rung.stop = true);
    }

    /// Whether it is time to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.lock().stop
    }

    fn ring(&self, change: impl FnOnce(&mut Rung)) {
        change(&mut self.lock());
        self.0.changed.notify_one();
    }

    fn event(&self, event: Event) {
        match event.kind {
            // We open files ourselves; reading changes nothing.
            EventKind::Access(_) => {}
            EventKind::Modify(ModifyKind::Data(_)) => self.ring(|rung| {
                if rung.paths.len() < MAX_PATHS {
                    rung.paths.extend(event.paths);
                } else {
                    rung.sweep = true;
                }
            }),
            // Files have come, gone or got another owner, or the kernel's queue was full.
            _ => self.ring(|rung| rung.sweep = true),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rung> {
        self.0.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A future that is awaited with this as its waker rings for the stop when it is ready.
impl Wake for Rope {
    fn wake(self: Arc<Self>) {
        Bell(self).stop();
    }
}

impl From<Bell> for std::task::Waker {
    fn from(bell: Bell) -> Self {
        bell.0.into()
    }
}

// === impl Watch ===

impl Watch {
    /// Begins to watch nothing. Without the kernel's help files are looked at every second.
    #[must_use]
    pub fn new(bell: &Bell, metrics: WatchMetrics) -> Self {
        let (bell, overflows) = (bell.clone(), metrics.overflows.clone());
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| match event {
            Ok(event) => {
                if event.need_rescan() {
                    overflows.inc();
                }
                bell.event(event);
            }
            Err(_) => bell.ring(|rung| rung.sweep = true),
        });
        let watcher = watcher.inspect_err(warn).ok();
        Self { warned: watcher.is_none(), watcher, folders: HashMap::new(), metrics }
    }

    /// Whether something may change without a word of the kernel's.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.metrics.unwatched.get() > 0
    }

    /// Watches exactly these folders.
    pub fn follow(&mut self, folders: &BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else {
            self.metrics.unwatched.set(i64::try_from(folders.len()).unwrap_or(i64::MAX));
            return;
        };
        self.folders.retain(|folder, _| {
            let keep = folders.contains(folder);
            if !keep {
                // It is gone already where the folder is.
                let _ = watcher.unwatch(folder);
            }
            keep
        });
        let mut unwatched = 0;
        for folder in folders {
            let Some(inode) = inode_of(folder) else { continue };
            unwatched += i64::from(is_remote(folder));
            if self.folders.get(folder) == Some(&inode) {
                continue;
            }
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.folders.insert(folder.clone(), inode);
                }
                Err(error) => {
                    unwatched += 1;
                    if !std::mem::replace(&mut self.warned, true) {
                        warn(&error);
                    }
                }
            }
        }
        self.metrics.unwatched.set(unwatched);
    }
}

// === impl WatchMetrics ===

impl WatchMetrics {
    /// Exposes them.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Folders of logs whose changes the kernel does not report, so that they are looked at again and again";
        registry.register("bellwether_log_unwatched_folders", help, self.unwatched.clone());
        let help = "How often the kernel had more changes of log folders to report than it could keep; all files were looked at then";
        registry.register("bellwether_log_watch_overflows", help, self.overflows.clone());
    }
}

fn is_remote(folder: &Path) -> bool {
    // The numbers have 32 bits; their type is wider on most machines.
    let kind = rustix::fs::statfs(folder).ok().and_then(|system| u32::try_from(system.f_type & 0xFFFF_FFFF).ok());
    kind.is_some_and(|kind| REMOTE.contains(&kind))
}

fn inode_of(folder: &Path) -> Option<Inode> {
    std::fs::metadata(folder).ok().map(|metadata| Seen::of(&metadata).identity.inode)
}

fn warn(error: &notify::Error) {
    tracing::warn!(%error, "the kernel does not report changes of some log folders, so they are looked at every second; raise fs.inotify.max_user_watches");
}

#[cfg(test)]
mod tests {
    use notify::event::Flag;

    use super::*;

    #[test]
    fn a_queue_that_was_full_is_made_good_by_a_sweep() {
        let bell = Bell::default();
        bell.event(Event::new(EventKind::Other).set_flag(Flag::Rescan));
        let rung = bell.wait(Duration::ZERO);
        assert!(rung.sweep && rung.paths.is_empty());
        // And so is a storm of changes: what is remembered of it is bounded.
        let changed = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
        for number in 0..2 * MAX_PATHS {
            bell.event(Event::new(changed).add_path(PathBuf::from(format!("/logs/{number}.log"))));
        }
        let rung = bell.wait(Duration::ZERO);
        assert!(rung.sweep);
        assert_eq!(rung.paths.len(), MAX_PATHS);
    }
}
