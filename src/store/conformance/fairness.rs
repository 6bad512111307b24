//! Sources of an upstream take turns, and a call brings a bounded number of bytes.

use super::{super::LEASE_BYTES_MAX, prelude::*};

pub(super) const CASES: Cases = &[
    ("sources take turns", |s| Box::pin(sources_take_turns(s))),
    ("the turn is remembered", |s| Box::pin(the_turn_is_remembered_by_upstream(s))),
    ("within a source", |s| Box::pin(of_one_source_the_longest_due_goes_first(s))),
    ("bytes of a lease", |s| Box::pin(a_lease_brings_a_bounded_number_of_bytes(s))),
];

fn from(source: &str, n: u32) -> NewEvent {
    let mut new = event(keys(n, n, n), &["a"]);
    new.head.source = source.into();
    new
}

/// The sources of what one call takes.
async fn sources(store: &dyn EventStore, max: usize) -> Vec<String> {
    let taken = store.lease("a", max, HOUR).await.unwrap();
    taken.iter().map(|one| one.event.head.source.to_string()).collect()
}

async fn sources_take_turns(store: &dyn EventStore) {
    for n in 0..5 {
        put(store, from("loud", n)).await;
    }
    put(store, from("quiet", 5)).await;
    put(store, from("quiet", 6)).await;
    put(store, from("and", 7)).await;
    assert_eq!(sources(store, 5).await, ["and", "loud", "quiet", "loud", "quiet"]);
    put(store, from("rare", 8)).await;
    assert_eq!(sources(store, 10).await, ["rare", "loud", "loud", "loud"], "behind the one served last, then round");
    assert_eq!(sources(store, 10).await, [""; 0]);
}

async fn the_turn_is_remembered_by_upstream(store: &dyn EventStore) {
    for (n, source) in (0..).zip(["x", "y", "z", "x", "y", "z"]) {
        put(store, NewEvent { upstreams: vec!["a".into(), "b".into()], ..from(source, n) }).await;
    }
    let mut one_by_one = Vec::new();
    for _ in 0..4 {
        one_by_one.extend(sources(store, 1).await);
    }
    assert_eq!(one_by_one, ["x", "y", "z", "x"]);
    let of_b = store.lease("b", 1, HOUR).await.unwrap();
    assert_eq!(&*of_b[0].event.head.source, "x", "another upstream, another turn");
    assert_eq!(sources(store, 1).await, ["y"]);
}

async fn of_one_source_the_longest_due_goes_first(store: &dyn EventStore) {
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(put(store, from("x", n)).await);
    }
    let taken = store.lease("a", 2, LEASE).await.unwrap();
    assert_eq!(ids_of(&taken), ids[..2], "equally long due: in the order of acceptance");
    store.give_back(taken[1].lease, Duration::from_secs(10)).await.unwrap();
    lapse().await;
    let all = store.lease("a", 9, LEASE).await.unwrap();
    assert_eq!(ids_of(&all), [ids[2], ids[3], ids[1], ids[0]], "a lapsed lease is due since it lapsed");
}

async fn a_lease_brings_a_bounded_number_of_bytes(store: &dyn EventStore) {
    let third = LEASE_BYTES_MAX / 3 + 1;
    for (n, (source, bytes)) in
        (0..).zip([("x", third), ("x", 1), ("y", third), ("z", third), ("z", LEASE_BYTES_MAX + 1)])
    {
        put(store, NewEvent { body: Body::free(vec![7; bytes]), ..from(source, n) }).await;
    }
    assert_eq!(sources(store, 10).await, ["x", "y"], "the third would be over, and ends the call");
    assert_eq!(sources(store, 10).await, ["z", "x"], "the turn went on behind the last one taken");
    assert_eq!(sources(store, 10).await, ["z"], "a single one may be larger");
    let exact = LEASE_BYTES_MAX / 2;
    for n in 10..12 {
        put(store, NewEvent { body: Body::free(vec![7; exact]), ..from("x", n) }).await;
    }
    assert_eq!(sources(store, 10).await, ["x", "x"], "up to the last byte");
}
