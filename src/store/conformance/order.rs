//! Deliveries of one upstream, source and order key: one after another, in the order of acceptance.

use super::prelude::*;

pub(super) const CASES: Cases = &[
    ("one after another", |s| Box::pin(deliveries_of_a_key_go_one_after_another(s))),
    ("keys of their own", |s| Box::pin(other_keys_sources_and_upstreams_wait_for_nobody(s))),
    ("born leased behind another", |s| Box::pin(a_delivery_born_leased_behind_another_waits(s))),
    ("the head keeps its turn", |s| Box::pin(a_retry_a_return_and_a_lapse_keep_the_turn(s))),
    ("who is not in the queue", |s| Box::pin(what_is_not_in_the_queue_blocks_nobody(s))),
    ("a dead or purged head", |s| Box::pin(a_head_that_is_dead_or_purged_lets_the_next_go(s))),
    ("a purge of who waits", |s| Box::pin(a_purge_of_one_that_waits_changes_no_turn(s))),
    ("redelivery in order", |s| Box::pin(what_is_armed_waits_for_the_one_at_work(s))),
    ("redelivery of the head", |s| Box::pin(a_redelivered_head_is_due_now_and_one_that_waits_still_waits(s))),
    ("release and re-send in order", |s| Box::pin(a_release_and_a_resend_wait_for_their_turn(s))),
    ("reconcile in order", |s| Box::pin(parked_queues_come_back_in_order(s))),
    ("redelivery elsewhere in order", |s| Box::pin(a_delivery_made_anew_takes_the_order_key(s))),
];

async fn waits(store: &dyn EventStore, id: EventId) -> bool {
    let delivery = delivery(store, id).await;
    let waits = delivery.reason.as_deref() == Some("waits for its turn");
    if waits {
        assert_eq!((delivery.state, delivery.due_in), (State::Due, None));
    }
    waits
}

async fn is_due_now(store: &dyn EventStore, id: EventId) -> bool {
    let delivery = delivery(store, id).await;
    delivery.state == State::Due && delivery.due_in == Some(Duration::ZERO)
}

/// Three events of one order key: the first due, the others behind it.
async fn three(store: &dyn EventStore) -> [EventId; 3] {
    let mut ids = Vec::new();
    for n in 1..=3 {
        ids.push(put(store, ordered(n, "k")).await);
    }
    ids.try_into().unwrap()
}

async fn deliveries_of_a_key_go_one_after_another(store: &dyn EventStore) {
    let [first, second, third] = three(store).await;
    assert_eq!(delivery(store, first).await.order_key, OrderKey::new("k"));
    assert!(is_due_now(store, first).await && waits(store, second).await && waits(store, third).await);

    let head = take(store, "a").await;
    assert_eq!(head.event.head.id, first);
    assert_eq!(store.next_due("a").await, Ok(Some(LEASE)), "the lease of the head; who waits has no time");
    tokio::time::advance(LEASE / 2).await;
    store.woken("a").now_or_never();
    settle(store, &head, delivered()).await;
    assert!(store.woken("a").now_or_never().is_some());

    let next = delivery(store, second).await;
    assert_eq!((next.state, next.reason, next.due_in), (State::Due, None, Some(Duration::ZERO)));
    assert!(waits(store, third).await);
    let next = take(store, "a").await;
    assert_eq!((next.event.head.id, next.age, &*next.cause), (second, Duration::ZERO, "first"));
    settle(store, &next, delivered()).await;
    assert_eq!(deliver(store, "a", delivered()).await.event.head.id, third);
    assert_eq!(store.next_due("a").await, Ok(None));
}

async fn other_keys_sources_and_upstreams_wait_for_nobody(store: &dyn EventStore) {
    let first = put(store, NewEvent { upstreams: vec!["a".into(), "b".into()], ..ordered(1, "k") }).await;
    let other_key = put(store, ordered(2, "l")).await;
    let mut elsewhere = ordered(3, "k");
    elsewhere.head.source = "other".into();
    let other_source = put(store, elsewhere).await;
    let no_key = store_new(store, keys(4, 4, 4)).await;
    let behind = put(store, ordered(5, "k")).await;
    let taken = take_all(store).await;
    assert!(taken.iter().all(|leased| leased.ordered == (leased.event.head.id != no_key)));
    let mut taken = ids_of(&taken);
    taken.sort_unstable();
    let mut expected = [first, other_key, other_source, no_key];
    expected.sort_unstable();
    assert_eq!(taken, expected);
    // Of the first event, both deliveries: they are in queues of their own.
    assert_eq!(take(store, "b").await.event.head.id, first);
    assert!(waits(store, behind).await);
}

