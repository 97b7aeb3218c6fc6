//! What is due by the schedule: the next start of each policy, a little later by chance, what was missed, and what has
//! failed and may succeed a while later. Pure.

use jiff::{SignedDuration, Timestamp};

use crate::config::retention::Schedule;

/// How long after a failure the first further attempt is made; each one doubles it.
const FIRST_DELAY: SignedDuration = SignedDuration::from_secs(15);
/// So many further attempts: the last one more than an hour after the start. Then the next start is waited for.
const MOST_ATTEMPTS: u32 = 8;

/// One run at a time, by the schedule or by hand.
#[derive(Debug)]
pub(super) struct Turns {
    agenda: Option<Agenda>,
    /// The run that goes on, and the start that it is for, where it is not by hand.
    running: Option<Option<Due>>,
}

/// What is due, and when.
#[derive(Debug)]
struct Agenda {
    schedule: Schedule,
    entries: Vec<Entry>,
}

/// One policy.
#[derive(Debug)]
struct Entry {
    policy: String,
    /// The start that comes next, and when it is carried out.
    next: Option<(Timestamp, Timestamp)>,
    /// What has failed, and when it is tried again.
    again: Option<(Due, Timestamp)>,
}

/// A start that is due.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Due {
    pub policy: String,
    pub start: Timestamp,
    /// How often it has failed.
    failures: u32,
}

// === impl Turns ===

impl Turns {
    /// Without a schedule, only runs by hand.
    pub fn new<'a>(schedule: Option<Schedule>, policies: impl IntoIterator<Item = &'a str>, now: Timestamp) -> Self {
        Self { agenda: schedule.map(|schedule| Agenda::new(schedule, policies, now)), running: None }
    }

    /// Begins a run by hand. False where a run goes on.
    pub fn begin(&mut self) -> bool {
        let is_free = self.running.is_none();
        self.running.get_or_insert_default();
        is_free
    }

    /// Begins the run that is due, where none goes on.
    pub fn begin_due(&mut self, now: Timestamp) -> Option<Due> {
        if self.running.is_some() {
            return None;
        }
        let due = self.agenda.as_mut()?.due(now)?;
        self.running = Some(Some(due.clone()));
        Some(due)
    }

    /// Notes the end of the run; one by the schedule that failed by what may pass is made again.
    pub fn end(&mut self, may_pass: bool, now: Timestamp) {
        let due = self.running.take().flatten().filter(|_| may_pass);
        let (Some(agenda), Some(due)) = (&mut self.agenda, due) else { return };
        let policy = due.policy.clone();
        match agenda.failed(due, now) {
            Some(at) => tracing::info!(policy, %at, "what has failed is tried again"),
            None => tracing::warn!(policy, "what has failed waits for the next start of the schedule"),
        }
    }

    /// When each policy is carried out next by the schedule, or should have been.
    pub fn dues(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        self.agenda.iter().flat_map(Agenda::dues)
    }
}

// === impl Agenda ===

impl Agenda {
    /// An agenda from `now` on. A start that was missed lately is due at once; whether another process has made it is
    /// for the database to say.
    fn new<'a>(schedule: Schedule, policies: impl IntoIterator<Item = &'a str>, now: Timestamp) -> Self {
        let missed = schedule.before(now).filter(|start| now.duration_since(*start) <= signed(schedule.catch_up));
        let entries = policies.into_iter().map(|policy| {
            let next = missed.map(|start| (start, late(&schedule, now))).or_else(|| following(&schedule, now));
            Entry { policy: policy.to_owned(), next, again: None }
        });
        Self { entries: entries.collect(), schedule }
    }

    /// The start that is due, by the schedule or after a failure; a next one by the schedule is noted.
    fn due(&mut self, now: Timestamp) -> Option<Due> {
        let schedule = &self.schedule;
        self.entries.iter_mut().find_map(|entry| {
            if let Some((start, _)) = entry.next.filter(|(_, at)| *at <= now) {
                // Of several that were missed, the last one is made up. What has failed before is done with it.
                let start = schedule.before(now).map_or(start, |last| last.max(start));
                (entry.next, entry.again) = (following(schedule, now), None);
                return Some(Due { policy: entry.policy.clone(), start, failures: 0 });
            }
            entry.again.take_if(|(_, at)| *at <= now).map(|(due, _)| due)
        })
    }

    /// Notes that a start has failed by what may pass. When it is tried again, where it is.
    fn failed(&mut self, mut due: Due, now: Timestamp) -> Option<Timestamp> {
        let entry = self.entries.iter_mut().find(|entry| entry.policy == due.policy)?;
        let at = now.checked_add(FIRST_DELAY * (1 << due.failures)).ok()?;
        due.failures += 1;
        if due.failures > MOST_ATTEMPTS || entry.next.is_some_and(|(_, next)| next <= at) {
            return None;
        }
        entry.again = Some((due, at));
        Some(at)
    }

    /// When each policy is carried out next by the schedule, or should have been.
    fn dues(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        self.entries.iter().filter_map(|entry| Some((entry.policy.as_str(), entry.next?.1)))
    }
}

