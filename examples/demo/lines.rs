//! Log lines of the agent in its three formats. Which one it writes depends on where it runs: JSON with `ENV=prod`,
//! coloured console text in Kubernetes Jobs, and a prefix where the API passes the lines of a subprocess on.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

#[derive(Clone, Copy)]
pub enum Format {
    Json,
    Console,
    Prefixed,
}

pub const FORMATS: [Format; 3] = [Format::Json, Format::Console, Format::Prefixed];

/// One event of the agent, without its time.
pub struct Event {
    level: Level,
    message: &'static str,
    fields: Value,
}

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Info,
    Warn,
    Error,
    Fatal,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }

    fn colour(self) -> u8 {
        match self {
            Self::Info => 34,
            Self::Warn => 33,
            Self::Error | Self::Fatal => 31,
        }
    }

    fn caller(self) -> &'static str {
        match self {
            Self::Info => "log/compat.go:75",
            Self::Warn => "log/compat.go:76",
            Self::Error => "log/compat.go:77",
            Self::Fatal => "log/compat.go:78",
        }
    }

    fn has_stack(self) -> bool {
        matches!(self, Self::Error | Self::Fatal)
    }
}

const SERVICE: &str = "decisionbox-agent";
const PROJECT: &str = "69d0f3a1c2b4e5f60718293a";
const RUN: &str = "69d0f41bc2b4e5f60718293b";
const STACK: &str = "github.com/decisionbox-io/decisionbox/services/agent/internal/log.(*entry).Error\n\t\
    /workspace/services/agent/internal/log/compat.go:77\nmain.main\n\t/workspace/services/agent/main.go:36\n\
    runtime.main\n\t/usr/local/go/src/runtime/proc.go:285";
const LLM_TIMEOUT: &str = "claude: failed after 3 attempts: claude: HTTP request failed: Post \
    \"https://api.anthropic.com/v1/messages\": context deadline exceeded (Client.Timeout exceeded while awaiting \
    headers)";
const BAD_SQL: &str = "googleapi: Error 400: Unrecognized name: user_idx at [3:14], invalidQuery";

/// The story of a run. Every third one ends with a provider that does not answer.
pub fn run(number: u64) -> Vec<Event> {
    let mut events = start();
    if number % 3 == 2 {
        events.extend(llm_failure());
    } else {
        events.extend(completion(number));
    }
    events
}

fn start() -> Vec<Event> {
    vec![
        info("Starting DecisionBox Agent", json!({"project_id": PROJECT, "max_steps": 100, "min_steps": 60, "env": "prod"})),
        info("Connected to MongoDB", json!({})),
        info("Project loaded", json!({"project": "Puzzle Quest", "domain": "gaming", "category": "match3"})),
        info("LLM provider initialized", json!({"provider": "claude", "model": "claude-sonnet-4-6"})),
        info("Starting discovery run", json!({"project_id": PROJECT, "domain": "gaming", "category": "match3"})),
        info("Phase 3: Running autonomous exploration", json!({})),
        info("Exploration step starting", json!({"step": 12, "max": 100, "messages": 23})),
        info("LLM call usage", llm(json!({"input_tokens": 18422, "output_tokens": 611, "latency_ms": 9341}))),
        info("Executing exploration action", json!({"step": 12, "action": "query_data", "thinking": "Check day-7 retention by cohort"})),
        warn("Query failed", json!({"attempt": 0, "max": 5, "error": BAD_SQL, "purpose": "Check day-7 retention"})),
        info("Attempting SQL fix via LLM", json!({"attempt": 1, "error": BAD_SQL})),
    ]
}

fn llm_failure() -> Vec<Event> {
    let fatal = format!("discovery run failed: exploration failed: step 12: failed to get LLM response: {LLM_TIMEOUT}");
    vec![
        error("Query execution failed", json!({"error": format!("query failed after 6 attempts: {BAD_SQL}")})),
        warn("LLM call failed", llm(json!({"input_tokens": 0, "output_tokens": 0, "latency_ms": 905_211, "error": LLM_TIMEOUT}))),
        error("LLM call failed during exploration", json!({"step": 12, "attempt": 0, "error": LLM_TIMEOUT})),
        Event { level: Level::Fatal, message: "Discovery failed", fields: json!({"error": fatal}) },
    ]
}

/// `duration` is milliseconds in one line and text in the other, as the application has it.
fn completion(number: u64) -> Vec<Event> {
    let minutes = 4 + number % 9;
    vec![
        info("SQL query fixed", json!({"attempt": 0})),
        info("Exploration finished", json!({"total_steps": 63, "duration": minutes * 51_000, "completed": true})),
        warn("Analysis failed", json!({"area": "churn", "error": LLM_TIMEOUT})),
        info("Discovery result saved", json!({"project_id": PROJECT})),
        info(
            "Discovery run completed",
            json!({"project_id": PROJECT, "insights": 7, "recommendations": 5, "validations": 12,
            "duration": format!("{minutes}m23.412345678s")}),
        ),
        info("Discovery completed successfully", json!({})),
    ]
}

fn llm(mut fields: Value) -> Value {
    fields["provider"] = json!("claude");
    fields["model"] = json!("claude-sonnet-4-6");
    fields["project_id"] = json!(PROJECT);
    fields["run_id"] = json!(RUN);
    fields["phase"] = json!("");
    fields["step"] = json!(0);
    fields
}

fn info(message: &'static str, fields: Value) -> Event {
    Event { level: Level::Info, message, fields }
}

fn warn(message: &'static str, fields: Value) -> Event {
    Event { level: Level::Warn, message, fields }
}

fn error(message: &'static str, fields: Value) -> Event {
    Event { level: Level::Error, message, fields }
}

impl Event {
    /// As it stands in the log, with the line ends: several lines where a stack trace follows.
    pub fn render(&self, format: Format, now: Timestamp) -> String {
        let time = now.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        match format {
            Format::Json => format!("{}\n", self.json(&time)),
            Format::Prefixed => format!("[agent {RUN}] {}\n", self.json(&time)),
            Format::Console => self.console(&time),
        }
    }

    fn json(&self, time: &str) -> Value {
        let mut line = json!({
            "severity": self.level.name(),
            "timestamp": time,
            "caller": self.level.caller(),
            "message": self.message,
            "service": SERVICE,
        });
        for (key, value) in self.fields.as_object().into_iter().flatten() {
            line[key] = value.clone();
        }
        if self.level.has_stack() {
            line["stacktrace"] = json!(STACK);
        }
        line
    }

    fn console(&self, time: &str) -> String {
        let (level, colour, caller) = (self.level.name(), self.level.colour(), self.level.caller());
        let fields = spaced(self.fields.as_object());
        let stack = if self.level.has_stack() { format!("{STACK}\n") } else { String::new() };
        format!("{time}\t\x1b[{colour}m{level}\x1b[0m\t{caller}\t{}\t{fields}\n{stack}", self.message)
    }
}

/// The console encoder sets a blank behind each colon and comma.
fn spaced(fields: Option<&Map<String, Value>>) -> String {
    let mut text = format!("{{\"service\": \"{SERVICE}\"");
    for (key, value) in fields.into_iter().flatten() {
        text.push_str(&format!(", {}: {value}", Value::from(key.as_str())));
    }
    text.push('}');
    text
}
