//! What the store holds, and what is done with it under its lock.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use super::{
    super::{
        Appended, Filter, Known, Lease, Leased, Listed, Outcome, Page, Settled, Stats, StoreError, Swept,
        elapsed::{after, between},
        judge::{
            Birth, HISTORY_MAX, ITEM_LIFE, PAGE_MAX, Resend, SWEEP_SLICE, Verdict, birth, cause, judge, rearms, reason,
            resend,
        },
    },
    Options,
    keys::KeyTable,
};
use crate::{
    event::{Answer, Attempt, Body, Delivery, Event, EventHead, EventId, Item, Name, NewEvent, OnConflict, State},
    verify::{Key, Keys},
};

/// What an event takes besides its body and headers.
pub(super) const OVERHEAD_BYTES: u64 = 1024;
/// Items remembered; beyond that the longest known are forgotten.
const ITEMS_MAX: usize = 100_000;

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) keys: KeyTable,
    pub(super) bytes: u64,
    pub(super) bytes_max: u64,
    pub(super) events: BTreeMap<EventId, Stored>,
    pub(super) deliveries: BTreeMap<i64, Placed>,
    pub(super) next_delivery: i64,
    /// Due and leased deliveries of an upstream, by the time at which they may be taken.
    pub(super) due: HashMap<Name, BTreeSet<(i64, i64)>>,
    pub(super) finished: BTreeSet<(i64, EventId)>,
    pub(super) answers: HashMap<EventId, (Answer, i64)>,
    pub(super) answers_expiring: BTreeSet<(i64, EventId)>,
    pub(super) items: HashMap<(Name, Key), ([u8; 32], i64)>,
    pub(super) items_expiring: BTreeSet<(i64, Name, Key)>,
    pub(super) configured: Option<BTreeSet<Name>>,
    pub(super) wake: Vec<Name>,
}

#[derive(Debug)]
pub(super) struct Stored {
    pub(super) event: Event,
    pub(super) deliveries: Vec<i64>,
    pub(super) finished_at: Option<i64>,
}

#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) event: EventId,
    pub(super) upstream: Name,
    pub(super) state: State,
    pub(super) reason: Option<String>,
    pub(super) attempts: u32,
    /// Of a leased one: when its lease lapses.
    pub(super) due_at: i64,
    pub(super) armed_at: i64,
    pub(super) fence: i64,
    pub(super) cause: &'static str,
    pub(super) history: VecDeque<Attempt>,
}

impl Inner {
    pub(super) fn new(options: &Options) -> Self {
        Self {
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
        }
    }

    pub(super) fn is_configured(&self, upstream: &str) -> bool {
        self.configured.as_ref().is_none_or(|all| all.contains(upstream))
    }

