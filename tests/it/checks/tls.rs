//! `tls`, and TLS beneath `http`: certificates that are good, end soon, have ended, or are somebody else's.

use super::{expect, expect_saying, watch};
use crate::sidecar::free_port;
use crate::tls::{Authority, Identity, TlsServer};

#[test]
fn each_certificate_has_its_verdict() {
    let authority = Authority::new();
    let server = |identity| TlsServer::start(identity).address.port();
    let good = server(authority.issue("localhost", -10, 200));
    let soon = server(authority.issue("localhost", -80, 10));
    let expired = server(authority.issue("localhost", -90, -1));
    let early = server(authority.issue("localhost", 10, 90));
    let other = server(authority.issue("other.example.com", -10, 90));
    let own = server(Identity::self_signed("localhost"));
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let plain = crate::component::Component::start().url().replace("http://127.0.0.1:", "");
    let nobody = free_port();
    let ca = authority.file().display().to_string();
    let sidecar = watch(
        "",
        &format!(
            r#"
    good: {{ type: tls, address: "localhost:{good}", ca_file: "{ca}" }}
    soon: {{ type: tls, address: "localhost:{soon}", ca_file: "{ca}" }}
    soon_enough: {{ type: tls, address: "localhost:{soon}", ca_file: "{ca}", warn_before: 5d }}
    too_soon: {{ type: tls, address: "localhost:{soon}", ca_file: "{ca}", warn_before: 30d, fail_before: 20d }}
    expired: {{ type: tls, address: "localhost:{expired}", ca_file: "{ca}" }}
    early: {{ type: tls, address: "localhost:{early}", ca_file: "{ca}" }}
    other: {{ type: tls, address: "localhost:{other}", ca_file: "{ca}" }}
    named: {{ type: tls, address: "127.0.0.1:{other}", server_name: other.example.com, ca_file: "{ca}" }}
    own: {{ type: tls, address: "localhost:{own}", ca_file: "{ca}" }}
    unknown: {{ type: tls, address: "localhost:{good}" }}
    silent: {{ type: tls, address: "127.0.0.1:{silent_port}", ca_file: "{ca}" }}
    plain: {{ type: tls, address: "127.0.0.1:{plain}", ca_file: "{ca}" }}
    refused: {{ type: tls, address: "127.0.0.1:{nobody}", ca_file: "{ca}" }}
    https: {{ type: http, url: "https://localhost:{good}/", ca_file: "{ca}", json: {{ status: ok }} }}
    https_expired: {{ type: http, url: "https://localhost:{expired}/", ca_file: "{ca}" }}
    https_other: {{ type: http, url: "https://localhost:{other}/", ca_file: "{ca}" }}
    https_unknown: {{ type: http, url: "https://localhost:{good}/" }}"#
        ),
    );
    for name in ["good", "soon_enough", "named", "https"] {
        expect(&sidecar, name, "up", None);
    }
    expect_saying(&sidecar, "soon", "degraded", None, "the certificate ends in 9d");
    for (name, reason) in [
        ("too_soon", "tls_expired"),
        ("expired", "tls_expired"),
        ("early", "tls"),
        ("other", "tls_name"),
        ("own", "tls"),
        ("unknown", "tls"),
        ("silent", "timeout"),
        ("plain", "tls"),
        ("refused", "refused"),
        ("https_expired", "tls_expired"),
        ("https_other", "tls_name"),
        ("https_unknown", "tls"),
    ] {
        expect(&sidecar, name, "down", Some(reason));
    }
    drop(silent);
}
