//! The types of checks against real servers: each way to pass, to warn and to fail, with its reason.

mod config;
mod http;
mod local;
mod mongodb;
mod postgres;
mod redis;
mod tls;

use serde_json::Value;

use crate::sidecar::{Setup, Sidecar, eventually};

/// A sidecar that looks often at these checks.
#[track_caller]
fn watch(stores: &str, checks: &str) -> Sidecar {
    let config = format!(
        "state_dir: \"${{BELLWETHER_STATE_DIR}}\"\nstores: {{ {stores} }}\nhealth:\n  defaults: {{ interval: 1s, timeout: 900ms, fail_after: 1, pass_after: 1 }}\n  checks:\n{checks}\n"
    );
    Setup::default().config(&config).start()
}

/// What is known of a check now.
#[track_caller]
fn seen(sidecar: &Sidecar, name: &str) -> Value {
    let document: Value = serde_json::from_str(&sidecar.get("/health").body).unwrap();
    document["checks"][format!("{name}:responseTime")][0].clone()
}

/// Waits for a state and a reason.
#[track_caller]
fn expect(sidecar: &Sidecar, name: &str, state: &str, reason: Option<&str>) {
    expect_saying(sidecar, name, state, reason, "");
}

/// Waits for a state, a reason and what is said about it. A failure is that of the look: how it is treated, such as
/// suppressed, is another question.
#[track_caller]
fn expect_saying(sidecar: &Sidecar, name: &str, state: &str, reason: Option<&str>, words: &str) {
    let reason = reason.map_or(Value::Null, Value::from);
    let (key, value) = if state == "down" { ("x-raw", "fail") } else { ("x-state", state) };
    eventually(
        &format!("{name} is {state} ({reason}), saying {words:?}"),
        || seen(sidecar, name),
        |check| {
            let says = check["output"].as_str().unwrap_or_default();
            check["time"].is_string() && check[key] == value && check["x-reason"] == reason && says.contains(words)
        },
    );
}