    pub(super) fn append(&mut self, now_ms: i64, event: NewEvent) -> Result<Appended, StoreError> {
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

    pub(super) fn store_new(
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

    pub(super) fn store(
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

    pub(super) fn insert_delivery(&mut self, now_ms: i64, event: EventId, upstream: &Name, born: Birth) -> i64 {
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

    pub(super) fn make_room(&mut self, now_ms: i64, keys: &Keys, bytes: u64) -> Result<(), StoreError> {
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

    pub(super) fn lookup(&mut self, now_ms: i64, keys: &Keys) -> Known {
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

    pub(super) fn note_copy(&mut self, now_ms: i64, first: EventId, keys: &Keys) {
        self.count_copy(first);
        if let Some(source) = self.keys.source_of(first) {
            self.keys.remember(first, &source, keys, now_ms);
        }
    }

    pub(super) fn count_copy(&mut self, first: EventId) {
        if let Some(stored) = self.events.get_mut(&first) {
            stored.event.copies += 1;
        }
    }

    pub(super) fn answer(&self, now_ms: i64, event: EventId) -> Option<Answer> {
        let (answer, expires_at) = self.answers.get(&event)?;
        (*expires_at > now_ms).then(|| answer.clone())
    }

    /// An answer is a convenience for copies: where there is no room, those that expire first give way.
    pub(super) fn keep_answer(&mut self, now_ms: i64, event: EventId, answer: Answer, kept: Duration) {
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

    pub(super) fn drop_answer(&mut self, event: EventId) {
        if let Some((answer, expires_at)) = self.answers.remove(&event) {
            self.answers_expiring.remove(&(expires_at, event));
            self.bytes -= answer_bytes(&answer);
        }
    }

    pub(super) fn lease(&mut self, now_ms: i64, upstream: &str, max: usize, length: Duration) -> Vec<Leased> {
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
                tries: placed.attempts,
                redelivery: false,
                uncertain: false,
                ordered: false,
                cause: placed.cause.to_owned(),
                age: between(placed.armed_at, now_ms),
            });
        }
        leased
    }

    pub(super) fn settle(&mut self, now_ms: i64, lease: Lease, settled: Settled) -> Result<(), StoreError> {
        let event = self.current(lease)?;
        let Settled { attempt, outcome, answer, uncertain: _ } = settled;
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

    pub(super) fn acknowledge(&mut self, now_ms: i64, upstream: &Name, item: Item) {
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

    pub(super) fn release(&mut self, now_ms: i64, id: EventId) -> Result<u32, StoreError> {
        let mut released = 0;
        for number in self.numbers_of(id) {
            if self.deliveries[&number].state == State::Held {
                self.arm(now_ms, number, cause::RELEASED);
                released += 1;
            }
        }
        if released == 0 { Err(StoreError::NotFound) } else { Ok(released) }
    }

    pub(super) fn redeliver(&mut self, now_ms: i64, id: EventId, upstream: Option<&str>) -> Result<u32, StoreError> {
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

    pub(super) fn forget(&mut self, now_ms: i64, id: EventId) -> Result<u64, StoreError> {
        let live = self.keys.live(id, now_ms);
        if live == 0 && !self.events.contains_key(&id) {
            return Err(StoreError::NotFound);
        }
        self.keys.forget(id);
        self.drop_answer(id);
        Ok(live)
    }

    pub(super) fn purge(&mut self, id: EventId) -> Result<(), StoreError> {
        if !self.events.contains_key(&id)
            || self.numbers_of(id).iter().any(|number| self.deliveries[number].state == State::Leased)
        {
            return Err(StoreError::NotFound);
        }
        self.keys.forget(id);
        self.drop_answer(id);
        self.remove_event(id);
        Ok(())
    }

    pub(super) fn reconcile(&mut self, now_ms: i64, upstreams: &[Name]) -> BTreeMap<Name, u64> {
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

    pub(super) fn sweep(&mut self, now_ms: i64, retention: Duration) -> Swept {
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

    pub(super) fn list(&self, now_ms: i64, filter: &Filter, limit: usize) -> Page {
        let newest_first = match filter.before {
            Some(before) => self.events.range(..before).rev(),
            None => self.events.range(..).rev(),
        };
        let events: Vec<Listed> = newest_first
            .map(|(_, stored)| stored)
            .filter(|stored| self.fits(stored, filter))
            .take(limit.min(PAGE_MAX))
            .map(|stored| Listed {
                head: stored.event.head.clone(),
                body_bytes: stored.event.body.len() as u64,
                copies: stored.event.copies,
                deliveries: self.deliveries_shown(now_ms, stored, false),
            })
            .collect();
        let next = events.last().filter(|_| events.len() >= limit).map(|last| last.head.id);
        Page { events, next }
    }

    pub(super) fn fits(&self, stored: &Stored, filter: &Filter) -> bool {
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

    pub(super) fn deliveries_shown(&self, now_ms: i64, stored: &Stored, with_history: bool) -> Vec<Delivery> {
        let shown = |number: &i64| {
            let placed = &self.deliveries[number];
            Delivery {
                upstream: Name::clone(&placed.upstream),
                state: placed.state,
                reason: placed.reason.clone(),
                attempts: placed.attempts,
                due_in: (placed.state == State::Due).then(|| between(now_ms, placed.due_at)),
                order_key: None,
                history: if with_history { placed.history.iter().cloned().collect() } else { Vec::new() },
            }
        };
        stored.deliveries.iter().map(shown).collect()
    }

    pub(super) fn stats(&self, now_ms: i64) -> Stats {
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

    pub(super) fn numbers_of(&self, event: EventId) -> Vec<i64> {
        self.events.get(&event).map(|stored| stored.deliveries.clone()).unwrap_or_default()
    }

    /// The event of a lease that is still its holder's.
    pub(super) fn current(&self, lease: Lease) -> Result<EventId, StoreError> {
        self.deliveries
            .get(&lease.delivery)
            .filter(|placed| placed.state == State::Leased && placed.fence == lease.fence)
            .map(|placed| placed.event)
            .ok_or(StoreError::LeaseLost)
    }

    pub(super) fn arm(&mut self, now_ms: i64, number: i64, cause: &'static str) {
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
    pub(super) fn change<T>(&mut self, number: i64, change: impl FnOnce(&mut Placed) -> T) -> T {
        self.unlist_due(number);
        let changed = change(self.deliveries.get_mut(&number).expect("a listed delivery exists"));
        self.list_due(number);
        changed
    }

    pub(super) fn list_due(&mut self, number: i64) {
        let placed = &self.deliveries[&number];
        if matches!(placed.state, State::Due | State::Leased) {
            self.due.entry(Name::clone(&placed.upstream)).or_default().insert((placed.due_at, number));
        }
    }

    pub(super) fn unlist_due(&mut self, number: i64) {
        let placed = &self.deliveries[&number];
        if let Some(due) = self.due.get_mut(&placed.upstream) {
            due.remove(&(placed.due_at, number));
            if due.is_empty() {
                self.due.remove(&placed.upstream);
            }
        }
    }

    pub(super) fn unfinish(&mut self, event: EventId) {
        if let Some(stored) = self.events.get_mut(&event)
            && let Some(at) = stored.finished_at.take()
        {
            self.finished.remove(&(at, event));
        }
    }

    pub(super) fn remove_event(&mut self, id: EventId) {
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