async fn a_delivery_born_leased_behind_another_waits(store: &dyn EventStore) {
    let leased = |n| NewEvent { begin: Begin::FirstLeased(LEASE), ..ordered(n, "k") };
    let Ok(Appended::New { lease: Some(lease), .. }) = store.append(leased(1)).await else { panic!("no lease") };
    let behind = leased(2);
    let id = behind.head.id;
    assert_eq!(store.append(behind).await, Ok(Appended::New { id, lease: None, duplicate_of: None }));
    assert!(waits(store, id).await);
    store.settle(lease, settled(1, delivered())).await.unwrap();
    assert_eq!(take(store, "a").await.event.head.id, id);
}

async fn a_retry_a_return_and_a_lapse_keep_the_turn(store: &dyn EventStore) {
    let [first, second, _] = three(store).await;
    deliver(store, "a", retry(HOUR)).await;
    assert!(waits(store, second).await);
    assert_eq!(store.next_due("a").await, Ok(Some(HOUR)));
    tokio::time::advance(HOUR).await;
    let head = take(store, "a").await;
    store.give_back(head.lease, Duration::ZERO).await.unwrap();
    assert_eq!(take(store, "a").await.event.head.id, first);
    lapse().await;
    let head = take(store, "a").await;
    assert_eq!((head.event.head.id, &*head.cause), (first, "lease lapsed"));
    assert!(waits(store, second).await);
}

async fn what_is_not_in_the_queue_blocks_nobody(store: &dyn EventStore) {
    let held = put(store, NewEvent { begin: Begin::Held(Hold::Stale), ..ordered(1, "k") }).await;
    let second = put(store, ordered(2, "k")).await;
    assert!(is_due_now(store, second).await, "behind one that is held");
    assert_eq!(deliver(store, "a", dead()).await.event.head.id, second);
    let third = put(store, ordered(3, "k")).await;
    assert!(is_due_now(store, third).await, "behind one that is dead");
    deliver(store, "a", delivered()).await;
    let fourth = put(store, ordered(4, "k")).await;
    assert!(is_due_now(store, fourth).await, "behind one that is delivered");
    assert_eq!(delivery(store, held).await.state, State::Held);
}

async fn a_head_that_is_dead_or_purged_lets_the_next_go(store: &dyn EventStore) {
    let [_, second, third] = three(store).await;
    deliver(store, "a", dead()).await;
    assert!(is_due_now(store, second).await && waits(store, third).await);
    store.woken("a").now_or_never();
    tokio::time::advance(HOUR).await;
    store.purge(second).await.unwrap();
    assert!(store.woken("a").now_or_never().is_some());
    let last = take(store, "a").await;
    assert_eq!((last.event.head.id, last.age), (third, Duration::ZERO));
}

async fn a_purge_of_one_that_waits_changes_no_turn(store: &dyn EventStore) {
    let [first, second, third] = three(store).await;
    store.purge(second).await.unwrap();
    assert!(is_due_now(store, first).await && waits(store, third).await);
    deliver(store, "a", delivered()).await;
    assert_eq!(take(store, "a").await.event.head.id, third);
}

async fn what_is_armed_waits_for_the_one_at_work(store: &dyn EventStore) {
    let [first, second, third] = three(store).await;
    deliver(store, "a", dead()).await;
    let at_work = take(store, "a").await;
    assert_eq!(store.redeliver(first, None).await, Ok(1));
    assert!(waits(store, first).await && waits(store, third).await);
    assert_eq!(at_work.event.head.id, second);
    settle(store, &at_work, delivered()).await;
    // Of those that wait the one accepted first is next.
    let again = take(store, "a").await;
    assert_eq!((again.event.head.id, &*again.cause, again.redelivery, again.tries), (first, "redelivery", true, 0));
    settle(store, &again, delivered()).await;
    assert_eq!(take(store, "a").await.event.head.id, third);
}

