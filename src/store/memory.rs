//! The engine that forgets with the process: for `proxy`, where only keys are stored, and for trying things out.
//!
//! One lock, no I/O, every future ready at once. Bounded in keys (`keys_max`), in bytes of events and answers
//! (`bytes_max`) and in items.

mod inner;
mod keys;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;

use super::{
    Appended, Direction, EventStore, Filter, Known, Lease, Leased, Page, Settled, Shown, Stats, StoreError, Swept,
    elapsed::{Elapsed, after, between},
    wakers::Wakers,
};
use crate::{
    config::model::OnFull,
    event::{Answer, EventId, Item, Name, NewEvent, State},
    time::Clock,
    verify::Keys,
};
use inner::Inner;

/// How to make a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Keys that may live at a time.
    pub keys_max: usize,
    /// What happens when they are there.
    pub on_full: OnFull,
    /// Events and kept answers, in bytes.
    pub bytes_max: u64,
    /// The clocks.
    pub clock: Clock,
}

/// The store in memory.
pub struct MemoryStore {
    elapsed: Elapsed,
    wakers: Wakers,
    closed: AtomicBool,
    inner: Mutex<Inner>,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new(options: &Options) -> Arc<Self> {
        Arc::new(Self {
            elapsed: Elapsed::resume(options.clock.clone(), None),
            wakers: Wakers::default(),
            closed: AtomicBool::new(false),
            inner: Mutex::new(Inner::new(options)),
        })
    }

    /// Live keys that were forgotten to make room (`replay.on_full = "evict"`).
    pub fn evicted(&self) -> u64 {
        self.lock().keys.evicted()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something under the lock, then wakes whom it concerns.
    fn with<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Inner, i64) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.health()?;
        let now_ms = self.elapsed.now_ms();
        let (result, wake) = {
            let mut inner = self.lock();
            let result = run(&mut inner, now_ms);
            (result, std::mem::take(&mut inner.wake))
        };
        for upstream in wake {
            self.wakers.wake(&upstream);
        }
        result
    }
}

