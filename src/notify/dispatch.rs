//! What one receiver has been told and what it is told next, and when. Pure: `now` and chance are arguments.
//!
//! There is no queue of messages: what a receiver knows is kept beside what is, and a message is made of the difference in
//! the moment in which it is sent. So a receiver that was away hears what holds now, in one message a group, and a flapping
//! alert is told of at most once an interval. An alert that began again before its end was told goes on.
//!
//! Intervals are measured by the clock that never jumps; only [`kept`] maps them to the wall, for a restart.

pub mod kept;
mod pace;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Moment;
use crate::config::notify::Policy;
use crate::notify::alert::Alert;
use crate::notify::backoff::Backoff;
use crate::notify::dispatch::pace::Pace;
use crate::notify::message::{GroupLabels, Message};
use crate::notify::outcome::Outcome;
use crate::notify::text::bounded;

/// What alerts are grouped by, as in the sample for Alertmanager.
const GROUP_BY: [&str; 2] = ["alertname", "job"];
/// How many alerts are kept in mind for a receiver. The shipped rules have some 60; 1,000 alerts of 1 KiB are 1 MiB.
pub const MOST: usize = 1000;
/// An alert that is gone without its end has ended after so long: what has ended is listed for as long. A process that
/// has just started may not know yet what fires.
const GONE_AFTER: i64 = 15 * 60_000;
/// What a receiver refused is said again with the next news of its group, or after this time.
const REFUSED_AGAIN: i64 = 4 * 3_600_000;

/// What one receiver knows and is to know.
#[derive(Debug)]
pub struct Dispatch {
    policy: Policy,
    groups: BTreeMap<GroupLabels, Group>,
    backoff: Backoff,
    pace: Pace,
    /// Alerts for which there was no room, and which have been counted.
    overflow: BTreeSet<u64>,
    dropped: u64,
    is_changed: bool,
}

/// Alerts that are told together.
#[derive(Debug, Default)]
struct Group {
    /// When the last message was sent.
    last: Option<i64>,
    incidents: BTreeMap<u64, Incident>,
}

/// An alert, and what the receiver knows of it.
#[derive(Clone, Debug)]
struct Incident {
    alert: Alert,
    /// The receiver knows that it fires.
    is_told: bool,
    /// It was tried to tell: from then on it is told, even when it has ended meanwhile.
    is_tried: bool,
    /// A message tells of it in this moment: after a kill nobody knows whether it arrived.
    is_under_way: bool,
    /// Another alert says it all.
    is_inhibited: bool,
    /// Since when it is known to fire, and to be nobody's symptom.
    since: i64,
    /// Since when it is known to have ended.
    ended: Option<i64>,
    /// Since when it is not in the list any more, and when that was by the wall.
    gone: Option<(i64, Timestamp)>,
    /// When the receiver refused to hear of it.
    refused: Option<i64>,
}

// === impl Incident ===

impl Incident {
    fn new(alert: &Alert, is_inhibited: bool, now: i64) -> Self {
        let alert = shortened(alert);
        let (is_told, is_tried, is_under_way) = (false, false, false);
        Self { alert, is_told, is_tried, is_under_way, is_inhibited, since: now, ended: None, gone: None, refused: None }
    }

    /// Whether the receiver is to hear of it.
    fn is_news(&self, policy: &Policy) -> bool {
        match self.ended {
            None => !self.is_told && !self.is_inhibited,
            Some(_) if self.is_told => !policy.is_event,
            Some(_) => self.is_tried,
        }
    }

    /// Whether nobody needs to hear of it any more. One that comes and goes is kept for a while, so that it is told.
    fn is_over(&self, policy: &Policy, now: i64) -> bool {
        let is_brief = !self.is_told && !self.is_inhibited;
        let keep = if is_brief { millis(policy.group_wait) } else { 0 };
        !self.is_news(policy) && self.ended.is_some_and(|ended| now - ended >= keep)
    }

    fn end(&mut self, at: Timestamp, now: i64) {
        self.alert.ends_at = Some(at.max(self.alert.starts_at));
        (self.ended, self.refused) = (Some(now), None);
    }
}

// === impl Group ===

