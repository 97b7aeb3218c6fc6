//! Lines that no rule can match are passed over where that is allowed: no counter of a rule differs from one where each
//! line is decoded, and a restart changes nothing.

use proptest::prelude::*;

use super::*;
use crate::config::logs::{Logs, Validation};
use crate::logs::decoder::Decoder;
use crate::logs::framing::Framing;
use crate::logs::lines::Lines;
use crate::logs::outcome::{Outcome, Tally};
use crate::series::families::{Families, FamiliesState};
use crate::series::rules::RuleSet;

/// Each rule needs a text, in every way in which that can be said.
const RULES: &str = r#"
  rules:
    - { metric: app_exact_total, type: counter, match: { message: ["call failed", "say \"no\" to it/all"] }, labels: { level: { field: level, allow: [info, error], else: other } } }
    - { metric: app_prefix_total, type: counter, match: { message: { prefix: "Query exec" } } }
    - { metric: app_contains_total, type: counter, match: { error: { contains: ["deadline exceeded", "Zeit überschritten"] } } }
    - { metric: app_any_total, type: counter, match: { any: [{ message: "run ended", level: error }, { http.status: "50300" }] } }
    - { metric: app_agent_total, type: counter, match: { agent: "agent-seven" } }
    - { metric: app_seconds, type: histogram, match: { message: "Query executed" }, value: { field: duration_ms, unit: ms }, buckets: [1, 10] }
    - metric: app_job_seconds
      type: histogram
      pair: { start: { message: "job started" }, finish: { message: "job ended" }, key: id, expire: 1h }
      buckets: [1]
"#;

/// Lines of every kind: those that rules match, those that seem to, and others.
const LINES: [&str; 32] = [
    r#"{"level":"error","msg":"call failed"}"#,
    r#"{"level":"info","msg":"call \u0066ailed"}"#,
    r#"{"level":"info","msg":"say \"no\" to it\/all"}"#,
    r#"{"level":"info","msg":"Query executed","duration_ms":1500}"#,
    r#"{"\u006dsg":"Query exec"}"#,
    r#"{"level":"error","error":"rpc: deadline exceeded (code 4)"}"#,
    r#"{"level":"error","error":"Zeit \u00fcberschritten"}"#,
    r#"{"level":"error","error":"Zeit überschritten"}"#,
    r#"{"level":"ERROR","msg":"run ended"}"#,
    r#"{"level":"info","msg":"run ended"}"#,
    r#"{"http":{"status":50300}}"#,
    r#"{"http.status":50300}"#,
    r#"[agent agent-seven] {"msg":"hello"}"#,
    r#"[agent eight] {"msg":"hello"}"#,
    r#"{"msg":"job started","id":"a1","time":"2026-04-04T09:00:01Z"}"#,
    r#"{"msg":"job ended","id":"a1","time":"2026-04-04T09:00:04Z"}"#,
    r#"{"msg":"nothing of interest","id":7}"#,
    r#"{"msg":"nothing of interest","text":"call  failed"}"#,
    r#"{"msg":"nothing","msg":"twice"}"#,
    "{\"msg\":\"nothing\"}\r",
    "{\"msg\":\"a raw \u{1b}[1mescape\u{1b}[0m\"}",
    r#"{"msg":"cut off"#,
    r#"{"msg":"wrong" "in the middle":1}"#,
    r#"{"msg":"call failed" "in the middle":1}"#,
    "2026-04-04T09:00:02.000000001Z stderr F {\"msg\":\"nothing\"}",
    "2026-04-04T09:00:02.000000001Z stderr F {\"msg\":\"call failed\"}",
    "2026-04-04T09:00:02.000000001Z stderr P {\"msg\":\"call fai",
    "2026-04-04T09:00:02.000000002Z stderr F led\"}",
    r#"{"log":"{\"msg\":\"call failed\"}\n","stream":"stderr","time":"2026-04-04T09:00:03Z"}"#,
    r#"{"log":"{\"msg\":\"nothing\"}\n","stream":"stderr","time":"2026-04-04T09:00:03Z"}"#,
    "2026-04-04T09:00:04.000Z\t\u{1b}[31mERROR\u{1b}[0m\tapi/main.go:17\tcall \u{1b}[1mfailed\u{1b}[0m\t{\"status\": 404}",
    "panic: call failed",
];

fn config(rules: &str) -> Logs {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    fs::write(&file, format!("profile: none\nlogs:\n  validation: sampled{rules}")).unwrap();
    load(&Request { file: Some(&file), ..Request::default() }, &Environment::default()).unwrap().logs
}

fn decoder(rules: &str) -> (Decoder, Families) {
    let mut families = Families::default();
    let set = RuleSet::for_logs(&config(rules).rules, &mut families).unwrap();
    (Decoder::new(set, 1024), families)
}

