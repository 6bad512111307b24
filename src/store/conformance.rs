//! What every engine does. A case is a function over the contract; an engine's own tests run [`all`].
//!
//! Time is tokio's paused clock: cases move it, so they are exact about when something falls due or expires.

use std::{sync::Arc, time::Duration};

use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};

use super::{Appended, Direction, EventStore, Filter, Known, Lease, Leased, Outcome, Settled, StoreError};
use crate::{
    event::{
        Answer, Attempt, Begin, Body, Client, Delivery, EventHead, EventId, Hold, Item, Name, NewEvent, OnConflict,
        OnResend, State,
    },
    time::Wall,
    verify::{Key, Keys, Lived},
};

pub(super) const EPOCH_S: i64 = 1_700_000_000;
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const LEASE: Duration = Duration::from_mins(1);

type Case = for<'a> fn(&'a dyn EventStore) -> BoxFuture<'a, ()>;

const CASES: &[(&str, Case)] = &[
    ("a new event is stored whole", |s| Box::pin(a_new_event_is_stored_whole(s))),
    ("copies are known", |s| Box::pin(copies_are_known(s))),
    ("simultaneous copies", |s| Box::pin(simultaneous_copies_give_one_new(s))),
    ("keys expire by elapsed time", |s| Box::pin(keys_expire_by_elapsed_time(s))),
    ("a copy extends the life of its keys", |s| Box::pin(a_copy_extends_the_life_of_its_keys(s))),
    ("a conflict is held", |s| Box::pin(a_conflict_is_held_and_released(s))),
    ("a conflict is delivered or dropped", |s| Box::pin(a_conflict_is_delivered_or_dropped(s))),
    ("stale events are held", |s| Box::pin(stale_events_are_held(s))),
    ("dead letters and re-sends", |s| Box::pin(a_resend_arms_a_dead_letter_and_a_replay_does_not(s))),
    ("re-sends of delivered events", |s| Box::pin(a_resend_of_a_delivered_event(s))),
    ("untimed re-sends", |s| Box::pin(an_untimed_copy_is_a_resend(s))),
    ("lookup and record", |s| Box::pin(lookup_and_record(s))),
    ("leases", |s| Box::pin(leases_are_exclusive_lapse_and_are_fenced(s))),
    ("born leased", |s| Box::pin(the_first_delivery_is_born_leased(s))),
    ("settle", |s| Box::pin(settle_records_what_happened(s))),
    ("give back", |s| Box::pin(a_lease_given_back_counts_no_attempt(s))),
    ("answers", |s| Box::pin(answers_are_kept_for_copies(s))),
    ("redeliver", |s| Box::pin(redelivery(s))),
    ("forget", |s| Box::pin(a_forgotten_event_is_accepted_anew(s))),
    ("purge", |s| Box::pin(purge_leaves_nothing(s))),
    ("reconcile", |s| Box::pin(removed_upstreams_park_their_deliveries(s))),
    ("list", |s| Box::pin(lists_are_filtered_and_paged(s))),
    ("items", |s| Box::pin(items_are_known_per_upstream(s))),
    ("sweep", |s| Box::pin(a_sweep_keeps_what_is_not_delivered(s))),
    ("stats", |s| Box::pin(stats_count(s))),
    ("wake-ups", |s| Box::pin(no_wake_up_is_lost(s))),
    ("close", |s| Box::pin(a_closed_store_refuses(s))),
];

/// Runs every case, each against a new store.
pub(super) async fn all(open: impl Fn() -> Arc<dyn EventStore>) {
    for (name, case) in CASES {
        // Shown by the test runner if the case fails.
        println!("case: {name}");
        let store = open();
        case(&*store).await;
        store.close().await;
    }
}

// ---- Material.

fn lived(kind: u8, n: u32, lives: Duration) -> Lived {
    let mut key = [kind; 32];
    key[..4].copy_from_slice(&n.to_be_bytes());
    Lived { key: Key(key), lives }
}