impl Group {
    /// When it has something to say.
    fn due(&self, policy: &Policy) -> Option<i64> {
        let (wait, interval) = (millis(policy.group_wait), millis(policy.group_interval));
        let not_before = self.last.map_or(i64::MIN, |last| last.saturating_add(interval));
        let news = self.incidents.values().filter(|incident| incident.is_news(policy)).map(|incident| match incident.refused {
            Some(refused) => refused + policy.remind_every.map_or(REFUSED_AGAIN, millis),
            None => incident.ended.unwrap_or(incident.since).saturating_add(wait).max(not_before),
        });
        let is_reminded = |incident: &Incident| incident.is_told && incident.ended.is_none() && !incident.is_inhibited;
        let reminder = policy.remind_every.filter(|_| self.incidents.values().any(is_reminded));
        let reminder = reminder.map(|every| self.last.unwrap_or(i64::MIN).saturating_add(millis(every)));
        news.chain(reminder).min()
    }
}

// === impl Dispatch ===

impl Dispatch {
    /// Nothing is known and nothing was told.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        let pace = Pace::new(policy.rate);
        let (groups, overflow) = (BTreeMap::new(), BTreeSet::new());
        Self { policy, groups, backoff: Backoff::default(), pace, overflow, dropped: 0, is_changed: false }
    }

    /// Takes over what is: all alerts that fire or have ended lately. Of those in `silenced`, by fingerprint, nobody is told.
    pub fn observe(&mut self, alerts: &[Alert], silenced: &BTreeSet<u64>, now: Moment) {
        let mut seen = BTreeSet::new();
        let policy = self.policy.clone();
        let is_wanted = |alert: &Alert| match (&policy.severities, alert.labels.get("severity")) {
            (Some(wanted), Some(severity)) => wanted.contains(severity),
            (wanted, _) => wanted.is_none(),
        };
        let (firing, ended): (Vec<&Alert>, Vec<&Alert>) =
            alerts.iter().filter(|alert| is_wanted(alert)).partition(|alert| alert.is_firing());
        let firing: BTreeMap<u64, &Alert> = firing.into_iter().map(|alert| (alert.fingerprint(), alert)).collect();
        // What has ended makes room for what has begun.
        for alert in ended {
            let fingerprint = alert.fingerprint();
            if seen.insert(fingerprint) && !firing.contains_key(&fingerprint) {
                self.observe_end(fingerprint, alert, now.uptime);
            }
        }
        self.forget(now.uptime);
        let mut overflow = BTreeSet::new();
        let mut room = MOST.saturating_sub(self.len());
        for (fingerprint, alert) in firing {
            seen.insert(fingerprint);
            if self.observe_known(fingerprint, alert, silenced.contains(&fingerprint), now.uptime) {
                continue;
            }
            if room == 0 {
                overflow.insert(fingerprint);
                continue;
            }
            room -= 1;
            let group = self.groups.entry(group_of(alert, &self.policy)).or_default();
            group.incidents.insert(fingerprint, Incident::new(alert, silenced.contains(&fingerprint), now.uptime));
            self.is_changed = true;
        }
        self.dropped += overflow.difference(&self.overflow).count() as u64;
        self.overflow = overflow;
        self.observe_gone(&seen, now);
        self.forget(now.uptime);
    }

    fn known(&mut self, fingerprint: u64, alert: &Alert) -> Option<&mut Incident> {
        self.groups.get_mut(&group_of(alert, &self.policy))?.incidents.get_mut(&fingerprint)
    }

    fn observe_end(&mut self, fingerprint: u64, alert: &Alert, now: i64) {
        let Some(incident) = self.known(fingerprint, alert) else { return };
        incident.gone = None;
        // An end before its begin belongs to what was before.
        if let Some(at) = alert.ends_at.filter(|at| incident.ended.is_none() && *at >= incident.alert.starts_at) {
            incident.end(at, now);
            self.is_changed = true;
        }
    }

    /// Returns whether it is known.
    fn observe_known(&mut self, fingerprint: u64, alert: &Alert, is_inhibited: bool, now: i64) -> bool {
        let Some(incident) = self.known(fingerprint, alert) else { return false };
        incident.gone = None;
        // Its begin is the one that was told: a process that has started anew may date it later.
        let is_same = incident.is_told && incident.ended.is_none();
        let starts_at = if is_same { incident.alert.starts_at } else { alert.starts_at };
        incident.alert = Alert { starts_at, ..shortened(alert) };
        let (began_again, is_free) = (incident.ended.take().is_some(), incident.is_inhibited && !is_inhibited);
        if is_free {
            incident.since = now;
        }
        if began_again {
            incident.refused = None;
        }
        let is_changed = began_again || incident.is_inhibited != is_inhibited;
        incident.is_inhibited = is_inhibited;
        self.is_changed |= is_changed;
        true
    }

    fn observe_gone(&mut self, seen: &BTreeSet<u64>, now: Moment) {
        let wall = Timestamp::from_millisecond(now.wall).unwrap_or(Timestamp::UNIX_EPOCH);
        let incidents = self.groups.values_mut().flat_map(|group| &mut group.incidents);
        for (_, incident) in incidents.filter(|(fingerprint, incident)| !seen.contains(fingerprint) && incident.ended.is_none()) {
            let (since, at) = *incident.gone.get_or_insert((now.uptime, wall));
            if now.uptime - since >= GONE_AFTER {
                incident.end(at, now.uptime);
                self.is_changed = true;
            }
        }
    }

    /// Drops what nobody needs to hear of.
    fn forget(&mut self, now: i64) {
        let policy = &self.policy;
        for group in self.groups.values_mut() {
            let before = group.incidents.len();
            group.incidents.retain(|_, incident| !incident.is_over(policy, now));
            self.is_changed |= group.incidents.len() != before;
        }
    }

    /// When [`Dispatch::next`] has something to say, on the clock that never jumps.
    #[must_use]
    pub fn due(&self) -> Option<i64> {
        let due = self.groups.values().filter_map(|group| group.due(&self.policy)).min()?;
        Some(due.max(self.backoff.until().unwrap_or(i64::MIN)).max(self.pace.not_before()))
    }

    /// The message that is to be sent now. It is made anew until [`Dispatch::settle`] says that it was delivered.
    ///
    /// A group without alerts is remembered until its interval is over, so that one that comes and goes floods nobody.
    pub fn next(&mut self, now: i64) -> Option<Message> {
        let interval = millis(self.policy.group_interval);
        self.groups.retain(|_, group| !group.incidents.is_empty() || group.last.is_some_and(|last| last + interval > now));
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        let policy = &self.policy;
        let due = |group: &Group| group.due(policy).unwrap_or(i64::MAX);
        let (labels, group) = self.groups.iter_mut().min_by_key(|(_, group)| due(group))?;
        let mut message = Message { group: labels.clone(), news: Vec::new(), still: Vec::new() };
        for incident in group.incidents.values_mut() {
            if incident.is_news(policy) {
                self.is_changed |= !incident.is_under_way;
                (incident.is_tried, incident.is_under_way) = (true, true);
                message.news.push(incident.alert.clone());
            } else if incident.is_told && incident.ended.is_none() && !incident.is_inhibited {
                message.still.push(incident.alert.clone());
            }
        }
        // What fires first, the oldest of it first.
        message.news.sort_by_key(|alert| (alert.ends_at.is_some(), alert.starts_at));
        Some(message)
    }

    /// What became of a message of [`Dispatch::next`].
    pub fn settle(&mut self, message: &Message, outcome: Outcome, now: i64, chance: u32) {
        let group = self.groups.entry(message.group.clone()).or_default();
        self.is_changed = true;
        for told in &message.news {
            if let Some(incident) = group.incidents.get_mut(&told.fingerprint()) {
                incident.is_under_way = false;
            }
        }
        match outcome {
            Outcome::Later(_, asked) => return self.backoff.fail(now, chance, asked),
            Outcome::Delivered => {
                for told in &message.news {
                    let fingerprint = told.fingerprint();
                    let Some(incident) = group.incidents.get_mut(&fingerprint) else { continue };
                    incident.is_told = told.is_firing();
                    incident.is_tried = false;
                    if incident.ended.is_some() && (!told.is_firing() || self.policy.is_event) {
                        group.incidents.remove(&fingerprint);
                    }
                }
            }
            Outcome::Refused(_) => {
                for told in &message.news {
                    if let Some(incident) = group.incidents.get_mut(&told.fingerprint()) {
                        incident.refused = Some(now);
                    }
                }
            }
        }
        group.last = Some(now);
        self.pace.count(now);
        self.backoff.reset();
    }

    /// How many alerts the receiver is to hear of.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.groups.values().flat_map(|group| group.incidents.values()).filter(|incident| incident.is_news(&self.policy)).count()
    }

    /// How many alerts there was no room for, since the last time that this was asked.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// How often sending has failed in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    /// Whether there is something to keep that was not there when this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    fn len(&self) -> usize {
        self.groups.values().map(|group| group.incidents.len()).sum()
    }
}

fn group_of(alert: &Alert, policy: &Policy) -> GroupLabels {
    if policy.is_event {
        return alert.labels.clone();
    }
    GROUP_BY.iter().filter_map(|name| Some(((*name).to_owned(), alert.labels.get(*name)?.clone()))).collect()
}

/// An alert whose annotations are of a bounded length. Its labels are bounded where series are.
fn shortened(alert: &Alert) -> Alert {
    let mut alert = alert.clone();
    alert.annotations.values_mut().for_each(bounded);
    alert
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests;
