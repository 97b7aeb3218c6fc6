//! What all started processes share: free ports, signals, an orderly end, the end of a log file.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

/// A port that was free a moment ago. Another process may take it: whoever uses it must notice.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on loopback")?;
    Ok(listener.local_addr()?.port())
}

pub fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("the process has ended already")?;
    kill_process(pid, signal).with_context(|| format!("cannot send {signal:?}"))
}

/// SIGTERM, and an error when that does not end the process in time (it is killed then).
pub async fn terminate(child: &mut Child, name: &str, limit: Duration) -> Result<ExitStatus> {
    if let Some(status) = child.try_wait()? {
        return Ok(status);
    }
    signal(child, Signal::TERM)?;
    match tokio::time::timeout(limit, child.wait()).await {
        Ok(status) => Ok(status?),
        Err(_) => {
            child.kill().await.with_context(|| format!("cannot kill {name}"))?;
            bail!("{name} did not end within {} s of SIGTERM, so it was killed", limit.as_secs())
        }
    }
}

/// The last lines of a log, for the moment when something went wrong.
pub fn last_lines(log: &Path, count: usize) -> String {
    let Ok(bytes) = std::fs::read(log) else {
        return "(no log)".to_owned();
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