/// Signed content `signed` of event `event` with body `body`: equal numbers are equal things.
pub(super) fn keys(signed: u32, event: u32, body: u32) -> Keys {
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

pub(super) fn event(keys: Keys, upstreams: &[&str]) -> NewEvent {
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

pub(super) fn attempt(number: u32) -> Attempt {
    Attempt {
        number,
        began_at: Wall::from_unix_ms(1_700_000_000_123),
        took: Duration::from_micros(1500),
        status: Some(503),
        error: None,
        cause: "first".to_owned(),
    }
}

pub(super) fn settled(number: u32, outcome: Outcome) -> Settled {
    Settled { attempt: attempt(number), outcome, answer: None, uncertain: false }
}

pub(super) fn delivered() -> Outcome {
    Outcome::Delivered { items: Vec::new() }
}

fn dead() -> Outcome {
    Outcome::Dead { reason: "status 410".to_owned() }
}

fn retry(after: Duration) -> Outcome {
    Outcome::Retry { after }
}

fn answer() -> Answer {
    Answer { status: 201, content_type: Some("text/plain".to_owned()), body: b"done"[..].into() }
}

/// Stores an event that must be new, due to upstream `a`.
async fn store_new(store: &dyn EventStore, keys: Keys) -> EventId {
    match store.append(event(keys, &["a"])).await {
        Ok(Appended::New { id, .. }) => id,
        other => panic!("stored as {other:?}"),
    }
}

/// The one delivery that is due to an upstream.
async fn take(store: &dyn EventStore, upstream: &str) -> Leased {
    let mut leased = store.lease(upstream, 10, LEASE).await.unwrap();
    assert_eq!(leased.len(), 1, "deliveries due to {upstream}");
    leased.remove(0)
}

async fn nothing_due(store: &dyn EventStore, upstream: &str) {
    let leased = store.lease(upstream, 10, LEASE).await.unwrap();
    assert!(leased.is_empty(), "{leased:?}");
}

async fn deliver(store: &dyn EventStore, upstream: &str, outcome: Outcome) -> Leased {
    let leased = take(store, upstream).await;
    store.settle(leased.lease, settled(leased.attempt, outcome)).await.unwrap();
    leased
}

async fn delivery(store: &dyn EventStore, id: EventId) -> Delivery {
    let mut deliveries = store.show(id).await.unwrap().deliveries;
    assert_eq!(deliveries.len(), 1);
    deliveries.remove(0)
}

async fn copies(store: &dyn EventStore, id: EventId) -> u64 {
    flush(store).await;
    store.show(id).await.unwrap().event.copies
}

/// Waits for whatever the store may write later: the answer to a later write comes after it.
pub(super) async fn flush(store: &dyn EventStore) {
    let unknown = EventId::from_bytes([0; 16]);
    assert_eq!(store.release(unknown).await, Err(StoreError::NotFound));
}

fn known(first: EventId, rearmed: u32) -> Appended {
    Appended::Known { first, rearmed, answer: None }
}

// ---- Cases.

async fn a_new_event_is_stored_whole(store: &dyn EventStore) {
    let new = event(keys(1, 1, 1), &["a", "b", "a"]);
    let expected = new.head.clone();
    let appended = store.append(new).await.unwrap();
    assert_eq!(appended, Appended::New { id: expected.id, lease: None, duplicate_of: None });

    let shown = store.show(expected.id).await.unwrap();
    assert_eq!(shown.event.head, expected);
    assert_eq!(&shown.event.body[..], [0, 1, 0xff, b'{']);
    assert_eq!(shown.event.copies, 0);
    let upstreams: Vec<&str> = shown.deliveries.iter().map(|delivery| &*delivery.upstream).collect();
    assert_eq!(upstreams, ["a", "b"], "one delivery each");
    assert!(shown.deliveries.iter().all(|d| d.state == State::Due && d.due_in == Some(Duration::ZERO)));

    let leased = take(store, "b").await;
    assert_eq!(leased.event.head, expected);
    assert_eq!(&leased.event.body[..], [0, 1, 0xff, b'{']);
    assert_eq!((leased.attempt, &*leased.cause, &*leased.upstream), (1, "first", "b"));
    assert!(matches!(store.show(EventId::from_bytes([1; 16])).await, Err(StoreError::NotFound)));
}

async fn copies_are_known(store: &dyn EventStore) {
    let first = store_new(store, keys(1, 1, 1)).await;
    let exact = store.append(event(keys(1, 1, 1), &["a"])).await;
    assert_eq!(exact, Ok(known(first, 0)));
    let resent = store.append(event(keys(2, 1, 1), &["a"])).await;
    assert_eq!(resent, Ok(known(first, 0)), "a due delivery is not re-armed");
    // The re-send's replay key was recorded: it is known although the event key of this one is not.
    let by_new_key = store.append(event(keys(2, 99, 1), &["a"])).await;
    assert_eq!(by_new_key, Ok(known(first, 0)));
    store.count_copy(first);
    assert_eq!(copies(store, first).await, 4);
    assert_eq!(store.stats().await.unwrap().keys, 4);
    take(store, "a").await;
}

async fn simultaneous_copies_give_one_new(store: &dyn EventStore) {
    let appends = (0..50).map(|_| store.append(event(keys(1, 1, 1), &["a"])));
    let appended: Vec<Appended> = join_all(appends).await.into_iter().map(Result::unwrap).collect();
    let new: Vec<EventId> =
        appended.iter().filter_map(|one| if let Appended::New { id, .. } = one { Some(*id) } else { None }).collect();
    assert_eq!(new.len(), 1);
    assert_eq!(appended.iter().filter(|one| **one == known(new[0], 0)).count(), 49);
    assert_eq!(copies(store, new[0]).await, 49);
    take(store, "a").await;
}

async fn keys_expire_by_elapsed_time(store: &dyn EventStore) {
    let only_replay = |signed| Keys { event: None, ..keys(signed, 0, 1) };
    let first = store_new(store, only_replay(1)).await;
    tokio::time::advance(Duration::from_millis(3_599_999)).await;
    assert_eq!(store.append(event(only_replay(1), &["a"])).await, Ok(known(first, 0)));
    tokio::time::advance(HOUR).await;
    let second = store_new(store, only_replay(1)).await;
    // The expired key was taken over by the new event, before any sweep.
    assert_eq!(store.append(event(only_replay(1), &["a"])).await, Ok(known(second, 0)));
}

async fn a_copy_extends_the_life_of_its_keys(store: &dyn EventStore) {
    let with_life = |lives| Keys { replay: Some(lived(1, 1, lives)), event: None, ..keys(1, 0, 1) };
    let first = store_new(store, with_life(HOUR)).await;
    store.append(event(with_life(HOUR * 3), &["a"])).await.unwrap();
    store.append(event(with_life(Duration::from_secs(1)), &["a"])).await.unwrap();
    tokio::time::advance(HOUR * 2).await;
    assert_eq!(store.append(event(with_life(HOUR), &["a"])).await, Ok(known(first, 0)));
}

async fn a_conflict_is_held_and_released(store: &dyn EventStore) {
    let first = store_new(store, keys(1, 1, 1)).await;
    let other = event(keys(2, 1, 2), &["a"]);
    let id = other.head.id;
    assert_eq!(store.append(other).await, Ok(Appended::Conflict { id: Some(id), first }));
    let held = delivery(store, id).await;
    assert_eq!((held.state, held.reason.as_deref(), held.due_in), (State::Held, Some("conflict"), None));
    assert_eq!(store.show(id).await.unwrap().event.head.conflict_of, Some(first));
    assert_eq!(copies(store, first).await, 0);

    // A re-send of the conflict is a copy of the conflict, and does not arm it.
    assert_eq!(store.append(event(keys(3, 1, 2), &["a"])).await, Ok(known(id, 0)));
    // A third body conflicts with the first of both.
    let third = store.append(event(keys(4, 1, 3), &["a"])).await.unwrap();
    assert!(matches!(third, Appended::Conflict { first: with, .. } if with == first.min(id)), "{third:?}");

    deliver(store, "a", delivered()).await;
    assert_eq!(store.release(id).await, Ok(1));
    let released = take(store, "a").await;
    assert_eq!((released.event.head.id, &*released.cause), (id, "released"));
    assert_eq!(store.release(id).await, Err(StoreError::NotFound));
}

async fn a_conflict_is_delivered_or_dropped(store: &dyn EventStore) {
    let first = store_new(store, keys(1, 1, 1)).await;
    deliver(store, "a", delivered()).await;
    let delivered_too =
        NewEvent { on_conflict: OnConflict::Deliver, begin: Begin::FirstLeased(LEASE), ..event(keys(2, 1, 2), &["a"]) };
    let id = delivered_too.head.id;
    assert_eq!(store.append(delivered_too).await, Ok(Appended::Conflict { id: Some(id), first }));
    assert_eq!(take(store, "a").await.event.head.conflict_of, Some(first));

    let dropped = NewEvent { on_conflict: OnConflict::Drop, ..event(keys(3, 1, 3), &["a"]) };
    let dropped_id = dropped.head.id;
    let expected = first.min(id);
    assert_eq!(store.append(dropped).await, Ok(Appended::Conflict { id: None, first: expected }));
    assert!(matches!(store.show(dropped_id).await, Err(StoreError::NotFound)));
    assert_eq!(copies(store, expected).await, 1);
}

async fn stale_events_are_held(store: &dyn EventStore) {
    let stale = NewEvent { begin: Begin::Held(Hold::Stale), ..event(keys(1, 1, 1), &["a", "b"]) };
    let id = stale.head.id;
    store.append(stale).await.unwrap();
    let shown = store.show(id).await.unwrap();
    assert!(shown.deliveries.iter().all(|d| d.state == State::Held && d.reason.as_deref() == Some("stale")));
    assert_eq!(store.next_due("a").await, Ok(None));
    assert_eq!(store.append(event(keys(2, 1, 1), &["a"])).await, Ok(known(id, 0)), "a re-send releases nothing");
    assert_eq!(store.redeliver(id, None).await, Err(StoreError::NotFound), "nor does a redelivery");
    assert_eq!(store.release(id).await, Ok(2));
    assert_eq!(take(store, "b").await.event.head.id, id);
}

async fn a_resend_arms_a_dead_letter_and_a_replay_does_not(store: &dyn EventStore) {
    let first = store_new(store, keys(1, 1, 1)).await;
    tokio::time::advance(HOUR / 2).await;
    deliver(store, "a", dead()).await;
    let letter = delivery(store, first).await;
    assert_eq!((letter.state, letter.reason.as_deref()), (State::Dead, Some("status 410")));
    assert_eq!(store.append(event(keys(1, 1, 1), &["a"])).await, Ok(known(first, 0)), "an exact replay");
    nothing_due(store, "a").await;

    assert_eq!(store.append(event(keys(2, 1, 1), &["a"])).await, Ok(known(first, 1)), "a re-send");
    let again = take(store, "a").await;
    assert_eq!((again.attempt, &*again.cause, again.age), (2, "re-send", Duration::ZERO));
    assert_eq!(again.event.copies, 2);
    store.settle(again.lease, settled(2, dead())).await.unwrap();
    assert_eq!(
        store.append(event(keys(2, 1, 1), &["a"])).await,
        Ok(known(first, 0)),
        "the same re-send again is an exact replay of it"
    );
}

async fn a_resend_of_a_delivered_event(store: &dyn EventStore) {
    let first = store_new(store, keys(1, 1, 1)).await;
    let deliver_again = |signed| NewEvent {
        on_resend: OnResend::Deliver,
        begin: Begin::FirstLeased(LEASE),
        ..event(keys(signed, 1, 1), &["a"])
    };
    assert_eq!(store.append(deliver_again(2)).await, Ok(known(first, 0)), "the first is not delivered yet");
    deliver(store, "a", delivered()).await;
    assert_eq!(store.append(event(keys(3, 1, 1), &["a"])).await, Ok(known(first, 0)), "dropped by default");
    assert_eq!(store.append(deliver_again(3)).await, Ok(known(first, 0)), "an exact replay");

    let again = deliver_again(4);
    let id = again.head.id;
    let Ok(Appended::New { id: stored, lease: Some(lease), duplicate_of }) = store.append(again).await else {
        panic!("a re-send is stored, born leased")
    };
    assert_eq!((stored, duplicate_of), (id, Some(first)));
    assert_eq!(store.show(id).await.unwrap().event.head.duplicate_of, Some(first));
    store.settle(lease, settled(1, delivered())).await.unwrap();
    assert_eq!(store.append(deliver_again(4)).await, Ok(known(id, 0)), "its replay key is its own");
    assert_eq!((copies(store, first).await, copies(store, id).await), (4, 1));
}

async fn an_untimed_copy_is_a_resend(store: &dyn EventStore) {
    let untimed = || Keys { timed: false, ..keys(1, 1, 1) };
    let first = store_new(store, untimed()).await;
    deliver(store, "a", dead()).await;
    assert_eq!(store.append(event(untimed(), &["a"])).await, Ok(known(first, 1)));
    deliver(store, "a", delivered()).await;
    let again = NewEvent { on_resend: OnResend::Deliver, ..event(untimed(), &["a"]) };
    assert!(matches!(store.append(again).await, Ok(Appended::New { duplicate_of: Some(of), .. }) if of == first));
}

async fn lookup_and_record(store: &dyn EventStore) {
    assert_eq!(store.lookup(keys(1, 1, 1)).await, Ok(Known::No));
    let [id, other] = [1, 2].map(|_| EventId::new(Wall::from_unix_s(EPOCH_S)));
    let shop = Name::from("shop");
    store.record(id, &shop, keys(1, 1, 1), Some((answer(), HOUR)), false).await.unwrap();
    let copy = Ok(Known::Copy { first: id, answer: Some(answer()) });
    assert_eq!(store.lookup(keys(1, 1, 1)).await, copy);
    assert_eq!(store.lookup(keys(2, 1, 2)).await, Ok(Known::Conflict { first: id }));
    assert_eq!(store.lookup(keys(3, 1, 1)).await, copy);
    assert_eq!(store.lookup(keys(3, 9, 1)).await, copy, "the unknown key of a copy is recorded");
    store.record(other, &shop, keys(3, 1, 1), None, true).await.unwrap();
    assert_eq!(store.lookup(keys(3, 1, 1)).await, copy, "a known key stays with the first");
    assert_eq!(
        store.append(event(keys(1, 1, 1), &["a"])).await,
        Ok(Appended::Known { first: id, rearmed: 0, answer: Some(answer()) }),
        "an event without a row is known all the same"
    );
    tokio::time::advance(HOUR).await;
    assert_eq!(store.lookup(keys(1, 1, 1)).await, Ok(Known::Copy { first: id, answer: None }));
    assert_eq!(store.forget(id).await, Ok(3), "the replay key was extended by its copies");
    assert_eq!(store.lookup(keys(1, 1, 1)).await, Ok(Known::No));
}

async fn leases_are_exclusive_lapse_and_are_fenced(store: &dyn EventStore) {
    let id = store_new(store, keys(1, 1, 1)).await;
    let lost = take(store, "a").await;
    nothing_due(store, "a").await;
    assert_eq!(delivery(store, id).await.state, State::Leased);
    assert_eq!(store.next_due("a").await, Ok(Some(LEASE)));
    assert_eq!(store.purge(id).await, Err(StoreError::NotFound), "a worker has it");
    assert_eq!(store.redeliver(id, None).await, Err(StoreError::NotFound), "a worker has it");

    tokio::time::advance(LEASE).await;
    let mine = take(store, "a").await;
    assert_eq!((mine.attempt, &*mine.cause, mine.age), (1, "lease lapsed", LEASE));
    assert_eq!(store.settle(lost.lease, settled(1, delivered())).await, Err(StoreError::LeaseLost));
    assert_eq!(store.give_back(lost.lease, Duration::ZERO).await, Err(StoreError::LeaseLost));
    // One that lapsed and was given to nobody else still settles.
    tokio::time::advance(LEASE * 2).await;
    store.settle(mine.lease, settled(1, delivered())).await.unwrap();
    assert_eq!(store.settle(mine.lease, settled(1, delivered())).await, Err(StoreError::LeaseLost), "once");
    let nobodys = Lease { delivery: 4711, fence: 1 };
    assert_eq!(store.settle(nobodys, settled(1, delivered())).await, Err(StoreError::LeaseLost));
    tokio::time::advance(DAY).await;
    nothing_due(store, "a").await;

    for n in 2..5 {
        store_new(store, keys(n, n, n)).await;
    }
    assert_eq!(store.lease("a", 2, LEASE).await.unwrap().len(), 2, "no more than asked");
    assert_eq!(store.lease("a", 2, LEASE).await.unwrap().len(), 1);
}

async fn the_first_delivery_is_born_leased(store: &dyn EventStore) {
    let new = NewEvent { begin: Begin::FirstLeased(LEASE), ..event(keys(1, 1, 1), &["a", "b"]) };
    let id = new.head.id;
    let Ok(Appended::New { lease: Some(lease), .. }) = store.append(new).await else { panic!("no lease") };
    nothing_due(store, "a").await;
    take(store, "b").await;
    let settled_once = store.settle(lease, settled(1, delivered())).await;
    assert_eq!(settled_once, Ok(()));
    let shown = store.show(id).await.unwrap();
    assert_eq!((shown.deliveries[0].state, shown.deliveries[1].state), (State::Delivered, State::Leased));
}

async fn settle_records_what_happened(store: &dyn EventStore) {
    let id = store_new(store, keys(1, 1, 1)).await;
    let wait = Duration::from_millis(1500);
    deliver(store, "a", retry(wait)).await;
    let waiting = delivery(store, id).await;
    assert_eq!((waiting.state, waiting.due_in, waiting.attempts), (State::Due, Some(wait), 1));
    assert_eq!(waiting.reason.as_deref(), Some("status 503"));
    assert_eq!(store.next_due("a").await, Ok(Some(wait)));
    tokio::time::advance(Duration::from_millis(1499)).await;
    nothing_due(store, "a").await;
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(store.next_due("a").await, Ok(Some(Duration::ZERO)));
    let second = deliver(store, "a", delivered()).await;
    assert_eq!((second.attempt, &*second.cause, second.age), (2, "retry", wait));

    let done = delivery(store, id).await;
    assert_eq!((done.state, done.reason, done.attempts, done.due_in), (State::Delivered, None, 2, None));
    assert_eq!(done.history, [attempt(1), Attempt { number: 2, cause: "retry".to_owned(), ..attempt(2) }]);
    assert_eq!(store.next_due("a").await, Ok(None));

    let long = store_new(store, keys(2, 2, 2)).await;
    for _ in 0..60 {
        deliver(store, "a", retry(Duration::ZERO)).await;
    }
    let history = delivery(store, long).await.history;
    assert_eq!((history.len(), history[0].number, history[49].number), (50, 11, 60));
}

async fn a_lease_given_back_counts_no_attempt(store: &dyn EventStore) {
    let id = store_new(store, keys(1, 1, 1)).await;
    let leased = take(store, "a").await;
    store.give_back(leased.lease, HOUR).await.unwrap();
    assert_eq!(delivery(store, id).await.due_in, Some(HOUR));
    assert_eq!(store.settle(leased.lease, settled(1, delivered())).await, Err(StoreError::LeaseLost));
    tokio::time::advance(HOUR).await;
    let again = take(store, "a").await;
    assert_eq!((again.attempt, &*again.cause), (1, "first"));
}

async fn answers_are_kept_for_copies(store: &dyn EventStore) {
    let first = store_new(store, keys(1, 1, 1)).await;
    let leased = take(store, "a").await;
    let with_answer = Settled { answer: Some((answer(), HOUR)), ..settled(1, delivered()) };
    store.settle(leased.lease, with_answer).await.unwrap();
    let appended = store.append(event(keys(1, 1, 1), &["a"])).await;
    assert_eq!(appended, Ok(Appended::Known { first, rearmed: 0, answer: Some(answer()) }));
    tokio::time::advance(HOUR).await;
    assert_eq!(store.append(event(keys(2, 1, 1), &["a"])).await, Ok(known(first, 0)));
    assert_eq!(store.sweep(DAY).await.unwrap().keys, 2, "the first replay key and the answer");
}

async fn redelivery(store: &dyn EventStore) {
    let id = store_new(store, keys(1, 1, 1)).await;
    deliver(store, "a", delivered()).await;
    tokio::time::advance(HOUR).await;
    assert_eq!(store.redeliver(id, None).await, Ok(1));
    let again = deliver(store, "a", delivered()).await;
    assert_eq!((again.attempt, &*again.cause, again.age), (2, "redelivery", Duration::ZERO));

    assert_eq!(store.redeliver(id, Some("b")).await, Ok(1), "to another upstream");
    nothing_due(store, "a").await;
    let elsewhere = deliver(store, "b", dead()).await;
    assert_eq!((elsewhere.attempt, &*elsewhere.cause), (1, "redelivery"));
    assert_eq!(store.redeliver(id, None).await, Ok(2), "delivered and dead");
    assert_eq!(store.redeliver(id, Some("b")).await, Ok(1), "what is due is due now");
    assert_eq!(store.redeliver(EventId::from_bytes([1; 16]), None).await, Err(StoreError::NotFound));
}

async fn a_forgotten_event_is_accepted_anew(store: &dyn EventStore) {
    let first = store_new(store, keys(1, 1, 1)).await;
    assert_eq!(store.forget(first).await, Ok(2));
    let second = store_new(store, keys(1, 1, 1)).await;
    assert_ne!(first, second);
    assert_eq!(store.forget(first).await, Ok(0));
    assert_eq!(store.append(event(keys(1, 1, 1), &["a"])).await, Ok(known(second, 0)));
    assert_eq!(store.forget(EventId::from_bytes([1; 16])).await, Err(StoreError::NotFound));
}

async fn purge_leaves_nothing(store: &dyn EventStore) {
    let id = store_new(store, keys(1, 1, 1)).await;
    deliver(store, "a", retry(HOUR)).await;
    store.purge(id).await.unwrap();
    assert_eq!(store.purge(id).await, Err(StoreError::NotFound));
    assert!(matches!(store.show(id).await, Err(StoreError::NotFound)));
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.events, stats.keys, stats.deliveries.len()), (0, 0, 0));
    assert_eq!(store.next_due("a").await, Ok(None));
    store_new(store, keys(1, 1, 1)).await;
}

