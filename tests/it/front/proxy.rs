//! What reaches the API and what comes back, and what happens when the API is slow, gone or broken.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use serde_json::Value;

use crate::front::api::Api;
use crate::front::{ADMIN, Front, READ, RUNS, raw};
use crate::raw_http::{RESET, Server};
use crate::sidecar::{eventually, free_port};
use crate::tls::{Authority, TlsServer};

fn headers(seen: &Value) -> Vec<String> {
    seen["headers"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_request_reaches_the_api_without_its_key_and_with_its_origin() {
    let front = Front::open("");
    let sent = "X-Forwarded-For: 1.2.3.4\r\nX-Bellwether-Client: root\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-Request-Id: mine-1\r\nContent-Type: application/json\r\nOrigin: https://elsewhere\r\n";
    let (status, head, _) = front.ask("POST", "/api/v1/projects/p/discover/estimate?a=b%20c", RUNS, sent, "{\"areas\":[]}");
    assert_eq!(status, 200, "{head}");
    assert!(head.lines().any(|found| found == "x-request-id: mine-1"), "{head}");
    for gone in ["access-control", "keep-alive:"] {
        assert!(!head.contains(gone), "{gone}: {head}");
    }
    let seen = front.api.last();
    assert_eq!((seen["method"].as_str(), seen["uri"].as_str()), (Some("POST"), Some("/api/v1/projects/p/discover/estimate?a=b%20c")));
    assert_eq!(seen["body"], 12);
    let found = headers(&seen);
    for line in [
        &format!("host: {}", front.api.address),
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: front",
        "x-bellwether-client: runner",
        "content-length: 12",
        "x-request-id: mine-1",
    ] {
        assert!(found.iter().any(|header| header == line), "{line}: {found:#?}");
    }
    for gone in ["authorization:", "x-hop:", "connection:", "1.2.3.4", "root"] {
        assert!(!found.iter().any(|header| header.contains(gone)), "{gone}: {found:#?}");
    }
}

#[test]
fn each_key_may_do_what_its_scopes_permit() {
    let front = Front::open("");
    let run = "/api/v1/runs/r";
    for (method, path, expected) in [
        // Nobody, the reader, the runner, the admin, and a key that nobody holds.
        ("GET", "/health", [200, 200, 200, 200, 401]),
        ("GET", run, [401, 200, 200, 200, 401]),
        ("DELETE", run, [401, 403, 200, 200, 401]),
        ("GET", "/api/v1/projects/p/secrets", [401, 403, 403, 200, 401]),
        ("GET", "/metrics", [401, 403, 403, 200, 401]),
        ("GET", "/", [401, 403, 403, 200, 401]),
        ("PATCH", run, [401, 403, 403, 200, 401]),
        ("CONNECT", "front:80", [405, 405, 405, 405, 405]),
    ] {
        let found = ["", READ, RUNS, ADMIN, "key-that-nobody-holds"].map(|key| front.status(method, path, key));
        assert_eq!(found, expected, "{method} {path}");
    }
    let (_, head, body) = front.ask("GET", run, "", "", "");
    assert!(head.contains("www-authenticate: bearer") && body == "{\"error\":\"unauthorized\"}\n", "{head} {body}");
    assert_eq!(front.ask("DELETE", run, READ, "", "").2, "{\"error\":\"insufficient permissions\"}\n");
    let counted = front.sidecar.value("bellwether_front_requests_total{route=\"/api/v1/runs/{id}\",method=\"DELETE\",code=\"403\"}");
    assert_eq!(counted, Some(2.0));
    assert!(front.sidecar.value("bellwether_front_requests_total{route=\"other\",method=\"GET\",code=\"200\"}").is_some());
    let exposition = front.sidecar.get_as("/metrics", "application/openmetrics-text;version=1.0.0").body;
    assert!(exposition.contains("bellwether_front_request_duration_seconds_bucket") && exposition.contains("# {request_id=\""));
    assert!(!exposition.contains("/api/v1/runs/r\""), "never by path");
}

#[test]
fn a_probe_that_anybody_may_ask_does_not_name_hosts() {
    let front = Front::open("");
    let (status, _, body) = front.ask("GET", "/health/ready", "", "", "");
    assert_eq!((status, body.as_str()), (503, "{\"status\":\"degraded\"}\n"));
    assert!(front.ask("GET", "/health/ready", READ, "", "").2.contains("172.18.0.2"), "who has a key sees why");
}

#[test]
fn an_api_that_is_gone_slow_or_broken_has_its_own_answer_and_nothing_of_it_is_told() {
    let gone = format!("127.0.0.1:{}", free_port());
    let resets = Server::start(|_| RESET);
    let garbage = TcpListener::bind("127.0.0.1:0").unwrap();
    let babbles = garbage.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in garbage.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"220 mail.internal ESMTP\r\n\r\n");
        }
    });
    let slow = Api::start();
    for (upstream, path, status, reason) in [
        (gone, "r", 502, "connect"),
        (resets.address.clone(), "r", 502, "reset"),
        (babbles.to_string(), "r", 502, "protocol"),
        (slow.address.to_string(), "hang", 504, "timeout"),
    ] {
        let front = Front::before(Api::start(), &format!("http://{upstream}"), "  timeouts: { response: 1s }\n");
        let (found, head, body) = front.ask("GET", &format!("/api/v1/runs/{path}"), READ, "", "");
        assert_eq!(found, status, "{reason}: {head} {body}");
        assert!(body.starts_with("{\"error\":\"UPSTREAM_") && !body.contains("127.0.0.1") && !body.contains("mail"), "{body}");
        let errors = format!("bellwether_front_upstream_errors_total{{reason=\"{reason}\"}}");
        assert_eq!(front.sidecar.value(&errors), Some(1.0), "{reason}");
        assert!(front.sidecar.log().contains("bellwether::access"), "each failure is logged: {}", front.sidecar.log());
    }
    assert_eq!(resets.requests(), 1, "what may have arrived is not sent again");
}

