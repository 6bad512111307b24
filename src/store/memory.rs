//! The engine that forgets with the process: for `proxy`, where only keys are stored, and for trying things out.
//!
//! One lock, no I/O, every future ready at once. Bounded in keys (`keys_max`), in bytes of events and answers
//! (`bytes_max`) and in items.

mod keys;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;

use super::{
    Appended, EventStore, Filter, Known, Lease, Leased, Listed, Outcome, Settled, Shown, Stats, StoreError, Swept,
    elapsed::{Elapsed, after, between},
    judge::{
        Birth, HISTORY_MAX, ITEM_LIFE, PAGE_MAX, Resend, SWEEP_SLICE, Verdict, birth, cause, judge, rearms, reason,
        resend,
    },
    wakers::Wakers,
};
use crate::{
    config::model::OnFull,
    event::{Answer, Attempt, Body, Delivery, Event, EventHead, EventId, Item, Name, NewEvent, OnConflict, State},
    time::Clock,
    verify::{Key, Keys},
};
use keys::KeyTable;

/// What an event takes besides its body and headers.
const OVERHEAD_BYTES: u64 = 1024;
/// Items remembered; beyond that the longest known are forgotten.
const ITEMS_MAX: usize = 100_000;

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

#[derive(Debug)]
struct Inner {
    keys: KeyTable,
    bytes: u64,
    bytes_max: u64,
    events: BTreeMap<EventId, Stored>,
    deliveries: BTreeMap<i64, Placed>,
    next_delivery: i64,
    /// Due and leased deliveries of an upstream, by the time at which they may be taken.
    due: HashMap<Name, BTreeSet<(i64, i64)>>,
    finished: BTreeSet<(i64, EventId)>,
    answers: HashMap<EventId, (Answer, i64)>,
    answers_expiring: BTreeSet<(i64, EventId)>,
    items: HashMap<(Name, Key), ([u8; 32], i64)>,
    items_expiring: BTreeSet<(i64, Name, Key)>,
    configured: Option<BTreeSet<Name>>,
    wake: Vec<Name>,
}

#[derive(Debug)]
struct Stored {
    event: Event,
    deliveries: Vec<i64>,
    finished_at: Option<i64>,
}

