//! A changed configuration, taken over while everything runs: on SIGHUP, on request, and when the file's content changes.
//!
//! The content is polled, not watched: a ConfigMap is swapped by a symlink two folders up, and a change between a start
//! and the begin of a watch is lost for ever (VictoriaMetrics/operator#2527). What cannot be used changes nothing, and
//! never ends the process.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admin::control::Reload;
use crate::clock::Now;
use crate::config::fingerprint::{Fingerprints, of_file};
use crate::config::origin::Origin;
use crate::config::{Config, problems::ConfigError};
use crate::health::board::{Board, Changes};
use crate::logs::{Revised, Revision};
use crate::runtime::supervise::PartResult;

/// How often the file is read: the kubelet takes a minute to swap a ConfigMap, and reading a few kilobytes from the
/// page cache takes microseconds. What is new is taken over when two readings have found the same.
const POLL: Duration = Duration::from_secs(1);
/// What is taken over without a restart.
const LIVE: [&str; 3] = ["health", LOG_RULES, "logs.tests"];
const LOG_RULES: &str = "logs.rules";
/// Which facts the logs tell, and which the database, is decided at the start for both: rules for another decision would
/// count twice, or not at all.
const SOURCES: &str = "sources";

/// Where others ask for a reload.
pub(super) type Requests = mpsc::Sender<Reload>;

/// The task that takes new configurations over.
pub(super) struct Reloader {
    origin: Origin,
    board: Arc<Board>,
    rules: Revision,
    requests: mpsc::Receiver<Reload>,
    /// What the process was started with: what of it has changed since needs a restart.
    at_start: Fingerprints,
    /// The number of the log rules that are in use.
    log_rules: Option<u64>,
    /// The file's content as it was last read, whatever came of it.
    seen: Option<u64>,
    /// What the last reading found, where that was something new.
    candidate: Option<Option<u64>>,
    /// Whether there is a file that can be read again: a pipe is empty the second time.
    is_watched: bool,
    success: Gauge,
    last_success: Gauge<f64, AtomicU64>,
}

// === impl Reloader ===

impl Reloader {
    /// A reloader of what the process was started with.
    pub fn new(origin: Origin, config: &Config, board: Arc<Board>, rules: Revision, registry: &mut Registry) -> (Requests, Self) {
        let (sender, requests) = mpsc::channel(1);
        let (success, last_success) = (Gauge::default(), Gauge::default());
        registry.register("bellwether_config_reload_success", "Whether the last reload of the configuration succeeded", success.clone());
        registry.register(
            "bellwether_config_last_reload_success_timestamp_seconds",
            "When the configuration was last read with success",
            last_success.clone(),
        );
        let (at_start, seen) = (config.fingerprints.clone(), config.fingerprints.file);
        let log_rules = config.fingerprints.sections.get(LOG_RULES).copied();
        let is_watched = origin.file().is_some_and(std::path::Path::is_file);
        let reloader =
            Self { origin, board, rules, requests, at_start, log_rules, seen, candidate: None, is_watched, success, last_success };
        reloader.note(true);
        (sender, reloader)
    }

    /// Takes new configurations over until `stop`.
    ///
    /// # Errors
    /// When the operating system refuses the handler of SIGHUP.
    pub async fn run(mut self, stop: CancellationToken) -> PartResult {
        let mut hangups = signal(SignalKind::hangup())?;
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = hangups.recv() => drop(self.reload().await),
                Some(Reload(sender)) = self.requests.recv() => {
                    // Whoever asked may have gone away.
                    let _ = sender.send(self.reload().await);
                }
                _ = ticks.tick(), if self.is_watched => {
                    let content = self.content().await;
                    if self.is_whole_and_new(content) {
                        drop(self.reload().await);
                    }
                }
            }
        }
    }

    /// The number of the file's content; `None` where there is no file, or none that can be read.
    async fn content(&self) -> Option<u64> {
        let path = self.origin.file()?.to_owned();
        tokio::task::spawn_blocking(move || of_file(&path).ok()).await.ok()?
    }

    /// Whether two readings in a row have found this, and it is new. An editor that writes in place empties the file
    /// first: what is read in between may be a configuration without a single check, and a valid one.
    fn is_whole_and_new(&mut self, content: Option<u64>) -> bool {
        if content == self.seen {
            self.candidate = None;
            return false;
        }
        self.candidate.replace(content) == Some(content)
    }

    /// Reads the configuration and takes it over, or says why not.
    async fn reload(&mut self) -> Result<String, String> {
        if let Some(path) = self.origin.file().filter(|_| !self.is_watched) {
            let message = format!("{} is not a regular file and cannot be read again: start the sidecar with a file", path.display());
            tracing::error!("nothing is reloaded: {message}");
            self.note(false);
            return Err(message);
        }
        self.candidate = None;
        // Kept even when it cannot be used, so that one mistake is reported once.
        self.seen = self.content().await;
        let origin = self.origin.clone();
        let loaded = tokio::task::spawn_blocking(move || origin.load()).await;
        match loaded {
            Ok(Ok(config)) => self.take_over(&config),
            Ok(Err(error)) => Err(self.refuse(&error)),
            Err(_) => {
                self.note(false);
                Err("reading the configuration broke; see the log".to_owned())
            }
        }
    }

    fn take_over(&mut self, config: &Config) -> Result<String, String> {
        self.seen = config.fingerprints.file;
        let revised = self.revise(config)?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let changes = self.board.replace(&config.health, Now::read());
        let restart = needs_restart(&self.at_start, &config.fingerprints);
        self.note(true);
        let mut message = format!("reloaded: {}", describe(&changes));
        if let Some(revised) = revised {
            tracing::info!(added = ?revised.added, removed = ?revised.removed, "the log rules were reloaded");
            message = format!("{message}; log rules: {}", describe_rules(&revised));
        }
        tracing::info!(added = ?changes.added, changed = ?changes.changed, removed = ?changes.removed, "the configuration was reloaded");
        if !restart.is_empty() {
            tracing::warn!(sections = ?restart, "these sections have changed too, and are only read at a start: restart to use them");
            message = format!("{message}; restart to use what has changed in {}", restart.join(", "));
        }
        Ok(message)
    }

    /// Takes over log rules that have changed; they come first, as they can be refused.
    fn revise(&mut self, config: &Config) -> Result<Option<Revised>, String> {
        let number = |fingerprints: &Fingerprints, key: &str| fingerprints.sections.get(key).copied();
        let log_rules = number(&config.fingerprints, LOG_RULES);
        if log_rules == self.log_rules || number(&config.fingerprints, SOURCES) != number(&self.at_start, SOURCES) {
            return Ok(None);
        }
        let revised = self.rules.revise(&config.logs).map_err(|error| {
            self.note(false);
            tracing::error!("the changed configuration cannot be used, and everything goes on as before: {error}");
            error.to_string()
        })?;
        self.log_rules = log_rules;
        Ok(Some(revised))
    }

    fn refuse(&self, error: &ConfigError) -> String {
        self.note(false);
        tracing::error!("the changed configuration cannot be used, and everything goes on as before: {error}");
        error.to_string()
    }

    fn note(&self, success: bool) {
        self.success.set(i64::from(success));
        if success {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds since the epoch are below 2^53")]
            self.last_success.set(Now::read().wall.as_millisecond() as f64 / 1000.0);
        }
    }
}

