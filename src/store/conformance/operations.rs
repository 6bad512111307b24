//! What operators do to many events, and what is remembered for them.

use super::prelude::*;

pub(super) const CASES: Cases = &[
    ("an act", |s| Box::pin(an_act_counts_what_it_changed(s))),
    ("every act", |s| Box::pin(every_act_does_what_its_method_does(s))),
    ("an act on one state", |s| Box::pin(a_redelivery_of_one_state_leaves_the_others(s))),
    ("operations", |s| Box::pin(operations_are_kept_newest_first(s))),
    ("operations that are over", |s| Box::pin(of_operations_that_do_not_run_the_latest_hundred_are_kept(s))),
    ("pauses", |s| Box::pin(pauses_are_remembered(s))),
    ("keys of an event", |s| Box::pin(an_event_shows_the_keys_that_still_live(s))),
];

fn operation(n: u8, state: OperationState) -> Operation {
    Operation {
        id: EventId::from_bytes([n; 16]),
        spec: "{\"action\":\"redeliver\"}".to_owned(),
        state,
        reason: None,
        cursor: None,
        total: 9,
        done: 0,
        skipped: 0,
        created_at: Wall::from_unix_ns(1_700_000_000_123_456_789),
        changed_at: Wall::from_unix_ns(1_700_000_001_123_456_789),
    }
}

async fn an_act_counts_what_it_changed(store: &dyn EventStore) {
    let done = store_new(store, keys(1, 1, 1)).await;
    deliver(store, "a", delivered()).await;
    let gone = put(store, NewEvent { keep_body: false, ..event(keys(2, 2, 2), &["a"]) }).await;
    deliver(store, "a", delivered()).await;
    let at_work = store_new(store, keys(3, 3, 3)).await;
    take(store, "a").await;
    let unknown = EventId::from_bytes([9; 16]);

    let before = Operation {
        done: 10,
        skipped: 20,
        cursor: Some(unknown),
        reason: Some("so far".to_owned()),
        ..operation(1, OperationState::Running)
    };
    let ids = vec![done, gone, at_work, unknown];
    let after = store.act(Act::Redeliver { to: None, state: None }, ids, before.clone()).await.unwrap();
    assert_eq!(after, Operation { done: 11, skipped: 23, ..before });
    assert_eq!(store.operations().await, Ok(vec![after.clone()]), "saved with it");
    let again = take(store, "a").await;
    assert_eq!((again.event.head.id, &*again.cause), (done, "redelivery"));

    let stopped = Operation { state: OperationState::Stopped, ..after.clone() };
    store.save_operation(stopped).await.unwrap();
    let nothing = store.act(Act::Release, Vec::new(), after.clone()).await.unwrap();
    assert_eq!((&nothing, store.operations().await.unwrap()), (&after, vec![after.clone()]), "what it was given");
}

async fn every_act_does_what_its_method_does(store: &dyn EventStore) {
    let elsewhere = store_new(store, keys(1, 1, 1)).await;
    let held = put(store, NewEvent { begin: Begin::Held(Hold::Stale), ..event(keys(2, 2, 2), &["a"]) }).await;
    let act = async |act, id| {
        let acted = store.act(act, vec![id], operation(1, OperationState::Running)).await.unwrap();
        (acted.done, acted.skipped)
    };
    assert_eq!(act(Act::Redeliver { to: Some("b".into()), state: None }, elsewhere).await, (1, 0));
    assert_eq!(take(store, "b").await.event.head.id, elsewhere);
    assert_eq!(act(Act::Purge, elsewhere).await, (0, 1), "a worker has it");
    assert_eq!(act(Act::Release, elsewhere).await, (0, 1), "nothing of it is held");
    store.woken("a").now_or_never();
    assert_eq!(act(Act::Release, held).await, (1, 0));
    assert!(store.woken("a").now_or_never().is_some());
    assert_eq!(delivery(store, held).await.state, State::Due);
    assert_eq!(act(Act::Forget, held).await, (1, 0));
    assert!(store.show(held).await.unwrap().keys.is_empty());
    assert_eq!(act(Act::Purge, held).await, (1, 0));
    assert!(matches!(store.show(held).await, Err(StoreError::NotFound)));
}

