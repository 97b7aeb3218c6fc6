//! A real Redis for a test: on a free loopback port, gone at the end of the test.
//!
//! Found by `BELLWETHER_REDIS` or on PATH. Where there is none the test fails: it never passes by skipping.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::sidecar::{eventually, free_port};
use crate::tls::Identity;

const PASSWORD: &str = "hunter2";

/// A running server with a password.
pub struct Redis {
    child: Option<Child>,
    folder: TempDir,
    pub port: u16,
    pub tls_port: Option<u16>,
}

// === impl Redis ===

impl Redis {
    /// A server without TLS.
    pub fn start() -> Self {
        Self::start_as(None)
    }

    /// A server with TLS beside.
    pub fn start_with_tls(identity: &Identity) -> Self {
        Self::start_as(Some(identity))
    }

    #[track_caller]
    fn start_as(identity: Option<&Identity>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if let Some(identity) = identity {
            identity.write(folder.path());
        }
        let mut server = Self { child: None, folder, port: free_port(), tls_port: identity.map(|_| free_port()) };
        server.restart();
        server
    }

    /// Starts it, also after a kill.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill();
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let mut command = Command::new(executable());
        command
            .current_dir(self.folder.path())
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--requirepass", PASSWORD])
            .stdin(Stdio::null())
            .stdout(log);
        if let Some(port) = self.tls_port {
            command
                .args(["--tls-port", &port.to_string(), "--tls-cert-file", "server.pem", "--tls-key-file", "server.key"])
                .args(["--tls-auth-clients", "no"]);
        }
        self.child = Some(command.spawn().expect("redis-server starts"));
        eventually("Redis answers", || self.try_ask(&["PING"]).is_some(), |answers| *answers);
    }

    /// Where it writes its snapshots.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// The address, with the password.
    pub fn url(&self) -> String {
        format!("redis://:{PASSWORD}@127.0.0.1:{}/0", self.port)
    }

    /// Asks by a connection of its own.
    #[track_caller]
    pub fn ask(&self, words: &[&str]) -> redis::Value {
        self.try_ask(words).expect("an answer of Redis")
    }

    fn try_ask(&self, words: &[&str]) -> Option<redis::Value> {
        let (url, words): (String, Vec<String>) = (self.url(), words.iter().map(|word| (*word).to_owned()).collect());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let client = redis::Client::open(url).unwrap();
                let mut connection = client.get_multiplexed_async_connection().await.ok()?;
                let mut command = redis::cmd(&words[0]);
                words[1..].iter().for_each(|word| {
                    command.arg(word);
                });
                command.query_async(&mut connection).await.ok()
            })
        })
        .join()
        .unwrap()
    }

    /// A number of its `INFO`.
    #[track_caller]
    pub fn info(&self, name: &str) -> u64 {
        let text: String = redis::from_redis_value(self.ask(&["INFO"])).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned));
        line.unwrap_or_else(|| panic!("{name} is not in INFO")).trim().parse().unwrap()
    }

    /// Stops it in the middle of whatever it does.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It has ended already where these fail.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.as_ref().unwrap().id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn executable() -> PathBuf {
    if let Some(path) = std::env::var_os("BELLWETHER_REDIS") {
        return path.into();
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join("redis-server")).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("there is no redis-server: run scripts/tools.sh, or set BELLWETHER_REDIS to the path of one"))
}
