//! The embedded run service with agents as Jobs: a real API server, the real controllers of Jobs and of garbage, a real mongod.
//! What a kubelet would say of a container is said by the test.

use std::time::Duration;

use bellwether::config::services::jobs::AgentJobs;
use bellwether::secret::Secret;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, ListParams};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{DateTime, Document, doc};
use serde_json::json;

use crate::cluster::Cluster;
use crate::mongod::eventually;
use crate::runs_service::{Ground, Stage, error};
use crate::served::Reply;

/// Runs whose agents are Jobs of a cluster.
async fn ground(cluster: &Cluster) -> Ground {
    let mut ground = Ground::new().await;
    let variables = [("MONGODB_URI", "mongodb://user:hunter2@db"), ("ENV", "prod"), ("PATH", "/of/this/machine")];
    ground.settings.environment = variables.map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned()))).to_vec();
    ground.settings.limits.grace = Duration::from_secs(30);
    ground.settings.jobs = Some(AgentJobs {
        access: cluster.access(),
        name: "bellwether".to_owned(),
        image: "agent:1".to_owned(),
        command: Vec::new(),
        service_account: None,
        labels: vec![("app".to_owned(), "decisionbox-agent".to_owned())],
        cpu_request: "250m".to_owned(),
        cpu_limit: None,
        memory_request: 256 << 20,
        start_limit: Duration::from_secs(600),
        pod: serde_json::Map::new(),
    });
    ground
}

async fn is_held(ground: &Ground, run: &str) -> bool {
    let claims = ground.database.collection::<Document>("bellwether_run_claims");
    claims.count_documents(doc! { "run": run, "expires": { "$gt": DateTime::from_millis(0) } }).await.unwrap() > 0
}

async fn metric(stage: &Stage, line: &str) {
    eventually(line, async || stage.registry.open_metrics().unwrap().contains(line).then_some(())).await;
}