/// The sections that differ from those of the start and cannot be taken over.
fn needs_restart(at_start: &Fingerprints, now: &Fingerprints) -> Vec<String> {
    let keys = at_start.sections.keys().chain(now.sections.keys());
    let mut changed: Vec<String> =
        keys.filter(|key| !LIVE.contains(&key.as_str()) && at_start.sections.get(*key) != now.sections.get(*key)).cloned().collect();
    changed.sort();
    changed.dedup();
    changed
}

fn describe(changes: &Changes) -> String {
    if changes.is_empty() {
        return "no check has changed".to_owned();
    }
    let lists = [("added", &changes.added), ("changed", &changes.changed), ("removed", &changes.removed)];
    let lists = lists.iter().filter(|(_, names)| !names.is_empty());
    lists.map(|(what, names)| format!("{what} {}", names.join(", "))).collect::<Vec<_>>().join("; ")
}

fn describe_rules(revised: &Revised) -> String {
    let lists = [("added", &revised.added), ("removed", &revised.removed)];
    let lists: Vec<String> =
        lists.iter().filter(|(_, names)| !names.is_empty()).map(|(what, names)| format!("{what} {}", names.join(", "))).collect();
    if lists.is_empty() { "changed".to_owned() } else { lists.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::Engine;

    fn reloader() -> (Requests, Reloader) {
        let config = Origin::default().load().unwrap();
        let board = Arc::new(Board::new(&config.health, Now::read()));
        let rules = Engine::new(&config.logs, None).unwrap().revision();
        Reloader::new(Origin::default(), &config, board, rules, &mut Registry::default())
    }

    #[test]
    fn what_was_found_once_may_be_half_written() {
        let (_requests, mut reloader) = reloader();
        reloader.seen = Some(1);
        assert!(!reloader.is_whole_and_new(Some(1)));
        assert!(!reloader.is_whole_and_new(Some(2)) && !reloader.is_whole_and_new(Some(3)), "it is still being written");
        assert!(reloader.is_whole_and_new(Some(3)));
        assert!(!reloader.is_whole_and_new(None) && !reloader.is_whole_and_new(Some(1)) && !reloader.is_whole_and_new(None));
        assert!(reloader.is_whole_and_new(None), "a file that is gone is told of, too");
    }

    #[test]
    fn sections_that_need_a_restart_are_named_once() {
        let of = |sections: &[(&str, u64)]| Fingerprints {
            file: None,
            sections: sections.iter().map(|(key, number)| ((*key).to_owned(), *number)).collect(),
        };
        let start = of(&[("health", 1), ("logs.inputs", 1), ("logs.rules", 1), ("listen", 1)]);
        let now = of(&[("health", 2), ("logs.inputs", 2), ("logs.rules", 2), ("collect", 1), ("listen", 1)]);
        assert_eq!(needs_restart(&start, &now), ["collect", "logs.inputs"]);
    }

    #[test]
    fn what_has_changed_is_said() {
        assert_eq!(describe(&Changes::default()), "no check has changed");
        let changes = Changes { added: vec!["a".into(), "b".into()], removed: vec!["c".into()], changed: Vec::new() };
        assert_eq!(describe(&changes), "added a, b; removed c");
    }
}