async fn removed_upstreams_park_their_deliveries(store: &dyn EventStore) {
    let names: Vec<Name> = ["a", "b"].map(Name::from).into();
    let new = event(keys(1, 1, 1), &["a", "b"]);
    let id = new.head.id;
    store.append(new).await.unwrap();
    let in_work = take(store, "a").await;
    let parked = store.reconcile(&names[1..]).await.unwrap();
    assert_eq!(parked.into_iter().collect::<Vec<_>>(), [(Name::from("a"), 1)]);
    let delivery = store.show(id).await.unwrap().deliveries.remove(0);
    assert_eq!((delivery.state, delivery.reason.as_deref()), (State::Parked, Some("upstream removed")));
    assert_eq!(store.settle(in_work.lease, settled(1, delivered())).await, Err(StoreError::LeaseLost));
    tokio::time::advance(HOUR).await;
    nothing_due(store, "a").await;
    assert_eq!(store.append(event(keys(2, 1, 1), &["a"])).await, Ok(known(id, 0)), "a re-send leaves it parked");
    assert_eq!(store.redeliver(id, Some("a")).await, Err(StoreError::NotFound), "and so does an operator");
    let late = event(keys(3, 3, 3), &["a"]);
    let late_id = late.head.id;
    store.append(late).await.unwrap();
    assert_eq!(store.show(late_id).await.unwrap().deliveries[0].state, State::Parked, "accepted before a reload");

    assert!(store.reconcile(&names).await.unwrap().is_empty());
    let back = store.lease("a", 10, LEASE).await.unwrap();
    let causes: Vec<_> = back.iter().map(|leased| (&*leased.cause, leased.age)).collect();
    assert_eq!(causes, [("lease lapsed", Duration::ZERO), ("first", Duration::ZERO)]);
    take(store, "b").await;
}

