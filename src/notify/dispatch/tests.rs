//! When who is told what: single stories; random ones are in `random`.

mod random;

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::*;
use crate::notify::message::Kind;
use crate::notify::outcome::Reason;

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
/// The wall at the beginning, in milliseconds.
const START: i64 = 1_800_000_000_000;

fn policy() -> Policy {
    Policy {
        severities: None,
        group_wait: Duration::from_secs(30),
        group_interval: Duration::from_secs(300),
        remind_every: Some(Duration::from_secs(4 * 3600)),
        rate: 60,
        is_event: false,
    }
}

fn at(uptime: i64) -> Moment {
    Moment { wall: START + uptime, uptime }
}

fn wall(uptime: i64) -> Timestamp {
    Timestamp::from_millisecond(START + uptime).unwrap()
}

fn alert(name: &str, check: &str, begin: i64, end: Option<i64>) -> Alert {
    let labels = [("alertname", name), ("severity", "critical"), ("check", check)];
    let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let annotations = BTreeMap::from([("description".to_owned(), format!("{check} is down"))]);
    Alert { labels, annotations, starts_at: wall(begin), ends_at: end.map(wall) }
}

fn firing(check: &str, begin: i64) -> Alert {
    alert("Down", check, begin, None)
}

fn ended(check: &str, begin: i64, end: i64) -> Alert {
    alert("Down", check, begin, Some(end))
}

/// What is told between two moments, with a look each second, while `alerts` are what is: `second: +new -end ~still`.
fn told(dispatch: &mut Dispatch, from: i64, to: i64, alerts: &[Alert]) -> Vec<String> {
    let mut told = Vec::new();
    for now in (from..to).step_by(1000) {
        if now % (15 * SECOND) == 0 {
            dispatch.observe(alerts, &BTreeSet::new(), at(now));
        }
        if let Some(message) = dispatch.next(now) {
            told.push(format!("{}: {}", now / SECOND, written(&message)));
            dispatch.settle(&message, Outcome::Delivered, now, 0);
        }
    }
    told
}

fn written(message: &Message) -> String {
    let check = |alert: &Alert| alert.labels["check"].clone();
    let news = message.news.iter().map(|alert| format!("{}{}", if alert.is_firing() { "+" } else { "-" }, check(alert)));
    news.chain(message.still.iter().map(|alert| format!("~{}", check(alert)))).collect::<Vec<_>>().join(" ")
}

fn silent() -> Vec<String> {
    Vec::new()
}

#[test]
fn what_fires_together_is_told_together_once_and_so_is_its_end() {
    let mut dispatch = Dispatch::new(policy());
    assert_eq!(told(&mut dispatch, 0, 15 * SECOND, &[firing("a", 0)]), silent());
    let both = [firing("a", 0), firing("b", 0)];
    assert_eq!(told(&mut dispatch, 15 * SECOND, HOUR, &both), ["30: +a +b"]);
    assert_eq!(told(&mut dispatch, HOUR, HOUR + MINUTE, &[firing("a", 0), ended("b", 0, HOUR)]), ["3630: -b ~a"]);
    // The next news of the group waits for its interval.
    let all = [firing("a", 0), firing("c", HOUR + MINUTE)];
    assert_eq!(told(&mut dispatch, HOUR + MINUTE, 2 * HOUR, &all), ["3930: +c ~a"]);
    let ends = [ended("a", 0, 2 * HOUR), ended("c", HOUR, 2 * HOUR)];
    assert_eq!(told(&mut dispatch, 2 * HOUR, 3 * HOUR, &ends), ["7230: -a -c"]);
    assert_eq!(told(&mut dispatch, 3 * HOUR, 30 * HOUR, &[]), silent());
    assert_eq!((dispatch.len(), dispatch.groups.len()), (0, 0), "nothing is remembered for ever");
}

#[test]
fn what_goes_on_is_reminded_of() {
    let mut dispatch = Dispatch::new(policy());
    let all = [firing("a", 0)];
    assert_eq!(told(&mut dispatch, 0, 9 * HOUR, &all), ["30: +a", "14430: ~a", "28830: ~a"]);
    let mut dispatch = Dispatch::new(Policy { remind_every: None, ..policy() });
    assert_eq!(told(&mut dispatch, 0, 9 * HOUR, &all), ["30: +a"]);
}

#[test]
fn one_that_comes_and_goes_is_told_at_most_once_an_interval() {
    let mut dispatch = Dispatch::new(policy());
    let mut all = Vec::new();
    for number in 0..240 {
        let now = number * 15 * SECOND;
        let state = if number % 2 == 0 { firing("a", now) } else { ended("a", now - 15 * SECOND, now) };
        all.extend(told(&mut dispatch, now, now + 15 * SECOND, &[state]));
    }
    assert!(!all.is_empty() && all.len() <= 12, "an hour of it: {all:?}");
    // Slower: each phase is seen, and yet no more is told than an interval allows.
    let mut dispatch = Dispatch::new(policy());
    let mut all = Vec::new();
    for number in 0..60 {
        let now = number * MINUTE;
        let state = if number % 2 == 0 { firing("a", now) } else { ended("a", now - MINUTE, now) };
        all.extend(told(&mut dispatch, now, now + MINUTE, &[state]));
    }
    assert!((10..=12).contains(&all.len()), "{all:?}");
    for pair in all.windows(2) {
        assert_ne!(pair[0].split(' ').next_back(), pair[1].split(' ').next_back(), "{all:?}");
    }
}

