//! The listeners themselves: TLS with certificates that are replaced, and clients that connect and ask nothing.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Child;

use crate::raw_http::request;
use crate::sidecar::{Setup, command, eventually, free_port};
use crate::tls::{Authority, Identity};

const TOKEN: &str = "correct horse battery staple";

/// A sidecar whose listeners both speak TLS.
struct Secured {
    child: Child,
    read_only: u16,
    control: u16,
    folder: tempfile::TempDir,
}

impl Secured {
    fn start(identity: &Identity) -> Self {
        let folder = tempfile::tempdir().unwrap();
        identity.write(folder.path());
        std::fs::write(folder.path().join("token"), TOKEN).unwrap();
        let (read_only, control) = (free_port(), free_port());
        std::fs::write(folder.path().join("bellwether.yaml"), config(folder.path(), read_only, control)).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = command()
            .args(["run", "--config"])
            .arg(folder.path().join("bellwether.yaml"))
            .env("BELLWETHER_STATE_DIR", folder.path().join("state"))
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, read_only, control, folder }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(folder: &Path, read_only: u16, control: u16) -> String {
    let tls = format!("{{ cert_file: {0}/server.pem, key_file: {0}/server.key }}", folder.display());
    format!(
        "listen: 127.0.0.1:{read_only}\ntls: {tls}\nadmin: {{ listen: \"127.0.0.1:{control}\", token_file: {}/token, tls: {tls} }}\nstate_dir: {}/state\n",
        folder.display(),
        folder.display()
    )
}

/// The status and the body, for a client that trusts one authority alone; `None` when it does not trust the server.
async fn ask(authority: &Authority, port: u16, path: &str) -> Option<(u16, String)> {
    let certificate = reqwest::Certificate::from_pem(&std::fs::read(authority.file()).unwrap()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([certificate]).build().unwrap();
    let answer = client.get(format!("https://localhost:{port}{path}")).bearer_auth(TOKEN).send().await.ok()?;
    Some((answer.status().as_u16(), answer.text().await.ok()?))
}

async fn wait_for(authority: &Authority, port: u16, path: &str, holds: impl Fn(&str) -> bool) {
    for _ in 0..600 {
        if ask(authority, port, path).await.is_some_and(|(_, body)| holds(&body)) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{path}: {:?}", ask(authority, port, path).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_listeners_speak_tls_and_show_a_new_certificate_without_a_restart() {
    let (old, new) = (Authority::new(), Authority::new());
    let sidecar = Secured::start(&old.issue("localhost", -10, 90));
    wait_for(&old, sidecar.read_only, "/livez", |body| body == "ok").await;
    assert_eq!(ask(&old, sidecar.control, "/maintenance").await.unwrap().0, 200);
    assert!(ask(&new, sidecar.read_only, "/livez").await.is_none(), "nobody else vouches for it");

    // Plain HTTP is not answered, and does no harm.
    let mut plain = TcpStream::connect(("127.0.0.1", sidecar.control)).unwrap();
    plain.write_all(b"GET /maintenance HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");

    // A broken file changes nothing and is told.
    let success = "bellwether_listener_tls_reload_success{listener=\"control\"} ";
    std::fs::write(sidecar.folder.path().join("server.pem"), "nothing").unwrap();
    wait_for(&old, sidecar.read_only, "/metrics", |body| body.contains(&format!("{success}0"))).await;
    eventually("it is told", || sidecar.log(), |log| log.contains("a changed certificate cannot be used; the one before is still shown"));

    new.issue("localhost", -1, 30).write(sidecar.folder.path());
    for port in [sidecar.read_only, sidecar.control] {
        wait_for(&new, port, "/maintenance", |_| true).await;
    }
    wait_for(&new, sidecar.read_only, "/metrics", |body| body.contains(&format!("{success}1"))).await;
    let end = crate::tls::day(30).as_second().to_string();
    wait_for(&new, sidecar.read_only, "/metrics", |body| {
        body.lines().any(|line| {
            line.starts_with("bellwether_listener_tls_cert_expiry_timestamp_seconds{listener=\"read_only\"}") && line.ends_with(&end)
        })
    })
    .await;

    let own = command().args(["probe", "--self", "--config"]).arg(sidecar.folder.path().join("bellwether.yaml")).output().unwrap();
    assert_eq!(own.status.code(), Some(0), "{own:?}");
}

#[test]
fn a_certificate_that_cannot_be_used_is_refused_at_the_start() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (one, other) = (authority.issue("localhost", -1, 1), authority.issue("localhost", -1, 1));
    std::fs::write(folder.path().join("token"), TOKEN).unwrap();
    let file = folder.path().join("bellwether.yaml");
    std::fs::write(&file, config(folder.path(), 9600, 9601)).unwrap();
    let check = |words: &str| {
        let output = command().args(["check", "--config"]).arg(&file).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{stderr}");
        for place in [":2:6: tls: ", "admin.tls: "] {
            assert!(stderr.lines().any(|line| line.contains(place) && line.contains(words)), "{stderr}");
        }
    };
    check("cannot read a certificate from");
    one.write(folder.path());
    std::fs::write(folder.path().join("server.key"), &other.key_pem).unwrap();
    check("cannot be used together");
    std::fs::write(folder.path().join("server.key"), &other.certificate_pem).unwrap();
    check("cannot read a private key from");
    std::fs::write(folder.path().join("server.pem"), &other.key_pem).unwrap();
    check("there is no certificate in");
}

/// H13: as many as may be open at once, and one more: the one that has asked nothing for the longest time must go.
#[test]
fn h13_those_who_ask_nothing_push_out_each_other_and_nobody_else() {
    let sidecar = Setup::default().config("state_dir: \"${BELLWETHER_STATE_DIR}\"\n").start();
    let series = |name: &str| sidecar.value(&format!("{name}{{listener=\"read_only\"}}")).unwrap();
    // Metrics are answered once what was there at the start has been read.
    eventually("metrics are there", || sidecar.value("bellwether_http_connections{listener=\"read_only\"}"), Option::is_some);
    let before = series("bellwether_http_connections_evicted_total");
    let mut silent: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = TcpStream::connect(&sidecar.address).unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost").unwrap();
            stream
        })
        .collect();
    assert_eq!(request(&sidecar.address, "GET", "/livez", None, ""), (200, "ok".to_owned()));
    let evicted = eventually("some had to go", || series("bellwether_http_connections_evicted_total") - before, |evicted| *evicted >= 45.0);
    assert!(evicted < 60.0, "300 and a few that asked, of which 256 may stay: {evicted}");
    let mut is_closed = |number: usize| {
        silent[number].set_nonblocking(true).unwrap();
        match silent[number].read(&mut [0; 512]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    };
    assert!(is_closed(0), "the oldest");
    assert!(series("bellwether_http_connections") <= 256.0);
}