async fn lists_are_filtered_and_paged(store: &dyn EventStore) {
    let mut ids = Vec::new();
    for n in 0..5u32 {
        let mut new = event(keys(n, n, n), if n == 0 { &["b"] } else { &["a"] });
        new.head.received_at = Wall::from_unix_s(EPOCH_S + i64::from(n));
        new.head.id = EventId::new(new.head.received_at);
        if n == 1 {
            new.head.source = "other".into();
            new.head.event_type = None;
        }
        if n == 2 {
            new.head.attempt_id = Some("try-2".to_owned());
            new.begin = Begin::Held(Hold::Stale);
        }
        ids.push(new.head.id);
        store.append(new).await.unwrap();
    }
    let listed = async |filter: Filter| -> Vec<usize> {
        let page = store.list(filter, Direction::NewestFirst, 10).await.unwrap().events;
        page.iter().map(|one| ids.iter().position(|id| *id == one.head.id).unwrap()).collect()
    };
    let all = Filter::default;
    let text = |text: &str| Some(text.to_owned());
    let at = |s| Some(Wall::from_unix_s(EPOCH_S + s));
    assert_eq!(listed(all()).await, [4, 3, 2, 1, 0], "newest first");
    assert_eq!(listed(Filter { before: Some(ids[3]), ..all() }).await, [2, 1, 0]);
    assert_eq!(listed(Filter { source: text("other"), ..all() }).await, [1]);
    assert_eq!(listed(Filter { upstream: text("b"), ..all() }).await, [0]);
    assert_eq!(listed(Filter { state: Some(State::Held), ..all() }).await, [2]);
    assert_eq!(listed(Filter { state: Some(State::Due), upstream: text("a"), ..all() }).await, [4, 3, 1]);
    assert_eq!(listed(Filter { state: Some(State::Held), upstream: text("b"), ..all() }).await, [0; 0]);
    assert_eq!(listed(Filter { event_type: text("order.paid"), ..all() }).await, [4, 3, 2, 0]);
    assert_eq!(listed(Filter { attempt_id: text("try-2"), ..all() }).await, [2]);
    assert_eq!(listed(Filter { since: at(1), until: at(3), ..all() }).await, [2, 1]);

    let page = store.list(all(), Direction::NewestFirst, 1).await.unwrap().events;
    assert_eq!(page.len(), 1);
    assert_eq!((page[0].body_bytes, page[0].copies, page[0].deliveries.len()), (4, 0, 1));
    assert_eq!(page[0].deliveries[0].due_in, Some(Duration::ZERO));
}

