//! The whole scene: who is started in which order, and how all of it ends.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result};
use mongodb::Database;
use mongodb::bson::oid::ObjectId;
use tempfile::TempDir;

use crate::agent::Agent;
use crate::mongod::Mongod;
use crate::seed::{self, Feeder};
use crate::sidecar::{self, Sidecar, Watched};
use crate::stand_in::StandIn;
use crate::wait::until;

const START_LIMIT: Duration = Duration::from_secs(60);

/// Fields are dropped in this order: whoever writes to the folder ends before the folder is removed.
pub struct Stage {
    pub sidecar: Sidecar,
    pub agent: Agent,
    pub feeder: Option<Feeder>,
    pub dashboard: StandIn,
    pub api: StandIn,
    pub database: Database,
    /// `None` where a MongoDB was given: that one is not ours to freeze or to stop.
    pub mongod: Option<Mongod>,
    pub agent_log: PathBuf,
    _folder: TempDir,
}

impl Stage {
    pub async fn set_up() -> Result<Self> {
        sidecar::program()?;
        let folder = tempfile::Builder::new().prefix("bellwether-demo-").tempdir().context("no temporary folder")?;
        let (mongod, uri, database_name) = match env::var("MONGODB_URI") {
            // Never the application's own database, and one that nobody else uses.
            Ok(uri) if !uri.is_empty() => (None, uri, format!("bellwether_demo_{}", ObjectId::new())),
            _ => {
                let program = env::var_os("BELLWETHER_MONGOD").unwrap_or_else(|| OsString::from("mongod"));
                let mongod = Mongod::start(&program, folder.path()).await?;
                let uri = mongod.uri();
                (Some(mongod), uri, "decisionbox".to_owned())
            }
        };
        let database = seed::connect(&uri).await?.database(&database_name);
        let api_log = folder.path().join("api.log");
        let agent_log = folder.path().join("agent.log");
        // The API has a client of its own, so that the writes of the seed never wait for its pings.
        let api_database = seed::connect(&uri).await?.database(&database_name);
        let api = StandIn::api(api_database, server_name(&uri).await?, &api_log).await?;
        let dashboard = StandIn::dashboard(&api.url).await?;
        let agent = Agent::new(&agent_log)?;
        seed::seed(&database).await?;
        let watched = Watched {
            mongodb_uri: &uri,
            mongodb_database: &database_name,
            api_url: &api.url,
            dashboard_url: &dashboard.url,
            agent_log: &agent_log,
            api_log: &api_log,
        };
        let sidecar = Sidecar::start(&watched, folder.path())?;
        Ok(Self { sidecar, agent, feeder: None, dashboard, api, database, mongod, agent_log, _folder: folder })
    }

    /// `/startupz` answers 200, or why it never will.
    pub async fn started(&mut self) -> Result<(), String> {
        let sidecar = &mut self.sidecar;
        until(START_LIMIT, async || {
            if let Err(ended) = sidecar.alive() {
                return Ok(Err(ended.to_string()));
            }
            match sidecar.status("/startupz").await? {
                200 => Ok(Ok(())),
                other => Err(format!("/startupz answers {other}")),
            }
        })
        .await?
    }

    /// From here on lines are written and runs end.
    pub fn begin(&mut self) {
        self.agent.start();
        self.feeder = Some(Feeder::start(self.database.clone()));
    }

    /// Stops everything, whatever fails on the way.
    pub async fn stop(mut self) -> Ended {
        self.agent.stop();
        if let Some(feeder) = &self.feeder {
            feeder.stop();
        }
        let thawed = self.mongod.as_ref().map_or(Ok(()), Mongod::thaw);
        let sidecar = self.sidecar.stop().await;
        self.dashboard.stop();
        self.api.stop();
        let cleaned = match self.mongod.take() {
            Some(mongod) => mongod.stop().await,
            None => self.database.drop().await.context("cannot drop the database of the demo"),
        };
        Ended { status: thawed.and(cleaned).and(sidecar), log: self.sidecar.last_lines() }
    }
}

/// How the sidecar ended, and the end of its log, whose file is gone by now.
pub struct Ended {
    pub status: Result<ExitStatus>,
    pub log: String,
}

/// Host and port alone: a URI may carry a password.
async fn server_name(uri: &str) -> Result<String> {
    let options = seed::parse(uri).await?;
    Ok(options.hosts.first().map_or_else(|| "mongodb".to_owned(), ToString::to_string))
}
