//! The lease against a real mongod: one holder, whatever happens.

use std::sync::Arc;
use std::time::Duration;

use bellwether::store::lease::{Attempt, COLLECTION, Lease, Leases, Seen};
use bellwether::store::mongodb::{Mongo, Purpose};
use mongodb::bson::{DateTime, Document, doc};

use crate::mongod::{Mongod, eventually};

const DATABASE: &str = "decisionbox";
const TTL: Duration = Duration::from_secs(3);

fn leases(server: &Mongod, ttl: Duration) -> Leases {
    Leases::new(Arc::new(Mongo::new(&server.store(DATABASE), Purpose::Retention)), ttl)
}

async fn take(leases: &Leases, who: &str, seen: Option<&Seen>) -> Result<Lease, Seen> {
    match leases.take("retention", who, seen).await.expect("an answer") {
        Attempt::Taken(lease) => Ok(lease),
        Attempt::Refused(seen) => Err(seen),
    }
}

async fn taken(leases: &Leases, who: &str) -> Lease {
    eventually("the lease is free", async || take(leases, who, None).await.ok()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sixteen_that_start_at_once_one_wins() {
    let server = Mongod::start().await;
    let mut attempts = tokio::task::JoinSet::new();
    for number in 0..16 {
        let leases = leases(&server, TTL);
        attempts.spawn(async move { take(&leases, &number.to_string(), None).await });
    }
    let attempts = attempts.join_all().await;
    let winners: Vec<&Lease> = attempts.iter().flatten().collect();
    assert_eq!((winners.len(), winners[0].epoch()), (1, 1));
    assert!(winners[0].live().is_ok());
    let all = server.database(DATABASE).await.collection::<Document>(COLLECTION).count_documents(doc! {}).await;
    assert_eq!(all.expect("a count"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_leaves_is_taken_over_when_it_has_expired_and_what_is_given_back_at_once() {
    let server = Mongod::start().await;
    let leases = leases(&server, TTL);
    let first = take(&leases, "first", None).await.expect("free");
    assert_eq!(take(&leases, "second", None).await.expect_err("held").who, "first");
    // Longer than it lasts: it is renewed.
    tokio::time::sleep(TTL + Duration::from_secs(1)).await;
    assert!(first.live().is_ok() && take(&leases, "second", None).await.is_err());

    drop(first);
    let second = taken(&leases, "second").await;
    assert_eq!(second.epoch(), 2);
    second.release().await;
    let third = take(&leases, "third", None).await.expect("given back");
    assert_eq!(third.epoch(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_learns_that_its_lease_was_taken_and_does_not_take_it_back() {
    let server = Mongod::start().await;
    let leases = leases(&server, TTL);
    let first = take(&leases, "first", None).await.expect("free");
    let collection = server.database(DATABASE).await.collection::<Document>(COLLECTION);
    // As if the server's clock had jumped ahead.
    collection.update_one(doc! {}, doc! { "$set": { "expires": DateTime::from_millis(0) } }).await.expect("changed");
    let second = take(&leases, "second", None).await.expect("expired");
    tokio::time::timeout(TTL, first.lost().cancelled()).await.expect("it is noticed within a renewal");
    assert!(first.live().is_err());
    first.release().await;
    assert!(second.live().is_ok() && take(&leases, "third", None).await.is_err(), "what is not ours is not given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_answer_ends_the_lease_by_our_own_clock() {
    let server = Mongod::start().await;
    let lease = take(&leases(&server, TTL), "first", None).await.expect("free");
    server.freeze();
    tokio::time::timeout(TTL * 3, lease.lost().cancelled()).await.expect("it does not wait for an answer");
    assert!(lease.live().is_err());
    server.thaw();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumped_back_does_not_lock_everybody_out() {
    let server = Mongod::start().await;
    let leases = leases(&server, Duration::from_secs(1));
    drop(take(&leases, "first", None).await.expect("free"));
    let collection = server.database(DATABASE).await.collection::<Document>(COLLECTION);
    let far = DateTime::from_millis(DateTime::now().timestamp_millis() + 400 * 86_400_000);
    collection.update_one(doc! {}, doc! { "$set": { "expires": far } }).await.expect("changed");
    let mut seen = take(&leases, "second", None).await.expect_err("it seems to be held");
    let second = eventually("nobody renews it", async || match take(&leases, "second", Some(&seen)).await {
        Ok(lease) => Some(lease),
        Err(again) => {
            seen = again;
            None
        }
    })
    .await;
    assert_eq!(second.epoch(), 2);
}