async fn items_are_known_per_upstream(store: &dyn EventStore) {
    let item = |n: u8, content: u8| Item { key: Key([n; 32]), content: [content; 32] };
    store_new(store, keys(1, 1, 1)).await;
    deliver(store, "a", Outcome::Delivered { items: vec![item(1, 1), item(2, 1)] }).await;
    store_new(store, keys(2, 2, 2)).await;
    deliver(store, "a", Outcome::Delivered { items: vec![item(2, 2)] }).await;
    let asked = vec![item(1, 9), item(2, 9), item(3, 9)];
    let known = store.acknowledged_items("a", asked.clone()).await.unwrap();
    assert_eq!(known, [Some([1; 32]), Some([2; 32]), None]);
    assert_eq!(store.acknowledged_items("b", asked).await.unwrap(), [None; 3]);
}

async fn a_sweep_keeps_what_is_not_delivered(store: &dyn EventStore) {
    let [done, waiting, again] = [1, 2, 3].map(|n| event(keys(n, n, n), &["a", "b"]));
    let [done_id, waiting_id, again_id] = [&done, &waiting, &again].map(|new| new.head.id);
    for new in [done, waiting, again] {
        store.append(new).await.unwrap();
    }
    for (upstream, undelivered) in [("a", None), ("b", Some(waiting_id))] {
        for leased in store.lease(upstream, 10, LEASE).await.unwrap() {
            let outcome = if Some(leased.event.head.id) == undelivered { dead() } else { delivered() };
            store.settle(leased.lease, settled(1, outcome)).await.unwrap();
        }
    }
    store.redeliver(again_id, Some("b")).await.unwrap();
    tokio::time::advance(DAY).await;
    let early = store.sweep(DAY + Duration::from_secs(1)).await.unwrap();
    assert_eq!((early.keys, early.events), (3, 0), "replay keys live an hour here");
    let swept = store.sweep(DAY).await.unwrap();
    assert_eq!((swept.keys, swept.events, swept.more), (0, 1, false));
    assert!(matches!(store.show(done_id).await, Err(StoreError::NotFound)));
    assert!(store.show(waiting_id).await.is_ok() && store.show(again_id).await.is_ok());
    let copy = NewEvent { on_resend: OnResend::Deliver, ..event(keys(9, 1, 1), &["a"]) };
    assert_eq!(store.append(copy).await, Ok(known(done_id, 0)), "its event key outlives it");
    deliver(store, "b", delivered()).await;
    assert_eq!(store.sweep(Duration::ZERO).await.unwrap().events, 1, "delivered at last");
}

