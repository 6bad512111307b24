//! Fifty simultaneous copies: one forward, and fifty answers that say the same.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{SECRET, StoreHeld, send, source, stored};
use crate::world::{Act, NOW_S, Reply, World, sign};

const COPIES: u8 = 50;
const BODY: &[u8] = b"{\"order\":17}";

/// Sends the copies while the store is held and the upstream hangs, so that all of them are in flight at once; lets
/// go when all have been verified.
async fn fifty_copies(mode: &str) -> (World, Vec<Reply>) {
    let world = Arc::new(World::start(&source(mode, "")).await);
    world.upstream.script([Act::Later(202, "{\"taken\":true}")]);
    let held = StoreHeld::by(&world);
    let copies: Vec<_> = (0..COPIES)
        .map(|n| {
            let world = world.clone();
            tokio::spawn(async move {
                // Unsigned headers differ from copy to copy, and every tenth is signed anew.
                let mut headers = sign("partssource", SECRET, BODY, NOW_S + i64::from(n / 10));
                headers.push(("x-ps-delivery-id".to_owned(), format!("d-{n}")));
                let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                world.post(super::PATH, &headers, BODY).await
            })
        })
        .collect();
    world.until_metric("hookward_verified_total", u64::from(COPIES)).await;
    drop(held);
    world.upstream.wait_for(1).await;
    world.upstream.let_go();
    let mut replies = Vec::new();
    for copy in copies {
        replies.push(copy.await.expect("no panic"));
    }
    world.settled().await;
    assert_eq!(world.upstream.received().len(), 1, "one forward");
    let world = Arc::into_inner(world).expect("the copies are done");
    // One more, when everything is over.
    replies.push(send(&world, BODY, 0).await);
    assert_eq!(world.upstream.received().len(), 1, "one forward");
    (world, replies)
}

