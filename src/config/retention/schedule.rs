//! When policies run by themselves.

use std::time::Duration;

use croner::Cron;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::problems::{Complaints, Problems};
use crate::config::spanned::Spanned;
use crate::config::values::HumanDuration;

/// A start that was missed is made up for so long; later, the next one comes soon enough.
const CATCH_UP: Duration = Duration::from_secs(24 * 3600);

/// The keys of the section that say when policies run, as they are written.
#[derive(Clone, Debug, Default)]
pub(super) struct RawSchedule {
    pub schedule: Option<Spanned<String>>,
    pub timezone: Option<Spanned<String>>,
    pub jitter: Option<HumanDuration>,
    pub catch_up: Option<HumanDuration>,
}

/// When policies run by themselves.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// As it is written.
    pub text: String,
    cron: Cron,
    zone: TimeZone,
    /// A run starts up to so much later.
    pub jitter: Duration,
    /// A start that was missed is made up within this time.
    pub catch_up: Duration,
}

// === impl RawSchedule ===

impl RawSchedule {
    pub(super) fn validate(self, problems: &mut Problems) -> Option<Schedule> {
        let zone = match &self.timezone {
            None => TimeZone::UTC,
            Some(Spanned { place, value }) => TimeZone::get(value).unwrap_or_else(|_| {
                let message = format!("there is no time zone `{value}`; write one such as UTC or Europe/Berlin");
                Complaints::new(place.clone(), "retention.timezone".to_owned(), problems).say(message);
                TimeZone::UTC
            }),
        };
        let Spanned { place, value: text } = self.schedule?;
        let five = text.split_whitespace().count() == 5 || text.starts_with('@');
        match text.parse::<Cron>() {
            Ok(cron) if five => Some(Schedule {
                text,
                cron,
                zone,
                jitter: self.jitter.map_or(Duration::from_secs(300), |jitter| jitter.0),
                catch_up: self.catch_up.map_or(CATCH_UP, |time| time.0),
            }),
            _ => {
                let message =
                    format!("`{text}` is no cron expression of five fields; write for example \"17 3 * * *\" for 03:17 every day");
                Complaints::new(place, "retention.schedule".to_owned(), problems).say(message);
                None
            }
        }
    }
}

// === impl Schedule ===

impl Schedule {
    /// A schedule in UTC, for those who have no file.
    #[must_use]
    pub fn of(text: &str, jitter: Duration, catch_up: Duration) -> Option<Self> {
        let cron = text.parse::<Cron>().ok()?;
        Some(Self { text: text.to_owned(), cron, zone: TimeZone::UTC, jitter, catch_up })
    }

    /// The first start after a point in time; `None` where there is none in the years that a calendar has.
    #[must_use]
    pub fn after(&self, time: Timestamp) -> Option<Timestamp> {
        self.cron.find_next_occurrence(&time.to_zoned(self.zone.clone()), false).ok().map(|zoned| zoned.timestamp())
    }

    /// The last start up to a point in time, that point included.
    #[must_use]
    pub fn before(&self, time: Timestamp) -> Option<Timestamp> {
        self.cron.find_previous_occurrence(&time.to_zoned(self.zone.clone()), true).ok().map(|zoned| zoned.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str, zone: &str) -> Schedule {
        let at = |value: &str| Some(Spanned { place: None, value: value.to_owned() });
        let mut problems = Problems::default();
        let raw = RawSchedule { schedule: at(text), timezone: at(zone), jitter: None, catch_up: None };
        raw.validate(&mut problems).expect("a schedule")
    }

    #[test]
    fn a_schedule_follows_its_time_zone() {
        let berlin = schedule("17 3 * * *", "Europe/Berlin");
        let after = |text: &str| berlin.after(text.parse().unwrap()).unwrap().to_string();
        assert_eq!(after("2026-01-10T00:00:00Z"), "2026-01-10T02:17:00Z", "winter");
        assert_eq!(after("2026-07-10T00:00:00Z"), "2026-07-10T01:17:00Z", "summer");
        assert_eq!(after("2026-01-10T02:17:00Z"), "2026-01-11T02:17:00Z", "after, not at");
        let before = |text: &str| berlin.before(text.parse().unwrap()).unwrap().to_string();
        assert_eq!(before("2026-01-10T02:17:00Z"), "2026-01-10T02:17:00Z", "at, or before");
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for (text, zone) in [("17 3 * *", "UTC"), ("x", "UTC"), ("61 3 * * *", "UTC"), ("1 2 3 4 5 6", "UTC"), ("1 2 * * *", "Mars/Base")] {
            let mut problems = Problems::default();
            let at = |value: &str| Some(Spanned { place: None, value: value.to_owned() });
            RawSchedule { schedule: at(text), timezone: at(zone), jitter: None, catch_up: None }.validate(&mut problems);
            assert!(problems.has_errors(), "{text} {zone}");
        }
    }
}
