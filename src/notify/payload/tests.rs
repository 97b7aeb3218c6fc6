//! What messages look like, also of hostile text.

use std::collections::BTreeMap;

use jiff::Timestamp;
use reqwest::Url;
use serde_json::{Value, json};

use super::*;
use crate::event::FatalLine;
use crate::notify::payload::sentry::Ingest;
use crate::notify::text::characters;

const HOSTILE: &str = "<!channel> @everyone \"q\" & <https://evil.example|click> [click](https://evil.example) *b*\nBcc: x@evil.example\r\n.\r\n\u{0}\u{7}\u{202e}<@1> {{ . }}";

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn alert(labels: &[(&str, &str)], description: &str, ends_at: Option<&str>) -> Alert {
    let texts = |pairs: &[(&str, &str)]| pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let annotations =
        [("summary", "A component is down."), ("description", description), ("runbook_url", "docs/runbooks/decisionbox.md#down")];
    Alert { labels: texts(labels), annotations: texts(&annotations), starts_at: time("2026-11-21T08:00:00Z"), ends_at: ends_at.map(time) }
}

fn message() -> Message {
    let labels = |check| [("alertname", "Down"), ("severity", "critical"), ("check", check)];
    Message {
        group: BTreeMap::from([("alertname".to_owned(), "Down".to_owned())]),
        news: vec![
            alert(&labels("api"), "api is down.", None),
            alert(&labels("mongodb"), "mongodb is down.", Some("2026-11-21T09:00:00Z")),
        ],
        still: vec![alert(&labels("dashboard"), "dashboard is down.", None)],
    }
}

fn hostile() -> Message {
    let labels = [("alertname", "Down"), ("severity", "critical"), ("reason", HOSTILE)];
    let mut one = alert(&labels, HOSTILE, None);
    one.annotations.insert("summary".to_owned(), HOSTILE.to_owned());
    one.annotations.insert("runbook_url".to_owned(), HOSTILE.to_owned());
    Message { group: BTreeMap::from([("alertname".to_owned(), "Down".to_owned())]), news: vec![one], still: vec![] }
}

/// A thousand alerts with long texts, of several bytes a character.
fn enormous() -> Message {
    let one = |number: usize| {
        let number = number.to_string();
        alert(&[("alertname", "Down"), ("n", &number)], &"<ü🦀&".repeat(2000), None)
    };
    Message { group: BTreeMap::new(), news: (0..1000).map(one).collect(), still: vec![] }
}

#[test]
fn slack_gets_the_news_in_full_and_the_rest_as_a_number() {
    assert_eq!(
        slack::body(&message()),
        json!({
            "text": "[FIRING 1] Down: A component is down.",
            "unfurl_links": false,
            "unfurl_media": false,
            "attachments": [{
                "color": "danger",
                "fallback": "[FIRING 1] Down: A component is down.",
                "text": ":rotating_light: api is down. (since 2026-11-21 08:00:00 UTC)\n\
                    :white_check_mark: mongodb is down. (2026-11-21 08:00:00 UTC to 2026-11-21 09:00:00 UTC)\n\
                    Still firing: 1 more.\n\
                    Runbook: docs/runbooks/decisionbox.md#down",
                "mrkdwn_in": [],
            }],
        })
    );
    let reminder = Message { news: vec![], ..message() };
    assert_eq!(slack::body(&reminder)["text"], "[STILL FIRING 1] Down: A component is down.");
    let over = Message { news: vec![message().news[1].clone()], still: vec![], ..message() };
    let over = slack::body(&over);
    assert_eq!((&over["text"], &over["attachments"][0]["color"]), (&json!("[RESOLVED] Down: A component is down."), &json!("good")));
}

#[test]
fn slack_reads_no_mention_and_no_link_in_hostile_text() {
    let body = slack::body(&hostile());
    let text = format!("{}\n{}", body["text"].as_str().unwrap(), body["attachments"][0]["text"].as_str().unwrap());
    assert!(!text.contains(['<', '>']) && text.contains("&lt;!channel&gt;") && text.contains(" &amp; "), "{text}");
    assert_eq!(text.lines().count(), 3, "{text}");
    let large = slack::body(&enormous());
    let text = large["attachments"][0]["text"].as_str().unwrap();
    assert!(characters(text) <= 7000 && text.contains("… and 99"), "{}", characters(text));
}

