//! A stand-in for the agent: it appends the lines of one run after another to a log file, in all of its formats.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinHandle;

use crate::lines::{self, FORMATS};

const LINE_INTERVAL: Duration = Duration::from_millis(120);

/// The log file, and how many lines were ever written to it under all of its names.
pub struct AgentLog {
    path: PathBuf,
    file: File,
    lines: u64,
    runs: u64,
}

impl AgentLog {
    fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), file: append(path)?, lines: 0, runs: 0 })
    }

    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The text of the next run, one event at a time.
    fn next_run(&mut self) -> Vec<String> {
        let number = self.runs;
        self.runs += 1;
        let format = FORMATS[usize::try_from(number % 3).unwrap_or_default()];
        // A third of the runs fail: shifting by the round lets each format tell of failures too.
        let events = lines::run(number + number / 3);
        events.iter().map(|event| event.render(format, Timestamp::now())).collect()
    }

    fn write(&mut self, text: &str) -> Result<()> {
        self.file.write_all(text.as_bytes()).with_context(|| format!("cannot write to {}", self.path.display()))?;
        self.lines += u64::try_from(text.lines().count())?;
        Ok(())
    }

    /// A whole run at once, as fast as the file takes it.
    pub fn write_run(&mut self) -> Result<()> {
        for event in self.next_run() {
            self.write(&event)?;
        }
        Ok(())
    }

    /// As logrotate does without copytruncate: the name moves on, and the writer goes on in the old file until it is
    /// told to open the new one.
    pub fn rotate(&mut self) -> Result<()> {
        let mut renamed = self.path.clone().into_os_string();
        renamed.push(".1");
        std::fs::rename(&self.path, &renamed).with_context(|| format!("cannot rename {}", self.path.display()))?;
        self.write_run()?;
        self.file = append(&self.path)?;
        Ok(())
    }
}

fn append(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("cannot open {}", path.display()))
}

pub struct Agent {
    log: Arc<Mutex<AgentLog>>,
    task: Option<JoinHandle<Result<()>>>,
}

impl Agent {
    /// The file is there from now on, and empty: lines come with `start`.
    pub fn new(path: &Path) -> Result<Self> {
        Ok(Self { log: Arc::new(Mutex::new(AgentLog::open(path)?)), task: None })
    }

    pub fn start(&mut self) {
        self.task = Some(tokio::spawn(write_on(Arc::clone(&self.log))));
    }

    /// Whoever holds the log is the only one to write to it.
    pub async fn pause(&self) -> OwnedMutexGuard<AgentLog> {
        Arc::clone(&self.log).lock_owned().await
    }

    pub fn stop(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn write_on(log: Arc<Mutex<AgentLog>>) -> Result<()> {
    loop {
        let run = log.lock().await.next_run();
        for event in run {
            log.lock().await.write(&event)?;
            tokio::time::sleep(LINE_INTERVAL).await;
        }
    }
}
