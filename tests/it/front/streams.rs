//! What goes on for longer than a request: events, WebSockets, large answers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::front::{Front, READ};
use crate::sidecar::eventually;

fn connect(front: &Front) -> TcpStream {
    let stream = TcpStream::connect(&front.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

#[test]
fn events_arrive_one_by_one() {
    let front = Front::open("");
    let mut stream = connect(&front);
    write!(stream, "GET /api/v1/runs/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-API-Key: {READ}\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    assert!(lines.by_ref().any(|line| line == "data: 0"));
    assert_eq!(front.sidecar.value("bellwether_front_requests_in_flight"), Some(1.0), "the others are still to come");
    for number in 1..4 {
        assert!(lines.by_ref().any(|line| line == format!("data: {number}")));
    }
    let seconds = "bellwether_front_request_duration_seconds_count{route=\"/api/v1/runs/{id}\"}";
    eventually("it has ended", || front.sidecar.value("bellwether_front_requests_in_flight"), |open| *open == Some(0.0));
    assert_eq!(front.sidecar.value(seconds), None, "a stream has no duration that tells anything");
}

#[test]
fn an_answer_of_any_length_passes_and_its_connection_is_used_again() {
    let front = Front::open("");
    for _ in 0..3 {
        let (status, _, body) = front.ask("GET", "/api/v1/runs/large", READ, "", "");
        assert_eq!((status, body.len()), (200, 3 << 20));
    }
    assert_eq!(front.sidecar.value("bellwether_front_upstream_connections"), Some(1.0));
}

#[test]
fn a_websocket_passes_both_ways_and_ends_with_either_side() {
    let front = Front::open("  timeouts: { stream: 2s }\n");
    let upgrade = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    let mut stream = connect(&front);
    write!(stream, "GET /api/v1/runs/r HTTP/1.1\r\nHost: x\r\nX-API-Key: {READ}\r\n{upgrade}\r\n").unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let head: Vec<String> = reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    assert!(head[0].contains(" 101 ") && head.iter().any(|line| line.eq_ignore_ascii_case("upgrade: websocket")), "{head:?}");
    for word in ["hello", "again"] {
        stream.write_all(word.as_bytes()).unwrap();
        let mut answer = [0; 5];
        reader.read_exact(&mut answer).unwrap();
        assert_eq!(answer, word.to_ascii_uppercase().as_bytes());
    }
    let tunnels = || front.sidecar.value("bellwether_front_tunnels");
    assert_eq!((tunnels(), front.sidecar.value("bellwether_front_requests_in_flight")), (Some(1.0), Some(1.0)));
    // Nobody says anything for longer than it may last.
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
    eventually("it has ended", tunnels, |open| *open == Some(0.0));
    assert_eq!(front.sidecar.value("bellwether_front_requests_in_flight"), Some(0.0));

    // A page of another origin may not open one, and no other protocol is changed to.
    let (status, _, _) = front.ask("GET", "/api/v1/runs/r", READ, &format!("{upgrade}Origin: https://evil\r\n"), "");
    assert_eq!(status, 403);
    let (status, head, _) =
        front.ask("GET", "/api/v1/runs/r", READ, "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n", "");
    assert!(status == 200 && !head.contains("upgrade"), "{head}");
    assert!(!front.api.last().to_string().contains("h2c"));
}
