//! `file`, `host`, `dns` and `tcp`: what needs no server of its own.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::{expect, expect_saying, watch};
use crate::sidecar::free_port;

#[test]
fn a_heartbeat_file_grows_old_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("heartbeat");
    let beat = |age: u64| {
        let file = std::fs::File::create(&path).unwrap();
        file.set_modified(SystemTime::from(Timestamp::now()) - Duration::from_secs(age)).unwrap();
    };
    beat(0);
    let sidecar = watch(
        "",
        &format!(
            "    worker: {{ type: file, path: \"{0}\", max_age: 2m }}\n    there: {{ type: file, path: \"{0}\" }}\n    absent: {{ type: file, path: \"{0}.not\" }}",
            path.display()
        ),
    );
    expect_saying(&sidecar, "worker", "up", None, "ago");
    expect_saying(&sidecar, "absent", "down", Some("missing"), "the file is not there");
    beat(1000);
    expect_saying(&sidecar, "worker", "down", Some("too_old"), "written 16m");
    expect(&sidecar, "there", "up", None);
    beat(0);
    expect(&sidecar, "worker", "up", None);
    std::fs::remove_file(&path).unwrap();
    expect(&sidecar, "worker", "down", Some("missing"));
    // A path is nobody's business.
    assert!(!sidecar.get("/health").body.contains("heartbeat"));
}

#[test]
fn limits_warn_and_fail() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("memory.max", "1000000"), ("memory.current", "900000"), ("memory.stat", "inactive_file 0\n")] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let group = folder.path().display();
    let sidecar = watch(
        "",
        &format!(
            r#"
    fine: {{ type: host, memory: {{ warn: 100% }}, disk: {{ path: /, fail: 100% }} }}
    near: {{ type: host, cgroup: "{group}", memory: {{ warn: 80%, fail: 95% }} }}
    beyond: {{ type: host, cgroup: "{group}", memory: {{ warn: 50%, fail: 85% }} }}
    unknown: {{ type: host, disk: {{ path: /does/not/exist, warn: 50% }} }}
    cpu: {{ type: host, cpu: {{ fail: 100% }}, memory: {{ fail: 100% }} }}"#
        ),
    );
    expect_saying(&sidecar, "fine", "up", None, "memory ");
    expect_saying(&sidecar, "near", "degraded", None, "memory 90 % (warns at 80 %)");
    assert_eq!(sidecar.get("/readyz/near").status, 200, "a warning is ready");
    expect_saying(&sidecar, "beyond", "down", Some("limit"), "memory 90 % (fails at 85 %)");
    expect_saying(&sidecar, "unknown", "down", Some("missing"), "does not tell the use of disk");
    std::fs::write(folder.path().join("memory.current"), "100000").unwrap();
    expect(&sidecar, "near", "up", None);
    expect(&sidecar, "beyond", "up", None);
}

#[test]
fn names_resolve_and_ports_answer() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (open, closed) = (listener.local_addr().unwrap().port(), free_port());
    let sidecar = watch(
        "",
        &format!(
            r#"
    known: {{ type: dns, name: localhost }}
    few: {{ type: dns, name: localhost, min_addresses: 9 }}
    nowhere: {{ type: dns, name: does-not-exist.invalid }}
    open: {{ type: tcp, address: "localhost:{open}" }}
    closed: {{ type: tcp, address: "localhost:{closed}" }}
    lost: {{ type: tcp, address: "does-not-exist.invalid:80" }}"#
        ),
    );
    expect(&sidecar, "known", "up", None);
    expect(&sidecar, "open", "up", None);
    expect_saying(&sidecar, "few", "down", Some("dns"), "at least 9 wanted");
    expect(&sidecar, "nowhere", "down", Some("dns"));
    expect(&sidecar, "closed", "down", Some("refused"));
    expect(&sidecar, "lost", "down", Some("dns"));
}
