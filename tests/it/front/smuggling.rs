//! Requests that one server reads in one way and the next in another: none may reach the API as a second request, or get
//! around a scope.

use crate::front::{Front, READ, raw_bytes};

/// What is behind a smuggled request must never be seen there.
const SMUGGLED: &str = "GET /api/v1/projects/p/secrets HTTP/1.1\r\nHost: x\r\n\r\n";

#[track_caller]
fn check(front: &Front, what: &str, request: &[u8], expected: &[u16]) {
    let answer = raw_bytes(&front.address, request);
    let statuses: Vec<u16> =
        answer.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")).filter_map(|rest| rest.split(' ').next()?.parse().ok()).collect();
    assert_eq!(statuses, expected, "{what}: {answer}");
    for seen in front.api.seen() {
        assert!(!seen["uri"].as_str().unwrap().contains("secrets"), "{what} reached the API: {seen}");
    }
}

#[test]
fn a_body_ends_in_one_place_only() {
    let front = Front::open("");
    let key = format!("X-API-Key: {READ}\r\nContent-Type: application/json\r\n");
    let get = "GET /api/v1/runs/r HTTP/1.1\r\nHost: x\r\n";
    for (what, headers, body, expected) in [
        // The transfer encoding counts, and the connection ends behind it (RFC 9112, 6.1).
        ("CL.TE", "Content-Length: 60\r\nTransfer-Encoding: chunked\r\n", format!("0\r\n\r\n{SMUGGLED}"), &[200][..]),
        ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", format!("0\r\n\r\n{SMUGGLED}"), &[200][..]),
        ("TE.TE", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", format!("0\r\n\r\n{SMUGGLED}"), &[400][..]),
        ("two chunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n".to_owned(), &[400][..]),
        ("an unknown encoding", "Transfer-Encoding: xchunked\r\n", SMUGGLED.to_owned(), &[400][..]),
        ("gzip before chunked", "Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n".to_owned(), &[400][..]),
        ("a space before the colon", "Transfer-Encoding : chunked\r\n", format!("0\r\n\r\n{SMUGGLED}"), &[400][..]),
        ("a folded header", "X-A: b\r\n Transfer-Encoding: chunked\r\n", SMUGGLED.to_owned(), &[400][..]),
        ("two lengths", "Content-Length: 0\r\nContent-Length: 60\r\n", SMUGGLED.to_owned(), &[400][..]),
        ("a list of lengths", "Content-Length: 0, 60\r\n", SMUGGLED.to_owned(), &[400][..]),
        ("a signed length", "Content-Length: +60\r\n", SMUGGLED.to_owned(), &[400][..]),
        ("a negative length", "Content-Length: -1\r\n", SMUGGLED.to_owned(), &[400][..]),
        ("a length beyond all numbers", "Content-Length: 99999999999999999999\r\n", SMUGGLED.to_owned(), &[400][..]),
        ("a hexadecimal length", "Content-Length: 0x10\r\n", SMUGGLED.to_owned(), &[400][..]),
        ("a bare CR", "X-A: b\rTransfer-Encoding: chunked\r\n", SMUGGLED.to_owned(), &[400][..]),
        ("a NUL", "X-A: b\0c\r\n", SMUGGLED.to_owned(), &[400][..]),
        ("two hosts", "Host: y\r\n", String::new(), &[400][..]),
        ("two types", "Content-Type: text/plain\r\n", String::new(), &[400][..]),
    ] {
        check(&front, what, format!("{get}{key}{headers}\r\n{body}").as_bytes(), expected);
    }
    let no_host = format!("GET /api/v1/runs/r HTTP/1.1\r\nConnection: close\r\n{key}\r\n");
    check(&front, "no host", no_host.as_bytes(), &[400]);
    let te_1_0 = format!("GET /api/v1/runs/r HTTP/1.0\r\nHost: x\r\n{key}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}");
    check(&front, "chunked in HTTP/1.0", te_1_0.as_bytes(), &[400]);
    let old = format!("GET /api/v1/runs/r\r\n{SMUGGLED}");
    check(&front, "HTTP/0.9", old.as_bytes(), &[400]);
}

#[test]
fn a_path_is_read_in_one_way_only() {
    let front = Front::open("");
    let mut targets: Vec<(&[u8], u16)> = vec![
        (b"/health/../api/v1/projects/p/secrets", 400),
        (b"/health/..%2fapi/v1/projects/p/secrets", 400),
        (b"/health/%2e%2e/api/v1/projects/p/secrets", 400),
        (b"/api/v1/runs/..%2fprojects%2fp%2fsecrets", 400),
        (b"/api/v1/runs/%2e%2e", 400),
        (b"/api/v1//projects/p/secrets", 400),
        (b"//api/v1/projects/p/secrets", 400),
        (b"/api/v1/projects/p/secrets;x=y", 400),
        (b"/api/v1/projects/p/./secrets", 400),
        (b"/api/v1/projects/p\\secrets", 400),
        (b"/api/v1/projects/p/%73ecrets", 400),
        (b"/api/v1/projects/p/secrets%00", 400),
        (b"/api/v1/projects/p/secrets%0d%0aX-A:%20b", 400),
        (b"/api/v1/projects/p/\xff\xfe", 400),
        (b"/api/v1/projects/p/%ff%fe", 400),
        (b"*", 400),
        (b"http://x/api/v1//projects/p/secrets", 400),
        // What is known for another method, written otherwise, or goes on, needs everything.
        (b"/api/v1/projects/p/secrets", 403),
        (b"/api/v1/projects/p/secrets/", 403),
        (b"/api/v1/projects/p/Secrets", 403),
        (b"/API/v1/projects/p/secrets", 403),
        (b"http://x/api/v1/projects/p/secrets", 403),
    ];
    targets.push((b"/api/v1/runs/caf%C3%A9", 200));
    for (target, status) in targets {
        let what = String::from_utf8_lossy(target).into_owned();
        let mut request = b"GET ".to_vec();
        request.extend_from_slice(target);
        request.extend_from_slice(format!(" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-API-Key: {READ}\r\n\r\n").as_bytes());
        check(&front, &what, &request, &[status]);
    }
    assert_eq!(front.api.seen().len(), 1);
}
