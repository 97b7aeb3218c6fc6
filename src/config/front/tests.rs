//! What is accepted of `front`, and what is not.

use crate::config::environment::Environment;
use crate::config::{Config, Request, load};

#[track_caller]
fn problems(text: &str) -> Vec<String> {
    let request = Request { text: Some(text), ..Request::default() };
    let error = load(&request, &Environment::default()).expect_err("problems").to_string();
    error.lines().skip(1).map(|line| line.trim().trim_start_matches("proposal:").to_owned()).collect()
}

#[track_caller]
fn accepted(text: &str) -> Config {
    let request = Request { text: Some(text), ..Request::default() };
    load(&request, &Environment::of([("MONGODB_URI", "mongodb://db")])).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn nothing_listens_unless_it_is_written() {
    assert!(accepted("profile: decisionbox").front.is_none());
    let config = accepted("profile: decisionbox\nfront: { listen: \"127.0.0.1:8088\", auth: { anonymous: [read] } }");
    let front = config.front.expect("a front door");
    assert_eq!((front.upstream.authority.as_str(), front.upstream.port), ("localhost:8080", 8080));
    assert_eq!((front.limits.body, front.limits.requests, front.limits.content_types.len()), (1 << 20, 512, 1));
    assert!(front.routes.len() > 30 && front.cors.origins.is_empty());
}

#[test]
fn every_problem_is_told_at_its_place() {
    let text = "front:
  listen: 127.0.0.1:8088
  upstream: http://user@api:8080/v1
  runs: upstream
  auth:
    keys:
      - { name: \"a b\", file: /nonexistent, scopes: [] }
  limits: { requests: 0, head: 1KiB }
  timeouts: { connect: 1ms }
  cors: { origins: [\"*\", \"https://app.example.com/\"] }
  trusted_proxies: [10.0.0.0/33]
  access_log: { sample: 2 }
  routes: { \"GET /a/{id}\": read, \"GET /a/{name}\": read, \"get /b\": read, \"GET /a//b\": read, \"GET b\": read }
";
    let found = problems(text);
    for expected in [
        "3:13: front.upstream: write the scheme, the host and the port",
        "7:9: front.auth.keys: `name` has 1 to 48",
        "7:9: front.auth.keys: `scopes` names",
        "7:9: front.auth.keys: cannot read /nonexistent",
        "8:23: front.limits.requests: this is 0; it is from 1 to",
        "8:32: front.limits.head: this is 1024; it is from 8192",
        "9:24: front.timeouts.connect: this is from 50ms",
        "10:21: front.cors.origins: an origin is",
        "10:26: front.cors.origins: an origin is",
        "11:21: front.trusted_proxies: `10.0.0.0/33` is no network",
        "12:25: front.access_log.sample: a share",
        "13:51: front.routes.GET /a/{name}: this route stands here twice",
        "13:67: front.routes.get /b: a route is written as",
        "13:86: front.routes.GET /a//b: a route is written as",
        "13:101: front.routes.GET b: a route is written as",
    ] {
        assert!(found.iter().any(|line| line.starts_with(expected)), "{expected}: {found:#?}");
    }
    assert_eq!(found.len(), 15, "{found:#?}");
}

#[test]
fn a_door_that_nobody_could_use_or_that_leads_nowhere_is_refused() {
    let found = problems("front: { listen: 127.0.0.1:8088 }");
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].contains("front: the front door needs `upstream`") && found[1].contains("nobody could use the front door"));
    assert!(problems("front: { auth: { anonymous: [read] } }")[0].contains("the front door has no `listen`"));
}

#[test]
fn keys_that_cross_the_network_as_plain_text_are_warned_of() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "a-key-that-is-long-enough").unwrap();
    let keys = format!("auth: {{ keys: [{{ name: a, file: {}, scopes: [read] }}] }}", file.path().display());
    let warnings = |listen: &str| accepted(&format!("front: {{ listen: \"{listen}\", upstream: \"http://api\", {keys} }}")).warnings.len();
    assert_eq!((warnings("0.0.0.0:8088"), warnings("127.0.0.1:8088")), (1, 0));
}