fn following(schedule: &Schedule, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
    let start = schedule.after(now)?;
    Some((start, late(schedule, start)))
}

fn late(schedule: &Schedule, start: Timestamp) -> Timestamp {
    let jitter = signed(schedule.jitter.mul_f64(fastrand::f64()));
    start.checked_add(jitter).unwrap_or(start)
}

fn signed(duration: std::time::Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn agenda(now: &str) -> Agenda {
        let schedule = Schedule::of("17 3 * * *", Duration::ZERO, Duration::from_secs(6 * 3600)).unwrap();
        Agenda::new(schedule, ["p"], now.parse().unwrap())
    }

    fn due(agenda: &mut Agenda, now: &str) -> Option<String> {
        agenda.due(now.parse().unwrap()).map(|due| due.start.to_string())
    }

    #[test]
    fn a_start_is_due_once() {
        let mut agenda = agenda("2026-01-10T12:00:00Z");
        assert_eq!(due(&mut agenda, "2026-01-11T03:16:59Z"), None);
        assert_eq!(due(&mut agenda, "2026-01-11T03:17:00Z").as_deref(), Some("2026-01-11T03:17:00Z"));
        assert_eq!(due(&mut agenda, "2026-01-11T03:17:01Z"), None);
        assert_eq!(due(&mut agenda, "2026-01-14T05:00:00Z").as_deref(), Some("2026-01-14T03:17:00Z"), "of several the last");
    }

    #[test]
    fn what_has_failed_is_tried_again_later_and_later_until_the_next_start() {
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let mut agenda = agenda("2026-01-10T12:00:00Z");
        let mut now = at("2026-01-11T03:17:00Z");
        let mut delays = Vec::new();
        let mut due = agenda.due(now).unwrap();
        while let Some(again) = agenda.failed(due.clone(), now) {
            assert_eq!(agenda.due(again - SignedDuration::from_secs(1)), None);
            delays.push(again.duration_since(now).as_secs());
            now = again;
            due = agenda.due(now).unwrap();
            assert_eq!(due.start, at("2026-01-11T03:17:00Z"));
        }
        assert_eq!(delays, [15, 30, 60, 120, 240, 480, 960, 1920]);
        assert_eq!(agenda.due(now), None);

        let mut due = agenda.due(at("2026-01-12T03:17:00Z")).unwrap();
        assert!(agenda.failed(due.clone(), at("2026-01-12T03:17:00Z")).is_some());
        due = agenda.due(at("2026-01-13T03:17:00Z")).unwrap();
        assert_eq!((due.start, due.failures), (at("2026-01-13T03:17:00Z"), 0), "the next start stands for both");
        assert_eq!(agenda.due(at("2026-01-13T03:18:00Z")), None);
        assert_eq!(agenda.failed(due, at("2026-01-14T03:16:50Z")), None, "the next start is nearer");
    }

    #[test]
    fn what_was_missed_lately_is_made_up_and_what_is_long_ago_is_not() {
        assert_eq!(due(&mut agenda("2026-01-10T09:00:00Z"), "2026-01-10T09:00:00Z").as_deref(), Some("2026-01-10T03:17:00Z"));
        assert_eq!(due(&mut agenda("2026-01-10T09:18:00Z"), "2026-01-10T09:18:00Z"), None);
    }
}