/// A project whose run is not started, as a right was taken away a moment ago.
async fn refused(ground: &Ground, stage: &Stage) -> (String, Reply) {
    eventually("the right is gone", async || {
        let project = ground.project().await;
        let reply = stage.start(&project, "").await;
        (reply.status == 500).then_some((project, reply))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_a_job_from_its_start_to_its_end() {
    let Some(cluster) = Cluster::start().await else { return };
    let ground = ground(&cluster).await;
    let stage = ground.service("state").await;
    let project = ground.project().await;
    let run = Stage::run(&stage.start(&project, r#"{"areas":["churn"],"max_steps":7}"#).await);
    let job = serde_json::to_value(cluster.job(&run).await.expect("a Job")).unwrap();
    let labels = &job["metadata"]["labels"];
    assert_eq!((&labels["run-id"], &labels["project-id"], &labels["app"]), (&json!(run), &json!(project), &json!("decisionbox-agent")));
    assert_eq!(job["spec"]["suspend"], json!(false));
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["args"], json!(["--project-id", project, "--run-id", run, "--areas", "churn", "--max-steps", "7"]));
    assert!(!job.to_string().contains("hunter2"), "variables are in no Job: {job}");
    let secret = cluster.secret(&run).await.expect("a Secret");
    let variables: Vec<String> =
        secret.data.unwrap().into_iter().map(|(name, value)| format!("{name}={}", String::from_utf8(value.0).unwrap())).collect();
    assert_eq!(variables, ["ENV=prod", "LOG_LEVEL=info", "MONGODB_URI=mongodb://user:hunter2@db"]);

    assert_eq!(ground.document(&run).await.get_str("status").unwrap(), "pending", "its pod waits for a node");
    cluster.begin(&run).await;
    let second = stage.start(&project, "").await;
    assert_eq!((second.status, &second.json()["data"]["run_id"]), (409, &json!(run)));
    cluster.end(&run, 0, "Completed", "").await;
    let document = ground.over(&run).await;
    assert_eq!((document.get_str("status").unwrap(), document.get_i32("exit_code").unwrap()), ("completed", 0));
    let is_noted = |job: Option<Job>| job?.metadata.labels?.get("bellwether/recorded").cloned();
    eventually("who looks later does not write it down again", async || is_noted(cluster.job(&run).await)).await;
    // The cluster does so by itself an hour later.
    let job = format!("discovery-{run}");
    drop(cluster.api::<Job>().delete(&job, &DeleteParams::background()).await.unwrap());
    eventually("the Secret goes with its Job", async || cluster.secret(&run).await.is_none().then_some(())).await;

    for (code, reason, message, expected) in [
        (
            1,
            "Error",
            "{\"severity\":\"FATAL\",\"message\":\"Discovery failed\",\"error\":\"claude: overloaded\"}\n",
            "claude: overloaded (exit status 1)",
        ),
        (137, "OOMKilled", "", "memory limit: the agent used too much and was killed (signal: killed)"),
    ] {
        let run = stage.begin(&project).await;
        cluster.begin(&run).await;
        cluster.end(&run, code, reason, message).await;
        let document = ground.over(&run).await;
        assert_eq!((document.get_str("status").unwrap(), error(&document)), ("failed", expected));
    }
    metric(&stage, "bellwether_runs_ended_total{status=\"failed\"} 2").await;
    metric(&stage, "bellwether_runs_ended_total{status=\"completed\"} 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_agents_outlive_a_kill_and_what_ended_meanwhile_is_known() {
    let Some(cluster) = Cluster::start().await else { return };
    let ground = ground(&cluster).await;
    let stage = ground.service("one").await;
    let mut runs = Vec::new();
    for _ in 0..20 {
        let run = stage.begin(&ground.project().await).await;
        cluster.begin(&run).await;
        runs.push(run);
    }
    stage.vanish();
    cluster.end(&runs[0], 0, "Completed", "").await;
    cluster.end(&runs[1], 3, "Error", "nobody listens\n").await;
    for run in &runs[..2] {
        let is_over = |job: Job| job.status?.conditions?.iter().any(|it| ["Complete", "Failed"].contains(&&*it.type_)).then_some(());
        eventually("its Job is over", async || is_over(cluster.job(run).await?)).await;
    }
    // On another node, with another disk; and at last there are two.
    let (stage, other) = (ground.service("two").await, ground.service("three").await);
    assert_eq!(ground.over(&runs[0]).await.get_str("status").unwrap(), "completed");
    assert_eq!(error(&ground.over(&runs[1]).await), "nobody listens (exit status 3)");
    metric(&stage, "bellwether_runs_reattached_total 18").await;
    metric(&stage, "bellwether_runs_agents 18").await;
    metric(&other, "bellwether_runs_agents 18").await;
    for run in &runs[2..] {
        assert!(is_held(&ground, run).await);
        assert_eq!(ground.document(run).await.get_str("status").unwrap(), "pending");
    }
    for run in &runs[2..] {
        cluster.end(run, 0, "Completed", "").await;
    }
    for run in &runs[2..] {
        assert_eq!(ground.over(run).await.get_str("status").unwrap(), "completed");
    }
    // One that has ended is no agent any more, and counted a moment later: when it is written down.
    for stage in [&stage, &other] {
        metric(stage, "bellwether_runs_agents 0").await;
        metric(stage, "bellwether_runs_unrecorded 0").await;
    }
    let counted = [&stage, &other].map(|stage| {
        let metrics = stage.registry.open_metrics().unwrap();
        let values =
            metrics.lines().filter_map(|line| line.strip_prefix("bellwether_runs_ended_total{")?.rsplit(' ').next()?.parse::<u32>().ok());
        values.sum::<u32>()
    });
    assert_eq!(counted.iter().sum::<u32>(), 20, "each end is counted by one of them: {counted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_agent_holds_its_project_until_it_is_gone() {
    let Some(cluster) = Cluster::start().await else { return };
    let ground = ground(&cluster).await;
    let (stage, other) = (ground.service("one").await, ground.service("other").await);
    let project = ground.project().await;
    let run = stage.begin(&project).await;
    cluster.bind(&run).await;
    cluster.begin(&run).await;
    metric(&other, "bellwether_runs_agents 1").await;
    // By way of the other one, which has not started it.
    assert_eq!(other.cancel(&run).await.status, 200);
    assert_eq!(ground.document(&run).await.get_str("status").unwrap(), "cancelled");
    eventually("its pod is told to end", async || cluster.pod(&run).await.metadata.deletion_timestamp).await;
    // It saves what it has, and says that it runs; its project is not free.
    let runs = ground.database.collection::<Document>("discovery_runs");
    let id = ObjectId::parse_str(&run).unwrap();
    runs.update_one(doc! { "_id": id }, doc! { "$set": { "status": "running", "updated_at": DateTime::now() } }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(is_held(&ground, &run).await);
    assert_eq!(stage.start(&project, "").await.status, 409);
    cluster.let_go(&run).await;
    assert_eq!(ground.over(&run).await.get_str("status").unwrap(), "cancelled");
    eventually("nothing of it is left", async || cluster.secret(&run).await.is_none().then_some(())).await;
    let next = stage.begin(&project).await;

    // Somebody deletes a Job by hand.
    drop(cluster.api::<Job>().delete(&format!("discovery-{next}"), &DeleteParams::foreground()).await.unwrap());
    let document = ground.over(&next).await;
    let expected = "its Job was deleted (the agent is gone and its exit status is not known)";
    assert_eq!((document.get_str("status").unwrap(), error(&document)), ("failed", expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_does_not_answer_ends_no_run_and_begins_none_by_halves() {
    let Some(cluster) = Cluster::start().await else { return };
    let mut ground = ground(&cluster).await;
    let stage = ground.service("state").await;
    let run = stage.begin(&ground.project().await).await;
    cluster.begin(&run).await;
    cluster.freeze();
    let project = ground.project().await;
    let reply = stage.start(&project, "").await;
    assert_eq!(reply.status, 500, "{reply:?}");
    assert!(reply.body.contains("the API server was not reached: no answer in time"), "{reply:?}");
    eventually("a look failed", async || {
        let metrics = stage.registry.open_metrics().unwrap();
        let failures = metrics.lines().find_map(|line| line.strip_prefix("bellwether_runs_look_failures_total ")).map(str::to_owned);
        failures.filter(|failures| failures != "0")
    })
    .await;
    assert!(is_held(&ground, &run).await, "unknown is not gone");
    cluster.wake_up();
    let wanted = ListParams::default().labels(&format!("project-id={project}"));
    eventually("what was begun by halves is gone, and its project is free", async || {
        let jobs = cluster.api::<Job>().list(&wanted).await.unwrap().items.len();
        let claims = ground.database.collection::<Document>("bellwether_run_claims");
        let free = claims.count_documents(doc! { "_id": &project, "expires": DateTime::from_millis(0) }).await.unwrap();
        (jobs == 0 && free == 1).then_some(())
    })
    .await;
    let runs = ground.database.collection::<Document>("discovery_runs");
    let failed = runs.find_one(doc! { "project_id": &project }).await.unwrap().unwrap();
    assert_eq!(failed.get_str("status").unwrap(), "failed");
    cluster.end(&run, 0, "Completed", "").await;
    assert_eq!(ground.over(&run).await.get_str("status").unwrap(), "completed");

    // A right is missing: it is named, and nothing is left.
    cluster.forbid("secrets").await;
    let (project, reply) = refused(&ground, &stage).await;
    let wanted = ListParams::default().labels(&format!("project-id={project}"));
    for word in ["Forbidden", "bellwether", "create", "secrets"] {
        assert!(reply.body.contains(word), "{word}: {reply:?}");
    }
    eventually("nothing is left", async || cluster.api::<Job>().list(&wanted).await.unwrap().items.is_empty().then_some(())).await;

    // Without any right, a run fails all the same, and its project is free.
    cluster.forbid("jobs").await;
    let (other, reply) = refused(&ground, &stage).await;
    assert!(reply.body.contains("Forbidden") && reply.body.contains("jobs"), "{reply:?}");
    let failed = eventually("it is written down", async || {
        let run = runs.find_one(doc! { "project_id": &other }).await.unwrap().unwrap();
        (run.get_str("status").unwrap() == "failed").then_some(run)
    })
    .await;
    assert!(error(&failed).contains("Forbidden"), "{failed}");

    // A setting of the pod that Kubernetes does not know would do nothing.
    cluster.permit_all().await;
    stage.vanish();
    ground.settings.jobs.as_mut().unwrap().pod.insert("nodeselector".to_owned(), json!({ "pool": "batch" }));
    let stage = ground.service("state").await;
    let reply = stage.start(&ground.project().await, "").await;
    assert!(reply.status == 500 && reply.body.contains("unknown field") && reply.body.contains("nodeselector"), "{reply:?}");

    // An image that is not there.
    stage.vanish();
    ground.settings.jobs.as_mut().unwrap().pod.clear();
    ground.settings.jobs.as_mut().unwrap().start_limit = Duration::from_secs(1);
    let stage = ground.service("state").await;
    let run = stage.begin(&ground.project().await).await;
    cluster.say(&run, "Pending", json!({ "waiting": { "reason": "ImagePullBackOff", "message": "agent:1 was not found" } })).await;
    let document = ground.over(&run).await;
    let expected = "failed to start: nothing ran after 1s: ImagePullBackOff: agent:1 was not found";
    assert_eq!((document.get_str("status").unwrap(), error(&document)), ("failed", expected));
    eventually("its Job is gone", async || cluster.job(&run).await.is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_starts_through_two_services_one_becomes_a_job() {
    let Some(cluster) = Cluster::start().await else { return };
    let ground = ground(&cluster).await;
    let (one, other) = (ground.service("one").await, ground.service("other").await);
    let project = ground.project().await;
    let starts = (0..60).map(|number| {
        let (stage, project) = (if number % 2 == 0 { &one } else { &other }, &project);
        async move { stage.start(project, "").await }
    });
    let replies = futures_util::future::join_all(starts).await;
    let won: Vec<String> = replies.iter().filter(|reply| reply.status == 202).map(Stage::run).collect();
    assert_eq!(won.len(), 1, "{replies:?}");
    for lost in replies.iter().filter(|reply| reply.status != 202) {
        assert_eq!((lost.status, &lost.json()["data"]["run_id"]), (409, &json!(won[0])), "{lost:?}");
    }
    let jobs = cluster.api::<Job>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(jobs.len(), 1);
}
