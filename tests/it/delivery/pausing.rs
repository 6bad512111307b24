//! An operator pauses an upstream and lets it go on.

use hookward::{
    config::model::Durability,
    store::{EventStore as _, Pause, StoreError, sqlite},
};

use super::*;

fn pause() -> Pause {
    Pause { since: Wall::from_unix_s(1_700_000_000), by: "ops".to_owned() }
}

fn is_paused(world: &World) -> bool {
    let shown = world.metrics.expose().contains(r#"hookward_upstream_paused{upstream="up"} 1"#);
    assert_eq!(world.lanes.status()[0].paused.is_some(), shown);
    shown
}

#[tokio::test]
async fn a_pause_finishes_what_runs_burns_no_attempt_and_ends_when_told() {
    let gate = Arc::new(Semaphore::new(0));
    let script = gate.clone();
    let mut up = Scripted::start(move |_| Act::Wait(script.clone())).await;
    let mut world = World::new(touchy(up.address));
    world.add(1, b"{}");
    world.add(2, b"{}");
    up.next().await;
    assert_eq!(world.lanes.set_paused("up", Some(pause())).await, Ok(true));
    assert!(is_paused(&world));
    gate.add_permits(1);
    assert_eq!(world.settled().await.0, id(1), "what runs is finished");
    advance(HOUR).await;
    settle_down().await;
    assert!(up.requests.is_empty());
    assert_eq!((world.store.count(State::Due), world.store.count(State::Leased)), (1, 0));
    assert!(world.lanes.try_slot("up", id(99)).is_none() && world.lanes.slot("up", id(99)).await.is_none());

    assert_eq!(world.lanes.set_paused("up", None).await, Ok(true));
    assert!(!is_paused(&world));
    assert_eq!(up.next().await.header("hookward-attempt"), Some("1"));
    gate.add_permits(1);
    assert_eq!(world.settled().await.0, id(2));
    assert_eq!(world.lanes.set_paused("nowhere", Some(pause())).await, Ok(false));
}

#[tokio::test]
async fn what_was_paused_when_the_process_ended_is_paused_when_it_starts() {
    let mut up = Scripted::listing([]).await;
    let (store, settled) = FakeStore::new();
    store.pauses().insert("up".into(), pause());
    let world = World::start([upstream(up.address)], SourceRule::default(), store, settled);
    world.add(1, b"{}");
    advance(HOUR).await;
    settle_down().await;
    assert!(is_paused(&world) && up.requests.is_empty());
    assert_eq!(world.lanes.status()[0].paused, Some(pause()));
    assert_eq!(world.lanes.set_paused("up", None).await, Ok(true));
    up.next().await;
    assert!(world.store.pauses().is_empty());
}

#[tokio::test]
async fn a_pause_that_cannot_be_stored_changes_nothing() {
    let mut up = Scripted::listing([]).await;
    let world = World::new(upstream(up.address));
    world.store.faults().pauses_fail = 1;
    let refused = world.lanes.set_paused("up", Some(pause())).await;
    assert_eq!(refused, Err(StoreError::Unavailable("scripted".to_owned())));
    assert!(!is_paused(&world));
    world.add(1, b"{}");
    up.next().await;
}

#[tokio::test]
async fn a_caller_that_leaves_half_way_leaves_no_half_a_pause() {
    let up = Scripted::listing([]).await;
    let world = World::new(upstream(up.address));
    {
        let leaving = world.lanes.set_paused("up", Some(pause()));
        tokio::pin!(leaving);
        let _ = futures_util::poll!(&mut leaving);
    }
    settle_down().await;
    assert_eq!((world.store.pauses().len(), is_paused(&world)), (1, true));
}

#[tokio::test]
async fn a_pause_is_kept_on_disk() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let up = Scripted::listing([]).await;
    let start = async || {
        let options = sqlite::Options {
            directory: directory.path().to_owned(),
            durability: Durability::Fsync,
            disk_bytes_max: 64 << 20,
            disk_share_max: 0.5,
            encryption: vec![],
            clock: Clock::system(),
        };
        let store = sqlite::SqliteStore::open(&options).expect("it opens");
        let parts = Parts {
            store: store.clone(),
            metrics: Arc::new(Metrics::default()),
            clock: Clock::system(),
            sources: BTreeMap::new(),
        };
        let upstreams = BTreeMap::from([("up".into(), Arc::new(upstream(up.address)))]);
        (store, Lanes::start(&upstreams, parts).await.expect("lanes"))
    };
    for (before, after) in [(None, Some(pause())), (Some(pause()), None), (None, None)] {
        let (store, lanes) = start().await;
        assert_eq!(lanes.status()[0].paused, before);
        assert_eq!(lanes.try_slot("up", id(1)).is_some(), before.is_none());
        assert_eq!(lanes.set_paused("up", after).await, Ok(true));
        assert!(lanes.drain(10 * SECOND).await);
        store.close().await;
    }
}