fn all_say<T: Ord>(replies: &[Reply], what: impl Fn(&Reply) -> T) -> T {
    let mut said: BTreeSet<T> = replies.iter().map(what).collect();
    assert_eq!(said.len(), 1, "all say the same");
    said.pop_first().expect("one")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_copies_in_queue_are_one_forward_and_fifty_answers_with_one_status_and_one_id() {
    let (world, replies) = fifty_copies("queue").await;
    assert_eq!(all_say(&replies, |reply| reply.status), 200);
    let id = all_say(&replies, |reply| reply.ack().1);
    assert_eq!(replies.iter().filter(|reply| reply.ack().0 == "accepted").count(), 1);
    assert_eq!(world.upstream.received()[0].header("hookward-event-id"), Some(&*id));
    assert_eq!(stored(&world).await, 1);
    copies_are_counted(&world, u64::from(COPIES)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_copies_in_respond_are_one_forward_and_all_get_its_answer() {
    let (world, replies) = fifty_copies("respond").await;
    assert_eq!(all_say(&replies, |reply| reply.status), 202);
    assert_eq!(all_say(&replies, Reply::text), "{\"taken\":true}");
    assert_eq!(all_say(&replies, |reply| reply.headers["content-type"].clone()), "application/json");
    assert_eq!(stored(&world).await, 1);
    copies_are_counted(&world, u64::from(COPIES)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_copies_in_proxy_are_one_forward_and_all_get_its_answer() {
    let (world, replies) = fifty_copies("proxy").await;
    assert_eq!(all_say(&replies, |reply| reply.status), 202);
    assert_eq!(all_say(&replies, Reply::text), "{\"taken\":true}");
    assert_eq!(all_say(&replies, |reply| reply.headers["content-type"].clone()), "application/json");
    assert_eq!(stored(&world).await, 0, "proxy stores keys only");
}

/// Sends these at the same time and waits until all are in flight; then lets them land.
async fn at_once(world: &Arc<World>, bodies_and_offsets: &[(&'static [u8], i64)]) -> Vec<Reply> {
    let held = StoreHeld::by(world);
    let mut sent = Vec::new();
    for &(body, offset_s) in bodies_and_offsets {
        let world = world.clone();
        sent.push(tokio::spawn(async move { send(&world, body, offset_s).await }));
    }
    world.until_metric("hookward_verified_total", bodies_and_offsets.len() as u64).await;
    drop(held);
    let mut replies = Vec::new();
    for reply in sent {
        replies.push(reply.await.expect("no panic"));
    }
    replies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_waited_is_known_by_its_own_bytes_too() {
    let world = Arc::new(World::start(&source("queue", "")).await);
    world.upstream.script([Act::Answer(410, "")]);
    let replies = at_once(&world, &[(BODY, 0), (BODY, 1)]).await;
    all_say(&replies, |reply| reply.ack().1);
    crate::world::within("the keys of both", async {
        while world.admin("GET", "/api/v1/status").await["health"]["counts"]["keys"] != 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    world.settled().await;
    for offset_s in [0, 1] {
        assert_eq!(send(&world, BODY, offset_s).await.ack().0, "duplicate");
    }
    world.settled().await;
    assert_eq!(world.upstream.received().len(), 1, "neither is a re-send of the dead letter");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_waited_takes_nothing_of_the_rate() {
    let world = Arc::new(World::start(&source("queue", "rate = { per_second = 0.01, burst = 2 }")).await);
    let replies = at_once(&world, &[(BODY, 0), (BODY, 0)]).await;
    all_say(&replies, |reply| reply.ack().1);
    assert_eq!(send(&world, b"{\"order\":18}", 0).await.ack().0, "accepted");
    assert_eq!(send(&world, b"{\"order\":19}", 0).await.status, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_bodies_at_once_under_one_key_are_both_kept() {
    let source = source("queue", "").replace("partssource", "price2b");
    let world = Arc::new(World::start(&source).await);
    let held = StoreHeld::by(&world);
    let both: Vec<_> = [&b"{\"id\":\"evt_1\",\"n\":1}"[..], b"{\"id\":\"evt_1\",\"n\":2}"]
        .map(|body| {
            let world = world.clone();
            tokio::spawn(async move { world.send("price2b", SECRET, super::PATH, body, 0).await })
        })
        .into();
    world.until_metric("hookward_verified_total", 2).await;
    drop(held);
    let mut ids = BTreeSet::new();
    for reply in both {
        let (word, id) = reply.await.expect("no panic").ack();
        assert_eq!(word, "accepted", "the one that waited is no copy of the other");
        ids.insert(id);
    }
    assert_eq!((ids.len(), stored(&world).await), (2, 2));
    world.settled().await;
    assert_eq!(world.upstream.received().len(), 1, "the other is held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_is_503_for_the_first_and_all_that_wait_and_nothing_is_remembered() {
    let world = Arc::new(World::start(&source("queue", "")).await);
    let held = StoreHeld::by(&world);
    // The store gives up after five seconds. If each that waits tried what has failed for all of them, one after the
    // other, the last would get no answer in the time that a test has for one.
    let copies: Vec<_> = (0..10)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move { send(&world, BODY, 0).await })
        })
        .collect();
    for copy in copies {
        let reply = copy.await.expect("no panic");
        assert_eq!(reply.status, 503, "{}", reply.text());
        assert!(reply.headers.contains_key("retry-after"));
    }
    drop(held);
    assert_eq!(send(&world, BODY, 0).await.ack().0, "accepted");
    world.settled().await;
    assert_eq!((stored(&world).await, world.upstream.received().len()), (1, 1));
}

/// Counting waits for nothing, so it may lag behind the answers.
async fn copies_are_counted(world: &World, expected: u64) {
    crate::world::within("all copies to be counted", async {
        loop {
            let counted = world.admin("GET", "/api/v1/events").await["events"][0]["copies"].as_u64();
            if counted == Some(expected) {
                return;
            }
            assert!(counted < Some(expected), "counted {counted:?} of {expected}");
            tokio::task::yield_now().await;
        }
    })
    .await;
}
