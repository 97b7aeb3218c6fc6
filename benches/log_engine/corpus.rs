//! Lines as DecisionBox writes them, the same in every run, and the truth about them, kept by the writer.
//!
//! About 318 bytes a line: `level, ts, caller, msg, service, project_id` and 1 to 6 more fields; some 20 kinds of
//! messages; 15 % tell what rules ask for; 30 % have their keys in another order; 5 % have blanks behind separators;
//! 1 % are damaged: cut off, without their last brace, or a Go panic and its goroutine between the lines.

use std::collections::BTreeMap;
use std::io::{self, Write};

/// The services that write.
pub const SERVICES: [&str; 3] = ["decisionbox-agent", "decisionbox-api", "decisionbox-worker"];
/// The messages that are counted by service.
pub const EVENTS: [&str; 5] =
    ["LLM call failed", "Query failed", "Rate limited by provider", "Insight rejected", "Conversation history compacted"];
/// The message with the duration of a query, and the kinds of queries.
pub const QUERY: &str = "Query executed";
/// See [`QUERY`].
pub const QUERY_KINDS: [&str; 4] = ["explore", "verify", "schema", "sample"];
/// The upper bounds of the durations of queries, in seconds.
pub const QUERY_BOUNDS: [f64; 8] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
/// The message with the duration of a run.
pub const DISCOVERY: &str = "Discovery run completed";
/// The upper bounds of the durations of runs, in seconds.
pub const DISCOVERY_BOUNDS: [f64; 6] = [60.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0];

/// What must have been counted, kept by the generator while it wrote.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Truth {
    /// Lines that are whole JSON.
    pub records: u64,
    /// Lines that begin as JSON and are cut off.
    pub malformed: u64,
    /// Lines of panics.
    pub panics: u64,
    /// Bytes of all lines.
    pub bytes: u64,
    /// Lines by level and service.
    pub lines: BTreeMap<(&'static str, &'static str), u64>,
    /// Errors by service.
    pub errors: BTreeMap<&'static str, u64>,
    /// The five messages by service.
    pub events: BTreeMap<(&'static str, &'static str), u64>,
    /// Durations of queries by kind.
    pub queries: BTreeMap<&'static str, Histogram>,
    /// Durations of runs.
    pub discoveries: Histogram,
}

/// How many values there were up to each bound, and their sum.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Cumulated, as the exposition has it; the last one is the number of all.
    pub buckets: Vec<u64>,
    /// In seconds.
    pub sum: f64,
}

/// SplitMix64: the corpus does not change with the version of a library.
struct Random(u64);

/// A line in the making: its fields, with values as JSON.
struct Line {
    level: &'static str,
    service: &'static str,
    message: &'static str,
    caller: &'static str,
    more: Vec<(&'static str, String)>,
}

/// Messages that no rule asks for: how often, level, message, caller.
const NOISE: [(u64, &str, &str, &str); 14] = [
    (22, "info", "Executing exploration step", "discovery/exploration.go:214"),
    (11, "info", "Executing exploration action", "discovery/exploration.go:287"),
    (9, "debug", "LLM call usage", "llm/client.go:143"),
    (8, "info", "Insight validation result", "validation/insights.go:96"),
    (7, "debug", "Cache hit for schema of table", "schema/cache.go:58"),
    (6, "info", "HTTP request handled", "server/middleware.go:71"),
    (6, "debug", "Prompt assembled", "prompts/builder.go:122"),
    (6, "info", "Embedding batch stored", "vectors/store.go:167"),
    (5, "debug", "Tool result truncated for the model", "llm/tools.go:240"),
    (5, "info", "Progress of the run updated", "runs/status.go:88"),
    (5, "debug", "Warehouse connection reused", "warehouse/pool.go:49"),
    (4, "warn", "Slow warehouse query — consider a filter on the partition", "warehouse/query.go:201"),
    (3, "info", "Recommendation generated", "analysis/recommendations.go:133"),
    (3, "warn", "Response of the model was repaired", "llm/repair.go:64"),
];

/// Writes `lines` lines, from a begin that `seed` chooses.
///
/// # Errors
/// When they cannot be written.
pub fn write(lines: u64, seed: u64, out: &mut impl Write) -> io::Result<Truth> {
    let mut random = Random(seed);
    let mut truth = Truth::default();
    let mut text = String::new();
    for number in 0..lines {
        text.clear();
        let line = Line::next(&mut random, number);
        line.render(&mut random, &mut text);
        match random.below(1000) {
            0..5 => {
                cut(&mut text, &mut random);
                truth.malformed += 1;
            }
            5..7 => {
                text.pop();
                truth.malformed += 1;
            }
            7..8 => {
                text.replace_range(.., "panic: runtime error: invalid memory address or nil pointer dereference");
                truth.panics += 1;
            }
            8..10 => {
                text = format!("goroutine {} [running]:", 1 + random.below(900));
                truth.panics += 1;
            }
            _ => line.count(&mut truth),
        }
        text.push('\n');
        truth.bytes += text.len() as u64;
        out.write_all(text.as_bytes())?;
    }
    Ok(truth)
}

/// Leaves the begin of a line. No line ends in a brace then, since no value does.
fn cut(text: &mut String, random: &mut Random) {
    let mut length = 1 + usize::try_from(random.below(text.len() as u64 - 2)).unwrap_or_default();
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    text.truncate(length);
}

// === impl Random ===

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn choose<'a>(&mut self, among: &[&'a str]) -> &'a str {
        among[usize::try_from(self.below(among.len() as u64)).unwrap_or_default()]
    }

    fn hex(&mut self, digits: usize) -> String {
        let text = format!("{:016x}{:016x}", self.next(), self.next());
        text[..digits].to_owned()
    }
}

