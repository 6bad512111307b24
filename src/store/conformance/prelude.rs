//! What cases are made of.

pub(super) use std::{collections::BTreeMap, time::Duration};

pub(super) use futures_util::{FutureExt, future::join_all};

pub(super) use super::super::{
    Act, Appended, Counted, Direction, EventStore, Filter, JsonIs, Known, Lease, Leased, Operation, OperationState,
    Outcome, Page, Pause, Settled, StoreError,
};
pub(super) use super::{Cases, ENGINES};
pub(super) use crate::{
    event::{
        Answer, Attempt, Begin, Body, Client, Delivery, EventHead, EventId, Hold, Item, Name, NewEvent, OnConflict,
        OnResend, OrderKey, State,
    },
    time::Wall,
    verify::{Key, Keys, Lived},
};

pub(in crate::store) const EPOCH_S: i64 = 1_700_000_000;
pub(super) const HOUR: Duration = Duration::from_hours(1);
pub(super) const DAY: Duration = Duration::from_hours(24);
pub(super) const LEASE: Duration = Duration::from_mins(1);

pub(in crate::store) fn lived(kind: u8, n: u32, lives: Duration) -> Lived {
    let mut key = [kind; 32];
    key[..4].copy_from_slice(&n.to_be_bytes());
    Lived { key: Key(key), lives }
}

/// Signed content `signed` of event `event` with body `body`: equal numbers are equal things.
pub(in crate::store) fn keys(signed: u32, event: u32, body: u32) -> Keys {
    let mut digest = [0xbb; 32];
    digest[..4].copy_from_slice(&body.to_be_bytes());
    Keys {
        body: digest,
        replay: Some(lived(1, signed, HOUR)),
        nonce: None,
        event: Some(lived(2, event, DAY * 3)),
        timed: true,
        fell_back: false,
    }
}

pub(in crate::store) fn event(keys: Keys, upstreams: &[&str]) -> NewEvent {
    let now = Wall::from_unix_s(EPOCH_S);
    let upstreams: Vec<Name> = upstreams.iter().map(|&name| Name::from(name)).collect();
    NewEvent {
        head: EventHead {
            id: EventId::new(now),
            source: "shop".into(),
            provider: "acme".into(),
            received_at: now,
            method: "POST".to_owned(),
            query: Some("a=1".to_owned()),
            client: Client { address: "192.0.2.7".to_owned(), proto: "https".to_owned(), host: "h".to_owned() },
            headers: vec![("x-a".to_owned(), vec![0xff, 0]), ("x-a".to_owned(), Vec::new())],
            event_type: Some("order.paid".to_owned()),
            attempt_id: Some("try-1".to_owned()),
            verified: "hmac-sha256/main".to_owned(),
            traceparent: "00-1-2-01".to_owned(),
            duplicate_of: None,
            conflict_of: None,
        },
        body: Body::free(vec![0, 1, 0xff, b'{']),
        keys,
        upstreams,
        begin: Begin::Due,
        on_conflict: OnConflict::Hold,
        on_resend: OnResend::Drop,
        order_key: None,
        keep_body: true,
    }
}

pub(in crate::store) fn attempt(number: u32) -> Attempt {
    Attempt {
        number,
        began_at: Wall::from_unix_ms(1_700_000_000_123),
        took: Duration::from_micros(1500),
        status: Some(503),
        error: None,
        cause: "first".to_owned(),
    }
}

pub(in crate::store) fn settled(number: u32, outcome: Outcome) -> Settled {
    Settled { attempt: attempt(number), outcome, answer: None, uncertain: false }
}

pub(in crate::store) fn delivered() -> Outcome {
    Outcome::Delivered { items: Vec::new() }
}

pub(in crate::store) fn dead() -> Outcome {
    Outcome::Dead { reason: "status 410".to_owned() }
}

pub(in crate::store) fn retry(after: Duration) -> Outcome {
    Outcome::Retry { after }
}

pub(in crate::store) fn answer() -> Answer {
    Answer { status: 201, content_type: Some("text/plain".to_owned()), body: b"done"[..].into() }
}

/// Stores an event that must be new, due to upstream `a`.
pub(in crate::store) async fn store_new(store: &dyn EventStore, keys: Keys) -> EventId {
    match store.append(event(keys, &["a"])).await {
        Ok(Appended::New { id, .. }) => id,
        other => panic!("stored as {other:?}"),
    }
}

/// The one delivery that is due to an upstream.
pub(in crate::store) async fn take(store: &dyn EventStore, upstream: &str) -> Leased {
    let mut leased = store.lease(upstream, 10, LEASE).await.unwrap();
    assert_eq!(leased.len(), 1, "deliveries due to {upstream}");
    leased.remove(0)
}

pub(in crate::store) async fn nothing_due(store: &dyn EventStore, upstream: &str) {
    let leased = store.lease(upstream, 10, LEASE).await.unwrap();
    assert!(leased.is_empty(), "{leased:?}");
}

pub(in crate::store) async fn deliver(store: &dyn EventStore, upstream: &str, outcome: Outcome) -> Leased {
    let leased = take(store, upstream).await;
    store.settle(leased.lease, settled(leased.attempt, outcome)).await.unwrap();
    leased
}

pub(in crate::store) async fn delivery(store: &dyn EventStore, id: EventId) -> Delivery {
    let mut deliveries = store.show(id).await.unwrap().deliveries;
    assert_eq!(deliveries.len(), 1);
    deliveries.remove(0)
}

pub(in crate::store) async fn copies(store: &dyn EventStore, id: EventId) -> u64 {
    flush(store).await;
    store.show(id).await.unwrap().event.copies
}

/// Waits for whatever the store may write later: the answer to a later write comes after it.
pub(in crate::store) async fn flush(store: &dyn EventStore) {
    let unknown = EventId::from_bytes([0; 16]);
    assert_eq!(store.release(unknown).await, Err(StoreError::NotFound));
}

pub(in crate::store) fn known(first: EventId, rearmed: u32) -> Appended {
    Appended::Known { first, rearmed, answer: None }
}
/// Lets the time of a lease pass.
pub(super) async fn lapse() {
    tokio::time::advance(LEASE).await;
}

/// An event of its own, with an order key, for upstream `a`.
pub(super) fn ordered(n: u32, order_key: &str) -> NewEvent {
    NewEvent { order_key: OrderKey::new(order_key), ..event(keys(n, n, n), &["a"]) }
}

/// Stores it, whatever becomes of its deliveries.
pub(super) async fn put(store: &dyn EventStore, event: NewEvent) -> EventId {
    let id = event.head.id;
    match store.append(event).await {
        Ok(Appended::New { .. } | Appended::Conflict { id: Some(_), .. }) => id,
        other => panic!("stored as {other:?}"),
    }
}

/// Takes everything that is due to upstream `a`.
pub(super) async fn take_all(store: &dyn EventStore) -> Vec<Leased> {
    store.lease("a", 1000, LEASE).await.unwrap()
}

pub(super) fn ids_of(leased: &[Leased]) -> Vec<EventId> {
    leased.iter().map(|one| one.event.head.id).collect()
}

pub(super) async fn settle(store: &dyn EventStore, leased: &Leased, outcome: Outcome) {
    store.settle(leased.lease, settled(leased.attempt, outcome)).await.unwrap();
}
