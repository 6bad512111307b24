//! Deliveries at work: taken, settled, armed, and the turns that pass on when one leaves its queue.

use std::time::Duration;

use super::{
    super::{
        Lease, Leased, Outcome, Settled, StoreError, Swept,
        elapsed::{after, between},
        judge::{Birth, HISTORY_MAX, SWEEP_SLICE, armed, cause, is_redelivery, is_uncertain},
    },
    inner::Inner,
    placed::{Placed, Turn},
};
use crate::event::{Attempt, Body, EventId, Name, State};

impl Inner {
    pub(super) fn lease(&mut self, now_ms: i64, upstream: &str, max: usize, length: Duration) -> Vec<Leased> {
        let (deliveries, events) = (&self.deliveries, &self.events);
        let body_bytes = |number: i64| events[&deliveries[&number].event].body_bytes;
        let numbers = self.queues.pick(now_ms, upstream, max, body_bytes);
        let mut leased = Vec::with_capacity(numbers.len());
        for number in numbers {
            self.change(now_ms, number, |placed| {
                placed.lapse(cause::LEASE_LAPSED);
                (placed.state, placed.due_at) = (State::Leased, after(now_ms, length));
                placed.fence += 1;
            });
            let placed = &self.deliveries[&number];
            leased.push(Leased {
                lease: Lease { delivery: number, fence: placed.fence },
                event: self.events[&placed.event].event.clone(),
                upstream: Name::clone(&placed.upstream),
                attempt: placed.attempts + 1,
                tries: placed.tries,
                redelivery: placed.redelivery,
                uncertain: placed.uncertain,
                ordered: placed.order_key.is_some(),
                cause: placed.cause.to_owned(),
                age: between(placed.armed_at, now_ms),
            });
        }
        leased
    }

    pub(super) fn settle(&mut self, now_ms: i64, lease: Lease, settled: Settled) -> Result<(), StoreError> {
        let event = self.current(lease)?;
        let upstream = self.change(now_ms, lease.delivery, |placed| {
            placed.uncertain = is_uncertain(placed.uncertain, &settled);
            record(placed, &settled.attempt);
            (placed.state, placed.due_at, placed.reason) = match &settled.outcome {
                Outcome::Delivered { .. } => (State::Delivered, now_ms, None),
                Outcome::Retry { after: delay } => (State::Due, after(now_ms, *delay), why(&settled.attempt)),
                Outcome::Dead { reason } => (State::Dead, now_ms, Some(reason.clone())),
            };
            Name::clone(&placed.upstream)
        });
        if let Outcome::Delivered { items } = settled.outcome {
            for item in items {
                self.acknowledge(now_ms, &upstream, item);
            }
            self.finish(now_ms, event);
        }
        if let Some((answer, kept)) = settled.answer {
            self.keep_answer(now_ms, event, answer, kept);
        }
        self.wake.push(upstream);
        Ok(())
    }

    pub(super) fn give_back(&mut self, now_ms: i64, lease: Lease, delay: Duration) -> Result<(), StoreError> {
        self.current(lease)?;
        let upstream = self.change(now_ms, lease.delivery, |placed| {
            (placed.state, placed.due_at) = (State::Due, after(now_ms, delay));
            Name::clone(&placed.upstream)
        });
        self.wake.push(upstream);
        Ok(())
    }

    /// The event of a lease that is still its holder's.
    fn current(&self, lease: Lease) -> Result<EventId, StoreError> {
        self.deliveries
            .get(&lease.delivery)
            .filter(|placed| placed.state == State::Leased && placed.fence == lease.fence)
            .map(|placed| placed.event)
            .ok_or(StoreError::LeaseLost)
    }

    /// Makes a delivery due, with its age and its tries counted anew. Without a cause it keeps the one it has.
    pub(super) fn arm(&mut self, now_ms: i64, number: i64, cause: Option<&'static str>) {
        let placed = &self.deliveries[&number];
        let is_taken = placed.turn().is_some_and(|turn| self.queues.is_taken_by_another(&turn, number));
        let born = armed(self.is_configured(&placed.upstream), is_taken);
        let upstream = self.change(now_ms, number, |placed| {
            (placed.state, placed.reason) = (born.state(), born.reason().map(str::to_owned));
            (placed.due_at, placed.armed_at, placed.tries) = (born.due_at(now_ms), now_ms, 0);
            if let Some(cause) = cause {
                (placed.cause, placed.redelivery) = (cause, is_redelivery(cause));
            }
            Name::clone(&placed.upstream)
        });
        if born == Birth::Due {
            self.wake.push(upstream);
        }
    }

