//! `http`: statuses, bodies, headers, fallbacks, hostile servers.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{expect, expect_saying, seen, watch};
use crate::sidecar::{Setup, eventually};

const DECISIONBOX_DOWN: &str = r#"{"status":"degraded","services":{"mongodb":{"status":"down","error":"dial tcp 10.1.2.3:27017"}}}"#;

/// A server that answers each path in its way, and counts how often `/gone` was asked for.
fn server() -> (SocketAddr, Arc<AtomicU16>) {
    let asked = Arc::new(AtomicU16::new(0));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/{way}", get(behave)).with_state(Arc::clone(&asked));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap() });
    });
    (address, asked)
}

async fn behave(State(asked): State<Arc<AtomicU16>>, Path(way): Path<String>, headers: HeaderMap) -> Response {
    let text = |status: u16, body: &'static str| (StatusCode::from_u16(status).unwrap(), [(header::CONTENT_TYPE, "text/plain")], body);
    match way.as_str() {
        "ok" => text(200, r#"{"status":"ok","services":{"mongodb":{"status":"up"}},"ready":true}"#).into_response(),
        "unhealthy" => text(200, r#"{"status":"unhealthy"}"#).into_response(),
        "decisionbox" => text(503, DECISIONBOX_DOWN).into_response(),
        "invalid" => text(200, "{\"status\": ok").into_response(),
        "created" => text(201, "").into_response(),
        "moved" => (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, "/hang")]).into_response(),
        "throttled" => text(429, "slow down").into_response(),
        "gone" => {
            asked.fetch_add(1, Ordering::Relaxed);
            text(410, "").into_response()
        }
        "private" => {
            let is_known = headers.get("authorization").is_some_and(|value| value == "Bearer s3cr3t-t0ken")
                && headers.get("x-api-key").is_some_and(|value| value == "k3y");
            if is_known { text(200, "{}").into_response() } else { text(401, "").into_response() }
        }
        "huge" => Body::from(vec![b' '; 10 * 1024 * 1024]).into_response(),
        "drip" => {
            let drops = futures_util::stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), ()))
            });
            Body::from_stream(drops).into_response()
        }
        "hang" => std::future::pending().await,
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