#[test]
fn a_receiver_that_was_away_hears_what_holds_and_of_all_that_it_missed() {
    let mut dispatch = Dispatch::new(policy());
    let away = Outcome::Later(Reason::Connection, None);
    let mut attempts = 0;
    for now in (0..HOUR).step_by(1000) {
        let b = if now < 30 * MINUTE { firing("b", 0) } else { ended("b", 0, 30 * MINUTE) };
        // After 15 minutes an end is no longer listed.
        let listed = if now < 45 * MINUTE { vec![firing("a", 0), b] } else { vec![firing("a", 0)] };
        dispatch.observe(&listed, &BTreeSet::new(), at(now));
        if let Some(message) = dispatch.next(now) {
            attempts += 1;
            dispatch.settle(&message, away, now, 1023);
        }
    }
    assert!((15..25).contains(&attempts), "{attempts} attempts within an hour");
    assert_eq!((dispatch.waiting(), dispatch.failures()), (2, attempts));
    // It is back: one message, with the whole life of what is over.
    let all = told(&mut dispatch, HOUR, HOUR + 10 * MINUTE, &[firing("a", 0)]);
    assert_eq!(all.len(), 1);
    assert!(all[0].ends_with(": +a -b"), "{all:?}");
}

#[test]
fn what_is_brief_is_not_told_and_what_was_tried_is() {
    let mut dispatch = Dispatch::new(policy());
    dispatch.observe(&[firing("a", 0)], &BTreeSet::new(), at(0));
    assert_eq!(told(&mut dispatch, 15 * SECOND, HOUR, &[ended("a", 0, 10 * SECOND)]), silent());
}

#[test]
fn what_is_refused_is_not_repeated_but_comes_with_the_next_news() {
    let mut dispatch = Dispatch::new(policy());
    let mut refused = Vec::new();
    for now in (0..9 * HOUR).step_by(1000) {
        dispatch.observe(&[firing("a", 0)], &BTreeSet::new(), at(now));
        if let Some(message) = dispatch.next(now) {
            refused.push(now / SECOND);
            dispatch.settle(&message, Outcome::Refused(Reason::Rejected), now, 0);
        }
    }
    assert_eq!(refused, [30, 14_430, 28_830]);
    let begin = 9 * HOUR;
    assert_eq!(told(&mut dispatch, begin, 10 * HOUR, &[firing("a", 0), firing("b", begin)]), ["32430: +a +b"]);
    // An end that is refused is not lost either.
    let end = 10 * HOUR;
    dispatch.observe(&[ended("a", 0, end), firing("b", begin)], &BTreeSet::new(), at(end));
    let message = dispatch.next(end + 30 * SECOND).unwrap();
    dispatch.settle(&message, Outcome::Refused(Reason::Rejected), end + 30 * SECOND, 0);
    assert_eq!(told(&mut dispatch, end + MINUTE, end + 5 * HOUR, &[firing("b", begin)]), ["50430: -a ~b"]);
}

#[test]
fn a_symptom_is_told_when_its_cause_is_over_and_it_is_not() {
    let mut dispatch = Dispatch::new(policy());
    let symptom = firing("a", 0);
    let silenced = BTreeSet::from([symptom.fingerprint()]);
    for now in (0..HOUR).step_by(15_000) {
        dispatch.observe(std::slice::from_ref(&symptom), &silenced, at(now));
        assert_eq!(dispatch.next(now), None);
    }
    assert_eq!(told(&mut dispatch, HOUR, 2 * HOUR, std::slice::from_ref(&symptom)), ["3630: +a"]);
    // Its end is told, although somebody has a better word for it now.
    for now in (2 * HOUR..7 * HOUR).step_by(15_000) {
        dispatch.observe(std::slice::from_ref(&symptom), &silenced, at(now));
        assert_eq!(dispatch.next(now), None, "nobody is reminded of a symptom");
    }
    dispatch.observe(&[ended("a", 0, 7 * HOUR)], &silenced, at(7 * HOUR));
    assert_eq!(told(&mut dispatch, 7 * HOUR + SECOND, 8 * HOUR, &[ended("a", 0, 7 * HOUR)]), ["25230: -a"]);
}

#[test]
fn severities_are_filtered_and_events_have_no_end() {
    let mut dispatch = Dispatch::new(Policy { severities: Some(BTreeSet::from(["warning".to_owned()])), ..policy() });
    assert_eq!(told(&mut dispatch, 0, HOUR, &[firing("a", 0)]), silent());
    let policy = Policy { is_event: true, group_wait: Duration::ZERO, remind_every: None, ..policy() };
    let mut dispatch = Dispatch::new(policy);
    assert_eq!(told(&mut dispatch, 0, HOUR, &[firing("a", 0), firing("b", 0)]), ["0: +a", "1: +b"]);
    assert_eq!(told(&mut dispatch, HOUR, 2 * HOUR, &[ended("a", 0, HOUR), firing("b", 0)]), silent());
    assert_eq!(told(&mut dispatch, 2 * HOUR, 3 * HOUR, &[firing("a", 2 * HOUR)]), ["7200: +a"]);
}

