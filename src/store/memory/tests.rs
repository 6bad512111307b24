use super::{
    super::{
        conformance::{self, delivered, event, keys, settled},
        judge::event_bytes,
    },
    *,
};
use crate::time::Wall;

fn store(keys_max: usize, on_full: OnFull, bytes_max: u64) -> Arc<MemoryStore> {
    let clock = Clock::starting_at(Wall::from_unix_s(conformance::EPOCH_S));
    MemoryStore::new(&Options { keys_max, on_full, bytes_max, disk_share_max: 1.0, clock })
}

#[tokio::test(start_paused = true)]
async fn it_keeps_the_contract() {
    conformance::all(|| store(10_000, OnFull::Refuse, 64 << 20)).await;
}

#[tokio::test(start_paused = true)]
async fn live_keys_are_refused_room_rather_than_forgotten() {
    let store = store(2, OnFull::Refuse, 1 << 20);
    assert!(store.append(event(keys(1, 1, 1), &["a"])).await.is_ok());
    let refused = event(keys(2, 2, 2), &["a"]);
    assert!(matches!(store.append(refused.clone()).await, Err(StoreError::Full(_))));
    assert_eq!(store.stats().await.unwrap().events, 1, "nothing of it is left");
    assert!(matches!(store.append(event(keys(1, 1, 1), &["a"])).await, Ok(Appended::Known { .. })));
    tokio::time::advance(Duration::from_hours(72)).await;
    assert!(store.append(refused).await.is_ok(), "the others have expired");
}

#[tokio::test(start_paused = true)]
async fn evicted_keys_are_counted() {
    let store = store(2, OnFull::Evict, 1 << 20);
    for n in 0..3 {
        assert!(matches!(store.append(event(keys(n, n, n), &["a"])).await, Ok(Appended::New { .. })));
    }
    assert_eq!((store.evicted(), store.stats().await.unwrap().keys), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn history_gives_way_and_undelivered_events_do_not() {
    let one = event(keys(0, 0, 0), &["a"]);
    let store = store(1000, OnFull::Refuse, event_bytes(&one.head, one.body.len()) * 5 / 2);
    for n in 0..2 {
        store.append(event(keys(n, n, n), &["a"])).await.unwrap();
    }
    assert!(matches!(store.append(event(keys(2, 2, 2), &["a"])).await, Err(StoreError::Full(_))));
    let leased = store.lease("a", 1, Duration::from_secs(1)).await.unwrap();
    store.settle(leased[0].lease, settled(1, delivered())).await.unwrap();
    assert!(store.append(event(keys(2, 2, 2), &["a"])).await.is_ok());
    assert!(matches!(store.show(leased[0].event.head.id).await, Err(StoreError::NotFound)));
}
