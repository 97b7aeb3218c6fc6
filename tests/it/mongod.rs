//! A real mongod for a test: on a free loopback port, in a folder of its own, gone at the end of the test.
//!
//! Found by `BELLWETHER_MONGOD`, on PATH, or where scripts/mongod.sh puts it. Where there is none the test fails: it
//! never passes by skipping.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bellwether::config::stores::MongoStore;
use bellwether::secret::Secret;
use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;
use mongodb::{Client, Database};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::{NamedTempFile, TempDir};

/// How long anything may take before a test fails. Generous: no test measures time with it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The name of the replica set, where there is one.
pub const SET: &str = "rs0";

/// A running mongod.
#[derive(Debug)]
pub struct Mongod {
    child: Option<Child>,
    folder: TempDir,
    port: u16,
    replica_set: bool,
    asks_for_passwords: bool,
    /// The addresses of all members of its set, where there are several.
    members: Option<String>,
    /// What the library reads that changes the wall clock of this server alone.
    clock: Option<NamedTempFile>,
}

// === impl Mongod ===

impl Mongod {
    /// A standalone server that answers.
    pub async fn start() -> Self {
        Self::start_as(false).await
    }

    /// A replica set of one member that is its primary.
    #[allow(dead_code, reason = "for tests that need change streams or transactions")]
    pub async fn start_replica_set() -> Self {
        let server = Self::start_as(true).await;
        let config = doc! { "_id": SET, "members": [{ "_id": 0, "host": server.address() }] };
        server.admin().await.run_command(doc! { "replSetInitiate": config }).await.expect("a replica set");
        let admin = server.admin().await;
        eventually("the member becomes primary", async || {
            let hello = admin.run_command(doc! { "hello": 1 }).await.ok()?;
            hello.get_bool("isWritablePrimary").ok().filter(|is_primary| *is_primary)
        })
        .await;
        server
    }

    /// A server whose wall clock [`Self::jump`] moves; a replica set of one member or standalone.
    pub async fn start_with_clock(replica_set: bool) -> Self {
        let mut server = if replica_set { Self::start_replica_set().await } else { Self::start().await };
        server.clock = Some(NamedTempFile::new().expect("a file"));
        server.jump(0);
        // A restart is a crash: what is not in the journal by then is lost.
        server.admin().await.run_command(doc! { "fsync": 1 }).await.expect("written to disk");
        server.restart().await;
        let admin = server.admin().await;
        eventually("it can be written to", async || {
            let hello = admin.run_command(doc! { "hello": 1 }).await.ok()?;
            hello.get_bool("isWritablePrimary").ok().filter(|is_primary| *is_primary)
        })
        .await;
        server
    }

    /// Sets its wall clock so many seconds ahead of the host's; its monotonic clock goes on.
    pub fn jump(&self, seconds: i64) {
        let clock = self.clock.as_ref().expect("a server with a clock of its own");
        std::fs::write(clock.path(), format!("{seconds:+}\n")).expect("written");
    }

    /// A standalone server that asks for passwords. Each user, whose password is `secret`, has these privileges.
    pub async fn start_with_users(database: &str, users: &[(&str, Vec<Document>)]) -> Self {
        let mut server = Self::start().await;
        let admin = server.admin().await;
        let create = doc! { "createUser": "root", "pwd": "secret", "roles": ["root"] };
        admin.run_command(create).await.expect("a user");
        for (user, privileges) in users {
            let role = doc! { "createRole": format!("of-{user}"), "privileges": privileges.clone(), "roles": [] };
            let database = server.database(database).await;
            database.run_command(role).await.expect("a role");
            let create = doc! { "createUser": user, "pwd": "secret", "roles": [format!("of-{user}")] };
            database.run_command(create).await.expect("a user");
        }
        // A restart is a crash: what is not in the journal by then is lost.
        admin.run_command(doc! { "fsync": 1 }).await.expect("written to disk");
        server.asks_for_passwords = true;
        server.restart().await;
        server
    }

    /// The connection string of a user of a database; `root` is of `admin`.
    pub fn uri_of(&self, user: &str, database: &str) -> String {
        format!("mongodb://{user}:secret@{}/?authSource={database}", self.address())
    }

    pub async fn start_as(replica_set: bool) -> Self {
        let mut folder = tempfile::tempdir().expect("a temporary folder");
        // The port is free when it is chosen and may be taken a moment later by another test.
        for _ in 0..5 {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = listener.local_addr().expect("an address").port();
            drop(listener);
            let path = folder.path().join(port.to_string());
            std::fs::create_dir_all(&path).expect("a folder for the data");
            let mut server = Self { child: None, folder, port, replica_set, asks_for_passwords: false, members: None, clock: None };
            server.spawn();
            if server.answers().await {
                return server;
            }
            folder = server.into_folder();
        }
        panic!("mongod did not start five times; its last log is {}", folder.path().display());
    }

