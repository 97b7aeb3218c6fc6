//! A real Postgres for a test: on a free loopback port, in a folder of its own, gone at the end of the test.
//!
//! Found by `BELLWETHER_POSTGRES` (the folder of its programs), in Debian's place, or on PATH. Where there is none the
//! test fails: it never passes by skipping. Postgres refuses to run as root, so that it gets another user there.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::sidecar::{eventually, free_port};
use crate::tls::Identity;

const PASSWORD: &str = "hunter2";

/// A running server with a user `app` that has a password.
pub struct Postgres {
    child: Option<Child>,
    folder: TempDir,
    pub port: u16,
    has_tls: bool,
}

// === impl Postgres ===

impl Postgres {
    /// A server without TLS.
    pub fn start() -> Self {
        Self::start_as(None)
    }

    /// A server with TLS.
    pub fn start_with_tls(identity: &Identity) -> Self {
        Self::start_as(Some(identity))
    }

    #[track_caller]
    fn start_as(identity: Option<&Identity>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Its other user must be able to walk through.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut server = Self { child: None, folder, port: free_port(), has_tls: identity.is_some() };
        let data = server.data();
        std::fs::create_dir(&data).unwrap();
        let password = server.folder.path().join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        give_away(&data);
        let made = server
            .command("initdb")
            .args(["--username=app", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"])
            .arg(format!("--pwfile={}", password.display()))
            .arg(format!("--pgdata={}", data.display()))
            .output()
            .expect("initdb starts");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        if let Some(identity) = identity {
            identity.write(&data);
            // Postgres refuses a key that others can read.
            std::fs::set_permissions(data.join("server.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
            give_away(&data.join("server.key"));
            give_away(&data.join("server.pem"));
        }
        server.restart();
        server
    }

    /// Starts it, also after a kill.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill();
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = self.command("postgres");
        command
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=20"])
            .stdout(Stdio::null())
            .stderr(log);
        if self.has_tls {
            command.args(["-c", "ssl=on", "-c", "ssl_cert_file=server.pem", "-c", "ssl_key_file=server.key"]);
        }
        self.child = Some(command.spawn().expect("postgres starts"));
        let log = self.folder.path().join("log");
        eventually(
            "Postgres answers",
            || (self.try_ask("SELECT 1").is_some(), std::fs::read_to_string(&log).unwrap_or_default()),
            |(answers, _)| *answers,
        );
    }

    /// The connection string, with the password.
    pub fn url(&self) -> String {
        format!("postgresql://app:{PASSWORD}@127.0.0.1:{}/postgres", self.port)
    }

    /// Asks by a connection of its own; the first column of the first row.
    #[track_caller]
    pub fn ask(&self, sql: &str) -> String {
        self.try_ask(sql).expect("an answer of Postgres")
    }

    fn try_ask(&self, sql: &str) -> Option<String> {
        let (url, sql) = (format!("{}?sslmode=disable&connect_timeout=5", self.url()), sql.to_owned());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.ok()?;
                let ask = async {
                    let messages = client.simple_query(&sql).await.unwrap();
                    let value = messages.iter().find_map(|message| match message {
                        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                        _ => None,
                    });
                    value.unwrap_or_default()
                };
                tokio::select! {
                    value = ask => Some(value),
                    _ = connection => None,
                }
            })
        })
        .join()
        .unwrap()
    }

    /// Stops it and all its processes in the middle of whatever they do.
    pub fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) {
        if self.child.is_some() {
            self.signal_all(Signal::KILL);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// Each connection has a process, and each process a session of its own: they are found by their parent.
    fn signal_all(&self, signal: Signal) {
        let server = i32::try_from(self.child.as_ref().unwrap().id()).unwrap();
        let children = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent: i32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            (parent == server).then_some(pid)
        });
        // The server first, so that no process is added.
        for pid in std::iter::once(server).chain(children) {
            // One that has ended meanwhile needs no signal.
            let _ = kill_process(Pid::from_raw(pid).unwrap(), signal);
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(programs().join(program));
        command.current_dir(self.folder.path()).env("LC_ALL", "C").stdin(Stdio::null());
        if let Some((user, group)) = other_user() {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The user and group to run as; `None` where we are not root ourselves. Debian's package makes `postgres`; any other
/// user that is not root does as well.
fn other_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(find("postgres").or_else(|| find("nobody")).unwrap_or((65_534, 65_534)))
}

fn give_away(path: &Path) {
    if let Some((user, group)) = other_user() {
        chown(path, Some(user), Some(group)).unwrap();
    }
}

fn programs() -> PathBuf {
    if let Some(path) = std::env::var_os("BELLWETHER_POSTGRES") {
        return path.into();
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<PathBuf> = std::env::split_paths(&folders).chain(versions).filter(|path| path.join("initdb").is_file()).collect();
    found
        .pop()
        .unwrap_or_else(|| panic!("there is no Postgres: run scripts/tools.sh, or set BELLWETHER_POSTGRES to the folder of its programs"))
}