#[test]
fn no_more_is_sent_than_the_rate_allows_and_nothing_is_lost_by_it() {
    let mut dispatch = Dispatch::new(Policy { rate: 10, ..policy() });
    let all: Vec<Alert> = (0..30).map(|number| alert(&format!("A{number}"), &number.to_string(), 0, None)).collect();
    let first = told(&mut dispatch, 0, HOUR, &all);
    assert_eq!(first.len(), 10, "{first:?}");
    assert_eq!(dispatch.waiting(), 20);
    assert_eq!(told(&mut dispatch, HOUR, 3 * HOUR, &all).len(), 20);
}

#[test]
fn what_finds_no_room_is_counted_once_and_told_when_there_is() {
    let mut dispatch = Dispatch::new(policy());
    let all: Vec<Alert> = (0..MOST + 5).map(|number| firing(&number.to_string(), 0)).collect();
    for now in [0, 15 * SECOND] {
        dispatch.observe(&all, &BTreeSet::new(), at(now));
    }
    assert_eq!((dispatch.len(), dispatch.take_dropped(), dispatch.take_dropped()), (MOST, 5, 0));
    let message = dispatch.next(30 * SECOND).unwrap();
    dispatch.settle(&message, Outcome::Delivered, 30 * SECOND, 0);
    let mut later = all.clone();
    for alert in later.iter_mut().filter(|alert| message.news.contains(alert)).take(10) {
        alert.ends_at = Some(wall(HOUR));
    }
    let messages = told(&mut dispatch, HOUR, 2 * HOUR, &later);
    assert_eq!(messages.join(" ").matches('+').count(), 5, "{}", messages.len());
}

#[test]
fn who_may_have_heard_of_an_end_hears_of_the_next_begin() {
    let mut dispatch = Dispatch::new(policy());
    assert_eq!(told(&mut dispatch, 0, HOUR, &[firing("a", 0)]).len(), 1);
    let ended = Alert { ends_at: Some(wall(HOUR)), ..firing("a", 0) };
    dispatch.observe(&[ended], &BTreeSet::new(), at(HOUR));
    let end = (HOUR..2 * HOUR).step_by(1000).find_map(|now| dispatch.next(now)).expect("the end is told");
    assert_eq!(end.kind(), Kind::Resolved);
    // The process is killed, and nobody knows whether the message arrived; the alert has begun again meanwhile.
    let mut killed = Dispatch::restore(policy(), dispatch.kept(at(2 * HOUR)), at(2 * HOUR));
    let messages = told(&mut killed, 2 * HOUR, 3 * HOUR, &[firing("a", 2 * HOUR)]);
    assert_eq!(messages.len(), 1, "{messages:?}");
    // Where it is known that the message did not arrive, there is nothing to say: it goes on.
    dispatch.settle(&end, Outcome::Later(Reason::Timeout, None), 2 * HOUR, 0);
    let mut alive = Dispatch::restore(policy(), dispatch.kept(at(2 * HOUR)), at(2 * HOUR));
    assert!(told(&mut alive, 2 * HOUR, 3 * HOUR, &[firing("a", 2 * HOUR)]).is_empty());
}

#[test]
fn a_restart_neither_repeats_nor_forgets_and_no_clock_floods() {
    let story = |jump: i64| {
        let mut dispatch = Dispatch::new(policy());
        assert_eq!(told(&mut dispatch, 0, HOUR, &[firing("a", 0), firing("b", 0)]).len(), 1);
        // The new process counts its time from 0, and does not yet know what fires.
        let kept = dispatch.kept(at(HOUR));
        let bytes = postcard::to_stdvec(&kept).unwrap();
        let begin = |uptime: i64| Moment { wall: START + HOUR + jump + uptime, uptime };
        let mut dispatch = Dispatch::restore(policy(), postcard::from_bytes(&bytes).unwrap(), begin(0));
        let mut all = Vec::new();
        for now in (0..3 * HOUR).step_by(1000) {
            let listed = if now < 10 * MINUTE { vec![] } else { vec![firing("a", HOUR + 10 * MINUTE)] };
            dispatch.observe(&listed, &BTreeSet::new(), begin(now));
            if let Some(message) = dispatch.next(now) {
                all.push((message.kind(), written(&message)));
                dispatch.settle(&message, Outcome::Delivered, now, 0);
            }
        }
        all
    };
    // `b` was never seen again: its end is told once, when it can be known.
    assert_eq!(story(5000), [(Kind::Resolved, "-b ~a".to_owned())]);
    assert_eq!(story(-24 * HOUR), story(5000));
    let ahead = story(24 * HOUR);
    assert_eq!(ahead, [(Kind::Reminder, "~a ~b".to_owned()), (Kind::Resolved, "-b ~a".to_owned())]);
}
