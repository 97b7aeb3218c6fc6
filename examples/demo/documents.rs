//! Documents as the application writes them: invented contents in its real shapes.

use std::time::{Duration, SystemTime};

use mongodb::bson::{DateTime, Document, doc, oid::ObjectId};

pub const PROJECTS: [&str; 2] = ["69d0f3a1c2b4e5f60718293a", "69d0f3a1c2b4e5f60718293b"];

const LLM_TIMEOUT: &str = "claude: failed after 3 attempts: claude: HTTP request failed: Post \
    \"https://api.anthropic.com/v1/messages\": context deadline exceeded (Client.Timeout exceeded while awaiting \
    headers)";
const BAD_SQL: &str = "googleapi: Error 400: Unrecognized name: user_idx at [3:14], invalidQuery";

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// The two generations of the debug log: up to v0.4 its fields begin with `claude_`, later with `llm_`.
#[derive(Clone, Copy)]
pub enum Generation {
    Claude,
    Llm,
}

impl Generation {
    pub fn of(number: u64) -> Self {
        if number.is_multiple_of(2) { Self::Llm } else { Self::Claude }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Llm => "llm",
        }
    }
}

pub fn ago(age: Duration) -> DateTime {
    DateTime::from_system_time(SystemTime::now() - age)
}

/// References are hex strings, never ObjectIds.
fn project(number: u64) -> &'static str {
    PROJECTS[usize::from(!number.is_multiple_of(2))]
}

pub fn projects() -> Vec<Document> {
    let names = ["Puzzle Quest", "Corner Shop"];
    names
        .iter()
        .zip(PROJECTS)
        .map(|(name, id)| {
            let id = ObjectId::parse_str(id).unwrap_or_default();
            doc! { "_id": id, "name": name, "status": "active", "created_at": ago(200 * DAY), "updated_at": ago(DAY) }
        })
        .collect()
}

fn run(number: u64, status: &str, started: Duration, updated: Duration) -> Document {
    doc! {
        "_id": ObjectId::new(),
        "project_id": project(number),
        "status": status,
        "phase": "exploration",
        "phase_detail": "",
        "progress": 40,
        "started_at": ago(started),
        "updated_at": ago(updated),
        "total_queries": 12,
        "successful_queries": 11,
        "failed_queries": 1,
        "insights_found": 3,
    }
}

/// Every fourth run fails, as an LLM provider that times out makes it fail.
pub fn finished_run(number: u64, ended: Duration) -> Document {
    let failed = number % 4 == 3;
    let lasted = Duration::from_secs(240 + number % 7 * 95);
    let mut run = run(number, if failed { "failed" } else { "completed" }, ended + lasted, ended);
    run.insert("completed_at", ago(ended));
    run.insert("phase", "complete");
    run.insert("progress", 100);
    if failed {
        run.insert("error", format!("discovery run failed: exploration failed: step 12: {LLM_TIMEOUT}"));
    }
    run
}

/// One run in every state, and one that an API start called stale while its agent went on to the end.
pub fn runs() -> Vec<Document> {
    let mut runs: Vec<Document> = (0..8).map(|number| finished_run(number, DAY + 40 * MINUTE)).collect();
    runs.push(run(0, "running", 4 * MINUTE, Duration::from_secs(20)));
    runs.push(run(1, "pending", Duration::from_secs(5), Duration::from_secs(5)));
    let mut cancelled = run(1, "cancelled", 300 * MINUTE, 290 * MINUTE);
    cancelled.insert("completed_at", ago(290 * MINUTE));
    runs.push(cancelled);
    let mut stale = finished_run(0, 500 * MINUTE);
    stale.insert("error", "stale: API restarted while run was in progress");
    runs.push(stale);
    runs
}