    fn into_folder(mut self) -> TempDir {
        self.kill();
        std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a temporary folder"))
    }

    fn spawn(&mut self) {
        let mut command = Command::new(executable());
        let data = self.folder.path().join(self.port.to_string());
        command
            .arg("--dbpath")
            .arg(&data)
            .arg("--logpath")
            .arg(data.join("mongod.log"))
            .args(["--logappend", "--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"])
            .args(["--port", &self.port.to_string()])
            // Old documents are what tests are about: the server must not delete them in between.
            .args(["--setParameter", "ttlMonitorEnabled=false"])
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if self.asks_for_passwords {
            command.arg("--auth");
        }
        if self.replica_set {
            command.args(["--replSet", SET]);
        }
        if let Some(clock) = &self.clock {
            command
                .env("LD_PRELOAD", crate::health_faults::faketime())
                .env("FAKETIME_TIMESTAMP_FILE", clock.path())
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        self.child = Some(command.spawn().expect("mongod starts"));
    }

    /// Waits until it answers; false when it has ended.
    async fn answers(&mut self) -> bool {
        let admin = self.admin().await;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(child) = &mut self.child
                && child.try_wait().expect("the state of a child").is_some()
            {
                return false;
            }
            if admin.run_command(doc! { "ping": 1 }).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The connection string.
    pub fn uri(&self) -> String {
        let mut uri = format!("mongodb://{}/", self.members.clone().unwrap_or_else(|| self.address()));
        if self.replica_set {
            write!(uri, "?replicaSet={SET}").expect("a text");
        }
        uri
    }

    /// What the sidecar's configuration says of it.
    pub fn store(&self, database: &str) -> MongoStore {
        MongoStore { uri: Secret::new(self.uri()), database: database.to_owned() }
    }

    /// A database for the test's own use, through a client of its own.
    pub async fn database(&self, name: &str) -> Database {
        self.client(&self.uri()).await.database(name)
    }

    /// Makes its connection string one of a set with these members.
    pub fn is_one_of(&mut self, members: &str) {
        self.members = Some(members.to_owned());
    }

    /// The database `admin` of this very member.
    pub async fn admin(&self) -> Database {
        self.client(&format!("mongodb://{}/?directConnection=true", self.address())).await.database("admin")
    }

    async fn client(&self, uri: &str) -> Client {
        let mut options = ClientOptions::parse(uri).await.expect("a connection string");
        options.app_name = Some("test".to_owned());
        options.server_selection_timeout = Some(Duration::from_secs(5));
        Client::with_options(options).expect("a client")
    }

    /// Stops it in the middle of whatever it does: connections stay open and nothing is answered.
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

    /// Starts it again after a kill, on the same port and data.
    pub async fn restart(&mut self) {
        self.kill();
        self.spawn();
        assert!(self.answers().await, "mongod did not start again; its log is in {}", self.folder.path().display());
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("mongod runs");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id")).expect("a process id");
        kill_process(pid, signal).expect("a signal");
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until something is there.
///
/// # Panics
/// When it is not in time.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("waited {PATIENCE:?} in vain: {what}");
}

/// Records every operation on a database from now on in its `system.profile`.
pub async fn profile(database: &Database) {
    database.run_command(doc! { "profile": 2, "slowms": 0 }).await.expect("the profiler");
}

/// What the profiler has recorded that the sidecar did.
pub async fn profiled(database: &Database) -> Vec<Document> {
    let filter = doc! { "appName": { "$regex": "^bellwether" } };
    let mut cursor = database.collection::<Document>("system.profile").find(filter).await.expect("the profile");
    let mut found = Vec::new();
    while cursor.advance().await.expect("the profile") {
        found.push(cursor.deserialize_current().expect("a document"));
    }
    found
}

fn executable() -> PathBuf {
    if let Some(path) = std::env::var_os("BELLWETHER_MONGOD") {
        return path.into();
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join("mongod")).find(|path| path.is_file());
    found
        .or_else(fetched)
        .unwrap_or_else(|| panic!("there is no mongod: run ./test.sh, which fetches one, or set BELLWETHER_MONGOD to the path of one"))
}

/// What scripts/mongod.sh has fetched, if it has.
fn fetched() -> Option<PathBuf> {
    let cache = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/mongod");
    let folders = std::fs::read_dir(cache).ok()?;
    folders.filter_map(|folder| Some(folder.ok()?.path().join("mongod"))).find(|path| path.is_file())
}
