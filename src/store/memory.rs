//! The engine that forgets with the process: for `proxy`, where only keys are stored, and for trying things out.
//!
//! One lock, no I/O, every future ready at once. Bounded in keys (`keys_max`), in bytes of events and answers
//! (`bytes_max`) and in items.

mod acts;
mod inner;
mod kept;
mod keys;
mod placed;
mod queues;
mod reads;
mod work;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;

use super::{
    Act, Appended, Counted, Direction, EventStore, Filter, Known, Lease, Leased, Operation, Page, Pause, Settled,
    Shown, Stats, StoreError, Swept,
    elapsed::{Elapsed, between},
    wakers::Wakers,
};
use crate::{
    config::model::OnFull,
    event::{Answer, EventId, Item, Name, NewEvent},
    time::{Clock, Wall},
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
    /// What undelivered events and dead letters of one upstream may take of that, from 0 to 1.
    pub disk_share_max: f64,
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

    /// Does to what it holds what closing and opening does to a durable store.
    #[cfg(test)]
    pub(super) fn restart(&self) {
        let now_ms = self.elapsed.now_ms();
        self.lock().restart(now_ms);
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
        ready(move || self.with(|inner, now_ms| Ok(inner.queues.next_due(&upstream).map(|at| between(now_ms, at)))))
    }

    fn settle(&self, lease: Lease, settled: Settled) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(move || self.with(|inner, now_ms| inner.settle(now_ms, lease, settled)))
    }

    fn give_back(&self, lease: Lease, after: Duration) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(move || self.with(|inner, now_ms| inner.give_back(now_ms, lease, after)))
    }

    fn release(&self, id: EventId) -> BoxFuture<'_, Result<u32, StoreError>> {
        ready(move || self.with(|inner, now_ms| inner.release(now_ms, id)))
    }

    fn redeliver(&self, id: EventId, upstream: Option<&str>) -> BoxFuture<'_, Result<u32, StoreError>> {
        let upstream = upstream.map(str::to_owned);
        ready(move || self.with(|inner, now_ms| inner.redeliver(now_ms, id, upstream.as_deref(), None)))
    }

    fn forget(&self, id: EventId) -> BoxFuture<'_, Result<u64, StoreError>> {
        ready(move || self.with(|inner, now_ms| inner.forget(now_ms, id)))
    }

    fn purge(&self, id: EventId) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(move || self.with(|inner, now_ms| inner.purge(now_ms, id)))
    }

    fn reconcile(&self, upstreams: &[Name]) -> BoxFuture<'_, Result<BTreeMap<Name, u64>, StoreError>> {
        let upstreams = upstreams.to_vec();
        ready(move || self.with(|inner, now_ms| Ok(inner.reconcile(now_ms, &upstreams))))
    }

    fn list(&self, filter: Filter, direction: Direction, limit: usize) -> BoxFuture<'_, Result<Page, StoreError>> {
        ready(move || self.with(|inner, now_ms| Ok(inner.list(now_ms, &filter, direction, limit))))
    }

    fn count(&self, filter: Filter) -> BoxFuture<'_, Result<Counted, StoreError>> {
        ready(move || self.with(|inner, _| Ok(inner.count(&filter))))
    }

    fn act(&self, act: Act, ids: Vec<EventId>, operation: Operation) -> BoxFuture<'_, Result<Operation, StoreError>> {
        ready(move || self.with(|inner, now_ms| inner.act(now_ms, &act, &ids, operation)))
    }

    fn save_operation(&self, operation: Operation) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(move || {
            self.with(|inner, _| {
                inner.save_operation(operation);
                Ok(())
            })
        })
    }

    fn operations(&self) -> BoxFuture<'_, Result<Vec<Operation>, StoreError>> {
        ready(|| self.with(|inner, _| Ok(inner.operations.values().rev().cloned().collect())))
    }

    fn set_paused(&self, upstream: &str, pause: Option<Pause>) -> BoxFuture<'_, Result<(), StoreError>> {
        let upstream = Name::from(upstream);
        ready(move || {
            self.with(|inner, _| {
                match pause {
                    Some(pause) => inner.pauses.insert(upstream, pause),
                    None => inner.pauses.remove(&upstream),
                };
                Ok(())
            })
        })
    }

    fn paused(&self) -> BoxFuture<'_, Result<BTreeMap<Name, Pause>, StoreError>> {
        ready(|| self.with(|inner, _| Ok(inner.pauses.clone())))
    }

    fn show(&self, id: EventId) -> BoxFuture<'_, Result<Shown, StoreError>> {
        ready(move || self.with(|inner, now_ms| inner.show(now_ms, id)))
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

    fn restored_at(&self) -> Option<Wall> {
        None
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
