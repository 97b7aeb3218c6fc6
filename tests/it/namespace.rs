//! A network of a test's own, in which the kernel itself drops and refuses packets, and where a server of the test answers
//! for names.
//!
//! The test runs again in a process of its own within new namespaces, where it is root over the loopback device and over
//! `/etc/resolv.conf`. Where the system forbids that, the test fails and says so. `BELLWETHER_NO_NAMESPACES=1` leaves such
//! tests out; test.sh says it when it does. What they show is shown through `proxy` too, as far as a process can.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Set in the process within the namespaces.
const INSIDE: &str = "BELLWETHER_INSIDE_NAMESPACE";
/// Set by those who cannot have namespaces and know it.
const WITHOUT: &str = "BELLWETHER_NO_NAMESPACES";

/// Runs the body of a test, whose full name this is, in namespaces of its own.
#[track_caller]
pub fn alone(test: &str, body: impl AsyncFnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        run("ip", &["link", "set", "lo", "up"], "");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(body());
    }
    if std::env::var_os(WITHOUT).is_some() {
        eprintln!("{test} is left out: {WITHOUT} is set");
        return;
    }
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "--fork", "--kill-child"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap_or_else(|error| panic!("cannot run unshare (Debian: apt-get install util-linux): {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{test} in namespaces of its own ({}). Where this system forbids them (`unshare -rn true` fails), set {WITHOUT}=1.\n{stdout}\n{stderr}",
        output.status
    );
}

/// Mounts a volume, which only this test sees and which is gone with it.
#[track_caller]
pub fn mount(arguments: &[&str], at: &Path) {
    let output = Command::new("mount").args(arguments).arg(at).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Takes all room that there is on a volume, with a file.
pub fn fill(volume: &Path) -> PathBuf {
    let filler = volume.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[1; 512]).is_ok() {}
    filler
}

/// What the kernel does with packets for these ports: a statement of nft, such as `drop` or `reject`, or nothing. What is
/// dropped is so both ways; a rejection is itself a packet that must come through.
#[track_caller]
pub fn packets(ports: [u16; 2], verdict: Option<&str>) {
    let ports = format!("{{ {}, {} }}", ports[0], ports[1]);
    let rules = match verdict {
        None => String::new(),
        Some("drop") => format!("tcp dport {ports} drop\ntcp sport {ports} drop"),
        Some(verdict) => format!("tcp dport {ports} {verdict}"),
    };
    let chain = "type filter hook input priority 0";
    run("nft", &["-f", "-"], &format!("flush ruleset\ntable inet test {{\nchain input {{\n{chain}\n{rules}\n}}\n}}\n"));
}

#[track_caller]
fn run(program: &str, arguments: &[&str], input: &str) {
    let child = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("cannot run {program} (scripts/tools.sh installs it): {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// How a name is answered.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// By 127.0.0.1.
    Loopback,
    /// By the same, and late.
    Late(Duration),
    /// There is no such name.
    Unknown,
    /// Not at all.
    Silence,
}

/// The server that all names are asked of.
pub struct NameServer {
    answers: Arc<Mutex<BTreeMap<&'static str, Answer>>>,
    folder: tempfile::TempDir,
}

impl NameServer {
    /// A server that answers these names, and no others.
    pub fn start<const N: usize>(answers: [(&'static str, Answer); N]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
        let server = Self { answers: Arc::new(Mutex::new(BTreeMap::from(answers))), folder: tempfile::tempdir().unwrap() };
        let file = server.folder.path().join("resolv.conf");
        std::fs::write(&file, "nameserver 127.0.0.1\n").unwrap();
        run("mount", &["--bind", file.to_str().unwrap(), "/etc/resolv.conf"], "");
        let known = Arc::clone(&server.answers);
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut query) {
                let query = query[..length].to_vec();
                let answer = known.lock().unwrap().get(name_of(&query).as_str()).copied().unwrap_or(Answer::Unknown);
                let socket = socket.try_clone().unwrap();
                std::thread::spawn(move || {
                    if let Answer::Late(delay) = answer {
                        std::thread::sleep(delay);
                    }
                    if !matches!(answer, Answer::Silence) {
                        // A client that does not wait any more is its own business.
                        let _ = socket.send_to(&reply(&query, answer), client);
                    }
                });
            }
        });
        server
    }

    /// Answers a name otherwise from now on.
    pub fn answers(&self, name: &'static str, answer: Answer) {
        self.answers.lock().unwrap().insert(name, answer);
    }
}

/// The name that is asked for: labels with their lengths, after the head of twelve bytes (RFC 1035, 4.1).
fn name_of(query: &[u8]) -> String {
    let mut labels = Vec::new();
    let mut rest = &query[12..];
    while let Some((length, after)) = rest.split_first().filter(|(length, _)| **length > 0) {
        let (label, next) = after.split_at(usize::from(*length));
        labels.push(String::from_utf8_lossy(label).into_owned());
        rest = next;
    }
    labels.join(".")
}

/// The question with its answer: an address for A, nothing for what else is asked.
fn reply(query: &[u8], answer: Answer) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let is_unknown = matches!(answer, Answer::Unknown);
    let has_address = !is_unknown && query[end - 4..end - 2] == [0, 1];
    let flags = [0x81, if is_unknown { 0x83 } else { 0x80 }];
    let mut reply = [&query[..2], &flags, &[0, 1, 0, u8::from(has_address), 0, 0, 0, 0], &query[12..end]].concat();
    if has_address {
        // The name as a pointer to the question, A, IN, a life of no time, four bytes.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
    }
    reply
}
