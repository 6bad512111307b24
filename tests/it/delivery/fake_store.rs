//! The part of a store that lanes use, in memory, with faults on demand. Time is tokio's.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _, ready};
use hookward::{
    event::{Answer, Body, Event, EventHead, EventId, Item, Name, NewEvent, State},
    store::{
        Act, Appended, Counted, Direction, EventStore, Filter, Known, Lease, Leased, Operation, Outcome, Page, Pause,
        Settled, Shown, Stats, StoreError, Swept,
    },
    time::Wall,
    verify::{Key, Keys},
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};

#[derive(Debug)]
pub struct FakeStore {
    rows: Mutex<Vec<Row>>,
    items: Mutex<HashMap<(String, Key), [u8; 32]>>,
    faults: Mutex<Faults>,
    paused: Mutex<BTreeMap<Name, Pause>>,
    woken: watch::Sender<()>,
    settled: mpsc::UnboundedSender<(EventId, Settled)>,
}

#[derive(Debug, Default)]
pub struct Faults {
    /// That many calls of `lease` fail.
    pub leases_fail: u32,
    /// That many calls of `settle` fail for now.
    pub settles_fail: u32,
    /// Calls of `lease` answer only after a permit is there.
    pub leases_wait: Option<Arc<Semaphore>>,
    /// That many leases are lost when they are settled.
    pub leases_lost: u32,
    /// The next call of `settle` reaches the store only after a permit is there.
    pub settle_waits: Option<Arc<Semaphore>>,
    /// That many calls of `set_paused` fail.
    pub pauses_fail: u32,
}

#[derive(Debug)]
struct Row {
    event: Event,
    upstream: Name,
    state: State,
    due_at: Instant,
    armed_at: Instant,
    fence: i64,
    attempts: u32,
    tries: u32,
    redelivery: bool,
    uncertain: bool,
    ordered: bool,
    cause: &'static str,
}

impl FakeStore {
    pub fn new() -> (Self, mpsc::UnboundedReceiver<(EventId, Settled)>) {
        let (settled, outcomes) = mpsc::unbounded_channel();
        let (rows, items, faults) = (Mutex::default(), Mutex::default(), Mutex::default());
        let paused = Mutex::default();
        (Self { rows, items, faults, paused, woken: watch::Sender::new(()), settled }, outcomes)
    }

    pub fn add(&self, head: EventHead, body: Vec<u8>, upstream: &str) {
        self.add_as(head, body, upstream, false);
    }

    /// With an order key, if it is `ordered`; nothing else has that key.
    pub fn add_as(&self, head: EventHead, body: Vec<u8>, upstream: &str, ordered: bool) {
        let (now, event) = (Instant::now(), Event { head, body: Body::free(body), copies: 0 });
        self.rows().push(Row {
            event,
            upstream: upstream.into(),
            state: State::Due,
            due_at: now,
            armed_at: now,
            fence: 0,
            attempts: 0,
            tries: 0,
            redelivery: false,
            uncertain: false,
            ordered,
            cause: "first",
        });
        self.woken.send_replace(());
    }

    /// What an operator does with `redeliver`.
    pub fn arm_again(&self, id: EventId) {
        let (now, mut rows) = (Instant::now(), self.rows());
        let row = rows.iter_mut().find(|row| row.event.head.id == id).expect("a row");
        (row.state, row.due_at, row.armed_at) = (State::Due, now, now);
        (row.tries, row.redelivery, row.cause) = (0, true, "redelivery");
        self.woken.send_replace(());
    }

