//! Histories that are written second by second, over restarts, stops and jumps of the clock.

use jiff::SignedDuration;

use super::*;
use crate::health::aggregate::MaintenanceView;

/// A moment, in seconds after a full hour.
fn at(start: Now, second: u64) -> Now {
    Now { monotonic: start.monotonic + Duration::from_secs(second), wall: start.wall + SignedDuration::from_secs(second.cast_signed()) }
}

fn start() -> Now {
    Now { monotonic: Instant::now(), wall: "2026-11-21T02:00:00Z".parse().unwrap() }
}

fn snapshot(states: &[(&str, State)], maintained: bool, at: Now) -> Snapshot {
    let maintenance = maintained.then_some(MaintenanceView { until: at.wall, reason: None });
    let view = |(name, verdict): &(&str, State)| CheckView {
        name: (*name).to_owned(),
        component_type: "component",
        verdict: *verdict,
        state: *verdict,
        since: at.wall,
        critical: true,
        is_joining: false,
        last: None,
        consecutive: 0,
        interval: Duration::from_secs(5),
        reason: None,
        suppressed_by: None,
        is_root_cause: false,
        maintenance: maintenance.clone(),
    };
    Snapshot { at, checks: states.iter().map(view).collect(), groups: Vec::new(), local_network: false }
}

/// Samples each second: the state holds from this second to the next.
fn live(log: &mut Log, start: Now, seconds: std::ops::Range<u64>, state: State, maintained: bool) {
    for second in seconds {
        let now = at(start, second);
        log.sample(&snapshot(&[("api", state)], maintained, now), now);
    }
}

fn only(log: &Log, window: Window, now: Now) -> CheckReport {
    log.report(Some("api"), window, now.wall).unwrap().remove(0)
}

#[test]
fn uptime_is_kept_with_and_without_maintenance() {
    let (mut log, start) = (Log::default(), start());
    live(&mut log, start, 0..600, State::Up, false);
    live(&mut log, start, 600..900, State::Down, false);
    live(&mut log, start, 900..1000, State::Down, true);
    live(&mut log, start, 1000..1001, State::Up, false);
    for window in Window::ALL {
        let report = only(&log, window, at(start, 1000));
        assert_eq!(report.uptime, Seconds { up: 600, down: 300, maintained_up: 0, maintained_down: 100 }, "{window:?}");
        assert_eq!(report.uptime.ratio(), Some(0.6));
        assert_eq!(report.uptime.ratio_without_maintenance(), Some(600.0 / 900.0));
        let words: Vec<_> = report.transitions.iter().map(|transition| (transition.from.word(), transition.to.word())).collect();
        assert_eq!(words, [("unknown", "up"), ("up", "down"), ("down", "up")]);
    }
    assert_eq!(log.report(Some("nope"), Window::Day, start.wall), None);
}

#[test]
fn windows_reach_as_far_back_as_they_say() {
    let (mut log, start) = (Log::default(), start());
    // Ten days, in steps of ten seconds: down for the first two, then up.
    for second in (0..10 * 86_400).step_by(10) {
        let now = at(start, second);
        let state = if second < 2 * 86_400 { State::Down } else { State::Up };
        log.sample(&snapshot(&[("api", state)], false, now), now);
    }
    let now = at(start, 10 * 86_400);
    for (window, ratio) in [(Window::Hour, 1.0), (Window::Day, 1.0), (Window::Week, 1.0), (Window::Month, 0.8)] {
        let found = only(&log, window, now).uptime.ratio().unwrap();
        assert!((found - ratio).abs() < 0.001, "{window:?}: {found}");
    }
    assert!(only(&log, Window::Week, now).transitions.is_empty());
    assert_eq!(only(&log, Window::Month, now).transitions.len(), 2);
    assert_eq!(only(&log, Window::Month, now).unknown, 20 * 86_400 + 10, "the last sample is ten seconds old");
}

#[test]
fn a_restart_and_a_stopped_process_are_unknown() {
    let (mut log, start) = (Log::default(), start());
    live(&mut log, start, 0..101, State::Up, false);
    let kept = postcard::to_stdvec(&log).unwrap();
    let mut log: Log = postcard::from_bytes(&kept).unwrap();
    log.resume(at(start, 200).wall);
    live(&mut log, start, 200..301, State::Up, false);
    // The process is stopped for a minute: SIGSTOP, or a machine that sleeps.
    live(&mut log, start, 361..401, State::Up, false);
    let report = only(&log, Window::Hour, at(start, 400));
    assert_eq!(report.uptime.up, 100 + 100 + 39);
    assert_eq!(report.uptime.ratio(), Some(1.0));
    let words: Vec<_> = report.transitions.iter().map(|transition| (transition.from.word(), transition.to.word())).collect();
    assert_eq!(words, [("unknown", "up"), ("up", "unknown"), ("unknown", "up")]);
    assert_eq!(report.transitions[1].at, at(start, 100).wall.as_millisecond(), "since the last sample, nothing is known");
}

