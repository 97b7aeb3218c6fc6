//! A stand-in for the agent as a process of its own: `demo agent --project-id ID --run-id ID`, as the run service starts the
//! real one. It tells its story on standard error and writes the run's document, step by step and at its end.

use std::env;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use jiff::Timestamp;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{DateTime, Document, doc};
use tokio::time::sleep;

use crate::lines::{self, Format};
use crate::seed;

const PAUSE: Duration = Duration::from_millis(60);

#[derive(Args)]
pub struct Task {
    #[arg(long)]
    project_id: String,
    #[arg(long)]
    run_id: String,
    /// A second of work each
    #[arg(long, default_value_t = 0)]
    max_steps: u64,
}

/// Plays one run that completes.
pub async fn play(task: &Task) -> Result<()> {
    let uri = env::var("MONGODB_URI").context("MONGODB_URI is required")?;
    let name = env::var("MONGODB_DB").context("MONGODB_DB is required")?;
    let runs = seed::connect(&uri).await?.database(&name).collection::<Document>("discovery_runs");
    let run = doc! { "_id": ObjectId::parse_str(&task.run_id)? };
    let report = async |fields: Document| {
        let mut fields = fields;
        fields.insert("updated_at", DateTime::now());
        runs.update_one(run.clone(), doc! { "$set": fields }).await.context("cannot report the run")
    };
    let story = lines::run(0);
    for (number, event) in (0_i32..).zip(&story) {
        std::io::stderr().write_all(event.render(Format::Json, Timestamp::now()).as_bytes())?;
        report(doc! { "status": "running", "phase": "exploration", "progress": 10 + number }).await?;
        sleep(PAUSE).await;
    }
    sleep(Duration::from_secs(task.max_steps)).await;
    let mut end = doc! { "status": "completed", "phase": "complete", "progress": 100, "insights_found": 7 };
    end.extend(doc! { "project_id": &task.project_id, "completed_at": DateTime::now() });
    report(end).await?;
    Ok(())
}
