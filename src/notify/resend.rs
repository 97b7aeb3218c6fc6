//! What an Alertmanager is sent, and when: it forgets what is not repeated, and decides by itself who is told. Pure.
//!
//! Each alert has both times: without an end an Alertmanager would decide when it is over, and without a begin it takes the
//! end for one. Nothing is kept over a restart: an end that was missed comes by itself, as the alert runs out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Moment;
use crate::notify::alert::Alert;
use crate::notify::backoff::Backoff;
use crate::notify::text::bounded;

/// How often what fires is sent again.
const RESEND: i64 = 60_000;
/// What fires ends by itself after this time: four sendings, so that three may be lost.
const LIFE: Duration = Duration::from_secs(240);
/// How long an end is repeated.
const REPEAT_END: i64 = 300_000;
/// How many alerts are sent at once, as Prometheus does.
const BATCH: usize = 64;

/// What one peer is sent.
#[derive(Debug, Default)]
pub struct Resend {
    alerts: BTreeMap<u64, Sent>,
    backoff: Backoff,
}

/// An alert, and when the peer got it.
#[derive(Debug)]
struct Sent {
    alert: Alert,
    last: Option<i64>,
    /// When the peer first got its end.
    ended: Option<i64>,
    /// A batch with it was refused: it is sent by itself.
    is_alone: bool,
    /// It was refused by itself.
    is_refused: bool,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// The peer has it.
    Taken,
    /// The peer found fault with an alert in it.
    Faulty,
    /// The peer does not take it, whatever is in it.
    Unwanted,
    /// Later, and not before the time that it asks for.
    Later(Option<Duration>),
}

// === impl Sent ===

impl Sent {
    fn due(&self) -> Option<i64> {
        match (self.is_refused, self.last, self.ended) {
            (true, ..) => None,
            (_, Some(last), Some(ended)) if last - ended >= REPEAT_END => None,
            (_, None, _) => Some(i64::MIN),
            (_, Some(last), _) => Some(last + RESEND),
        }
    }
}

// === impl Resend ===

impl Resend {
    /// Takes over what is.
    pub fn observe(&mut self, alerts: &[Alert], severities: Option<&BTreeSet<String>>) {
        let is_wanted = |alert: &&Alert| severities.is_none_or(|wanted| alert.labels.get("severity").is_some_and(|it| wanted.contains(it)));
        let mut known = std::mem::take(&mut self.alerts);
        // Of one that is listed twice, the one that fires counts.
        let (firing, ended): (Vec<&Alert>, Vec<&Alert>) = alerts.iter().filter(is_wanted).partition(|alert| alert.is_firing());
        for alert in ended.into_iter().chain(firing) {
            let fingerprint = alert.fingerprint();
            let mut alert = alert.clone();
            alert.annotations.values_mut().for_each(bounded);
            let sent = match known.remove(&fingerprint) {
                Some(before) if before.alert.is_firing() == alert.is_firing() => Sent { alert, ..before },
                Some(before) => Sent { alert, last: None, ended: None, is_refused: false, ..before },
                None => Sent { alert, last: None, ended: None, is_alone: false, is_refused: false },
            };
            self.alerts.insert(fingerprint, sent);
        }
    }

    /// When [`Resend::batch`] has something, on the clock that never jumps.
    #[must_use]
    pub fn due(&self) -> Option<i64> {
        Some(self.alerts.values().filter_map(Sent::due).min()?.max(self.backoff.until().unwrap_or(i64::MIN)))
    }

    /// What is to be sent now, with both times.
    #[must_use]
    pub fn batch(&self, now: Moment) -> Vec<Alert> {
        if self.due().is_none_or(|due| due > now.uptime) {
            return Vec::new();
        }
        let due = || self.alerts.values().filter(|sent| sent.due().is_some_and(|due| due <= now.uptime));
        let batch: Vec<&Sent> = due().filter(|sent| !sent.is_alone).take(BATCH).collect();
        let batch = if batch.is_empty() { due().take(1).collect() } else { batch };
        let wall = Timestamp::from_millisecond(now.wall).unwrap_or(Timestamp::UNIX_EPOCH);
        let with_times = |sent: &Sent| {
            // A clock that was set back must not make a begin that lies behind the end: that would be refused.
            let starts_at = sent.alert.starts_at.min(wall);
            let ends_at = sent.alert.ends_at.unwrap_or_else(|| wall.checked_add(LIFE).unwrap_or(wall)).max(starts_at);
            Alert { starts_at, ends_at: Some(ends_at), ..sent.alert.clone() }
        };
        batch.into_iter().map(with_times).collect()
    }

    /// What became of a batch.
    pub fn settle(&mut self, batch: &[Alert], fate: Fate, now: i64, chance: u32) {
        if let Fate::Later(asked) = fate {
            return self.backoff.fail(now, chance, asked);
        }
        self.backoff.reset();
        for alert in batch {
            let Some(sent) = self.alerts.get_mut(&alert.fingerprint()) else { continue };
            match fate {
                Fate::Faulty if batch.len() > 1 => sent.is_alone = true,
                Fate::Faulty => sent.is_refused = true,
                _ => {
                    sent.last = Some(now);
                    if fate == Fate::Taken && !sent.alert.is_firing() {
                        sent.ended.get_or_insert(now);
                    }
                }
            }
        }
    }

