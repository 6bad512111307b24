//! What comes in: new events, copies, conflicts, re-sends, keys.

use super::prelude::*;

pub(super) const CASES: Cases = &[
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
];

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