/// H16: the seconds are those of the monotonic clock, whatever the wall clock does meanwhile.
#[test]
fn a_jump_of_the_wall_clock_adds_and_takes_no_time() {
    for jump in [-3600, 3600] {
        let (mut log, start) = (Log::default(), start());
        live(&mut log, start, 0..31, State::Up, false);
        let jumped = Now { wall: start.wall + SignedDuration::from_secs(jump), ..start };
        live(&mut log, jumped, 31..61, State::Down, false);
        let report = only(&log, Window::Month, at(jumped, 60));
        assert_eq!((report.uptime.down, report.uptime.known() <= 60), (29, true), "{jump}");
    }
}

#[test]
fn a_check_that_comes_and_goes_is_unknown_meanwhile() {
    let (mut log, start) = (Log::default(), start());
    live(&mut log, start, 0..11, State::Up, false);
    for second in 11..21 {
        let now = at(start, second);
        log.sample(&snapshot(&[], false, now), now);
    }
    live(&mut log, start, 21..31, State::Up, false);
    assert_eq!(only(&log, Window::Hour, at(start, 30)).uptime, Seconds { up: 19, ..Seconds::default() });
}

#[test]
fn the_file_of_a_busy_month_is_bounded() {
    let (mut log, start) = (Log::default(), start());
    for step in 0..2 * 31 * 24 * 60_u64 {
        // Flaps each half minute, and is never counted as one state for a whole slot.
        let state = if step % 2 == 0 { State::Up } else { State::Down };
        let now = at(start, step * 30);
        log.last = Some(now.monotonic.checked_sub(Duration::from_secs(9)).unwrap());
        log.sample(&snapshot(&[("api", state)], step % 3 == 0, now), now);
    }
    let size = postcard::to_stdvec(&log).unwrap().len();
    assert!(size < 14 * 1024, "{size} bytes");
    let report = only(&log, Window::Month, at(start, 31 * 86_400 - 30));
    assert_eq!(report.transitions.len(), TRANSITIONS);
    assert!(report.dropped > 80_000);
}

/// A check that a new configuration does not have any more is known for as long as a window reaches back to it.
#[test]
fn a_check_that_is_gone_is_no_uptime_and_is_forgotten_after_a_month() {
    let (mut log, start) = (Log::default(), start());
    live(&mut log, start, 0..100, State::Up, false);
    let after = |log: &mut Log, second: u64| {
        let now = at(start, second);
        log.sample(&snapshot(&[("other", State::Up)], false, now), now);
        log.summary(20, now.wall)
    };
    assert_eq!(log.summary(20, at(start, 99).wall).uptimes[0].windows[0], Seconds { up: 99, ..Seconds::default() });
    let summary = after(&mut log, 100);
    assert_eq!(summary.uptimes.iter().map(|uptime| uptime.check.as_str()).collect::<Vec<_>>(), ["other"]);
    assert_eq!(summary.changes.len(), 3, "what was is still told: {:?}", summary.changes);
    let day = 86_400;
    after(&mut log, 29 * day);
    assert!(log.report(Some("api"), Window::Month, at(start, 29 * day).wall).is_some());
    after(&mut log, 31 * day);
    assert_eq!(log.report(Some("api"), Window::Month, at(start, 31 * day).wall), None);
}

#[test]
fn the_last_changes_of_all_checks_come_first() {
    let (mut log, start) = (Log::default(), start());
    for second in 0..50_u64 {
        let now = at(start, second);
        let state = if second % 2 == 0 { State::Up } else { State::Down };
        log.sample(&snapshot(&[("api", state), ("other", State::Up)], false, now), now);
    }
    let changes = log.summary(20, at(start, 50).wall).changes;
    assert_eq!(changes.len(), 20);
    assert!(changes.windows(2).all(|pair| pair[0].transition.at >= pair[1].transition.at));
    assert_eq!(changes[0].transition.at, at(start, 49).wall.as_millisecond());
}
