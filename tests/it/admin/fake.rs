//! A store with four canned events that remembers what it was asked to do.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::{self, BoxFuture, FutureExt as _};
use hookward::{
    event::{
        Answer, Attempt, Body, Client, Delivery, Event, EventHead, EventId, Item, Name, NewEvent, OrderKey, State,
    },
    store::{
        Act, Appended, Counted, Direction, EventStore, Filter, Known, Lease, Leased, Listed, Operation, Page, Pause,
        Settled, Shown, Stats, StoreError, Swept,
    },
    time::Wall,
    verify::{Key, Keys},
};

/// In every header that carries a credential.
pub const CANARY: &str = "header-canary-91c3";
/// The body of event 3.
pub const BINARY: &[u8] = b"\xff\x00<script>\r\n";

/// The id of the event with this number; ids sort as numbers do.
pub fn event_id(number: u16) -> EventId {
    let mut bytes = [0; 16];
    bytes[..9].copy_from_slice(&[0x01, 0x9a, 0xa5, 0, 0, 0, 0x70, 0, 0x80]);
    bytes[14..].copy_from_slice(&number.to_be_bytes());
    EventId::from_bytes(bytes)
}

#[derive(Debug, Default)]
pub struct Fake {
    pub broken: AtomicBool,
    pub hangs: AtomicBool,
    pub panics: AtomicBool,
    pub emptied: AtomicBool,
    /// Lists 600 dead letters instead of the four events.
    pub many: AtomicBool,
    /// Event 300 of the 600 is damaged, and nothing can be done to it.
    pub damaged: AtomicBool,
    /// The body of every event was removed.
    pub bodiless: AtomicBool,
    pub operations: Mutex<BTreeMap<EventId, Operation>>,
    calls: Mutex<Vec<String>>,
    filter: Mutex<Filter>,
}

impl Fake {
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub fn last_filter(&self) -> Filter {
        self.filter.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub fn health_now(&self) -> Result<(), StoreError> {
        if self.broken.load(Relaxed) { Err(StoreError::Unavailable("the disk is away".into())) } else { Ok(()) }
    }
    fn fitting(&self, filter: &Filter) -> Vec<(Event, Vec<Delivery>)> {
        let dead = |number| {
            let event = Event { head: head(number, "gains", None), body: Body::free("{}"), copies: 0 };
            (event, vec![delivery(State::Dead)])
        };
        let events = if self.many.load(Relaxed) { (1..=600).rev().map(dead).collect() } else { all() };
        events.into_iter().filter(|(event, deliveries)| fits(filter, event, deliveries)).collect()
    }
    fn keep(&self, operation: Operation) -> Operation {
        let mut all = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(operation.id, operation.clone());
        operation
    }
    /// Notes the call, and finds the event.
    fn called(&self, call: String, id: EventId) -> Result<(Event, Vec<Delivery>), StoreError> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        self.health_now()?;
        find(id)
    }
}

fn find(id: EventId) -> Result<(Event, Vec<Delivery>), StoreError> {
    all().into_iter().find(|(event, _)| event.head.id == id).ok_or(StoreError::NotFound)
}

/// Newest first.
fn all() -> Vec<(Event, Vec<Delivery>)> {
    let numbered = |number, source: &str, event_type: Option<&str>, body: &'static [u8], state| {
        let head = head(number, source, event_type);
        (Event { head, body: Body::free(body), copies: 1 }, vec![delivery(state)])
    };
    vec![
        numbered(4, "gains", None, b"{}", State::Due),
        numbered(3, "gains", None, BINARY, State::Delivered),
        numbered(2, "partssource", Some("order.created"), b"{\"id\": 7, \"x\": \"\\u001b\"}", State::Dead),
        numbered(1, "price2b", None, b"", State::Held),
    ]
}

fn head(number: u16, source: &str, event_type: Option<&str>) -> EventHead {
    let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    EventHead {
        id: event_id(number),
        source: source.into(),
        provider: source.into(),
        received_at: Wall::from_unix_s(1_763_712_000 + i64::from(number)),
        method: "POST".into(),
        query: Some("test=1".into()),
        client: Client { address: "203.0.113.7".into(), proto: "https".into(), host: "hooks.example.com".into() },
        headers: vec![
            header("content-type", "application/json"),
            header("x-ps-signature", CANARY),
            header("authorization", CANARY),
            header("x-odd", CANARY),
            ("x-bytes".to_owned(), vec![b'a', 0xff]),
        ],
        event_type: event_type.map(Into::into),
        attempt_id: Some("attempt-9".into()),
        verified: "hmac-sha256/main".into(),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        duplicate_of: None,
        conflict_of: None,
    }
}

