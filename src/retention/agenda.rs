//! What is due by the schedule: the next start of each policy, a little later by chance, and what was missed. Pure.

use jiff::{SignedDuration, Timestamp};

use crate::config::retention::Schedule;

/// What is due, and when.
#[derive(Debug)]
pub(super) struct Agenda {
    schedule: Schedule,
    /// For each policy, the start that comes next, and when it is carried out.
    next: Vec<(String, Timestamp, Timestamp)>,
}

// === impl Agenda ===

impl Agenda {
    /// An agenda from `now` on. A start that was missed lately is due at once; whether another process has made it is
    /// for the database to say.
    pub fn new<'a>(schedule: Schedule, policies: impl IntoIterator<Item = &'a str>, now: Timestamp) -> Self {
        let missed = schedule.before(now).filter(|start| now.duration_since(*start) <= signed(schedule.catch_up));
        let mut agenda = Self { schedule, next: Vec::new() };
        agenda.next = policies
            .into_iter()
            .filter_map(|policy| {
                let (start, at) = match missed {
                    Some(start) => (start, agenda.late(now)),
                    None => agenda.following(now)?,
                };
                Some((policy.to_owned(), start, at))
            })
            .collect();
        agenda
    }

    /// The policy that is due, and the start that it is due for; its next one is noted.
    pub fn due(&mut self, now: Timestamp) -> Option<(String, Timestamp)> {
        let position = self.next.iter().position(|(_, _, at)| *at <= now)?;
        let (policy, start, _) = self.next[position].clone();
        // Of several that were missed, the last one is made up.
        let start = self.schedule.before(now).map_or(start, |last| last.max(start));
        match self.following(now) {
            Some((next, at)) => (self.next[position].1, self.next[position].2) = (next, at),
            None => drop(self.next.remove(position)),
        }
        Some((policy, start))
    }

    /// When each policy is carried out next, or should have been.
    pub fn dues(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        self.next.iter().map(|(policy, _, at)| (policy.as_str(), *at))
    }

    fn following(&self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let start = self.schedule.after(now)?;
        Some((start, self.late(start)))
    }

    fn late(&self, start: Timestamp) -> Timestamp {
        let jitter = signed(self.schedule.jitter.mul_f64(fastrand::f64()));
        start.checked_add(jitter).unwrap_or(start)
    }
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
        agenda.due(now.parse().unwrap()).map(|(_, start)| start.to_string())
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
    fn what_was_missed_lately_is_made_up_and_what_is_long_ago_is_not() {
        assert_eq!(due(&mut agenda("2026-01-10T09:00:00Z"), "2026-01-10T09:00:00Z").as_deref(), Some("2026-01-10T03:17:00Z"));
        assert_eq!(due(&mut agenda("2026-01-10T09:18:00Z"), "2026-01-10T09:18:00Z"), None);
    }
}
