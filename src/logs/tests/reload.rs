//! Rules that change while a log is read: between two lines, and for nothing else.

use super::*;

/// The configuration of a bench, with these rules instead of the profile's.
fn rules(text: &str) -> Vec<crate::config::rules::Rule> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("logs:\n  rules:\n{text}")).unwrap();
    let request = Request { file: Some(file.path()), logs_only: true, ..Request::default() };
    load(&request, &Environment::default()).unwrap().logs.rules
}

const LINES: &str = "    - { metric: a_lines_total, type: counter, labels: { level: { field: severity, allow: [INFO], else: other } } }\n";
const SEQ: &str = "    - { metric: a_seq, type: histogram, value: { field: seq, unit: none }, buckets: [3] }\n";
const WIDER: &str = "    - { metric: a_seq, type: histogram, value: { field: seq, unit: none }, buckets: [3, 30] }\n";
const JOBS: &str = "    - metric: a_job_duration_seconds\n      type: histogram\n      pair: { start: { message: start }, finish: { message: done }, key: seq, expire: 1h }\n      buckets: [1]\n      absent_after: 1h\n";

fn bench(text: &str) -> Bench {
    let mut bench = Bench::new();
    bench.config.rules = rules(text);
    bench.kill();
    bench
}

impl Bench {
    /// Changes the rules as a reload does.
    fn revise(&mut self, text: &str) -> Result<crate::logs::Revised, crate::series::families::DeclareError> {
        self.config.rules = rules(text);
        self.engine.revision.revise(&self.config)
    }

    fn metrics(&self) -> Vec<String> {
        let mut registry = crate::metrics::Registry::default();
        registry.expose(self.engine.families());
        let text = crate::metrics::exposition::Format::Text.write(&registry).unwrap();
        let all = text.lines().filter(|line| line.starts_with("a_") || line.starts_with("bellwether_log_rule_hits"));
        let mut all: Vec<String> =
            all.filter(|line| !line.contains("_sum") && !line.contains("_bucket")).map(|line| line.replace(".0", "")).collect();
        all.sort();
        all
    }
}

#[test]
fn t20_rules_that_are_added_changed_and_taken_away_leave_the_others_as_they_are() {
    let mut bench = bench(&format!("{LINES}{JOBS}"));
    let line = lines(5..6);
    bench.append("app.log", lines(0..5) + &line[..40]);
    bench.look();
    assert_eq!(
        bench.metrics()[..4],
        ["a_job_absent 0", "a_job_duration_seconds_count 0", "a_job_open 0", "a_job_unpaired_total{reason=\"evicted\"} 0"]
    );

    // In the middle of a line: it is counted by the new rules, and once.
    let revised = bench.revise(&format!("{LINES}{SEQ}")).unwrap();
    assert_eq!(revised.added, ["a_seq"]);
    assert_eq!(
        revised.removed,
        ["a_job_absent", "a_job_duration_seconds", "a_job_last_seen_timestamp_seconds", "a_job_open", "a_job_unpaired_total"]
    );
    bench.append("app.log", &line[40..]);
    bench.look();
    let expected = [
        "a_lines_total{level=\"INFO\"} 6",
        "a_lines_total{level=\"other\"} 0",
        "a_seq_count 1",
        "bellwether_log_rule_hits_total{metric=\"a_lines_total\"} 6",
        "bellwether_log_rule_hits_total{metric=\"a_seq\"} 1",
    ];
    assert_eq!(bench.metrics(), expected);
    bench.check_lines(6);

    // Another form begins anew; what is kept is that.
    bench.revise(&format!("{LINES}{WIDER}")).unwrap();
    bench.append("app.log", lines(6..8));
    bench.look().save();
    assert_eq!(bench.value("a_seq", &[]), 2);
    assert_eq!(bench.value("a_lines_total", &["INFO"]), 8);
    bench.append("app.log", lines(8..9));
    bench.kill();
    bench.look();
    assert_eq!((bench.value("a_seq", &[]), bench.value("a_lines_total", &["INFO"])), (3, 9));

    // A rule that comes back after a time without it begins at zero.
    bench.revise(LINES).unwrap();
    bench.append("app.log", lines(9..10));
    bench.look();
    bench.revise(&format!("{LINES}{WIDER}")).unwrap();
    bench.append("app.log", lines(10..11));
    bench.look();
    assert_eq!((bench.value("a_seq", &[]), bench.value("a_lines_total", &["INFO"])), (1, 11));
    assert_eq!(bench.value("bellwether_log_rule_hits_total", &["a_seq"]), 1);
    bench.check_lines(11);
}

#[test]
fn t21_rules_that_contradict_the_engine_change_nothing() {
    let mut bench = bench(LINES);
    bench.append("app.log", lines(0..3));
    bench.look();
    let before = bench.metrics();
    let bad = format!("{SEQ}    - {{ metric: bellwether_log_lines_total, type: counter }}\n");
    assert!(bench.revise(&bad).unwrap_err().to_string().contains("bellwether_log_lines_total"));
    assert_eq!(bench.metrics(), before);
    bench.append("app.log", lines(3..5));
    bench.look();
    assert_eq!(bench.value("a_lines_total", &["INFO"]), 5);
}

#[test]
fn rules_change_for_all_threads() {
    let mut bench = bench(LINES);
    bench.config.threads = Some(4);
    bench.kill();
    bench.engine.shard.far_behind = 1000;
    let mut expected = [0, 0];
    for round in 0..20 {
        let has_seq = round % 2 == 1;
        bench.revise(&if has_seq { format!("{LINES}{SEQ}") } else { LINES.to_owned() }).unwrap();
        for file in 0..5 {
            bench.append(&format!("{file}.log"), lines(0..100));
        }
        bench.look();
        expected = [expected[0] + 500, if has_seq { 500 } else { 0 }];
        let seq = bench.engine.families().lock().value("a_seq", &[]).unwrap_or(0.0);
        assert_eq!([bench.value("a_lines_total", &["INFO"]), seq as u64], expected, "round {round}");
    }
}

impl Bench {
    #[track_caller]
    fn check_lines(&self, records: u64) {
        assert_eq!((self.outcome("record"), self.value("bellwether_log_file_errors_total", &["app", "vanished"])), (records, 0));
    }
}
