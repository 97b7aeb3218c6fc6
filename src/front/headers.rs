//! Headers on their way through: what belongs to one connection stays on it, what says where a request comes from is
//! written anew, and what would let a client speak for somebody else is taken away.

use std::net::{IpAddr, SocketAddr};

use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::{Request, Uri};
use ipnet::IpNet;

/// The id of a request, as clients send it and get it back.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Another header that a key is sent in.
pub const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Who was let in, for what stands behind. A client's own is taken away.
pub const CLIENT: HeaderName = HeaderName::from_static("x-bellwether-client");

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How many headers a request gets on its way: the host, where it comes from, and who asks.
const ADDED: usize = 5;

/// What belongs to one connection (RFC 9110, 7.6.1), beside what `Connection` names.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// What some servers take for another method, path or address than the request has, what says where it comes from, and what is the
/// front door's own: none of it is the client's to say.
fn speaks_for_others(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "x-http-method-override"
            | "x-http-method"
            | "x-method-override"
            | "x-original-url"
            | "x-rewrite-url"
            | "x-real-ip"
            | "x-forwarded-port"
            | "forwarded"
            | "x-bellwether-client"
            | "expect"
    )
}

/// Where a request came from, as those say who are believed.
fn tells_origin(name: &HeaderName) -> bool {
    matches!(name.as_str(), "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host")
}

/// What is said to browsers is the front door's: the API's own would let every page in.
fn is_cors(name: &HeaderName) -> bool {
    name.as_str().strip_prefix("access-control-").is_some_and(|rest| {
        matches!(rest, "allow-origin" | "allow-credentials" | "allow-headers" | "allow-methods" | "expose-headers" | "max-age")
    })
}

/// Makes what a head says its own. Until then it is parts of the buffer that the head came in: hyper would take another of
/// 8 KiB for as long as anybody holds one of them.
pub fn detach<B>(request: &mut Request<B>) {
    let values = request.headers().values().map(HeaderValue::len).sum::<usize>();
    let address = request.uri().path_and_query().map_or("", |path| path.as_str());
    let mut text = Vec::with_capacity(values + address.len());
    text.extend_from_slice(address.as_bytes());
    request.headers().values().for_each(|value| text.extend_from_slice(value.as_bytes()));
    let mut rest = Bytes::from(text);
    let address = rest.split_to(address.len());
    for value in request.headers_mut().values_mut() {
        if let Ok(own) = HeaderValue::from_maybe_shared(rest.split_to(value.len())) {
            *value = own;
        }
    }
    // Whole addresses are for proxies of another kind: rare, and copied less cheaply.
    let is_path = request.uri().authority().is_none();
    let own = if is_path { Uri::from_maybe_shared(address) } else { Uri::try_from(request.uri().to_string()) };
    if let Ok(own) = own {
        *request.uri_mut() = own;
    }
}

/// Where a request comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origin {
    /// The client's address, as far as it is known.
    pub client: IpAddr,
    /// Whoever is connected to us says so, and is believed.
    pub is_believed: bool,
}

// === impl Origin ===

impl Origin {
    /// Goes back along `X-Forwarded-For` from the peer, as long as those who wrote it are believed.
    #[must_use]
    pub fn of(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let believed = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
        let mut client = peer.ip().to_canonical();
        let is_believed = believed(client);
        if is_believed {
            let values = headers.get_all(FORWARDED_FOR).into_iter().rev();
            let addresses = values.flat_map(|value| value.to_str().unwrap_or("?").rsplit(','));
            for address in addresses.map(|text| text.trim().parse::<IpAddr>()) {
                // What is no address was written by nobody who is believed.
                let Ok(address) = address else { break };
                client = address.to_canonical();
                if !believed(client) {
                    break;
                }
            }
        }
        Self { client, is_believed }
    }
}

/// Takes away what belongs to the client's connection or speaks for others, the keys, which are the front door's own, and says
/// where the request comes from.
pub fn prepare_request(headers: &mut HeaderMap, origin: &Origin, peer: SocketAddr, is_tls: bool, authority: &HeaderValue) {
    take_named(headers);
    let is_believed = origin.is_believed;
    take(headers, |name| {
        is_hop_by_hop(name) || speaks_for_others(name) || *name == AUTHORIZATION || *name == API_KEY || (!is_believed && tells_origin(name))
    });
    // Room for all that is added, at once.
    headers.reserve(ADDED);
    let host = headers.insert(HOST, authority.clone());
    if let Ok(address) = HeaderValue::from_maybe_shared(Bytes::from(peer.ip().to_canonical().to_string())) {
        headers.append(FORWARDED_FOR, address);
    }
    if !(is_believed && headers.contains_key(FORWARDED_PROTO)) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(if is_tls { "https" } else { "http" }));
    }
    if let Some(host) = host.filter(|_| !(is_believed && headers.contains_key(FORWARDED_HOST))) {
        headers.insert(FORWARDED_HOST, host);
    }
    join_cookies(headers);
}

/// Takes away what belongs to the API's connection, and what it says to browsers.
pub fn prepare_answer(headers: &mut HeaderMap) {
    take_named(headers);
    take(headers, |name| is_hop_by_hop(name) || is_cors(name));
}

/// Takes away what `Connection` names.
fn take_named(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        named.iter().for_each(|name| drop(headers.remove(name)));
    }
}

/// Takes away all whose names are such. A request has fewer headers than there are names to look for.
fn take(headers: &mut HeaderMap, is_such: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = headers.keys().find(|name| is_such(name)).cloned() {
        headers.remove(name);
    }
}