fn delivery(state: State) -> Delivery {
    let attempt = Attempt {
        number: 1,
        began_at: Wall::from_unix_s(1_763_712_010),
        took: Duration::from_millis(12),
        status: Some(410),
        error: Some("status 410".into()),
        cause: "first".into(),
    };
    Delivery {
        upstream: "orders".into(),
        state,
        reason: (state == State::Dead).then(|| "status 410".into()),
        attempts: 1,
        due_in: (state == State::Due).then_some(Duration::from_secs(5)),
        order_key: (state == State::Due).then(|| OrderKey::new("customer-7")).flatten(),
        history: if state == State::Dead { vec![attempt] } else { Vec::new() },
    }
}

fn fits(filter: &Filter, event: &Event, deliveries: &[Delivery]) -> bool {
    let head = &event.head;
    filter.source.as_ref().is_none_or(|source| **source == *head.source)
        && filter.event_type.as_ref().is_none_or(|kind| head.event_type.as_ref() == Some(kind))
        && filter.state.is_none_or(|state| deliveries.iter().any(|delivery| delivery.state == state))
        && filter.id.is_none_or(|id| head.id == id)
        && filter.key.is_none_or(|key| key == key_of(head.id))
        && !filter.unrouted
        && filter.before.is_none_or(|before| head.id < before)
        && filter.after.is_none_or(|after| head.id > after)
}

/// The one key of each event: its id twice.
pub fn key_of(id: EventId) -> Key {
    let mut key = [0; 32];
    key[..16].copy_from_slice(id.as_bytes());
    key[16..].copy_from_slice(id.as_bytes());
    Key(key)
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    future::ready(value).boxed()
}

const UNASKED: &str = "the admin listener never asks for this";

