//! When who is told what: single stories, and random ones against a model.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::notify::dispatch::kept::Kept;
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

/// What happens next in a random story.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// An alert begins or ends.
    Toggle(usize),
    /// So many seconds pass.
    Pass(i64),
    /// The receiver goes away or comes back.
    Receiver,
    /// The process ends in order and starts again; the wall has jumped by so many seconds.
    Restart(i64),
    /// The process is killed after a message was sent, before that is written down.
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..5_usize).prop_map(Step::Toggle),
        6 => (1..900_i64).prop_map(Step::Pass),
        1 => Just(Step::Receiver),
        1 => (-5000..5000_i64).prop_map(Step::Restart),
        1 => Just(Step::Kill),
    ]
}

/// Everything around a dispatch: what is, what was written down, and what arrived.
struct World {
    dispatch: Dispatch,
    written: Kept,
    now: i64,
    /// How far the wall is from the clock that never jumps.
    wall: i64,
    alerts: BTreeMap<usize, Alert>,
    is_away: bool,
    kill_next: bool,
    /// For each alert, what the receiver heard: `true` is that it fires; and whether a kill may have repeated it.
    heard: BTreeMap<u64, Vec<bool>>,
    /// What was in a message that did not arrive, and has to.
    owed: BTreeSet<u64>,
    kills: usize,
    repeated: usize,
}

impl World {
    fn new() -> Self {
        let (dispatch, written) = (Dispatch::new(policy()), Kept::default());
        let (alerts, heard, owed) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { dispatch, written, now: 0, wall: START, alerts, is_away: false, kill_next: false, heard, owed, kills: 0, repeated: 0 }
    }

    fn moment(&self) -> Moment {
        Moment { wall: self.wall + self.now, uptime: self.now }
    }

    fn restart(&mut self) {
        self.dispatch = Dispatch::restore(policy(), self.written.clone(), self.moment());
    }

    fn keep(&mut self) {
        if self.dispatch.take_changed() {
            self.written = self.dispatch.kept(self.moment());
        }
    }

    fn pass(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.now += SECOND;
            if self.now % (15 * SECOND) == 0 {
                let horizon = wall(self.now - 15 * MINUTE);
                let listed: Vec<Alert> =
                    self.alerts.values().filter(|alert| alert.ends_at.is_none_or(|end| end > horizon)).cloned().collect();
                self.dispatch.observe(&listed, &BTreeSet::new(), self.moment());
                self.keep();
            }
            let Some(message) = self.dispatch.next(self.now) else { continue };
            self.keep();
            if self.is_away {
                // An end may be taken back by a new begin; a begin that was tried is told.
                let is_begin = |alert: &&Alert| self.heard.get(&alert.fingerprint()).and_then(|heard| heard.last()) != Some(&true);
                self.owed.extend(message.news.iter().filter(is_begin).map(Alert::fingerprint));
                self.dispatch.settle(&message, Outcome::Later(Reason::Timeout, None), self.now, 7);
                continue;
            }
            for alert in &message.news {
                self.hear(alert);
            }
            if std::mem::take(&mut self.kill_next) {
                self.kills += 1;
                self.restart();
                continue;
            }
            self.dispatch.settle(&message, Outcome::Delivered, self.now, 7);
            self.keep();
        }
    }

    fn hear(&mut self, alert: &Alert) {
        let fingerprint = alert.fingerprint();
        let was_owed = self.owed.remove(&fingerprint);
        let heard = self.heard.entry(fingerprint).or_default();
        let knows = heard.last() == Some(&true);
        // An end without its begin tells of both, where the begin did not arrive.
        let is_repeated = if alert.is_firing() { knows } else { !knows && !was_owed };
        if is_repeated {
            self.repeated += 1;
        }
        heard.push(alert.is_firing());
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Pass(seconds) => self.pass(seconds),
            Step::Receiver => self.is_away = !self.is_away,
            Step::Kill => self.kill_next = true,
            Step::Restart(jump) => {
                self.keep();
                self.wall += jump * SECOND;
                self.restart();
            }
            Step::Toggle(number) => {
                let now = wall(self.now);
                let begin = firing(&number.to_string(), self.now);
                let alert = self.alerts.entry(number).or_insert_with(|| Alert { ends_at: Some(now), ..begin.clone() });
                if alert.is_firing() { alert.ends_at = Some(now) } else { *alert = begin }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Whatever happens: no begin and no end is told twice but for a kill between sending and writing, an end only after
    /// its begin or for both, and in the end the receiver knows what is.
    #[test]
    fn in_random_stories_everything_is_told_once(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.is_away = false;
        world.kill_next = false;
        world.pass(3600);
        prop_assert!(world.repeated <= world.kills * 5, "{} repeated by {} kills", world.repeated, world.kills);
        prop_assert!(world.owed.is_empty(), "what was tried is told in the end: {:?}", world.owed);
        for alert in world.alerts.values() {
            let last = world.heard.get(&alert.fingerprint()).and_then(|heard| heard.last().copied()).unwrap_or(false);
            prop_assert_eq!(last, alert.is_firing(), "{:?} was heard of {:?}", alert, world.heard.get(&alert.fingerprint()));
        }
        prop_assert_eq!(world.dispatch.waiting(), 0);
    }
}
