//! `bellwether retention status`, `pause` and `resume`.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::retention::{engine, local, policies, store};
use crate::cli::{Failure, SOFTWARE, UNAVAILABLE};
use crate::config::Config;
use crate::retention::census;
use crate::store::mongodb::{Mongo, Purpose};

pub(super) async fn status(config: &Config, json: bool) -> Result<ExitCode, Failure> {
    let unavailable = |error| Failure::new(UNAVAILABLE, error);
    let local = local::local(config);
    let ours: Vec<_> = local.policies().iter().map(|policy| local.standing(policy)).collect();
    let (mut paused, mut standings, mut ttl) = (local.paused().filter(|_| !ours.is_empty()), Vec::new(), Vec::new());
    if has_documents(config) || (ours.is_empty() && config.retention.ttl.is_empty()) {
        let engine = engine(config)?;
        paused = engine.paused().await.map_err(unavailable)?.or(paused);
        for policy in policies(config, None)? {
            standings.push(engine.standing(policy).await.map_err(unavailable)?);
        }
    }
    if !config.retention.ttl.is_empty() {
        let mongo = Mongo::new(store(config)?, Purpose::Retention);
        for declared in &config.retention.ttl {
            let found = census(&mongo, declared).await;
            ttl.extend(found.map_err(|error| Failure::new(UNAVAILABLE, format!("the documents of a TTL cannot be counted: {error}")))?);
        }
    }
    if json {
        let all: Vec<_> = standings.iter().map(|one| json!(one)).chain(ours.iter().map(|one| json!(one))).collect();
        let status = json!({ "paused": paused, "policies": all, "ttl": ttl });
        println!("{}", serde_json::to_string_pretty(&status).map_err(|error| Failure::new(SOFTWARE, error))?);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(reason) = paused {
        println!("PAUSED: {reason}; `bellwether retention resume` lets it go on");
    }
    standings.iter().for_each(|standing| println!("{standing}"));
    ours.iter().for_each(|standing| println!("{standing}"));
    ttl.iter().for_each(|census| println!("{census}"));
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn pause(config: &Config, reason: Option<&str>) -> Result<ExitCode, Failure> {
    let local = local::local(config);
    if !local.policies().is_empty() {
        local.pause(reason).map_err(|error| Failure::new(UNAVAILABLE, error))?;
    }
    if has_documents(config) || local.policies().is_empty() {
        engine(config)?.pause(reason).await.map_err(|error| Failure::new(UNAVAILABLE, error))?;
    }
    let whose = match (local.policies().is_empty(), has_documents(config)) {
        (true, _) => "for every process",
        (false, false) => "for processes with this state folder",
        (false, true) => "of documents for every process, of tables and files for processes with this state folder",
    };
    println!("{}", if reason.is_some() { format!("retention is paused {whose}") } else { "retention goes on".to_owned() });
    Ok(ExitCode::SUCCESS)
}

fn has_documents(config: &Config) -> bool {
    config.stores.mongodb.is_some() && !config.retention.policies.is_empty()
}
