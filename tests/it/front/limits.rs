//! What the front door does not take: too much, too often, too slowly, from pages of others.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::front::{ADMIN, Front, READ, RUNS, raw};
use crate::sidecar::eventually;

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn a_body_has_a_length_a_type_and_a_time() {
    let front = Front::open("  limits: { body: 1KiB }\n  timeouts: { body: 500ms }\n");
    let path = "/api/v1/projects/p/reindex";
    let ask = |headers: &str, body: &str| front.ask("POST", path, RUNS, headers, body);
    assert_eq!(ask(JSON, &"x".repeat(1024)).0, 200);
    assert_eq!(ask("", "").0, 200, "no body needs no type");
    let (status, _, body) = ask(JSON, &"x".repeat(1025));
    assert_eq!((status, body.contains("PAYLOAD_TOO_LARGE")), (413, true), "{body}");
    let piece = format!("200\r\n{}\r\n", "x".repeat(512));
    let chunked = |pieces: usize, end: &str| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-API-Key: {RUNS}\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n"
        );
        raw(&front.address, &format!("{head}{}{end}", piece.repeat(pieces)))
    };
    assert_eq!(chunked(2, "0\r\n\r\n").0, 200);
    assert_eq!(chunked(3, "0\r\n\r\n").0, 413, "nobody has said how long it would be");
    assert_eq!(chunked(1, "").0, 408, "the rest does not come");
    assert_eq!(chunked(1, "zz\r\n").0, 400, "the rest is none");
    for wrong in
        ["", "Content-Type: text/plain\r\n", "Content-Type: application/jsonx\r\n", "Content-Type: multipart/form-data; boundary=x\r\n"]
    {
        assert_eq!(ask(wrong, "{}").0, 415, "{wrong}");
    }
    assert_eq!(ask("Content-Type: Application/JSON; charset=utf-8\r\n", "{}").0, 200);
    for (reason, count) in [("too_large", 2.0), ("too_slow", 1.0), ("media_type", 4.0), ("broken_body", 1.0)] {
        assert_eq!(front.refused(reason), count, "{reason}");
    }
}

#[test]
fn who_asks_too_often_is_told_when_to_come_back() {
    let front = Front::open("  limits: { rate_per_client: 2 }\n");
    let asked: Vec<(u16, String, String)> = (0..8).map(|_| front.ask("GET", "/api/v1/runs/r", READ, "", "")).collect();
    let answered = asked.iter().filter(|(status, ..)| *status == 200).count();
    assert!((4..8).contains(&answered), "four at once and then two a second: {asked:#?}");
    let (_, head, body) = asked.iter().find(|(status, ..)| *status == 429).expect("one too many");
    assert!(head.contains("retry-after: 1"), "{head}");
    assert_eq!(body, "{\"error\":\"RATE_LIMITED\",\"message\":\"too many requests; try again later\",\"retryAfter\":1}\n");
    assert_eq!(front.status("GET", "/api/v1/runs/r", ADMIN), 200, "another has a rate of its own");
    let guesses = (0..8).filter(|number| front.status("GET", "/", &format!("guess-number-{number}-of-many")) == 429).count();
    assert!(guesses > 0, "who guesses keys is counted by address");
}

#[test]
fn what_is_answered_at_the_same_time_is_bounded() {
    let front = Front::open("  limits: { requests_per_client: 2, requests: 3 }\n");
    let hang = |key: &str| {
        let mut stream = TcpStream::connect(&front.address).unwrap();
        write!(stream, "GET /api/v1/runs/hang HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n").unwrap();
        stream
    };
    let mut open = vec![hang(READ), hang(READ)];
    let seen = |count| eventually("the API has been asked", || front.api.seen().len(), |seen| *seen == count);
    seen(2);
    assert_eq!(front.status("GET", "/api/v1/runs/r", READ), 429);
    open.push(hang(RUNS));
    seen(3);
    let (status, head, body) = front.ask("GET", "/api/v1/runs/r", RUNS, "", "");
    assert_eq!((status, head.contains("retry-after: 1"), body.contains("OVERLOADED")), (503, true, true));
    open.clear();
    eventually("there is room again", || front.status("GET", "/api/v1/runs/r", READ), |status| *status == 200);
}

#[test]
fn heads_and_paths_have_a_length() {
    let front = Front::open("  limits: { uri: 1KiB, head: 8KiB }\n");
    let ask = |path: &str, headers: &str| front.ask("GET", path, READ, headers, "").0;
    assert_eq!(ask(&format!("/api/v1/runs/r?{}", "x".repeat(900)), ""), 200);
    assert_eq!(ask(&format!("/api/v1/runs/r?{}", "x".repeat(1100)), ""), 414);
    assert_eq!(ask("/api/v1/runs/r", &format!("X-Long: {}\r\n", "x".repeat(9000))), 431);
    assert_eq!(ask("/api/v1/runs/r", &"X-Many: x\r\n".repeat(101)), 431);
}

#[test]
fn a_client_that_is_too_slow_is_given_up() {
    let front = Front::open("  timeouts: { head: 300ms, idle: 2s }\n");
    let gone = |bytes: &str| {
        let mut stream = TcpStream::connect(&front.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map(|_| answer.len()).expect("it is closed")
    };
    assert_eq!(gone(""), 0, "asks nothing");
    assert_eq!(gone("GET / HTTP/1.1\r\nHost"), 0, "does not end its head");
    // A server of HTTP/2 says first what it can, in 33 bytes.
    assert!(gone("PRI * HTTP/2.0\r\n") <= 64, "does not end its preface");
    // One that does not take its answer: more than the buffers of both sides hold.
    let mut stream = TcpStream::connect(&front.address).unwrap();
    for _ in 0..8 {
        write!(stream, "GET /api/v1/runs/large HTTP/1.1\r\nHost: x\r\nX-API-Key: {READ}\r\n\r\n").unwrap();
    }
    eventually("it is being answered", || front.api.seen().len(), |seen| *seen >= 1);
    eventually("it is given up", || front.sidecar.value("bellwether_http_connections{listener=\"front\"}"), |open| *open == Some(0.0));
}

#[test]
fn pages_of_the_named_origins_alone_may_ask() {
    let front = Front::open("  cors: { origins: [\"https://app.example.com\"] }\n");
    let preflight = |origin: &str| {
        let headers =
            format!("Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n");
        front.ask("OPTIONS", "/api/v1/runs/r", "", &headers, "")
    };
    let (status, head, _) = preflight("https://app.example.com");
    assert_eq!(status, 204, "{head}");
    for line in ["access-control-allow-origin: https://app.example.com", "access-control-max-age: 7200", "vary: origin"] {
        assert!(head.lines().any(|found| found == line), "{line}: {head}");
    }
    assert!(head.contains("access-control-allow-headers: authorization"));
    let (status, head, _) = preflight("https://evil.example.com");
    assert!(status == 403 && !head.contains("access-control"), "{head}");
    let (_, head, _) = front.ask("GET", "/api/v1/runs/r", READ, "Origin: https://app.example.com\r\n", "");
    assert!(head.contains("access-control-allow-origin: https://app.example.com") && !head.contains("allow-origin: *"), "{head}");
    assert!(front.api.seen().iter().all(|seen| seen["method"] != "OPTIONS"), "the API is not asked");
    assert_eq!(front.ask("OPTIONS", "/api/v1/runs/r", "", "", "").0, 401, "no page asks");
}
