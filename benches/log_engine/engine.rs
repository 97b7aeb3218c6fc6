//! The engine itself, on the files of the corpus, until it has caught up.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bellwether::config::environment::Environment;
use bellwether::config::{Config, Request, load};
use bellwether::logs::Engine;
use bellwether::metrics::Registry;
use bellwether::metrics::exposition::Format;
use tokio_util::sync::CancellationToken;

use crate::corpus::{DISCOVERY, DISCOVERY_BOUNDS, EVENTS, QUERY, QUERY_BOUNDS, QUERY_KINDS, SERVICES, Truth};
use crate::counts::{self, Rules};

/// A configuration whose input `app` reads these files with these rules.
pub fn config(folder: &Path, rules: Rules, more: &str) -> Config {
    let path = folder.join("bellwether.yaml");
    let quoted = |texts: &[&str]| texts.iter().map(|text| format!("\"{text}\"")).collect::<Vec<_>>().join(", ");
    let (services, events, kinds) = (quoted(&SERVICES), quoted(&EVENTS), quoted(&QUERY_KINDS));
    let service = format!("service: {{ field: service, allow: [{services}], else: other }}");
    let mut text = format!(
        "profile: none\nlogs:\n  {more}\n  inputs:\n    - {{ name: app, files: [\"{}/*.log\"], start: beginning }}\n  rules:\n",
        folder.display()
    );
    if rules == Rules::All {
        text += &format!(
            "    - metric: app_log_lines_total\n      type: counter\n      labels:\n        level: {{ field: level, allow: [debug, info, warn, error, fatal], else: unknown }}\n        {service}\n    - metric: app_errors_total\n      type: counter\n      match: {{ level: error }}\n      labels:\n        {service}\n"
        );
    }
    text += &format!(
        "    - metric: app_events_total\n      type: counter\n      match: {{ message: [{events}] }}\n      labels:\n        event: {{ field: message, allow: [{events}], else: other }}\n        {service}\n    - metric: app_query_duration_seconds\n      type: histogram\n      match: {{ message: \"{QUERY}\" }}\n      value: {{ field: duration_ms, unit: ms }}\n      buckets: {QUERY_BOUNDS:?}\n      labels:\n        kind: {{ field: query_kind, allow: [{kinds}], else: other }}\n    - metric: app_discovery_duration_seconds\n      type: histogram\n      match: {{ message: \"{DISCOVERY}\" }}\n      value: {{ field: duration }}\n      buckets: {DISCOVERY_BOUNDS:?}\n"
    );
    fs::write(&path, text).expect("a folder that can be written to");
    load(&Request { file: Some(&path), ..Request::default() }, &Environment::default()).expect("a good configuration")
}

/// The profile of DecisionBox, with its agent logs at these files, from their begin.
pub fn profile(folder: &Path) -> Config {
    let path = folder.join("profile.yaml");
    let inputs = format!("inputs: [{{ name: app, files: [\"{}/*.log\"], start: beginning }}]", folder.display());
    fs::write(&path, format!("profile: decisionbox\nlogs:\n  {inputs}\n")).expect("a folder that can be written to");
    let request = Request { file: Some(&path), logs_only: true, ..Request::default() };
    load(&request, &Environment::default()).expect("a good configuration")
}

/// Reads the corpus, and compares with the truth.
pub fn run(config: &Config, truth: &Truth, rules: Option<Rules>) -> Result<(), String> {
    let engine = Engine::new(&config.logs, None).map_err(|error| error.to_string())?;
    let (families, caught_up, stop) = (engine.families(), engine.caught_up(), CancellationToken::new());
    let token = stop.clone();
    let running = thread::spawn(move || engine.run(token).map_err(|error| error.to_string()));
    while !caught_up.is_set() && !running.is_finished() {
        thread::sleep(Duration::from_millis(1));
    }
    stop.cancel();
    running.join().map_err(|_| "the engine panicked".to_owned())??;
    let outcome = |outcome: &str| families.lock().value("bellwether_log_lines_total", &["app", outcome]).unwrap_or_default();
    let found = [outcome("record") + outcome("skipped"), outcome("malformed"), outcome("continuation") + outcome("unstructured")];
    let expected = [truth.records as f64, truth.malformed as f64, truth.panics as f64];
    if found != expected {
        return Err(format!("records, malformed, others: {found:?} instead of {expected:?}"));
    }
    let Some(rules) = rules else { return Ok(()) };
    let mut registry = Registry::default();
    registry.expose(families);
    let text = Format::Text.write(&registry).map_err(|error| error.to_string())?;
    counts::difference(&counts::read(&text), &counts::expected(truth, rules)).map_or(Ok(()), Err)
}

/// The files of the corpus.
pub fn files(folder: &Path) -> [PathBuf; 2] {
    ["first.log", "second.log"].map(|name| folder.join(name))
}
