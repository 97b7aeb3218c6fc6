//! The binary under test: started with an environment of its own, asked over its sockets, stopped by signals.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Ends a wait that would last for ever; nothing is judged by it.
const WAIT_LIMIT: Duration = Duration::from_secs(120);

/// A sidecar that runs.
pub struct Sidecar {
    child: Child,
    /// Where it answers.
    pub address: String,
    /// Its folder; removed with it.
    pub folder: TempDir,
}

/// What is asked of a sidecar before it starts.
#[derive(Default)]
pub struct Setup {
    config: String,
    variables: Vec<(String, String)>,
    folder: Option<TempDir>,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub body: String,
}

/// A port that nobody listens on at this moment.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The command line of the binary, with no environment but what a test gives.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellwether"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// The exposition of whoever listens there, if somebody does.
pub fn scrape(listen: &str) -> Option<String> {
    let url = format!("http://{listen}/metrics");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        client.get(url).send().await.ok()?.text().await.ok()
    })
}

/// Asks until `holds`, and says what was seen last when it never does.
#[track_caller]
pub fn eventually<T: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> T, holds: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + WAIT_LIMIT;
    loop {
        let seen = look();
        if holds(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited for {what}; last seen: {seen:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

// === impl Setup ===

impl Setup {
    /// A configuration file.
    pub fn config(mut self, text: &str) -> Self {
        self.config = text.to_owned();
        self
    }

    /// A variable of its environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Goes on in the folder of an earlier one.
    pub fn folder(mut self, folder: TempDir) -> Self {
        self.folder = Some(folder);
        self
    }

    /// Starts it, and waits until it answers at all.
    #[track_caller]
    pub fn start(self) -> Sidecar {
        let folder = self.folder.unwrap_or_else(|| tempfile::tempdir().unwrap());
        let file = folder.path().join("bellwether.yaml");
        std::fs::File::create(&file).unwrap().write_all(self.config.as_bytes()).unwrap();
        let log = std::fs::File::options().create(true).append(true).open(folder.path().join("log")).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let child = command()
            .args(["run", "--config"])
            .arg(&file)
            .args(["--listen", &address])
            .env("BELLWETHER_STATE_DIR", folder.path().join("state"))
            .envs(self.variables)
            .stderr(log)
            .spawn()
            .unwrap();
        let mut sidecar = Sidecar { child, address, folder };
        let deadline = Instant::now() + WAIT_LIMIT;
        while sidecar.try_get("/livez", None).is_none() {
            let ended = sidecar.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "it does not answer ({ended:?}):\n{}", sidecar.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        sidecar
    }
}

// === impl Sidecar ===

impl Sidecar {
    /// Asks; fails the test when there is no answer.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.get_as(path, "*/*")
    }

    /// Asks for a format.
    #[track_caller]
    pub fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.try_get(path, Some(accept)).unwrap_or_else(|| panic!("no answer from {path}:\n{}", self.log()))
    }

    /// The value of a series, by its full name with labels as they stand in the exposition.
    #[track_caller]
    pub fn value(&self, series: &str) -> Option<f64> {
        let metrics = self.get("/metrics").body;
        let line = metrics.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Waits until a path answers with a status.
    #[track_caller]
    pub fn wait_for(&self, path: &str, status: u16) -> Answer {
        eventually(&format!("{path} {status}"), || self.get(path), |answer| answer.status == status)
    }

    /// How many sockets it holds, as the system knows it.
    #[track_caller]
    pub fn sockets(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        let links = std::fs::read_dir(folder).unwrap().filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it until a `SIGCONT`. The signal alone is not enough: on a busy machine threads run on for a while.
    #[track_caller]
    pub fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
        let tasks = PathBuf::from(format!("/proc/{}/task", self.pid()));
        let running = || {
            let states = std::fs::read_dir(&tasks).unwrap().map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")));
            // The name of a thread stands in brackets and may hold anything.
            states.filter(|stat| stat.as_ref().is_ok_and(|stat| !stat.rsplit(") ").next().unwrap().starts_with('T'))).count()
        };
        eventually("all threads stand still", running, |running| *running == 0);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Ends it in order and returns its folder.
    #[track_caller]
    pub fn stop(mut self) -> (ExitStatus, TempDir) {
        self.signal(rustix::process::Signal::TERM);
        let status = self.child.wait().unwrap();
        (status, std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap()))
    }

    /// Waits until it has ended by itself; its exit code and its log.
    #[track_caller]
    pub fn wait(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + WAIT_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, self.log());
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it at once and returns its folder.
    pub fn kill(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Where its state lies.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn try_get(&self, path: &str, accept: Option<&str>) -> Option<Answer> {
        let url = format!("http://{}{path}", self.address);
        let accept = accept.unwrap_or("*/*").to_owned();
        // A thread of its own, so that tests with and without a runtime can ask.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(Duration::from_secs(5)).build().unwrap();
                let response = client.get(url).header("accept", accept).send().await.ok()?;
                let status = response.status().as_u16();
                let content_type = response.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
                Some(Answer { status, content_type: content_type.unwrap_or_default(), body: response.text().await.ok()? })
            })
        })
        .join()
        .unwrap()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