impl EventStore for Fake {
    fn append(&self, _: NewEvent) -> BoxFuture<'_, Result<Appended, StoreError>> {
        unimplemented!("{UNASKED}")
    }
    fn lookup(&self, _: Keys) -> BoxFuture<'_, Result<Known, StoreError>> {
        unimplemented!("{UNASKED}")
    }
    fn record(
        &self,
        _: EventId,
        _: &Name,
        _: Keys,
        _: Option<(Answer, Duration)>,
        _: bool,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        unimplemented!("{UNASKED}")
    }
    fn count_copy(&self, _: EventId) {
        unimplemented!("{UNASKED}")
    }
    fn lease(&self, _: &str, _: usize, _: Duration) -> BoxFuture<'_, Result<Vec<Leased>, StoreError>> {
        unimplemented!("{UNASKED}")
    }
    fn next_due(&self, _: &str) -> BoxFuture<'_, Result<Option<Duration>, StoreError>> {
        unimplemented!("{UNASKED}")
    }
    fn settle(&self, _: Lease, _: Settled) -> BoxFuture<'_, Result<(), StoreError>> {
        unimplemented!("{UNASKED}")
    }
    fn give_back(&self, _: Lease, _: Duration) -> BoxFuture<'_, Result<(), StoreError>> {
        unimplemented!("{UNASKED}")
    }
    fn reconcile(&self, _: &[Name]) -> BoxFuture<'_, Result<BTreeMap<Name, u64>, StoreError>> {
        unimplemented!("{UNASKED}")
    }
    fn acknowledged_items(&self, _: &str, _: Vec<Item>) -> BoxFuture<'_, Result<Vec<Option<[u8; 32]>>, StoreError>> {
        unimplemented!("{UNASKED}")
    }
    fn paused(&self) -> BoxFuture<'_, Result<BTreeMap<Name, Pause>, StoreError>> {
        unimplemented!("{UNASKED}")
    }
    fn sweep(&self, _: Duration) -> BoxFuture<'_, Result<Swept, StoreError>> {
        unimplemented!("{UNASKED}")
    }
    fn woken(&self, _: &str) -> BoxFuture<'static, ()> {
        unimplemented!("{UNASKED}")
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        unimplemented!("{UNASKED}")
    }

    fn release(&self, id: EventId) -> BoxFuture<'_, Result<u32, StoreError>> {
        let found = self.called(format!("release {id}"), id);
        let held = |deliveries: &[Delivery]| deliveries.iter().any(|delivery| delivery.state == State::Held);
        ready(found.and_then(|(_, deliveries)| if held(&deliveries) { Ok(1) } else { Err(StoreError::NotFound) }))
    }
    fn redeliver(&self, id: EventId, upstream: Option<&str>) -> BoxFuture<'_, Result<u32, StoreError>> {
        ready(self.called(format!("redeliver {id} {}", upstream.unwrap_or("-")), id).map(|_| 1))
    }
    fn forget(&self, id: EventId) -> BoxFuture<'_, Result<u64, StoreError>> {
        ready(self.called(format!("forget {id}"), id).map(|_| 2))
    }
    fn purge(&self, id: EventId) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(self.called(format!("purge {id}"), id).map(|_| ()))
    }
    fn list(&self, filter: Filter, direction: Direction, limit: usize) -> BoxFuture<'_, Result<Page, StoreError>> {
        assert!(!self.panics.load(Relaxed), "as asked, with {CANARY}");
        let mut events = self.fitting(&filter);
        if direction == Direction::OldestFirst {
            events.reverse();
        }
        let listed = events.into_iter().map(|(event, mut deliveries)| {
            for delivery in &mut deliveries {
                delivery.history.clear();
            }
            Listed { head: event.head, body_bytes: event.body.len() as u64, copies: event.copies, deliveries }
        });
        let mut events: Vec<_> = listed.collect();
        let more = events.len() > limit;
        events.truncate(limit);
        let next = events.last().filter(|_| more).map(|last| last.head.id);
        if filter != Filter::default() {
            *self.filter.lock().unwrap_or_else(PoisonError::into_inner) = filter;
        }
        ready(Ok(Page { events, next }))
    }
    fn count(&self, filter: Filter) -> BoxFuture<'_, Result<Counted, StoreError>> {
        ready(Ok(Counted { events: self.fitting(&filter).len() as u64, next: None }))
    }
    fn act(
        &self,
        act: Act,
        ids: Vec<EventId>,
        mut operation: Operation,
    ) -> BoxFuture<'_, Result<Operation, StoreError>> {
        if self.damaged.load(Relaxed) && ids.contains(&event_id(300)) {
            return ready(Err(StoreError::Damaged("event 300".into())));
        }
        for id in &ids {
            let call = match &act {
                Act::Redeliver { to, state } => {
                    let state = state.map_or("any", State::name);
                    format!("redeliver {id} {} {state}", to.as_deref().unwrap_or("-"))
                }
                other => format!("{other:?} {id}").to_lowercase(),
            };
            if let Err(error) = self.called(call, event_id(1)) {
                return ready(Err(error));
            }
        }
        operation.done += ids.len() as u64;
        ready(Ok(self.keep(operation)))
    }
    fn save_operation(&self, operation: Operation) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(self.health_now().map(|()| drop(self.keep(operation))))
    }
    fn operations(&self) -> BoxFuture<'_, Result<Vec<Operation>, StoreError>> {
        let all = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        ready(Ok(all.values().rev().cloned().collect()))
    }
    fn set_paused(&self, upstream: &str, pause: Option<Pause>) -> BoxFuture<'_, Result<(), StoreError>> {
        let by = pause.map_or("-".to_owned(), |pause| pause.by);
        ready(self.called(format!("pause {upstream} {by}"), event_id(1)).map(drop))
    }
    fn show(&self, id: EventId) -> BoxFuture<'_, Result<Shown, StoreError>> {
        let body_removed = self.bodiless.load(Relaxed);
        ready(find(id).map(|(mut event, deliveries)| {
            if body_removed {
                event.body = Body::free("");
            }
            Shown { keys: vec![(key_of(id), Duration::from_hours(1))], event, body_removed, deliveries }
        }))
    }
    fn restored_at(&self) -> Option<Wall> {
        Some(Wall::from_unix_s(1_763_000_000))
    }
    fn stats(&self) -> BoxFuture<'_, Result<Stats, StoreError>> {
        if self.hangs.load(Relaxed) {
            return future::pending().boxed();
        }
        if self.emptied.load(Relaxed) {
            return ready(Ok(Stats::default()));
        }
        let states = [State::Due, State::Delivered, State::Dead, State::Held];
        ready(Ok(Stats {
            deliveries: states.into_iter().map(|state| (("orders".into(), state), 1)).collect(),
            oldest_due: [("orders".into(), Duration::from_secs(90))].into(),
            events: 4,
            keys: 8,
            bytes: 4096,
            unrouted: 3,
            open_bytes: [("orders".into(), 5000)].into(),
            share_bytes_max: 50_000,
            damaged: 1,
        }))
    }
    fn health(&self) -> Result<(), StoreError> {
        self.health_now()
    }
}