async fn stats_count(store: &dyn EventStore) {
    store_new(store, keys(1, 1, 1)).await;
    deliver(store, "a", delivered()).await;
    store_new(store, keys(2, 2, 2)).await;
    tokio::time::advance(HOUR).await;
    store_new(store, keys(3, 3, 3)).await;
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.events, stats.keys), (3, 6));
    assert!(stats.bytes > 0);
    let a = Name::from("a");
    let deliveries: Vec<_> = stats.deliveries.into_iter().collect();
    assert_eq!(deliveries, [((a.clone(), State::Due), 2), ((a.clone(), State::Delivered), 1)]);
    assert_eq!(stats.oldest_due.into_iter().collect::<Vec<_>>(), [(a, HOUR)]);
}

async fn no_wake_up_is_lost(store: &dyn EventStore) {
    let is_woken = || store.woken("a").now_or_never().is_some();
    assert!(!is_woken());
    let id = store_new(store, keys(1, 1, 1)).await;
    assert!(is_woken() && !is_woken(), "by an append before anybody waits");
    deliver(store, "a", delivered()).await;
    is_woken();
    store.redeliver(id, None).await.unwrap();
    assert!(is_woken(), "by a redelivery");
    deliver(store, "a", dead()).await;
    is_woken();
    store.append(event(keys(2, 1, 1), &["a"])).await.unwrap();
    assert!(is_woken(), "by a re-send");
    let held = NewEvent { begin: Begin::Held(Hold::Stale), ..event(keys(3, 3, 3), &["a"]) };
    let held_id = held.head.id;
    store.append(held).await.unwrap();
    assert!(!is_woken());
    let waiting = store.woken("a");
    store.release(held_id).await.unwrap();
    assert!(waiting.now_or_never().is_some(), "by a release");
}

async fn a_closed_store_refuses(store: &dyn EventStore) {
    assert_eq!(store.health(), Ok(()));
    store.close().await;
    assert!(matches!(store.append(event(keys(1, 1, 1), &["a"])).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.health(), Err(StoreError::Unavailable(_))));
    assert!(matches!(store.stats().await, Err(StoreError::Unavailable(_))));
}