// === impl Line ===

impl Line {
    fn next(random: &mut Random, number: u64) -> Self {
        let service = match random.below(10) {
            0..7 => SERVICES[0],
            7..9 => SERVICES[1],
            _ => SERVICES[2],
        };
        let mut line = match random.below(100) {
            0..15 => Self::relevant(random, number),
            _ => Self::noise(random, number),
        };
        line.service = service;
        line
    }

    fn relevant(random: &mut Random, number: u64) -> Self {
        let (level, message, caller) = match random.below(15) {
            0..6 => ("info", QUERY, "warehouse/query.go:188"),
            6..8 => ("error", EVENTS[0], "llm/client.go:171"),
            8..10 => ("error", EVENTS[1], "warehouse/query.go:195"),
            10 => ("warn", EVENTS[2], "llm/limits.go:39"),
            11..13 => ("info", EVENTS[3], "validation/insights.go:118"),
            13 => ("debug", EVENTS[4], "llm/history.go:77"),
            _ => ("info", DISCOVERY, "discovery/run.go:402"),
        };
        let mut line = Self { level, service: "", message, caller, more: Vec::new() };
        if message == QUERY {
            let kind = random.choose(&QUERY_KINDS);
            line.text("query_kind", kind).number("duration_ms", 1 + random.below(40_000) / (1 + random.below(40)));
            line.number("rows", random.below(10_000)).number("bytes_processed", random.below(1 << 33));
            line.text("job_id", &format!("bqjob_r{}", random.hex(24)));
            if random.below(3) == 0 {
                line.text("sql", r"SELECT user_id, COUNT(*) AS sessions\nFROM `game.events`\nWHERE day = \u002707\u0027");
            }
        } else if message == DISCOVERY {
            let duration = format!("{}m{}.{:09}s", 1 + random.below(140), random.below(60), random.below(1_000_000_000));
            line.text("duration", &duration).number("insights", random.below(40)).number("recommendations", random.below(20));
            line.text("run_id", &random.hex(24)).text("area", "player retention and monetisation");
        } else if level == "error" {
            let error = random.choose(&[
                "claude: failed after 3 attempts: context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                "googleapi: Error 400: Unrecognized name: user_idx at [3:14], invalidQuery",
                r#"Post \"https://api.example.com/v1/messages\": dial tcp 10.0.3.17:443: connect: connection refused"#,
                "status 429: rate_limit_error: this request would exceed your organisation's limit of tokens",
            ]);
            line.text("error", error).number("attempt", 1 + random.below(5)).text("run_id", &random.hex(24));
        } else {
            line.text("run_id", &random.hex(24)).number("step", number % 400).number("tokens", random.below(200_000));
            line.text("reason", random.choose(&["confidence below the threshold", "limit of the window reached", "retry after 20s"]));
        }
        line
    }

    fn noise(random: &mut Random, number: u64) -> Self {
        let mut left = random.below(100);
        let (_, level, message, caller) =
            NOISE.into_iter().find(|(share, ..)| left.checked_sub(*share).map(|rest| left = rest).is_none()).unwrap_or(NOISE[0]);
        let mut line = Self { level, service: "", message, caller, more: Vec::new() };
        let more = 1 + random.below(6);
        let words = ["lookup_schema", "query_data", "compare_cohorts", "summarise", "rank_candidates"];
        for field in 0..more {
            match field {
                0 => line.text("run_id", &random.hex(24)),
                1 => line.text(
                    "thinking",
                    random.choose(&[
                        "Check day-7 retention by cohort before the paywall was moved",
                        "Compare the spend of players that joined in March with those of April",
                        "Verify whether the drop of sessions comes from one platform alone",
                    ]),
                ),
                2 => line.number("step", number % 400),
                3 => line.text("action", random.choose(&words)),
                4 => line.fraction("ratio", random.below(10_000)),
                _ => line.flag("cached", random.below(2) == 0),
            };
        }
        if more == 1 {
            let detail = "the model asked for 3 tables; 2 of them are known, the third is looked up in the warehouse now";
            line.text("detail", detail);
        }
        line
    }

