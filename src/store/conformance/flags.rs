//! What a worker is told of a delivery's past.

use super::prelude::*;

pub(super) const CASES: Cases = &[
    ("tries", |s| Box::pin(tries_count_from_the_arming(s))),
    ("the redelivery flag", |s| Box::pin(a_redelivery_stays_one_through_its_retries(s))),
    ("an unknown outcome", |s| Box::pin(an_unknown_outcome_is_told_until_it_is_delivered(s))),
    ("a lapsed lease", |s| Box::pin(whoever_lost_a_lease_may_have_delivered(s))),
];

/// The numbers of the attempt now to be made: all that were made and it, and those since the arming.
fn numbers(leased: &Leased) -> (u32, u32) {
    (leased.attempt, leased.tries)
}

async fn tries_count_from_the_arming(store: &dyn EventStore) {
    let id = store_new(store, keys(1, 1, 1)).await;
    for made in 0..3 {
        let leased = deliver(store, "a", retry(Duration::ZERO)).await;
        assert_eq!(numbers(&leased), (made + 1, made));
    }
    let given_back = take(store, "a").await;
    store.give_back(given_back.lease, Duration::ZERO).await.unwrap();
    assert_eq!(numbers(&deliver(store, "a", dead()).await), (4, 3), "a return is no attempt");
    store.redeliver(id, None).await.unwrap();
    assert_eq!(numbers(&deliver(store, "a", dead()).await), (5, 0));
    store.append(event(keys(2, 1, 1), &["a"])).await.unwrap();
    assert_eq!(numbers(&deliver(store, "a", retry(Duration::ZERO)).await), (6, 0), "a re-send arms");
    assert_eq!(numbers(&deliver(store, "a", retry(Duration::ZERO)).await), (7, 1));
    store.reconcile(&[]).await.unwrap();
    store.reconcile(&["a".into()]).await.unwrap();
    assert_eq!(numbers(&take(store, "a").await), (8, 0), "and so does an upstream that is back");
    assert_eq!(delivery(store, id).await.attempts, 7);
}

async fn a_redelivery_stays_one_through_its_retries(store: &dyn EventStore) {
    let id = store_new(store, keys(1, 1, 1)).await;
    assert!(!deliver(store, "a", dead()).await.redelivery);
    store.redeliver(id, None).await.unwrap();
    assert!(deliver(store, "a", retry(Duration::ZERO)).await.redelivery);
    let retried = deliver(store, "a", retry(Duration::ZERO)).await;
    assert_eq!((retried.redelivery, &*retried.cause), (true, "retry"));
    store.reconcile(&[]).await.unwrap();
    store.reconcile(&["a".into()]).await.unwrap();
    assert!(deliver(store, "a", dead()).await.redelivery, "parked in between");
    store.append(event(keys(2, 1, 1), &["a"])).await.unwrap();
    let resent = deliver(store, "a", retry(Duration::ZERO)).await;
    assert_eq!((resent.redelivery, &*resent.cause), (false, "re-send"), "the provider's doing");
    assert!(!take(store, "a").await.redelivery);
}

async fn an_unknown_outcome_is_told_until_it_is_delivered(store: &dyn EventStore) {
    let id = store_new(store, keys(1, 1, 1)).await;
    let unknown = |number, outcome| Settled { uncertain: true, ..settled(number, outcome) };
    let first = take(store, "a").await;
    assert!(!first.uncertain);
    store.settle(first.lease, unknown(1, retry(Duration::ZERO))).await.unwrap();
    assert!(deliver(store, "a", retry(Duration::ZERO)).await.uncertain);
    assert!(deliver(store, "a", dead()).await.uncertain, "a definite failure of a later attempt changes nothing");
    store.redeliver(id, None).await.unwrap();
    assert!(deliver(store, "a", delivered()).await.uncertain, "nor does a redelivery");
    store.redeliver(id, None).await.unwrap();
    let known = take(store, "a").await;
    assert!(!known.uncertain, "it was delivered since");
    store.settle(known.lease, unknown(5, dead())).await.unwrap();
    store.redeliver(id, None).await.unwrap();
    let again = take(store, "a").await;
    assert!(again.uncertain, "a dead letter may have arrived as well");
    store.settle(again.lease, unknown(6, delivered())).await.unwrap();
    store.redeliver(id, None).await.unwrap();
    assert!(!take(store, "a").await.uncertain, "what is delivered is certain, whoever says otherwise");
}

async fn whoever_lost_a_lease_may_have_delivered(store: &dyn EventStore) {
    store_new(store, keys(1, 1, 1)).await;
    let returned = take(store, "a").await;
    store.give_back(returned.lease, Duration::ZERO).await.unwrap();
    assert!(!take(store, "a").await.uncertain, "a return is known not to have been sent");
    lapse().await;
    let lapsed = take(store, "a").await;
    assert_eq!((lapsed.uncertain, &*lapsed.cause), (true, "lease lapsed"));
    settle(store, &lapsed, delivered()).await;

    store_new(store, keys(2, 2, 2)).await;
    take(store, "a").await;
    store.reconcile(&[]).await.unwrap();
    store.reconcile(&["a".into()]).await.unwrap();
    let parked_at_work = take(store, "a").await;
    assert_eq!((parked_at_work.uncertain, &*parked_at_work.cause), (true, "lease lapsed"));
    settle(store, &parked_at_work, delivered()).await;
    store_new(store, keys(3, 3, 3)).await;
    store.reconcile(&[]).await.unwrap();
    store.reconcile(&["a".into()]).await.unwrap();
    assert!(!take(store, "a").await.uncertain, "parked before anybody took it");
}
