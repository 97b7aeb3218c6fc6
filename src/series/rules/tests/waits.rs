//! Rules that wait: pairs, what does not come, and both counted by several threads.

use super::*;

#[test]
fn a_pair_is_a_histogram_of_durations_with_what_is_open_and_what_has_no_partner() {
    let rules = "- metric: app_run_duration_seconds
  type: histogram
  pair: { start: { message: started }, finish: { message: [completed, failed] }, key: run_id, expire: 2h }
  labels: { result: { field: message, allow: [completed, failed] } }
  exemplar: { run_id: run_id }
  buckets: [60, 600]";
    let (mut set, mut families) = of(rules, noon(0));
    let line = |message: &'static str, run: &'static str, time: i64| {
        [("message", text(message)), ("run_id", text(run)), ("time", Value::Time(NOON + time))]
    };
    for (message, run_id, time) in
        [("started", "a", -9_000_000), ("started", "b", -8_000_000), ("completed", "a", -8_700_000), ("failed", "x", -8_700_000)]
    {
        assert_eq!(run(&mut set, &mut families, &line(message, run_id, time)), 1);
    }
    assert_eq!(run(&mut set, &mut families, &[("message", text("started"))]), 0, "without a key it is no start");
    assert_eq!(families.value("app_run_duration_seconds", &["completed"]), Some(1.0));
    assert_eq!(families.value("app_run_duration_seconds", &["failed"]), Some(0.0));
    assert_eq!(families.value("app_run_open", &[]), Some(1.0));
    assert_eq!(families.value("app_run_unpaired_total", &["unmatched"]), Some(1.0));

    // What is open is a part of what is kept, and the rest goes on as if nothing had happened.
    let kept = families.state();
    let (mut set, mut families) = of(rules, noon(0));
    assert!(families.restore(kept).is_empty());
    run(&mut set, &mut families, &line("failed", "b", -7_999_500));
    let text = exposed(&families);
    assert!(text.contains("app_run_duration_seconds_sum{result=\"failed\"} 0.5\n"), "{text}");
    assert!(text.contains("le=\"60.0\",result=\"failed\"} 1 # {run_id=\"b\"} 0.5 1775300000.000\n"), "{text}");
    assert!(text.contains("app_run_open 0.0\n"), "{text}");
    families.set_now(noon(7_300_000));
    families.tick();
    assert_eq!(families.value("app_run_unpaired_total", &["expired"]), Some(0.0));
}

#[test]
fn what_does_not_come_is_absent_and_says_when_it_was_last_seen() {
    let rules = "- { metric: app_beats_total, type: counter, match: { message: beat }, absent_after: 10m }";
    let (mut set, mut families) = of(rules, noon(0));
    let at = |families: &mut Families, after: i64| {
        families.set_now(noon(after));
        families.tick();
        (families.value("app_beats_absent", &[]), families.value("app_beats_last_seen_timestamp_seconds", &[]))
    };
    assert_eq!(at(&mut families, 600_000), (Some(0.0), None), "it has ten minutes from the start on");
    assert_eq!(at(&mut families, 600_001), (Some(1.0), None));
    let beat = |time: i64| [("message", text("beat")), ("time", Value::Time(NOON + time))];
    run(&mut set, &mut families, &beat(300_500));
    assert_eq!(at(&mut families, 600_001), (Some(0.0), Some((NOON + 300_500) as f64 / 1000.0)));
    // An older line and one from the future move it no further than now.
    run(&mut set, &mut families, &beat(0));
    run(&mut set, &mut families, &beat(999_999_999));
    assert_eq!(at(&mut families, 600_001).1, Some((NOON + 600_001) as f64 / 1000.0));
    let kept = families.state();
    let (_, mut families) = of(rules, noon(700_000));
    families.restore(kept);
    assert_eq!(at(&mut families, 1_200_001).0, Some(0.0), "a restart is no sign of life, and no sign of death");
    assert_eq!(at(&mut families, 1_200_002).0, Some(1.0));
}

#[test]
fn what_threads_count_by_themselves_is_as_if_counted_directly() {
    let rules = "- metric: app_run_duration_seconds
  type: histogram
  pair: { start: { message: started }, finish: { message: [completed, failed] }, key: run_id, expire: 2h }
  labels: { result: { field: message, allow: [completed, failed] } }
  exemplar: { run_id: run_id }
  buckets: [60, 600]
  absent_after: 1m
- { metric: app_lines_total, type: counter, exemplar: { run_id: run_id }, labels: { path: { field: path, path_template: true } } }";
    let (mut set, mut direct) = of(rules, noon(0));
    let (_, mut shared) = of(rules, noon(0));
    let mut deltas = [shared.delta(), shared.delta()];
    let long = format!("/{}", "aaaa/".repeat(100));
    for step in 0..400_i64 {
        let message = ["started", "completed", "failed"][usize::try_from(step % 3).unwrap()];
        let (run_id, path) = (
            format!("r{}", step / 3),
            if step % 7 == 0 { long.clone() } else { format!("/{}", "abcdef".get(..usize::try_from(step % 5).unwrap()).unwrap()) },
        );
        let line =
            [("message", text(message)), ("run_id", text(&run_id)), ("path", text(&path)), ("time", Value::Time(NOON + step * 1000))];
        let delta = &mut deltas[usize::try_from(step % 2).unwrap()];
        [&mut direct, &mut shared, &mut *delta].into_iter().for_each(|families| families.set_now(noon(step * 1000)));
        assert_eq!(run(&mut set.clone(), &mut direct, &line), run(&mut set.clone(), delta, &line));
        shared.absorb(delta);
        for families in [&mut direct, &mut shared] {
            families.tick();
        }
        assert_eq!(exposed(&direct), exposed(&shared), "{step}");
        assert_eq!(direct.state(), shared.state());
    }
    run(&mut set, &mut direct, &[]);
    assert_eq!(direct.value("app_run_duration_seconds", &["completed"]), Some(133.0));
}