/// What comes of a stream that is cut at these places.
fn count(stream: &[u8], cuts: &[usize], may_skip: bool) -> ([u32; 7], [u32; 2], FamiliesState) {
    let (mut decoder, mut families) = decoder(RULES);
    if may_skip {
        decoder.skip().unwrap();
    }
    let (mut lines, mut framing, mut begin) = (Lines::default(), Framing::default(), 0);
    let (mut outcomes, mut samples) = ([0; 7], [0; 2]);
    let mut add = |tally: Tally| {
        outcomes.iter_mut().zip(tally.outcomes).for_each(|(all, count)| *all += count);
        samples.iter_mut().zip(tally.samples).for_each(|(all, count)| *all += count);
    };
    for cut in cuts.iter().copied().chain([stream.len()]) {
        add(decoder.feed(&stream[begin..cut], &mut lines, &mut framing, &mut families));
        begin = cut;
    }
    add(decoder.finish(&mut lines, &mut framing, &mut families));
    (outcomes, samples, families.state())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_rule_misses_a_line_however_the_stream_is_cut(
        seed in any::<u64>(), length in 1_usize..6000, common in 0_usize..LINES.len(), share in 0_u32..100, buffers in 1_usize..40,
    ) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut stream = Vec::new();
        for _ in 0..length {
            // Mostly the same line, so that the search is switched on and off.
            let line = if random.u32(0..100) < share { LINES[common] } else if random.u32(0..100) < 80 { LINES[16] } else { random.choice(LINES).unwrap() };
            stream.extend_from_slice(line.as_bytes());
            stream.push(b'\n');
        }
        let mut cut_somewhere = || {
            let mut cuts: Vec<usize> = (0..buffers).map(|_| random.usize(0..stream.len())).collect();
            cuts.sort_unstable();
            cuts
        };
        let (full, nothing, expected) = count(&stream, &cut_somewhere(), false);
        prop_assert_eq!((full[6], nothing), (0, [0; 2]));
        let (found, samples, state) = count(&stream, &cut_somewhere(), true);
        prop_assert_eq!(&state, &expected);
        // Those that are passed over would have been records, or wrong in the middle; all others are as they are.
        prop_assert_eq!(found[0] + found[3] + found[6], full[0] + full[3]);
        prop_assert!(found[0] <= full[0] && found[3] <= full[3] && samples[0] <= found[0] && samples[1] <= found[3]);
        prop_assert_eq!([found[1], found[2], found[4], found[5]], [full[1], full[2], full[4], full[5]]);
        prop_assert_eq!(count(&stream, &cut_somewhere(), true), (found, samples, state));
    }
}

#[test]
fn what_is_passed_over_is_said_and_samples_find_what_is_wrong() {
    let stream = |line: &str, count: usize| format!("{line}\n").repeat(count).into_bytes();
    // 15 of 16 are passed over.
    let (outcomes, samples, _) = count(&stream(LINES[16], 1600), &[], true);
    assert_eq!((outcomes[0], outcomes[6], samples), (100, 1500, [100, 0]));
    // A line that is cut off is never passed over, and one that is wrong in the middle no more than 15 times.
    let (outcomes, samples, _) = count(&stream(LINES[21], 1600), &[], true);
    assert_eq!((outcomes[3], samples), (1600, [0, 0]));
    let (outcomes, samples, _) = count(&stream(LINES[22], 1600), &[], true);
    assert_eq!((outcomes[3], outcomes[6], samples), (1585, 15, [0, 1]));
    // Where more than a fifth is wanted, nothing is passed over.
    let mixed = [stream(LINES[0], 3), stream(LINES[16], 7)].concat().repeat(300);
    let (outcomes, ..) = count(&mixed, &[], true);
    assert!(outcomes[6] < 1024, "{outcomes:?}");
}

#[test]
fn a_rule_without_a_text_lets_nothing_be_passed_over() {
    for (rule, is_needed) in [
        ("{ message: \"call failed\" }", true),
        ("{ message: \"call failed\", level: error }", true),
        ("{ level: error }", false),
        ("{ message: { regex: \"call .*\" } }", false),
        ("{ message: { not: \"call failed\" } }", false),
        ("{ message: [\"call failed\", \"bad\"] }", false),
        ("{ message: \"ü/ü\" }", false),
        ("{ any: [{ message: \"call failed\" }, { level: error }] }", false),
        ("{ any: [{ message: \"call failed\" }, { level: error }], error: \"deadline exceeded\" }", true),
        ("{ duration: { gt: 5s } }", false),
    ] {
        let rules = format!("\n  rules:\n    - {{ metric: app_all_total, type: counter, match: {rule} }}");
        let (mut decoder, _) = decoder(&rules);
        assert_eq!(decoder.skip().is_ok(), is_needed, "{rule}");
    }
}

#[test]
fn a_restart_passes_over_what_would_have_been_passed_over() {
    let all = |kills: bool| {
        let mut bench = Bench::new();
        let Logs { rules, validation, .. } = config(RULES);
        assert_eq!(validation, Validation::Sampled);
        (bench.config.rules, bench.config.validation) = (rules, validation);
        bench.kill();
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..60 {
            let text: String =
                (0..random.usize(0..400)).map(|_| if random.u8(0..10) < 9 { LINES[16] } else { LINES[3] }).collect::<Vec<_>>().join("\n");
            bench.append("app.log", text + "\n");
            bench.look();
            let (is_saved, is_killed) = (random.bool(), random.bool());
            if kills && is_saved {
                bench.save();
            }
            if kills && is_killed {
                bench.kill();
            }
        }
        bench.look();
        let outcomes = Outcome::NAMES.map(|outcome| bench.outcome(outcome));
        let samples = bench.value("bellwether_log_sampled_lines_total", &["app", "record"]);
        (outcomes, samples, bench.value("app_prefix_total", &[]), bench.value("app_seconds", &[]))
    };
    let (outcomes, samples, ..) = all(false);
    assert!(outcomes[6] > 5000 && samples > 300, "{outcomes:?} {samples}");
    assert_eq!(all(true), all(false));
}