/// Sixteen results of the first project, the oldest four beyond the 90 days of the guide.
pub fn discoveries() -> Vec<Document> {
    (0..16_u32)
        .map(|number| {
            let created = ago(DAY * (1 + number * 8));
            doc! {
                "_id": ObjectId::new(),
                "project_id": PROJECTS[0],
                "domain": "gaming",
                "category": "match3",
                "discovery_date": created,
                "run_type": if number % 5 == 4 { "partial" } else { "full" },
                "total_steps": 63,
                "duration": 323_412_345_678_i64,
                "insights": [],
                "recommendations": [],
                "created_at": created,
                "updated_at": created,
            }
        })
        .collect()
}

pub fn feedback(discoveries: &[Document]) -> Vec<Document> {
    discoveries
        .iter()
        .filter_map(|discovery| discovery.get_object_id("_id").ok())
        .step_by(3)
        .map(|id| {
            doc! {
                "project_id": PROJECTS[0],
                "discovery_id": id.to_hex(),
                "target_type": "insight",
                "target_id": "0",
                "rating": "like",
                "comment": "",
                "created_at": ago(DAY),
            }
        })
        .collect()
}

/// The last one is what is stored when no encryption key is set.
pub fn secrets() -> Vec<Document> {
    let secret = |number: u64, key: &str, value: &str, encrypted: bool| {
        doc! {
            "namespace": "decisionbox",
            "project_id": project(number),
            "key": key,
            "value": value,
            "encrypted": encrypted,
            "created_at": ago(100 * DAY),
            "updated_at": ago(100 * DAY),
        }
    };
    let sealed = "YWJjZGVmZ2hpamtsjFxaPm+X29VguCmHm1kOX428wrMurxIBx194hKClOUZ/1yPwy6EYOBKoJ+vTCD44pEs=";
    vec![
        secret(0, "llm-api-key", sealed, true),
        secret(0, "warehouse-credentials", sealed, true),
        secret(1, "llm-api-key", "not-a-real-key", false),
    ]
}

/// What one step of a run leaves in the debug log: a call of the LLM and a query, some of which fail.
pub fn debug_rows(number: u64, age: Duration) -> Vec<Document> {
    vec![llm_row(number, age, Generation::of(number)), warehouse_row(number, age)]
}

fn debug_row(number: u64, age: Duration, success: bool) -> Document {
    let at = ago(age);
    doc! {
        "_id": ObjectId::new(),
        "app_id": project(number),
        "discovery_run_id": format!("{number:024x}"),
        "timestamp": at,
        "created_at": at,
        "success": success,
    }
}

fn llm_row(number: u64, age: Duration, generation: Generation) -> Document {
    let success = number % 5 != 4;
    let prefix = generation.prefix();
    let mut row = debug_row(number, age, success);
    row.insert("log_type", prefix);
    row.insert("component", prefix);
    row.insert("operation", "create_message");
    row.insert("duration_ms", if success { 9_341_i64 } else { 300_211 });
    row.insert(format!("{prefix}_model"), "claude-sonnet-4-6");
    row.insert(format!("{prefix}_prompt"), "an invented prompt that nobody else may read");
    if success {
        row.insert(format!("{prefix}_response"), "an invented answer that nobody else may read");
        row.insert(format!("{prefix}_input_tokens"), 18_422);
        row.insert(format!("{prefix}_output_tokens"), 611);
    } else {
        row.insert(format!("{prefix}_error"), LLM_TIMEOUT);
        row.insert("error_message", LLM_TIMEOUT);
    }
    row
}

fn warehouse_row(number: u64, age: Duration) -> Document {
    let success = number % 9 != 8;
    let mut row = debug_row(number, age, success);
    row.insert("log_type", "bigquery");
    row.insert("component", "bigquery");
    row.insert("operation", "execute_query");
    row.insert("phase", "exploration");
    row.insert("duration_ms", 1_812_i64);
    row.insert("query_purpose", "Check day-7 retention");
    if success {
        row.insert("row_count", 42);
    } else {
        row.insert("query_error", BAD_SQL);
        row.insert("error_message", BAD_SQL);
    }
    row
}
