//! What it costs to keep the state of many series: the same work with a folder for the state and without one.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use bellwether::config::environment::Environment;
use bellwether::config::{Config, Request, load};
use bellwether::logs::Engine;
use tokio_util::sync::CancellationToken;

use crate::cpu_seconds;

/// Series that all change between two snapshots.
pub const SERIES: usize = 10_000;
/// Each second a line for every series is written.
const SECONDS: u32 = 8;

/// The share of a core that snapshots take, of 1, of one pair of runs, with and without a state folder.
pub fn share(folder: &Path) -> Result<f64, String> {
    let [without, with] = [false, true].map(|is_kept| spend(folder, is_kept));
    Ok((with? - without?).max(0.0) / f64::from(SECONDS))
}

/// The CPU time of some seconds in which each series counts once a second.
fn spend(folder: &Path, is_kept: bool) -> Result<f64, String> {
    let folder = folder.join(format!("snapshot-{is_kept}"));
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let (log, config) = (folder.join("many.txt"), config(&folder));
    let mut lines = String::new();
    for number in 0..SERIES {
        // Letters, so that no segment looks like an id.
        let name: String = format!("{number:05}").bytes().map(|digit| char::from(digit - b'0' + b'k')).collect();
        let _ = writeln!(lines, "{{\"level\":\"info\",\"msg\":\"request\",\"path\":\"/{name}\"}}");
    }
    fs::write(&log, &lines).map_err(|error| error.to_string())?;
    let state = folder.join("state");
    let engine = Engine::new(&config.logs, is_kept.then_some(state.as_path())).map_err(|error| error.to_string())?;
    let (families, caught_up, stop) = (engine.families(), engine.caught_up(), CancellationToken::new());
    let token = stop.clone();
    let running = thread::spawn(move || engine.run(token).map_err(|error| error.to_string()));
    while !caught_up.is_set() && !running.is_finished() {
        thread::sleep(Duration::from_millis(1));
    }
    let mut out = OpenOptions::new().append(true).open(&log).map_err(|error| error.to_string())?;
    let (cpu, started) = (cpu_seconds(), Instant::now());
    for second in 1..=SECONDS {
        out.write_all(lines.as_bytes()).map_err(|error| error.to_string())?;
        thread::sleep(Duration::from_secs(second.into()).saturating_sub(started.elapsed()));
    }
    let spent = cpu_seconds() - cpu;
    stop.cancel();
    running.join().map_err(|_| "the engine panicked".to_owned())??;
    let last = "k".repeat(5);
    let counted = families.lock().value("app_requests_total", &[&format!("/{last}")]);
    if counted == Some(f64::from(SECONDS + 1)) { Ok(spent) } else { Err(format!("a series has {counted:?} instead of {}", SECONDS + 1)) }
}

fn config(folder: &Path) -> Config {
    let path = folder.join("bellwether.yaml");
    let text = format!(
        "profile: none\nlogs:\n  inputs:\n    - {{ name: app, files: [\"{}/*.txt\"], start: beginning }}\n  rules:\n    - metric: app_requests_total\n      type: counter\n      limit: {SERIES}\n      labels:\n        path: {{ field: path, path_template: true }}\n",
        folder.display()
    );
    fs::write(&path, text).expect("a folder that can be written to");
    load(&Request { file: Some(&path), ..Request::default() }, &Environment::default()).expect("a good configuration")
}
