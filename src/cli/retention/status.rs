//! `bellwether retention status`, `pause` and `resume`.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::retention::{engine, policies, store};
use crate::cli::{Failure, SOFTWARE, UNAVAILABLE};
use crate::config::Config;
use crate::retention::census;
use crate::store::mongodb::{Mongo, Purpose};

pub(super) async fn status(config: &Config, json: bool) -> Result<ExitCode, Failure> {
    let engine = engine(config)?;
    let unavailable = |error| Failure::new(UNAVAILABLE, error);
    let paused = engine.paused().await.map_err(unavailable)?;
    let mut standings = Vec::new();
    if config.retention.ttl.is_empty() || !config.retention.policies.is_empty() {
        for policy in policies(config, None)? {
            standings.push(engine.standing(policy).await.map_err(unavailable)?);
        }
    }
    let mongo = Mongo::new(store(config)?, Purpose::Retention);
    let mut ttl = Vec::new();
    for declared in &config.retention.ttl {
        let found = census(&mongo, declared).await;
        ttl.extend(found.map_err(|error| Failure::new(UNAVAILABLE, format!("the documents of a TTL cannot be counted: {error}")))?);
    }
    if json {
        let status = json!({ "paused": paused, "policies": standings, "ttl": ttl });
        println!("{}", serde_json::to_string_pretty(&status).map_err(|error| Failure::new(SOFTWARE, error))?);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(reason) = paused {
        println!("PAUSED: {reason}; `bellwether retention resume` lets it go on");
    }
    standings.iter().for_each(|standing| println!("{standing}"));
    ttl.iter().for_each(|census| println!("{census}"));
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn pause(config: &Config, reason: Option<&str>) -> Result<ExitCode, Failure> {
    engine(config)?.pause(reason).await.map_err(|error| Failure::new(UNAVAILABLE, error))?;
    println!("{}", if reason.is_some() { "retention is paused for every process" } else { "retention goes on" });
    Ok(ExitCode::SUCCESS)
}