#[test]
fn discord_mentions_nobody_and_reads_no_markup() {
    assert_eq!(
        discord::body(&message()),
        json!({
            "content": "\\[FIRING 1\\] Down\\: A component is down.",
            "allowed_mentions": { "parse": [] },
            "embeds": [{
                "color": 0x00d0_3b3b,
                "description": "🚨 api is down. (since 2026-11-21 08:00:00 UTC)\n\
                    ✅ mongodb is down. (2026-11-21 08:00:00 UTC to 2026-11-21 09:00:00 UTC)\n\
                    Still firing: 1 more.\n\
                    Runbook: docs/runbooks/decisionbox.md\\#down",
            }],
        })
    );
    let body = discord::body(&hostile());
    let text = body["embeds"][0]["description"].as_str().unwrap();
    assert!(
        text.contains("\\@everyone") && text.contains("\\[click\\]\\(https\\://evil.example\\)") && text.contains("\\<\\@1\\>"),
        "{text}"
    );
    let large = discord::body(&enormous());
    assert!(characters(large["embeds"][0]["description"].as_str().unwrap()) <= 4096);
    assert!(characters(large["content"].as_str().unwrap()) <= 2000);
}

#[test]
fn a_webhook_gets_what_alertmanager_would_send() {
    let body = webhook::body("ops", &message());
    let members = ["version", "groupKey", "truncatedAlerts", "status", "receiver", "groupLabels", "commonLabels", "commonAnnotations"];
    let part: BTreeMap<&str, &Value> = members.into_iter().map(|member| (member, &body[member])).collect();
    assert_eq!(
        serde_json::to_value(part).unwrap(),
        json!({
            "version": "4",
            "groupKey": "{}:{alertname=\"Down\"}",
            "truncatedAlerts": 0,
            "status": "firing",
            "receiver": "ops",
            "groupLabels": { "alertname": "Down" },
            "commonLabels": { "alertname": "Down", "severity": "critical" },
            "commonAnnotations": { "runbook_url": "docs/runbooks/decisionbox.md#down", "summary": "A component is down." },
        })
    );
    let alerts = body["alerts"].as_array().unwrap();
    let seen: Vec<[&str; 3]> = alerts
        .iter()
        .map(|alert| [&alert["labels"]["check"], &alert["status"], &alert["endsAt"]].map(|value| value.as_str().unwrap()))
        .collect();
    assert_eq!(
        seen,
        [
            ["api", "firing", "0001-01-01T00:00:00Z"],
            ["mongodb", "resolved", "2026-11-21T09:00:00Z"],
            ["dashboard", "firing", "0001-01-01T00:00:00Z"]
        ]
    );
    assert_eq!(alerts[0]["fingerprint"].as_str().unwrap().len(), 16);
    // Hostile text is data, word for word.
    assert_eq!(webhook::body("ops", &hostile())["alerts"][0]["labels"]["reason"], HOSTILE);
}

