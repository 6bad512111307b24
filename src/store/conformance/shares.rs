//! What undelivered events and dead letters of one upstream may take.

use super::{super::judge::OVERHEAD_BYTES, prelude::*};
use crate::time::Clock;

/// The headers of [`event`], each name and value behind four bytes.
const HEADERS_BYTES: u64 = (4 + 3 + 4 + 2) + (4 + 3 + 4);

fn to(upstreams: &[&str], n: u32, body_bytes: u64) -> NewEvent {
    NewEvent { body: Body::free(vec![7; usize::try_from(body_bytes).unwrap()]), ..event(keys(n, n, n), upstreams) }
}

fn full(upstream: &str) -> Result<Appended, StoreError> {
    let why = format!("upstream `{upstream}` has used up its share of the disk (`store.disk_share_max`)");
    Err(StoreError::Full(why))
}

async fn open_bytes(store: &dyn EventStore, upstream: &str) -> u64 {
    store.stats().await.unwrap().open_bytes.get(upstream).copied().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_takes_nothing_uses_up_its_own_share_only() {
    for engine in ENGINES {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::starting_at(Wall::from_unix_s(EPOCH_S));
        let store = engine.open(directory.path(), 0.1, &clock);
        let store = &*store;
        let max = store.stats().await.unwrap().share_bytes_max;
        assert_eq!(max, (64 << 20) / 10);
        // Two of these fill it to the last byte.
        let (half, more) = (max / 2, OVERHEAD_BYTES + HEADERS_BYTES);
        let first = put(store, to(&["a"], 1, half - more)).await;
        assert_eq!(open_bytes(store, "a").await, half);
        assert_eq!(store.append(to(&["a"], 2, half - more + 1)).await, full("a"));
        let second = put(store, to(&["a", "b"], 2, half - more)).await;
        assert_eq!((open_bytes(store, "a").await, open_bytes(store, "b").await), (max, half));

        assert_eq!(store.append(to(&["a"], 3, 0)).await, full("a"));
        assert_eq!(store.append(to(&["b", "a"], 3, 0)).await, full("a"), "one of both is enough");
        let held = NewEvent { begin: Begin::Held(Hold::Stale), ..to(&["a"], 3, 0) };
        assert_eq!(store.append(held).await, full("a"));
        assert_eq!(store.health(), Ok(()), "others are taken as before");
        let stats = store.stats().await.unwrap();
        assert_eq!((stats.events, stats.keys), (2, 4), "nothing of what was refused is left");
        assert_eq!(store.append(to(&["a"], 1, half - more)).await, Ok(known(first, 0)), "a copy takes no room");
        put(store, to(&["b"], 4, 0)).await;
        put(store, to(&[], 5, 0)).await;

        // A dead letter is kept, and counts; what is delivered is history.
        let taken = take_all(store).await;
        assert_eq!(ids_of(&taken), [first, second]);
        settle(store, &taken[0], dead()).await;
        assert_eq!(store.append(to(&["a"], 3, 0)).await, full("a"));
        settle(store, &taken[1], delivered()).await;
        assert_eq!((open_bytes(store, "a").await, open_bytes(store, "b").await), (half, half + more));
        put(store, to(&["a"], 3, half - more)).await;
        store.purge(first).await.unwrap();
        assert_eq!(open_bytes(store, "a").await, half);

        // What is parked or sent again elsewhere counts there.
        store.reconcile(&["b".into(), "c".into()]).await.unwrap();
        assert_eq!(open_bytes(store, "a").await, half);
        assert_eq!(store.redeliver(second, Some("c")).await, Ok(1));
        assert_eq!(open_bytes(store, "c").await, half);
        store.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_did_not_verify_is_stored_only_while_little_is_undelivered() {
    for engine in ENGINES {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::starting_at(Wall::from_unix_s(EPOCH_S));
        let store = engine.open(directory.path(), 0.5, &clock);
        let store = &*store;
        let (max, more) = ((64 << 20) / 10, OVERHEAD_BYTES + HEADERS_BYTES);
        let unverified = |upstreams: &[&str], n, body_bytes| {
            let mut event = to(upstreams, n, body_bytes);
            (event.head.verified, event.keys) = (EventHead::unverified("stale"), Keys::none(&event.body));
            event
        };
        let refused =
            async |event| matches!(store.append(event).await, Err(StoreError::Full(why)) if why.contains("unverified"));
        let half = max / 2 - more;
        put(store, unverified(&["a"], 1, half)).await;
        assert!(
            refused(unverified(&["b", "c"], 2, half / 2 + more)).await,
            "all upstreams together, and each delivery"
        );
        put(store, unverified(&["b"], 2, half)).await;
        assert!(refused(unverified(&["c"], 3, 0)).await);
        let stats = store.stats().await.unwrap();
        assert_eq!((stats.events, stats.keys), (2, 0));
        // What verifies has the rest, and leaves none of it to what does not.
        put(store, to(&["c"], 4, half)).await;
        assert!(refused(unverified(&[], 5, 0)).await, "not even what no route wants");
        let taken = take_all(store).await;
        settle(store, &taken[0], delivered()).await;
        assert!(refused(unverified(&["c"], 3, half)).await, "whoever sent what is there");
        let taken = store.lease("b", 1, LEASE).await.unwrap();
        settle(store, &taken[0], delivered()).await;
        put(store, unverified(&["c"], 3, half)).await;
        store.close().await;
    }
}
