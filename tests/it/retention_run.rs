//! Runs of policies against a real mongod, standalone and as a replica set: exactly what is planned goes, all of it is
//! archived, and whatever changes in between stays.

use std::collections::BTreeMap;
use std::time::Duration;

use bellwether::clock::Now;
use bellwether::config::retention::{Child, Guards, Hold, IdForm, KeepLast, Mode, Policy};
use bellwether::retention::{Guard, KeepReason, Outcome, Request, Skip, Stop};
use mongodb::bson::{Bson, DateTime, Document, doc};
use tokio_util::sync::CancellationToken;

use crate::mongod::Mongod;
use crate::retention_bench::{Bench, DAY, at, settings};

async fn benches() -> [Bench; 2] {
    [Bench::on(Mongod::start().await).await, Bench::on(Mongod::start_replica_set().await).await]
}

async fn count(bench: &Bench, collection: &str) -> u64 {
    bench.database.collection::<Document>(collection).count_documents(doc! {}).await.expect("a count")
}

fn ended(outcome: &Outcome) -> (Stop, u64, u64, u64) {
    (outcome.stop, outcome.tally.archived, outcome.tally.deleted, outcome.tally.children)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_planned_is_archived_and_deleted_with_its_children_and_nothing_else() {
    for bench in benches().await {
        bench.seed(230, 40).await;
        let before = bench.contents().await;
        let plan = bench.plan(&bench.policy()).await;
        assert_eq!((plan.would_delete, plan.children_total(), plan.passes()), (230, 230 + 230, true), "{plan}");
        let outcome = bench.run(&bench.policy()).await;
        assert_eq!(ended(&outcome), (Stop::Done, 230, 230, 460), "{outcome}");
        let after = bench.contents().await;
        assert_eq!(after.len(), 40 + 40 + 40);
        Bench::assert_nothing_is_lost(&before, &after, &bench.archived().await);
        assert_eq!(bench.archived().await.len(), 230 + 460);
        // Again: there is nothing left to do.
        let again = bench.run(&bench.policy()).await;
        assert_eq!(ended(&again), (Stop::Done, 0, 0, 0), "{again}");
        let standing = bench.engine(&settings(bench.policy())).standing(&bench.policy()).await.expect("a standing");
        assert_eq!((standing.last.map(|last| last.stop), standing.unfinished), (Some(Stop::Done), None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_of_each_group_and_what_is_held_stay() {
    for bench in benches().await {
        let ids = bench.seed(60, 0).await;
        bench.database.collection::<Document>("bookmarks").insert_one(doc! { "target": ids[30].to_hex() }).await.expect("inserted");
        let discoveries = bench.database.collection::<Document>("discoveries");
        discoveries.update_one(doc! { "_id": ids[31] }, doc! { "$set": { "hold": true } }).await.expect("changed");
        discoveries.update_one(doc! { "_id": ids[32] }, doc! { "$set": { "hold": [false] } }).await.expect("changed");
        discoveries.update_one(doc! { "_id": ids[33] }, doc! { "$set": { "hold": false } }).await.expect("changed");
        let edge = Child { collection: "bookmarks".to_owned(), field: "target".to_owned(), id: IdForm::ObjectidHex };
        let policy = Policy {
            keep_last: Some(KeepLast { count: 4, per: "project_id".to_owned() }),
            holds: vec![Hold::Field("hold".to_owned()), Hold::Ids(vec![ids[40].to_hex()]), Hold::Collection(edge)],
            ..bench.policy()
        };
        let plan = bench.plan(&policy).await;
        assert_eq!((plan.would_delete, plan.kept(KeepReason::AmongNewest), plan.kept(KeepReason::Held)), (44, 12, 4), "{plan}");
        let outcome = bench.run(&policy).await;
        assert_eq!((outcome.stop, outcome.tally.deleted), (Stop::Done, 44), "{outcome}");
        for kept in [0, 11, 30, 31, 32, 40] {
            assert!(discoveries.find_one(doc! { "_id": ids[kept] }).await.expect("an answer").is_some(), "{kept}");
            let feedback = bench.database.collection::<Document>("feedback");
            assert!(feedback.find_one(doc! { "discovery_id": ids[kept].to_hex() }).await.expect("an answer").is_some(), "{kept}");
        }
        assert_eq!(count(&bench, "feedback").await, 16);
    }
}

/// Between the plan's reading and its deleting: by another process, at any time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_the_application_changes_meanwhile_is_not_lost() {
    for bench in benches().await {
        let ids = bench.seed(400, 0).await;
        let before = bench.contents().await;
        let discoveries = bench.database.collection::<Document>("discoveries");
        let feedback = bench.database.collection::<Document>("feedback");
        let writer = {
            let (discoveries, feedback, ids) = (discoveries.clone(), feedback.clone(), ids.clone());
            async move {
                let mut changed = BTreeMap::new();
                for (position, id) in ids.iter().enumerate() {
                    match position % 4 {
                        0 => {
                            // A change that leaves the size and the date as they are.
                            let found = discoveries
                                .find_one_and_update(doc! { "_id": id }, doc! { "$set": { "text": "y".repeat(200) } })
                                .await
                                .expect("an answer");
                            if found.is_some() {
                                changed.insert(*id, position);
                            }
                        }
                        1 => drop(feedback.insert_one(doc! { "discovery_id": id.to_hex(), "late": true }).await.expect("inserted")),
                        _ => {}
                    }
                }
                changed
            }
        };
        let policy = bench.policy();
        let (outcome, changed) = tokio::join!(bench.run(&policy), writer);
        assert_eq!(outcome.stop, Stop::Done, "{outcome}");
        let (after, archived) = (bench.contents().await, bench.archived().await);
        // What was changed while it was there is in its new form in the collection or in the archive.
        for id in changed.keys() {
            let in_new_form = |bytes: &[u8]| bytes.windows(20).any(|window| window == [b'y'; 20]);
            let there = after
                .iter()
                .any(|((collection, key), bytes)| collection == "discoveries" && key.contains(&id.to_hex()) && in_new_form(bytes));
            let archived = archived.iter().any(|(collection, bytes)| {
                collection == "discoveries" && bytes.windows(12).any(|window| window == id.bytes()) && in_new_form(bytes)
            });
            assert!(there || archived, "{id} was changed, and the change is lost");
        }
        let unchanged: BTreeMap<_, _> = before
            .into_iter()
            .filter(|((collection, key), _)| collection != "discoveries" || !changed.keys().any(|id| key.contains(&id.to_hex())))
            .collect();
        Bench::assert_nothing_is_lost(&unchanged, &after, &archived);
        // Later feedback went only where its discovery is gone, and was archived.
        let mut cursor = discoveries.find(doc! {}).await.expect("documents");
        while cursor.advance().await.expect("a document") {
            let id = cursor.deserialize_current().expect("a document").get_object_id("_id").expect("an id");
            assert!(
                feedback.find_one(doc! { "discovery_id": id.to_hex() }).await.expect("an answer").is_some(),
                "{id} has lost its feedback"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_guard_stops_a_run_before_the_first_deletion_and_is_named() {
    let bench = Bench::on(Mongod::start().await).await;
    bench.seed(30, 70).await;
    let before = bench.contents().await;
    let guards = |max_fraction, max_documents, min_remaining| Guards { max_fraction, max_documents, min_remaining };
    for (guards, name) in
        [(guards(0.29, 1000, 0), Guard::Fraction), (guards(1.0, 29, 0), Guard::Documents), (guards(1.0, 1000, 71), Guard::Remaining)]
    {
        let outcome = bench.run(&Policy { guards, ..bench.policy() }).await;
        assert_eq!(outcome.stop, Stop::Blocked);
        assert!(outcome.why.contains(&format!("the guard {name} stops it")), "{outcome}");
    }
    let outcome = bench.run(&Policy { field: "updated_at".to_owned(), ..bench.policy() }).await;
    assert_eq!((outcome.stop, outcome.tally.deleted), (Stop::Blocked, 0), "no index: {outcome}");
    let plan_only = bench.run(&Policy { mode: Mode::Plan, ..bench.policy() }).await;
    assert_eq!(plan_only.stop, Stop::PlanOnly);
    let nowhere = bench.run(&Policy { archive: None, ..bench.policy() }).await;
    assert_eq!(nowhere.stop, Stop::Blocked);
    // The clock of this host is a day ahead.
    let request = Request { now: true, who: "test".to_owned(), ..Request::default() };
    let late = || Now::read().wall + jiff::SignedDuration::from_hours(400 * 24);
    let skewed = bench.engine(&settings(bench.policy())).run(&bench.policy(), &request, late, &CancellationToken::new(), &|_, _| {}).await;
    assert!(skewed.stop == Stop::Blocked && skewed.why.contains("the guard clocks"), "{skewed}");
    assert_eq!(bench.contents().await, before);
    assert!(bench.archived().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_refers_to_documents_is_not_looked_for_by_reading_a_large_collection() {
    let bench = Bench::on(Mongod::start().await).await;
    bench.seed(10, 0).await;
    let feedback = bench.database.collection::<Document>("feedback");
    feedback.drop_indexes().await.expect("dropped");
    let plan = bench.plan(&bench.policy()).await;
    assert!(plan.passes() && plan.to_string().contains("feedback has 10 documents and no index that begins with discovery_id"), "{plan}");
    feedback.insert_many((0..10_000).map(|number| doc! { "discovery_id": format!("{number}") })).await.expect("inserted");
    let outcome = bench.run(&bench.policy()).await;
    assert_eq!((outcome.stop, outcome.tally.deleted), (Stop::Blocked, 0), "{outcome}");
    assert!(outcome.why.contains("the guard index") && outcome.why.contains("feedback has 10010 documents"), "{outcome}");
    // What holds documents is looked for as well.
    let edge = Child { collection: "feedback".to_owned(), field: "discovery_id".to_owned(), id: IdForm::ObjectidHex };
    let held = Policy { children: Vec::new(), holds: vec![Hold::Collection(edge)], ..bench.policy() };
    assert_eq!(bench.run(&held).await.stop, Stop::Blocked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_bound_to_its_plan_and_a_new_policy_soaks() {
    let bench = Bench::on(Mongod::start().await).await;
    bench.seed(100, 0).await;
    let policy = bench.policy();
    let engine = bench.engine(&settings(policy.clone()));
    let plan = bench.plan(&policy).await;
    let apply = async |policy: &Policy, plan: &str, now: bool| {
        let request = Request { confirmed: Some(plan.parse().expect("an id")), now, who: "test".to_owned(), patience: Duration::ZERO };
        engine.run(policy, &request, || Now::read().wall, &CancellationToken::new(), &|_, _| {}).await
    };
    let soaking = apply(&policy, &plan.plan_id, false).await;
    assert_eq!(soaking.stop, Stop::Soak, "{soaking}");
    let another = apply(&Policy { keep: Duration::from_secs(35 * 86_400), ..policy.clone() }, &plan.plan_id, true).await;
    assert!(another.stop == Stop::Blocked && another.why.contains("another policy"), "{another}");
    // A tenth more is what may come in between, and not more. Back-dated, so that the plan's cutoff covers them.
    let old = DateTime::now().timestamp_millis() - 50 * DAY;
    let more = (0..11).map(|number| doc! { "created_at": at(old - number) });
    bench.database.collection::<Document>("discoveries").insert_many(more).await.expect("inserted");
    let grown = apply(&policy, &plan.plan_id, true).await;
    assert!(grown.stop == Stop::Blocked && grown.why.contains("was for 100 documents, and now there are 111"), "{grown}");
    bench.database.collection::<Document>("discoveries").delete_one(doc! { "created_at": at(old) }).await.expect("deleted");
    let done = apply(&policy, &plan.plan_id, true).await;
    assert_eq!((done.stop, done.tally.deleted), (Stop::Done, 110), "{done}");
    assert_eq!(apply(&policy, &plan.plan_id, false).await.stop, Stop::Soak, "the soak is of the schedule, whatever was done by hand");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn budgets_a_pause_and_a_second_runner_end_a_run_between_batches() {
    let bench = Bench::on(Mongod::start().await).await;
    bench.seed(200, 0).await;
    let mut settings = settings(bench.policy());
    settings.budget.documents = 100;
    let outcome = bench.run_with(&settings, &|_, _| {}).await;
    assert_eq!((outcome.stop, outcome.tally.deleted), (Stop::BudgetDocuments, 100), "{outcome}");
    let engine = bench.engine(&settings);
    engine.pause(Some("a test")).await.expect("paused");
    let outcome = bench.run_with(&settings, &|_, _| {}).await;
    assert_eq!((outcome.stop, outcome.tally.deleted), (Stop::Paused, 0), "{outcome}");
    assert_eq!(engine.paused().await.expect("an answer").as_deref(), Some("a test"));
    engine.pause(None).await.expect("resumed");
    let held = engine.leases().take("retention", "another one", None).await.expect("an answer");
    let request = Request { now: true, who: "test".to_owned(), ..Request::default() };
    let outcome = engine.run(&bench.policy(), &request, || Now::read().wall, &CancellationToken::new(), &|_, _| {}).await;
    assert!(outcome.stop == Stop::Lease && outcome.why.contains("another one holds the lease"), "{outcome}");
    drop(held);
    assert_eq!(count(&bench, "discoveries").await, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_a_batch_goes_in_parts() {
    for bench in benches().await {
        let now = DateTime::now().timestamp_millis();
        let discoveries = bench.database.collection::<Document>("discoveries");
        // As large as a document may be, where the small cache of the test's replica set takes that; and one with more
        // children than go with a batch.
        let size = if bench.server.uri().contains("replicaSet") { 4 } else { 16 } * 1024 * 1024;
        let large = doc! { "created_at": at(now - 50 * DAY), "text": "x".repeat(size - 200) };
        discoveries.insert_one(large).await.expect("inserted");
        for number in 0..3 {
            discoveries
                .insert_one(doc! { "created_at": at(now - 45 * DAY - number), "text": "x".repeat(600_000) })
                .await
                .expect("inserted");
        }
        let ids = bench.seed(1, 0).await;
        let many = (0..2500).map(|number| doc! { "discovery_id": ids[0].to_hex(), "n": number });
        bench.database.collection::<Document>("feedback").insert_many(many).await.expect("inserted");
        let before = bench.contents().await;
        let outcome = bench.run(&bench.policy()).await;
        assert_eq!((outcome.stop, outcome.tally.deleted, outcome.tally.children), (Stop::Done, 5, 2503), "{outcome}");
        assert!(bench.contents().await.is_empty());
        Bench::assert_nothing_is_lost(&before, &bench.contents().await, &bench.archived().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_names_several_parents_keeps_them_all() {
    let bench = Bench::on(Mongod::start().await).await;
    let ids = bench.seed(10, 0).await;
    let shared = doc! { "discovery_id": [ids[3].to_hex(), ids[4].to_hex()] };
    bench.database.collection::<Document>("feedback").insert_one(shared).await.expect("inserted");
    let outcome = bench.run(&bench.policy()).await;
    assert_eq!((outcome.stop, outcome.tally.deleted), (Stop::Done, 8), "{outcome}");
    assert_eq!(outcome.tally.skipped.get(&Skip::Referenced), Some(&2));
    assert_eq!((count(&bench, "discoveries").await, count(&bench, "feedback").await, count(&bench, "insights").await), (2, 3, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_cannot_be_written_deletes_nothing() {
    let bench = Bench::on(Mongod::start().await).await;
    bench.seed(20, 0).await;
    let before = bench.contents().await;
    std::fs::write(bench.folder.path().join("file"), "").expect("a file");
    let outcome =
        bench.run(&Policy { archive: Some(format!("file://{}/file/below", bench.folder.path().display())), ..bench.policy() }).await;
    assert_eq!((outcome.stop, outcome.tally.deleted), (Stop::Archive, 0), "{outcome}");
    // Every write needs room, and there is none on this device.
    let full = Policy { archive: Some("file:///dev/full/archive".to_owned()), ..bench.policy() };
    assert_eq!(bench.run(&full).await.stop, Stop::Archive);
    assert_eq!(bench.contents().await, before);
    let standing = bench.engine(&settings(bench.policy())).standing(&bench.policy()).await.expect("a standing");
    assert_eq!(standing.last.map(|last| last.stop), Some(Stop::Archive), "and it is told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_dates_and_ids_stay_or_go_as_the_plan_says() {
    let bench = Bench::on(Mongod::start().await).await;
    let now = DateTime::now().timestamp_millis();
    let discoveries = bench.database.collection::<Document>("discoveries");
    let cutoff_old = now - 31 * DAY;
    let odd = [
        Bson::Null,
        "2020-01-01T00:00:00Z".into(),
        cutoff_old.into(),
        vec![at(cutoff_old)].into(),
        Bson::Array(Vec::new()),
        at(-62_135_596_800_000),
        at(0),
        at(now + 10 * DAY),
    ];
    discoveries.insert_many(odd.iter().map(|date| doc! { "created_at": date })).await.expect("inserted");
    let ids: Vec<Bson> = vec![
        1.into(),
        2_i64.into(),
        2.5.into(),
        "2".into(),
        doc! { "a": 1, "b": [1] }.into(),
        DateTime::now().into(),
        true.into(),
        Bson::Null,
    ];
    discoveries.insert_many(ids.iter().map(|id| doc! { "_id": id, "created_at": at(cutoff_old) })).await.expect("inserted");
    let outcome = bench.run(&Policy { children: Vec::new(), ..bench.policy() }).await;
    assert_eq!((outcome.stop, outcome.tally.deleted), (Stop::Done, 8), "{outcome}");
    assert_eq!(count(&bench, "discoveries").await, 8);
}

/// A value of a date field at random, near every border there is, and whether a document with it goes.
fn near_a_border(random: &mut fastrand::Rng, cutoff: i64) -> (Option<Bson>, bool) {
    const FLOOR: i64 = 946_684_800_000;
    let goes = |millis: i64| (FLOOR..cutoff).contains(&millis);
    let borders = [cutoff, FLOOR, 0, -62_135_596_800_000, 253_402_300_799_999, i64::MAX - 3, i64::MIN + 3];
    let millis = match random.u8(..3) {
        0 => borders[random.usize(..borders.len())] + random.i64(-2..=2),
        1 => cutoff + random.i64(-3..=3),
        _ => random.i64(FLOOR - 40 * DAY..cutoff + 40 * DAY),
    };
    match random.u8(..10) {
        0 => (None, false),
        1 => (Some([Bson::Null, cutoff.into(), 1.5.into(), "2001-01-01".into(), true.into()][random.usize(..5)].clone()), false),
        2 => (Some(vec![at(millis); random.usize(..3)].into()), false),
        3 => (Some(doc! { "created_at": at(millis) }.into()), false),
        _ => (Some(at(millis)), goes(millis)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_what_is_older_than_the_cutoff_by_a_millisecond_goes_whatever_the_others_hold() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let bench = Bench::on(Mongod::start().await).await;
    let policy = Policy { children: Vec::new(), ..bench.policy() };
    let discoveries = bench.database.collection::<Document>("discoveries");
    for _ in 0..3 {
        discoveries.delete_many(doc! {}).await.expect("deleted");
        let old = at(DateTime::now().timestamp_millis() - 100 * DAY);
        discoveries.insert_many((0..400).map(|number| doc! { "_id": number, "created_at": &old })).await.expect("inserted");
        let plan = bench.plan(&policy).await;
        let cutoff = plan.cutoff.as_millisecond();
        // A run is held to the cutoff of its plan: now the dates can be put around it.
        let (mut documents, mut stays) = (Vec::new(), Vec::new());
        for number in 0..400 {
            let (value, goes) = near_a_border(&mut random, cutoff);
            let mut document = doc! { "_id": number };
            document.extend(value.clone().map(|value| ("created_at".to_owned(), value)));
            documents.push(document);
            if !goes {
                stays.push((number, value));
            }
        }
        discoveries.delete_many(doc! {}).await.expect("deleted");
        discoveries.insert_many(&documents).await.expect("inserted");
        let confirmed = Some(plan.plan_id.parse().expect("an id"));
        let request = Request { confirmed, now: true, who: "test".to_owned(), patience: Duration::from_secs(20) };
        let engine = bench.engine(&settings(policy.clone()));
        let outcome = engine.run(&policy, &request, || Now::read().wall, &CancellationToken::new(), &|_, _| {}).await;
        assert_eq!((outcome.stop, outcome.tally.deleted), (Stop::Done, 400 - stays.len() as u64), "{outcome}");
        let mut cursor = discoveries.find(doc! {}).sort(doc! { "_id": 1 }).await.expect("documents");
        let mut left = Vec::new();
        while cursor.advance().await.expect("a document") {
            let document = cursor.deserialize_current().expect("a document");
            left.push((document.get_i32("_id").expect("a number"), document.get("created_at").cloned()));
        }
        assert_eq!(left, stays);
    }
}