#[test]
fn an_api_that_is_just_being_restarted_is_asked_again_where_that_does_no_harm() {
    let address = format!("127.0.0.1:{}", free_port());
    let front = Front::before(Api::start(), &format!("http://{address}"), "");
    let late = address.clone();
    let starts = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        Api::start_at(&late)
    });
    let found = front.status("GET", "/api/v1/runs/r", READ);
    let api = starts.join().unwrap();
    assert_eq!((found, api.seen().len()), (200, 1));
    assert_eq!(front.sidecar.value("bellwether_front_upstream_retries_total"), Some(1.0));
}

#[test]
fn connections_to_the_api_are_kept_and_one_that_has_ended_is_not_used() {
    let front = Front::open("");
    for _ in 0..20 {
        assert_eq!(front.status("GET", "/api/v1/runs/r", READ), 200);
        assert_eq!(front.status("POST", "/api/v1/projects/p/reindex", RUNS), 200);
    }
    assert_eq!(front.sidecar.value("bellwether_front_upstream_connections"), Some(1.0));

    // A server that answers each connection once and then closes it, without having said so. What is sent before its end has
    // arrived may have been carried out, and would rightly be a 502: the next request waits for that end.
    let closes = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closes.local_addr().unwrap();
    let (closed, ended) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in closes.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            drop(stream);
            if closed.send(()).is_err() {
                return;
            }
        }
    });
    let front = Front::before(Api::start(), &format!("http://{address}"), "");
    for _ in 0..20 {
        assert_eq!(front.status("POST", "/api/v1/projects/p/reindex", RUNS), 200);
        ended.recv().unwrap();
    }
}

#[test]
fn what_is_being_answered_is_answered_although_the_process_ends() {
    let front = Front::open("");
    let address = front.address.clone();
    let asks =
        std::thread::spawn(move || raw(&address, &format!("GET /api/v1/runs/slow HTTP/1.1\r\nHost: x\r\nX-API-Key: {READ}\r\n\r\n")));
    eventually("the API has been asked", || front.api.seen().len(), |count| *count == 1);
    front.sidecar.signal(Signal::TERM);
    let (status, _, body) = asks.join().unwrap();
    assert!(status == 200 && body.contains("/api/v1/runs/slow"), "{status} {body}");
    let Front { sidecar, .. } = front;
    // A second signal would end it at once, without the rest of its drain.
    let (status, log) = sidecar.wait();
    assert!(status.success(), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_spoken_with_those_who_begin_with_it() {
    let front = Front::open("");
    let stream = tokio::net::TcpStream::connect(&front.address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with its connection")]
    tokio::spawn(connection);
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..50 {
        let mut sender = sender.clone();
        asked.spawn(async move {
            let request = hyper::Request::get(format!("http://front:8088/api/v1/runs/{number}"))
                .header("x-api-key", READ)
                .header("cookie", "a=1")
                .header("cookie", "b=2")
                .body(axum::body::Body::empty())
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!((response.status().as_u16(), response.version()), (200, hyper::Version::HTTP_2));
            let body = axum::body::to_bytes(axum::body::Body::new(response.into_body()), 65536).await.unwrap();
            String::from_utf8(body.to_vec()).unwrap()
        });
    }
    for body in asked.join_all().await {
        assert!(body.contains("cookie: a=1; b=2") && body.contains("x-forwarded-host: front:8088"), "{body}");
    }
}

#[test]
fn an_api_behind_tls_is_asked_where_its_certificate_is_good() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = TlsServer::start(authority.issue("localhost", -1, 10));
    for (authority, status) in [(authority, 200), (other, 502)] {
        let more = format!("  ca_file: {}\n", authority.file().display());
        let front = Front::before(Api::start(), &format!("https://localhost:{}", server.address.port()), &more);
        let (found, _, body) = front.ask("GET", "/api/v1/runs/r", READ, "", "");
        assert_eq!(found, status, "{body}");
        let failed = front.sidecar.value("bellwether_front_upstream_errors_total{reason=\"tls\"}");
        assert_eq!(failed, Some(if status == 200 { 0.0 } else { 1.0 }));
    }
}

#[test]
fn a_client_that_goes_away_ends_its_request_at_the_api() {
    let front = Front::open("");
    let mut stream = TcpStream::connect(&front.address).unwrap();
    write!(stream, "GET /api/v1/runs/hang HTTP/1.1\r\nHost: x\r\nX-API-Key: {READ}\r\n\r\n").unwrap();
    eventually("the API has been asked", || front.api.seen().len(), |count| *count == 1);
    let open = || front.sidecar.value("bellwether_front_upstream_connections");
    assert_eq!(open(), Some(1.0));
    drop(stream);
    eventually("the connection is closed", open, |open| *open == Some(0.0));
    let code = "bellwether_front_requests_total{route=\"/api/v1/runs/{id}\",method=\"GET\",code=\"499\"}";
    assert_eq!(front.sidecar.value(code), Some(1.0));
    assert_eq!(front.sidecar.value("bellwether_front_requests_in_flight"), Some(0.0));
}
