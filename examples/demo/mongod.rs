//! A real mongod with a data folder of its own, which can be frozen and thawed like one on a stalled disk.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::process::{free_port, last_lines, signal, terminate};
use crate::wait::until;

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);

pub struct Mongod {
    child: Child,
    port: u16,
}

impl Mongod {
    /// Another process may take the port between its choice and its use, so one failed start is not the end.
    pub async fn start(program: &OsStr, folder: &Path) -> Result<Self> {
        match Self::start_once(program, folder).await {
            Ok(mongod) => Ok(mongod),
            Err(_) => Self::start_once(program, folder).await,
        }
    }

    async fn start_once(program: &OsStr, folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let data = folder.join("mongod");
        std::fs::create_dir_all(&data).with_context(|| format!("cannot create {}", data.display()))?;
        let log = folder.join("mongod.log");
        // A process group of its own: Ctrl-C in the terminal must reach the demo alone, which then stops all in order.
        let child = Command::new(program)
            .arg("--dbpath")
            .arg(&data)
            .arg("--logpath")
            .arg(&log)
            .args(["--port", &port.to_string()])
            .args(["--bind_ip", "127.0.0.1", "--nounixsocket"])
            .args(["--wiredTigerCacheSizeGB", "0.25"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}; set BELLWETHER_MONGOD to a mongod", program.display()))?;
        let mut mongod = Self { child, port };
        mongod.accept(&log).await?;
        Ok(mongod)
    }

    async fn accept(&mut self, log: &Path) -> Result<()> {
        let port = self.port;
        let child = &mut self.child;
        let opened = until(START_LIMIT, async || {
            if let Ok(Some(status)) = child.try_wait() {
                return Ok(Err(status));
            }
            match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                Ok(_) => Ok(Ok(())),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
        match opened {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => bail!("mongod ended with {status} at its start:\n{}", last_lines(log, 5)),
            Err(seen) => bail!("mongod accepts no connection: {seen}"),
        }
    }

    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}", self.port)
    }

    /// The kernel still accepts connections for it, and nothing ever answers: the worst kind of outage.
    pub fn freeze(&self) -> Result<()> {
        signal(&self.child, Signal::STOP).context("cannot freeze mongod")
    }

    pub fn thaw(&self) -> Result<()> {
        signal(&self.child, Signal::CONT).context("cannot thaw mongod")
    }

    pub async fn stop(mut self) -> Result<()> {
        // A frozen process does not see SIGTERM.
        self.thaw()?;
        terminate(&mut self.child, "mongod", STOP_LIMIT).await?;
        Ok(())
    }
}
