//! When failures are expected: windows of the configuration and calls of an operator. Pure.
//!
//! Maintenance changes how a failure is treated, never whether it is seen: checks go on, readiness tells the truth, and
//! uptime is kept with and without it. What is asked for ends by itself: nobody remembers to end a silence.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::clock::Now;
use crate::config::health::maintenance::Window;
use crate::health::aggregate::MaintenanceView;

/// More calls than this at once are a mistake of a script.
const MAX_CALLS: usize = 100;
/// No call lasts longer. A longer maintenance is a check that should not be there.
pub const LONGEST_CALL: Duration = Duration::from_secs(30 * 86_400);

/// What an operator has asked for, as it is kept over a restart.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Call {
    /// Its number.
    pub id: u64,
    /// The checks; none means all.
    pub checks: Vec<String>,
    /// When it ends, in milliseconds of the wall clock.
    pub until: i64,
    /// Why.
    pub reason: String,
}

/// Too many calls at once.
#[derive(Debug, thiserror::Error)]
#[error("there are {MAX_CALLS} maintenances already; end some")]
pub struct TooMany;

/// Everything that is, or will be, maintained.
#[derive(Debug, Default)]
pub struct Maintenance {
    windows: Vec<Known>,
    calls: Vec<Open>,
    next_id: u64,
}

/// A call with its end on the clock that never jumps.
#[derive(Debug)]
struct Open {
    call: Call,
    reason: Option<Arc<str>>,
    deadline: Instant,
    /// It was begun before a restart, so that only the wall clock knows its end, and that may have been wrong at the
    /// start, as on a machine that asks for the time when it is already up.
    is_restored: bool,
}

/// A window with what is known of it, so that the cron expression is searched only when that changes.
#[derive(Debug)]
struct Known {
    window: Window,
    span: Option<Span>,
}

/// Between these times, the window is open or it is not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Span {
    from: Timestamp,
    until: Timestamp,
    is_open: bool,
}

// === impl Maintenance ===

impl Maintenance {
    /// Takes over the windows of a configuration. Calls go on.
    pub fn replace(&mut self, windows: &[Window]) {
        self.windows = windows.iter().map(|window| Known { window: window.clone(), span: None }).collect();
    }

    /// Begins what an operator asks for, from now on.
    ///
    /// # Errors
    /// When there are too many already.
    pub fn begin(&mut self, checks: Vec<String>, length: Duration, reason: String, now: Now) -> Result<Call, TooMany> {
        self.expire(now);
        if self.calls.len() >= MAX_CALLS {
            return Err(TooMany);
        }
        self.next_id += 1;
        let length = SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX);
        let until = now.wall.saturating_add(length).unwrap_or(Timestamp::MAX).as_millisecond();
        let call = Call { id: self.next_id, checks, until, reason };
        self.calls.push(Open::new(call.clone(), length_left(&call, now), false, now));
        Ok(call)
    }

    /// Goes on with a call of before a restart.
    pub fn restore(&mut self, call: Call, now: Now) {
        let left = length_left(&call, now);
        self.next_id = self.next_id.max(call.id);
        if !left.is_zero() && self.calls.len() < MAX_CALLS {
            self.calls.push(Open::new(call, left, true, now));
        }
    }

    /// Ends a call; without a number, all of them. How many were ended.
    pub fn end(&mut self, id: Option<u64>, now: Now) -> usize {
        self.expire(now);
        let before = self.calls.len();
        self.calls.retain(|open| id.is_some_and(|id| open.call.id != id));
        before - self.calls.len()
    }

    /// The calls that are going on.
    pub fn calls(&mut self, now: Now) -> Vec<Call> {
        self.expire(now);
        self.calls.iter().map(|open| open.call.clone()).collect()
    }

    /// The maintenance of a check that is going on; of several, the one that ends last.
    pub fn of(&mut self, check: &str, now: Now) -> Option<MaintenanceView> {
        let covers = |checks: &[String]| checks.is_empty() || checks.iter().any(|name| name == check);
        let called = self.calls.iter().filter(|open| open.goes_on(now) && covers(&open.call.checks));
        let called = called.map(|open| MaintenanceView {
            until: Timestamp::from_millisecond(open.call.until).unwrap_or(Timestamp::MAX),
            reason: open.reason.clone(),
        });
        let planned = self.windows.iter_mut().filter(|known| covers(&known.window.checks)).filter_map(|known| {
            let until = known.open_until(now.wall)?;
            Some(MaintenanceView { until, reason: None })
        });
        called.chain(planned).max_by_key(|view| view.until)
    }

    fn expire(&mut self, now: Now) {
        self.calls.retain(|open| open.goes_on(now));
    }
}

