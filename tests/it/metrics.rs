//! `/metrics` as scrapers ask for it.

use std::io::Read as _;

use crate::sidecar::{Setup, Sidecar};

fn sidecar() -> Sidecar {
    Setup::default().config("state_dir: \"${BELLWETHER_STATE_DIR}\"\n").start()
}

#[test]
fn each_scraper_gets_its_format() {
    let sidecar = sidecar();
    let text = sidecar.get("/metrics");
    assert_eq!((text.status, text.content_type.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
    assert!(text.body.contains("# TYPE process_cpu_seconds_total counter\n") && !text.body.contains("# EOF"), "{}", text.body);

    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let open = sidecar.get_as("/metrics", prometheus);
    assert_eq!(open.content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.body.contains("# TYPE process_cpu_seconds counter\n") && open.body.ends_with("# EOF\n"), "{}", open.body);
}

#[test]
fn it_is_compressed_once_for_those_who_ask() {
    let sidecar = sidecar();
    let mut stream = std::net::TcpStream::connect(&sidecar.address).unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n";
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase();
    assert!(head.contains("content-encoding: gzip"), "{head}");
    let body = &answer[end + 4..];
    let chunk = body.windows(2).position(|two| two == b"\r\n").unwrap();
    let mut text = String::new();
    // The body is chunked; its first chunk begins after the first line and begins the gzip stream.
    let _ = flate2::read::GzDecoder::new(&body[chunk + 2..]).read_to_string(&mut text);
    assert!(text.starts_with("# HELP bellwether_build_info"), "{text}");
}