    fn text(&mut self, name: &'static str, value: &str) -> &mut Self {
        self.more.push((name, format!("\"{value}\"")));
        self
    }

    fn number(&mut self, name: &'static str, value: u64) -> &mut Self {
        self.more.push((name, value.to_string()));
        self
    }

    fn fraction(&mut self, name: &'static str, value: u64) -> &mut Self {
        self.more.push((name, format!("0.{value:04}")));
        self
    }

    fn flag(&mut self, name: &'static str, value: bool) -> &mut Self {
        self.more.push((name, value.to_string()));
        self
    }

    fn render(&self, random: &mut Random, text: &mut String) {
        let quoted = |value: &str| format!("\"{value}\"");
        let second = random.below(86_400);
        let time = format!("\"2026-04-04T{:02}:{:02}:{:02}.{:03}Z\"", second / 3600, second / 60 % 60, second % 60, random.below(1000));
        let mut fields = vec![
            ("level", quoted(self.level)),
            ("ts", time),
            ("caller", quoted(self.caller)),
            ("msg", quoted(self.message)),
            ("service", quoted(self.service)),
            ("project_id", quoted(&format!("69d0f3a1c2b4e5f6071829{:02x}", random.below(32)))),
        ];
        fields.extend(self.more.iter().cloned());
        if random.below(100) < 30 {
            for last in (1..fields.len()).rev() {
                fields.swap(last, usize::try_from(random.below(last as u64 + 1)).unwrap_or_default());
            }
        }
        let (comma, colon) = if random.below(100) < 5 { (", ", ": ") } else { (",", ":") };
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\"{colon}{value}")).collect();
        text.push('{');
        text.push_str(&fields.join(comma));
        text.push('}');
    }

    fn count(&self, truth: &mut Truth) {
        truth.records += 1;
        *truth.lines.entry((self.level, self.service)).or_default() += 1;
        if self.level == "error" {
            *truth.errors.entry(self.service).or_default() += 1;
        }
        if EVENTS.contains(&self.message) {
            *truth.events.entry((self.message, self.service)).or_default() += 1;
        }
        let value = |name: &str| self.more.iter().find(|(field, _)| *field == name).map(|(_, value)| value.trim_matches('"'));
        if self.message == QUERY
            && let (Some(kind), Some(millis)) = (value("query_kind"), value("duration_ms").and_then(|value| value.parse::<f64>().ok()))
            && let Some(kind) = QUERY_KINDS.into_iter().find(|known| *known == kind)
        {
            truth.queries.entry(kind).or_default().add(&QUERY_BOUNDS, millis / 1000.0);
        }
        if self.message == DISCOVERY
            && let Some((minutes, seconds)) = value("duration").and_then(|value| value.strip_suffix('s')?.split_once('m'))
        {
            let seconds = minutes.parse::<f64>().unwrap_or_default() * 60.0 + seconds.parse::<f64>().unwrap_or_default();
            truth.discoveries.add(&DISCOVERY_BOUNDS, seconds);
        }
    }
}

// === impl Truth ===

impl Truth {
    /// How many lines there are.
    pub fn total(&self) -> u64 {
        self.records + self.malformed + self.panics
    }

    /// That of several files together.
    pub fn of_all(truths: &[Self]) -> Self {
        let mut all = Self::default();
        truths.iter().for_each(|truth| all.merge(truth));
        all
    }

    /// Adds that of another file.
    fn merge(&mut self, other: &Self) {
        self.records += other.records;
        self.malformed += other.malformed;
        self.panics += other.panics;
        self.bytes += other.bytes;
        other.lines.iter().for_each(|(key, count)| *self.lines.entry(*key).or_default() += count);
        other.errors.iter().for_each(|(key, count)| *self.errors.entry(key).or_default() += count);
        other.events.iter().for_each(|(key, count)| *self.events.entry(*key).or_default() += count);
        other.queries.iter().for_each(|(key, histogram)| self.queries.entry(key).or_default().merge(histogram));
        self.discoveries.merge(&other.discoveries);
    }
}

// === impl Histogram ===

impl Histogram {
    fn add(&mut self, bounds: &[f64], value: f64) {
        self.buckets.resize(bounds.len() + 1, 0);
        for (bucket, bound) in self.buckets.iter_mut().zip(bounds.iter().copied().chain([f64::INFINITY])) {
            *bucket += u64::from(value <= bound);
        }
        self.sum += value;
    }

    fn merge(&mut self, other: &Self) {
        self.buckets.resize(self.buckets.len().max(other.buckets.len()), 0);
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(bucket, more)| *bucket += more);
        self.sum += other.sum;
    }
}