/// How long a call still has to go by the wall clock, and never longer than any may last.
fn length_left(call: &Call, now: Now) -> Duration {
    let left = u64::try_from(call.until.saturating_sub(now.wall.as_millisecond())).unwrap_or(0);
    Duration::from_millis(left).min(LONGEST_CALL)
}

// === impl Open ===

impl Open {
    fn new(call: Call, left: Duration, is_restored: bool, now: Now) -> Self {
        let reason = (!call.reason.is_empty()).then(|| Arc::from(call.reason.as_str()));
        Self { call, reason, deadline: now.monotonic + left, is_restored }
    }

    fn goes_on(&self, now: Now) -> bool {
        self.deadline > now.monotonic && !(self.is_restored && self.call.until <= now.wall.as_millisecond())
    }
}

// === impl Known ===

impl Known {
    fn open_until(&mut self, wall: Timestamp) -> Option<Timestamp> {
        // A clock that went back makes what is known worthless.
        let span = match self.span {
            Some(span) if span.from <= wall && wall < span.until => span,
            _ => *self.span.insert(span_of(&self.window, wall)),
        };
        span.is_open.then_some(span.until)
    }
}

/// The window is open when the first begin after (now − duration) is not later than now.
fn span_of(window: &Window, wall: Timestamp) -> Span {
    let duration = SignedDuration::try_from(window.duration).unwrap_or(SignedDuration::MAX);
    let earliest = wall.saturating_sub(duration).unwrap_or(Timestamp::MIN).to_zoned(window.zone.clone());
    match window.cron.find_next_occurrence(&earliest, false) {
        Ok(begin) if begin.timestamp() <= wall => {
            let until = begin.timestamp().saturating_add(duration).unwrap_or(Timestamp::MAX);
            Span { from: wall, until, is_open: true }
        }
        Ok(begin) => Span { from: wall, until: begin.timestamp(), is_open: false },
        // An expression that never comes true, such as 30 February.
        Err(_) => Span { from: wall, until: Timestamp::MAX, is_open: false },
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use croner::Cron;
    use jiff::tz::TimeZone;

    use super::*;

    fn maintenance(cron: &str, hours: u64, zone: &str) -> Maintenance {
        let mut maintenance = Maintenance::default();
        let window = Window {
            cron: Cron::from_str(cron).unwrap(),
            duration: Duration::from_secs(hours * 3600),
            zone: TimeZone::get(zone).unwrap(),
            checks: vec!["api".to_owned()],
        };
        maintenance.replace(&[window]);
        maintenance
    }

    #[track_caller]
    fn check(maintenance: &mut Maintenance, wall: &str, until: Option<&str>) {
        let now = Now { monotonic: Instant::now(), wall: wall.parse().unwrap() };
        let found = maintenance.of("api", now).map(|view| view.until.to_string());
        assert_eq!(found.as_deref(), until, "{wall}");
        assert_eq!(maintenance.of("mongodb", now), None);
    }

    #[test]
    fn a_window_opens_at_its_hour_of_its_zone_in_summer_and_winter() {
        let mut sundays = maintenance("0 3 * * 0", 1, "Europe/Berlin");
        check(&mut sundays, "2026-01-04T01:59:59Z", None);
        check(&mut sundays, "2026-01-04T02:00:00Z", Some("2026-01-04T03:00:00Z"));
        check(&mut sundays, "2026-01-04T02:59:59Z", Some("2026-01-04T03:00:00Z"));
        check(&mut sundays, "2026-01-04T03:00:00Z", None);
        check(&mut sundays, "2026-07-05T01:30:00Z", Some("2026-07-05T02:00:00Z"));
        check(&mut sundays, "2026-07-05T02:30:00Z", None);
        // Summer time begins on this very day: the hour of three begins at 01:00 UTC.
        check(&mut sundays, "2026-03-29T01:30:00Z", Some("2026-03-29T02:00:00Z"));
        // And back in time, as a clock that was wrong is set.
        check(&mut sundays, "2026-01-04T02:10:00Z", Some("2026-01-04T03:00:00Z"));
        check(&mut sundays, "2026-01-03T02:10:00Z", None);
    }

    #[test]
    fn an_hour_that_a_day_does_not_have_begins_with_the_next_one() {
        let mut daily = maintenance("30 2 * * *", 1, "Europe/Berlin");
        check(&mut daily, "2026-03-29T00:59:59Z", None);
        check(&mut daily, "2026-03-29T01:10:00Z", Some("2026-03-29T02:00:00Z"));
    }

    #[test]
    fn windows_longer_than_their_period_are_always_open() {
        let mut always = maintenance("0 * * * *", 2, "UTC");
        for minute in 0..240 {
            let wall: Timestamp = "2026-11-21T00:00:30Z".parse().unwrap();
            let now = Now { monotonic: Instant::now(), wall: wall + SignedDuration::from_mins(minute) };
            assert!(always.of("api", now).is_some(), "minute {minute}");
        }
        check(&mut maintenance("0 0 30 2 *", 1, "UTC"), "2026-02-28T00:00:00Z", None);
    }

    #[test]
    fn a_call_ends_by_itself_whatever_the_wall_clock_does() {
        let start = Now::read();
        let later = |seconds, hours| Now {
            monotonic: start.monotonic + Duration::from_secs(seconds),
            wall: start.wall + SignedDuration::from_hours(hours),
        };
        let mut maintenance = Maintenance::default();
        let call = maintenance.begin(vec!["api".to_owned()], Duration::from_secs(60), "update".to_owned(), start).unwrap();
        assert_eq!(maintenance.of("api", later(59, 5)).unwrap().reason.as_deref(), Some("update"));
        assert_eq!(maintenance.of("mongodb", later(1, 0)), None);
        assert_eq!(maintenance.of("api", later(61, -5)), None);
        assert!(maintenance.calls(later(61, 0)).is_empty());
        // Over a restart it goes on, and ends when it would have.
        let mut restarted = Maintenance::default();
        restarted.restore(call, start);
        assert!(restarted.of("api", later(59, 0)).is_some() && restarted.of("api", later(61, 0)).is_none());
        let next = restarted.begin(Vec::new(), Duration::from_secs(60), String::new(), start).unwrap();
        assert_eq!(next.id, 2);
        assert!(restarted.of("anything", start).is_some());
        assert_eq!(restarted.end(Some(2), start), 1);
        assert_eq!(restarted.end(None, start), 1);
        assert_eq!(restarted.end(None, start), 0);
    }

    /// A machine that starts in 1970 and learns the time a moment later.
    #[test]
    fn a_call_is_not_restored_for_years() {
        let now = Now::read();
        let call = Maintenance::default().begin(Vec::new(), Duration::from_secs(60), String::new(), now).unwrap();
        let at = |wall: &str, days: u64| Now { monotonic: now.monotonic + Duration::from_secs(days * 86_400), wall: wall.parse().unwrap() };
        let mut restored = Maintenance::default();
        restored.restore(call.clone(), at("1970-01-01T00:00:10Z", 0));
        assert!(restored.of("api", at("1970-01-01T00:00:20Z", 0)).is_some());
        assert!(restored.of("api", at("1970-01-31T00:00:20Z", 31)).is_none(), "nothing is silent for longer than 30 days");
        let set = Now { monotonic: now.monotonic, wall: now.wall + SignedDuration::from_secs(61) };
        assert!(restored.of("api", set).is_none(), "and not beyond its end, once the time is known");
        // What no clock can hold does not panic.
        restored.restore(Call { until: i64::MAX, ..call }, now);
        assert!(restored.of("api", now).is_some());
    }

    #[test]
    fn calls_are_bounded() {
        let now = Now::read();
        let mut maintenance = Maintenance::default();
        for _ in 0..MAX_CALLS {
            maintenance.begin(Vec::new(), Duration::from_secs(60), String::new(), now).unwrap();
        }
        assert!(maintenance.begin(Vec::new(), Duration::from_secs(60), String::new(), now).is_err());
    }
}