#[test]
fn a_signature_is_the_hmac_of_the_body() {
    // RFC 4231, test case 2.
    assert_eq!(
        webhook::signature("Jefe", b"what do ya want for nothing?"),
        "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
}

#[test]
fn a_mail_has_no_header_that_an_alert_wrote() {
    let mailbox = |text: &str| text.parse().unwrap();
    let mail = email::mail(&hostile(), &mailbox("B <b@example.org>"), &[mailbox("a@example.org"), mailbox("c@example.org")]).unwrap();
    let raw = String::from_utf8(mail.formatted()).unwrap();
    let (head, body) = raw.split_once("\r\n\r\n").unwrap();
    let names: Vec<&str> = head.lines().filter(|line| !line.starts_with([' ', '\t'])).map(|line| line.split_once(':').unwrap().0).collect();
    for name in &names {
        let known = ["From", "Subject", "Content-Type", "To", "Date", "MIME-Version", "Content-Transfer-Encoding", "Auto-Submitted"];
        assert!(known.contains(name), "{head}");
    }
    assert!(head.contains("To: a@example.org, c@example.org"), "{head}");
    assert!(!body.lines().any(|line| line.starts_with("Bcc") || line == "."), "{body}");
    assert_eq!(email::subject(&message()), "[FIRING 1] Down: A component is down.");
    assert_eq!(
        email::text(&message()),
        "[FIRING 1] Down: A component is down.\n\n\
            FIRING since 2026-11-21 08:00:00 UTC\napi is down.\ncheck=\"api\" severity=\"critical\"\n\n\
            RESOLVED 2026-11-21 08:00:00 UTC to 2026-11-21 09:00:00 UTC\nmongodb is down.\ncheck=\"mongodb\" severity=\"critical\"\n\n\
            Still firing: 1 more.\nRunbook: docs/runbooks/decisionbox.md#down\n"
    );
    assert!(email::text(&enormous()).len() < 200_000);
}

#[test]
fn sentry_gets_one_event_an_alert_however_often_it_is_sent() {
    let dsn = Url::parse("https://key:old@sentry.example/prefix/42").unwrap();
    let ingest = Ingest::of(&dsn).unwrap();
    assert_eq!(ingest.url.as_str(), "https://sentry.example/prefix/api/42/envelope/");
    assert!(ingest.authorisation.ends_with("sentry_key=key"), "{}", ingest.authorisation);
    assert_eq!(Ingest::of(&Url::parse("https://key@sentry.example/").unwrap()), None);

    let now = time("2026-11-21T10:00:00Z");
    let envelope = sentry::envelope(&message(), now).unwrap();
    let lines: Vec<Value> = envelope.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1]["length"], envelope.lines().nth(2).unwrap().len());
    assert_eq!((&lines[2]["level"], &lines[2]["tags"]["check"]), (&json!("fatal"), &json!("api")));
    assert_eq!(lines[0]["event_id"], lines[2]["event_id"]);
    assert_eq!(lines[0]["event_id"].as_str().unwrap().len(), 32);
    let again = sentry::envelope(&message(), time("2026-11-21T11:00:00Z")).unwrap();
    assert_eq!(again.lines().nth(2), envelope.lines().nth(2));
    assert_eq!(sentry::envelope(&hostile(), now).unwrap().lines().count(), 3);
}

#[test]
fn alertmanager_gets_an_array_with_both_times() {
    let ended = &message().news[1..];
    assert_eq!(
        alertmanager::body(ended),
        json!([{
            "labels": { "alertname": "Down", "severity": "critical", "check": "mongodb" },
            "annotations": {
                "summary": "A component is down.", "description": "mongodb is down.", "runbook_url": "docs/runbooks/decisionbox.md#down"
            },
            "startsAt": "2026-11-21T08:00:00Z",
            "endsAt": "2026-11-21T09:00:00Z",
        }])
    );
}

#[test]
fn sentry_gets_a_fatal_line_once_however_often_it_is_read() {
    let fields = json!({ "level": "fatal", "error": "x".repeat(10_000), "nested": { "a": 1 }, "count": 7, "hostile": HOSTILE });
    let line = FatalLine {
        input: "agent".to_owned(),
        source: "/logs/agent.log".to_owned(),
        offset: 17,
        time: Some(time("2026-11-21T08:00:00Z")),
        message: HOSTILE.to_owned(),
        fields: fields.as_object().unwrap().clone(),
    };
    let envelope = sentry::fatal(&line, time("2026-11-21T10:00:00Z"));
    let lines: Vec<&str> = envelope.lines().collect();
    assert_eq!(lines.len(), 3, "a line feed in a text does not end the item");
    let [head, item, event] = [0, 1, 2].map(|number| serde_json::from_str::<Value>(lines[number]).unwrap());
    assert_eq!((head["event_id"].as_str().unwrap().len(), &head["event_id"]), (32, &event["event_id"]));
    assert_eq!(item["length"], lines[2].len());
    assert_eq!((&event["level"], &event["timestamp"]), (&json!("fatal"), &json!("2026-11-21T08:00:00Z")));
    assert_eq!((&event["extra"]["count"], &event["extra"]["nested"]), (&json!(7), &json!("{\"a\":1}")));
    assert!(event["extra"]["error"].as_str().unwrap().chars().count() <= 4096);
    assert_eq!(event["message"]["formatted"], HOSTILE);

    let id = |line: &FatalLine| sentry::fatal(line, time("2026-11-21T11:00:00Z")).lines().next().unwrap()[..48].to_owned();
    assert_eq!(id(&line), envelope[..48], "read again");
    assert_ne!(id(&FatalLine { offset: 18, ..line.clone() }), envelope[..48]);
}
