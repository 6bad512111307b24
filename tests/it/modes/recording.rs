//! A store that remembers what it was asked to append, and that may have been restored from a backup; and a gate in
//! front of it without sockets, for what no provider could see.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use hookward::{
    delivery::{self, Lanes},
    event::{Answer, EventId, Item, Name, NewEvent},
    ingress::{self, Gate},
    store::{
        Act, Appended, Counted, Direction, EventStore, Filter, Known, Lease, Leased, Operation, Page, Pause, Settled,
        Shown, Stats, StoreError, Swept,
        sqlite::{Options, SqliteStore},
    },
    telemetry::{ClockWatch, Health, Metrics},
    time::{Clock, Wall},
    verify::Keys,
};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::{PATH, SECRET};
use crate::world::{NOW_S, configuration, parse, sign};

/// A gate whose upstreams nobody listens for.
pub(super) struct Recorded {
    pub(super) store: Arc<Recording>,
    pub(super) metrics: Arc<Metrics>,
    gate: Arc<Gate>,
    _data: TempDir,
}

impl Recorded {
    /// A gate with these sources, on a store that was restored then.
    pub(super) async fn start(sources: &str, restored_at: Option<Wall>) -> Self {
        let data = TempDir::new().expect("a directory");
        let text = configuration(sources, "", "http://127.0.0.1:9/in", data.path());
        let config = parse(&text, data.path());
        let clock = Clock::starting_at(Wall::from_unix_s(NOW_S));
        let inner = SqliteStore::open(&Options::of(&config.store, clock.clone())).expect("it opens");
        let store = Arc::new(Recording { inner, restored_at, appended: Mutex::default() });
        let metrics = Arc::new(Metrics::default());
        let watch = ClockWatch::new(None, clock.wall(), clock.monotonic());
        let health = Arc::new(Health::new(watch, || Ok(())));
        let parts = delivery::Parts {
            store: store.clone(),
            metrics: metrics.clone(),
            clock: clock.clone(),
            sources: BTreeMap::default(),
        };
        let lanes = Lanes::start(&BTreeMap::default(), parts).await.expect("lanes");
        let gate = Gate::new(&config, store.clone(), &lanes, health, metrics.clone(), clock);
        Self { store, metrics, gate, _data: data }
    }

    /// Signed as this provider signs, `offset_s` from now, with more headers: status, `retry-after`, body.
    pub(super) async fn send(
        &self,
        provider: &str,
        body: &[u8],
        offset_s: i64,
        headers: &[(&str, &str)],
    ) -> (u16, Option<String>, String) {
        let mut request = Request::post(PATH).header("host", "a");
        for (name, value) in sign(provider, SECRET, body, NOW_S + offset_s) {
            request = request.header(name, value);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(body.to_vec().into()).map_err(|never| match never {}).boxed_unsync();
        let request = request.body(body).expect("a request");
        let (head, body) = ingress::stack(&self.gate).oneshot(request).await.expect("infallible").into_parts();
        let body = body.collect().await.expect("whole").to_bytes();
        let retry_after = head.headers.get("retry-after").map(|value| value.to_str().expect("text").to_owned());
        (head.status.as_u16(), retry_after, String::from_utf8_lossy(&body).into_owned())
    }

    /// The value of a metric.
    pub(super) fn metric(&self, begins: &str) -> Option<u64> {
        let text = self.metrics.expose();
        text.lines().find_map(|line| line.strip_prefix(begins)?.trim().parse().ok())
    }
}

#[derive(Debug)]
pub(super) struct Recording {
    inner: Arc<SqliteStore>,
    restored_at: Option<Wall>,
    appended: Mutex<Vec<NewEvent>>,
}

impl Recording {
    /// What was appended since the last call.
    pub(super) fn appended(&self) -> Vec<NewEvent> {
        std::mem::take(&mut *self.appended.lock().expect("not poisoned"))
    }
}

type Stored<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

impl EventStore for Recording {
    fn append(&self, event: NewEvent) -> Stored<'_, Appended> {
        self.appended.lock().expect("not poisoned").push(event.clone());
        self.inner.append(event)
    }
    fn restored_at(&self) -> Option<Wall> {
        self.restored_at
    }

    // Everything else is the inner store's.
    fn lookup(&self, keys: Keys) -> Stored<'_, Known> {
        self.inner.lookup(keys)
    }
    fn record(
        &self,
        id: EventId,
        source: &Name,
        keys: Keys,
        answer: Option<(Answer, Duration)>,
        fsync: bool,
    ) -> Stored<'_, ()> {
        self.inner.record(id, source, keys, answer, fsync)
    }
    fn count_copy(&self, first: EventId) {
        self.inner.count_copy(first);
    }
    fn lease(&self, upstream: &str, max: usize, length: Duration) -> Stored<'_, Vec<Leased>> {
        self.inner.lease(upstream, max, length)
    }
    fn next_due(&self, upstream: &str) -> Stored<'_, Option<Duration>> {
        self.inner.next_due(upstream)
    }
    fn settle(&self, lease: Lease, settled: Settled) -> Stored<'_, ()> {
        self.inner.settle(lease, settled)
    }
    fn give_back(&self, lease: Lease, after: Duration) -> Stored<'_, ()> {
        self.inner.give_back(lease, after)
    }
    fn release(&self, id: EventId) -> Stored<'_, u32> {
        self.inner.release(id)
    }
    fn redeliver(&self, id: EventId, upstream: Option<&str>) -> Stored<'_, u32> {
        self.inner.redeliver(id, upstream)
    }
    fn forget(&self, id: EventId) -> Stored<'_, u64> {
        self.inner.forget(id)
    }
    fn purge(&self, id: EventId) -> Stored<'_, ()> {
        self.inner.purge(id)
    }
    fn reconcile(&self, upstreams: &[Name]) -> Stored<'_, BTreeMap<Name, u64>> {
        self.inner.reconcile(upstreams)
    }
    fn list(&self, filter: Filter, direction: Direction, limit: usize) -> Stored<'_, Page> {
        self.inner.list(filter, direction, limit)
    }
    fn count(&self, filter: Filter) -> Stored<'_, Counted> {
        self.inner.count(filter)
    }
    fn act(&self, act: Act, ids: Vec<EventId>, operation: Operation) -> Stored<'_, Operation> {
        self.inner.act(act, ids, operation)
    }
    fn save_operation(&self, operation: Operation) -> Stored<'_, ()> {
        self.inner.save_operation(operation)
    }
    fn operations(&self) -> Stored<'_, Vec<Operation>> {
        self.inner.operations()
    }
    fn set_paused(&self, upstream: &str, pause: Option<Pause>) -> Stored<'_, ()> {
        self.inner.set_paused(upstream, pause)
    }
    fn paused(&self) -> Stored<'_, BTreeMap<Name, Pause>> {
        self.inner.paused()
    }
    fn show(&self, id: EventId) -> Stored<'_, Shown> {
        self.inner.show(id)
    }
    fn acknowledged_items(&self, upstream: &str, items: Vec<Item>) -> Stored<'_, Vec<Option<[u8; 32]>>> {
        self.inner.acknowledged_items(upstream, items)
    }
    fn sweep(&self, retention: Duration) -> Stored<'_, Swept> {
        self.inner.sweep(retention)
    }
    fn stats(&self) -> Stored<'_, Stats> {
        self.inner.stats()
    }
    fn health(&self) -> Result<(), StoreError> {
        self.inner.health()
    }
    fn woken(&self, upstream: &str) -> BoxFuture<'static, ()> {
        self.inner.woken(upstream)
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}