#[derive(Clone, Debug)]
struct Placed {
    event: EventId,
    upstream: Name,
    state: State,
    reason: Option<String>,
    attempts: u32,
    /// Of a leased one: when its lease lapses.
    due_at: i64,
    armed_at: i64,
    fence: i64,
    cause: &'static str,
    history: VecDeque<Attempt>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(options: &Options) -> Arc<Self> {
        Arc::new(Self {
            elapsed: Elapsed::resume(options.clock.clone(), None),
            wakers: Wakers::default(),
            closed: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                keys: KeyTable::new(options.keys_max, options.on_full),
                bytes: 0,
                bytes_max: options.bytes_max,
                events: BTreeMap::new(),
                deliveries: BTreeMap::new(),
                next_delivery: 1,
                due: HashMap::new(),
                finished: BTreeSet::new(),
                answers: HashMap::new(),
                answers_expiring: BTreeSet::new(),
                items: HashMap::new(),
                items_expiring: BTreeSet::new(),
                configured: None,
                wake: Vec::new(),
            }),
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

impl Inner {
    fn is_configured(&self, upstream: &str) -> bool {
        self.configured.as_ref().is_none_or(|all| all.contains(upstream))
    }

    fn append(&mut self, now_ms: i64, event: NewEvent) -> Result<Appended, StoreError> {
        let Ok(verdict) = judge(&event.keys, |key| Ok::<_, std::convert::Infallible>(self.keys.known(key, now_ms)));
        match verdict {
            Verdict::New => self.store_new(now_ms, event, None),
            Verdict::Conflict { first } if event.on_conflict == OnConflict::Drop => {
                self.count_copy(first);
                Ok(Appended::Conflict { id: None, first })
            }
            Verdict::Conflict { first } => {
                let (id, on_conflict) = (event.head.id, event.on_conflict);
                let head = EventHead { conflict_of: Some(first), ..event.head.clone() };
                self.store(now_ms, NewEvent { head, ..event }, Some(on_conflict))?;
                Ok(Appended::Conflict { id: Some(id), first })
            }
            Verdict::Copy { first, exact } => {
                let numbers = self.numbers_of(first);
                let states: Vec<_> = numbers
                    .iter()
                    .filter_map(|number| self.deliveries.get(number))
                    .map(|placed| (placed.state, self.is_configured(&placed.upstream)))
                    .collect();
                let mut rearmed = 0;
                match resend(exact, &states, event.on_resend) {
                    Resend::StoreAgain => return self.store_new(now_ms, event, Some(first)),
                    Resend::Rearm => {
                        for (number, (state, configured)) in numbers.into_iter().zip(states) {
                            if rearms(state, configured) {
                                self.arm(now_ms, number, cause::RE_SEND);
                                rearmed += 1;
                            }
                        }
                        self.unfinish(first);
                    }
                    Resend::Count => {}
                }
                self.note_copy(now_ms, first, &event.keys);
                Ok(Appended::Known { first, rearmed, answer: self.answer(now_ms, first) })
            }
        }
    }

    fn store_new(
        &mut self,
        now_ms: i64,
        mut event: NewEvent,
        duplicate_of: Option<EventId>,
    ) -> Result<Appended, StoreError> {
        event.head.duplicate_of = duplicate_of;
        let id = event.head.id;
        let lease = self.store(now_ms, event, None)?;
        if let Some(first) = duplicate_of {
            self.count_copy(first);
        }
        Ok(Appended::New { id, lease, duplicate_of })
    }

    fn store(
        &mut self,
        now_ms: i64,
        event: NewEvent,
        conflict: Option<OnConflict>,
    ) -> Result<Option<Lease>, StoreError> {
        let NewEvent { head, body, keys, upstreams, begin, .. } = event;
        self.make_room(now_ms, &keys, event_bytes(&head, &body))?;
        let id = head.id;
        self.bytes += event_bytes(&head, &body);
        self.keys.remember(id, &head.source, &keys, now_ms);
        // The share of the request's budget must not live as long as the event does.
        let body = Body::free(body.bytes().clone());
        let finished_at = upstreams.is_empty().then_some(now_ms);
        if let Some(at) = finished_at {
            self.finished.insert((at, id));
        }
        self.events.insert(id, Stored { event: Event { head, body, copies: 0 }, deliveries: Vec::new(), finished_at });
        let mut lease = None;
        for (index, upstream) in upstreams.iter().enumerate() {
            if upstreams[..index].contains(upstream) {
                continue;
            }
            let born = birth(begin, conflict, index == 0, self.is_configured(upstream));
            let delivery = self.insert_delivery(now_ms, id, upstream, born);
            match born {
                Birth::Leased(_) => lease = Some(Lease { delivery, fence: 0 }),
                Birth::Due => self.wake.push(Name::clone(upstream)),
                Birth::Held(_) | Birth::Parked => {}
            }
        }
        Ok(lease)
    }

    fn insert_delivery(&mut self, now_ms: i64, event: EventId, upstream: &Name, born: Birth) -> i64 {
        let number = self.next_delivery;
        self.next_delivery += 1;
        let due_at = match born {
            Birth::Leased(length) => after(now_ms, length),
            Birth::Due | Birth::Held(_) | Birth::Parked => now_ms,
        };
        let placed = Placed {
            event,
            upstream: Name::clone(upstream),
            state: born.state(),
            reason: born.reason().map(str::to_owned),
            attempts: 0,
            due_at,
            armed_at: now_ms,
            fence: 0,
            cause: cause::FIRST,
            history: VecDeque::new(),
        };
        self.deliveries.insert(number, placed);
        self.list_due(number);
        if let Some(stored) = self.events.get_mut(&event) {
            stored.deliveries.push(number);
        }
        number
    }

    fn make_room(&mut self, now_ms: i64, keys: &Keys, bytes: u64) -> Result<(), StoreError> {
        if !self.keys.has_room(keys, now_ms) {
            return Err(StoreError::Full("`replay.capacity` live keys are there".to_owned()));
        }
        // History goes first.
        while self.bytes + bytes > self.bytes_max
            && let Some((_, id)) = self.finished.first().copied()
        {
            self.remove_event(id);
        }
        if self.bytes + bytes > self.bytes_max {
            return Err(StoreError::Full("the memory for events is used up".to_owned()));
        }
        Ok(())
    }

    fn lookup(&mut self, now_ms: i64, keys: &Keys) -> Known {
        let Ok(verdict) = judge(keys, |key| Ok::<_, std::convert::Infallible>(self.keys.known(key, now_ms)));
        match verdict {
            Verdict::New => Known::No,
            Verdict::Conflict { first } => Known::Conflict { first },
            Verdict::Copy { first, .. } => {
                self.note_copy(now_ms, first, keys);
                Known::Copy { first, answer: self.answer(now_ms, first) }
            }
        }
    }

    fn note_copy(&mut self, now_ms: i64, first: EventId, keys: &Keys) {
        self.count_copy(first);
        if let Some(source) = self.keys.source_of(first) {
            self.keys.remember(first, &source, keys, now_ms);
        }
    }

    fn count_copy(&mut self, first: EventId) {
        if let Some(stored) = self.events.get_mut(&first) {
            stored.event.copies += 1;
        }
    }

    fn answer(&self, now_ms: i64, event: EventId) -> Option<Answer> {
        let (answer, expires_at) = self.answers.get(&event)?;
        (*expires_at > now_ms).then(|| answer.clone())
    }

    /// An answer is a convenience for copies: where there is no room, those that expire first give way.
    fn keep_answer(&mut self, now_ms: i64, event: EventId, answer: Answer, kept: Duration) {
        self.drop_answer(event);
        let bytes = answer_bytes(&answer);
        while self.bytes + bytes > self.bytes_max {
            let Some((_, soonest)) = self.answers_expiring.first().copied() else { return };
            self.drop_answer(soonest);
        }
        let expires_at = after(now_ms, kept);
        self.bytes += bytes;
        self.answers_expiring.insert((expires_at, event));
        self.answers.insert(event, (answer, expires_at));
    }

    fn drop_answer(&mut self, event: EventId) {
        if let Some((answer, expires_at)) = self.answers.remove(&event) {
            self.answers_expiring.remove(&(expires_at, event));
            self.bytes -= answer_bytes(&answer);
        }
    }

    fn lease(&mut self, now_ms: i64, upstream: &str, max: usize, length: Duration) -> Vec<Leased> {
        let Some(due) = self.due.get(upstream) else { return Vec::new() };
        let numbers: Vec<i64> =
            due.iter().take_while(|(at, _)| *at <= now_ms).take(max).map(|(_, number)| *number).collect();
        let mut leased = Vec::with_capacity(numbers.len());
        for number in numbers {
            self.change(number, |placed| {
                if placed.state == State::Leased {
                    placed.cause = cause::LEASE_LAPSED;
                }
                placed.state = State::Leased;
                placed.due_at = after(now_ms, length);
                placed.fence += 1;
            });
            let placed = &self.deliveries[&number];
            leased.push(Leased {
                lease: Lease { delivery: number, fence: placed.fence },
                event: self.events[&placed.event].event.clone(),
                upstream: Name::clone(&placed.upstream),
                attempt: placed.attempts + 1,
                cause: placed.cause.to_owned(),
                age: between(placed.armed_at, now_ms),
            });
        }
        leased
    }

    fn settle(&mut self, now_ms: i64, lease: Lease, settled: Settled) -> Result<(), StoreError> {
        let event = self.current(lease)?;
        let Settled { attempt, outcome, answer } = settled;
        let why = attempt.error.clone().or_else(|| attempt.status.map(|status| format!("status {status}")));
        let delivered = matches!(outcome, Outcome::Delivered { .. });
        let upstream = self.change(lease.delivery, |placed| {
            placed.attempts += 1;
            placed.history.push_back(Attempt { number: placed.attempts, cause: placed.cause.to_owned(), ..attempt });
            if placed.history.len() > HISTORY_MAX as usize {
                placed.history.pop_front();
            }
            placed.cause = cause::RETRY;
            (placed.state, placed.due_at, placed.reason) = match &outcome {
                Outcome::Delivered { .. } => (State::Delivered, now_ms, None),
                Outcome::Retry { after: delay } => (State::Due, after(now_ms, *delay), why),
                Outcome::Dead { reason } => (State::Dead, now_ms, Some(reason.clone())),
            };
            Name::clone(&placed.upstream)
        });
        if let Outcome::Delivered { items } = outcome {
            for item in items {
                self.acknowledge(now_ms, &upstream, item);
            }
        }
        if delivered && self.numbers_of(event).iter().all(|n| self.deliveries[n].state == State::Delivered) {
            self.finished.insert((now_ms, event));
            if let Some(stored) = self.events.get_mut(&event) {
                stored.finished_at = Some(now_ms);
            }
        }
        if let Some((answer, kept)) = answer {
            self.keep_answer(now_ms, event, answer, kept);
        }
        self.wake.push(upstream);
        Ok(())
    }

    fn acknowledge(&mut self, now_ms: i64, upstream: &Name, item: Item) {
        let (place, expires_at) = ((Name::clone(upstream), item.key), after(now_ms, ITEM_LIFE));
        if let Some((_, before)) = self.items.insert(place.clone(), (item.content, expires_at)) {
            self.items_expiring.remove(&(before, place.0.clone(), place.1));
        }
        self.items_expiring.insert((expires_at, place.0, place.1));
        if self.items.len() > ITEMS_MAX
            && let Some((_, upstream, key)) = self.items_expiring.pop_first()
        {
            self.items.remove(&(upstream, key));
        }
    }

    fn release(&mut self, now_ms: i64, id: EventId) -> Result<u32, StoreError> {
        let mut released = 0;
        for number in self.numbers_of(id) {
            if self.deliveries[&number].state == State::Held {
                self.arm(now_ms, number, cause::RELEASED);
                released += 1;
            }
        }
        if released == 0 { Err(StoreError::NotFound) } else { Ok(released) }
    }

    fn redeliver(&mut self, now_ms: i64, id: EventId, upstream: Option<&str>) -> Result<u32, StoreError> {
        if !self.events.contains_key(&id) {
            return Err(StoreError::NotFound);
        }
        let mut numbers = self.numbers_of(id);
        if let Some(upstream) = upstream {
            numbers.retain(|number| &*self.deliveries[number].upstream == upstream);
        }
        let anew = upstream.filter(|upstream| numbers.is_empty() && self.is_configured(upstream));
        numbers.retain(|number| {
            let placed = &self.deliveries[number];
            !matches!(placed.state, State::Leased | State::Held) && self.is_configured(&placed.upstream)
        });
        if let Some(upstream) = anew {
            numbers.push(self.insert_delivery(now_ms, id, &Name::from(upstream), Birth::Due));
        }
        if numbers.is_empty() {
            return Err(StoreError::NotFound);
        }
        for number in &numbers {
            self.arm(now_ms, *number, cause::REDELIVERY);
        }
        self.unfinish(id);
        Ok(u32::try_from(numbers.len()).unwrap_or(u32::MAX))
    }

    fn forget(&mut self, now_ms: i64, id: EventId) -> Result<u64, StoreError> {
        let live = self.keys.forget(id, now_ms);
        if live == 0 && !self.events.contains_key(&id) {
            return Err(StoreError::NotFound);
        }
        self.drop_answer(id);
        Ok(live)
    }

    fn purge(&mut self, now_ms: i64, id: EventId) -> Result<(), StoreError> {
        if !self.events.contains_key(&id)
            || self.numbers_of(id).iter().any(|number| self.deliveries[number].state == State::Leased)
        {
            return Err(StoreError::NotFound);
        }
        self.keys.forget(id, now_ms);
        self.drop_answer(id);
        self.remove_event(id);
        Ok(())
    }

    fn reconcile(&mut self, now_ms: i64, upstreams: &[Name]) -> BTreeMap<Name, u64> {
        self.configured = Some(upstreams.iter().cloned().collect());
        let mut parked = BTreeMap::new();
        let all: Vec<i64> = self.deliveries.keys().copied().collect();
        for number in all {
            let (configured, state) = {
                let placed = &self.deliveries[&number];
                (self.is_configured(&placed.upstream), placed.state)
            };
            match state {
                State::Due | State::Leased if !configured => self.change(number, |placed| {
                    if placed.state == State::Leased {
                        placed.cause = cause::LEASE_LAPSED;
                    }
                    placed.state = State::Parked;
                    placed.reason = Some(reason::UPSTREAM_REMOVED.to_owned());
                    placed.fence += 1;
                }),
                State::Parked if configured => {
                    let cause = self.deliveries[&number].cause;
                    self.arm(now_ms, number, cause);
                }
                _ => {}
            }
            let placed = &self.deliveries[&number];
            if placed.state == State::Parked {
                *parked.entry(Name::clone(&placed.upstream)).or_default() += 1;
            }
        }
        parked
    }

    fn sweep(&mut self, now_ms: i64, retention: Duration) -> Swept {
        let mut keys = self.keys.sweep(now_ms, SWEEP_SLICE);
        let mut more = keys == SWEEP_SLICE;
        while let Some((_, id)) = self.answers_expiring.first().copied().filter(|(at, _)| *at <= now_ms) {
            self.drop_answer(id);
            keys += 1;
        }
        while let Some((_, upstream, key)) = self.items_expiring.first().filter(|(at, ..)| *at <= now_ms).cloned() {
            self.items_expiring.pop_first();
            self.items.remove(&(upstream, key));
        }
        let until = now_ms.saturating_sub(i64::try_from(retention.as_millis()).unwrap_or(i64::MAX));
        let mut events = 0;
        while let Some((_, id)) = self.finished.first().copied().filter(|(at, _)| *at <= until) {
            if events == SWEEP_SLICE {
                more = true;
                break;
            }
            self.remove_event(id);
            events += 1;
        }
        Swept { keys: keys as u64, events: events as u64, more }
    }

    fn list(&self, now_ms: i64, filter: &Filter) -> Vec<Listed> {
        let newest_first = match filter.before {
            Some(before) => self.events.range(..before).rev(),
            None => self.events.range(..).rev(),
        };
        newest_first
            .map(|(_, stored)| stored)
            .filter(|stored| self.fits(stored, filter))
            .take(filter.limit.min(PAGE_MAX))
            .map(|stored| Listed {
                head: stored.event.head.clone(),
                body_bytes: stored.event.body.len() as u64,
                copies: stored.event.copies,
                deliveries: self.deliveries_shown(now_ms, stored, false),
            })
            .collect()
    }

    fn fits(&self, stored: &Stored, filter: &Filter) -> bool {
        let head = &stored.event.head;
        let is = |wanted: &Option<String>, found: Option<&str>| wanted.is_none() || wanted.as_deref() == found;
        let delivery_fits = (filter.upstream.is_none() && filter.state.is_none())
            || stored.deliveries.iter().map(|number| &self.deliveries[number]).any(|placed| {
                is(&filter.upstream, Some(&placed.upstream)) && filter.state.is_none_or(|state| state == placed.state)
            });
        is(&filter.source, Some(&head.source))
            && is(&filter.event_type, head.event_type.as_deref())
            && is(&filter.attempt_id, head.attempt_id.as_deref())
            && filter.since.is_none_or(|since| head.received_at >= since)
            && filter.until.is_none_or(|until| head.received_at < until)
            && delivery_fits
    }

    fn deliveries_shown(&self, now_ms: i64, stored: &Stored, with_history: bool) -> Vec<Delivery> {
        let shown = |number: &i64| {
            let placed = &self.deliveries[number];
            Delivery {
                upstream: Name::clone(&placed.upstream),
                state: placed.state,
                reason: placed.reason.clone(),
                attempts: placed.attempts,
                due_in: (placed.state == State::Due).then(|| between(now_ms, placed.due_at)),
                history: if with_history { placed.history.iter().cloned().collect() } else { Vec::new() },
            }
        };
        stored.deliveries.iter().map(shown).collect()
    }

    fn stats(&self, now_ms: i64) -> Stats {
        let mut stats = Stats {
            events: self.events.len() as u64,
            keys: self.keys.len() as u64,
            bytes: self.bytes,
            ..Stats::default()
        };
        for placed in self.deliveries.values() {
            *stats.deliveries.entry((Name::clone(&placed.upstream), placed.state)).or_default() += 1;
            if placed.state == State::Due {
                let oldest = stats.oldest_due.entry(Name::clone(&placed.upstream)).or_default();
                *oldest = (*oldest).max(between(placed.armed_at, now_ms));
            }
        }
        stats
    }

    // ---- Parts.

    fn numbers_of(&self, event: EventId) -> Vec<i64> {
        self.events.get(&event).map(|stored| stored.deliveries.clone()).unwrap_or_default()
    }

    /// The event of a lease that is still its holder's.
    fn current(&self, lease: Lease) -> Result<EventId, StoreError> {
        self.deliveries
            .get(&lease.delivery)
            .filter(|placed| placed.state == State::Leased && placed.fence == lease.fence)
            .map(|placed| placed.event)
            .ok_or(StoreError::LeaseLost)
    }

    fn arm(&mut self, now_ms: i64, number: i64, cause: &'static str) {
        let configured = self.is_configured(&self.deliveries[&number].upstream);
        let upstream = self.change(number, |placed| {
            placed.state = if configured { State::Due } else { State::Parked };
            placed.reason = (!configured).then(|| reason::UPSTREAM_REMOVED.to_owned());
            (placed.due_at, placed.armed_at, placed.cause) = (now_ms, now_ms, cause);
            Name::clone(&placed.upstream)
        });
        if configured {
            self.wake.push(upstream);
        }
    }

    /// Changes a delivery and keeps the list of what is due in step.
    fn change<T>(&mut self, number: i64, change: impl FnOnce(&mut Placed) -> T) -> T {
        self.unlist_due(number);
        let changed = change(self.deliveries.get_mut(&number).expect("a listed delivery exists"));
        self.list_due(number);
        changed
    }

    fn list_due(&mut self, number: i64) {
        let placed = &self.deliveries[&number];
        if matches!(placed.state, State::Due | State::Leased) {
            self.due.entry(Name::clone(&placed.upstream)).or_default().insert((placed.due_at, number));
        }
    }

    fn unlist_due(&mut self, number: i64) {
        let placed = &self.deliveries[&number];
        if let Some(due) = self.due.get_mut(&placed.upstream) {
            due.remove(&(placed.due_at, number));
            if due.is_empty() {
                self.due.remove(&placed.upstream);
            }
        }
    }

    fn unfinish(&mut self, event: EventId) {
        if let Some(stored) = self.events.get_mut(&event)
            && let Some(at) = stored.finished_at.take()
        {
            self.finished.remove(&(at, event));
        }
    }

    fn remove_event(&mut self, id: EventId) {
        self.unfinish(id);
        if let Some(stored) = self.events.remove(&id) {
            self.bytes -= event_bytes(&stored.event.head, &stored.event.body);
            for number in stored.deliveries {
                self.unlist_due(number);
                self.deliveries.remove(&number);
            }
        }
    }
}

fn event_bytes(head: &EventHead, body: &Body) -> u64 {
    let headers: usize = head.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    (body.len() + headers) as u64 + OVERHEAD_BYTES
}

fn answer_bytes(answer: &Answer) -> u64 {
    answer.body.len() as u64 + 128
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
        ready(move || self.with(|inner, now_ms| inner.purge(now_ms, id)))
    }

    fn reconcile(&self, upstreams: &[Name]) -> BoxFuture<'_, Result<BTreeMap<Name, u64>, StoreError>> {
        let upstreams = upstreams.to_vec();
        ready(move || self.with(|inner, now_ms| Ok(inner.reconcile(now_ms, &upstreams))))
    }

    fn list(&self, filter: Filter) -> BoxFuture<'_, Result<Vec<Listed>, StoreError>> {
        ready(move || self.with(|inner, now_ms| Ok(inner.list(now_ms, &filter))))
    }

    fn show(&self, id: EventId) -> BoxFuture<'_, Result<Shown, StoreError>> {
        ready(move || {
            self.with(|inner, now_ms| {
                let stored = inner.events.get(&id).ok_or(StoreError::NotFound)?;
                let deliveries = inner.deliveries_shown(now_ms, stored, true);
                Ok(Shown { event: stored.event.clone(), deliveries })
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
