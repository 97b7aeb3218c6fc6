//! Notifications arrive: over real sockets, in the form that each receiver takes, once, whatever the receiver or the
//! process goes through meanwhile. What fires is published by the tests.

mod doubles;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bellwether::clock::Now;
use bellwether::config::environment::Environment;
use bellwether::config::notify::Receiver;
use bellwether::config::{Request, load};
use bellwether::notify::alert::Alert;
use bellwether::notify::courier::Courier;
use bellwether::notify::payload::webhook;
use doubles::{Mail, Secured, Web};
use jiff::ToSpan as _;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::alerting::servers::Server;
use crate::mongod::eventually;
use crate::sidecar::{Setup, free_port};
use crate::tls::{Authority, Identity};

/// So long nothing more comes where nothing more should: several group intervals, and the second between two messages.
const QUIET: Duration = Duration::from_millis(2500);

/// The evaluation and the courier, and what lies between them.
struct Post {
    alerts: watch::Sender<Arc<Vec<Alert>>>,
    registry: Registry,
    stop: CancellationToken,
    courier: JoinSet<()>,
}

/// Each receiver waits for little, so that a test does not.
fn receivers(list: &str) -> Vec<Receiver> {
    let quick = ", group_wait: 50ms, group_interval: 200ms }";
    let text = list.lines().map(|line| line.replace(", quick }", quick)).collect::<Vec<_>>().join("\n");
    let text = format!("notify:\n{text}\n");
    load(&Request { text: Some(&text), ..Request::default() }, &Environment::default()).unwrap_or_else(|error| panic!("{error}")).notify
}

/// What is said of a configuration that is wrong.
fn problems(list: &str) -> String {
    let text = format!("notify:\n{list}\n");
    load(&Request { text: Some(&text), ..Request::default() }, &Environment::default()).expect_err("problems").to_string()
}

fn alert(check: &str, description: &str) -> Alert {
    let texts =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect::<BTreeMap<_, _>>();
    Alert {
        labels: texts(&[("alertname", "Down"), ("severity", "critical"), ("check", check)]),
        annotations: texts(&[("summary", "A component is down."), ("description", description)]),
        starts_at: Now::read().wall,
        ends_at: None,
    }
}

fn over(alert: &Alert) -> Alert {
    Alert { ends_at: Some(Now::read().wall), ..alert.clone() }
}

/// Alerts of the messages that a webhook got: `+name` and `-name`, message by message.
fn told(web: &Web, path: &str) -> Vec<String> {
    let one = |alert: &Value| {
        let sign = if alert["status"] == "firing" { "+" } else { "-" };
        format!("{sign}{}", alert["labels"]["check"].as_str().unwrap())
    };
    let message = |body: Value| body["alerts"].as_array().unwrap().iter().map(one).collect::<Vec<_>>().join(" ");
    web.seen(path).iter().map(|seen| message(seen.json())).collect()
}

async fn until_told(web: &Web, path: &str, expected: &[&str]) {
    eventually(&format!("{expected:?} at {path}"), async || (told(web, path).len() >= expected.len()).then_some(())).await;
    assert_eq!(told(web, path), expected);
}

// === impl Post ===

