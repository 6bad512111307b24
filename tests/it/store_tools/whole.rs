//! Whatever a store goes through, `hookward store verify` finds it whole: what it complains of is damage.

use std::{collections::BTreeMap, path::Path, time::Duration};

use bytes::Bytes;
use hookward::{
    config::model::EncryptionKey,
    event::{Answer, Begin, Body, EventId, Hold, Item, Name, NewEvent},
    secret::Secret,
    store::{
        Act, Appended, EventStore as _, Operation, OperationState, Outcome, Pause, Settled,
        sqlite::{
            Options, SqliteStore,
            tools::{self, BackUp, Restore},
        },
    },
    time::{Clock, Wall},
    verify::Key,
};

use super::sample::{UPSTREAMS, directory, event, fill, options, settled};
use crate::world::NOW_S;

const HOUR: Duration = Duration::from_hours(1);

#[track_caller]
fn assert_whole(place: &Path, after: &str) {
    let report = tools::verify(place, &mut |_, _| {}).expect("it can be read");
    assert!(report.is_whole(), "after {after}: {:#?}", report.damage);
}

fn encrypted(directory: &Path) -> Options {
    let key = EncryptionKey { id: "k1".into(), key: Secret::new(vec![7; 32]) };
    Options { encryption: vec![key], ..options(directory) }
}

async fn append(store: &SqliteStore, event: NewEvent) -> EventId {
    match store.append(event).await.expect("stored") {
        Appended::New { id, .. } | Appended::Conflict { id: Some(id), .. } | Appended::Known { first: id, .. } => id,
        Appended::Conflict { .. } => panic!("it is to be held"),
    }
}

/// Leases what is due and settles each with the next of these outcomes.
async fn work(store: &SqliteStore, upstream: &str, outcomes: &[Settled]) {
    let leased = store.lease(upstream, outcomes.len(), HOUR).await.expect("leased");
    for (leased, settled) in leased.into_iter().zip(outcomes) {
        store.settle(leased.lease, settled.clone()).await.expect("settled");
    }
}

#[tokio::test(start_paused = true)]
async fn every_operation_of_a_store_leaves_it_whole() {
    for encrypt in [false, true] {
        let data = directory();
        let options = if encrypt { encrypted(data.path()) } else { options(data.path()) };
        let store = SqliteStore::open(&options).expect("opened");
        fill(&store, 30).await;
        assert_whole(data.path(), "events in every state");

        let unrouted = append(&store, NewEvent { upstreams: Vec::new(), ..event(40) }).await;
        let leased = NewEvent { begin: Begin::FirstLeased(HOUR), ..event(41) };
        append(&store, leased).await;
        append(&store, event(41)).await;
        let held = append(&store, NewEvent { begin: Begin::Held(Hold::Stale), ..event(42) }).await;
        let mut other_body = NewEvent { body: Body::free(b"{}".to_vec()), ..event(43) };
        append(&store, event(43)).await;
        other_body.keys.body[1] = 1;
        append(&store, other_body).await;
        assert_whole(data.path(), "unrouted ones, copies and conflicts");

        let item = Item { key: Key([9; 32]), content: [8; 32] };
        let answer = Answer { status: 200, content_type: None, body: Bytes::from_static(b"an answer") };
        let delivered =
            Settled { answer: Some((answer.clone(), HOUR)), ..settled(Outcome::Delivered { items: vec![item] }) };
        let retry = Settled { uncertain: true, ..settled(Outcome::Retry { after: Duration::ZERO }) };
        work(&store, "orders", &[delivered.clone(), retry.clone(), settled(Outcome::Dead { reason: "x".into() })])
            .await;
        // More attempts than are kept.
        for _ in 0..55 {
            work(&store, "audit", std::slice::from_ref(&retry)).await;
        }
        assert_whole(data.path(), "attempts");

        assert_eq!(store.release(held).await, Ok(1));
        assert_eq!(store.redeliver(unrouted, Some("audit")).await, Ok(1));
        store.forget(held).await.expect("forgotten");
        let keys = event(60).keys;
        store
            .record(EventId::new(Wall::from_unix_s(NOW_S)), &"shop".into(), keys, Some((answer, HOUR)), true)
            .await
            .expect("recorded");
        let names = UPSTREAMS.map(Name::from);
        store.reconcile(&names[..1]).await.expect("parked");
        assert_whole(data.path(), "an upstream was removed");
        store.reconcile(&names).await.expect("armed");
        assert_whole(data.path(), "it came back");

        store.set_paused("audit", Some(Pause { since: Wall::from_unix_s(1), by: "me".into() })).await.expect("paused");
        let now = Wall::from_unix_s(NOW_S);
        let operation = Operation {
            id: EventId::new(now),
            spec: "{}".to_owned(),
            state: OperationState::Running,
            reason: None,
            cursor: None,
            total: 2,
            done: 0,
            skipped: 0,
            created_at: now,
            changed_at: now,
        };
        store.save_operation(operation.clone()).await.expect("saved");
        let ids = vec![held, unrouted];
        store.act(Act::Redeliver { to: None, state: None }, ids.clone(), operation.clone()).await.expect("done");
        assert_whole(data.path(), "an operation");
        while work_all(&store).await > 0 {}
        assert_whole(data.path(), "everything was delivered");
        store.act(Act::Purge, ids, operation).await.expect("done");
        assert_whole(data.path(), "a purge");
        tokio::time::advance(HOUR * 24 * 40).await;
        for _ in 0..3 {
            store.sweep(HOUR).await.expect("swept");
        }
        assert_whole(data.path(), "a sweep");
        append(&store, event(50)).await;
        store.close().await;
        assert_whole(data.path(), "it was closed");

        let backup = data.path().join("backup.db");
        let back_up = BackUp {
            from: data.path().to_owned(),
            to: backup.clone(),
            overwrite: false,
            verify: true,
            clock: Clock::system(),
        };
        let done = back_up.run(&mut |_, _| {}).expect("backed up");
        assert_eq!(done.keys, if encrypt { vec!["k1".to_owned()] } else { Vec::new() });
        let restored = directory();
        let restore =
            Restore { from: backup, directory: restored.path().to_owned(), replace: false, accept_damage: false, now };
        assert!(restore.run(&mut |_, _| {}).expect("restored").held > 0);
        assert_whole(restored.path(), "it was restored");
        let again = SqliteStore::open(&Options { directory: restored.path().to_owned(), ..options }).expect("opened");
        assert_eq!(again.restored_at(), Some(now));
        assert_eq!(again.stats().await.expect("counted").events, done.events);
        again.close().await;
        assert_whole(restored.path(), "the restored one was opened");
    }
}

async fn work_all(store: &SqliteStore) -> usize {
    let mut all = BTreeMap::new();
    for upstream in UPSTREAMS {
        for leased in store.lease(upstream, 50, HOUR).await.expect("leased") {
            all.insert(leased.lease.delivery, leased.lease);
        }
    }
    for lease in all.values() {
        store.settle(*lease, settled(Outcome::Delivered { items: Vec::new() })).await.expect("settled");
    }
    all.len()
}
