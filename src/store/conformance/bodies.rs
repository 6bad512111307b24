//! Events that no route wanted, and bodies that are not kept.

use super::prelude::*;

pub(super) const CASES: Cases = &[
    ("unrouted", |s| Box::pin(an_unrouted_event_is_kept_like_history(s))),
    ("unrouted and redelivered", |s| Box::pin(an_unrouted_event_can_be_delivered(s))),
    ("bodies that are not kept", |s| Box::pin(a_body_that_is_not_kept_goes_with_the_last_delivery(s))),
    ("bodies that are still needed", |s| Box::pin(a_body_stays_while_it_may_be_needed(s))),
];

async fn unrouted(store: &dyn EventStore) -> u64 {
    store.stats().await.unwrap().unrouted
}

async fn an_unrouted_event_is_kept_like_history(store: &dyn EventStore) {
    let wanted = store_new(store, keys(1, 1, 1)).await;
    let id = put(store, event(keys(2, 2, 2), &[])).await;
    assert_eq!(store.append(event(keys(3, 2, 2), &[])).await, Ok(known(id, 0)));
    let shown = store.show(id).await.unwrap();
    assert_eq!((shown.deliveries.len(), &shown.event.body[..]), (0, &[0, 1, 0xff, b'{'][..]));
    assert_eq!((unrouted(store).await, store.redeliver(id, None).await), (1, Err(StoreError::NotFound)));
    let listed = |filter| async move { store.list(filter, Direction::NewestFirst, 9).await.unwrap().events };
    let only = listed(Filter { unrouted: true, ..Filter::default() }).await;
    assert_eq!(only.iter().map(|one| one.head.id).collect::<Vec<_>>(), [id]);
    assert_eq!(store.next_due("a").await, Ok(Some(Duration::ZERO)));

    tokio::time::advance(DAY).await;
    assert_eq!(store.sweep(DAY + HOUR).await.unwrap().events, 0);
    assert_eq!(store.sweep(DAY).await.unwrap().events, 1);
    assert!(matches!(store.show(id).await, Err(StoreError::NotFound)));
    assert_eq!(unrouted(store).await, 0);
    store.show(wanted).await.unwrap();
    let purged = put(store, event(keys(4, 4, 4), &[])).await;
    store.purge(purged).await.unwrap();
    assert_eq!(unrouted(store).await, 0);
}

async fn an_unrouted_event_can_be_delivered(store: &dyn EventStore) {
    let id = put(store, event(keys(1, 1, 1), &[])).await;
    assert_eq!(store.redeliver(id, Some("a")).await, Ok(1));
    assert_eq!(unrouted(store).await, 0);
    tokio::time::advance(DAY).await;
    assert_eq!(store.sweep(HOUR).await.unwrap().events, 0, "it is not delivered yet");
    let leased = deliver(store, "a", delivered()).await;
    assert_eq!((leased.event.head.id, leased.redelivery), (id, true));
    assert_eq!(store.sweep(Duration::ZERO).await.unwrap().events, 1);
}

fn not_kept(n: u32, upstreams: &[&str]) -> NewEvent {
    NewEvent { keep_body: false, ..event(keys(n, n, n), upstreams) }
}

async fn a_body_that_is_not_kept_goes_with_the_last_delivery(store: &dyn EventStore) {
    let id = put(store, not_kept(1, &["a", "b"])).await;
    deliver(store, "a", delivered()).await;
    assert_eq!(&take(store, "b").await.event.body[..], [0, 1, 0xff, b'{'], "one upstream still needs it");
    assert!(!store.show(id).await.unwrap().body_removed);
    lapse().await;
    deliver(store, "b", delivered()).await;

    let shown = store.show(id).await.unwrap();
    assert_eq!((shown.body_removed, shown.event.body.len(), shown.deliveries.len()), (true, 0, 2));
    let listed = store.list(Filter::default(), Direction::NewestFirst, 1).await.unwrap().events;
    assert_eq!(listed[0].body_bytes, 4, "as received");
    for upstream in [None, Some("a"), Some("c")] {
        assert_eq!(store.redeliver(id, upstream).await, Err(StoreError::BodyRemoved));
    }
    assert_eq!(store.append(event(keys(2, 1, 1), &["a"])).await, Ok(known(id, 0)), "its keys live on");
    tokio::time::advance(DAY).await;
    assert_eq!(store.sweep(DAY).await.unwrap().events, 1);
}

async fn a_body_stays_while_it_may_be_needed(store: &dyn EventStore) {
    let letter = put(store, not_kept(1, &["a"])).await;
    deliver(store, "a", dead()).await;
    assert!(!store.show(letter).await.unwrap().body_removed);
    assert_eq!(store.redeliver(letter, None).await, Ok(1));
    deliver(store, "a", delivered()).await;
    assert!(store.show(letter).await.unwrap().body_removed);

    let unrouted = put(store, not_kept(2, &[])).await;
    assert_eq!(store.show(unrouted).await.unwrap().event.body.len(), 4, "until retention or a purge");
    assert_eq!(store.redeliver(unrouted, Some("a")).await, Ok(1));
    assert_eq!(&deliver(store, "a", delivered()).await.event.body[..], [0, 1, 0xff, b'{']);
    assert!(store.show(unrouted).await.unwrap().body_removed);

    let kept = store_new(store, keys(3, 3, 3)).await;
    deliver(store, "a", delivered()).await;
    let shown = store.show(kept).await.unwrap();
    assert_eq!((shown.body_removed, shown.event.body.len()), (false, 4));
    assert_eq!(store.redeliver(kept, None).await, Ok(1));
}