    pub fn pauses(&self) -> MutexGuard<'_, BTreeMap<Name, Pause>> {
        self.paused.lock().expect("not poisoned")
    }

    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().expect("not poisoned")
    }

    pub fn count(&self, state: State) -> usize {
        self.rows().iter().filter(|row| row.state == state).count()
    }

    pub fn count_at(&self, upstream: &str, state: State) -> usize {
        self.rows().iter().filter(|row| &*row.upstream == upstream && row.state == state).count()
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        self.rows.lock().expect("not poisoned")
    }

    fn lease_now(&self, upstream: &str, max: usize, length: Duration) -> Vec<Leased> {
        let now = Instant::now();
        let mut rows = self.rows();
        let mut due: Vec<(i64, &mut Row)> = (0..).zip(rows.iter_mut()).collect();
        due.retain(|(_, row)| {
            &*row.upstream == upstream && matches!(row.state, State::Due | State::Leased) && row.due_at <= now
        });
        due.sort_by_key(|(_, row)| row.due_at);
        due.truncate(max);
        let lease = |(delivery, row): (i64, &mut Row)| {
            if row.state == State::Leased {
                (row.cause, row.uncertain) = ("lease lapsed", true);
            }
            (row.state, row.due_at, row.fence) = (State::Leased, now + length, row.fence + 1);
            Leased {
                lease: Lease { delivery, fence: row.fence },
                event: row.event.clone(),
                upstream: row.upstream.clone(),
                attempt: row.attempts + 1,
                tries: row.tries,
                redelivery: row.redelivery,
                uncertain: row.uncertain,
                ordered: row.ordered,
                cause: row.cause.to_owned(),
                age: now - row.armed_at,
            }
        };
        due.into_iter().map(lease).collect()
    }

    fn settle_now(&self, lease: Lease, settled: Settled) -> Result<(), StoreError> {
        let now = Instant::now();
        let mut rows = self.rows();
        let row = &mut rows[usize::try_from(lease.delivery).expect("a row")];
        if row.state != State::Leased || row.fence != lease.fence {
            return Err(StoreError::LeaseLost);
        }
        (row.attempts, row.tries, row.cause) = (row.attempts + 1, row.tries + 1, "retry");
        row.uncertain = !matches!(settled.outcome, Outcome::Delivered { .. }) && (row.uncertain || settled.uncertain);
        match &settled.outcome {
            Outcome::Delivered { items } => {
                row.state = State::Delivered;
                let known = items.iter().map(|item| ((row.upstream.to_string(), item.key), item.content));
                self.items.lock().expect("not poisoned").extend(known);
            }
            Outcome::Retry { after } => (row.state, row.due_at) = (State::Due, now + *after),
            Outcome::Dead { .. } => row.state = State::Dead,
        }
        let _ = self.settled.send((row.event.head.id, settled));
        Ok(())
    }
}

fn done<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    ready(value).boxed()
}