#[test]
fn statuses_and_bodies_are_held_to_what_is_asked() {
    let (address, asked) = server();
    let url = format!("http://{address}");
    let sidecar = watch(
        "",
        &format!(
            r#"
    ok: {{ type: http, url: "{url}/ok", json: {{ status: ok, "services.mongodb.status": [ok, up], ready: true }} }}
    word: {{ type: http, url: "{url}/unhealthy", json: {{ status: healthy }} }}
    path: {{ type: http, url: "{url}/ok", json: {{ "services.redis.status": up }} }}
    decisionbox: {{ type: http, url: "{url}/decisionbox", json: {{ "services.mongodb.status": [ok, up] }} }}
    invalid: {{ type: http, url: "{url}/invalid", json: {{ status: ok }} }}
    invalid_ignored: {{ type: http, url: "{url}/invalid" }}
    only: {{ type: http, url: "{url}/created", status: [200, 204] }}
    among: {{ type: http, url: "{url}/created", status: 2xx }}
    moved: {{ type: http, url: "{url}/moved", status: 200..299 }}
    throttled: {{ type: http, url: "{url}/throttled", alive_status: [401, 403, 429], json: {{ status: ok }} }}
    throttled_fails: {{ type: http, url: "{url}/throttled" }}
    broken_alive: {{ type: http, url: "{url}/decisionbox", alive_status: 503 }}
    huge: {{ type: http, url: "{url}/huge", json: {{ status: ok }} }}
    huge_ignored: {{ type: http, url: "{url}/huge" }}
    drip: {{ type: http, url: "{url}/drip", json: {{ status: ok }} }}
    hang: {{ type: http, url: "{url}/hang" }}
    fallback: {{ type: http, url: "{url}/gone", fallback: ["{url}/missing", "{url}/ok"], json: {{ status: ok }} }}
    no_fallback: {{ type: http, url: "{url}/missing", fallback: ["{url}/missing2"] }}
    fallback_fails: {{ type: http, url: "{url}/missing", fallback: ["{url}/decisionbox", "{url}/ok"] }}"#
        ),
    );
    for name in ["ok", "invalid_ignored", "among", "huge_ignored", "fallback"] {
        expect(&sidecar, name, "up", None);
    }
    expect_saying(&sidecar, "throttled", "up", None, "HTTP 429: alive");
    expect_saying(&sidecar, "broken_alive", "up", None, "HTTP 503: alive");
    for (name, reason, words) in [
        ("word", "bad_body", "status is \"unhealthy\""),
        ("path", "bad_body", "services.redis.status is missing"),
        ("decisionbox", "http_5xx", "HTTP 503, services.mongodb.status is \"down\""),
        ("invalid", "bad_body", "the body is not JSON"),
        ("only", "other", "HTTP 201"),
        ("moved", "other", "HTTP 301"),
        ("throttled_fails", "http_4xx", "HTTP 429"),
        ("huge", "body_too_large", "longer than 64 KiB"),
        ("drip", "timeout", ""),
        ("hang", "timeout", ""),
        ("no_fallback", "http_4xx", "HTTP 404"),
        ("fallback_fails", "http_5xx", "HTTP 503"),
    ] {
        expect_saying(&sidecar, name, "down", Some(reason), words);
    }
    // What a server says beyond the asserted value goes nowhere.
    assert!(!sidecar.get("/health").body.contains("10.1.2.3"));
    // The address that was there is asked first from then on.
    eventually("more looks", || seen(&sidecar, "fallback")["x-consecutive"].as_u64(), |looks| looks.is_some_and(|looks| looks >= 3));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[test]
fn secret_headers_are_sent_and_never_printed() {
    let (address, _) = server();
    let config = format!(
        r#"
state_dir: "${{BELLWETHER_STATE_DIR}}"
health:
  defaults: {{ interval: 1s, timeout: 900ms, fail_after: 1, pass_after: 1 }}
  checks:
    known: {{ type: http, url: "http://{address}/private", headers: {{ Authorization: "Bearer ${{TOKEN}}", X-Api-Key: "${{KEY}}" }} }}
    in_address: {{ type: http, url: "http://user:s3cr3t-t0ken@{address}/private?key=s3cr3t-t0ken" }}
    unknown: {{ type: http, url: "http://{address}/private", headers: {{ Authorization: "Bearer wrong" }} }}
"#
    );
    let sidecar =
        Setup::default().config(&config).variable("TOKEN", "s3cr3t-t0ken").variable("KEY", "k3y").variable("RUST_LOG", "trace").start();
    expect(&sidecar, "known", "up", None);
    expect_saying(&sidecar, "unknown", "down", Some("auth"), "HTTP 401");
    expect(&sidecar, "in_address", "down", Some("auth"));
    for path in ["/health", "/metrics", "/readyz?verbose"] {
        assert!(!sidecar.get(path).body.contains("s3cr3t"), "{path}");
    }
    let own: Vec<String> =
        sidecar.log().lines().filter(|line| line.contains("s3cr3t") && line.contains("bellwether")).map(str::to_owned).collect();
    assert_eq!(own, Vec::<String>::new());
}

/// A server that writes this to whoever connects, and ends the connection.
fn raw(answer: &'static [u8]) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Whether the client still reads is its own affair.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer);
        }
    });
    address
}

#[test]
fn what_is_cut_and_what_is_no_http_differ() {
    let (cut, half, garbage) = (raw(b""), raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"), raw(b"220 smtp ready\r\n\r\n"));
    let sidecar = watch(
        "",
        &format!(
            "    cut: {{ type: http, url: \"http://{cut}/\" }}\n    half: {{ type: http, url: \"http://{half}/\" }}\n    garbage: {{ type: http, url: \"http://{garbage}/\" }}"
        ),
    );
    expect(&sidecar, "cut", "down", Some("reset"));
    expect(&sidecar, "half", "down", Some("reset"));
    expect_saying(&sidecar, "garbage", "down", Some("other"), "the answer is not HTTP");
}
