//! Three real members of a replica set: two with data and a third, or one with data and an arbiter beside the primary.

use std::time::Duration;

use mongodb::bson::{Document, doc};

use crate::mongod::{Mongod, SET, eventually};
use crate::retention_bench::Bench;

/// Three members. The first is the server of the bench: its connection string names all of them.
pub struct ReplicaSet {
    pub bench: Bench,
    others: Vec<Mongod>,
}

// === impl ReplicaSet ===

impl ReplicaSet {
    /// Three members with data.
    pub async fn start() -> Self {
        Self::start_as(false).await
    }

    /// A primary, a secondary and an arbiter, which has no data and cannot confirm a write.
    pub async fn start_with_arbiter() -> Self {
        Self::start_as(true).await
    }

    async fn start_as(has_arbiter: bool) -> Self {
        let mut members = vec![Mongod::start_as(true).await, Mongod::start_as(true).await, Mongod::start_as(true).await];
        let hosts: Vec<String> = members.iter().map(Mongod::address).collect();
        let all = hosts.join(",");
        let of_set = hosts.into_iter().zip(0_i32..).map(|(host, number)| {
            let arbiter = has_arbiter && number == 2;
            doc! { "_id": number, "host": host, "arbiterOnly": arbiter, "priority": if arbiter { 0 } else { 1 } }
        });
        // Elections within seconds.
        let settings = doc! { "electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500 };
        let config = doc! { "_id": SET, "members": of_set.collect::<Vec<_>>(), "settings": settings };
        members[0].admin().await.run_command(doc! { "replSetInitiate": config }).await.expect("a replica set");
        let mut first = members.remove(0);
        first.is_one_of(&all);
        let set = Self { bench: Bench::on_set(first).await, others: members };
        let primary = set.primary().await;
        eventually("every member takes part", async || {
            let status = set.members()[primary].admin().await.run_command(doc! { "replSetGetStatus": 1 }).await.ok()?;
            let members = status.get_array("members").ok()?;
            let takes_part = |member: &Document| matches!(member.get_i32("state"), Ok(1 | 2 | 7));
            members.iter().filter_map(|member| member.as_document()).all(takes_part).then_some(())
        })
        .await;
        set.bench.create_indexes().await;
        set
    }

    /// From now on a member is primary although it is slow: for tests of something else than elections.
    pub async fn keep_its_primary(&self) {
        let primary = self.members()[self.primary().await].admin().await;
        let mut config = primary.run_command(doc! { "replSetGetConfig": 1 }).await.expect("a configuration");
        let config = config.get_document_mut("config").expect("a configuration");
        let version = config.get_i32("version").expect("a version");
        config.insert("version", version + 1);
        config.get_document_mut("settings").expect("settings").insert("electionTimeoutMillis", 60_000);
        primary.run_command(doc! { "replSetReconfig": config.clone() }).await.expect("a new configuration");
    }

    /// All members, the first one first.
    pub fn members(&self) -> Vec<&Mongod> {
        std::iter::once(&self.bench.server).chain(&self.others).collect()
    }

    /// One of them.
    pub fn member(&mut self, position: usize) -> &mut Mongod {
        if position == 0 { &mut self.bench.server } else { &mut self.others[position - 1] }
    }

    /// The position of the member that is primary.
    pub async fn primary(&self) -> usize {
        eventually("a member is primary", async || {
            for (position, member) in self.members().into_iter().enumerate() {
                let hello = doc! { "hello": 1 };
                let asked = tokio::time::timeout(Duration::from_secs(2), async { member.admin().await.run_command(hello).await.ok() });
                if asked.await.ok().flatten().is_some_and(|hello| hello.get_bool("isWritablePrimary").unwrap_or(false)) {
                    return Some(position);
                }
            }
            None
        })
        .await
    }

    /// The first of the members with data that is not primary.
    pub async fn secondary(&self) -> usize {
        usize::from(self.primary().await == 0)
    }

    /// Makes the primary step down.
    pub async fn step_down(&self) {
        let admin = self.members()[self.primary().await].admin().await;
        // Connections are closed by some versions: the answer may be lost.
        drop(admin.run_command(doc! { "replSetStepDown": 10, "secondaryCatchUpPeriodSecs": 5, "force": true }).await);
    }
}