    /// How many alerts the peer should have and has not.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.alerts.values().filter(|sent| sent.last.is_none() && !sent.is_refused).count()
    }

    /// How often sending has failed in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.backoff.failures()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_800_000_000;

    fn alert(name: &str, starts: i64, ends: Option<i64>) -> Alert {
        let second = |at: i64| Timestamp::from_second(START + at).unwrap();
        let labels = BTreeMap::from([("alertname".to_owned(), name.to_owned())]);
        Alert { labels, annotations: BTreeMap::new(), starts_at: second(starts), ends_at: ends.map(second) }
    }

    fn at(second: i64) -> Moment {
        Moment { wall: (START + second) * 1000, uptime: second * 1000 }
    }

    /// Sends what is due at this second, and returns the names.
    fn send(resend: &mut Resend, second: i64, fate: Fate) -> String {
        let batch = resend.batch(at(second));
        resend.settle(&batch, fate, second * 1000, 0);
        batch.iter().map(Alert::name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_fires_is_sent_each_minute_and_runs_out_after_four() {
        let mut resend = Resend::default();
        resend.observe(&[alert("a", 0, None)], None);
        let sent = resend.batch(at(10));
        assert_eq!((sent[0].starts_at.as_second(), sent[0].ends_at.unwrap().as_second()), (START, START + 250));
        assert_eq!(send(&mut resend, 10, Fate::Taken), "a");
        resend.observe(&[alert("a", 0, None), alert("b", 30, None)], None);
        assert_eq!(send(&mut resend, 30, Fate::Taken), "b");
        assert_eq!(send(&mut resend, 69, Fate::Taken), "");
        assert_eq!(send(&mut resend, 70, Fate::Taken), "a");
        // A clock that was set back by a day.
        let sent = resend.batch(Moment { wall: (START - 86_400) * 1000, uptime: 300_000 });
        assert!(sent.iter().all(|alert| alert.starts_at < alert.ends_at.unwrap()), "{sent:?}");
    }

    #[test]
    fn an_end_is_sent_at_once_and_repeated_for_five_minutes() {
        let mut resend = Resend::default();
        resend.observe(&[alert("a", 0, None)], None);
        send(&mut resend, 0, Fate::Taken);
        resend.observe(&[alert("a", 0, Some(20))], None);
        let sent: Vec<i64> = (20..900).filter(|second| send(&mut resend, *second, Fate::Taken) == "a").collect();
        assert_eq!(sent, [20, 80, 140, 200, 260, 320]);
        // It fires again.
        resend.observe(&[alert("a", 0, Some(20)), alert("a", 900, None)], None);
        assert_eq!(send(&mut resend, 900, Fate::Taken), "a");
        resend.observe(&[], None);
        assert_eq!(resend.due(), None);
    }

    #[test]
    fn one_that_is_refused_takes_no_other_with_it() {
        let mut resend = Resend::default();
        resend.observe(&[alert("a", 0, None), alert("b", 0, None), alert("bad", 0, None)], None);
        assert_eq!(send(&mut resend, 0, Fate::Faulty).len(), "a b bad".len());
        let fate = |name: &str| if name == "bad" { Fate::Faulty } else { Fate::Taken };
        let mut one_by_one = Vec::new();
        while let [one] = resend.batch(at(0)).as_slice() {
            one_by_one.push(one.name().to_owned());
            resend.settle(std::slice::from_ref(one), fate(one.name()), 0, 0);
        }
        one_by_one.sort();
        assert_eq!((one_by_one.join(" ").as_str(), resend.waiting()), ("a b bad", 0));
        // It is tried again when it has changed.
        resend.observe(&[alert("a", 0, None), alert("b", 0, None), alert("bad", 0, Some(10))], None);
        assert_eq!(send(&mut resend, 10, Fate::Taken), "bad");
    }

    #[test]
    fn a_peer_that_is_away_gets_what_holds_when_it_is_back() {
        let mut resend = Resend::default();
        let all: Vec<Alert> = (0..100).map(|number| alert(&number.to_string(), 0, None)).collect();
        resend.observe(&all, Some(&BTreeSet::new()));
        assert_eq!(resend.due(), None, "no severity is wanted");
        resend.observe(&all, None);
        assert_eq!(resend.batch(at(0)).len(), BATCH);
        assert_ne!(send(&mut resend, 0, Fate::Later(Some(Duration::from_secs(30)))), "");
        assert_eq!(send(&mut resend, 29, Fate::Taken), "");
        send(&mut resend, 30, Fate::Taken);
        assert_eq!((resend.batch(at(30)).len(), resend.waiting()), (36, 36));
        // What it does not want at all is not tried again at once.
        send(&mut resend, 30, Fate::Unwanted);
        assert_eq!(send(&mut resend, 31, Fate::Taken), "");
    }
}