impl EventStore for FakeStore {
    fn lease(&self, upstream: &str, max: usize, length: Duration) -> BoxFuture<'_, Result<Vec<Leased>, StoreError>> {
        let mut faults = self.faults();
        if faults.leases_fail > 0 {
            faults.leases_fail -= 1;
            return done(Err(StoreError::Unavailable("scripted".to_owned())));
        }
        let (leased, gate) = (self.lease_now(upstream, max, length), faults.leases_wait.clone());
        async move {
            if let Some(gate) = gate {
                gate.acquire().await.expect("open").forget();
            }
            Ok(leased)
        }
        .boxed()
    }
    fn next_due(&self, upstream: &str) -> BoxFuture<'_, Result<Option<Duration>, StoreError>> {
        let (now, rows) = (Instant::now(), self.rows());
        let waiting = rows.iter().filter(|row| &*row.upstream == upstream && row.state == State::Due);
        done(Ok(waiting.map(|row| row.due_at.saturating_duration_since(now)).min()))
    }
    fn settle(&self, lease: Lease, settled: Settled) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut faults = self.faults();
        if faults.settles_fail > 0 {
            faults.settles_fail -= 1;
            return done(Err(StoreError::Unavailable("scripted".to_owned())));
        }
        if faults.leases_lost > 0 {
            faults.leases_lost -= 1;
            self.rows()[usize::try_from(lease.delivery).expect("a row")].fence += 1;
        }
        let gate = faults.settle_waits.take();
        drop(faults);
        async move {
            if let Some(gate) = gate {
                gate.acquire().await.expect("open").forget();
            }
            self.settle_now(lease, settled)
        }
        .boxed()
    }
    fn give_back(&self, lease: Lease, after: Duration) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut rows = self.rows();
        let row = &mut rows[usize::try_from(lease.delivery).expect("a row")];
        (row.state, row.due_at) = (State::Due, Instant::now() + after);
        self.woken.send_replace(());
        done(Ok(()))
    }
    fn acknowledged_items(
        &self,
        upstream: &str,
        items: Vec<Item>,
    ) -> BoxFuture<'_, Result<Vec<Option<[u8; 32]>>, StoreError>> {
        let known = self.items.lock().expect("not poisoned");
        done(Ok(items.iter().map(|item| known.get(&(upstream.to_owned(), item.key)).copied()).collect()))
    }
    fn set_paused(&self, upstream: &str, pause: Option<Pause>) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut faults = self.faults();
        if faults.pauses_fail > 0 {
            faults.pauses_fail -= 1;
            return done(Err(StoreError::Unavailable("scripted".to_owned())));
        }
        match pause {
            Some(pause) => self.pauses().insert(upstream.into(), pause),
            None => self.pauses().remove(upstream),
        };
        // Its answer comes later than its effect, as that of a real one.
        async {
            tokio::task::yield_now().await;
            Ok(())
        }
        .boxed()
    }
    fn paused(&self) -> BoxFuture<'_, Result<BTreeMap<Name, Pause>, StoreError>> {
        done(Ok(self.pauses().clone()))
    }
    fn woken(&self, _: &str) -> BoxFuture<'static, ()> {
        let mut receiver = self.woken.subscribe();
        async move { drop(receiver.changed().await) }.boxed()
    }
    fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        done(())
    }

    // Lanes do not use the rest.
    fn append(&self, _: NewEvent) -> BoxFuture<'_, Result<Appended, StoreError>> {
        unimplemented!()
    }
    fn lookup(&self, _: Keys) -> BoxFuture<'_, Result<Known, StoreError>> {
        unimplemented!()
    }
    fn record(
        &self,
        _: EventId,
        _: &Name,
        _: Keys,
        _: Option<(Answer, Duration)>,
        _: bool,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        unimplemented!()
    }
    fn count_copy(&self, _: EventId) {}
    fn release(&self, _: EventId) -> BoxFuture<'_, Result<u32, StoreError>> {
        unimplemented!()
    }
    fn redeliver(&self, _: EventId, _: Option<&str>) -> BoxFuture<'_, Result<u32, StoreError>> {
        unimplemented!()
    }
    fn forget(&self, _: EventId) -> BoxFuture<'_, Result<u64, StoreError>> {
        unimplemented!()
    }
    fn purge(&self, _: EventId) -> BoxFuture<'_, Result<(), StoreError>> {
        unimplemented!()
    }
    fn reconcile(&self, _: &[Name]) -> BoxFuture<'_, Result<BTreeMap<Name, u64>, StoreError>> {
        unimplemented!()
    }
    fn list(&self, _: Filter, _: Direction, _: usize) -> BoxFuture<'_, Result<Page, StoreError>> {
        unimplemented!()
    }
    fn show(&self, _: EventId) -> BoxFuture<'_, Result<Shown, StoreError>> {
        unimplemented!()
    }
    fn sweep(&self, _: Duration) -> BoxFuture<'_, Result<Swept, StoreError>> {
        unimplemented!()
    }
    fn stats(&self) -> BoxFuture<'_, Result<Stats, StoreError>> {
        unimplemented!()
    }
    fn count(&self, _: Filter) -> BoxFuture<'_, Result<Counted, StoreError>> {
        unimplemented!()
    }
    fn act(&self, _: Act, _: Vec<EventId>, _: Operation) -> BoxFuture<'_, Result<Operation, StoreError>> {
        unimplemented!()
    }
    fn save_operation(&self, _: Operation) -> BoxFuture<'_, Result<(), StoreError>> {
        unimplemented!()
    }
    fn operations(&self) -> BoxFuture<'_, Result<Vec<Operation>, StoreError>> {
        unimplemented!()
    }
    fn restored_at(&self) -> Option<Wall> {
        None
    }
}
