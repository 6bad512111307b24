//! What the store holds, and how an event comes into it, under its lock.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::{
    super::{
        Appended, Known, Lease, Operation, Pause, StoreError,
        judge::{
            Birth, Resend, Verdict, birth, cause, check_share, check_unverified, event_bytes, judge, rearms, resend,
            share_bytes_max, unverified_bytes_max,
        },
    },
    Options,
    keys::KeyTable,
    placed::{Placed, Stored, Turn},
    queues::Queues,
};
use crate::{
    event::{Answer, Body, Event, EventHead, EventId, Name, NewEvent, OnConflict, OrderKey},
    verify::{Key, Keys},
};

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) keys: KeyTable,
    pub(super) bytes: u64,
    pub(super) bytes_max: u64,
    /// What the undelivered events of an upstream take, and what they may take.
    pub(super) open_bytes: BTreeMap<Name, u64>,
    pub(super) share_bytes_max: u64,
    pub(super) events: BTreeMap<EventId, Stored>,
    pub(super) deliveries: BTreeMap<i64, Placed>,
    pub(super) next_delivery: i64,
    pub(super) queues: Queues,
    pub(super) finished: BTreeSet<(i64, EventId)>,
    pub(super) answers: HashMap<EventId, (Answer, i64)>,
    pub(super) answers_expiring: BTreeSet<(i64, EventId)>,
    pub(super) items: HashMap<(Name, Key), ([u8; 32], i64)>,
    pub(super) items_expiring: BTreeSet<(i64, Name, Key)>,
    pub(super) operations: BTreeMap<EventId, Operation>,
    pub(super) pauses: BTreeMap<Name, Pause>,
    pub(super) configured: Option<BTreeSet<Name>>,
    pub(super) wake: Vec<Name>,
}

impl Inner {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            keys: KeyTable::new(options.keys_max, options.on_full),
            bytes: 0,
            bytes_max: options.bytes_max,
            open_bytes: BTreeMap::new(),
            share_bytes_max: share_bytes_max(options.disk_share_max, options.bytes_max),
            events: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            next_delivery: 1,
            queues: Queues::default(),
            finished: BTreeSet::new(),
            answers: HashMap::new(),
            answers_expiring: BTreeSet::new(),
            items: HashMap::new(),
            items_expiring: BTreeSet::new(),
            operations: BTreeMap::new(),
            pauses: BTreeMap::new(),
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
                                self.arm(now_ms, number, Some(cause::RE_SEND));
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
        let NewEvent { head, body, keys, upstreams, begin, order_key, keep_body, .. } = event;
        let (id, source, bytes) = (head.id, Name::clone(&head.source), event_bytes(&head, body.len()));
        for upstream in &upstreams {
            let open_bytes = self.open_bytes.get(upstream).copied().unwrap_or(0);
            check_share(upstream, open_bytes, bytes, self.share_bytes_max)?;
        }
        let open_bytes = || self.open_bytes.values().sum();
        check_unverified(&head, open_bytes, bytes * upstreams.len() as u64, unverified_bytes_max(self.bytes_max))?;
        self.make_room(now_ms, &keys, bytes)?;
        self.bytes += bytes;
        self.keys.remember(id, &source, &keys, now_ms);
        let unrouted = upstreams.is_empty();
        let finished_at = unrouted.then_some(now_ms);
        if let Some(at) = finished_at {
            self.finished.insert((at, id));
        }
        let stored = Stored {
            body_bytes: body.len(),
            body_removed: false,
            keep_body,
            unrouted,
            // The share of the request's budget must not live as long as the event does.
            event: Event { head, body: Body::free(body.bytes().clone()), copies: 0 },
            deliveries: Vec::new(),
            finished_at,
        };
        self.events.insert(id, stored);
        let mut lease = None;
        for (index, upstream) in upstreams.iter().enumerate() {
            if upstreams[..index].contains(upstream) {
                continue;
            }
            let turn = Turn::new(upstream, &source, order_key.as_ref());
            let is_taken = turn.is_some_and(|turn| self.queues.is_taken(&turn));
            let born = birth(begin, conflict, index == 0, self.is_configured(upstream)).in_turn(is_taken);
            let delivery = self.insert_delivery(now_ms, id, upstream, order_key.clone(), born);
            match born {
                Birth::Leased(_) => lease = Some(Lease { delivery, fence: 0 }),
                Birth::Due => self.wake.push(Name::clone(upstream)),
                Birth::Waits | Birth::Held(_) | Birth::Parked => {}
            }
        }
        Ok(lease)
    }

    /// Makes a delivery of an event that is stored.
    pub(super) fn insert_delivery(
        &mut self,
        now_ms: i64,
        id: EventId,
        upstream: &Name,
        order_key: Option<OrderKey>,
        born: Birth,
    ) -> i64 {
        let number = self.next_delivery;
        self.next_delivery += 1;
        let stored = self.events.get_mut(&id).expect("its event is stored");
        stored.deliveries.push(number);
        let placed = Placed {
            event: id,
            upstream: Name::clone(upstream),
            source: Name::clone(&stored.event.head.source),
            order_key,
            state: born.state(),
            reason: born.reason().map(str::to_owned),
            attempts: 0,
            tries: 0,
            due_at: born.due_at(now_ms),
            armed_at: now_ms,
            fence: 0,
            cause: cause::FIRST,
            redelivery: false,
            uncertain: false,
            bytes: event_bytes(&stored.event.head, stored.body_bytes),
            history: VecDeque::new(),
        };
        self.enter(number, &placed);
        self.deliveries.insert(number, placed);
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
            self.remove_event(now_ms, id);
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
}