/// A future that is ready when it is polled: nothing happens before.
fn ready<'a, T: 'a>(run: impl FnOnce() -> T + Send + 'a) -> BoxFuture<'a, T> {
    Box::pin(async move { run() })
}

impl EventStore for MemoryStore {
    fn append(&self, event: NewEvent) -> BoxFuture<'_, Result<Appended, StoreError>> {
        ready(|| self.with(|inner, now_ms| inner.append(now_ms, event)))
    }

    fn lookup(&self, keys: Keys) -> BoxFuture<'_, Result<Known, StoreError>> {
        ready(move || self.with(|inner, now_ms| Ok(inner.lookup(now_ms, &keys))))
    }

    fn record(
        &self,
        id: EventId,
        source: &Name,
        keys: Keys,
        answer: Option<(Answer, Duration)>,
        _fsync: bool,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let source = Name::clone(source);
        ready(move || {
            self.with(|inner, now_ms| {
                inner.make_room(now_ms, &keys, 0)?;
                inner.keys.remember(id, &source, &keys, now_ms);
                if let Some((answer, kept)) = answer {
                    inner.keep_answer(now_ms, id, answer, kept);
                }
                Ok(())
            })
        })
    }

    fn count_copy(&self, first: EventId) {
        self.lock().count_copy(first);
    }

    fn lease(&self, upstream: &str, max: usize, length: Duration) -> BoxFuture<'_, Result<Vec<Leased>, StoreError>> {
        let upstream = upstream.to_owned();
        ready(move || self.with(|inner, now_ms| Ok(inner.lease(now_ms, &upstream, max, length))))
    }

    fn next_due(&self, upstream: &str) -> BoxFuture<'_, Result<Option<Duration>, StoreError>> {
        let upstream = upstream.to_owned();
        ready(move || {
            self.with(|inner, now_ms| {
                let first = inner.due.get(&*upstream).and_then(BTreeSet::first);
                Ok(first.map(|(at, _)| between(now_ms, *at)))
            })
        })
    }

    fn settle(&self, lease: Lease, settled: Settled) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(move || self.with(|inner, now_ms| inner.settle(now_ms, lease, settled)))
    }

    fn give_back(&self, lease: Lease, delay: Duration) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(move || {
            self.with(|inner, now_ms| {
                inner.current(lease)?;
                let upstream = inner.change(lease.delivery, |placed| {
                    (placed.state, placed.due_at) = (State::Due, after(now_ms, delay));
                    Name::clone(&placed.upstream)
                });
                inner.wake.push(upstream);
                Ok(())
            })
        })
    }

    fn release(&self, id: EventId) -> BoxFuture<'_, Result<u32, StoreError>> {
        ready(move || self.with(|inner, now_ms| inner.release(now_ms, id)))
    }

    fn redeliver(&self, id: EventId, upstream: Option<&str>) -> BoxFuture<'_, Result<u32, StoreError>> {
        let upstream = upstream.map(str::to_owned);
        ready(move || self.with(|inner, now_ms| inner.redeliver(now_ms, id, upstream.as_deref())))
    }

    fn forget(&self, id: EventId) -> BoxFuture<'_, Result<u64, StoreError>> {
        ready(move || self.with(|inner, now_ms| inner.forget(now_ms, id)))
    }

    fn purge(&self, id: EventId) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(move || self.with(|inner, _| inner.purge(id)))
    }

    fn reconcile(&self, upstreams: &[Name]) -> BoxFuture<'_, Result<BTreeMap<Name, u64>, StoreError>> {
        let upstreams = upstreams.to_vec();
        ready(move || self.with(|inner, now_ms| Ok(inner.reconcile(now_ms, &upstreams))))
    }

    fn list(&self, filter: Filter, _: Direction, limit: usize) -> BoxFuture<'_, Result<Page, StoreError>> {
        ready(move || self.with(|inner, now_ms| Ok(inner.list(now_ms, &filter, limit))))
    }

    fn show(&self, id: EventId) -> BoxFuture<'_, Result<Shown, StoreError>> {
        ready(move || {
            self.with(|inner, now_ms| {
                let stored = inner.events.get(&id).ok_or(StoreError::NotFound)?;
                let deliveries = inner.deliveries_shown(now_ms, stored, true);
                Ok(Shown { event: stored.event.clone(), body_removed: false, keys: Vec::new(), deliveries })
            })
        })
    }

    fn acknowledged_items(
        &self,
        upstream: &str,
        items: Vec<Item>,
    ) -> BoxFuture<'_, Result<Vec<Option<[u8; 32]>>, StoreError>> {
        let upstream = Name::from(upstream);
        ready(move || {
            self.with(|inner, now_ms| {
                let known = |item: &Item| {
                    let (content, expires_at) = inner.items.get(&(Name::clone(&upstream), item.key))?;
                    (*expires_at > now_ms).then_some(*content)
                };
                Ok(items.iter().map(known).collect())
            })
        })
    }

    fn sweep(&self, retention: Duration) -> BoxFuture<'_, Result<Swept, StoreError>> {
        ready(move || self.with(|inner, now_ms| Ok(inner.sweep(now_ms, retention))))
    }

    fn stats(&self) -> BoxFuture<'_, Result<Stats, StoreError>> {
        ready(|| self.with(|inner, now_ms| Ok(inner.stats(now_ms))))
    }

    fn health(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Unavailable("it is closed".to_owned()));
        }
        Ok(())
    }

    fn woken(&self, upstream: &str) -> BoxFuture<'static, ()> {
        self.wakers.woken(upstream)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        ready(|| self.closed.store(true, Ordering::Release))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::conformance::{self, delivered, event, keys, settled},
        inner::OVERHEAD_BYTES,
        *,
    };
    use crate::time::Wall;

    fn store(keys_max: usize, on_full: OnFull, bytes_max: u64) -> Arc<MemoryStore> {
        let clock = Clock::starting_at(Wall::from_unix_s(conformance::EPOCH_S));
        MemoryStore::new(&Options { keys_max, on_full, bytes_max, clock })
    }

    #[tokio::test(start_paused = true)]
    async fn it_keeps_the_contract() {
        conformance::all(|| store(1000, OnFull::Refuse, 1 << 20)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn live_keys_are_refused_room_rather_than_forgotten() {
        let store = store(2, OnFull::Refuse, 1 << 20);
        assert!(store.append(event(keys(1, 1, 1), &["a"])).await.is_ok());
        let refused = event(keys(2, 2, 2), &["a"]);
        assert!(matches!(store.append(refused.clone()).await, Err(StoreError::Full(_))));
        assert_eq!(store.stats().await.unwrap().events, 1, "nothing of it is left");
        assert!(matches!(store.append(event(keys(1, 1, 1), &["a"])).await, Ok(Appended::Known { .. })));
        tokio::time::advance(Duration::from_hours(72)).await;
        assert!(store.append(refused).await.is_ok(), "the others have expired");
    }

    #[tokio::test(start_paused = true)]
    async fn evicted_keys_are_counted() {
        let store = store(2, OnFull::Evict, 1 << 20);
        for n in 0..3 {
            assert!(matches!(store.append(event(keys(n, n, n), &["a"])).await, Ok(Appended::New { .. })));
        }
        assert_eq!((store.evicted(), store.stats().await.unwrap().keys), (4, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn history_gives_way_and_undelivered_events_do_not() {
        let store = store(1000, OnFull::Refuse, 3 * OVERHEAD_BYTES);
        for n in 0..2 {
            store.append(event(keys(n, n, n), &["a"])).await.unwrap();
        }
        assert!(matches!(store.append(event(keys(2, 2, 2), &["a"])).await, Err(StoreError::Full(_))));
        let leased = store.lease("a", 1, Duration::from_secs(1)).await.unwrap();
        store.settle(leased[0].lease, settled(1, delivered())).await.unwrap();
        assert!(store.append(event(keys(2, 2, 2), &["a"])).await.is_ok());
        assert!(matches!(store.show(leased[0].event.head.id).await, Err(StoreError::NotFound)));
    }
}
