//! What follows from what the cluster says, as data: no cluster is asked.

use serde_json::{Value, json};

use super::*;

const START_LIMIT: Duration = Duration::from_secs(600);
const RUN_ID: &str = "69d0f41bc2b4e5f60718293b";

fn run() -> ObjectId {
    ObjectId::parse_str(RUN_ID).expect("an id")
}

fn view() -> View {
    View { roster: Roster::new(9), has_looked: false }
}

/// A Job of ours: with more metadata, whether it is suspended, and its conditions.
fn job(metadata: &Value, suspend: bool, conditions: &Value) -> Job {
    let mut whole =
        json!({ "name": format!("discovery-{RUN_ID}"), "labels": { "run-id": RUN_ID }, "annotations": { "bellwether/project": "p" } });
    for (key, value) in metadata.as_object().expect("an object") {
        match (whole[key].as_object_mut(), value.as_object()) {
            (Some(there), Some(more)) => there.extend(more.clone()),
            _ => whole[key] = value.clone(),
        }
    }
    let job = json!({ "metadata": whole, "spec": { "suspend": suspend, "template": {} }, "status": { "conditions": conditions } });
    serde_json::from_value(job).expect("a job")
}

fn under_way() -> Job {
    job(&json!({}), false, &json!([]))
}

fn completed() -> Job {
    job(&json!({}), false, &json!([{ "type": "Complete", "status": "True" }]))
}

fn running() -> Pod {
    let status = json!({ "name": "agent", "ready": true, "restartCount": 0, "image": "", "imageID": "", "state": { "running": {} } });
    let labels = json!({ "batch.kubernetes.io/job-name": format!("discovery-{RUN_ID}") });
    serde_json::from_value(json!({ "metadata": { "labels": labels }, "status": { "containerStatuses": [status] } })).expect("a pod")
}

fn phase(view: &View) -> Option<Phase> {
    view.roster.all().first().map(|(_, _, phase)| *phase)
}

fn ending(view: &View, now: Instant) -> Ending {
    let ended = view.roster.ended(now, |remote| remote.words.clone());
    ended.into_iter().next().expect("it has ended").ending
}

#[test]
fn what_an_earlier_process_has_left_is_found_once() {
    let (mut view, now) = (view(), Instant::now());
    assert_eq!(view.take_in(&[under_way()], &[running()], now, START_LIMIT), Found { reattached: 1, unwanted: vec![] });
    assert_eq!((phase(&view), view.roster.all()[0].1.as_str()), (Some(Phase::Live), "p"));
    assert_eq!(view.take_in(&[under_way()], &[running()], now, START_LIMIT), Found::default());
    drop(view.take_in(&[completed()], &[], now, START_LIMIT));
    assert_eq!(ending(&view, now), Ending { exit: Exit::Code(0), stopped: None });
    // It is not written down yet, and the cluster has removed it: its end is known all the same.
    drop(view.take_in(&[], &[], now + Duration::from_secs(1), START_LIMIT));
    assert_eq!(ending(&view, now).exit, Exit::Code(0));
}

#[test]
fn a_job_that_is_gone_has_ended_and_one_that_an_old_answer_does_not_know_has_not() {
    let (mut view, asked) = (view(), Instant::now());
    view.roster.reserve(run(), "p", Remote { is_launching: true, ..Remote::new() }).expect("there is room");
    drop(view.take_in(&[], &[], asked, START_LIMIT));
    assert_eq!(phase(&view), Some(Phase::Starting), "it is being started");
    let agent = view.roster.get_mut(run()).expect("it is here");
    agent.work = Remote { since: asked + Duration::from_millis(5), ..Remote::new() };
    agent.happened(Event::Started);
    drop(view.take_in(&[], &[], asked, START_LIMIT));
    assert_eq!(phase(&view), Some(Phase::Live), "the answer is older than the start");
    let later = asked + Duration::from_secs(2);
    drop(view.take_in(&[], &[], later, START_LIMIT));
    assert_eq!(ending(&view, later), Ending::unknown());
    assert_eq!(view.roster.ended(later, |remote| remote.words.clone())[0].last_error.as_deref(), Some("its Job was deleted"));
}

#[test]
fn an_agent_that_does_not_begin_is_given_up() {
    let (mut view, now) = (view(), Instant::now());
    drop(view.take_in(&[under_way()], &[], now, START_LIMIT));
    assert_eq!(phase(&view), Some(Phase::Live));
    drop(view.take_in(&[under_way()], &[], now + START_LIMIT - Duration::from_secs(1), START_LIMIT));
    assert_eq!(phase(&view), Some(Phase::Live));
    let found = view.take_in(&[under_way()], &[], now + START_LIMIT, START_LIMIT);
    assert_eq!(found.unwanted, [run()]);
    let why = "nothing ran after 10m: its pod was not made".to_owned();
    assert_eq!(ending(&view, now), Ending { exit: Exit::NotStarted(why), stopped: None });
}

#[test]
fn a_job_that_nobody_lets_begin_is_left_to_whoever_makes_it_for_a_while() {
    let suspended = || job(&json!({}), true, &json!([]));
    let (mut view, now) = (view(), Instant::now());
    assert_eq!(view.take_in(&[suspended()], &[], now, START_LIMIT), Found::default());
    assert_eq!(phase(&view), Some(Phase::Starting));
    // Another process has given up: nothing is to be written down.
    drop(view.take_in(&[], &[], now + Duration::from_secs(9), START_LIMIT));
    assert_eq!(phase(&view), None);
    drop(view.take_in(&[suspended()], &[], now, START_LIMIT));
    let found = view.take_in(&[suspended()], &[], now + ABANDONED, START_LIMIT);
    assert_eq!((found.unwanted, phase(&view)), (vec![run()], Some(Phase::Ended)));
}

#[test]
fn who_is_cancelled_is_deleted_until_that_is_so() {
    let (mut view, now) = (view(), Instant::now());
    let noted = json!({ "annotations": { "bellwether/cancelled": "true" } });
    let found = view.take_in(&[job(&noted, false, &json!([]))], &[running()], now, START_LIMIT);
    assert_eq!(found.unwanted, [run()], "it was noted, and the process was killed before it could delete the Job");
    let deleted = json!({ "annotations": { "bellwether/cancelled": "true" }, "deletionTimestamp": "2026-04-04T09:00:00Z" });
    let found = view.take_in(&[job(&deleted, false, &json!([]))], &[running()], now, START_LIMIT);
    assert_eq!((found.unwanted, phase(&view)), (vec![], Some(Phase::Stopping)));
    drop(view.take_in(&[], &[], now + Duration::from_secs(9), START_LIMIT));
    let ended = view.roster.ended(now, |_| None);
    assert!(ended[0].cancelled, "{ended:?}");
}

#[test]
fn jobs_of_others_are_not_ours() {
    let mut view = view();
    for metadata in [json!({ "labels": { "run-id": "no id" } }), json!({ "annotations": {}, "labels": { "run-id": "" } })] {
        assert_eq!(view.take_in(&[job(&metadata, false, &json!([]))], &[], Instant::now(), START_LIMIT), Found::default());
        assert_eq!(phase(&view), None);
    }
}