async fn a_redelivered_head_is_due_now_and_one_that_waits_still_waits(store: &dyn EventStore) {
    let [first, second, third] = three(store).await;
    deliver(store, "a", retry(HOUR)).await;
    assert_eq!(store.redeliver(second, Some("a")).await, Ok(1));
    assert!(waits(store, second).await && waits(store, third).await);
    assert_eq!(store.next_due("a").await, Ok(Some(HOUR)));
    assert_eq!(store.redeliver(first, Some("a")).await, Ok(1));
    assert!(is_due_now(store, first).await);
    deliver(store, "a", delivered()).await;
    let second = deliver(store, "a", delivered()).await;
    assert!(second.redelivery, "it was asked for while it waited");
    assert_eq!(deliver(store, "a", delivered()).await.event.head.id, third);
}

async fn a_release_and_a_resend_wait_for_their_turn(store: &dyn EventStore) {
    let letter = put(store, ordered(1, "k")).await;
    deliver(store, "a", dead()).await;
    let held = put(store, NewEvent { begin: Begin::Held(Hold::Stale), ..ordered(2, "k") }).await;
    let head = put(store, ordered(3, "k")).await;
    assert_eq!(store.release(held).await, Ok(1));
    assert_eq!(store.append(event(keys(9, 1, 1), &["a"])).await, Ok(known(letter, 1)));
    assert!(is_due_now(store, head).await && waits(store, held).await && waits(store, letter).await);
    deliver(store, "a", delivered()).await;
    let resent = deliver(store, "a", delivered()).await;
    assert_eq!((resent.event.head.id, &*resent.cause), (letter, "re-send"));
    let released = deliver(store, "a", delivered()).await;
    assert_eq!((released.event.head.id, &*released.cause), (held, "released"));
}

async fn parked_queues_come_back_in_order(store: &dyn EventStore) {
    let [first, second, third] = three(store).await;
    take(store, "a").await;
    let parked = store.reconcile(&["b".into()]).await.unwrap();
    assert_eq!(parked.into_iter().collect::<Vec<_>>(), [("a".into(), 3)], "at work and waiting ones alike");
    for id in [first, second, third] {
        let parked = delivery(store, id).await;
        assert_eq!((parked.state, parked.reason.as_deref()), (State::Parked, Some("upstream removed")));
    }
    assert_eq!(store.next_due("a").await, Ok(None));
    let fourth = put(store, ordered(4, "k")).await;
    assert_eq!(delivery(store, fourth).await.state, State::Parked, "behind nobody: the queue is empty");

    store.reconcile(&["a".into(), "b".into()]).await.unwrap();
    assert!(is_due_now(store, first).await && waits(store, second).await && waits(store, fourth).await);
    let mut order = Vec::new();
    for _ in 0..4 {
        order.push(deliver(store, "a", delivered()).await.event.head.id);
    }
    assert_eq!(order, [first, second, third, fourth]);
}

async fn a_delivery_made_anew_takes_the_order_key(store: &dyn EventStore) {
    let [first, second, _] = three(store).await;
    let no_key = store_new(store, keys(9, 9, 9)).await;
    for id in [second, first, no_key] {
        assert_eq!(store.redeliver(id, Some("b")).await, Ok(1));
    }
    let to_b = async |id| store.show(id).await.unwrap().deliveries.remove(1);
    let (made_first, made_second, unordered) = (to_b(second).await, to_b(first).await, to_b(no_key).await);
    assert_eq!((made_first.order_key, made_first.due_in), (OrderKey::new("k"), Some(Duration::ZERO)));
    assert_eq!((made_second.order_key, made_second.due_in), (OrderKey::new("k"), None));
    assert_eq!((unordered.order_key, unordered.due_in), (None, Some(Duration::ZERO)));
    let taken = store.lease("b", 10, LEASE).await.unwrap();
    assert_eq!(ids_of(&taken), [second, no_key]);
    settle(store, &taken[0], dead()).await;
    assert_eq!(take(store, "b").await.event.head.id, first);
}
