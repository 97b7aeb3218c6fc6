//! The front door, as its clients and the API behind it see it: real sockets on both sides.

mod admission;
mod api;
mod jwt;
mod limits;
mod proxy;
mod smuggling;
mod streams;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::front::api::Api;
use crate::sidecar::{Setup, Sidecar, free_port};

/// Keys of the tests, by what they permit.
const READ: &str = "key-that-may-only-look-0";
const RUNS: &str = "key-that-may-start-runs-0";
const ADMIN: &str = "key-that-may-do-everything";

/// A front door with an API behind it.
struct Front {
    sidecar: Sidecar,
    address: String,
    api: Api,
}

impl Front {
    /// Opens one; `more` is added to the section.
    fn open(more: &str) -> Self {
        let api = Api::start();
        let upstream = format!("http://{}", api.address);
        Self::before(api, &upstream, more)
    }

    fn before(api: Api, upstream: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let mut keys = String::new();
        for (name, key, scopes) in [("reader", READ, "read"), ("runner", RUNS, "read, runs"), ("admin", ADMIN, "admin")] {
            let file = folder.path().join(name);
            std::fs::write(&file, key).unwrap();
            keys.push_str(&format!("      - {{ name: {name}, file: {}, scopes: [{scopes}] }}\n", file.display()));
        }
        let routes = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/profiles/decisionbox.yaml")).unwrap();
        let routes = routes.split_once("\n  routes:\n").unwrap().1.split_once("\n\n").unwrap().0;
        let config = format!(
            "state_dir: \"${{BELLWETHER_STATE_DIR}}\"\nfront:\n  listen: {address}\n  upstream: {upstream}\n  auth:\n    keys:\n{keys}{more}  routes:\n{routes}\n"
        );
        let sidecar = Setup::default().config(&config).folder(folder).start();
        Self { sidecar, address, api }
    }

    /// Asks with a key; status, head and body of the answer.
    #[track_caller]
    fn ask(&self, method: &str, path: &str, key: &str, headers: &str, body: &str) -> (u16, String, String) {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let key = if key.is_empty() { String::new() } else { format!("Authorization: Bearer {key}\r\n") };
        raw(&self.address, &format!("{method} {path} HTTP/1.1\r\nHost: front\r\nConnection: close\r\n{key}{length}{headers}\r\n{body}"))
    }

    #[track_caller]
    fn status(&self, method: &str, path: &str, key: &str) -> u16 {
        self.ask(method, path, key, "", "").0
    }

    /// The value of a counter of refusals.
    fn refused(&self, reason: &str) -> f64 {
        self.sidecar.value(&format!("bellwether_front_rejections_total{{reason=\"{reason}\"}}")).unwrap()
    }
}

/// Sends what it is told to, and reads until the other side ends the connection.
#[track_caller]
fn raw(address: &str, request: &str) -> (u16, String, String) {
    let answer = raw_bytes(address, request.as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, head.to_ascii_lowercase(), body.to_owned())
}

#[track_caller]
fn raw_bytes(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // The other side may have refused before all was sent.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}