/// HTTP/2 may send cookies one by one; HTTP/1.1 has one header of them (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_some() {
        let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
            headers.insert(COOKIE, joined);
        }
    }
}

/// The id of a request: the client's own where it is a plain word, else one of ours.
#[must_use]
pub fn request_id(headers: &HeaderMap, random: u128) -> HeaderValue {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_good = |value: &&HeaderValue| (1..=64).contains(&value.len()) && value.as_bytes().iter().all(is_plain);
    // A copy: the value itself would keep the buffer that the head came in.
    let own = headers.get(REQUEST_ID).filter(is_good).and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
    own.unwrap_or_else(|| HeaderValue::from_maybe_shared(Bytes::from(format!("{random:032x}"))).unwrap_or(HeaderValue::from_static("none")))
}

/// Whether a request asks for a WebSocket. No other protocol is changed to: `h2c` would get around everything here.
#[must_use]
pub fn wants_websocket(headers: &HeaderMap) -> bool {
    let has = |name, wanted: &str| {
        let mut words = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        words.any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    has(CONNECTION, "upgrade") && headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn text(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    const PEER: ([u8; 4], u16) = ([10, 0, 0, 7], 1234);

    #[test]
    fn what_a_head_says_outlives_the_buffer_that_it_came_in() {
        for address in ["/a/caf%C3%A9?x=1&y", "*", "http://front:80/a?b", "/"] {
            let request = || {
                let builder = Request::builder().uri(address).header("host", "front").header("x-empty", "");
                builder.header("cookie", "a=1").header("cookie", HeaderValue::from_bytes(b"b=\xff").unwrap()).body(()).unwrap()
            };
            let mut detached = request();
            detach(&mut detached);
            assert_eq!((detached.uri(), detached.headers()), (request().uri(), request().headers()));
        }
    }

    #[test]
    fn a_stranger_is_not_believed_and_speaks_for_nobody() {
        let mut sent = headers(&[
            ("host", "front"),
            ("connection", "close, X-Secret-Hop"),
            ("x-secret-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("forwarded", "for=1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
            ("x-http-method-override", "DELETE"),
            ("x-original-url", "/admin"),
            ("x-bellwether-client", "root"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("accept", "*/*"),
        ]);
        let origin = Origin::of(PEER.into(), &sent, &[]);
        assert_eq!(origin, Origin { client: IpAddr::from(PEER.0), is_believed: false });
        prepare_request(&mut sent, &origin, PEER.into(), false, &HeaderValue::from_static("api:8080"));
        let expected = [
            "accept: */*",
            "cookie: a=1; b=2",
            "host: api:8080",
            "x-forwarded-for: 10.0.0.7",
            "x-forwarded-host: front",
            "x-forwarded-proto: http",
        ];
        assert_eq!(text(&sent), expected);
    }

    #[test]
    fn the_client_is_found_behind_those_who_are_believed() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        for (forwarded, client) in [
            (&[][..], "10.0.0.7"),
            (&[("x-forwarded-for", "1.2.3.4")][..], "1.2.3.4"),
            (&[("x-forwarded-for", "9.9.9.9, 1.2.3.4, 10.1.1.1")][..], "1.2.3.4"),
            (&[("x-forwarded-for", "9.9.9.9"), ("x-forwarded-for", "1.2.3.4,fd00::1")][..], "1.2.3.4"),
            (&[("x-forwarded-for", "9.9.9.9, unknown, 10.1.1.1")][..], "10.1.1.1"),
            (&[("x-forwarded-for", "10.1.1.1, ::ffff:10.2.2.2")][..], "10.1.1.1"),
        ] {
            let origin = Origin::of(PEER.into(), &headers(forwarded), &trusted);
            assert_eq!((origin.client.to_string().as_str(), origin.is_believed), (client, true), "{forwarded:?}");
        }
        let mut sent = headers(&[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "app")]);
        let origin = Origin::of(PEER.into(), &sent, &trusted);
        prepare_request(&mut sent, &origin, PEER.into(), false, &HeaderValue::from_static("api"));
        let expected =
            ["host: api", "x-forwarded-for: 1.2.3.4", "x-forwarded-for: 10.0.0.7", "x-forwarded-host: app", "x-forwarded-proto: https"];
        assert_eq!(text(&sent), expected);
    }

    #[test]
    fn what_the_api_says_to_browsers_and_of_its_connection_stays_behind() {
        let mut answer = headers(&[
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("content-type", "application/json"),
        ]);
        prepare_answer(&mut answer);
        assert_eq!(text(&answer), ["content-type: application/json"]);
    }

    #[test]
    fn an_id_is_a_plain_word() {
        let id = |value: &'static str| request_id(&headers(&[("x-request-id", value)]), 1).to_str().unwrap().to_owned();
        assert_eq!(id("a-B_3.4"), "a-B_3.4");
        for bad in ["", "a b", "a\"b", "{}", "0123456789012345678901234567890123456789012345678901234567890123456"] {
            assert_eq!(id(bad), "00000000000000000000000000000001", "{bad}");
        }
    }

    #[test]
    fn only_a_websocket_changes_the_protocol() {
        let wants = |connection, upgrade| wants_websocket(&headers(&[("connection", connection), ("upgrade", upgrade)]));
        assert!(wants("keep-alive, Upgrade", "WebSocket"));
        assert!(!wants("keep-alive", "websocket") && !wants("upgrade", "h2c") && !wants("upgrade", "websocket, h2c"));
    }
}