impl Post {
    fn start(receivers: &[Receiver], folder: Option<&Path>) -> Self {
        let mut registry = Registry::default();
        let courier = Courier::new(receivers, folder, &mut registry).unwrap();
        let (alerts, seen) = watch::channel(Arc::default());
        let stop = CancellationToken::new();
        let token = stop.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { courier.run(seen, None, token).await.unwrap() });
        Self { alerts, registry, stop, courier: tasks }
    }

    fn publish(&self, alerts: &[Alert]) {
        self.alerts.send(Arc::new(alerts.to_vec())).unwrap();
    }

    /// Without a word: as if the process were killed.
    async fn kill(mut self) {
        self.courier.shutdown().await;
    }

    async fn end(mut self) {
        self.stop.cancel();
        self.courier.join_next().await.unwrap().unwrap();
    }

    /// The value of a series of ours.
    fn metric(&self, series: &str) -> f64 {
        let text = self.exposition();
        let line = text.lines().find(|line| line.starts_with(&format!("bellwether_notify_{series} ")));
        line.unwrap_or_else(|| panic!("{series}:\n{text}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn exposition(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

fn secret(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, format!("{text}\n")).unwrap();
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_receiver_is_told_in_its_own_words_once_and_of_the_end_once() {
    let (web, mail, folder) = (Web::start(), Mail::start(Secured::Never), tempfile::tempdir().unwrap());
    let list = format!(
        "  - {{ slack: {{ url_file: {} }}, quick }}
  - {{ discord: {{ url_file: {} }}, quick }}
  - {{ name: ops, webhook: {{ url: \"{}\", hmac_secret_file: {} }}, quick }}
  - {{ email: {{ server: 127.0.0.1, port: {}, tls: none, from: 'Bellwether <b@example.org>', to: [a@example.org], username: u, password_file: {} }}, quick }}
  - {{ sentry: {{ dsn_file: {} }} }}
  - {{ heartbeat: {{ url: \"{}\", every: 1s }} }}",
        secret(&folder, "slack", &web.url("/slack/T0/SECRETSLACK")),
        secret(&folder, "discord", &web.url("/discord/SECRETDISCORD")),
        web.url("/ops/SECRETOPS"),
        secret(&folder, "hmac", "SECRETKEY"),
        mail.port,
        secret(&folder, "password", "SECRETPASSWORD"),
        secret(&folder, "dsn", &format!("http://SECRETDSN@{}/7", web.address)),
        web.url("/ping/SECRETPING"),
    );
    let post = Post::start(&receivers(&list), None);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(web.seen("/ping/SECRETPING").is_empty(), "no heartbeat before the first evaluation");
    let api = alert("api", "api is down: <!channel> @everyone\r\nBcc: x@evil.example");
    post.publish(std::slice::from_ref(&api));

    let first = async |path: &str| eventually(path, async || web.seen(path).first().cloned()).await;
    let slack = first("/slack/T0/SECRETSLACK").await.json();
    assert_eq!(slack["text"], "[FIRING 1] Down: A component is down.");
    let text = slack["attachments"][0]["text"].as_str().unwrap();
    assert!(text.contains("api is down: &lt;!channel&gt; @everyone Bcc: x@evil.example"), "{text}");
    let discord = first("/discord/SECRETDISCORD").await.json();
    assert_eq!(discord["allowed_mentions"]["parse"], Value::Array(vec![]));
    let ops = first("/ops/SECRETOPS").await;
    assert_eq!(ops.headers["x-bellwether-signature"], webhook::signature("SECRETKEY", &ops.body).as_str());
    assert_eq!((&ops.json()["version"], &ops.json()["receiver"]), (&Value::from("4"), &Value::from("ops")));
    let sentry = first("/api/7/envelope/").await;
    assert!(sentry.headers["x-sentry-auth"].to_str().unwrap().ends_with("sentry_key=SECRETDSN"));
    assert_eq!(sentry.body.iter().filter(|byte| **byte == b'\n').count(), 3);
    assert_eq!(first("/ping/SECRETPING").await.method, "GET");
    eventually("the mail", async || mail.said().contains("\n.\n").then_some(())).await;
    let said = mail.said();
    assert!(said.contains("MAIL FROM:<b@example.org>") && said.contains("RCPT TO:<a@example.org>"), "{said}");
    assert!(
        said.contains("AUTH PLAIN AHUAU0VDUkVUUEFTU1dPUkQ=") && said.contains("\nSubject: [FIRING 1] Down: A component is down."),
        "{said}"
    );
    assert!(!said.contains("\nBcc"), "{said}");

    // It goes on, and then it is over.
    for _ in 0..3 {
        post.publish(std::slice::from_ref(&api));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    post.publish(&[over(&api)]);
    eventually("the end", async || (web.seen("/ops/SECRETOPS").len() == 2 && mail.said().contains("Subject: [RESOLVED]")).then_some(()))
        .await;
    for _ in 0..2 {
        post.publish(&[over(&api)]);
        tokio::time::sleep(QUIET / 2).await;
    }
    assert_eq!(told(&web, "/ops/SECRETOPS"), ["+api", "-api"]);
    let count = |path| web.seen(path).len();
    assert_eq!((count("/slack/T0/SECRETSLACK"), count("/discord/SECRETDISCORD"), count("/api/7/envelope/")), (2, 2, 1));
    assert!((2..=6).contains(&count("/ping/SECRETPING")), "one a second at most");
    assert_eq!(post.metric("sent_total{receiver=\"slack\"}"), 2.0);
    assert_eq!(post.metric("queue_length{receiver=\"slack\"}"), 0.0);
    assert!(post.metric("last_success_timestamp_seconds{receiver=\"email\"}") > 1.7e9);
    assert!(!post.exposition().contains("SECRET"), "{}", post.exposition());
    post.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_may_pass_by_is_tried_again() {
    let (web, elsewhere) = (Web::start(), Web::start());
    let list = format!(
        "  - {{ name: ops, webhook: {{ url: \"{}\" }}, quick }}\n  - {{ name: other, webhook: {{ url: \"{}\" }}, quick }}",
        web.url("/a"),
        elsewhere.url("/fine")
    );
    let post = Post::start(&receivers(&list), None);
    let after = || Some(("retry-after", "1".to_owned()));
    web.answer(&[(503, None), (429, after()), (500, None), (200, None)]);
    let (api, db) = (alert("api", "x"), alert("db", "x"));
    post.publish(std::slice::from_ref(&api));
    until_told(&elsewhere, "/fine", &["+api"]).await;
    until_told(&web, "/a", &["+api"; 4]).await;
    assert_eq!(post.metric("failures_total{receiver=\"ops\",reason=\"server_error\"}"), 2.0);
    assert_eq!(post.metric("failures_total{receiver=\"ops\",reason=\"rate_limited\"}"), 1.0);

    // Neither a refusal nor a redirect is tried again, and where it points to is not asked.
    web.answer(&[(404, None), (302, Some(("location", elsewhere.url("/stolen"))))]);
    post.publish(&[over(&api)]);
    until_told(&web, "/a", &["+api", "+api", "+api", "+api", "-api"]).await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(told(&web, "/a").len(), 5, "a refusal is not tried again");
    post.publish(&[over(&api), db.clone()]);
    eventually("the redirect", async || (told(&web, "/a").len() == 6).then_some(())).await;
    tokio::time::sleep(QUIET).await;
    assert_eq!((told(&web, "/a").len(), elsewhere.seen("/stolen").len()), (6, 0));
    assert_eq!(post.metric("failures_total{receiver=\"ops\",reason=\"rejected\"}"), 1.0);
    assert_eq!(post.metric("failures_total{receiver=\"ops\",reason=\"redirect\"}"), 1.0);
    // The end that was refused comes with the next news: it is not lost.
    post.publish(&[over(&api), db.clone(), alert("cache", "x")]);
    eventually("the rest", async || (told(&web, "/a").len() == 7).then_some(())).await;
    let last = told(&web, "/a").pop().unwrap();
    assert!(["+db", "+cache", "-api"].iter().all(|part| last.contains(part)), "{last}");
    post.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_or_is_away_holds_up_nobody_and_hears_all_of_it_later() {
    let good = Web::start();
    // Takes connections and never answers.
    let hanging = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let away = format!("127.0.0.1:{}", free_port());
    let list = format!(
        "  - {{ name: good, webhook: {{ url: \"{}\" }}, quick }}
  - {{ name: hanging, webhook: {{ url: \"http://{}/\" }}, quick }}
  - {{ name: away, webhook: {{ url: \"http://{away}/a\" }}, quick }}",
        good.url("/a"),
        hanging.local_addr().unwrap(),
    );
    let post = Post::start(&receivers(&list), None);
    let api = alert("api", "x");
    post.publish(std::slice::from_ref(&api));
    until_told(&good, "/a", &["+api"]).await;
    post.publish(&[over(&api)]);
    until_told(&good, "/a", &["+api", "-api"]).await;
    eventually("an attempt", async || (post.metric("failures_total{receiver=\"away\",reason=\"connection\"}") > 0.0).then_some(())).await;
    assert!(post.metric("queue_length{receiver=\"away\"}") > 0.0);
    // It is back; the end of what it never heard of comes with its begin, in one message.
    let back = Web::start_at(&away);
    eventually("what it missed", async || told(&back, "/a").last().is_some_and(|last| last == "-api").then_some(())).await;
    assert_eq!(told(&back, "/a").len(), 1);
    let missed = &back.seen("/a")[0].json()["alerts"][0];
    assert_eq!(missed["startsAt"], api.starts_at.to_string());
    eventually("the deadline", async || (post.metric("failures_total{receiver=\"hanging\",reason=\"timeout\"}") > 0.0).then_some(())).await;
    post.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_the_middle_of_an_incident_loses_nothing_and_repeats_nothing() {
    let (web, state) = (Web::start(), tempfile::tempdir().unwrap());
    let list = receivers(&format!("  - {{ name: ops, webhook: {{ url: \"{}\" }}, quick }}", web.url("/a")));
    let start = || Post::start(&list, Some(state.path()));
    let (api, db) = (alert("api", "x"), alert("db", "x"));
    let post = start();
    post.publish(std::slice::from_ref(&api));
    until_told(&web, "/a", &["+api"]).await;
    // What was delivered is on the disk a moment after it was.
    eventually("a state", async || {
        (post.metric("queue_length{receiver=\"ops\"}") < 1.0 && post.metric("sent_total{receiver=\"ops\"}") > 0.0).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    post.kill().await;

    // The next process does not know yet what fires, then dates it anew.
    let post = start();
    post.publish(&[]);
    let again = Alert { starts_at: api.starts_at.checked_add(5.minutes()).unwrap(), ..api.clone() };
    post.publish(std::slice::from_ref(&again));
    tokio::time::sleep(QUIET).await;
    assert_eq!(told(&web, "/a"), ["+api"]);

    // Its end cannot be delivered, and neither can a new one; the process is killed, and the end is no longer listed.
    web.answer(&[(503, None), (503, None)]);
    let end = Alert { ends_at: Some(again.starts_at), ..again.clone() };
    post.publish(&[end, db.clone()]);
    eventually("an attempt", async || (post.metric("failures_total{receiver=\"ops\",reason=\"server_error\"}") > 0.0).then_some(())).await;
    post.kill().await;
    let before = told(&web, "/a").len();
    let post = start();
    post.publish(std::slice::from_ref(&db));
    eventually("what was owed", async || (post.metric("sent_total{receiver=\"ops\"}") > 0.0).then_some(())).await;
    tokio::time::sleep(QUIET).await;
    let since = told(&web, "/a").split_off(before);
    assert_eq!(since.last().unwrap(), "+db -api", "{since:?}");
    assert!(since.len() <= 2, "one attempt may still have been refused: {since:?}");
    post.end().await;
    // In order this time: nothing comes twice.
    let (post, before) = (start(), told(&web, "/a").len());
    post.publish(std::slice::from_ref(&db));
    tokio::time::sleep(QUIET).await;
    assert_eq!(told(&web, "/a").len(), before);
    post.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_alertmanager_has_what_fires_and_tells_its_end() {
    let (web, folder) = (Web::start(), tempfile::tempdir().unwrap());
    let address = format!("127.0.0.1:{}", free_port());
    let settings = format!(
        "route: {{ receiver: all, group_by: [alertname], group_wait: 0s, group_interval: 1s, repeat_interval: 1h }}
receivers: [{{ name: all, webhook_configs: [{{ url: '{}', send_resolved: true }}] }}]\n",
        web.url("/am")
    );
    std::fs::write(folder.path().join("alertmanager.yml"), settings).unwrap();
    let listen = format!("--web.listen-address={address}");
    let arguments = ["--config.file=alertmanager.yml", "--storage.path=data", "--cluster.listen-address=", &listen];
    // The second peer is away.
    let list = format!("  - {{ alertmanager: [\"http://{address}/\", \"http://127.0.0.1:{}\"] }}", free_port());
    let post = Post::start(&receivers(&list), None);
    let mut bad = alert("bad", "x");
    bad.labels.insert(String::new(), "a label needs a name".to_owned());
    let (api, db) = (alert("api", "\"quoted\"\n<b>&"), alert("db", "x"));
    // Published while the first is away, too: it gets it when it is there.
    post.publish(&[api.clone(), bad.clone(), db.clone()]);
    eventually("an attempt", async || (post.metric("failures_total{receiver=\"alertmanager\",reason=\"connection\"}") > 1.0).then_some(()))
        .await;
    let _server = Server::start(&["prometheus-alertmanager", "alertmanager"], folder.path(), &arguments);

    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(Duration::from_secs(10)).build().unwrap();
    let active = async || -> Option<Vec<Value>> {
        let answer = client.get(format!("http://{address}/api/v2/alerts")).send().await.ok()?;
        Some(answer.json::<Value>().await.ok()?.as_array()?.clone())
    };
    let both = eventually("both alerts", async || active().await.filter(|alerts| alerts.len() == 2)).await;
    for alert in &both {
        let time = |name: &str| alert[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        let lasts = time("endsAt").duration_since(Now::read().wall).as_secs();
        assert!((180..=240).contains(&lasts) && time("startsAt") < time("endsAt"), "{alert}");
    }
    let refused = "failures_total{receiver=\"alertmanager\",reason=\"rejected\"}";
    eventually("the refusal", async || (post.metric(refused) > 0.0).then_some(())).await;
    let status = |check: &str| {
        let seen = web.seen("/am");
        let alerts = seen.iter().rev().flat_map(|seen| seen.json()["alerts"].as_array().unwrap().clone());
        alerts.into_iter().find(|alert| alert["labels"]["check"] == check).map(|alert| alert["status"].as_str().unwrap().to_owned())
    };
    eventually("what fires", async || (status("api")? == "firing" && status("db")? == "firing").then_some(())).await;

    post.publish(&[over(&api), bad, db.clone()]);
    eventually("the end", async || (status("api")? == "resolved").then_some(())).await;
    assert_eq!(status("db").unwrap(), "firing");
    assert!(post.metric("sent_total{receiver=\"alertmanager\"}") >= 2.0);
    post.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_sent_where_the_server_does_not_secure_the_connection() {
    let (mail, folder) = (Mail::start(Secured::Never), tempfile::tempdir().unwrap());
    let list = format!(
        "  - {{ email: {{ server: 127.0.0.1, port: {}, from: b@example.org, to: a@example.org, username: u, password_file: {} }}, quick }}",
        mail.port,
        secret(&folder, "password", "SECRETPASSWORD"),
    );
    let post = Post::start(&receivers(&list), None);
    post.publish(&[alert("api", "x")]);
    eventually("an attempt", async || {
        post.exposition().lines().any(|line| line.contains("failures_total{") && !line.ends_with(" 0")).then_some(())
    })
    .await;
    assert!(mail.said().starts_with("EHLO") && !mail.said().contains("AUTH") && !mail.said().contains("MAIL"), "{}", mail.said());
    post.kill().await;
}

/// With STARTTLS and with TLS from the start: the password and the mail go over TLS, and only to who proves the name.
#[tokio::test(flavor = "multi_thread")]
async fn mails_go_over_tls_to_a_server_that_proves_its_name() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let password = secret(&folder, "password", "SECRETPASSWORD");
    let start = |tls: &str, identity: Identity| {
        let way = if tls == "tls" { Secured::FromTheStart } else { Secured::WhenAsked };
        let mail = Mail::start(way(identity.server()));
        let list = format!(
            "  - {{ email: {{ server: localhost, port: {}, from: b@example.org, to: a@example.org, tls: {tls}, username: u, password_file: {password} }}, ca_file: {}, quick }}",
            mail.port,
            authority.file().display(),
        );
        let post = Post::start(&receivers(&list), None);
        post.publish(&[alert("api", "x")]);
        (mail, post)
    };
    for tls in ["starttls", "tls"] {
        let (mail, post) = start(tls, authority.issue("localhost", -1, 10));
        eventually("the mail", async || mail.said().contains("Subject: ").then_some(())).await;
        let said = mail.said();
        let bare: Vec<&str> = said.lines().filter(|line| !line.starts_with('\u{1f512}')).collect();
        let verbs: Vec<&str> = bare.iter().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(verbs, if tls == "tls" { Vec::new() } else { vec!["EHLO", "STARTTLS"] }, "{said}");
        assert!(said.contains("\u{1f512}AUTH PLAIN ") && said.contains("\u{1f512}RCPT TO:<a@example.org>"), "{said}");
        post.kill().await;

        for wrong in [
            authority.issue("mail.example.org", -1, 10),
            authority.issue("localhost", -10, -1),
            Authority::new().issue("localhost", -1, 10),
        ] {
            let (mail, post) = start(tls, wrong);
            let failed = "bellwether_notify_failures_total{receiver=\"email\",reason=\"tls\"} ";
            eventually("an attempt", async || {
                post.exposition().lines().any(|line| line.starts_with(failed) && !line.ends_with(" 0")).then_some(())
            })
            .await;
            assert!(!mail.said().contains("AUTH") && !mail.said().contains("MAIL"), "{}", mail.said());
            post.kill().await;
        }
    }
}

#[test]
fn every_problem_of_a_receiver_is_named_and_no_address_is_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let bad = secret(&folder, "bad", "SECRET no address");
    let said = problems(&format!(
        "  - {{ slack: {{ url: \"SECRET\" }}, discord: {{ url: \"SECRET\" }} }}
  - {{ slack: {{ url_file: {bad} }} }}
  - {{ slack: {{ url: \"ftp://SECRET\" }}, rate: 0 }}
  - {{ name: Ops, webhook: {{ url: \"https://h/SECRET\", url_file: /x }}, severity: [crit] }}
  - {{ name: m, email: {{ server: \"smtp:25\", from: nobody, to: [] , username: u }} }}
  - {{ name: s, sentry: {{ dsn_file: {bad} }}, remind_every: 1h }}
  - {{ name: h, heartbeat: {{ url_file: /no/such/file, every: 10ms }} }}"
    ));
    for part in [
        "exactly one of alertmanager, slack, discord, webhook, email, heartbeat, sentry; this has 2",
        "`url_file` is no address",
        "`url` is no address",
        "there are two receivers of the name `slack`",
        "`rate` is a number of messages",
        "`name` has 1 to 48 of a-z",
        "either `url` or `url_file`",
        "`server` is a host without a port",
        "`from` has no address",
        "`to` names at least one",
        "`username` and `password_file` belong together",
        "holds no DSN",
        "`remind_every` means nothing for this receiver",
        "cannot read the secret that `url_file` names, /no/such/file",
        "`every` is at least 1s",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    assert!(!said.contains("SECRET"), "{said}");
    let text = "notify:\n  - { slack: { url: 'http://hooks.example/SECRET' }, severity: page }\n  - { alertmanager: 'http://alertmanager:9093' }\n";
    let config = load(&Request { text: Some(text), ..Request::default() }, &Environment::default()).unwrap();
    let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    assert!(warnings[0].contains("no shipped rule has the severity `page`"), "{warnings:?}");
    assert!(warnings[1].contains("http:// address") && warnings.len() == 2, "{warnings:?}");
    assert!(!warnings.join(" ").contains("SECRET"), "{warnings:?}");
    assert!(!format!("{config:?}").contains("SECRET"));
}

/// What the project of Sentry got: the message and the number of each event.
fn events(web: &Web) -> Vec<(String, String)> {
    let event = |body: &[u8]| {
        let event = body.split(|byte| *byte == b'\n').nth(2).expect("an event");
        let event: Value = serde_json::from_slice(event).expect("JSON");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        (text(&event["message"]["formatted"]), text(&event["event_id"]))
    };
    web.seen("/api/42/envelope/").iter().map(|seen| event(&seen.body)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn fatal_lines_are_told_one_by_one_by_the_process_itself() {
    let (web, folder) = (Web::start(), tempfile::tempdir().unwrap());
    let (log, dsn) = (folder.path().join("agent.log"), folder.path().join("dsn"));
    std::fs::write(&dsn, web.url("/42").replace("http://", "http://KEY@")).unwrap();
    let line = |level: &str, message: &str| format!("{{\"level\":\"{level}\",\"ts\":\"{}\",\"msg\":\"{message}\"}}\n", Now::read().wall);
    std::fs::write(&log, line("fatal", "the first") + &line("error", "not fatal") + &line("info", "done")).unwrap();
    let config = format!(
        "state_dir: \"${{BELLWETHER_STATE_DIR}}\"
logs: {{ inputs: [{{ name: agent, files: [\"{}\"], start: beginning }}] }}
notify: [{{ sentry: {{ dsn_file: \"{}\", fatal_lines: true }} }}]
",
        log.display(),
        dsn.display()
    );
    let start = |setup: Setup| setup.config(&config).start();
    let messages = || events(&web).into_iter().map(|(message, _)| message).collect::<Vec<_>>();
    // Away for a moment: told later, and once.
    web.answer(&[(503, None)]);
    let sidecar = start(Setup::default());
    eventually("the first line", async || (messages().len() == 2).then_some(())).await;
    assert_eq!(events(&web)[0], events(&web)[1], "the second attempt is the same event");
    std::fs::OpenOptions::new().append(true).open(&log).unwrap().write_all(line("panic", "the second").as_bytes()).unwrap();
    eventually("the second line", async || (messages().last().is_some_and(|last| last == "the second")).then_some(())).await;
    // What was counted before a restart is not told again.
    let (status, state) = tokio::task::spawn_blocking(|| sidecar.stop()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    let sidecar = start(Setup::default().folder(state));
    std::fs::OpenOptions::new().append(true).open(&log).unwrap().write_all(line("fatal", "the third").as_bytes()).unwrap();
    eventually("the third line", async || (messages().last().is_some_and(|last| last == "the third")).then_some(())).await;
    assert_eq!(messages(), ["the first", "the first", "the second", "the third"]);
    tokio::task::block_in_place(|| drop(sidecar.kill()));
}