async fn a_redelivery_of_one_state_leaves_the_others(store: &dyn EventStore) {
    let id = put(store, event(keys(1, 1, 1), &["a", "b"])).await;
    deliver(store, "a", delivered()).await;
    let dead = Outcome::Dead { reason: "status 410".to_owned() };
    deliver(store, "b", dead).await;
    let act = async |to: Option<&str>, state| {
        let act = Act::Redeliver { to: to.map(Name::from), state: Some(state) };
        store.act(act, vec![id], operation(1, OperationState::Running)).await.unwrap().done
    };
    assert_eq!(act(None, State::Held).await, 0);
    assert_eq!(act(Some("a"), State::Dead).await, 0, "it was delivered there");
    assert_eq!(act(Some("c"), State::Dead).await, 0, "it never went there");
    assert_eq!(act(None, State::Dead).await, 1);
    assert_eq!(store.next_due("a").await, Ok(None));
    assert_eq!(take(store, "b").await.event.head.id, id);
}

async fn operations_are_kept_newest_first(store: &dyn EventStore) {
    assert_eq!(store.operations().await, Ok(Vec::new()));
    for (n, state) in [(2, OperationState::Running), (3, OperationState::Failed), (1, OperationState::Stopped)] {
        store.save_operation(operation(n, state)).await.unwrap();
    }
    let over = Operation {
        cursor: Some(EventId::from_bytes([7; 16])),
        reason: Some("as asked".to_owned()),
        done: 5,
        skipped: 4,
        ..operation(2, OperationState::Finished)
    };
    store.save_operation(over.clone()).await.unwrap();
    let expected = [operation(3, OperationState::Failed), over, operation(1, OperationState::Stopped)];
    assert_eq!(store.operations().await.unwrap(), expected);
}

async fn of_operations_that_do_not_run_the_latest_hundred_are_kept(store: &dyn EventStore) {
    use OperationState::{Failed, Finished, Running, Stopped};
    store.save_operation(operation(1, Running)).await.unwrap();
    for n in 2..112 {
        store.save_operation(operation(n, [Finished, Stopped, Failed][usize::from(n) % 3])).await.unwrap();
    }
    let kept =
        async || -> Vec<u8> { store.operations().await.unwrap().iter().map(|one| one.id.as_bytes()[0]).collect() };
    assert_eq!(kept().await, (12..112).rev().chain([1]).collect::<Vec<u8>>());
    // However old it is: whoever watches it looks once more.
    store.save_operation(operation(1, Stopped)).await.unwrap();
    assert_eq!(kept().await, (13..112).rev().chain([1]).collect::<Vec<u8>>());
}

async fn pauses_are_remembered(store: &dyn EventStore) {
    let pause = |by: &str| Pause { since: Wall::from_unix_ns(1_700_000_000_123_456_789), by: by.to_owned() };
    assert_eq!(store.paused().await, Ok(BTreeMap::new()));
    store.set_paused("a", Some(pause("anna"))).await.unwrap();
    store.set_paused("b", Some(pause("ben"))).await.unwrap();
    store.set_paused("a", Some(pause("cleo"))).await.unwrap();
    store.set_paused("b", None).await.unwrap();
    store.set_paused("never", None).await.unwrap();
    assert_eq!(store.paused().await, Ok([("a".into(), pause("cleo"))].into()));
    store_new(store, keys(1, 1, 1)).await;
    take(store, "a").await;
    assert_eq!(store.restored_at(), None, "a new store comes out of no backup");
}

async fn an_event_shows_the_keys_that_still_live(store: &dyn EventStore) {
    let id = store_new(store, keys(5, 4, 1)).await;
    tokio::time::advance(HOUR / 2).await;
    store.append(event(keys(3, 4, 1), &["a"])).await.unwrap();
    let Keys { replay: Some(first), event: Some(logical), .. } = keys(5, 4, 1) else { unreachable!() };
    let Keys { replay: Some(second), .. } = keys(3, 4, 1) else { unreachable!() };
    let shown = async || store.show(id).await.unwrap().keys;
    // A copy gives the event key its whole life again; the list is in the order of the keys' bytes.
    assert_eq!(shown().await, [(second.key, HOUR), (logical.key, DAY * 3), (first.key, HOUR / 2)]);
    tokio::time::advance(HOUR / 2).await;
    assert_eq!(shown().await, [(second.key, HOUR / 2), (logical.key, HOUR * 143 / 2)], "one expired");
    store.forget(id).await.unwrap();
    assert_eq!(shown().await, []);
}