    /// Changes a delivery. If it leaves its queue by that, the turn passes on.
    pub(super) fn change<T>(&mut self, now_ms: i64, number: i64, change: impl FnOnce(&mut Placed) -> T) -> T {
        let (changed, turn) = self.place(number, change);
        if let Some(turn) = turn {
            self.pass_on(now_ms, &turn);
        }
        changed
    }

    /// Changes a delivery and keeps queues and shares in step.
    pub(super) fn place<T>(&mut self, number: i64, change: impl FnOnce(&mut Placed) -> T) -> (T, Option<Turn>) {
        let mut placed = self.deliveries.remove(&number).expect("a listed delivery exists");
        self.leave(number, &placed);
        let changed = change(&mut placed);
        self.enter(number, &placed);
        let turn = placed.turn();
        self.deliveries.insert(number, placed);
        (changed, turn)
    }

    fn pass_on(&mut self, now_ms: i64, turn: &Turn) {
        if let Some(next) = self.queues.next(turn) {
            let (upstream, _) = self.place(next, |placed| {
                (placed.due_at, placed.armed_at) = (now_ms, now_ms);
                (placed.tries, placed.reason) = (0, None);
                Name::clone(&placed.upstream)
            });
            self.wake.push(upstream);
        }
    }

    pub(super) fn enter(&mut self, number: i64, placed: &Placed) {
        self.queues.enter(number, placed);
        if placed.state != State::Delivered {
            *self.open_bytes.entry(Name::clone(&placed.upstream)).or_default() += placed.bytes;
        }
    }

    fn leave(&mut self, number: i64, placed: &Placed) {
        self.queues.leave(number, placed);
        if placed.state != State::Delivered
            && let Some(open) = self.open_bytes.get_mut(&placed.upstream)
        {
            *open -= placed.bytes;
            if *open == 0 {
                self.open_bytes.remove(&placed.upstream);
            }
        }
    }

    /// Begins the retention of an event if all its deliveries are delivered, and removes a body that is not kept.
    fn finish(&mut self, now_ms: i64, id: EventId) {
        let Some(stored) = self.events.get_mut(&id) else { return };
        if stored.deliveries.iter().any(|number| self.deliveries[number].state != State::Delivered) {
            return;
        }
        stored.finished_at = Some(now_ms);
        self.finished.insert((now_ms, id));
        if !stored.keep_body && !stored.body_removed {
            stored.body_removed = true;
            stored.event.body = Body::free(Vec::new());
            self.bytes -= stored.body_bytes as u64;
        }
    }

    pub(super) fn unfinish(&mut self, event: EventId) {
        if let Some(stored) = self.events.get_mut(&event)
            && let Some(at) = stored.finished_at.take()
        {
            self.finished.remove(&(at, event));
        }
    }

    pub(super) fn remove_event(&mut self, now_ms: i64, id: EventId) {
        self.unfinish(id);
        let Some(stored) = self.events.remove(&id) else { return };
        self.bytes -= stored.bytes();
        for number in stored.deliveries {
            let Some(placed) = self.deliveries.remove(&number) else { continue };
            self.leave(number, &placed);
            if let Some(turn) = placed.turn() {
                self.pass_on(now_ms, &turn);
            }
        }
    }

    pub(super) fn sweep(&mut self, now_ms: i64, retention: Duration) -> Swept {
        let mut keys = self.keys.sweep(now_ms, SWEEP_SLICE);
        let mut more = keys == SWEEP_SLICE;
        keys += self.sweep_kept(now_ms);
        let until = now_ms.saturating_sub(i64::try_from(retention.as_millis()).unwrap_or(i64::MAX));
        let mut events = 0;
        while let Some((_, id)) = self.finished.first().copied().filter(|(at, _)| *at <= until) {
            if events == SWEEP_SLICE {
                more = true;
                break;
            }
            self.remove_event(now_ms, id);
            events += 1;
        }
        Swept { keys: keys as u64, events: events as u64, more }
    }
}

/// Counts an attempt and keeps it.
fn record(placed: &mut Placed, attempt: &Attempt) {
    placed.attempts += 1;
    placed.tries += 1;
    let attempt = Attempt { number: placed.attempts, cause: placed.cause.to_owned(), ..attempt.clone() };
    placed.history.push_back(attempt);
    if placed.history.len() > HISTORY_MAX as usize {
        placed.history.pop_front();
    }
    placed.cause = cause::RETRY;
}

/// Why an attempt is followed by another, for people.
fn why(attempt: &Attempt) -> Option<String> {
    attempt.error.clone().or_else(|| attempt.status.map(|status| format!("status {status}")))
}
