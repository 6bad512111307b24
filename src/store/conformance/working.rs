//! What becomes of it: leases, attempts, redelivery, retention, numbers.

use super::prelude::*;

pub(super) const CASES: Cases = &[
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
