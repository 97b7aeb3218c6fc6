//! `mongodb` against a real server: standalone, primary, secondary, killed.

use mongodb::bson::doc;

use super::{expect, expect_saying, watch};
use crate::mongod::Mongod;

const CHECKS: &str = "    any: { type: mongodb }\n    primary: { type: mongodb, require: primary }";

fn stores(uri: &str) -> String {
    format!("mongodb: {{ uri: \"{uri}\", database: app }}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_is_fine_and_a_killed_one_is_refused() {
    let mut mongod = Mongod::start().await;
    let sidecar = watch(&stores(&mongod.uri()), CHECKS);
    expect_saying(&sidecar, "any", "up", None, "standalone");
    expect_saying(&sidecar, "primary", "up", None, "standalone");
    mongod.kill();
    expect(&sidecar, "any", "down", Some("refused"));
    expect(&sidecar, "primary", "down", Some("refused"));
    mongod.restart().await;
    expect(&sidecar, "any", "up", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_without_a_primary_serves_those_who_need_none() {
    let mongod = Mongod::start_replica_set().await;
    let sidecar = watch(&stores(&mongod.uri()), CHECKS);
    expect_saying(&sidecar, "any", "up", None, "primary of the set rs0");
    expect_saying(&sidecar, "primary", "up", None, "primary of the set rs0");
    // A direct connection sees the member itself, whatever it is.
    let direct = watch(&stores(&format!("{}&directConnection=true", mongod.uri())), CHECKS);
    expect_saying(&direct, "primary", "up", None, "primary of the set rs0");
    let admin = mongod.database("admin").await;
    admin.run_command(doc! { "replSetStepDown": 3600, "force": true }).await.expect("a member that steps down");
    expect_saying(&sidecar, "any", "up", None, "secondary of the set rs0");
    expect(&sidecar, "primary", "down", Some("no_primary"));
    expect_saying(&direct, "any", "up", None, "secondary of the set rs0");
    expect_saying(&direct, "primary", "down", Some("not_primary"), "secondary of the set rs0");
}
